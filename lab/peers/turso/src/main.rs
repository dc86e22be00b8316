//! turso: SQLite's file format and SQL, implemented anew in Rust. Its code runs in the calling task.
//!
//! The peer is set up as turso's documentation shows: a connection for each call in flight, and statements prepared
//! with `prepare_cached`. By default one connection writes at a time, so writes wait for a mutex of the peer, and not
//! in the sleeps of a busy handler. With MVCC, writes run in `BEGIN CONCURRENT` and are repeated after a conflict.

use std::future::Future;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use measure::{Figures, Job, Outcome, Page, Peer, Synchronous, person, sql};
use turso::{Builder, Connection, Database, Error, Row};

/// The most tries of a transaction that conflicts with others.
const TRIES: u32 = 1000;
/// How long a connection waits for the write lock.
const BUSY: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [] => measure::serve(run),
        [order, file] if order == "to-sqlite" => match to_sqlite(file) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!("usage: turso-peer [to-sqlite FILE]");
            ExitCode::FAILURE
        }
    }
}

fn run(job: &Job) -> Outcome<Figures> {
    let mvcc = match job.peer.as_str() {
        "turso" => false,
        "turso-mvcc" => true,
        peer => return Err(format!("there is no peer `{peer}` in this binary")),
    };
    let mut figures = measure::run(job, || open(job, mvcc))?;
    figures.sqlite = "none".to_owned();
    Ok(figures)
}

/// Switches MVCC off, so that SQLite can read the file.
fn to_sqlite(file: &str) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let conn = database(Path::new(file)).await?.connect().map_err(said)?;
        conn.pragma_update("journal_mode", "'wal'").await.map(drop).map_err(said)
    })
}

async fn database(file: &Path) -> Outcome<Database> {
    let file = file.to_str().ok_or("turso wants a path in UTF-8")?;
    Builder::new_local(file).build().await.map_err(said)
}

#[derive(Clone)]
struct Turso(Arc<Shared>);

struct Shared {
    database: Database,
    synchronous: Synchronous,
    mvcc: bool,
    idle: Mutex<Vec<Connection>>,
    /// Held during a write, unless MVCC is on.
    writer: tokio::sync::Mutex<()>,
}

async fn open(job: &Job, mvcc: bool) -> Outcome<Turso> {
    let database = database(&job.file).await?;
    let shared = Shared {
        database,
        synchronous: job.synchronous,
        mvcc,
        idle: Mutex::default(),
        writer: tokio::sync::Mutex::new(()),
    };
    let turso = Turso(Arc::new(shared));
    if mvcc {
        let conn = turso.connection().await?;
        conn.pragma_update("journal_mode", "'mvcc'").await.map_err(said)?;
        turso.give_back(conn);
    }
    Ok(turso)
}

impl Turso {
    async fn connection(&self) -> Outcome<Connection> {
        let idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(conn) = idle {
            return Ok(conn);
        }
        let conn = self.0.database.connect().map_err(said)?;
        conn.busy_timeout(BUSY).map_err(said)?;
        let synchronous = self.0.synchronous.sql();
        conn.pragma_update("synchronous", synchronous).await.map_err(said)?;
        conn.pragma_update("cache_size", format!("-{}", sql::CACHE_KIB)).await.map_err(said)?;
        Ok(conn)
    }

    fn give_back(&self, conn: Connection) {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
    }

    /// Reads on some connection. A connection whose call failed is not used again.
    async fn read<T, F>(&self, call: impl FnOnce(Connection) -> F + Send) -> Outcome<T>
    where
        F: Future<Output = Result<T, Error>> + Send,
    {
        let conn = self.connection().await?;
        let answer = call(conn.clone()).await.map_err(said)?;
        self.give_back(conn);
        Ok(answer)
    }

