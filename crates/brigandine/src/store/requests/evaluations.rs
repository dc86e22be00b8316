//! Changes of an evaluation: of its builds, or of whether it is kept.

use super::made::{Made, nothing, refused};
use super::rest::{Rest, What};
use crate::model::{
    Actor, Asked, BUMPED, BuildId, BuildStatus, Change, Counts, Evaluation, EvaluationId,
    EvaluationStatus, Outcome, Timestamp,
};
use crate::store::audit::{Subject, note};
use crate::store::builds::CANCELED;
use crate::store::database::{Snapshot, Transaction};
use crate::store::evaluations::evaluation;
use crate::store::query::Query;
use crate::store::registering::end_evaluation;
use crate::store::specifications::want_look;
use crate::store::wishes::{self, pending_of};
use rusqlite::params;
use std::cmp::Reverse;

/// Leaves builds to the writes that follow.
fn later(rest: Rest) -> Made {
    Made { rest: Some(rest), ..nothing(Outcome::Many(Counts::default())) }
}

/// Cancels an evaluation: its builds that no other evaluation wants, or itself if it has none yet.
pub(super) fn cancel_all(
    tx: &Transaction,
    id: EvaluationId,
    asked: &Asked,
) -> rusqlite::Result<Made> {
    let Some(found) = evaluation(tx, id)? else { return Ok(nothing(Outcome::Missing)) };
    if found.has_ended() {
        return Ok(refused(format!("evaluation {id} has ended already")));
    }
    wishes::withdraw(tx, id, None)?;
    let subject = Subject::Evaluation(id);
    if end_evaluation(tx, id, EvaluationStatus::Aborted, CANCELED, "", asked.at)? {
        note(tx, Change::Cancel, subject, asked, "aborted before it had jobs")?;
        return Ok(nothing(Outcome::Many(Counts::default())));
    }
    let builds = pending_of(tx, id)?;
    note(tx, Change::Cancel, subject, asked, &pending(builds.len()))?;
    let why = format!("canceled with evaluation {id}");
    Ok(later(Rest::new(What::Cancel(why), id, asked.at, builds)))
}

fn pending(builds: usize) -> String {
    match builds {
        1 => "1 build waited or ran".to_owned(),
        builds => format!("{builds} builds waited or ran"),
    }
}

/// Restarts all that failed in an evaluation. One that was canceled before it had jobs is evaluated again.
pub(super) fn restart_failed(
    tx: &Transaction,
    id: EvaluationId,
    asked: &Asked,
) -> rusqlite::Result<Made> {
    let Some(found) = evaluation(tx, id)? else { return Ok(nothing(Outcome::Missing)) };
    if found.status == EvaluationStatus::Aborted && found.withdrawn {
        wishes::want_again(tx, id)?;
        want_look(tx, &found.specification, asked.at)?;
        note(tx, Change::Restart, Subject::Evaluation(id), asked, "looked at again")?;
        return Ok(nothing(Outcome::Many(Counts::default())));
    }
    let failed: Vec<_> = BuildStatus::ALL.iter().copied().filter(|s| s.is_broken()).collect();
    of_status(tx, Change::Restart, &found, &failed, asked)
}

/// Puts all that waits in an evaluation in front of the queue.
pub(super) fn bump_all(
    tx: &Transaction,
    id: EvaluationId,
    asked: &Asked,
) -> rusqlite::Result<Made> {
    some(tx, Change::Bump, id, &[BuildStatus::Scheduled], asked)
}

/// Changes the builds of an evaluation that have one of these statuses.
pub(super) fn some(
    tx: &Transaction,
    change: Change,
    id: EvaluationId,
    statuses: &[BuildStatus],
    asked: &Asked,
) -> rusqlite::Result<Made> {
    let Some(found) = evaluation(tx, id)? else { return Ok(nothing(Outcome::Missing)) };
    of_status(tx, change, &found, statuses, asked)
}

