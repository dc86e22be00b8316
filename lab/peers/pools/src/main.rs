//! tokio-rusqlite, deadpool-sqlite and r2d2_sqlite, which link the SQLite of rusqlite 0.40.

#[path = "../../statements.rs"]
mod statements;

use deadpool_sqlite::{Config, Hook, HookError, Runtime};
use measure::{Figures, Job, Outcome};
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::{Connection, Result};
use statements::{Connections, Over, configure};

fn main() {
    measure::serve(|job| {
        let mut figures = run(job)?;
        figures.sqlite = rusqlite::version().to_owned();
        Ok(figures)
    });
}

fn run(job: &Job) -> Outcome<Figures> {
    match job.peer.as_str() {
        "tokio-rusqlite" => measure::run(job, || tokio_rusqlite(job)),
        "deadpool" => measure::run(job, || deadpool(job)),
        "r2d2" => measure::run(job, async || r2d2(job)),
        peer => Err(format!("there is no peer `{peer}` in this binary")),
    }
}

/// One thread with one connection.
#[derive(Clone)]
struct TokioRusqlite(tokio_rusqlite::Connection);

async fn tokio_rusqlite(job: &Job) -> Outcome<Over<TokioRusqlite>> {
    let conn =
        tokio_rusqlite::Connection::open(&job.file).await.map_err(|error| error.to_string())?;
    let synchronous = job.synchronous;
    conn.call(move |conn| configure(conn, synchronous)).await.map_err(|error| error.to_string())?;
    Ok(Over(TokioRusqlite(conn)))
}

impl Connections for TokioRusqlite {
    async fn with<T: Send + 'static>(
        &self,
        f: impl FnMut(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Outcome<T> {
        self.0.call(f).await.map_err(|error| error.to_string())
    }
}

/// A pool of the default size, which is twice the number of cores. Calls use `interact`.
#[derive(Clone)]
struct Deadpool(deadpool_sqlite::Pool);

async fn deadpool(job: &Job) -> Outcome<Over<Deadpool>> {
    let synchronous = job.synchronous;
    let builder = match Config::new(&job.file).builder(Runtime::Tokio1) {
        Ok(builder) => builder,
        Err(never) => match never {},
    };
    let pool = builder
        .post_create(Hook::async_fn(move |conn, _| {
            Box::pin(async move {
                conn.interact(move |conn| configure(conn, synchronous))
                    .await
                    .map_err(|error| HookError::message(error.to_string()))?
                    .map_err(|error| HookError::message(error.to_string()))
            })
        }))
        .build()
        .map_err(|error| error.to_string())?;
    Ok(Over(Deadpool(pool)))
}

impl Connections for Deadpool {
    async fn with<T: Send + 'static>(
        &self,
        f: impl FnMut(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Outcome<T> {
        let conn = self.0.get().await.map_err(|error| error.to_string())?;
        conn.interact(f)
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())
    }
}

/// A pool of the default size, which is ten. Its calls block, so they run in `spawn_blocking`.
#[derive(Clone)]
struct R2d2(r2d2::Pool<SqliteConnectionManager>);

fn r2d2(job: &Job) -> Outcome<Over<R2d2>> {
    let synchronous = job.synchronous;
    let manager = SqliteConnectionManager::file(&job.file)
        .with_init(move |conn| configure(conn, synchronous));
    Ok(Over(R2d2(r2d2::Pool::new(manager).map_err(|error| error.to_string())?)))
}

impl Connections for R2d2 {
    async fn with<T: Send + 'static>(
        &self,
        mut f: impl FnMut(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Outcome<T> {
        let pool = self.0.clone();
        tokio::task::spawn_blocking(move || {
            let mut conn = pool.get().map_err(|error| error.to_string())?;
            f(&mut conn).map_err(|error| error.to_string())
        })
        .await
        .map_err(|error| error.to_string())?
    }
}
