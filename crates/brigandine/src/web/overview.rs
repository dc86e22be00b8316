//! `/`: all specifications with the state of their last evaluations, and the builds that are running or ended last.

use askama::Template;
use axum::response::Response;

use super::layout::{Layout, or_refusal, render};
use super::rows::{self, BuildRow, EvaluationRow, SQUARE, SpecificationRow, Square};
use super::view::{self, Badge};
use crate::context::Reading;
use crate::http::Result;
use crate::model::{self, BuildFilter, EvaluationId, SpecificationState, Timestamp, Unused};
use crate::store::{Visible, visible};

/// How many evaluations of a specification are shown as squares.
const SQUARES: u32 = 24;

/// The number of builds in each of the short lists.
const BUILDS: u32 = 8;

#[derive(Template)]
#[template(path = "overview.html")]
struct Page {
    layout: Layout,
    /// Sentences about parts of specification files that the server does not use, and that belong to no single
    /// specification.
    unused: Vec<String>,
    specifications: Vec<Row>,
    running: Vec<BuildRow>,
    latest: Vec<BuildRow>,
}

struct Row {
    spec: SpecificationRow,
    badge: Badge,
    /// The evaluation of the revisions that the last successful look found; if there is none, the newest evaluation.
    /// `None`: nothing was evaluated yet.
    latest: Option<EvaluationRow>,
    /// The last evaluations, oldest first.
    squares: Vec<Square<EvaluationId>>,
    sources: Vec<String>,
}

impl Row {
    fn new(
        s: &Visible<'_>,
        state: &SpecificationState,
        unused: &[Unused],
        now: Timestamp,
    ) -> rusqlite::Result<Self> {
        let states = visible::evaluation_states(s, state.id, SQUARES)?;
        // The newest square is at the right, however many squares there are.
        let room = (SQUARES as usize).saturating_sub(states.len());
        let squares = states.iter().rev().enumerate().map(|(at, (id, status, counters))| Square {
            id: *id,
            badge: view::state_badge(*status, counters),
            x: (room + at) * SQUARE,
            current: false,
        });
        let spec = SpecificationRow::new(state, unused, now);
        let inputs = view::inputs_badge(spec.enabled, &spec.error, !states.is_empty());
        let latest = state.evaluation().map(|id| visible::evaluation(s, id)).transpose()?.flatten();
        let badge = inputs.or(latest.as_ref().map(view::evaluation_badge));
        Ok(Self {
            spec,
            badge: badge.unwrap_or(view::UNKNOWN),
            latest: latest.map(|e| EvaluationRow::new(s, e, now)).transpose()?,
            squares: squares.collect(),
            sources: state.specification.inputs.iter().map(view::source).collect(),
        })
    }
}

/// The page of all specifications.
pub(crate) async fn page(context: Reading) -> Response {
    or_refusal(&context, make(&context).await).await
}

async fn make(context: &Reading) -> Result<Response> {
    let now = model::now();
    let (notice, reading) = (context.health().notice(), context.clone());
    let page = context
        .read_few(move |s| {
            let unused = reading.unused(s)?;
            let rows = |builds: Vec<_>| -> Vec<_> {
                builds.into_iter().map(|build| BuildRow::new(build, now)).collect()
            };
            let all = BuildFilter::default();
            let running =
                BuildFilter { status: Some(model::BuildStatus::Started), ..BuildFilter::default() };
            Ok(Page {
                layout: Layout {
                    title: "Brigandine".to_owned(),
                    section: "overview",
                    queue: visible::queue_counts(s)?,
                    live: "/live".to_owned(),
                    notice: notice.clone(),
                },
                unused: rows::of_file(&unused, None),
                specifications: visible::specifications(s)?
                    .iter()
                    .map(|state| Row::new(s, state, &unused, now))
                    .collect::<rusqlite::Result<_>>()?,
                running: rows(visible::queue(s, &running, BUILDS)?),
                latest: rows(visible::latest_builds(s, &all, BUILDS)?),
            })
        })
        .await?;
    render(&page)
}