fn of_status(
    tx: &Transaction,
    change: Change,
    evaluation: &Evaluation,
    statuses: &[BuildStatus],
    asked: &Asked,
) -> rusqlite::Result<Made> {
    let id = evaluation.id;
    let fits = |status: &&BuildStatus| match change {
        Change::Cancel => !status.is_finished(),
        Change::Restart => status.is_finished() && !status.is_success(),
        _ => **status == BuildStatus::Scheduled,
    };
    let statuses: Vec<BuildStatus> = statuses.iter().filter(fits).copied().collect();
    if statuses.is_empty() {
        return Ok(refused(format!(
            "no build of these statuses can be changed by {}",
            change.as_str()
        )));
    }
    let words = statuses.iter().map(|status| status.as_str()).collect::<Vec<_>>().join(" or ");
    let mut builds = builds_with(tx, id, &statuses)?;
    if builds.is_empty() {
        return Ok(refused(format!("no build in evaluation {id} is {words}")));
    }
    let result = match builds.len() {
        1 => format!("1 build that was {words}"),
        builds => format!("{builds} builds that were {words}"),
    };
    let row = note(tx, change, Subject::Evaluation(id), asked, &result)?;
    let what = match change {
        Change::Cancel => {
            builds.sort_unstable_by_key(|(build, _)| Reverse(*build));
            What::Cancel(CANCELED.to_owned())
        }
        Change::Restart => {
            // Those that failed because of others are restarted together with these.
            let because = |status| status == BuildStatus::FailedDependency;
            builds.sort_unstable_by_key(|(build, status)| (because(*status), *build));
            What::Restart
        }
        _ => What::Bump(BUMPED + row),
    };
    let builds = builds.into_iter().map(|(build, _)| build).collect();
    Ok(later(Rest::new(what, id, asked.at, builds)))
}

/// The builds of an evaluation's jobs that have one of these statuses, each once.
fn builds_with(
    s: &Snapshot,
    id: EvaluationId,
    statuses: &[BuildStatus],
) -> rusqlite::Result<Vec<(BuildId, BuildStatus)>> {
    let codes: Vec<String> = statuses.iter().map(|status| status.code().to_string()).collect();
    let sql = "SELECT b.id, b.status FROM job AS j CROSS JOIN build AS b ON b.id = j.build_id
         WHERE j.evaluation_id = ?1 AND b.status IN (SELECT value FROM json_each(?2))
         ORDER BY j.name, j.build_id";
    let list = format!("[{}]", codes.join(","));
    let mut builds: Vec<(BuildId, BuildStatus)> =
        s.all(sql, params![id, list], |row| row.try_into())?;
    builds.sort_unstable();
    builds.dedup();
    Ok(builds)
}

pub(super) fn keep_one(
    tx: &Transaction,
    id: EvaluationId,
    asked: &Asked,
) -> rusqlite::Result<Made> {
    let sql = "SELECT stamp = 'removed #' || id FROM evaluation WHERE id = ?1";
    match tx.value::<bool>(sql, [id])? {
        None => return Ok(nothing(Outcome::Missing)),
        Some(true) => {
            return Ok(refused(format!("evaluation {id} is being deleted by retention")));
        }
        Some(false) => {}
    }
    if !wishes::keep(tx, id)? {
        return Ok(refused(format!("evaluation {id} is kept already")));
    }
    note(tx, Change::Keep, Subject::Evaluation(id), asked, "retention does not delete it")?;
    Ok(nothing(Outcome::Done(0)))
}

pub(super) fn release_one(
    tx: &Transaction,
    id: EvaluationId,
    asked: &Asked,
) -> rusqlite::Result<Made> {
    if evaluation(tx, id)?.is_none() {
        return Ok(nothing(Outcome::Missing));
    }
    if !wishes::release(tx, id)? {
        return Ok(refused(format!("nobody keeps evaluation {id}")));
    }
    note(tx, Change::Release, Subject::Evaluation(id), asked, "retention may delete it")?;
    Ok(nothing(Outcome::Done(0)))
}

