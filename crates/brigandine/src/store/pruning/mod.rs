//! Deleting evaluations that are not kept, a few rows at a time.
//!
//! | state of an evaluation | what is there | leaves it by |
//! |---|---|---|
//! | kept | everything | [`mark`] |
//! | being deleted | the jobs that are left, and counters that fit them | [`prune_builds`], again and again |
//! | empty | no job, no build | [`remove_evaluations`] |
//!
//! Each function is one short write, and between any two of them the server may be killed: whatever is
//! there fits together, and the next run goes on.
//!
//! - D1: an evaluation is not touched while it is its specification's newest, or the newest that
//!   succeeded, or the one that the inputs are at, or has something pending, or is the last that holds the build or product with the highest
//!   number, which would otherwise be given again.
//! - D2: a job's row goes in the write that changes its evaluation's counters.
//! - D3: a build that another evaluation has, or that another build needs, lives on: it moves to an
//!   evaluation that stays. So no build refers to an evaluation that is empty.
//! - D4: builds are taken from the highest number down. What a build needs has a lower number, so a build
//!   goes after all that need it.
//! - D5: a build that only a deleted one needed, and that no evaluation has, moves to the evaluation that
//!   is being deleted, where it is found again ([`strays`]).
//! - D6: files are named in `leftover` in the write that deletes their rows.
//! - D7: rows are read first, and then deleted one by one, each by its whole key. For `DELETE … WHERE key
//!   IN (SELECT … LIMIT)` and for `RETURNING` SQLite makes a table in memory, with a page cache of its
//!   own, each time, and several of them per build cost more than the deletes.

mod due;

pub(crate) use due::{Due, due};

use crate::model::{BuildId, BuildStatus, EvaluationId, LogName, output_digest};
use crate::store::database::{Database, DatabaseError, Snapshot, Transaction};
use rusqlite::{Connection, TransactionBehavior, params};
use std::time::{Duration, Instant};

/// What people read while an evaluation is being deleted.
const REMOVING: &str = "older than what is kept: its jobs are being deleted";

/// D1, as a condition of every write.
const REMOVABLE: &str = "SELECT 1 FROM evaluation AS e WHERE e.id = ?1 AND e.status <> -1
     AND e.scheduled = 0 AND e.started = 0
     AND NOT EXISTS (SELECT 1 FROM specification AS c
                     WHERE c.id = e.specification_id AND c.evaluation_id = e.id)
     AND EXISTS (SELECT 1 FROM evaluation AS n
                 WHERE n.specification_id = e.specification_id AND n.id > e.id)
     AND (e.status <> 0 OR EXISTS (SELECT 1 FROM evaluation AS n
          WHERE n.specification_id = e.specification_id AND n.id > e.id AND n.status = 0))
     AND ifnull((SELECT max(j.evaluation_id) FROM job AS j
          WHERE j.build_id = (SELECT max(id) FROM build)), 0) <> ?1
     AND ifnull((SELECT max(j.evaluation_id) FROM job AS j WHERE j.build_id =
          (SELECT build_id FROM product WHERE id = (SELECT max(id) FROM product))), 0) <> ?1";

fn is_removable(connection: &Connection, id: EvaluationId) -> rusqlite::Result<bool> {
    connection.prepare_cached(REMOVABLE)?.exists([id])
}

/// Begins to delete an evaluation: it is aborted, says why, and gives up its stamp, so that the same
/// revisions can be evaluated anew. `false`: it must stay, and nothing was changed.
pub(crate) fn mark(tx: &Transaction, id: EvaluationId) -> rusqlite::Result<bool> {
    if !tx.prepare_cached(REMOVABLE)?.exists([id])? {
        return Ok(false);
    }
    tx.prepare_cached(
        "UPDATE evaluation SET status = 2, stamp = 'removed #' || id, message = ?2 WHERE id = ?1",
    )?
    .execute(params![id, REMOVING])?;
    Ok(true)
}

/// Jobs of an evaluation behind a border, by name: at most `limit`.
pub(crate) fn jobs_after(
    s: &Snapshot,
    id: EvaluationId,
    border: &(String, BuildId),
    limit: u32,
) -> rusqlite::Result<Vec<(String, BuildId)>> {
    s.prepare_cached(
        "SELECT name, build_id FROM job WHERE evaluation_id = ?1 AND (name, build_id) > (?2, ?3)
         ORDER BY name, build_id LIMIT ?4",
    )?
    .query_map(params![id, border.0, border.1, limit], |row| Ok((row.get(0)?, row.get(1)?)))?
    .collect()
}

