//! Changes that people and programs ask for. Each is made with its row of the audit, in one transaction.
//!
//! | build | scheduled | started | succeeded | failed, failed-other, canceled | failed-dependency |
//! |---|---|---|---|---|---|
//! | cancel | canceled; builds that need it: failed-dependency | its attempt is asked to end | refused | refused | refused |
//! | restart | refused | refused | refused | scheduled, with builds that failed because of it | the same, unless a build that it needs has not succeeded |
//! | bump | next in the queue, with the builds that it needs | refused | refused | refused | refused |
//! | comment | noted | noted | noted | noted | noted |
//!
//! | evaluation | started | ended, with pending builds | ended, with none |
//! |---|---|---|---|
//! | cancel | aborted | builds that no other evaluation wants are canceled, running ones asked to end | refused |
//! | restart | refused | all that failed is restarted | the same; one that was canceled before it had jobs is evaluated again |
//! | bump | refused | all that waits is next in the queue | refused |
//! | keep, release | as said, unless it is kept or not kept already, or is being deleted | | |
//!
//! - REQ1: a target whose change the database refuses is refused alone; the other targets of the request are changed.
//! - REQ2: what must follow a change (telling a running attempt to end, canceling the builds of a withdrawn evaluation)
//!   can be read from the database, so a server that is killed after the commit forgets nothing.
//! - REQ3: the builds of an evaluation are changed in writes of their own, some in each ([`Rest`]), because other writes
//!   wait for each. Every write looks at the state of a build again.

mod builds;
mod evaluations;
mod made;
mod rest;
mod specifications;

pub(crate) use evaluations::{supersede, take_up_again, unfinished};
pub(super) use rest::proceed;
pub(crate) use rest::{Effects, Rest};

use super::database::{Database, DatabaseError, Snapshot, Transaction};
use super::query::{Query, is_refusal};
use crate::model::{Asked, BuildId, Change, Counts, Outcome, Target};
use made::{Made, refused};
use std::sync::Arc;

/// What a write of requested changes did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Requested {
    /// Each target with what became of it, in the order of the request.
    pub(crate) outcomes: Vec<(Target, Outcome)>,
    /// What became of builds.
    pub(crate) effects: Effects,
    /// What is still to be done for the targets, by their places.
    rest: Vec<(usize, Rest)>,
}

#[cfg(test)]
impl Requested {
    /// What is still to be done.
    pub(super) fn left(self) -> impl Iterator<Item = Rest> {
        self.rest.into_iter().map(|(_, rest)| rest)
    }
}

/// Makes a change of each target, except what [`carry_out`] leaves to further writes.
pub(crate) fn request(
    tx: &Transaction,
    change: Change,
    targets: &[Target],
    asked: &Asked,
) -> rusqlite::Result<Requested> {
    let mut all = Requested::default();
    for (place, target) in targets.iter().enumerate() {
        let made = match tx.savepoint(|tx| make(tx, change, target, asked)) {
            Ok(made) => made,
            // REQ1
            Err(error) if is_refusal(&error) => {
                refused(format!("{target}: the database refuses the change: {error}"))
            }
            Err(error) => return Err(error),
        };
        all.effects.extend(made.effects);
        all.rest.extend(made.rest.map(|rest| (place, rest)));
        all.outcomes.push((target.clone(), made.outcome));
    }
    Ok(all)
}

fn make(
    tx: &Transaction,
    change: Change,
    target: &Target,
    asked: &Asked,
) -> rusqlite::Result<Made> {
    use Change::{Bump, Cancel, Comment, Disable, Enable, Evaluate, Keep, Release, Restart};
    use Target::{Build, Evaluation, Jobs, Specification};
    match (change, target) {
        (Cancel, Build(id)) => builds::cancel_one(tx, *id, asked),
        (Restart, Build(id)) => builds::restart_one(tx, *id, asked),
        (Bump, Build(id)) => builds::bump_one(tx, *id, asked),
        (Comment, Build(id)) => builds::comment(tx, *id, asked),
        (Cancel, Evaluation(id)) => evaluations::cancel_all(tx, *id, asked),
        (Restart, Evaluation(id)) => evaluations::restart_failed(tx, *id, asked),
        (Bump, Evaluation(id)) => evaluations::bump_all(tx, *id, asked),
        (Keep, Evaluation(id)) => evaluations::keep_one(tx, *id, asked),
        (Release, Evaluation(id)) => evaluations::release_one(tx, *id, asked),
        (Comment, Evaluation(id)) => evaluations::comment(tx, *id, asked),
        (Cancel | Restart | Bump, Jobs(id, statuses)) => {
            evaluations::some(tx, change, *id, statuses, asked)
        }
        (Evaluate, Specification(name)) => specifications::evaluate(tx, name, asked),
        (Enable | Disable, Specification(name)) => {
            specifications::set_enabled(tx, name, change, asked)
        }
        _ => Ok(refused(format!("{} is no change of {target}", change.as_str()))),
    }
}

/// Makes a change of each target, in as many writes as it takes. Calls `after` after each commit, with what the write
/// did.
///
/// # Errors
/// The database failed. What was committed before stays.
///
/// # Cancel safety
/// Dropped: the writes that were committed stay. The same request goes on where this one ended.
pub(crate) async fn carry_out(
    database: &Database,
    change: Change,
    targets: Vec<Target>,
    asked: Asked,
    after: &(dyn Fn(&Effects) + Sync),
) -> Result<Vec<(Target, Outcome)>, DatabaseError> {
    let targets: Arc<[Target]> = targets.into();
    let write = move |tx: &Transaction| request(tx, change, &targets, &asked);
    let mut done = database.write(write).await?;
    after(&done.effects);
    for (place, rest) in std::mem::take(&mut done.rest) {
        let counts = finish(database, rest, after).await?;
        if let (_, Outcome::Many(all)) = &mut done.outcomes[place] {
            *all += counts;
        }
    }
    Ok(done.outcomes)
}

/// Changes what is left of an evaluation's builds. Calls `after` after each commit, with what the write did.
///
/// # Errors
/// The database failed. What was committed before stays.
///
/// # Cancel safety
/// As [`carry_out`].
pub(crate) async fn finish(
    database: &Database,
    rest: Rest,
    after: &(dyn Fn(&Effects) + Sync),
) -> Result<Counts, DatabaseError> {
    let (mut next, mut counts) = (Some(rest), Counts::default());
    while let Some(rest) = next {
        let write = move |tx: &Transaction| proceed(tx, rest.clone());
        let (done, left) = database.write(write).await?;
        after(&done.effects);
        counts += done.counts;
        next = left;
    }
    Ok(counts)
}

/// The running attempts that are asked to end, with their builds (REQ2).
pub(crate) fn asked_to_end(s: &Snapshot) -> rusqlite::Result<Vec<(BuildId, i64)>> {
    // `status < 0` is the condition of the index `build_queue`.
    let sql = "SELECT b.id, b.attempt FROM build AS b
         CROSS JOIN attempt AS a ON a.build_id = b.id AND a.number = b.attempt
         WHERE b.status < 0 AND b.status = -1 AND a.status = 4";
    s.all(sql, [], |row| row.try_into())
}
