//! `/jobset/NAME`: a specification's evaluations, newest first, paged by their numbers.

use askama::Template;
use axum::Extension;
use axum::response::Response;

use super::audit::{self, AuditRow};
use super::changing::Buttons;
use super::layout::{Layout, or_refusal, render};
use super::rows::{EvaluationRow, SpecificationRow};
use super::view;
use crate::auth::Visitor;
use crate::context::Reading;
use crate::http::{HttpError, Path, Query, Result};
use crate::model::{self, AuditFilter, EvaluationId, Evaluator};
use crate::store::visible;

/// The number of evaluations on a page.
const ROWS: u32 = 20;

#[derive(Template)]
#[template(path = "jobset.html")]
struct Page {
    layout: Layout,
    spec: SpecificationRow,
    /// Name, address and reference of each input.
    sources: Vec<(String, String)>,
    evaluator: String,
    interval: String,
    evaluations: Vec<EvaluationRow>,
    audit: Vec<AuditRow>,
    buttons: Option<Buttons>,
    /// Where the neighbouring pages begin: one has the evaluations with numbers above `newer`, the other those with
    /// numbers below `older`. `None`: there is no such page.
    newer: Option<EvaluationId>,
    older: Option<EvaluationId>,
}

pub(super) async fn page(
    context: Reading,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    query: Query,
) -> Response {
    or_refusal(&context, make(&context, visitor, &name, &query).await).await
}

async fn make(context: &Reading, visitor: Visitor, name: &str, query: &Query) -> Result<Response> {
    let now = model::now();
    let (notice, reading) = (context.health().notice(), context.clone());
    let (before, after) = (query.parsed("before")?, query.parsed("after")?);
    let wanted = name.to_owned();
    let page = context
        .read_few(move |s| {
            let Some(state) = visible::specification(s, &wanted)? else { return Ok(None) };
            let unused = reading.unused(s)?;
            let mut rows = visible::evaluation_page(s, &wanted, before, after, ROWS)?;
            // If fewer evaluations are newer than `after` than fit on a page, they are all on the newest page.
            if after.is_some() && rows.len() < ROWS as usize {
                rows = visible::evaluation_page(s, &wanted, None, None, ROWS)?;
            }
            let (first, last) = (rows.first().map(|e| e.id), rows.last().map(|e| e.id));
            let beside = |before, after| -> rusqlite::Result<bool> {
                Ok(!visible::evaluation_page(s, &wanted, before, after, 1)?.is_empty())
            };
            let newer = first.is_some() && beside(None, first)?;
            let older = last.is_some() && beside(last, None)?;
            let mut spec = SpecificationRow::new(&state, &unused, now);
            spec.next_look = spec.next_look.filter(|_| spec.enabled);
            let specification = state.specification;
            let of_this =
                AuditFilter { specification: Some(wanted.clone()), ..AuditFilter::default() };
            Ok(Some(Page {
                layout: Layout {
                    title: format!("{} · Brigandine", specification.name),
                    section: "overview",
                    queue: visible::queue_counts(s)?,
                    live: format!("/live?specification={}", state.id),
                    notice: notice.clone(),
                },
                spec,
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
                    .map(|s| model::duration(i64::try_from(s).unwrap_or(i64::MAX)))
                    .unwrap_or_default(),
                evaluations: rows
                    .into_iter()
                    .map(|evaluation| EvaluationRow::new(s, evaluation, now))
                    .collect::<rusqlite::Result<_>>()?,
                audit: audit::changes(s, &of_this, now)?,
                buttons: Buttons::of_specification(&visitor, &specification),
                newer: first.filter(|_| newer),
                older: last.filter(|_| older),
            }))
        })
        .await?;
    render(&page.ok_or_else(|| HttpError::no_specification(name))?)
}
