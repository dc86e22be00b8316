//! The part of Lockkeeper's interface that the server uses, until Lockkeeper itself is there.
//!
//! One writer thread that commits what is waiting as one transaction, each call in a savepoint of
//! its own, and a few reader threads. It goes away with the first Lockkeeper that has `Database`.

use std::ops::Deref;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

/// A read transaction.
#[derive(Debug)]
pub(crate) struct Snapshot {
    conn: rusqlite::Connection,
}

impl Snapshot {
    /// Prepares a statement once and keeps it.
    pub(crate) fn prepare_cached(
        &self,
        sql: &str,
    ) -> rusqlite::Result<rusqlite::CachedStatement<'_>> {
        self.conn.prepare_cached(sql)
    }

    /// The only row of a query.
    pub(crate) fn query_row<T, P: rusqlite::Params, F>(
        &self,
        sql: &str,
        params: P,
        f: F,
    ) -> rusqlite::Result<T>
    where
        F: FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    {
        self.conn.query_row(sql, params, f)
    }
}

/// A write transaction.
#[derive(Debug)]
pub(crate) struct Transaction {
    snapshot: Snapshot,
}

impl Deref for Transaction {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.snapshot
    }
}

impl Transaction {
    /// The row number of the last insert.
    pub(crate) fn last_insert_rowid(&self) -> i64 {
        self.snapshot.conn.last_insert_rowid()
    }
}

type Call = Box<dyn FnOnce(&Transaction) -> Box<dyn FnOnce(bool) + Send> + Send>;
type ReadCall = Box<dyn FnOnce(&Snapshot) + Send>;

/// One SQLite file: a writer thread and reader threads.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    writes: SyncSender<Message>,
    reads: SyncSender<ReadCall>,
}

enum Message {
    Call(Call),
    Exclusive(Box<dyn FnOnce(&mut rusqlite::Connection) + Send>),
}

/// Why a call came to nothing.
#[derive(Debug)]
pub(crate) enum Error {
    /// SQLite said so.
    Sqlite(rusqlite::Error),
    /// The database is closed.
    Closed,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(error) => error.fmt(f),
            Self::Closed => f.write_str("the database is closed"),
        }
    }
}

impl std::error::Error for Error {}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn connect(path: &Path) -> rusqlite::Result<rusqlite::Connection> {
    let conn = rusqlite::Connection::open(path)?;
    conn.set_prepared_statement_cache_capacity(128);
    conn.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
         PRAGMA busy_timeout = 30000;",
    )?;
    Ok(conn)
}

impl Database {
    /// Opens the file, creating it if need be.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let writer = connect(path)?;
        let (writes, inbox) = sync_channel(1024);
        std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || write_loop(writer, &inbox))
            .map_err(|_| Error::Closed)?;
        let (reads, outbox) = sync_channel::<ReadCall>(1024);
        let outbox = Arc::new(Mutex::new(outbox));
        for number in 0..2 {
            let conn = connect(path)?;
            let outbox = Arc::clone(&outbox);
            std::thread::Builder::new()
                .name(format!("reader-{number}"))
                .spawn(move || {
                    let snapshot = Snapshot { conn };
                    loop {
                        let call = outbox.lock().map(|outbox| outbox.recv());
                        let Ok(Ok(call)) = call else { return };
                        if snapshot.conn.execute_batch("BEGIN").is_ok() {
                            call(&snapshot);
                            let _ = snapshot.conn.execute_batch("COMMIT");
                        }
                    }
                })
                .map_err(|_| Error::Closed)?;
        }
        Ok(Self { writes, reads })
    }

    /// Runs `f` in a transaction; answers after the commit.
    pub(crate) async fn write<T, F>(&self, f: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&Transaction) -> rusqlite::Result<T> + Send + 'static,
    {
        let mut f = f;
        let (reply, answer) = oneshot::channel();
        let call: Call = Box::new(move |tx| {
            let result = f(tx);
            Box::new(move |committed| {
                let _ = reply.send(if committed {
                    result.map_err(Error::from)
                } else {
                    Err(Error::Closed)
                });
            })
        });
        let wrapped: Call = Box::new(move |tx| {
            let conn = &tx.snapshot.conn;
            let _ = conn.execute_batch("SAVEPOINT call");
            call(tx)
        });
        if self.writes.try_send(Message::Call(wrapped)).is_err() {
            return Err(Error::Closed);
        }
        answer.await.unwrap_or(Err(Error::Closed))
    }

    /// Runs `f` on a snapshot.
    pub(crate) async fn read<T, F>(&self, f: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&Snapshot) -> rusqlite::Result<T> + Send + 'static,
    {
        let mut f = f;
        let (reply, answer) = oneshot::channel();
        let call: ReadCall = Box::new(move |snapshot| {
            let _ = reply.send(f(snapshot).map_err(Error::from));
        });
        if self.reads.try_send(call).is_err() {
            return Err(Error::Closed);
        }
        answer.await.unwrap_or(Err(Error::Closed))
    }

    /// Runs `f` on the writer's connection, outside any transaction.
    pub(crate) async fn exclusive<T, F>(&self, f: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let call = Box::new(move |conn: &mut rusqlite::Connection| {
            let _ = reply.send(f(conn).map_err(Error::from));
        });
        if self.writes.try_send(Message::Exclusive(call)).is_err() {
            return Err(Error::Closed);
        }
        answer.await.unwrap_or(Err(Error::Closed))
    }

    /// Closes the database; the stand-in leaves that to the end of the process.
    pub(crate) async fn close(&self) -> Result<(), Error> {
        self.exclusive(|conn| conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")).await
    }

    /// A handle for one part of the server.
    pub(crate) fn client(&self, _name: &str) -> Self {
        self.clone()
    }
}

fn write_loop(conn: rusqlite::Connection, inbox: &Receiver<Message>) {
    let mut tx = Transaction { snapshot: Snapshot { conn } };
    let mut next = None;
    loop {
        let Some(first) = next.take().or_else(|| inbox.recv().ok()) else { return };
        let mut message = match first {
            Message::Exclusive(call) => {
                call(&mut tx.snapshot.conn);
                continue;
            }
            Message::Call(call) => Some(call),
        };
        if tx.snapshot.conn.execute_batch("BEGIN IMMEDIATE").is_err() {
            continue;
        }
        let mut answers = Vec::new();
        while let Some(call) = message.take() {
            answers.push(call(&tx));
            let _ = tx.snapshot.conn.execute_batch("RELEASE call");
            if answers.len() < 256 {
                match inbox.try_recv() {
                    Ok(Message::Call(call)) => message = Some(call),
                    Ok(other) => next = Some(other),
                    Err(_) => {}
                }
            }
        }
        let committed = tx.snapshot.conn.execute_batch("COMMIT").is_ok();
        if !committed {
            let _ = tx.snapshot.conn.execute_batch("ROLLBACK");
        }
        for answer in answers {
            answer(committed);
        }
    }
}
