//! Lockkeeper, used as its README advises.

use std::time::{Duration, Instant};

use lockkeeper::{Client, Database, Error};
use measure::{Job, Outcome, Page, Peer, Synchronous, person, sql};

#[derive(Clone)]
pub(crate) struct Ours {
    db: Database,
    client: Client,
    short: bool,
}

pub(crate) async fn open(job: &Job, short: bool) -> Outcome<Ours> {
    let db = Database::builder(&job.file)
        .synchronous(match job.synchronous {
            Synchronous::Full => lockkeeper::Synchronous::Full,
            Synchronous::Normal => lockkeeper::Synchronous::Normal,
        })
        .page_cache_bytes((sql::CACHE_KIB << 10) as usize)
        .open()
        .await
        .map_err(said)?;
    let client = (*db).clone();
    Ok(Ours { db, client, short })
}

impl Peer for Ours {
    fn client(&self, name: &str) -> Self {
        Self { client: self.db.client(name), ..self.clone() }
    }

    async fn insert(&self, name: String) -> Outcome<()> {
        self.client
            .write(move |tx| tx.prepare_cached(sql::INSERT)?.execute((&name, 1)))
            .await
            .map(drop)
            .map_err(said)
    }

    async fn lookup(&self, name: String) -> Outcome<i64> {
        let read = self.client.read(move |snapshot| {
            snapshot.prepare_cached(sql::LOOKUP)?.query_row([&name], |row| row.get(0))
        });
        if self.short { read.short().await } else { read.await }.map_err(said)
    }

    async fn scan(&self) -> Outcome<i64> {
        number(&self.client, sql::SCAN).await
    }

    async fn endless(&self) -> Outcome<i64> {
        number(&self.client, sql::ENDLESS).await
    }

    async fn one(&self) -> Outcome<i64> {
        number(&self.client, sql::ONE).await
    }

    async fn bulk(&self, rows: u64, limit: Duration) -> Outcome<u64> {
        self.client
            .write(move |tx| {
                let until = Instant::now() + limit;
                let mut insert = tx.prepare_cached(sql::INSERT)?;
                let mut done = 0;
                while done < rows && (!done.is_multiple_of(1000) || Instant::now() < until) {
                    insert.execute((person(done), 1))?;
                    done += 1;
                }
                Ok(done)
            })
            .await
            .map_err(said)
    }

    async fn add_build(&self, project: i64, status: i64) -> Outcome<()> {
        self.client
            .write(move |tx| {
                tx.prepare_cached(sql::ADD_BUILD)?.execute((project, status, 60))?;
                tx.prepare_cached(sql::COUNT_BUILD)?.execute([project])
            })
            .await
            .map(drop)
            .map_err(said)
    }

    async fn page(&self, project: String) -> Outcome<Page> {
        self.client
            .read(move |s| {
                let (id, builds): (i64, i64) = s
                    .prepare_cached(sql::PAGE_PROJECT)?
                    .query_row([&project], |row| Ok((row.get(0)?, row.get(1)?)))?;
                let latest = s
                    .prepare_cached(sql::PAGE_LATEST)?
                    .query_map([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                    .collect::<rusqlite::Result<Vec<(i64, i64, i64)>>>()?;
                let statuses = s
                    .prepare_cached(sql::PAGE_STATUS)?
                    .query_map([id], |row| row.get(1))?
                    .collect::<rusqlite::Result<Vec<i64>>>()?;
                let mean = s.prepare_cached(sql::PAGE_MEAN)?.query_row([id], |row| row.get(0))?;
                let failed =
                    s.prepare_cached(sql::PAGE_FAILED)?.query_row([id], |row| row.get(0))?;
                Ok(Page {
                    builds,
                    counted: statuses.iter().sum(),
                    latest: latest.len(),
                    mean,
                    failed,
                })
            })
            .await
            .map_err(said)
    }
}

async fn number(client: &Client, sql: &'static str) -> Outcome<i64> {
    client.read(move |s| s.prepare_cached(sql)?.query_row([], |row| row.get(0))).await.map_err(said)
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn said(error: Error) -> String {
    error.to_string()
}
