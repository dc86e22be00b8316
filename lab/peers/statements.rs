//! The calls of the workloads, for every peer that gives its callers a `rusqlite::Connection`.
//!
//! Each binary includes this file as source, because each has its own version of rusqlite.

use std::future::Future;
use std::time::{Duration, Instant};

use measure::{Outcome, Page, Peer, Synchronous, person, sql};
use rusqlite::{Connection, Result, params};

/// Sets what all peers set. Every connection is passed to this function.
pub(crate) fn configure(conn: &Connection, synchronous: Synchronous) -> Result<()> {
    conn.execute_batch(&measure::sql::pragmas(synchronous))
}

/// The way in which a task gets a connection.
pub(crate) trait Connections: Clone + Send + Sync + 'static {
    /// Runs `f` on some connection. Runs it again only if the peer retries calls.
    fn with<T: Send + 'static>(
        &self,
        f: impl FnMut(&mut Connection) -> Result<T> + Send + 'static,
    ) -> impl Future<Output = Outcome<T>> + Send;
}

/// Makes a peer of a source of connections.
#[derive(Clone)]
pub(crate) struct Over<C>(pub(crate) C);

impl<C: Connections> Peer for Over<C> {
    async fn insert(&self, name: String) -> Outcome<()> {
        self.0.with(move |conn| insert(conn, &name)).await
    }

    async fn lookup(&self, name: String) -> Outcome<i64> {
        self.0.with(move |conn| lookup(conn, &name)).await
    }

    async fn scan(&self) -> Outcome<i64> {
        self.0.with(|conn| number(conn, sql::SCAN)).await
    }

    async fn endless(&self) -> Outcome<i64> {
        self.0.with(|conn| number(conn, sql::ENDLESS)).await
    }

    async fn one(&self) -> Outcome<i64> {
        self.0.with(|conn| number(conn, sql::ONE)).await
    }

    async fn bulk(&self, rows: u64, limit: Duration) -> Outcome<u64> {
        self.0.with(move |conn| bulk(conn, rows, limit)).await
    }

    async fn add_build(&self, project: i64, status: i64) -> Outcome<()> {
        self.0.with(move |conn| add_build(conn, project, status)).await
    }

    async fn page(&self, project: String) -> Outcome<Page> {
        self.0.with(move |conn| page(conn, &project)).await
    }
}

pub(crate) fn insert(conn: &Connection, name: &str) -> Result<()> {
    conn.prepare_cached(sql::INSERT)?.execute(params![name, 1]).map(drop)
}

pub(crate) fn lookup(conn: &Connection, name: &str) -> Result<i64> {
    conn.prepare_cached(sql::LOOKUP)?.query_row([name], |row| row.get(0))
}

pub(crate) fn number(conn: &Connection, sql: &str) -> Result<i64> {
    conn.prepare_cached(sql)?.query_row([], |row| row.get(0))
}

pub(crate) fn bulk(conn: &mut Connection, rows: u64, limit: Duration) -> Result<u64> {
    let until = Instant::now() + limit;
    let tx = conn.transaction()?;
    let mut done = 0;
    {
        let mut insert = tx.prepare_cached(sql::INSERT)?;
        while done < rows && (!done.is_multiple_of(1000) || Instant::now() < until) {
            insert.execute(params![person(done), 1])?;
            done += 1;
        }
    }
    tx.commit()?;
    Ok(done)
}

pub(crate) fn add_build(conn: &mut Connection, project: i64, status: i64) -> Result<()> {
    // The transaction always writes, so it takes the lock when it begins. A deferred transaction might be unable to
    // become a writer later, and a busy handler does not help then.
    let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    tx.prepare_cached(sql::ADD_BUILD)?.execute(params![project, status, 60])?;
    tx.prepare_cached(sql::COUNT_BUILD)?.execute([project])?;
    tx.commit()
}

pub(crate) fn page(conn: &mut Connection, project: &str) -> Result<Page> {
    let tx = conn.transaction()?;
    let (id, builds): (i64, i64) = tx
        .prepare_cached(sql::PAGE_PROJECT)?
        .query_row([project], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let latest = tx
        .prepare_cached(sql::PAGE_LATEST)?
        .query_map([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<Vec<(i64, i64, i64)>>>()?;
    let statuses = tx
        .prepare_cached(sql::PAGE_STATUS)?
        .query_map([id], |row| row.get(1))?
        .collect::<Result<Vec<i64>>>()?;
    let mean = tx.prepare_cached(sql::PAGE_MEAN)?.query_row([id], |row| row.get(0))?;
    let failed = tx.prepare_cached(sql::PAGE_FAILED)?.query_row([id], |row| row.get(0))?;
    tx.commit()?;
    Ok(Page { builds, counted: statuses.iter().sum(), latest: latest.len(), mean, failed })
}