/// Finished builds that refer to an evaluation (D3, D5): at most `limit`, highest first.
pub(crate) fn strays(s: &Snapshot, id: EvaluationId, limit: u32) -> rusqlite::Result<Vec<BuildId>> {
    let mut found: Vec<BuildId> = s
        .prepare_cached(
            "SELECT id FROM build INDEXED BY build_latest_of_evaluation
             WHERE evaluation_id = ?1 AND status >= 0 LIMIT ?2",
        )?
        .query_map(params![id, limit], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

/// What a write may take: whichever is used up first ends it.
#[derive(Debug)]
pub(crate) struct Budget {
    rows: usize,
    until: Instant,
}

impl Budget {
    /// So many rows, and so much time from now on.
    pub(crate) fn new(rows: usize, time: Duration) -> Self {
        Self { rows, until: Instant::now() + time }
    }

    fn is_left(&self) -> bool {
        self.rows > 0 && Instant::now() < self.until
    }

    fn limit(&self) -> i64 {
        i64::try_from(self.rows).unwrap_or(i64::MAX)
    }

    /// Rows were changed. Whether fewer than were allowed, so that none are left.
    fn take(&mut self, rows: usize) -> bool {
        let all = rows < self.rows;
        self.rows = self.rows.saturating_sub(rows);
        all
    }
}

/// How far a write got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Slice {
    /// The first builds of the list that are settled: deleted, or living on in another evaluation.
    pub(crate) settled: usize,
    /// Those of them that were deleted.
    pub(crate) deleted: usize,
}

/// Takes builds out of an evaluation that is being deleted; those that nothing else wants are deleted.
/// `None`: the evaluation must stay (somebody wanted a build of it again), and nothing was changed.
pub(crate) fn prune_builds(
    tx: &Transaction,
    id: EvaluationId,
    builds: &[BuildId],
    mut budget: Budget,
) -> rusqlite::Result<Option<Slice>> {
    if !tx.prepare_cached(REMOVABLE)?.exists([id])? {
        return Ok(None);
    }
    let mut slice = Slice::default();
    let mut counts = [0_i64; 5];
    for build in builds {
        if !budget.is_left() {
            break;
        }
        match settle(tx, id, *build, &mut budget, &mut counts)? {
            Settled::Deleted => slice.deleted += 1,
            Settled::Stays => {}
            Settled::NotYet => break,
        }
        slice.settled += 1;
    }
    let [succeeded, failed, failed_dependency, failed_other, canceled] = counts;
    // D2
    tx.prepare_cached(
        "UPDATE evaluation SET succeeded = succeeded - ?2, failed = failed - ?3,
         failed_dependency = failed_dependency - ?4, failed_other = failed_other - ?5,
         canceled = canceled - ?6 WHERE id = ?1",
    )?
    .execute(params![id, succeeded, failed, failed_dependency, failed_other, canceled])?;
    Ok(Some(slice))
}

enum Settled {
    Deleted,
    Stays,
    /// The budget is used up.
    NotYet,
}

fn settle(
    tx: &Transaction,
    id: EvaluationId,
    build: BuildId,
    budget: &mut Budget,
    counts: &mut [i64; 5],
) -> rusqlite::Result<Settled> {
    let found: Option<(BuildStatus, EvaluationId)> = tx
        .prepare_cached("SELECT status, evaluation_id FROM build WHERE id = ?1")?
        .query_map([build], |row| Ok((row.get(0)?, row.get(1)?)))?
        .next()
        .transpose()?;
    let Some((status, evaluation)) = found else { return Ok(Settled::Stays) };
    // Pending ones belong to evaluations that are not removable; one that came back by another stays.
    let Some(place) = usize::try_from(status.code()).ok() else { return Ok(Settled::Stays) };
    let home: Option<EvaluationId> = tx
        .prepare_cached(
            "SELECT evaluation_id FROM job WHERE build_id = ?1 AND evaluation_id <> ?2
             ORDER BY evaluation_id DESC LIMIT 1",
        )?
        .query_map(params![build, id], |row| row.get(0))?
        .next()
        .transpose()?;
    let home = match home {
        Some(home) => Some(home),
        None => tx
            .prepare_cached(
                "SELECT b.evaluation_id FROM dependency AS d
                 CROSS JOIN build AS b ON b.id = d.build_id WHERE d.needs_id = ?1 LIMIT 1",
            )?
            .query_map([build], |row| row.get(0))?
            .next()
            .transpose()?,
    };
    if home.is_none() && !delete_children(tx, id, build, budget)? {
        return Ok(Settled::NotYet);
    }
    let names: Vec<String> = tx
        .prepare_cached("SELECT name FROM job WHERE evaluation_id = ?1 AND build_id = ?2 LIMIT ?3")?
        .query_map(params![id, build, budget.limit()], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut unlink = tx.prepare_cached(
        "DELETE FROM job WHERE evaluation_id = ?1 AND name = ?2 AND build_id = ?3",
    )?;
    let mut unlinked = 0;
    for name in &names {
        unlinked += unlink.execute(params![id, name, build])?;
    }
    drop(unlink);
    if let Some(count) = counts.get_mut(place) {
        *count += i64::try_from(unlinked).unwrap_or(0);
    }
    if !budget.take(unlinked) {
        return Ok(Settled::NotYet);
    }
    match home {
        Some(home) => {
            if evaluation == id && home != id {
                move_to(tx, build, home)?;
                budget.take(1);
            }
            Ok(Settled::Stays)
        }
        None => {
            tx.prepare_cached("DELETE FROM build WHERE id = ?1")?.execute([build])?;
            budget.take(1);
            Ok(Settled::Deleted)
        }
    }
}

/// D3
fn move_to(tx: &Transaction, build: BuildId, home: EvaluationId) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE build SET evaluation_id = ?2,
         specification_id = (SELECT specification_id FROM evaluation WHERE id = ?2) WHERE id = ?1",
    )?
    .execute(params![build, home])?;
    Ok(())
}

