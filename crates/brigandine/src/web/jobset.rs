//! `/jobset/NAME`: a specification's evaluations, newest first, paged by their numbers.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::layout::{Layout, or_refusal, render};
use super::rows::{self, EvaluationRow};
use super::view::{self, Moment};
use crate::context::Context;
use crate::http::{Path, Query, Refusal, Result};
use crate::model::{self, EvaluationId, Evaluator};
use crate::store;

/// Evaluations on a page.
const ROWS: u32 = 20;

#[derive(Template)]
#[template(path = "jobset.html")]
struct Page {
    layout: Layout,
    name: String,
    description: String,
    enabled: bool,
    sources: Vec<(String, String)>,
    evaluator: String,
    interval: String,
    /// What its file says otherwise.
    unused: Vec<String>,
    /// The evaluation that the inputs were set back to.
    set_back_to: Option<EvaluationId>,
    error: String,
    failures: i64,
    looked: Option<Moment>,
    next_look: Option<Moment>,
    evaluations: Vec<EvaluationRow>,
    /// Borders of the neighbouring pages.
    newer: Option<EvaluationId>,
    older: Option<EvaluationId>,
}

pub(super) async fn page(
    State(context): State<Context>,
    Path(name): Path<String>,
    query: Query,
) -> Response {
    or_refusal(&context, make(&context, name, &query).await).await
}

async fn make(context: &Context, name: String, query: &Query) -> Result<Response> {
    let now = model::now();
    let (notice, unused) = (context.health().notice(), context.unused());
    let (before, after) = (query.parsed("before")?, query.parsed("after")?);
    let wanted = name.clone();
    let page = context
        .read_few(move |s| {
            let Some(state) = store::specification(s, &wanted)? else { return Ok(None) };
            let set_back_to = state.set_back_to();
            let specification = state.specification;
            let mut rows = store::evaluation_page(s, &wanted, before, after, ROWS)?;
            // A page above a border may come out short; the newest page is then the better one.
            if after.is_some() && rows.len() < ROWS as usize {
                rows = store::evaluation_page(s, &wanted, None, None, ROWS)?;
            }
            let (first, last) = (rows.first().map(|e| e.id), rows.last().map(|e| e.id));
            let beside = |before, after| -> rusqlite::Result<bool> {
                Ok(!store::evaluation_page(s, &wanted, before, after, 1)?.is_empty())
            };
            let newer = match first {
                Some(first) if beside(None, Some(first))? => Some(first),
                _ => None,
            };
            let older = match last {
                Some(last) if beside(Some(last), None)? => Some(last),
                _ => None,
            };
            Ok(Some(Page {
                layout: Layout {
                    title: format!("{} · Brigandine", specification.name),
                    section: "overview",
                    queue: store::queue_counts(s)?,
                    live: format!("/live?specification={}", state.id),
                    notice: notice.clone(),
                },
                sources: specification
                    .inputs
                    .iter()
                    .map(|input| (input.name.clone(), view::source(input)))
                    .collect(),
                evaluator: match &specification.evaluator {
                    Evaluator::Jobs { jobs, .. } if !jobs.is_empty() => {
                        format!("{} of the specification", view::count(jobs.len() as i64, "job"))
                    }
                    Evaluator::Jobs { file, .. } => format!("job list {file}"),
                    Evaluator::Command { command, .. } => command.join(" "),
                },
                interval: specification
                    .interval_s
                    .map(|s| view::duration(i64::try_from(s).unwrap_or(i64::MAX)))
                    .unwrap_or_default(),
                unused: rows::of_file(&unused, Some(&specification.name)),
                name: specification.name,
                description: specification.description,
                enabled: specification.enabled,
                set_back_to,
                error: state.look.error,
                failures: state.look.failures,
                looked: view::moment(state.look.looked_at, now),
                next_look: view::due(state.look.next_at, now).filter(|_| specification.enabled),
                evaluations: rows
                    .into_iter()
                    .map(|evaluation| EvaluationRow::new(s, evaluation, now))
                    .collect::<rusqlite::Result<_>>()?,
                newer,
                older,
            }))
        })
        .await?;
    let missing = || {
        let name: String = name.chars().take(100).collect();
        Refusal::not_found(format!("there is no specification called {name}"))
    };
    render(&page.ok_or_else(missing)?)
}
