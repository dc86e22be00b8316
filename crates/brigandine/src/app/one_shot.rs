//! `serve --one-shot`: handles every specification once, and reports what failed.

use super::{App, AppError};
use crate::model::{BuildStatus, Evaluation, EvaluationStatus, SpecificationId};
use crate::monitor::{self, Looked};
use crate::store::{self, DatabaseError, JobFilter, Snapshot};
use std::sync::Arc;

/// How many failures are reported one by one; further ones are only counted.
const REPORTED_MAX: usize = 20;

/// What failed, and what deserves a warning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OneShot {
    /// Looks at inputs that failed, failed evaluations and failed builds, one line each. At most [`REPORTED_MAX`].
    failures: Vec<String>,
    /// The number of further failures.
    further: usize,
    /// Warnings, one line each.
    pub(crate) remarks: Vec<String>,
}

impl OneShot {
    /// All failures as one message. `None`: there are none.
    pub(crate) fn failure(&self) -> Option<String> {
        if self.failures.is_empty() {
            return None;
        }
        let mut text = String::from("not everything went well:");
        for failure in &self.failures {
            text.push_str("\n  ");
            text.push_str(failure);
        }
        if self.further > 0 {
            text.push_str(&format!("\n  and {} more", self.further));
        }
        Some(text)
    }

    fn add_failure(&mut self, failure: &str) {
        if self.failures.len() < REPORTED_MAX {
            self.failures.push(failure.replace('\n', "\n    "));
        } else {
            self.further += 1;
        }
    }

    /// Adds the outcome of a look at the inputs, and of the builds of its evaluation.
    fn add(&mut self, s: &Snapshot, id: SpecificationId, looked: Looked) -> rusqlite::Result<()> {
        let Some(state) = store::specification_by_id(s, id)? else { return Ok(()) };
        let name = &state.specification.name;
        match looked {
            Looked::Gone => {}
            Looked::Failed => {
                self.add_failure(&format!("{name}: cannot be fetched: {}", state.look.error));
            }
            Looked::Known(id, status) | Looked::Evaluated(id, status) => {
                let Some(evaluation) = store::evaluation(s, id)? else { return Ok(()) };
                let message = &evaluation.message;
                if status != EvaluationStatus::Succeeded {
                    self.add_failure(&format!(
                        "{name}: evaluation {id} {status} (`brigandine log --evaluation {id}`): \
                         {message}"
                    ));
                    return Ok(());
                }
                if !message.is_empty() {
                    self.remarks.push(format!("{name}: evaluation {id}: {message}"));
                }
                self.add_builds(s, name, &evaluation)?;
            }
        }
        Ok(())
    }

    /// Adds those builds of an evaluation that did not succeed.
    fn add_builds(
        &mut self,
        s: &Snapshot,
        name: &str,
        evaluation: &Evaluation,
    ) -> rusqlite::Result<()> {
        let (id, counters) = (evaluation.id, evaluation.counters);
        let bad = usize::try_from(counters.all_failed() + counters.canceled).unwrap_or(0);
        if bad > 0 {
            let is_bad = |status: &BuildStatus| status.is_finished() && !status.is_success();
            let statuses = BuildStatus::ALL.iter().copied().filter(is_bad).collect();
            let filter = JobFilter { statuses, ..JobFilter::default() };
            let room = u32::try_from(REPORTED_MAX).unwrap_or(u32::MAX);
            let jobs = store::job_page(s, id, &filter, room)?.jobs;
            self.further += bad.saturating_sub(jobs.len());
            for job in jobs {
                let build = job.build;
                let why = match build.message.as_str() {
                    "" => String::new(),
                    message => format!(": {message}"),
                };
                let (number, status) = (build.id, build.status);
                let log = match build.attempt {
                    0 => String::new(),
                    _ => format!(" (`brigandine log {number}`)"),
                };
                self.add_failure(&format!(
                    "{name}: build {number} {}: {status}{why}{log}",
                    job.job
                ));
            }
        }
        let waiting = counters.total() - counters.finished();
        if waiting > 0 {
            self.remarks.push(format!(
                "{name}: evaluation {id}: {waiting} jobs wait for a system that this server does not \
                 build for"
            ));
        }
        Ok(())
    }
}

impl App {
    /// Looks once at every specification, and builds its jobs. Called instead of [`App::run`].
    pub(crate) async fn one_shot(&self) -> Result<OneShot, AppError> {
        self.run_builder();
        self.listen()?;
        let (health, database) = (&self.shared.health, &self.shared.main);
        let found = health.read(database, store::specifications).await?;
        let mut looks = tokio::task::JoinSet::new();
        for state in found.into_iter().filter(|state| state.specification.enabled) {
            let monitors = Arc::clone(&self.shared.monitors);
            let stop = self.shared.stop.subscribe();
            looks.spawn(async move {
                let (id, mut full) = (state.id, 0);
                loop {
                    let look = monitor::look(&monitors, id, true, &mut full, stop.clone());
                    let (looked, _) = look.await?;
                    let is_aborted =
                        matches!(looked, Looked::Evaluated(_, EvaluationStatus::Aborted));
                    // If a full disk aborted the evaluation, it is repeated once there is room.
                    if full == 0 || !is_aborted {
                        return Ok::<_, DatabaseError>((state.specification.name, id, looked));
                    }
                }
            });
        }
        let mut all = Vec::new();
        while let Some(done) = looks.join_next().await {
            all.push(done.map_err(|error| AppError::Ended {
                part: "a look".to_owned(),
                why: error.to_string(),
            })??);
        }
        all.sort_unstable_by(|(a, ..), (b, ..)| a.cmp(b));
        self.shared.builder.wait_idle().await;
        let read = move |s: &Snapshot| {
            let mut done = OneShot::default();
            for (_, id, looked) in &all {
                done.add(s, *id, *looked)?;
            }
            Ok(done)
        };
        Ok(health.read(database, read).await?)
    }
}