/// Rows of a build that `sql` names: at most as many as are allowed.
fn some_of<T>(
    tx: &Transaction,
    (build, budget): (BuildId, &Budget),
    sql: &str,
    row: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    tx.prepare_cached(sql)?.query_map(params![build, budget.limit()], row)?.collect()
}

/// Deletes what belongs to a build and nothing else. `false`: the budget is used up before the end.
fn delete_children(
    tx: &Transaction,
    id: EvaluationId,
    build: BuildId,
    budget: &mut Budget,
) -> rusqlite::Result<bool> {
    let leftover = |path: &str| -> rusqlite::Result<()> {
        let mut insert = tx.prepare_cached("INSERT OR IGNORE INTO leftover (path) VALUES (?1)")?;
        insert.execute([path]).map(drop)
    };
    let products: Vec<i64> = some_of(
        tx,
        (build, budget),
        "SELECT id FROM product WHERE build_id = ?1 LIMIT ?2",
        |row| row.get(0),
    )?;
    if !products.is_empty() {
        let mut delete = tx.prepare_cached("DELETE FROM product WHERE id = ?1")?;
        products.iter().try_for_each(|id| delete.execute([id]).map(drop))?;
    }
    if !budget.take(products.len()) {
        return Ok(false);
    }
    let outputs: Vec<(String, String)> = some_of(
        tx,
        (build, budget),
        "SELECT name, path FROM output WHERE build_id = ?1 LIMIT ?2",
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if !outputs.is_empty() {
        let mut delete =
            tx.prepare_cached("DELETE FROM output WHERE build_id = ?1 AND name = ?2")?;
        outputs.iter().try_for_each(|(name, _)| delete.execute(params![build, name]).map(drop))?;
    }
    for (_, path) in outputs.iter().filter(|(_, path)| output_digest(path).is_some()) {
        leftover(path)?;
    }
    if !budget.take(outputs.len()) {
        return Ok(false);
    }
    let attempts: Vec<i64> = some_of(
        tx,
        (build, budget),
        "SELECT number FROM attempt WHERE build_id = ?1 LIMIT ?2",
        |row| row.get(0),
    )?;
    for number in &attempts {
        tx.prepare_cached("DELETE FROM attempt WHERE build_id = ?1 AND number = ?2")?
            .execute(params![build, number])?;
        leftover(&LogName::Build(build, *number).path())?;
    }
    if !budget.take(attempts.len()) {
        return Ok(false);
    }
    let needs: Vec<BuildId> = some_of(
        tx,
        (build, budget),
        "SELECT needs_id FROM dependency WHERE build_id = ?1 LIMIT ?2",
        |row| row.get(0),
    )?;
    for need in &needs {
        tx.prepare_cached("DELETE FROM dependency WHERE build_id = ?1 AND needs_id = ?2")?
            .execute(params![build, need])?;
        // D5
        let wanted = tx
            .prepare_cached(
                "SELECT 1 FROM build WHERE id = ?1 AND status >= 0 AND evaluation_id <> ?2
                 AND NOT EXISTS (SELECT 1 FROM job AS j WHERE j.build_id = ?1)",
            )?
            .exists(params![need, id])?;
        if wanted {
            move_to(tx, *need, id)?;
        }
    }
    if !budget.take(needs.len()) {
        return Ok(false);
    }
    tx.prepare_cached("DELETE FROM definition WHERE build_id = ?1")?.execute([build])?;
    Ok(true)
}

/// Deletes those of the evaluations that have no job and no build any more, and says which. Of the
/// others, and of those that must stay, nothing is changed.
///
/// The writer is held for all of them, so there should be some dozens at most.
///
/// # Errors
/// The database is closed or cannot be written: nothing was deleted.
///
/// # Cancel safety
/// Dropped while it waits: nothing happens. Dropped later: they are deleted or none is.
pub(crate) async fn remove_evaluations(
    database: &Database,
    ids: Vec<EvaluationId>,
) -> Result<Vec<EvaluationId>, DatabaseError> {
    let removed = database.exclusive(move |conn| {
        // Looking for builds that refer to it, SQLite would read every build: the index is of the finished
        // ones, and pending ones belong to evaluations with pending jobs. So this is looked at here, and
        // foreign keys are off for this one transaction; they cannot be switched within one.
        conn.pragma_update(None, "foreign_keys", false)?;
        let removed = remove_all(conn, ids);
        conn.pragma_update(None, "foreign_keys", true)?;
        removed
    });
    removed.await
}

fn remove_all(
    conn: &mut Connection,
    ids: Vec<EvaluationId>,
) -> rusqlite::Result<Vec<EvaluationId>> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut removed = Vec::new();
    for id in ids {
        if remove(&tx, id)? {
            removed.push(id);
        }
    }
    tx.commit()?;
    Ok(removed)
}

