//! Puts a build in front of the queue.

use crate::model::BuildId;
use crate::store::database::Transaction;
use crate::store::query::Query;
use rusqlite::params;

/// Gives a waiting build and the waiting builds that it needs this priority, unless theirs is higher. Returns how many
/// builds it is.
pub(crate) fn bump(tx: &Transaction, id: BuildId, priority: i64) -> rusqlite::Result<usize> {
    let sql = "WITH RECURSIVE needed (id) AS (
           SELECT ?1
           UNION
           SELECT d.needs_id FROM needed CROSS JOIN dependency AS d ON d.build_id = needed.id
           CROSS JOIN build AS b ON b.id = d.needs_id WHERE b.status = -2)
         SELECT id FROM needed";
    let builds: Vec<BuildId> = tx.values(sql, [id])?;
    let sql = "UPDATE build SET priority = ?2 WHERE id = ?1 AND status = -2 AND priority < ?2";
    let mut bumped = 0;
    for id in builds {
        bumped += tx.execute(sql, params![id, priority])?;
    }
    Ok(bumped)
}
