//! Changes that people and programs ask for. Each is made with its row of the audit, in one transaction.
//!
//! | | scheduled | started | succeeded | failed, failed-other, canceled | failed-dependency |
//! |---|---|---|---|---|---|
//! | cancel | canceled; builds that need it: failed-dependency | its attempt is asked to end | refused | refused | refused |
//! | restart | refused | refused | refused | scheduled, with builds that failed because of it | the same, unless a build that it needs has not succeeded |
//!
//! - REQ1: a target whose change the database refuses is refused alone; the other targets of the request are changed.
//! - REQ2: what must follow a change (telling a running attempt to end) can be read from the database, so a server that
//!   is killed after the commit forgets nothing.

use super::audit::{Subject, note};
use super::builds::{build, cancel, restart};
use super::database::{Snapshot, Transaction};
use super::query::{Query, is_refusal};
use super::specifications::{specification, want_look};
use crate::model::{
    Asked, BuildId, BuildStatus, Cancel, Change, Changed, Outcome, Requested, Restart, Target,
};

/// Makes a change of each target.
pub(crate) fn request(
    tx: &Transaction,
    change: Change,
    targets: &[Target],
    asked: &Asked,
) -> rusqlite::Result<Requested> {
    let mut all = Requested::default();
    for target in targets {
        let made = match tx.savepoint(|tx| make(tx, change, target, asked)) {
            Ok(made) => made,
            // REQ1
            Err(error) if is_refusal(&error) => {
                refused(format!("{target}: the database refuses the change: {error}"))
            }
            Err(error) => return Err(error),
        };
        all.changed.extend(made.changed);
        all.running.extend(made.running);
        all.outcomes.push((target.clone(), made.outcome));
    }
    Ok(all)
}

/// The change of one target.
struct Made {
    outcome: Outcome,
    changed: Vec<Changed>,
    running: Option<(BuildId, i64)>,
}

const fn nothing(outcome: Outcome) -> Made {
    Made { outcome, changed: Vec::new(), running: None }
}

const fn refused(why: String) -> Made {
    nothing(Outcome::Refused(why))
}

fn make(
    tx: &Transaction,
    change: Change,
    target: &Target,
    asked: &Asked,
) -> rusqlite::Result<Made> {
    match (change, target) {
        (Change::Cancel, Target::Build(id)) => cancel_build(tx, *id, asked),
        (Change::Restart, Target::Build(id)) => restart_build(tx, *id, asked),
        (Change::Evaluate, Target::Specification(name)) => evaluate(tx, name, asked),
        _ => Ok(refused(format!("{} is no change of {target}", change.as_str()))),
    }
}

fn cancel_build(tx: &Transaction, id: BuildId, asked: &Asked) -> rusqlite::Result<Made> {
    let subject = Subject::Build(id);
    match cancel(tx, id, asked.at)? {
        Cancel::Done(changed) => {
            let result = format!("canceled{}", others(id, &changed, BuildStatus::Canceled));
            note(tx, Change::Cancel, subject, asked, &result)?;
            Ok(Made { outcome: Outcome::Done(changed.len()), changed, running: None })
        }
        Cancel::Running(attempt) => {
            note(tx, Change::Cancel, subject, asked, &format!("attempt {attempt} asked to end"))?;
            let running = Some((id, attempt));
            Ok(Made { outcome: Outcome::Ending(attempt), changed: Vec::new(), running })
        }
        Cancel::TooLate => Ok(match build(tx, id)? {
            Some(build) => refused(format!("build {id} has ended already: {}", build.status)),
            None => nothing(Outcome::Missing),
        }),
    }
}

fn restart_build(tx: &Transaction, id: BuildId, asked: &Asked) -> rusqlite::Result<Made> {
    Ok(match restart(tx, id)? {
        Restart::Done(changed) => {
            let result = format!("scheduled{}", others(id, &changed, BuildStatus::Scheduled));
            note(tx, Change::Restart, Subject::Build(id), asked, &result)?;
            Made { outcome: Outcome::Done(changed.len()), changed, running: None }
        }
        Restart::Not(status) if status.is_success() => {
            refused(format!("build {id} succeeded; what succeeded is not built again"))
        }
        Restart::Not(status) => refused(format!("build {id} is {status} already")),
        Restart::Needs(needed) => {
            refused(format!("build {id} needs build {needed}, which failed; restart that"))
        }
        Restart::Undefined => refused(format!(
            "build {id} has no derivation any more; evaluate its specification again"
        )),
        Restart::Missing => nothing(Outcome::Missing),
    })
}

/// How many builds have changed besides the build itself, in words.
fn others(id: BuildId, changed: &[Changed], status: BuildStatus) -> String {
    // Twins of a canceled build are scheduled. They are not builds that need it.
    let own = |changed: &&Changed| changed.id != id;
    let count = match status {
        BuildStatus::Canceled => {
            let failed = |changed: &&Changed| changed.status == BuildStatus::FailedDependency;
            changed.iter().filter(own).filter(failed).count()
        }
        _ => changed.iter().filter(own).count(),
    };
    match count {
        0 => String::new(),
        1 => ", with 1 build that needs it".to_owned(),
        count => format!(", with {count} builds that need it"),
    }
}

fn evaluate(tx: &Transaction, name: &str, asked: &Asked) -> rusqlite::Result<Made> {
    let Some(found) = specification(tx, name)? else { return Ok(nothing(Outcome::Missing)) };
    if !found.specification.enabled {
        return Ok(refused(format!("{name} is disabled")));
    }
    want_look(tx, name, asked.at)?;
    note(tx, Change::Evaluate, Subject::Specification(found.id), asked, "looked at now")?;
    Ok(nothing(Outcome::Done(0)))
}

/// The running attempts that are asked to end, with their builds (REQ2).
pub(crate) fn asked_to_end(s: &Snapshot) -> rusqlite::Result<Vec<(BuildId, i64)>> {
    // `status < 0` is the condition of the index `build_queue`.
    let sql = "SELECT b.id, b.attempt FROM build AS b
         CROSS JOIN attempt AS a ON a.build_id = b.id AND a.number = b.attempt
         WHERE b.status < 0 AND b.status = -1 AND a.status = 4";
    s.all(sql, [], |row| row.try_into())
}
