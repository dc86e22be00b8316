//! tinystore: a store with one writer per file. Several writes share a commit, each in a savepoint of its own.
//!
//! The calls use its async API as its documentation shows. Its only kind of transaction over several statements is
//! `tx`, which holds the writer; so the page is read in such a transaction.

use std::time::{Duration, Instant};

use measure::{Job, Outcome, Page, Peer, Synchronous, person, sql};
use tinystore::aio::Store;
use tinystore::aio::sql::Database;
use tinystore::{Durability, Error, Options, sql as statement};

fn main() {
    measure::serve(|job| {
        let mut figures = measure::run(job, async || open(job))?;
        figures.sqlite = rusqlite::version().to_owned();
        Ok(figures)
    });
}

#[derive(Clone)]
struct Tinystore {
    db: Database,
    /// Dropping this closes the store.
    _store: Store,
}

/// The file is `DIR/sql/NAME.db`, where a store expects it.
fn open(job: &Job) -> Outcome<Tinystore> {
    if job.peer != "tinystore" {
        return Err(format!("there is no peer `{}` in this binary", job.peer));
    }
    let dir = job.file.parent().and_then(std::path::Path::parent).ok_or("no directory")?;
    let name = job.file.file_stem().and_then(|name| name.to_str()).ok_or("no name")?;
    let store = Store::open(dir, Options::default()).map_err(said)?;
    let db = store
        .database(name)
        .durability(match job.synchronous {
            Synchronous::Full => Durability::Full,
            Synchronous::Normal => Durability::Os,
        })
        .open()
        .map_err(said)?;
    Ok(Tinystore { db, _store: store })
}

impl Peer for Tinystore {
    async fn insert(&self, name: String) -> Outcome<()> {
        self.db.exec(statement!(sql::INSERT, name, 1)).await.map(drop).map_err(said)
    }

    async fn lookup(&self, name: String) -> Outcome<i64> {
        self.db.scalar(statement!(sql::LOOKUP, name)).await.map_err(said)
    }

    async fn scan(&self) -> Outcome<i64> {
        self.db.scalar(statement!(sql::SCAN)).await.map_err(said)
    }

    async fn endless(&self) -> Outcome<i64> {
        self.db.scalar(statement!(sql::ENDLESS)).await.map_err(said)
    }

    async fn one(&self) -> Outcome<i64> {
        self.db.scalar(statement!(sql::ONE)).await.map_err(said)
    }

    async fn bulk(&self, rows: u64, limit: Duration) -> Outcome<u64> {
        let work = move |tx: &tinystore::sql::Tx<'_>| {
            let until = Instant::now() + limit;
            let mut done = 0;
            while done < rows && (!done.is_multiple_of(1000) || Instant::now() < until) {
                tx.exec(statement!(sql::INSERT, person(done), 1))?;
                done += 1;
            }
            Ok(done)
        };
        self.db.tx(work).await.map_err(said)
    }

    async fn add_build(&self, project: i64, status: i64) -> Outcome<()> {
        let add = statement!(sql::ADD_BUILD, project, status, 60);
        let count = statement!(sql::COUNT_BUILD, project);
        self.db.batch([add, count]).await.map(drop).map_err(said)
    }

    async fn page(&self, project: String) -> Outcome<Page> {
        let work = move |tx: &tinystore::sql::Tx<'_>| {
            let heading: Option<(i64, i64)> = tx.one(statement!(sql::PAGE_PROJECT, project))?;
            let (id, builds) = heading.unwrap_or_default();
            let latest: Vec<(i64, i64, i64)> = tx.all(statement!(sql::PAGE_LATEST, id))?;
            let statuses: Vec<(i64, i64)> = tx.all(statement!(sql::PAGE_STATUS, id))?;
            let mean = tx.scalar(statement!(sql::PAGE_MEAN, id))?;
            let failed = tx.scalar(statement!(sql::PAGE_FAILED, id))?;
            let counted = statuses.iter().map(|(_, count)| count).sum();
            Ok(Page { builds, counted, latest: latest.len(), mean, failed })
        };
        self.db.tx(work).await.map_err(said)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn said(error: Error) -> String {
    error.to_string()
}
