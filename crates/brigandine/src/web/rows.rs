//! Specifications, evaluations and builds as rows of a list.

use super::view::{self, Badge, Moment, Part};
use crate::model::{self, Build, EvaluationId, SpecificationState, Timestamp};
use crate::store::{self, Snapshot};

/// A build or an evaluation as a small square of a history.
pub(super) struct Square<Id> {
    pub(super) id: Id,
    pub(super) badge: Badge,
    pub(super) x: usize,
    /// Whether it is the one that the page is about.
    pub(super) current: bool,
}

/// The width of a square and the gap behind it.
pub(super) const SQUARE: usize = 14;

/// What the overview and its own page show of a specification.
pub(super) struct SpecificationRow {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) enabled: bool,
    /// What its file says and the server does not use.
    pub(super) unused: Vec<String>,
    /// The evaluation that the inputs were set back to.
    pub(super) set_back_to: Option<EvaluationId>,
    pub(super) error: String,
    pub(super) failures: i64,
    pub(super) looked: Option<Moment>,
    pub(super) next_look: Option<Moment>,
}

impl SpecificationRow {
    pub(super) fn new(
        state: &SpecificationState,
        unused: &[model::Unused],
        now: Timestamp,
    ) -> Self {
        let (specification, look) = (&state.specification, &state.look);
        Self {
            name: specification.name.clone(),
            description: specification.description.clone(),
            enabled: specification.enabled,
            unused: of_file(unused, Some(&specification.name)),
            set_back_to: state.set_back_to(),
            error: look.error.clone(),
            failures: look.failures,
            looked: view::moment(look.looked_at, now),
            next_look: view::due(look.next_at, now),
        }
    }
}

/// What the server does not use of specification files, in sentences: of the file of one specification, or of files
/// that belong to none.
pub(super) fn of_file(unused: &[model::Unused], specification: Option<&str>) -> Vec<String> {
    let of = unused.iter().filter(|unused| unused.specification() == specification);
    of.map(model::Unused::sentences).collect()
}

/// An evaluation in a list.
pub(super) struct EvaluationRow {
    pub(super) id: EvaluationId,
    pub(super) badge: Badge,
    /// Revision and subject of the first checkout.
    pub(super) revision: String,
    pub(super) subject: String,
    /// How many more checkouts there are.
    pub(super) more: usize,
    pub(super) created: Option<Moment>,
    /// How long it took, in words; empty while it runs.
    pub(super) took: String,
    pub(super) message: String,
    pub(super) bar: Vec<Part>,
    /// `41 of 52 succeeded, 2 failed`
    pub(super) summary: String,
}

impl EvaluationRow {
    pub(super) fn new(
        s: &Snapshot,
        evaluation: model::Evaluation,
        now: Timestamp,
    ) -> rusqlite::Result<Self> {
        let checkouts = store::checkouts(s, evaluation.id)?;
        let counters = &evaluation.counters;
        let first = checkouts.first();
        Ok(Self {
            id: evaluation.id,
            badge: view::evaluation_badge(&evaluation),
            revision: first.map_or("", |checkout| view::short(&checkout.revision)).to_owned(),
            subject: first.map(|checkout| checkout.subject.clone()).unwrap_or_default(),
            more: checkouts.len().saturating_sub(1),
            created: view::moment(evaluation.created_at, now),
            took: view::evaluation_took(&evaluation),
            bar: view::bar(counters),
            summary: summary(&evaluation),
            message: evaluation.message,
        })
    }
}

/// The state of an evaluation's jobs, in words.
pub(super) fn summary(evaluation: &model::Evaluation) -> String {
    let counters = &evaluation.counters;
    if counters.total() == 0 {
        return match evaluation.status {
            model::EvaluationStatus::Started => "waiting for the list of jobs".to_owned(),
            _ => String::new(),
        };
    }
    if counters.succeeded == counters.total() {
        return view::count(counters.total(), "job");
    }
    let mut parts = vec![format!(
        "{} of {} succeeded",
        view::number(counters.succeeded),
        view::number(counters.total())
    )];
    let rest = view::counts(counters).into_iter().skip(1).filter(|count| count.number > 0);
    parts.extend(rest.map(|count| format!("{} {}", view::number(count.number), count.label)));
    parts.join(", ")
}

/// A build in a list.
pub(super) struct BuildRow {
    pub(super) id: model::BuildId,
    pub(super) badge: Badge,
    pub(super) job: String,
    pub(super) specification: String,
    pub(super) system: String,
    /// When it stopped, else when it was submitted.
    pub(super) when: Option<Moment>,
    /// How long it ran; empty while it waits.
    pub(super) took: String,
    /// When it started, while it runs: the page counts on from there.
    pub(super) since: Option<Timestamp>,
    pub(super) message: String,
    pub(super) weather: &'static str,
    pub(super) reused: bool,
    /// Its priority while it waits, else 0.
    pub(super) priority: i64,
    /// How many dependencies it waits for.
    pub(super) waiting: i64,
    /// Number and job of some of these, on the page of the queue.
    pub(super) needs: Vec<(model::BuildId, String)>,
    /// A running build of the same derivation.
    pub(super) twin: Option<model::BuildId>,
}

impl BuildRow {
    pub(super) fn new(build: Build, now: Timestamp) -> Self {
        let running = build.status == model::BuildStatus::Started;
        let finished = build.status.is_finished();
        Self {
            id: build.id,
            badge: view::build_badge(build.status),
            when: view::moment(if finished { build.stopped_at } else { build.submitted_at }, now),
            took: if build.started_at == 0 {
                String::new()
            } else if running {
                view::duration(now - build.started_at)
            } else if finished && build.stopped_at <= build.started_at {
                "< 1 s".to_owned()
            } else if finished {
                view::duration(build.stopped_at - build.started_at)
            } else {
                String::new()
            },
            since: running.then_some(build.started_at),
            message: build.message,
            weather: view::weather(build.weather),
            job: build.job,
            specification: build.specification,
            system: build.system,
            reused: false,
            priority: if finished || running { 0 } else { build.priority },
            waiting: if finished || running { 0 } else { build.waiting },
            needs: Vec::new(),
            twin: None,
        }
    }

    /// How many of its dependencies are not in `needs`.
    pub(super) fn more_needs(&self) -> i64 {
        self.waiting - i64::try_from(self.needs.len()).unwrap_or(self.waiting)
    }
}
