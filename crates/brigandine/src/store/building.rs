//! Builds as they happen. Each function is one conditional change of state with everything that
//! belongs to it: the attempt's row, the counters of every evaluation that has the build, its
//! dependants. A result counts only if build and attempt still match the row.

use super::Transaction;
use super::twins::split;
use crate::model::{
    BuildId, BuildLogFile, BuildStatus, Cancel, Changed, EvaluationId, NewProduct, Timestamp,
    Weather,
};
use rusqlite::{Row, params};
use std::collections::HashSet;

/// A build that was started, with what an executor needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// For the event channel.
    pub changed: Changed,
    /// The name of the specification that asked first.
    pub specification: String,
    /// The number of this start.
    pub attempt: i64,
    /// Starts whose worker vanished.
    pub losses: i64,
    /// JSON of [`crate::model::Definition`], when there is one.
    pub definition: Option<String>,
    /// What it needs: the derivation, and the path of its output.
    pub needs: Vec<(String, String)>,
    /// Seconds it may take; 0: the server's default.
    pub timeout_s: u64,
    /// Seconds it may be silent; 0: the server's default.
    pub max_silent_s: u64,
}

pub(super) const READY: &str = "SELECT id, derivation, priority, submitted_at FROM build AS b
    WHERE status = -2 AND waiting = 0 AND backend = 0 AND system = ?1
    AND NOT EXISTS (SELECT 1 FROM build AS twin WHERE twin.derivation_key = b.derivation_key
      AND twin.derivation = b.derivation AND twin.status = -1)
    ORDER BY priority DESC, submitted_at, derivation LIMIT ?2";

/// Which builds are to be started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim<'a> {
    /// What can be built.
    pub(crate) systems: &'a [String],
    /// How many at most.
    pub(crate) limit: usize,
    /// Builds that wait for a pause to end.
    pub(crate) resting: &'a [BuildId],
    /// Who builds them.
    pub(crate) worker: &'a str,
    /// The time.
    pub(crate) now: Timestamp,
}

/// Starts builds that wait for nothing: by priority, then age, then derivation, whatever their system. One whose
/// derivation is being built by another waits for that one's end ([`adopt`]).
pub(crate) fn claim(tx: &Transaction, wanted: &Claim<'_>) -> rusqlite::Result<Vec<Claimed>> {
    let Claim { systems, limit, resting, worker, now } = *wanted;
    let mut claimed = Vec::new();
    loop {
        let left = limit - claimed.len();
        let most = i64::try_from(left + resting.len()).unwrap_or(i64::MAX);
        let mut ready = Vec::new();
        for system in systems {
            let mut statement = tx.prepare_cached(READY)?;
            let found = statement.query_map(params![system, most], |row| {
                let order = (-row.get::<_, i64>(2)?, row.get::<_, i64>(3)?);
                Ok((order, row.get::<_, String>(1)?, row.get::<_, BuildId>(0)?))
            })?;
            for row in found {
                ready.push(row?);
            }
        }
        ready.sort_unstable();
        let ready = ready.into_iter().filter(|(.., id)| !resting.contains(id)).take(left);
        let before = claimed.len();
        let mut seen = HashSet::new();
        let mut twins = false;
        for (_, derivation, id) in ready {
            if seen.insert(derivation) {
                claimed.extend(start(tx, id, worker, now)?);
            } else {
                twins = true;
            }
        }
        // The places of twins go to those behind them, which the next question finds.
        if !twins || claimed.len() == before || claimed.len() >= limit {
            return Ok(claimed);
        }
    }
}

