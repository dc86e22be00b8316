//! How builds end. Each function makes one conditional change of a build's state, with everything that depends on it:
//! the attempt's row, the counters of every evaluation that has the build, and the dependants. A result is stored only
//! if the row still has the attempt that the result is from.

use super::change::{CANCELED, changed, count, end_attempt};
use super::twins::split;
use crate::model::{BuildId, BuildLogFile, BuildStatus, Changed, NewProduct, Timestamp, Weather};
use crate::store::database::Transaction;
use crate::store::query::Query;
use crate::store::wishes::is_wanted;
use rusqlite::params;

/// How a started build ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finish {
    /// The build.
    pub id: BuildId,
    /// The attempt that ended.
    pub attempt: i64,
    /// The status of the build now; a finished status.
    pub status: BuildStatus,
    /// Why the build has this status, for people.
    pub message: String,
    /// When the attempt ended.
    pub stopped_at: Timestamp,
    /// Its build log.
    pub log: BuildLogFile,
    /// Name and path of each output.
    pub outputs: Vec<(String, String)>,
    /// The products: files that pages offer for download.
    pub products: Vec<NewProduct>,
}

/// Ends a started build: changes its row, attempt, outputs, products, counters, dependants and twins.
///
/// An empty result: the row has another attempt or status now, and nothing was changed.
pub fn finish(tx: &Transaction, end: &Finish) -> rusqlite::Result<Vec<Changed>> {
    let Finish { id, attempt, status, ref message, stopped_at, ref log, .. } = *end;
    let asked = if status == BuildStatus::Canceled { asked_to_end(tx, id, attempt)? } else { None };
    if let Some(why) = &asked
        && why != CANCELED
        && is_wanted(tx, id, None)?
    {
        // It was canceled with an evaluation, and another one wants it since.
        return schedule(tx, id, attempt, "canceled, and wanted again", stopped_at);
    }
    let message = asked.as_ref().unwrap_or(message);
    let sql = "SELECT job, evaluation_id, specification_id FROM build
         WHERE id = ?1 AND attempt = ?2 AND status = -1";
    let ended = tx.first(sql, params![id, attempt], |row| changed(id, status, row))?;
    let Some(ended) = ended else { return Ok(Vec::new()) };
    let by_itself = matches!(status, BuildStatus::Succeeded | BuildStatus::Failed);
    let mut all = Vec::new();
    if !by_itself {
        all = split(tx, id, ended.specification, BuildStatus::Started)?;
    }
    // One statement sets the status and the weather, so that the row is written once.
    let weather = weather(tx, &ended)?;
    let sql = "UPDATE build SET status = ?3, message = ?4, stopped_at = max(?5, started_at),
         log_path = ?6, log_bytes = ?7, log_digest = ?8, weather = ?9
         WHERE id = ?1 AND attempt = ?2 AND status = -1";
    let (path, bytes, digest) = (&log.path, log.bytes, &log.digest);
    tx.execute(
        sql,
        params![id, attempt, status, message, stopped_at, path, bytes, digest, weather],
    )?;
    end_attempt(tx, id, attempt, status, message, stopped_at)?;
    count(tx, id, BuildStatus::Started, status)?;
    settle(tx, end, ended, &mut all)?;
    if by_itself {
        adopt(tx, end, &mut all)?;
    }
    Ok(all)
}

/// Stores the outputs and products of a build that has just ended. Ends the dependants of the build, or lets them
/// start.
fn settle(
    tx: &Transaction,
    end: &Finish,
    ended: Changed,
    all: &mut Vec<Changed>,
) -> rusqlite::Result<()> {
    for (name, path) in &end.outputs {
        let sql = "INSERT INTO output (build_id, name, path) VALUES (?1, ?2, ?3)
             ON CONFLICT (build_id, name) DO UPDATE SET path = excluded.path";
        tx.execute(sql, params![ended.id, name, path])?;
    }
    for NewProduct { kind, name, path, bytes, checksum } in &end.products {
        let sql = "INSERT INTO product (build_id, kind, name, path, bytes, checksum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        tx.execute(sql, params![ended.id, kind, name, path, bytes, checksum])?;
    }
    if !end.status.is_success() {
        return fail_dependants(tx, ended, all, end.stopped_at);
    }
    let sql = "UPDATE build SET waiting = waiting - 1
         WHERE status = -2 AND id IN (SELECT build_id FROM dependency WHERE needs_id = ?1)";
    tx.execute(sql, [ended.id])?;
    all.push(ended);
    Ok(())
}

/// If a build has ended by itself, its scheduled twins get the same end (`twins.rs`, TWIN1).
fn adopt(tx: &Transaction, end: &Finish, all: &mut Vec<Changed>) -> rusqlite::Result<()> {
    let sql = "SELECT twin.id FROM build AS b CROSS JOIN build AS twin
         ON twin.derivation_key = b.derivation_key AND twin.derivation = b.derivation
         WHERE b.id = ?1 AND twin.status = -2";
    let twins: Vec<BuildId> = tx.values(sql, [end.id])?;
    for id in twins {
        let message = match end.message.as_str() {
            "" => format!("as build {}", end.id),
            why => format!("as build {}: {why}", end.id),
        };
        let sql = "UPDATE build SET status = ?2, message = ?3, stopped_at = ?4
             WHERE id = ?1 AND status = -2 RETURNING job, evaluation_id, specification_id";
        let twin = tx.query_row(sql, params![id, end.status, message, end.stopped_at], |row| {
            changed(id, end.status, row)
        })?;
        note_weather(tx, &twin)?;
        count(tx, id, BuildStatus::Scheduled, end.status)?;
        settle(tx, end, twin, all)?;
    }
    Ok(())
}

