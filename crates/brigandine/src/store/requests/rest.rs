//! The builds of an evaluation that a request changes: some in each write, so that other writes need not wait for all.

use crate::model::{BuildId, Changed, Counts, EvaluationId, Restart, Timestamp};
use crate::store::builds::{Unwanted, bump, cancel_unwanted, restart};
use crate::store::database::Transaction;
use crate::store::query::is_refusal;
use std::sync::Arc;

/// The most builds of an evaluation that one write changes.
const SLICE: usize = 250;

/// Builds of an evaluation that are still to be changed (REQ3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rest {
    what: What,
    evaluation: EvaluationId,
    at: Timestamp,
    builds: Arc<[BuildId]>,
    /// The place of the next build.
    next: usize,
    /// Builds that may be changed once others are.
    again: Vec<BuildId>,
    /// Whether a build was changed since `again` was tried.
    progress: bool,
}

/// What is done to the builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// They are canceled with this message, unless somebody wants them.
    Cancel(String),
    Restart,
    /// They get this priority.
    Bump(i64),
}

impl Rest {
    pub(super) fn new(
        what: What,
        evaluation: EvaluationId,
        at: Timestamp,
        builds: Vec<BuildId>,
    ) -> Self {
        let builds = builds.into();
        Self { what, evaluation, at, builds, next: 0, again: Vec::new(), progress: false }
    }

    /// Changes one build.
    fn one(&mut self, tx: &Transaction, id: BuildId) -> rusqlite::Result<Done> {
        let mut done = Done::default();
        match &self.what {
            What::Cancel(why) => match cancel_unwanted(tx, id, self.evaluation, why, self.at)? {
                Unwanted::Canceled(changed) => done.effects.changed = changed,
                Unwanted::Ending(attempt) => {
                    done.counts.ending += 1;
                    done.effects.running.push((id, attempt));
                }
                Unwanted::Wanted => done.counts.left += 1,
                Unwanted::Needed => self.again.push(id),
                Unwanted::Ended => {}
            },
            What::Restart => match restart(tx, id)? {
                Restart::Done(changed) => done.effects.changed = changed,
                Restart::Needs(_) => self.again.push(id),
                Restart::Undefined => done.counts.left += 1,
                // It was restarted together with another one, or has changed meanwhile.
                Restart::Not(_) | Restart::Missing => {}
            },
            What::Bump(priority) => done.counts.changed += bump(tx, id, *priority)?,
        }
        done.counts.changed += done.effects.changed.len();
        self.progress |= !done.effects.changed.is_empty();
        Ok(done)
    }
}

/// What a write did to builds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    /// Builds that have a new status.
    pub(crate) changed: Vec<Changed>,
    /// Running attempts that must be told to end.
    pub(crate) running: Vec<(BuildId, i64)>,
}

impl Effects {
    pub(super) fn extend(&mut self, more: Self) {
        self.changed.extend(more.changed);
        self.running.extend(more.running);
    }
}

/// What a write did to the builds of an evaluation.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(super) counts: Counts,
    pub(super) effects: Effects,
}

/// Changes some of the builds. Returns what is left to do; `None`: nothing.
pub(crate) fn proceed(tx: &Transaction, mut rest: Rest) -> rusqlite::Result<(Done, Option<Rest>)> {
    let mut all = Done::default();
    let some: Vec<BuildId> = rest.builds.iter().skip(rest.next).take(SLICE).copied().collect();
    for id in some {
        rest.next += 1;
        match tx.savepoint(|tx| rest.one(tx, id)) {
            Ok(done) => {
                all.counts += done.counts;
                all.effects.extend(done.effects);
            }
            // REQ1
            Err(error) if is_refusal(&error) => {
                tracing::error!(%error, build = %id, "the database refuses the change of a build");
                all.counts.left += 1;
            }
            Err(error) => return Err(error),
        }
    }
    if rest.next < rest.builds.len() {
        return Ok((all, Some(rest)));
    }
    // Each round changes a build, so there are only so many.
    if rest.progress && !rest.again.is_empty() {
        rest.builds = std::mem::take(&mut rest.again).into();
        (rest.next, rest.progress) = (0, false);
        return Ok((all, Some(rest)));
    }
    all.counts.left += rest.again.len();
    Ok((all, None))
}
