//! Changes of one build.

use super::made::{Made, nothing, refused};
use crate::model::{
    Asked, BUMPED, BuildId, BuildStatus, Cancel, Change, Changed, Outcome, Restart,
};
use crate::store::audit::{Subject, note};
use crate::store::builds::{CANCELED, build, bump, cancel, restart};
use crate::store::database::Transaction;

pub(super) fn cancel_one(tx: &Transaction, id: BuildId, asked: &Asked) -> rusqlite::Result<Made> {
    let subject = Subject::Build(id);
    match cancel(tx, id, CANCELED, asked.at)? {
        Cancel::Done(changed) => {
            let failed = |changed: &&Changed| changed.status == BuildStatus::FailedDependency;
            let result = format!("canceled{}", others(changed.iter().filter(failed).count()));
            note(tx, Change::Cancel, subject, asked, &result)?;
            Ok(Made::with(Outcome::Done(changed.len()), changed))
        }
        Cancel::Running(attempt) => {
            note(tx, Change::Cancel, subject, asked, &format!("attempt {attempt} asked to end"))?;
            Ok(Made::ending(id, attempt))
        }
        Cancel::TooLate => over(tx, id),
    }
}

pub(super) fn restart_one(tx: &Transaction, id: BuildId, asked: &Asked) -> rusqlite::Result<Made> {
    Ok(match restart(tx, id)? {
        Restart::Done(changed) => {
            let result = format!("scheduled{}", others(changed.len().saturating_sub(1)));
            note(tx, Change::Restart, Subject::Build(id), asked, &result)?;
            Made::with(Outcome::Done(changed.len()), changed)
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

pub(super) fn bump_one(tx: &Transaction, id: BuildId, asked: &Asked) -> rusqlite::Result<Made> {
    let Some(found) = build(tx, id)? else { return Ok(nothing(Outcome::Missing)) };
    match found.status {
        BuildStatus::Scheduled => {}
        BuildStatus::Started => return Ok(refused(format!("build {id} runs already"))),
        _ => return over(tx, id),
    }
    let row = note(tx, Change::Bump, Subject::Build(id), asked, "next in the queue")?;
    bump(tx, id, BUMPED + row)?;
    Ok(nothing(Outcome::Done(0)))
}

pub(super) fn comment(tx: &Transaction, id: BuildId, asked: &Asked) -> rusqlite::Result<Made> {
    if build(tx, id)?.is_none() {
        return Ok(nothing(Outcome::Missing));
    }
    if asked.reason.is_empty() {
        return Ok(refused("a comment has a text".to_owned()));
    }
    note(tx, Change::Comment, Subject::Build(id), asked, "")?;
    Ok(nothing(Outcome::Done(0)))
}

/// The refusal for a build that has ended, or does not exist.
fn over(tx: &Transaction, id: BuildId) -> rusqlite::Result<Made> {
    Ok(match build(tx, id)? {
        Some(build) => refused(format!("build {id} has ended already: {}", build.status)),
        None => nothing(Outcome::Missing),
    })
}

/// How many builds have changed because of another one, in words.
fn others(count: usize) -> String {
    match count {
        0 => String::new(),
        1 => ", with 1 build that needs it".to_owned(),
        count => format!(", with {count} builds that need it"),
    }
}
