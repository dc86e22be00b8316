//! Builds as they happen. Each function is one conditional change of state with everything that
//! belongs to it: the attempt's row, the counters of every evaluation that has the build, its
//! dependants. A result counts only if build and attempt still match the row.

use super::change::{CANCELED, changed, count, end_attempt};
use super::twins::split;
use crate::model::{BuildId, BuildLogFile, BuildStatus, Changed, NewProduct, Timestamp, Weather};
use crate::store::database::Transaction;
use rusqlite::params;

/// How a started build ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finish {
    /// The build.
    pub id: BuildId,
    /// The start it belongs to.
    pub attempt: i64,
    /// Its fate: a finished status.
    pub status: BuildStatus,
    /// Why, for people.
    pub message: String,
    /// When.
    pub stopped_at: Timestamp,
    /// Its build log.
    pub log: BuildLogFile,
    /// Name and path of each output.
    pub outputs: Vec<(String, String)>,
    /// Files to download.
    pub products: Vec<NewProduct>,
}

/// Ends a started build: its row, attempt, outputs, products, counters, dependants and twins.
///
/// Empty: build and attempt do not match the row any more, and nothing was changed.
pub fn finish(tx: &Transaction, end: &Finish) -> rusqlite::Result<Vec<Changed>> {
    let found = tx
        .prepare_cached(
            "SELECT job, evaluation_id, specification_id FROM build
             WHERE id = ?1 AND attempt = ?2 AND status = -1",
        )?
        .query_map(params![end.id, end.attempt], |row| changed(end.id, end.status, row))?
        .next()
        .transpose()?;
    let Some(found) = found else { return Ok(Vec::new()) };
    let by_itself = matches!(end.status, BuildStatus::Succeeded | BuildStatus::Failed);
    let mut all = Vec::new();
    if !by_itself {
        all = split(tx, end.id, found.specification, BuildStatus::Started)?;
    }
    // One write of the row, with its weather.
    let weather = weather(tx, &found)?;
    let stored = tx
        .prepare_cached(
            "UPDATE build SET status = ?3, message = ?4, stopped_at = max(?5, started_at),
             log_path = ?6, log_bytes = ?7, log_digest = ?8, weather = ?9
             WHERE id = ?1 AND attempt = ?2 AND status = -1",
        )?
        .execute(params![
            end.id,
            end.attempt,
            end.status,
            end.message,
            end.stopped_at,
            end.log.path,
            end.log.bytes,
            end.log.digest,
            weather
        ])?;
    if stored == 0 {
        return Ok(Vec::new());
    }
    let row = found;
    end_attempt(tx, end.id, end.attempt, end.status, &end.message, end.stopped_at)?;
    count(tx, end.id, BuildStatus::Started, end.status)?;
    settle(tx, end, row, &mut all)?;
    if by_itself {
        adopt(tx, end, &mut all)?;
    }
    Ok(all)
}

/// Stores what a build that just ended left, and tells its dependants.
fn settle(
    tx: &Transaction,
    end: &Finish,
    ended: Changed,
    all: &mut Vec<Changed>,
) -> rusqlite::Result<()> {
    for (name, path) in &end.outputs {
        tx.prepare_cached(
            "INSERT INTO output (build_id, name, path) VALUES (?1, ?2, ?3)
             ON CONFLICT (build_id, name) DO UPDATE SET path = excluded.path",
        )?
        .execute(params![ended.id, name, path])?;
    }
    for product in &end.products {
        tx.prepare_cached(
            "INSERT INTO product (build_id, kind, name, path, bytes, checksum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            ended.id,
            product.kind,
            product.name,
            product.path,
            product.bytes,
            product.checksum
        ])?;
    }
    if end.status.is_success() {
        tx.prepare_cached(
            "UPDATE build SET waiting = waiting - 1
             WHERE status = -2 AND id IN (SELECT build_id FROM dependency WHERE needs_id = ?1)",
        )?
        .execute([ended.id])?;
        all.push(ended);
        return Ok(());
    }
    fail_dependants(tx, ended, all, end.stopped_at)
}

