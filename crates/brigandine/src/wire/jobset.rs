//! A specification with its state.

use serde::Serialize;

use super::specification::SpecificationJson;
use crate::model::{Evaluation, EvaluationStatus, SpecificationState, Timestamp};
use crate::store::{self, Snapshot};

/// A specification as clients of Cuirass know it, and its state as clients of Hydra know it.
#[derive(Debug, Serialize)]
pub(crate) struct JobsetJson {
    #[serde(flatten)]
    specification: SpecificationJson,
    project: String,
    /// The jobs of the evaluation of the revisions that the inputs have now.
    nrtotal: i64,
    /// The jobs whose builds wait or run.
    nrscheduled: i64,
    nrsucceeded: i64,
    /// The jobs whose builds ended otherwise, also the canceled ones: clients take the jobs for built when
    /// `nrsucceeded` is `nrtotal`, and give up when this is not 0.
    nrfailed: i64,
    /// When the running evaluation began; null: none runs.
    starttime: Option<Timestamp>,
    /// When the inputs were last looked at. Null while an evaluation runs, because clients take a later time for the
    /// end of an evaluation.
    lastcheckedtime: Option<Timestamp>,
    /// The last request for a look; null: there was none.
    triggertime: Option<Timestamp>,
    /// Why the inputs could not be fetched; null: they could.
    fetcherrormsg: Option<String>,
    haserrormsg: bool,
}

impl JobsetJson {
    /// The state of a specification, read from `s`.
    pub(crate) fn read(s: &Snapshot, state: SpecificationState) -> rusqlite::Result<Self> {
        let read = |id| store::evaluation(s, id);
        let current = state.evaluation().map(read).transpose()?.flatten();
        let latest = if state.latest_evaluation == state.evaluation() {
            current.clone()
        } else {
            state.latest_evaluation.map(read).transpose()?.flatten()
        };
        Ok(Self::new(state, current.as_ref(), latest.as_ref()))
    }

    fn new(
        state: SpecificationState,
        current: Option<&Evaluation>,
        latest: Option<&Evaluation>,
    ) -> Self {
        let counters = current.map(|evaluation| evaluation.counters).unwrap_or_default();
        let is_running = |e: &&Evaluation| e.status == EvaluationStatus::Started;
        let running = [current, latest].into_iter().flatten().find(is_running);
        let failed = |e: &Evaluation| {
            matches!(e.status, EvaluationStatus::Failed | EvaluationStatus::Aborted)
        };
        let known = |at: Timestamp| (at > 0).then_some(at);
        Self {
            nrtotal: counters.total(),
            nrscheduled: counters.scheduled + counters.started,
            nrsucceeded: counters.succeeded,
            nrfailed: counters.finished() - counters.succeeded,
            starttime: running.map(|evaluation| evaluation.created_at),
            lastcheckedtime: known(state.look.looked_at).filter(|_| running.is_none()),
            triggertime: known(state.look.wanted_at),
            fetcherrormsg: Some(state.look.error).filter(|error| !error.is_empty()),
            haserrormsg: current.is_some_and(failed),
            specification: SpecificationJson::from(&state.specification),
            project: state.specification.project,
        }
    }
}
