//! What every awaited call has in common: who makes it, where, and for how long it may wait.

use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use super::{handle::Inner, pending::Sent};
use crate::engine::call::{Meta, Outcome};
use crate::engine::item::{ReaderItem, WriterItem};
use crate::error::{Error, ErrorKind};
use crate::queue::{
    Ancestry, CallError, Flight, Item, Lane, RefusedReason, Reply, Room, ancestry_for, refused,
    reply,
};
use crate::stats::holders::{Board, HolderKind, Origin, Why};

pub(crate) struct Submission {
    pub(crate) inner: Arc<Inner>,
    kind: HolderKind,
    /// Counted from the moment at which it is submitted.
    pub(crate) deadline: Option<Duration>,
    place: &'static Location<'static>,
    /// Who held the call up when its deadline passed.
    why: Why,
}

// As `Client`.
impl UnwindSafe for Submission {}
impl RefUnwindSafe for Submission {}

impl Submission {
    #[track_caller]
    pub(crate) fn new(kind: HolderKind, inner: &Arc<Inner>) -> Self {
        let inner = Arc::clone(inner);
        Self { inner, kind, deadline: None, place: Location::caller(), why: Why::default() }
    }

    /// For what is submitted later on behalf of the same caller, without a deadline.
    pub(crate) fn follow_up(&self) -> Self {
        let (inner, kind, place) = (Arc::clone(&self.inner), self.kind, self.place);
        Self { inner, kind, deadline: None, place, why: Why::default() }
    }

    /// What the call must carry; an error if it could never be answered from here.
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

    /// Puts the call that `item` makes into the writer's queue.
    pub(crate) fn submit_to_writer<V: Send + 'static, E: Send + 'static>(
        &mut self,
        item: impl FnOnce(Reply<V>, Meta) -> WriterItem,
    ) -> Result<Sent<V>, Error<E>> {
        // Of such a database nothing but writes goes there.
        if self.inner.core.config.is_read_only() {
            return Err(Error::read_only());
        }
        let (flight, _) = self.submit(|inner| &inner.writes, Board::why_no_writer, item)?;
        Ok(Sent::ToWriter(flight))
    }

    /// Puts the call that `item` makes into the readers' queue.
    pub(crate) fn submit_to_readers<V: Send + 'static, E: Send + 'static>(
        &mut self,
        item: impl FnOnce(Reply<V>, Meta) -> ReaderItem,
    ) -> Result<Sent<V>, Error<E>> {
        let (flight, check_for_stall) =
            self.submit(|inner| &inner.reads, Board::why_no_reader, item)?;
        if check_for_stall && let Some(check) = self.inner.core.check_for_stall.get() {
            check();
        }
        Ok(Sent::ToReaders(flight))
    }

    fn submit<C: Item, V: Send + 'static, E: Send + 'static>(
        &mut self,
        lane: impl FnOnce(&Inner) -> &Arc<Lane<C>>,
        holder: fn(&Board) -> String,
        item: impl FnOnce(Reply<V>, Meta) -> C,
    ) -> Result<(Flight<C, V>, bool), Error<E>> {
        let (reply, receiver) = reply();
        let item = item(reply, self.meta());
        let inner = &self.inner;
        let core = &inner.core;
        let deadline = self
            .deadline
            .map(|patience| self.why.deadline(&core.opener.board, &core.clock, patience, holder));
        Flight::take_off(lane(inner), item, receiver, Room::Wait, deadline).map_err(|error| {
            match error.reason {
                RefusedReason::Stopped => Error::new(ErrorKind::WritesStopped),
                _ => refused(&error).into(),
            }
        })
    }

    /// What the caller is told; resumes a panic of the closure.
    pub(crate) fn settle<T, E: Send + 'static>(
        &self,
        landed: Result<Outcome<T, E>, CallError>,
    ) -> Result<T, Error<E>> {
        let opener = &self.inner.core.opener;
        opener.wakeups.wake_all();
        match landed {
            Ok(Ok(result)) => result.map_err(|error| opener.file.explain(self.why.explain(error))),
            Ok(Err(payload)) => std::panic::resume_unwind(payload),
            Err(error) => Err(error.into()),
        }
    }
}
