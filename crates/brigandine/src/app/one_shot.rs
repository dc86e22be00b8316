//! `serve --one-shot`: every specification once, and what was wrong in the end.

use super::{App, AppError};
use crate::model::{BuildStatus, EvaluationId, EvaluationStatus, SpecificationId};
use crate::monitor::{self, Looked};
use crate::store::{self, DatabaseError, JobFilter, Snapshot};
use std::sync::Arc;

/// Troubles that are told one by one; further ones are counted.
const TOLD_MAX: usize = 20;

/// How everything stood when it had been handled once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OneShot {
    /// Looks, evaluations and builds that went wrong, a line for each.
    troubles: Vec<String>,
    /// Those that are not among the lines.
    further: usize,
    /// What is no failure and should be known, a line for each.
    pub(crate) remarks: Vec<String>,
}

impl OneShot {
    /// What went wrong, for people; `None` when all went well.
    pub(crate) fn failure(&self) -> Option<String> {
        if self.troubles.is_empty() {
            return None;
        }
        let mut text = String::from("not everything went well:");
        for trouble in &self.troubles {
            text.push_str("\n  ");
            text.push_str(trouble);
        }
        if self.further > 0 {
            text.push_str(&format!("\n  and {} more", self.further));
        }
        Some(text)
    }

    fn trouble(&mut self, trouble: &str) {
        if self.troubles.len() < TOLD_MAX {
            self.troubles.push(trouble.replace('\n', "\n    "));
        } else {
            self.further += 1;
        }
    }

    /// Adds what a look came to, and the builds of its evaluation.
    fn add(&mut self, s: &Snapshot, id: SpecificationId, looked: Looked) -> rusqlite::Result<()> {
        let Some(state) = store::specification_by_id(s, id)? else { return Ok(()) };
        let name = &state.specification.name;
        match looked {
            Looked::Gone => {}
            Looked::Failed => {
                self.trouble(&format!("{name}: cannot be fetched: {}", state.look.error));
            }
            Looked::Known(id, status) | Looked::Evaluated(id, status) => {
                let Some(evaluation) = store::evaluation(s, id)? else { return Ok(()) };
                let message = &evaluation.message;
                if status != EvaluationStatus::Succeeded {
                    self.trouble(&format!(
                        "{name}: evaluation {id} {status} (`brigandine log --evaluation {id}`): \
                         {message}"
                    ));
                    return Ok(());
                }
                if !message.is_empty() {
                    self.remarks.push(format!("{name}: evaluation {id}: {message}"));
                }
                self.add_builds(s, name, id)?;
            }
        }
        Ok(())
    }

    /// Adds the builds that an evaluation wanted and that did not succeed.
    fn add_builds(&mut self, s: &Snapshot, name: &str, id: EvaluationId) -> rusqlite::Result<()> {
        let Some(evaluation) = store::evaluation(s, id)? else { return Ok(()) };
        let counters = evaluation.counters;
        let bad = usize::try_from(counters.all_failed() + counters.canceled).unwrap_or(0);
        if bad > 0 {
            let filter = JobFilter {
                statuses: vec![
                    BuildStatus::Failed,
                    BuildStatus::FailedDependency,
                    BuildStatus::FailedOther,
                    BuildStatus::Canceled,
                ],
                ..JobFilter::default()
            };
            let room = u32::try_from(TOLD_MAX).unwrap_or(u32::MAX);
            let jobs = store::job_page(s, id, &filter, room)?.jobs;
            self.further += bad.saturating_sub(jobs.len());
            for job in jobs {
                let build = job.build;
                let why = match build.message.as_str() {
                    "" => String::new(),
                    message => format!(": {message}"),
                };
                let (number, status) = (build.id, build.status);
                let log = if build.attempt > 0 {
                    format!(" (`brigandine log {number}`)")
                } else {
                    String::new()
                };
                self.trouble(&format!("{name}: build {number} {}: {status}{why}{log}", job.job));
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
    /// Looks once at every specification, builds what came of it, and says what went wrong. Instead of
    /// [`App::run`].
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
                let mut full = 0;
                loop {
                    let look = monitor::look(&monitors, state.id, true, &mut full, stop.clone());
                    let (looked, _) = look.await?;
                    let is_aborted =
                        matches!(looked, Looked::Evaluated(_, EvaluationStatus::Aborted));
                    // The disk was full: as soon as there is room.
                    if full == 0 || !is_aborted {
                        return Ok::<_, DatabaseError>((
                            state.specification.name,
                            state.id,
                            looked,
                        ));
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