/// Starts a build that is scheduled. `None`: it is not, and nothing was changed.
pub fn start(
    tx: &Transaction,
    id: BuildId,
    worker: &str,
    now: Timestamp,
) -> rusqlite::Result<Option<Claimed>> {
    let found = tx
        .prepare_cached(
            "UPDATE build SET status = -1, attempt = attempt + 1, started_at = ?2, message = ''
             WHERE id = ?1 AND status = -2
             RETURNING job, evaluation_id, specification_id, attempt, timeout_s, max_silent_s,
             losses",
        )?
        .query_map(params![id, now], |row| {
            Ok(Claimed {
                changed: changed(id, BuildStatus::Started, row)?,
                specification: String::new(),
                attempt: row.get(3)?,
                losses: row.get(6)?,
                timeout_s: row.get::<_, i64>(4)?.unsigned_abs(),
                max_silent_s: row.get::<_, i64>(5)?.unsigned_abs(),
                definition: None,
                needs: Vec::new(),
            })
        })?
        .next()
        .transpose()?;
    let Some(found) = found else { return Ok(None) };
    let definition = tx
        .prepare_cached("SELECT text FROM definition WHERE build_id = ?1")?
        .query_map([id], |row| row.get(0))?
        .next()
        .transpose()?;
    let mut needs: Vec<(String, String)> = tx
        .prepare_cached(
            "SELECT n.derivation, o.path FROM dependency AS d
             CROSS JOIN build AS n ON n.id = d.needs_id
             CROSS JOIN output AS o ON o.build_id = n.id AND o.name = 'out'
             WHERE d.build_id = ?1",
        )?
        .query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    needs.sort_unstable();
    tx.prepare_cached(
        "INSERT INTO attempt (build_id, number, worker, status, message, started_at,
         stopped_at) VALUES (?1, ?2, ?3, -1, '', ?4, 0)",
    )?
    .execute(params![id, found.attempt, worker, now])?;
    count(tx, id, BuildStatus::Scheduled, BuildStatus::Started)?;
    let specification = tx
        .prepare_cached("SELECT name FROM specification WHERE id = ?1")?
        .query_row([found.changed.specification], |row| row.get(0))?;
    Ok(Some(Claimed { specification, definition, needs, ..found }))
}

pub(super) fn changed(
    id: BuildId,
    status: BuildStatus,
    row: &Row<'_>,
) -> rusqlite::Result<Changed> {
    Ok(Changed {
        id,
        job: row.get(0)?,
        evaluation: row.get(1)?,
        specification: row.get(2)?,
        status,
    })
}

/// Moves a build's jobs from one counter to another in every evaluation that has it.
pub(super) fn count(
    tx: &Transaction,
    id: BuildId,
    from: BuildStatus,
    to: BuildStatus,
) -> rusqlite::Result<()> {
    let mut of_build = tx.prepare_cached(
        "SELECT evaluation_id FROM job WHERE build_id = ?1 ORDER BY evaluation_id",
    )?;
    let mut evaluations = of_build.query([id])?;
    // By number rather than by name: one text for all pairs of statuses.
    let mut update = tx.prepare_cached(
        "UPDATE evaluation SET scheduled = scheduled + ?2, started = started + ?3,
         succeeded = succeeded + ?4, failed = failed + ?5,
         failed_dependency = failed_dependency + ?6, failed_other = failed_other + ?7,
         canceled = canceled + ?8 WHERE id = ?1",
    )?;
    let mut step = |evaluation: EvaluationId, jobs: i64| {
        let by = |code: i64| jobs * (i64::from(to.code() == code) - i64::from(from.code() == code));
        update.execute(params![evaluation, by(-2), by(-1), by(0), by(1), by(2), by(3), by(4)])
    };
    // Usually one; in several jobs of it where an import brought them.
    let mut current: Option<(EvaluationId, i64)> = None;
    while let Some(row) = evaluations.next()? {
        let evaluation = row.get(0)?;
        match &mut current {
            Some((counted, jobs)) if *counted == evaluation => *jobs += 1,
            _ => {
                if let Some((counted, jobs)) = current.replace((evaluation, 1)) {
                    step(counted, jobs)?;
                }
            }
        }
    }
    if let Some((counted, jobs)) = current {
        step(counted, jobs)?;
    }
    Ok(())
}

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