/// Compares the end of a build with the end of the job's last finished build before it.
fn weather(tx: &Transaction, ended: &Changed) -> rusqlite::Result<Weather> {
    let sql = "SELECT status FROM build
         WHERE specification_id = ?1 AND job = ?2 AND status >= 0 AND status <> 4 AND id <> ?3
         ORDER BY stopped_at DESC, id DESC LIMIT 1";
    let previous = tx.value(sql, params![ended.specification, ended.job, ended.id])?;
    Ok(Weather::of(previous, ended.status))
}

/// Stores the weather of a build that has just ended.
fn note_weather(tx: &Transaction, ended: &Changed) -> rusqlite::Result<()> {
    let weather = weather(tx, ended)?;
    tx.execute("UPDATE build SET weather = ?2 WHERE id = ?1", params![ended.id, weather])?;
    Ok(())
}

/// Ends every scheduled build that needs `failed`, directly or not, as failed-dependency. Appends `failed` and these
/// builds to `all`.
pub(super) fn fail_dependants(
    tx: &Transaction,
    failed: Changed,
    all: &mut Vec<Changed>,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let dependants = dependants(tx, failed.id)?;
    let message = needs(&failed);
    all.push(failed);
    for id in dependants {
        all.push(fail_dependant(tx, id, &message, now)?);
    }
    Ok(())
}

/// The scheduled builds that need a build, directly or not.
pub(super) fn dependants(tx: &Transaction, id: BuildId) -> rusqlite::Result<Vec<BuildId>> {
    let sql = "WITH RECURSIVE dead (id) AS (
           SELECT build_id FROM dependency WHERE needs_id = ?1
           UNION
           SELECT d.build_id FROM dependency AS d JOIN dead ON d.needs_id = dead.id)
         SELECT dead.id FROM dead CROSS JOIN build AS b ON b.id = dead.id
         WHERE b.status = -2";
    tx.values(sql, [id])
}

/// The message of the builds that need a build which did not succeed.
pub(super) fn needs(failed: &Changed) -> String {
    format!("needs `{}`: {}", failed.job, failed.status)
}

/// Ends a scheduled build as failed-dependency.
pub(super) fn fail_dependant(
    tx: &Transaction,
    id: BuildId,
    message: &str,
    now: Timestamp,
) -> rusqlite::Result<Changed> {
    let sql = "UPDATE build SET status = 2, message = ?2, stopped_at = ?3
         WHERE id = ?1 AND status = -2 RETURNING job, evaluation_id, specification_id";
    let row = tx.query_row(sql, params![id, message, now], |row| {
        changed(id, BuildStatus::FailedDependency, row)
    })?;
    note_weather(tx, &row)?;
    count(tx, id, BuildStatus::Scheduled, BuildStatus::FailedDependency)?;
    Ok(row)
}

/// Why a running attempt is to be canceled; `None`: nobody has asked for it.
fn asked_to_end(tx: &Transaction, id: BuildId, attempt: i64) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT iif(message = '', ?3, message) FROM attempt
         WHERE build_id = ?1 AND number = ?2 AND status = 4";
    tx.value(sql, params![id, attempt, CANCELED])
}

/// Ends an attempt that has no result, because its worker is gone. `losses` becomes the build's number of vanished
/// workers. If a cancel was requested for the attempt, the build ends as canceled. Otherwise `next` is the build's new
/// status: failed-other ends the build with the `log` of this attempt; with scheduled, the build waits for another
/// attempt.
///
/// An empty result: the row has another attempt or status now, and nothing was changed.
#[expect(clippy::too_many_arguments, reason = "each is a column of its own")]
pub(crate) fn lose(
    tx: &Transaction,
    id: BuildId,
    attempt: i64,
    message: &str,
    losses: i64,
    next: BuildStatus,
    log: &BuildLogFile,
    now: Timestamp,
) -> rusqlite::Result<Vec<Changed>> {
    let ended = |status, message| {
        let (log, outputs, products) = (log.clone(), Vec::new(), Vec::new());
        Finish { id, attempt, status, message, stopped_at: now, log, outputs, products }
    };
    if let Some(why) = asked_to_end(tx, id, attempt)? {
        return finish(tx, &ended(BuildStatus::Canceled, why));
    }
    let sql = "UPDATE build SET losses = ?3 WHERE id = ?1 AND attempt = ?2 AND status = -1";
    if tx.execute(sql, params![id, attempt, losses])? == 0 {
        return Ok(Vec::new());
    }
    if next.is_finished() {
        let message = format!("lost {losses} times, the last time: {message}");
        return finish(tx, &ended(next, message));
    }
    schedule(tx, id, attempt, message, now)
}

/// Schedules a started build once more, because its attempt has no result.
fn schedule(
    tx: &Transaction,
    id: BuildId,
    attempt: i64,
    message: &str,
    now: Timestamp,
) -> rusqlite::Result<Vec<Changed>> {
    let sql = "UPDATE build SET status = -2, started_at = 0, message = ?3
         WHERE id = ?1 AND attempt = ?2 AND status = -1
         RETURNING job, evaluation_id, specification_id";
    let row = tx.first(sql, params![id, attempt, message], |row| {
        changed(id, BuildStatus::Scheduled, row)
    })?;
    if row.is_some() {
        end_attempt(tx, id, attempt, BuildStatus::Scheduled, message, now)?;
        count(tx, id, BuildStatus::Started, BuildStatus::Scheduled)?;
    }
    Ok(row.into_iter().collect())
}