fn remove(tx: &Connection, id: EvaluationId) -> rusqlite::Result<bool> {
    let used =
        tx.prepare_cached("SELECT 1 FROM job WHERE evaluation_id = ?1 LIMIT 1")?.exists([id])?
            || tx
                .prepare_cached(
                    "SELECT 1 FROM build INDEXED BY build_latest_of_evaluation
                 WHERE evaluation_id = ?1 AND status >= 0 LIMIT 1",
                )?
                .exists([id])?;
    if used || !is_removable(tx, id)? {
        return Ok(false);
    }
    let log = LogName::Evaluation(id).path();
    tx.prepare_cached("INSERT OR IGNORE INTO leftover (path) VALUES (?1)")?.execute([log])?;
    // As many as the specification has inputs.
    tx.prepare_cached("DELETE FROM checkout WHERE evaluation_id = ?1")?.execute([id])?;
    tx.prepare_cached("DELETE FROM evaluation WHERE id = ?1")?.execute([id])?;
    Ok(true)
}

/// Files to delete, behind `after` by their path: at most `limit`.
pub(crate) fn leftovers(s: &Snapshot, after: &str, limit: u32) -> rusqlite::Result<Vec<String>> {
    s.prepare_cached("SELECT path FROM leftover WHERE path > ?1 ORDER BY path LIMIT ?2")?
        .query_map(params![after, limit], |row| row.get(0))?
        .collect()
}

/// Forgets files that are deleted.
pub(crate) fn forget_leftovers(tx: &Transaction, paths: &[String]) -> rusqlite::Result<()> {
    let mut delete = tx.prepare_cached("DELETE FROM leftover WHERE path = ?1")?;
    paths.iter().try_for_each(|path| delete.execute([path]).map(drop))
}

/// Whether a build has this folder as its output.
pub(crate) fn has_output(s: &Snapshot, path: &str) -> rusqlite::Result<bool> {
    s.prepare_cached(
        "SELECT 1 FROM output WHERE path = ?1 AND substr(path, 1, 8) = 'outputs/' LIMIT 1",
    )?
    .exists([path])
}
