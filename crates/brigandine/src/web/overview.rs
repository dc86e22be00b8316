//! `/`: all specifications with the state of their last evaluations, and what goes on.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::layout::{Layout, or_refusal, render};
use super::rows::{self, BuildRow, EvaluationRow};
use super::view::{self, Look, Moment};
use crate::context::Context;
use crate::http::Result;
use crate::model::{self, BuildFilter, EvaluationId, SpecificationState, Timestamp, Unused};
use crate::store::{self, Snapshot};

/// Evaluations of a specification that are shown as a row of plates.
const PLATES: u32 = 24;

/// Builds in each of the short lists.
const BUILDS: u32 = 8;

#[derive(Template)]
#[template(path = "overview.html")]
struct Page {
    layout: Layout,
    /// Of files that are of no single specification: what is not used of them.
    unused: Vec<String>,
    specifications: Vec<Row>,
    running: Vec<BuildRow>,
    latest: Vec<BuildRow>,
}

/// A specification.
struct Row {
    name: String,
    description: String,
    enabled: bool,
    look: Look,
    latest: Option<EvaluationRow>,
    plates: Vec<Plate>,
    /// What its file says otherwise.
    unused: Vec<String>,
    /// The evaluation that the inputs were set back to; it is then shown as the latest.
    set_back_to: Option<EvaluationId>,
    error: String,
    failures: i64,
    looked: Option<Moment>,
    next_look: Option<Moment>,
    sources: Vec<String>,
}

/// An evaluation as a small square, oldest first.
struct Plate {
    id: EvaluationId,
    look: Look,
    x: usize,
}

impl Row {
    fn new(
        s: &Snapshot,
        state: SpecificationState,
        unused: &[Unused],
        now: Timestamp,
    ) -> rusqlite::Result<Self> {
        let (set_back_to, shown) = (state.set_back_to(), state.evaluation());
        let specification = state.specification;
        let states = store::evaluation_states(s, state.id, PLATES)?;
        // The newest stands at the right, however many there are.
        let room = (PLATES as usize).saturating_sub(states.len());
        let look = |(_, status, counters): &_| view::state_look(*status, counters);
        let plates = states
            .iter()
            .rev()
            .enumerate()
            .map(|(at, state)| Plate { id: state.0, look: look(state), x: (room + at) * 14 })
            .collect();
        let inputs =
            view::inputs_look(specification.enabled, &state.look.error, !states.is_empty());
        let latest = shown.map(|id| store::evaluation(s, id)).transpose()?.flatten();
        let look = inputs.or(latest.as_ref().map(view::evaluation_look)).unwrap_or(view::UNKNOWN);
        let latest = latest.map(|e| EvaluationRow::new(s, e, now)).transpose()?;
        Ok(Self {
            sources: specification.inputs.iter().map(view::source).collect(),
            unused: rows::of_file(unused, Some(&specification.name)),
            name: specification.name,
            description: specification.description,
            enabled: specification.enabled,
            look,
            latest,
            plates,
            set_back_to,
            error: state.look.error,
            failures: state.look.failures,
            looked: view::moment(state.look.looked_at, now),
            next_look: view::due(state.look.next_at, now),
        })
    }
}

pub(super) async fn page(State(context): State<Context>) -> Response {
    or_refusal(&context, make(&context).await).await
}

async fn make(context: &Context) -> Result<Response> {
    let now = model::now();
    let (notice, unused) = (context.health().notice(), context.unused());
    let page = context
        .read_few(move |s| {
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
                    queue: store::queue_counts(s)?,
                    live: "/live".to_owned(),
                    notice: notice.clone(),
                },
                unused: rows::of_file(&unused, None),
                specifications: store::specifications(s)?
                    .into_iter()
                    .map(|state| Row::new(s, state, &unused, now))
                    .collect::<rusqlite::Result<_>>()?,
                running: rows(store::queue(s, &running, BUILDS)?),
                latest: rows(store::latest_builds(s, &all, BUILDS)?),
            })
        })
        .await?;
    render(&page)
}
