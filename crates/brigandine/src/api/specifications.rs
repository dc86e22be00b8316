//! `/jobsets`, `/specifications`, `/api/jobsets`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use crate::context::Context;
use crate::http::{Result, json};
use crate::store;
use crate::wire::SpecificationJson;

/// All specifications, by name.
pub(super) async fn list(State(context): State<Context>) -> Result<Response> {
    let all = context.read_few(store::specifications).await?;
    let all: Vec<_> =
        all.iter().map(|state| SpecificationJson::from(&state.specification)).collect();
    Ok(json(StatusCode::OK, &all))
}
