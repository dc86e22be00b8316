//! Specifications, evaluations and builds as rows of lists.

use super::view::{self, Badge, Moment, Part};
use crate::model::{self, Build, EvaluationId, SpecificationState, Timestamp};
use crate::store::{Visible, visible};

/// A build or an evaluation as a small square in a history.
pub(super) struct Square<Id> {
    pub(super) id: Id,
    pub(super) badge: Badge,
    pub(super) x: usize,
    /// Whether the page is about this build or evaluation.
    pub(super) current: bool,
}

/// The width of a square and of the gap after it, in pixels.
pub(super) const SQUARE: usize = 14;

/// What the overview and the specification's page show of a specification.
pub(super) struct SpecificationRow {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) enabled: bool,
    /// Whether only those who have a role in it may see it.
    pub(super) private: bool,
    /// Sentences about what its file contains and the server does not use.
    pub(super) unused: Vec<String>,
    /// The older evaluation to whose revisions the inputs have returned; `None`: they have not.
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
            private: specification.private,
            unused: of_file(unused, Some(&specification.name)),
            set_back_to: state.set_back_to(),
            error: look.error.clone(),
            failures: look.failures,
            looked: view::moment(look.looked_at, now),
            next_look: view::due(look.next_at, now),
        }
    }
}

/// Sentences about the parts of specification files that the server does not use: the parts that belong to
/// `specification`, or, if it is `None`, those that belong to no single specification.
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
    /// The number of further checkouts.
    pub(super) more: usize,
    pub(super) created: Option<Moment>,
    /// How long the evaluation took, in words; empty while it runs.
    pub(super) took: String,
    pub(super) message: String,
    /// Whether somebody keeps the evaluation.
    pub(super) kept: bool,
    /// Whether the evaluation was canceled or superseded.
    pub(super) withdrawn: bool,
    pub(super) bar: Vec<Part>,
    /// `41 of 52 succeeded, 2 failed`
    pub(super) summary: String,
}

impl EvaluationRow {
    pub(super) fn new(
        s: &Visible<'_>,
        evaluation: model::Evaluation,
        now: Timestamp,
    ) -> rusqlite::Result<Self> {
        let checkouts = visible::checkouts(s, evaluation.id)?;
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
            kept: evaluation.kept,
            withdrawn: evaluation.withdrawn,
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
    /// The address of the job's history; empty: the list has no links to histories.
    pub(super) history: String,
    pub(super) specification: String,
    pub(super) system: String,
    /// When the build stopped; if it has not ended, when it was submitted.
    pub(super) when: Option<Moment>,
    /// How long the build ran; empty while it waits.
    pub(super) took: String,
    /// When the build started, if it is running. The page shows the time since then.
    pub(super) since: Option<Timestamp>,
    pub(super) message: String,
    pub(super) weather: &'static str,
    pub(super) reused: bool,
    /// The priority while the build waits; otherwise, or if somebody has put it in front of the queue, 0.
    pub(super) priority: i64,
    /// Whether somebody has put the build in front of the queue, where it waits.
    pub(super) bumped: bool,
    /// How many dependencies the build waits for.
    pub(super) waiting: i64,
    /// Number and job of some of these dependencies. Only the page of the queue sets this.
    pub(super) needs: Vec<(model::BuildId, String)>,
    /// A running build of the same derivation, whose end this build will share.
    pub(super) twin: Option<model::BuildId>,
}

impl BuildRow {
    pub(super) fn new(build: Build, now: Timestamp) -> Self {
        let running = build.status == model::BuildStatus::Started;
        let finished = build.status.is_finished();
        let bumped = !finished && !running && build.priority >= model::BUMPED;
        Self {
            id: build.id,
            badge: view::build_badge(build.status),
            when: view::moment(if finished { build.stopped_at } else { build.submitted_at }, now),
            took: if build.started_at == 0 {
                String::new()
            } else if running {
                model::duration(now - build.started_at)
            } else if finished && build.stopped_at <= build.started_at {
                "< 1 s".to_owned()
            } else if finished {
                model::duration(build.stopped_at - build.started_at)
            } else {
                String::new()
            },
            since: running.then_some(build.started_at),
            message: build.message,
            weather: view::weather(build.weather),
            job: build.job,
            history: String::new(),
            specification: build.specification,
            system: build.system,
            reused: false,
            priority: if finished || running || bumped { 0 } else { build.priority },
            bumped,
            waiting: if finished || running { 0 } else { build.waiting },
            needs: Vec::new(),
            twin: None,
        }
    }

    /// How many dependencies that the build waits for are not in `needs`.
    pub(super) fn more_needs(&self) -> i64 {
        self.waiting - i64::try_from(self.needs.len()).unwrap_or(self.waiting)
    }
}
