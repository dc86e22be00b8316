//! Live queries: run again when a table that they have read may have changed.
//!
//! Which tables those are, each run finds out: SQLite's authorizer names what a statement reads, below views too, when
//! it is prepared. So while a live query runs no statement comes from the cache.
//!
//! - LIVE1: the tables are those of the last run. What a name stands for may change with the schema, of which any change
//!   has the query run again; which statements it runs may change with the data, which the last run has read.
//! - LIVE2: nothing is missed. What is committed while a run is under way is noted by name, until the run is
//!   over and its tables are known (`Interest` in `changes/feed.rs`).
//! - LIVE3: a run that failed has not read everything that it would have: any change has it run again.

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

/// How a run ended that met no error of the query's own.
enum Ran<T> {
    Value(T),
    /// What the caller has listed does not exist, or could not be looked up.
    Unknown {
        name: String,
        error: rusqlite::Error,
    },
}

/// A query that is run again when something has changed; see [`Client::live`].
#[must_use = "a query runs when its results are asked for"]
pub struct Live<T: Send + 'static, E: Send + 'static> {
    inner: Arc<Inner>,
    query: Query<T, E>,
    /// What the caller listed; empty: the tables are those that the query reads.
    listed: Arc<[String]>,
    watch: QueryWatch,
    /// The result is out of date, or there is none yet.
    stale: bool,
    running: Option<Run<T, E>>,
    /// What the run under way has read.
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
        // Subscribed before the first run, so that no commit falls between the two (E2).
        let watch = QueryWatch::new(&inner.core.feed);
        let inner = Arc::clone(inner);
        Self { inner, query, listed, watch, stale: true, running: None, found: Arc::default() }
    }

    /// The result of the next run; the first one comes at once. `None`: the database is closed.
    ///
    /// # Errors
    /// As [`Client::read`]; [`ErrorKind::Config`] when a listed name is neither a table nor a view. The stream
    /// goes on after an error: the query is run again when something changes.
    ///
    /// # Cancel safety
    /// A run that was begun goes on with the next call.
    pub async fn next(&mut self) -> Option<Result<T, Error<E>>> {
        std::future::poll_fn(|context| self.poll_run(context)).await
    }

    /// As [`Live::next`], blocking this thread. Not for a call's closure, as
    /// [`Changes::blocking_next`](crate::Changes::blocking_next).
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
            // What has changed by now is seen by the run that begins now.
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