    /// Runs a transaction. With MVCC, repeats it after a conflict.
    async fn write<T, F>(&self, mut call: impl FnMut(Connection) -> F + Send) -> Outcome<T>
    where
        T: Send,
        F: Future<Output = Result<T, Error>> + Send,
    {
        let _turn = match self.0.mvcc {
            true => None,
            false => Some(self.0.writer.lock().await),
        };
        let begin = if self.0.mvcc { "BEGIN CONCURRENT" } else { "BEGIN IMMEDIATE" };
        let conn = self.connection().await?;
        let mut tries = 1;
        loop {
            match transaction(&conn, begin, &mut call).await {
                Ok(answer) => {
                    self.give_back(conn);
                    return Ok(answer);
                }
                Err(error) => {
                    if !conn.is_autocommit().map_err(said)? {
                        cached(&conn, "ROLLBACK").await.map_err(said)?;
                    }
                    if !self.0.mvcc || !is_conflict(&error) || tries == TRIES {
                        return Err(format!("{error} (tried {tries} times)"));
                    }
                    tries += 1;
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

async fn transaction<T, F>(
    conn: &Connection,
    begin: &str,
    call: &mut (impl FnMut(Connection) -> F + Send),
) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>> + Send,
{
    cached(conn, begin).await?;
    let answer = call(conn.clone()).await?;
    cached(conn, "COMMIT").await?;
    Ok(answer)
}

async fn cached(conn: &Connection, sql: &str) -> Result<(), Error> {
    conn.prepare_cached(sql).await?.execute(()).await.map(drop)
}

/// The condition in turso's example of concurrent writes.
fn is_conflict(error: &Error) -> bool {
    match error {
        Error::Busy(_) | Error::BusySnapshot(_) => true,
        Error::Error(text) => text.contains("conflict"),
        _ => false,
    }
}

async fn row(conn: &Connection, sql: &str, params: impl turso::IntoParams) -> Result<Row, Error> {
    conn.prepare_cached(sql).await?.query_row(params).await
}

impl Turso {
    async fn number(&self, sql: &'static str) -> Outcome<i64> {
        self.read(|conn| async move { row(&conn, sql, ()).await?.get(0) }).await
    }
}

impl Peer for Turso {
    async fn insert(&self, name: String) -> Outcome<()> {
        if self.0.mvcc {
            return self.write(|conn| insert(conn, name.clone())).await;
        }
        // A single statement is a transaction by itself.
        let _turn = self.0.writer.lock().await;
        self.read(|conn| insert(conn, name)).await
    }

    async fn lookup(&self, name: String) -> Outcome<i64> {
        self.read(|conn| async move { row(&conn, sql::LOOKUP, (name,)).await?.get(0) }).await
    }

    async fn scan(&self) -> Outcome<i64> {
        self.number(sql::SCAN).await
    }

    async fn endless(&self) -> Outcome<i64> {
        self.number(sql::ENDLESS).await
    }

    async fn one(&self) -> Outcome<i64> {
        self.number(sql::ONE).await
    }

    async fn bulk(&self, rows: u64, limit: Duration) -> Outcome<u64> {
        self.write(|conn| async move {
            let until = Instant::now() + limit;
            let mut insert = conn.prepare_cached(sql::INSERT).await?;
            let mut done = 0;
            while done < rows && (!done.is_multiple_of(1000) || Instant::now() < until) {
                insert.execute((person(done), 1)).await?;
                done += 1;
            }
            Ok(done)
        })
        .await
    }

    async fn add_build(&self, project: i64, status: i64) -> Outcome<()> {
        self.write(|conn| async move {
            let mut add = conn.prepare_cached(sql::ADD_BUILD).await?;
            add.execute((project, status, 60)).await?;
            let mut count = conn.prepare_cached(sql::COUNT_BUILD).await?;
            count.execute((project,)).await.map(drop)
        })
        .await
    }

    async fn page(&self, project: String) -> Outcome<Page> {
        self.read(|conn| async move {
            cached(&conn, "BEGIN").await?;
            let heading = row(&conn, sql::PAGE_PROJECT, (project,)).await?;
            let (id, builds): (i64, i64) = (heading.get(0)?, heading.get(1)?);
            let latest = rows(&conn, sql::PAGE_LATEST, id).await?.len();
            let mut counted = 0;
            for status in rows(&conn, sql::PAGE_STATUS, id).await? {
                counted += status.get::<i64>(1)?;
            }
            let mean = row(&conn, sql::PAGE_MEAN, (id,)).await?.get(0)?;
            let failed = row(&conn, sql::PAGE_FAILED, (id,)).await?.get(0)?;
            cached(&conn, "COMMIT").await?;
            Ok(Page { builds, counted, latest, mean, failed })
        })
        .await
    }
}

async fn insert(conn: Connection, name: String) -> Result<(), Error> {
    conn.prepare_cached(sql::INSERT).await?.execute((name, 1)).await.map(drop)
}

async fn rows(conn: &Connection, sql: &str, id: i64) -> Result<Vec<Row>, Error> {
    let mut rows = conn.prepare_cached(sql).await?.query((id,)).await?;
    let mut all = Vec::new();
    while let Some(row) = rows.next().await? {
        all.push(row);
    }
    Ok(all)
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn said(error: Error) -> String {
    error.to_string()
}