fn end_attempt(
    tx: &Transaction,
    id: BuildId,
    attempt: i64,
    status: BuildStatus,
    message: &str,
    now: Timestamp,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE attempt SET status = ?3, message = ?4, stopped_at = max(?5, started_at)
         WHERE build_id = ?1 AND number = ?2",
    )?
    .execute(params![id, attempt, status, message, now])?;
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
fn fail_dependants(
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

/// Why a build was canceled.
const CANCELED: &str = "canceled on request";

/// Cancels a build that waits, or says which attempt of it runs. That attempt's row has the status
/// canceled from then on, with no time of its end: however the attempt ends without an end of its own, and
/// if its server is killed, the build is canceled ([`lose`]).
pub(crate) fn cancel(tx: &Transaction, id: BuildId, now: Timestamp) -> rusqlite::Result<Cancel> {
    let row = tx
        .prepare_cached(
            "UPDATE build SET status = 4, message = ?3, stopped_at = ?2
             WHERE id = ?1 AND status = -2 RETURNING job, evaluation_id, specification_id",
        )?
        .query_map(params![id, now, CANCELED], |row| changed(id, BuildStatus::Canceled, row))?
        .next()
        .transpose()?;
    if let Some(row) = row {
        let mut all = split(tx, id, row.specification, BuildStatus::Scheduled)?;
        count(tx, id, BuildStatus::Scheduled, BuildStatus::Canceled)?;
        fail_dependants(tx, row, &mut all, now)?;
        return Ok(Cancel::Done(all));
    }
    let attempt: Option<i64> = tx
        .prepare_cached("SELECT attempt FROM build WHERE id = ?1 AND status = -1")?
        .query_map([id], |row| row.get(0))?
        .next()
        .transpose()?;
    let Some(attempt) = attempt else { return Ok(Cancel::TooLate) };
    tx.prepare_cached(
        "UPDATE attempt SET status = 4 WHERE build_id = ?1 AND number = ?2 AND status = -1",
    )?
    .execute(params![id, attempt])?;
    Ok(Cancel::Running(attempt))
}

/// What a killed server left behind, put right.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// Started builds that are scheduled again, with the attempt that came to nothing.
    pub(crate) builds: Vec<(BuildId, i64)>,
    /// Started evaluations that are aborted now; the next look runs them again.
    pub(crate) evaluations: usize,
    /// Pending builds that are canceled, since they have no derivation any more.
    pub(crate) gone: usize,
}

/// Started builds become scheduled, or canceled if that was asked for, started evaluations aborted,
/// builds without a definition canceled.
pub(crate) fn recover(tx: &Transaction, now: Timestamp) -> rusqlite::Result<Recovered> {
    let started: Vec<(BuildId, i64, i64)> = tx
        .prepare_cached("SELECT id, attempt, losses FROM build WHERE status < 0 AND status = -1")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_, _>>()?;
    for (id, attempt, losses) in &started {
        // Not counted: the server vanished, not the build's worker.
        let message = "the server was stopped";
        let log = BuildLogFile::default();
        lose(tx, *id, *attempt, message, *losses, BuildStatus::Scheduled, &log, now)?;
    }
    let evaluations = tx
        .prepare_cached(
            "UPDATE evaluation SET status = 2, message = 'the server was stopped',
             finished_at = max(?1, created_at, checkout_at) WHERE status = -1",
        )?
        .execute([now])?;
    let gone: Vec<BuildId> = tx
        .prepare_cached(
            "SELECT b.id FROM build AS b WHERE b.status < 0 AND b.backend = 0
             AND NOT EXISTS (SELECT 1 FROM definition AS d WHERE d.build_id = b.id)",
        )?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for id in &gone {
        let row = tx
            .prepare_cached(
                "UPDATE build SET status = 4, message = 'its derivation is gone', stopped_at = ?2
                 WHERE id = ?1 AND status = -2 RETURNING job, evaluation_id, specification_id",
            )?
            .query_map(params![id, now], |row| changed(*id, BuildStatus::Canceled, row))?
            .next()
            .transpose()?;
        if let Some(row) = row {
            count(tx, *id, BuildStatus::Scheduled, BuildStatus::Canceled)?;
            fail_dependants(tx, row, &mut Vec::new(), now)?;
        }
    }
    let builds = started.into_iter().map(|(id, attempt, _)| (id, attempt)).collect();
    Ok(Recovered { builds, evaluations, gone: gone.len() })
}

/// Claims for one system.
#[cfg(test)]
pub(super) fn claim_for(
    tx: &Transaction,
    system: &str,
    limit: usize,
    now: Timestamp,
) -> rusqlite::Result<Vec<Claimed>> {
    let systems = &[system.to_owned()];
    claim(tx, &Claim { systems, limit, resting: &[], worker: "w", now })
}
