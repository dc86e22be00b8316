//! `/api/v1/eval/ID/compare`: how the jobs of an evaluation differ from those of another one.

use axum::extract::Extension;
use axum::http::StatusCode;
use axum::response::Response;

use super::parameters::EVALUATION_ID;
use crate::auth::Visitor;
use crate::context::{Context, Reading};
use crate::http::{HttpError, Path, Query, Result, json};
use crate::model::{BuildId, ComparedJob, EvaluationId, EvaluationStatus, JobChange};
use crate::openapi::{Described, Dialect, Kind, Operation, Parameter};
use crate::store::{Comparison, ComparisonFilter, Visible, visible};
use crate::wire::ComparisonJson;

/// How many jobs are listed when the request names no number.
const ROWS: u32 = 100;

pub(super) fn routes() -> Described<Context> {
    let kinds = Kind::OneOf(&JobChange::NAMES);
    let other = "The other evaluation: its number, or the beginning of one of its revisions; else the one before.";
    let parameters = [
        EVALUATION_ID,
        Parameter::new("with", Kind::Text, "1", other),
        Parameter::new("change", kinds, "fixed", "Which jobs are listed; else newly failing ones."),
        Parameter::new("text", Kind::Text, "e", "Only jobs whose names contain this text."),
        Parameter::new("nr", Kind::Range(1, 1000), "10", "The most jobs to list; else 100."),
        Parameter::new("after", Kind::Text, "compile", "Only jobs behind this one, by name."),
        Parameter::new("build", Kind::Number, "1", "The build of the job `after`."),
    ];
    let operation = Operation::new(Dialect::Own, "How the jobs of two evaluations differ")
        .takes(&parameters)
        .json::<ComparisonJson>(200, "The jobs that differ in one way.")
        .refuses(400, "A parameter is not valid, or one of the evaluations has no jobs.")
        .refuses(404, "There is no such evaluation.")
        .refuses_numbers();
    Described::new().get("/api/v1/eval/{id}/compare", compare, operation)
}

/// The parameters of a request.
#[derive(Clone)]
struct Asked {
    number: EvaluationId,
    /// The other evaluation as the request names it; `None`: the one before.
    with: Option<String>,
    filter: ComparisonFilter,
    /// Whether the sender may read every specification.
    everything: bool,
}

/// The result of a read.
enum Found {
    Compared(EvaluationId, Box<Comparison>),
    Missing,
    /// There is no evaluation to compare with.
    NoOther,
    /// This evaluation has no list of jobs.
    NoJobs(EvaluationId),
}

impl Asked {
    fn read(&self, s: &Visible<'_>) -> rusqlite::Result<Found> {
        let Some(details) = visible::evaluation_details(s, self.number)? else {
            return Ok(Found::Missing);
        };
        let this = details.evaluation;
        let other = match (&self.with, details.previous) {
            (Some(text), _) => visible::other_evaluation(s, &this, text)?,
            (None, Some(previous)) => visible::evaluation(s, previous)?,
            (None, None) => None,
        };
        let may = |id| self.everything || id == this.specification_id;
        let Some(other) = other.filter(|other| may(other.specification_id)) else {
            return Ok(Found::NoOther);
        };
        for one in [&this, &other] {
            if one.status != EvaluationStatus::Succeeded {
                return Ok(Found::NoJobs(one.id));
            }
        }
        let compared = visible::compare(s, this.id, other.id, &self.filter)?;
        Ok(Found::Compared(other.id, Box::new(compared)))
    }
}

/// Compares an evaluation with another one.
async fn compare(
    context: Reading,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response> {
    let change = query.get("change").map(|change| change.parse::<JobChange>()).transpose();
    let change = change.map_err(HttpError::BadRequest)?.unwrap_or(JobChange::NewlyFailing);
    let (with, text) = (query.get("with"), query.get("text").unwrap_or_default());
    let build = query.parsed::<BuildId>("build")?.unwrap_or(BuildId::new(i64::MAX));
    let after = query.get("after").map(|job| (job, build));
    let limit = if query.get("nr").is_some() { query.number_of_entries()? } else { ROWS };
    let number: EvaluationId = id.parse().map_err(|_| HttpError::no_evaluation(&id))?;
    let filter =
        ComparisonFilter { text: text.clone(), after, ..ComparisonFilter::one(change, limit) };
    let everything = context.auth().may_read(&visitor);
    let asked = Asked { number, with: with.clone(), filter, everything };
    let (other, found) = match context.read(move |s| asked.read(s)).await? {
        Found::Compared(other, found) => (other, found),
        Found::Missing => return Err(HttpError::no_evaluation(&id)),
        Found::NoOther => {
            return Err(match with {
                Some(with) => HttpError::no_evaluation(&with),
                None => HttpError::not_found(format!("No evaluation precedes evaluation {id}.")),
            });
        }
        Found::NoJobs(id) => {
            return Err(HttpError::BadRequest(format!("evaluation {id} has no jobs to compare")));
        }
    };
    let next = |last: &ComparedJob| {
        let (nr, build) = (limit.to_string(), last.build.to_string());
        let mut query = form_urlencoded::Serializer::for_suffix("?".to_owned(), 1);
        // The evaluation by its number, since a later one may have the same revision.
        query.append_pair("with", &other.to_string()).append_pair("change", change.as_str());
        if !text.is_empty() {
            query.append_pair("text", &text);
        }
        query.append_pair("nr", &nr).append_pair("after", &last.name).append_pair("build", &build);
        query.finish()
    };
    Ok(json(StatusCode::OK, &ComparisonJson::new((number, other), change, *found, next)))
}
