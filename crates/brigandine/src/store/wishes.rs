//! What people and newer evaluations say of an evaluation: that it is kept, that it wants no builds any more.
//!
//! - WISH1: an evaluation that is withdrawn wants no build. A pending build that only such evaluations have is canceled,
//!   unless a pending build that somebody wants needs it. If it runs, and an evaluation wants it before it has ended, it
//!   is built once more (`builds/finish.rs`).
//! - WISH2: when a build is restarted, the evaluations that have it want their builds again.
//! - WISH3: a withdrawn evaluation that was aborted is not evaluated again until somebody restarts it.

use super::database::{Snapshot, Transaction};
use super::query::Query;
use crate::model::{BuildId, EvaluationId, SpecificationId};
use rusqlite::params;

/// Keeps an evaluation against retention. `false`: it is kept already.
pub(super) fn keep(tx: &Transaction, id: EvaluationId) -> rusqlite::Result<bool> {
    let sql = "INSERT OR IGNORE INTO kept_evaluation (evaluation_id) VALUES (?1)";
    Ok(tx.execute(sql, [id])? == 1)
}

/// Lets retention delete an evaluation as others. `false`: it was not kept.
pub(super) fn release(tx: &Transaction, id: EvaluationId) -> rusqlite::Result<bool> {
    Ok(tx.execute("DELETE FROM kept_evaluation WHERE evaluation_id = ?1", [id])? == 1)
}

/// Notes that an evaluation wants no builds any more. The builds are canceled later.
pub(super) fn withdraw(
    tx: &Transaction,
    id: EvaluationId,
    successor: Option<EvaluationId>,
) -> rusqlite::Result<()> {
    let sql =
        "INSERT OR IGNORE INTO withdrawn_evaluation (evaluation_id, successor) VALUES (?1, ?2)";
    tx.execute(sql, params![id, successor])?;
    Ok(())
}

/// Notes that an evaluation wants its builds again. `false`: it wanted them.
pub(super) fn want_again(tx: &Transaction, id: EvaluationId) -> rusqlite::Result<bool> {
    Ok(tx.execute("DELETE FROM withdrawn_evaluation WHERE evaluation_id = ?1", [id])? == 1)
}

/// Notes that the evaluations that have a build want their builds again (WISH2).
pub(super) fn want_build_again(tx: &Transaction, build: BuildId) -> rusqlite::Result<()> {
    let sql = "SELECT evaluation_id FROM job WHERE build_id = ?1 ORDER BY evaluation_id";
    let evaluations: Vec<EvaluationId> = tx.values(sql, [build])?;
    for id in evaluations {
        want_again(tx, id)?;
    }
    Ok(())
}

/// The pending builds of an evaluation's jobs, the highest number first. A build usually has a higher number than those
/// that it needs.
pub(super) fn pending_of(s: &Snapshot, id: EvaluationId) -> rusqlite::Result<Vec<BuildId>> {
    let sql = "SELECT b.id FROM job AS j CROSS JOIN build AS b ON b.id = j.build_id
         WHERE j.evaluation_id = ?1 AND b.status < 0 ORDER BY j.name, j.build_id";
    let mut builds: Vec<BuildId> = s.values(sql, [id])?;
    builds.sort_unstable_by(|one, other| other.cmp(one));
    builds.dedup();
    Ok(builds)
}

/// Whether an evaluation other than `but` wants a build (WISH1).
pub(super) fn is_wanted(
    s: &Snapshot,
    id: BuildId,
    but: Option<EvaluationId>,
) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM job AS j WHERE j.build_id = ?1
           AND j.evaluation_id IS NOT ?2 AND NOT EXISTS
           (SELECT 1 FROM withdrawn_evaluation AS w WHERE w.evaluation_id = j.evaluation_id))";
    s.query_row(sql, params![id, but], |row| row.get(0))
}

/// The most evaluations that one new evaluation supersedes.
const RIVALS_MAX: u32 = 1000;

/// The evaluations of a specification, except `current`, that have pending builds and that nobody keeps or has
/// withdrawn; of the newest [`RIVALS_MAX`] evaluations.
pub(super) fn rivals(
    s: &Snapshot,
    specification: SpecificationId,
    current: EvaluationId,
) -> rusqlite::Result<Vec<EvaluationId>> {
    let sql = "SELECT id, scheduled + started > 0 AND id <> ?2
           AND NOT EXISTS (SELECT 1 FROM kept_evaluation AS k WHERE k.evaluation_id = id)
           AND NOT EXISTS (SELECT 1 FROM withdrawn_evaluation AS w WHERE w.evaluation_id = id)
         FROM evaluation WHERE specification_id = ?1 ORDER BY id DESC LIMIT ?3";
    let newest: Vec<(EvaluationId, bool)> =
        s.all(sql, params![specification, current, RIVALS_MAX], |row| row.try_into())?;
    Ok(newest.into_iter().filter(|(_, is_rival)| *is_rival).map(|(id, _)| id).collect())
}

/// Withdrawn evaluations behind `after` that have pending builds, at most `limit`.
pub(super) fn withdrawn_and_pending(
    s: &Snapshot,
    after: EvaluationId,
    limit: u32,
) -> rusqlite::Result<Vec<EvaluationId>> {
    let sql = "SELECT w.evaluation_id FROM withdrawn_evaluation AS w
         CROSS JOIN evaluation AS e ON e.id = w.evaluation_id
         WHERE w.evaluation_id > ?1 AND e.scheduled + e.started > 0
         ORDER BY w.evaluation_id LIMIT ?2";
    s.values(sql, params![after, limit])
}