pub(super) fn comment(tx: &Transaction, id: EvaluationId, asked: &Asked) -> rusqlite::Result<Made> {
    if evaluation(tx, id)?.is_none() {
        return Ok(nothing(Outcome::Missing));
    }
    if asked.reason.is_empty() {
        return Ok(refused("a comment has a text".to_owned()));
    }
    note(tx, Change::Comment, Subject::Evaluation(id), asked, "")?;
    Ok(nothing(Outcome::Done(0)))
}

/// Withdraws the evaluations of other revisions of the same specification, except those that somebody keeps. Returns
/// what is to be done to their builds. To be called when an evaluation has become that of the inputs' revisions.
pub(crate) fn supersede(
    tx: &Transaction,
    current: EvaluationId,
    now: Timestamp,
) -> rusqlite::Result<Vec<Rest>> {
    let sql = "SELECT specification_id FROM evaluation WHERE id = ?1";
    let specification = tx.query_row(sql, [current], |row| row.get(0))?;
    let asked = Asked::new(Actor::server(), now, "");
    let mut all = Vec::new();
    for id in wishes::rivals(tx, specification, current)? {
        wishes::withdraw(tx, id, Some(current))?;
        let builds = pending_of(tx, id)?;
        let result = format!("by evaluation {current}; {}", pending(builds.len()));
        note(tx, Change::Supersede, Subject::Evaluation(id), &asked, &result)?;
        all.push(Rest::new(What::Cancel(superseded(current)), id, now, builds));
    }
    Ok(all)
}

/// The message of a build that was canceled because of a newer evaluation.
fn superseded(by: EvaluationId) -> String {
    format!("superseded by evaluation {by}")
}

/// Lets an evaluation that was superseded want its builds again, because the inputs are at its revisions again. Returns
/// the builds that are to be restarted; `None`: there are none. To be called when the inputs have changed, and when a
/// server starts, because a killed one may not have restarted all.
pub(crate) fn take_up_again(
    tx: &Transaction,
    id: EvaluationId,
    now: Timestamp,
) -> rusqlite::Result<Option<Rest>> {
    let Some(found) = evaluation(tx, id)? else { return Ok(None) };
    if found.withdrawn && found.successor.is_none() {
        // Somebody has canceled it.
        return Ok(None);
    }
    if wishes::want_again(tx, id)? {
        let asked = Asked::new(Actor::server(), now, "");
        let result = "the inputs are at its revisions again";
        note(tx, Change::Restart, Subject::Evaluation(id), &asked, result)?;
    }
    if found.counters.canceled == 0 {
        return Ok(None);
    }
    let sql = "SELECT b.id FROM job AS j CROSS JOIN build AS b ON b.id = j.build_id
         WHERE j.evaluation_id = ?1 AND b.status = 4 AND b.message GLOB 'superseded by evaluation *'
         ORDER BY j.name, j.build_id";
    let mut builds: Vec<BuildId> = tx.values(sql, [id])?;
    builds.sort_unstable();
    builds.dedup();
    Ok((!builds.is_empty()).then(|| Rest::new(What::Restart, id, now, builds)))
}

/// The most withdrawn evaluations that one read returns.
const WITHDRAWN: u32 = 100;

/// What a killed server has left to do for evaluations that were withdrawn: those behind `after`, some at a time.
pub(crate) fn unfinished(
    s: &Snapshot,
    after: EvaluationId,
    now: Timestamp,
) -> rusqlite::Result<Vec<(EvaluationId, Rest)>> {
    let mut all = Vec::new();
    for id in wishes::withdrawn_and_pending(s, after, WITHDRAWN)? {
        let successor = evaluation(s, id)?.and_then(|found| found.successor);
        let why = successor.map_or_else(|| format!("canceled with evaluation {id}"), superseded);
        all.push((id, Rest::new(What::Cancel(why), id, now, pending_of(s, id)?)));
    }
    Ok(all)
}
