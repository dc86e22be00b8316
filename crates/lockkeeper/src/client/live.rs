//! Live queries, which run again when a table that they read may have changed.
//!
//! Each run finds these tables: when a statement is prepared, SQLite's authorizer names the tables that the statement
//! reads, including those below views. So while a live query runs, its statements do not come from the cache.
//!
//! - LIVE1: the tables are those of the last run. A change of the schema may give a name another meaning, so any change
//!   of the schema makes the query run again. A change of the data may lead the query to other tables, but the last run
//!   has read the table with that data.
//! - LIVE2: no change is missed. While a run is under way, its tables are not known, so the feed notes the names of all
//!   tables that commits change until the run ends (`Interest` in `changes/feed.rs`).
//! - LIVE3: a run that failed may not have read all of its tables, so any change makes the query run again.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::{handle::Inner, read::Read};
#[cfg(doc)]
use crate::Client;
use crate::changes::{feed::QueryWatch, interest::Reads};
use crate::engine::call::Many;
use crate::error::{Error, ErrorKind};
use crate::queue::block_on;
use crate::sqlite::snapshot::Snapshot;
use crate::sync::{Mutex, lock};

type Query<T, E> = Arc<dyn Fn(&Snapshot) -> Result<T, E> + Send + Sync>;
type Body<T, E> = Box<dyn FnMut(&Snapshot) -> Result<Ran<T>, E> + Send>;
type Run<T, E> = Read<Many<Body<T, E>>, Ran<T>, E>;

/// The result of a run in which the query itself did not fail.
enum Ran<T> {
    Value(T),
    /// A table that the caller has listed does not exist or could not be looked up.
    Unknown {
        name: String,
        error: rusqlite::Error,
    },
}

/// A query that runs again when its tables have changed; see [`Client::live`].
#[must_use = "a query runs when its results are asked for"]
pub struct Live<T: Send + 'static, E: Send + 'static> {
    inner: Arc<Inner>,
    query: Query<T, E>,
    /// The tables that the caller has listed; empty: the tables that the query reads are used.
    listed: Arc<[String]>,
    watch: QueryWatch,
    /// Whether the result is out of date or does not exist yet.
    stale: bool,
    running: Option<Run<T, E>>,
    /// The tables that the run under way has read.
    found: Arc<Mutex<Option<Reads>>>,
}

impl<T: Send + 'static, E: Send + 'static> Unpin for Live<T, E> {}

impl<T: Send + 'static, E: Send + 'static> fmt::Debug for Live<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = self.running.is_some();
        f.debug_struct("Live").field("running", &running).finish_non_exhaustive()
    }
}

impl<T: Send + 'static, E: Send + 'static> Live<T, E> {
    pub(crate) fn new(inner: &Arc<Inner>, listed: Arc<[String]>, query: Query<T, E>) -> Self {
        // Subscribes before the first run, so that no commit falls between the subscription and the run (FEED2).
        let watch = QueryWatch::new(&inner.core.feed);
        let inner = Arc::clone(inner);
        Self { inner, query, listed, watch, stale: true, running: None, found: Arc::default() }
    }

    /// The result of the next run. The first run begins without waiting for a change. `None`: the database is closed.
    ///
    /// # Errors
    /// As [`Client::read`]; [`ErrorKind::Config`] when a listed name is neither a table nor a view. The stream
    /// goes on after an error: the query runs again when a table changes.
    ///
    /// # Cancel safety
    /// When the future is dropped, the run goes on, and the next call waits for it.
    pub async fn next(&mut self) -> Option<Result<T, Error<E>>> {
        std::future::poll_fn(|context| self.poll_run(context)).await
    }

    /// As [`Live::next`], but blocks this thread. Like [`Changes::blocking_next`](crate::Changes::blocking_next), it
    /// must not be called inside a call's closure.
    pub fn blocking_next(&mut self) -> Option<Result<T, Error<E>>> {
        block_on(self.next())
    }

    fn poll_run(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<T, Error<E>>>> {
        loop {
            if let Some(run) = &mut self.running {
                let Poll::Ready(result) = Pin::new(run).poll(context) else {
                    return Poll::Pending;
                };
                self.running = None;
                // LIVE3
                let any = || Reads { anything: true, ..Reads::default() };
                self.watch.settle(lock(&self.found).take().unwrap_or_else(any));
                return Poll::Ready(match result {
                    Ok(Ran::Value(value)) => Some(Ok(value)),
                    Ok(Ran::Unknown { name, error }) => Some(Err(unknown(&name, error))),
                    Err(error) if error.kind() == ErrorKind::Closed => None,
                    Err(error) => Some(Err(error)),
                });
            }
            // The run that begins now sees all changes so far.
            match self.watch.poll(context) {
                Poll::Ready(Some(())) => self.stale = true,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending if self.stale => {}
                Poll::Pending => return Poll::Pending,
            }
            self.stale = false;
            self.watch.begin();
            self.running = Some(Read::new(&self.inner, Many(self.body()), None));
        }
    }

    fn body(&self) -> Body<T, E> {
        let (query, listed) = (Arc::clone(&self.query), Arc::clone(&self.listed));
        let found = Arc::clone(&self.found);
        Box::new(move |snapshot| {
            *lock(&found) = None;
            let mut reads = Reads::default();
            for name in listed.iter() {
                match snapshot.tables_of(name) {
                    Ok(below) => {
                        reads.anything |= below.anything;
                        reads.tables.extend(below.tables);
                    }
                    Err(error) => return Ok(Ran::Unknown { name: name.clone(), error }),
                }
            }
            let (result, read) = match listed.is_empty() {
                true => snapshot.noting_reads(|| query(snapshot)),
                false => (query(snapshot), reads),
            };
            let value = result?;
            *lock(&found) = Some(read);
            Ok(Ran::Value(value))
        })
    }
}

fn unknown<E>(name: &str, error: rusqlite::Error) -> Error<E> {
    let missing = error.to_string().contains("no such table");
    let kind = if missing { ErrorKind::Config } else { ErrorKind::Sqlite };
    let detail = match missing {
        true => format!("a live query lists `{name}`, which is neither a table nor a view"),
        false => format!("`{name}`, which a live query lists, could not be looked up"),
    };
    Error::sqlite_error(kind, error).detail(detail)
}

impl<T: Send + 'static, E: Send + 'static> Stream for Live<T, E> {
    type Item = Result<T, Error<E>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_run(context)
    }
}
