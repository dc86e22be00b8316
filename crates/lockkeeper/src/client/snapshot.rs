//! The handle of a held snapshot, and the future that takes one.

use std::fmt;
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::read::{self, Read};
use super::{handle::Inner, pending::Pending, submission::Submission};
use crate::engine::call::{Many, Meta};
use crate::engine::held::{Held, Hold};
use crate::engine::item::{ReaderItem, SnapshotRequest, WriterItem};
use crate::error::Error;
use crate::sqlite::snapshot::Snapshot;
use crate::stats::holders::HolderKind;
#[cfg(doc)]
use crate::{Client, ErrorKind};

/// A snapshot that stays the same across awaits; see [`Client::snapshot`].
///
/// Reads on it run one after another. The snapshot is released when its last clone is dropped and its last read is
/// answered, when it reaches its maximum age, or when the database is closed. Reads after that fail. The release
/// immediately frees its place among the [held snapshots](crate::Builder::snapshots_max).
#[must_use = "dropping it releases the snapshot"]
pub struct HeldSnapshot<E: Send + 'static = rusqlite::Error> {
    inner: Arc<Inner>,
    hold: Arc<Hold>,
    error: PhantomData<fn() -> E>,
}

// A panic inside a call leaves the database and its handles in a valid state; see `Client` in `handle.rs`.
impl<E: Send + 'static> UnwindSafe for HeldSnapshot<E> {}
impl<E: Send + 'static> RefUnwindSafe for HeldSnapshot<E> {}

impl<E: Send + 'static> Clone for HeldSnapshot<E> {
    fn clone(&self) -> Self {
        let (inner, hold) = (Arc::clone(&self.inner), Arc::clone(&self.hold));
        Self { inner, hold, error: PhantomData }
    }
}

impl<E: Send + 'static> fmt::Debug for HeldSnapshot<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldSnapshot").field("commit", &self.commit()).finish_non_exhaustive()
    }
}

impl<E: Send + 'static> HeldSnapshot<E> {
    pub(crate) fn new(inner: &Arc<Inner>, held: Arc<Held>) -> Self {
        Self { inner: Arc::clone(inner), hold: Hold::new(held), error: PhantomData }
    }

    /// The number of the last commit in this snapshot, counted from the opening of the database. `None`, unless
    /// [`Write::and_snapshot`](crate::Write::and_snapshot) has taken the snapshot.
    pub fn commit(&self) -> Option<u64> {
        self.hold.held().commit()
    }

    /// Runs `f` on this snapshot, on a reader thread.
    ///
    /// # Errors
    /// As [`Client::read`]; [`ErrorKind::SnapshotExpired`] when the snapshot has been released.
    ///
    /// # Panics
    /// As [`Client::read`].
    ///
    /// # Cancel safety
    /// As [`Client::read`].
    #[track_caller]
    pub fn read<T, F>(&self, f: F) -> Read<Many<F>, T, E>
    where
        F: FnMut(&Snapshot) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
    {
        Read::new(&self.inner, Many(f), Some(Arc::clone(&self.hold)))
    }

    /// As [`HeldSnapshot::read`], but blocks this thread. `f` and its result may borrow, as for
    /// [`Client::blocking_write`].
    ///
    /// # Errors
    /// As [`HeldSnapshot::read`].
    ///
    /// # Panics
    /// As [`HeldSnapshot::read`].
    #[track_caller]
    pub fn blocking_read<T, F>(&self, f: F) -> Result<T, Error<E>>
    where
        F: FnMut(&Snapshot) -> Result<T, E> + Send,
        T: Send,
    {
        read::blocking(&self.inner, f, Some(Arc::clone(&self.hold)))
    }
}

/// A future that takes a snapshot; see [`Client::snapshot`].
#[must_use = "a call is submitted when it is polled"]
pub struct AcquireSnapshot<E: Send + 'static> {
    submission: Submission,
    pending: Pending<(), Result<Arc<Held>, Error>>,
    error: PhantomData<fn() -> E>,
}

impl<E: Send + 'static> Unpin for AcquireSnapshot<E> {}

opaque_debug!("AcquireSnapshot", [E: Send + 'static] AcquireSnapshot<E>);

impl<E: Send + 'static> AcquireSnapshot<E> {
    #[track_caller]
    pub(crate) fn new(inner: &Arc<Inner>) -> Self {
        let submission = Submission::new(HolderKind::Snapshot, inner);
        Self { submission, pending: Pending::New(()), error: PhantomData }
    }

    fn submit(&mut self) -> Result<(), Error<E>> {
        self.submission.admit()?;
        let request = |reply, meta: Meta| SnapshotRequest { reply, origin: meta.origin };
        let sent = if self.submission.inner.core.config.is_memory() {
            let item = |reply, meta| WriterItem::Snapshot(request(reply, meta));
            self.submission.submit_to_writer(item)?
        } else {
            let item = |reply, meta| ReaderItem::Snapshot(request(reply, meta));
            self.submission.submit_to_readers(item)?
        };
        self.pending = Pending::Sent(sent);
        Ok(())
    }
}

impl<E: Send + 'static> Future for AcquireSnapshot<E> {
    type Output = Result<HeldSnapshot<E>, Error<E>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.pending.take_new().is_some() {
            self.submit()?;
        }
        let held = ready!(self.pending.poll(
            context,
            |answer| match answer {
                Ok(pinned) => pinned.map_err(Error::without_call),
                Err(error) => Err(error.into()),
            },
            |never| match never {},
        ))?;
        Poll::Ready(Ok(HeldSnapshot::new(&self.submission.inner, held)))
    }
}