/// Gives the twins of a build that ended by itself the same end: scheduled builds of the same derivation.
/// See `twins.rs`, W1.
fn adopt(tx: &Transaction, end: &Finish, all: &mut Vec<Changed>) -> rusqlite::Result<()> {
    let twins: Vec<BuildId> = tx
        .prepare_cached(
            "SELECT twin.id FROM build AS b CROSS JOIN build AS twin
             ON twin.derivation_key = b.derivation_key AND twin.derivation = b.derivation
             WHERE b.id = ?1 AND twin.status = -2",
        )?
        .query_map([end.id], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for id in twins {
        let message = match end.message.as_str() {
            "" => format!("as build {}", end.id),
            why => format!("as build {}: {why}", end.id),
        };
        let twin = tx
            .prepare_cached(
                "UPDATE build SET status = ?2, message = ?3, stopped_at = ?4
                 WHERE id = ?1 AND status = -2 RETURNING job, evaluation_id, specification_id",
            )?
            .query_row(params![id, end.status, message, end.stopped_at], |row| {
                changed(id, end.status, row)
            })?;
        note_weather(tx, &twin)?;
        count(tx, id, BuildStatus::Scheduled, end.status)?;
        settle(tx, end, twin, all)?;
    }
    Ok(())
}

/// Compares how a build ends with the job's last finished build before it.
fn weather(tx: &Transaction, ended: &Changed) -> rusqlite::Result<Weather> {
    let previous = tx
        .prepare_cached(
            "SELECT status FROM build
             WHERE specification_id = ?1 AND job = ?2 AND status >= 0 AND status <> 4 AND id <> ?3
             ORDER BY stopped_at DESC, id DESC LIMIT 1",
        )?
        .query_map(params![ended.specification, ended.job, ended.id], |row| row.get(0))?
        .next()
        .transpose()?;
    Ok(Weather::of(previous, ended.status))
}

/// Stores the weather of a build that just ended.
fn note_weather(tx: &Transaction, ended: &Changed) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE build SET weather = ?2 WHERE id = ?1")?
        .execute(params![ended.id, weather(tx, ended)?])?;
    Ok(())
}

/// Makes everything that needs the build `failed`, directly or not, failed-dependency, and adds it and
/// them to `all`.
pub(super) fn fail_dependants(
    tx: &Transaction,
    failed: Changed,
    all: &mut Vec<Changed>,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let dead: Vec<BuildId> = tx
        .prepare_cached(
            "WITH RECURSIVE dead (id) AS (
               SELECT build_id FROM dependency WHERE needs_id = ?1
               UNION
               SELECT d.build_id FROM dependency AS d JOIN dead ON d.needs_id = dead.id)
             SELECT dead.id FROM dead CROSS JOIN build AS b ON b.id = dead.id
             WHERE b.status = -2",
        )?
        .query_map([failed.id], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let message = format!("needs `{}`: {}", failed.job, failed.status);
    all.push(failed);
    for id in dead {
        let row = tx
            .prepare_cached(
                "UPDATE build SET status = 2, message = ?2, stopped_at = ?3
                 WHERE id = ?1 AND status = -2 RETURNING job, evaluation_id, specification_id",
            )?
            .query_row(params![id, message, now], |row| {
                changed(id, BuildStatus::FailedDependency, row)
            })?;
        note_weather(tx, &row)?;
        count(tx, id, BuildStatus::Scheduled, BuildStatus::FailedDependency)?;
        all.push(row);
    }
    Ok(())
}

/// Ends a start that nobody runs any more. The build is scheduled again, or, when `next` says so,
/// given up as failed-other, with the `log` of this start; `losses` is its new count of vanished workers.
/// One that was to be canceled is.
///
/// Empty: build and attempt do not match the row any more, and nothing was changed.
#[expect(clippy::too_many_arguments, reason = "what is stored of it, each its own column")]
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
    let canceled: Option<bool> = tx
        .prepare_cached("SELECT status = 4 FROM attempt WHERE build_id = ?1 AND number = ?2")?
        .query_map(params![id, attempt], |row| row.get(0))?
        .next()
        .transpose()?;
    if canceled == Some(true) {
        return finish(tx, &ended(BuildStatus::Canceled, CANCELED.to_owned()));
    }
    let current = tx
        .prepare_cached(
            "UPDATE build SET losses = ?3 WHERE id = ?1 AND attempt = ?2 AND status = -1",
        )?
        .execute(params![id, attempt, losses])?;
    if current == 0 {
        return Ok(Vec::new());
    }
    if next.is_finished() {
        let message = format!("lost {losses} times, the last time: {message}");
        return finish(tx, &ended(next, message));
    }
    let row = tx
        .prepare_cached(
            "UPDATE build SET status = -2, started_at = 0, message = ?3
             WHERE id = ?1 AND attempt = ?2 AND status = -1
             RETURNING job, evaluation_id, specification_id",
        )?
        .query_row(params![id, attempt, message], |row| changed(id, BuildStatus::Scheduled, row))?;
    end_attempt(tx, id, attempt, BuildStatus::Scheduled, message, now)?;
    count(tx, id, BuildStatus::Started, BuildStatus::Scheduled)?;
    Ok(vec![row])
}
