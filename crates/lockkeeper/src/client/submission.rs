//! What all awaited calls have in common: their client, their place in the program, and their deadline.

use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use super::{handle::Inner, pending::Sent};
use crate::engine::call::{Meta, Outcome};
use crate::engine::item::{ReaderItem, WriterItem};
use crate::error::{Error, ErrorKind};
use crate::queue::{
    Ancestry, CallError, InFlight, Item, Lane, RefusedReason, Reply, Room, ancestry_for, refused,
    reply,
};
use crate::stats::holders::{Board, HolderKind, Origin, Why};

pub(crate) struct Submission {
    pub(crate) inner: Arc<Inner>,
    kind: HolderKind,
    /// Counted from the submission; `None`: the call never times out.
    pub(crate) deadline: Option<Duration>,
    place: &'static Location<'static>,
    /// The call that this call waited for when its deadline passed.
    why: Why,
}

// A panic inside a call leaves the database and its handles in a valid state; see `Client` in `handle.rs`.
impl UnwindSafe for Submission {}
impl RefUnwindSafe for Submission {}

impl Submission {
    #[track_caller]
    pub(crate) fn new(kind: HolderKind, inner: &Arc<Inner>) -> Self {
        let inner = Arc::clone(inner);
        Self { inner, kind, deadline: None, place: Location::caller(), why: Why::default() }
    }

    /// A submission of the same caller for a later call, without a deadline.
    pub(crate) fn follow_up(&self) -> Self {
        let (inner, kind, place) = (Arc::clone(&self.inner), self.kind, self.place);
        Self { inner, kind, deadline: None, place, why: Why::default() }
    }

    /// The ancestry of the call; an error if this thread must not make the call now.
    pub(crate) fn admit<E: Send + 'static>(&self) -> Result<Ancestry, Error<E>> {
        let core = &self.inner.core;
        core.check_process().map_err(Error::new)?;
        core.opener.file.lost().map_or(Ok(()), Err)?;
        Ok(ancestry_for(core.domain)?)
    }

    pub(crate) fn meta(&self) -> Meta {
        let client = self.inner.label.clone();
        Meta::new(Origin { kind: self.kind, client, place: self.place })
    }

    /// Lets `item` make a call, and submits that call to the writer.
    pub(crate) fn submit_to_writer<V: Send + 'static, E: Send + 'static>(
        &mut self,
        item: impl FnOnce(Reply<V>, Meta) -> WriterItem,
    ) -> Result<Sent<V>, Error<E>> {
        // Reads and snapshots go to the writer only if the database is in memory, and such a database is never
        // read-only. So this call is a write, and a read-only database refuses it.
        if self.inner.core.config.is_read_only() {
            return Err(Error::read_only());
        }
        let (in_flight, _) = self.submit(|inner| &inner.writes, Board::why_no_writer, item)?;
        Ok(Sent::ToWriter(in_flight))
    }

    /// Lets `item` make a call, and submits that call to the readers.
    pub(crate) fn submit_to_readers<V: Send + 'static, E: Send + 'static>(
        &mut self,
        item: impl FnOnce(Reply<V>, Meta) -> ReaderItem,
    ) -> Result<Sent<V>, Error<E>> {
        let (in_flight, check_for_stall) =
            self.submit(|inner| &inner.reads, Board::why_no_reader, item)?;
        if check_for_stall && let Some(check) = self.inner.core.check_for_stall.get() {
            check();
        }
        Ok(Sent::ToReaders(in_flight))
    }

    fn submit<C: Item, V: Send + 'static, E: Send + 'static>(
        &mut self,
        lane: impl FnOnce(&Inner) -> &Arc<Lane<C>>,
        holder: fn(&Board) -> String,
        item: impl FnOnce(Reply<V>, Meta) -> C,
    ) -> Result<(InFlight<C, V>, bool), Error<E>> {
        let (reply, receiver) = reply();
        let item = item(reply, self.meta());
        let core = &self.inner.core;
        let deadline = self
            .deadline
            .map(|patience| self.why.deadline(&core.opener.board, &core.clock, patience, holder));
        InFlight::submit(lane(&self.inner), item, receiver, Room::Wait, deadline).map_err(|error| {
            match error.reason {
                RefusedReason::Stopped => Error::new(ErrorKind::WritesStopped),
                _ => refused(&error).into(),
            }
        })
    }

    /// Turns the answer into the caller's result, or resumes the closure's panic. First wakes the other answered
    /// callers.
    pub(crate) fn settle<T, E: Send + 'static>(
        &self,
        answer: Result<Outcome<T, E>, CallError>,
    ) -> Result<T, Error<E>> {
        let opener = &self.inner.core.opener;
        opener.wakeups.wake_all();
        match answer {
            Ok(Ok(result)) => result.map_err(|error| opener.file.explain(self.why.explain(error))),
            Ok(Err(payload)) => std::panic::resume_unwind(payload),
            Err(error) => Err(error.into()),
        }
    }
}
