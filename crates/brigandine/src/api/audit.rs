//! `/api/v1/audit`: which changes were made, by whom and why.

use axum::http::StatusCode;
use axum::response::Response;

use super::parameters::EVALUATION;
use crate::context::{Context, Reading};
use crate::http::{Query, Result, json};
use crate::model::AuditFilter;
use crate::openapi::{Described, Dialect, Kind, Operation, Parameter};
use crate::store::visible;
use crate::wire::AuditJson;

/// How many rows are listed when the request names no number.
const ROWS: u32 = 100;

pub(super) fn routes() -> Described<Context> {
    let number = Kind::Range(1, 1000);
    let of = [
        Parameter::new("nr", number, "10", "How many entries the answer has at most; else 100."),
        Parameter::new("build", Kind::Number, "1", "Only changes of this build."),
        EVALUATION,
        Parameter::new("specification", Kind::Text, "hello", "The name of a specification."),
        Parameter::new("before", Kind::Number, "9", "Only entries with lower numbers."),
    ];
    let operation = Operation::new(Dialect::Own, "Changes that were made, the latest first")
        .takes(&of)
        .json::<Vec<AuditJson>>(200, "The changes.")
        .refuses_numbers();
    Described::new().get("/api/v1/audit", list, operation)
}

/// Changes that were made, the latest first.
async fn list(context: Reading, query: Query) -> Result<Response> {
    let number = if query.get("nr").is_some() { query.number_of_entries()? } else { ROWS };
    let filter = AuditFilter {
        build: query.parsed("build")?,
        evaluation: query.parsed("evaluation")?,
        specification: query.get("specification"),
        before: query.parsed("before")?,
    };
    let rows = context.read(move |s| visible::audit(s, &filter, number)).await?;
    let rows: Vec<AuditJson> = rows.into_iter().map(AuditJson::from).collect();
    Ok(json(StatusCode::OK, &rows))
}
