//! Deletes evaluations that retention does not keep, a few rows at a time.
//!
//! | state of an evaluation | what is there | left by |
//! |---|---|---|
//! | kept | everything | [`mark`] |
//! | being deleted | the remaining jobs, and counters that count only these | [`prune_builds`], again and again |
//! | empty | no job, no build | [`remove_evaluations`] |
//!
//! Each function is one short write. If the server is killed between two of them, the rows are consistent, and the next
//! run continues.
//!
//! - PRUNE1: an evaluation is not touched while somebody keeps it, or it is the newest of its specification, or the newest
//!   that succeeded, or has the revisions that the inputs have now, or has a pending build, or is the last evaluation
//!   with the build or product of the highest number. If that row were deleted, SQLite would give its number to a new
//!   row. Of a specification that was removed with its history, the newest and the newest that succeeded are deleted too.
//!   `keep.evaluations` of such a specification is 0, which no file can say.
//! - PRUNE2: the write that deletes a job's row also changes the counters of the job's evaluation.
//! - PRUNE3: a build that another evaluation has, or that another build needs, stays: it moves to an evaluation that
//!   stays. So no build refers to an empty evaluation.
//! - PRUNE4: builds are deleted from the highest number down. A build usually has a higher number than the builds that
//!   it needs, so it is deleted before them. A needed build that was tried too early stays, and [`strays`] finds it
//!   later.
//! - PRUNE5: if only a deleted build needed some build, and no evaluation has that build, it moves to the evaluation
//!   that is being deleted, where [`strays`] finds it.
//! - PRUNE6: the write that deletes rows notes their files in `leftover`.
//! - PRUNE7: rows are read first, and then deleted one by one, each by its whole key. For `DELETE … WHERE key IN
//!   (SELECT … LIMIT)` and for `RETURNING`, SQLite makes a table in memory each time, with a page cache of its own.
//!   Several such tables per build cost more than the deletes.

mod due;

pub(crate) use due::{Due, due};

use crate::model::{BuildId, BuildStatus, EvaluationId, LogName, output_digest};
use crate::store::database::{Database, DatabaseError, Snapshot, Transaction};
use crate::store::query::{Query, integer};
use lockkeeper::{Executor, Queryable};
use rusqlite::{Connection, TransactionBehavior, params};
use std::time::{Duration, Instant};

/// The message of an evaluation that is being deleted.
const REMOVING: &str = "older than what is kept: its jobs are being deleted";

/// PRUNE1 as a query; each write checks it.
const REMOVABLE: &str = "SELECT 1 FROM evaluation AS e WHERE e.id = ?1 AND e.status <> -1
     AND e.scheduled = 0 AND e.started = 0
     AND NOT EXISTS (SELECT 1 FROM kept_evaluation AS k WHERE k.evaluation_id = e.id)
     AND NOT EXISTS (SELECT 1 FROM specification AS c
                     WHERE c.id = e.specification_id AND c.evaluation_id = e.id)
     AND (EXISTS (SELECT 1 FROM specification AS r WHERE r.id = e.specification_id
                  AND r.removed_at > 0 AND r.definition ->> '$.keep.evaluations' = 0)
       OR EXISTS (SELECT 1 FROM evaluation AS n
                  WHERE n.specification_id = e.specification_id AND n.id > e.id)
       AND (e.status <> 0 OR EXISTS (SELECT 1 FROM evaluation AS n
            WHERE n.specification_id = e.specification_id AND n.id > e.id AND n.status = 0)))
     AND ifnull((SELECT max(j.evaluation_id) FROM job AS j
          WHERE j.build_id = (SELECT max(id) FROM build)), 0) <> ?1
     AND ifnull((SELECT max(j.evaluation_id) FROM job AS j WHERE j.build_id =
          (SELECT build_id FROM product WHERE id = (SELECT max(id) FROM product))), 0) <> ?1";

fn is_removable(conn: &impl Queryable, id: EvaluationId) -> rusqlite::Result<bool> {
    conn.prepare_cached(REMOVABLE)?.exists([id])
}

/// Begins to delete an evaluation: it becomes aborted, its message says why, and it gives up its stamp, so that the
/// same revisions can be evaluated again. `false`: the evaluation must stay, and nothing was changed.
pub(crate) fn mark(tx: &Transaction, id: EvaluationId) -> rusqlite::Result<bool> {
    if !is_removable(tx, id)? {
        return Ok(false);
    }
    let sql =
        "UPDATE evaluation SET status = 2, stamp = 'removed #' || id, message = ?2 WHERE id = ?1";
    tx.execute(sql, params![id, REMOVING])?;
    Ok(true)
}

/// At most `limit` jobs of an evaluation behind `border`, ordered by name.
pub(crate) fn jobs_after(
    s: &Snapshot,
    id: EvaluationId,
    border: &(String, BuildId),
    limit: u32,
) -> rusqlite::Result<Vec<(String, BuildId)>> {
    let sql =
        "SELECT name, build_id FROM job WHERE evaluation_id = ?1 AND (name, build_id) > (?2, ?3)
         ORDER BY name, build_id LIMIT ?4";
    s.all(sql, params![id, border.0, border.1, limit], |row| row.try_into())
}

