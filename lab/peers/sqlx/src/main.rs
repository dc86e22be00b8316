//! sqlx, which links its own SQLite.

use std::time::{Duration, Instant};

use measure::{Figures, Job, Outcome, Page, Peer, Synchronous, person, sql};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, SqlitePool};

fn main() {
    measure::serve(run);
}

fn run(job: &Job) -> Outcome<Figures> {
    let version = std::sync::Arc::new(std::sync::OnceLock::new());
    let connections = match job.peer.as_str() {
        // The default size of the pool.
        "sqlx" => 10,
        "sqlx-1" => 1,
        peer => return Err(format!("there is no peer `{peer}` in this binary")),
    };
    let mut figures =
        measure::run(job, || open(job, connections, std::sync::Arc::clone(&version)))?;
    figures.sqlite = version.get().cloned().unwrap_or_default();
    Ok(figures)
}

#[derive(Clone)]
struct Sqlx(SqlitePool);

async fn open(
    job: &Job,
    connections: u32,
    version: std::sync::Arc<std::sync::OnceLock<String>>,
) -> Outcome<Sqlx> {
    let options = SqliteConnectOptions::new()
        .filename(&job.file)
        .synchronous(match job.synchronous {
            Synchronous::Full => SqliteSynchronous::Full,
            Synchronous::Normal => SqliteSynchronous::Normal,
        })
        .pragma("cache_size", format!("-{}", sql::CACHE_KIB));
    let pool = SqlitePoolOptions::new()
        .max_connections(connections)
        .connect_with(options)
        .await
        .map_err(said)?;
    let linked: String =
        sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&pool).await.map_err(said)?;
    let _ = version.set(linked);
    Ok(Sqlx(pool))
}

impl Peer for Sqlx {
    async fn insert(&self, name: String) -> Outcome<()> {
        sqlx::query(sql::INSERT).bind(name).bind(1).execute(&self.0).await.map(drop).map_err(said)
    }

    async fn lookup(&self, name: String) -> Outcome<i64> {
        sqlx::query_scalar(sql::LOOKUP).bind(name).fetch_one(&self.0).await.map_err(said)
    }

    async fn scan(&self) -> Outcome<i64> {
        sqlx::query_scalar(sql::SCAN).fetch_one(&self.0).await.map_err(said)
    }

    async fn endless(&self) -> Outcome<i64> {
        sqlx::query_scalar(sql::ENDLESS).fetch_one(&self.0).await.map_err(said)
    }

    async fn one(&self) -> Outcome<i64> {
        sqlx::query_scalar(sql::ONE).fetch_one(&self.0).await.map_err(said)
    }

    async fn bulk(&self, rows: u64, limit: Duration) -> Outcome<u64> {
        let until = Instant::now() + limit;
        let mut tx = self.0.begin().await.map_err(said)?;
        let mut done = 0;
        while done < rows && (!done.is_multiple_of(1000) || Instant::now() < until) {
            sqlx::query(sql::INSERT)
                .bind(person(done))
                .bind(1)
                .execute(&mut *tx)
                .await
                .map_err(said)?;
            done += 1;
        }
        tx.commit().await.map_err(said)?;
        Ok(done)
    }

    async fn add_build(&self, project: i64, status: i64) -> Outcome<()> {
        let mut tx = self.0.begin_with("BEGIN IMMEDIATE").await.map_err(said)?;
        sqlx::query(sql::ADD_BUILD)
            .bind(project)
            .bind(status)
            .bind(60)
            .execute(&mut *tx)
            .await
            .map_err(said)?;
        sqlx::query(sql::COUNT_BUILD).bind(project).execute(&mut *tx).await.map_err(said)?;
        tx.commit().await.map_err(said)
    }

    async fn page(&self, project: String) -> Outcome<Page> {
        let mut tx = self.0.begin().await.map_err(said)?;
        let row =
            sqlx::query(sql::PAGE_PROJECT).bind(project).fetch_one(&mut *tx).await.map_err(said)?;
        let (id, builds): (i64, i64) =
            (row.try_get(0).map_err(said)?, row.try_get(1).map_err(said)?);
        let latest: Vec<(i64, i64, i64)> =
            sqlx::query_as(sql::PAGE_LATEST).bind(id).fetch_all(&mut *tx).await.map_err(said)?;
        let statuses: Vec<(i64, i64)> =
            sqlx::query_as(sql::PAGE_STATUS).bind(id).fetch_all(&mut *tx).await.map_err(said)?;
        let mean =
            sqlx::query_scalar(sql::PAGE_MEAN).bind(id).fetch_one(&mut *tx).await.map_err(said)?;
        let failed = sqlx::query_scalar(sql::PAGE_FAILED)
            .bind(id)
            .fetch_one(&mut *tx)
            .await
            .map_err(said)?;
        tx.commit().await.map_err(said)?;
        Ok(Page {
            builds,
            counted: statuses.iter().map(|(_, count)| count).sum(),
            latest: latest.len(),
            mean,
            failed,
        })
    }
}

fn said(error: sqlx::Error) -> String {
    error.to_string()
}
