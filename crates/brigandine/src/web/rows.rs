//! Evaluations and builds as rows of a list.

use super::view::{self, Look, Moment, Part};
use crate::model::{self, Build, EvaluationId, Timestamp};
use crate::store::{self, Snapshot};

/// What is not used of the files of specifications, in sentences: of one that is stored, or of none.
pub(super) fn of_file(unused: &[model::Unused], specification: Option<&str>) -> Vec<String> {
    let of = unused.iter().filter(|unused| unused.specification() == specification);
    of.map(model::Unused::sentences).collect()
}

/// An evaluation in a list.
pub(super) struct EvaluationRow {
    pub(super) id: EvaluationId,
    pub(super) look: Look,
    /// Revision and subject of the first checkout.
    pub(super) revision: String,
    pub(super) subject: String,
    /// How many more checkouts there are.
    pub(super) more: usize,
    pub(super) created: Option<Moment>,
    /// How long it took, in words; nothing while it goes on.
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
            look: view::evaluation_look(&evaluation),
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

/// How an evaluation's jobs stand, in words.
pub(super) fn summary(evaluation: &model::Evaluation) -> String {
    let counters = &evaluation.counters;
    if counters.total() == 0 {
        return match evaluation.status {
            model::EvaluationStatus::Started => "finding out the jobs".to_owned(),
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
    pub(super) look: Look,
    pub(super) job: String,
    pub(super) specification: String,
    pub(super) system: String,
    /// When it stopped, else when it was submitted.
    pub(super) when: Option<Moment>,
    /// How long it ran; nothing while it waits.
    pub(super) took: String,
    /// When it started, if it runs: the page counts on by itself.
    pub(super) since: Option<Timestamp>,
    pub(super) message: String,
    pub(super) weather: &'static str,
    pub(super) reused: bool,
    /// What it is started before others for, while it waits.
    pub(super) priority: i64,
    /// Dependencies it waits for.
    pub(super) waiting: i64,
    /// Some of them, where a page names them.
    pub(super) needs: Vec<(model::BuildId, String)>,
    /// A build of the same derivation that runs.
    pub(super) twin: Option<model::BuildId>,
}

impl BuildRow {
    pub(super) fn new(build: Build, now: Timestamp) -> Self {
        let running = build.status == model::BuildStatus::Started;
        let finished = build.status.is_finished();
        Self {
            id: build.id,
            look: view::build_look(build.status),
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

    /// How many of its dependencies are not named.
    pub(super) fn more_needs(&self) -> i64 {
        self.waiting - i64::try_from(self.needs.len()).unwrap_or(self.waiting)
    }
}