/// At most `limit` finished builds that refer to an evaluation (PRUNE3, PRUNE5), the highest number first.
pub(crate) fn strays(s: &Snapshot, id: EvaluationId, limit: u32) -> rusqlite::Result<Vec<BuildId>> {
    let sql = "SELECT id FROM build INDEXED BY build_latest_of_evaluation
         WHERE evaluation_id = ?1 AND status >= 0 LIMIT ?2";
    let mut found: Vec<BuildId> = s.values(sql, params![id, limit])?;
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

/// How many rows and how much time a write may use. The write ends when either is used up.
#[derive(Debug)]
pub(crate) struct Budget {
    rows: usize,
    until: Instant,
}

impl Budget {
    /// A budget of `rows` rows, and of `time` from now on.
    pub(crate) fn new(rows: usize, time: Duration) -> Self {
        Self { rows, until: Instant::now() + time }
    }

    fn is_left(&self) -> bool {
        self.rows > 0 && Instant::now() < self.until
    }

    fn limit(&self) -> i64 {
        integer(self.rows)
    }

    /// Uses up `rows`. `true`: these are fewer than the budget allowed, so the query that had the budget as its limit
    /// found all rows.
    fn take(&mut self, rows: usize) -> bool {
        let all = rows < self.rows;
        self.rows = self.rows.saturating_sub(rows);
        all
    }
}

/// How far a write got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Slice {
    /// How many builds from the beginning of the list were deleted or moved to another evaluation.
    pub(crate) settled: usize,
    /// How many of these were deleted.
    pub(crate) deleted: usize,
}

/// Takes builds out of an evaluation that is being deleted, and deletes those that nothing else refers to. `None`: the
/// evaluation must stay, because a build of it was restarted; nothing was changed.
pub(crate) fn prune_builds(
    tx: &Transaction,
    id: EvaluationId,
    builds: &[BuildId],
    mut budget: Budget,
) -> rusqlite::Result<Option<Slice>> {
    if !is_removable(tx, id)? {
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
    // PRUNE2
    let sql = "UPDATE evaluation SET succeeded = succeeded - ?2, failed = failed - ?3,
         failed_dependency = failed_dependency - ?4, failed_other = failed_other - ?5,
         canceled = canceled - ?6 WHERE id = ?1";
    tx.execute(sql, params![id, succeeded, failed, failed_dependency, failed_other, canceled])?;
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
    let sql = "SELECT status, evaluation_id FROM build WHERE id = ?1";
    let found: Option<(BuildStatus, EvaluationId)> =
        tx.first(sql, [build], |row| row.try_into())?;
    let Some((status, evaluation)) = found else { return Ok(Settled::Stays) };
    // A pending build stays, because it was restarted for another evaluation.
    let Some(place) = usize::try_from(status.code()).ok() else { return Ok(Settled::Stays) };
    let sql = "SELECT evaluation_id FROM job WHERE build_id = ?1 AND evaluation_id <> ?2
         ORDER BY evaluation_id DESC LIMIT 1";
    let mut home: Option<EvaluationId> = tx.value(sql, params![build, id])?;
    if home.is_none() {
        let sql = "SELECT b.evaluation_id FROM dependency AS d
             CROSS JOIN build AS b ON b.id = d.build_id WHERE d.needs_id = ?1 LIMIT 1";
        home = tx.value(sql, [build])?;
    }
    if home.is_none() && !delete_children(tx, id, build, budget)? {
        return Ok(Settled::NotYet);
    }
    let sql = "SELECT name FROM job WHERE evaluation_id = ?1 AND build_id = ?2 LIMIT ?3";
    let names: Vec<String> = tx.values(sql, params![id, build, budget.limit()])?;
    let mut unlinked = 0;
    for name in &names {
        let sql = "DELETE FROM job WHERE evaluation_id = ?1 AND name = ?2 AND build_id = ?3";
        unlinked += tx.execute(sql, params![id, name, build])?;
    }
    if let Some(count) = counts.get_mut(place) {
        *count += integer(unlinked);
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
            tx.execute("DELETE FROM build WHERE id = ?1", [build])?;
            budget.take(1);
            Ok(Settled::Deleted)
        }
    }
}

/// Moves a build to another evaluation (PRUNE3, PRUNE5).
fn move_to(tx: &Transaction, build: BuildId, home: EvaluationId) -> rusqlite::Result<()> {
    let sql = "UPDATE build SET evaluation_id = ?2,
         specification_id = (SELECT specification_id FROM evaluation WHERE id = ?2) WHERE id = ?1";
    tx.execute(sql, params![build, home])?;
    Ok(())
}

/// Notes a file that must be deleted (PRUNE6).
fn leave(conn: &impl Executor, path: &str) -> rusqlite::Result<()> {
    conn.execute("INSERT OR IGNORE INTO leftover (path) VALUES (?1)", [path]).map(drop)
}

/// Deletes the rows that belong only to this build. `false`: the budget was used up before all were deleted.
fn delete_children(
    tx: &Transaction,
    id: EvaluationId,
    build: BuildId,
    budget: &mut Budget,
) -> rusqlite::Result<bool> {
    let sql = "SELECT id FROM product WHERE build_id = ?1 LIMIT ?2";
    let products: Vec<i64> = tx.values(sql, params![build, budget.limit()])?;
    for id in &products {
        tx.execute("DELETE FROM product WHERE id = ?1", [id])?;
    }
    if !budget.take(products.len()) {
        return Ok(false);
    }
    let sql = "SELECT name, path FROM output WHERE build_id = ?1 LIMIT ?2";
    let outputs: Vec<(String, String)> =
        tx.all(sql, params![build, budget.limit()], |row| row.try_into())?;
    for (name, path) in &outputs {
        tx.execute("DELETE FROM output WHERE build_id = ?1 AND name = ?2", params![build, name])?;
        if output_digest(path).is_some() {
            leave(tx, path)?;
        }
    }
    if !budget.take(outputs.len()) {
        return Ok(false);
    }
    let sql = "SELECT number FROM attempt WHERE build_id = ?1 LIMIT ?2";
    let attempts: Vec<i64> = tx.values(sql, params![build, budget.limit()])?;
    for number in &attempts {
        let sql = "DELETE FROM attempt WHERE build_id = ?1 AND number = ?2";
        tx.execute(sql, params![build, number])?;
        leave(tx, &LogName::Build(build, *number).path())?;
    }
    if !budget.take(attempts.len()) {
        return Ok(false);
    }
    let sql = "SELECT needs_id FROM dependency WHERE build_id = ?1 LIMIT ?2";
    let needs: Vec<BuildId> = tx.values(sql, params![build, budget.limit()])?;
    for need in &needs {
        let sql = "DELETE FROM dependency WHERE build_id = ?1 AND needs_id = ?2";
        tx.execute(sql, params![build, need])?;
        // PRUNE5
        let sql = "SELECT 1 FROM build WHERE id = ?1 AND status >= 0 AND evaluation_id <> ?2
             AND NOT EXISTS (SELECT 1 FROM job AS j WHERE j.build_id = ?1)";
        if tx.prepare_cached(sql)?.exists(params![need, id])? {
            move_to(tx, *need, id)?;
        }
    }
    if !budget.take(needs.len()) {
        return Ok(false);
    }
    tx.execute("DELETE FROM definition WHERE build_id = ?1", [build])?;
    Ok(true)
}

/// Deletes those of the evaluations that have no job and no build any more and need not stay, and returns them. The
/// others are not changed.
///
/// One call of the writer deletes all of them, so `ids` should be some dozens at most.
///
/// # Errors
/// The database is closed or cannot be written: nothing was deleted.
///
/// # Cancel safety
/// Dropped while the call waits: nothing happens. Dropped later: either all of them are deleted or none.
pub(crate) async fn remove_evaluations(
    database: &Database,
    ids: Vec<EvaluationId>,
) -> Result<Vec<EvaluationId>, DatabaseError> {
    let removed = database.exclusive(move |conn| {
        // To check that no build refers to the evaluation, SQLite would read every build, because the index has only
        // finished builds. `remove` makes this check itself (pending builds belong to evaluations with pending jobs),
        // so foreign keys are off for this transaction. SQLite cannot switch them within a transaction.
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

fn remove(tx: &impl Executor, id: EvaluationId) -> rusqlite::Result<bool> {
    let job = "SELECT 1 FROM job WHERE evaluation_id = ?1 LIMIT 1";
    let build = "SELECT 1 FROM build INDEXED BY build_latest_of_evaluation
         WHERE evaluation_id = ?1 AND status >= 0 LIMIT 1";
    for sql in [job, build] {
        if tx.prepare_cached(sql)?.exists([id])? {
            return Ok(false);
        }
    }
    if !is_removable(tx, id)? {
        return Ok(false);
    }
    leave(tx, &LogName::Evaluation(id).path())?;
    // There are only as many of these rows as the specification has inputs.
    tx.execute("DELETE FROM checkout WHERE evaluation_id = ?1", [id])?;
    tx.execute("DELETE FROM withdrawn_evaluation WHERE evaluation_id = ?1", [id])?;
    tx.execute("DELETE FROM evaluation WHERE id = ?1", [id])?;
    Ok(true)
}

/// At most `limit` files that must be deleted, with paths behind `after`, ordered by path.
pub(crate) fn leftovers(s: &Snapshot, after: &str, limit: u32) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT path FROM leftover WHERE path > ?1 ORDER BY path LIMIT ?2";
    s.values(sql, params![after, limit])
}

/// Forgets files that have been deleted.
pub(crate) fn forget_leftovers(tx: &Transaction, paths: &[String]) -> rusqlite::Result<()> {
    for path in paths {
        tx.execute("DELETE FROM leftover WHERE path = ?1", [path])?;
    }
    Ok(())
}

/// Whether `path` is the output of some build.
pub(crate) fn has_output(s: &Snapshot, path: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM output WHERE path = ?1 AND substr(path, 1, 8) = 'outputs/' LIMIT 1";
    s.prepare_cached(sql)?.exists([path])
}
