//! The items of a database's two queues: calls, and errands of the library.

use std::sync::Arc;

use super::call::{ExclusiveCall, ReadCall};
use super::write_call::{Fate, WriteCall};
use super::{held::Held, lease_state::LeaseState, short::Errand};
use crate::error::Error;
use crate::queue::{CallError, Interruptible, Item, Reply};
use crate::stats::holders::Origin;

/// An item of the writer's queue.
pub(crate) enum WriterItem {
    Write(Box<dyn WriteCall>),
    Exclusive(Box<dyn ExclusiveCall>),
    Lease(Box<LeaseRequest>),
    /// Memory databases only: their only connection serves reads as well.
    Read(Box<dyn ReadCall>),
    /// Memory databases only: a snapshot is a copy.
    Snapshot(SnapshotRequest),
    /// An errand: check for commits of other processes, and whether a checkpoint is due.
    Maintain,
    /// An errand: check whether the calls from before a stop of writes are done.
    Stop,
}

/// An item of the readers' queue.
pub(crate) enum ReaderItem {
    Read(Box<dyn ReadCall>),
    /// A read on a held snapshot.
    Held(Arc<Held>, Box<dyn ReadCall>),
    Snapshot(SnapshotRequest),
    /// Opens or closes one of the connections for reads on callers' threads.
    Errand(Errand),
}

impl Item for WriterItem {
    fn interruptible(&self) -> Option<Arc<dyn Interruptible>> {
        match self {
            Self::Write(call) => call.interruptible(),
            Self::Exclusive(call) => call.interruptible(),
            Self::Lease(lease) => lease.opening.interruptible(),
            Self::Read(call) => call.interruptible(),
            Self::Snapshot(request) => request.reply.interruptible(),
            Self::Maintain | Self::Stop => None,
        }
    }

    fn changes_something(&self) -> bool {
        matches!(self, Self::Write(_) | Self::Exclusive(_) | Self::Lease(_))
    }

    fn refuse(self, why: CallError) {
        let kind = Error::<()>::from(why).kind();
        match self {
            Self::Write(call) => call.finish(Fate::kind(kind)),
            Self::Exclusive(call) => call.refuse(Error::new(kind)),
            Self::Lease(lease) => lease.opening.finish(Fate::kind(kind)),
            Self::Read(call) => call.refuse(Error::new(kind)),
            Self::Snapshot(request) => request.reply.answer(Err(Error::new(kind))),
            Self::Maintain | Self::Stop => {}
        }
    }

    fn is_same_errand(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl Item for ReaderItem {
    fn interruptible(&self) -> Option<Arc<dyn Interruptible>> {
        match self {
            Self::Read(call) | Self::Held(_, call) => call.interruptible(),
            Self::Snapshot(request) => request.reply.interruptible(),
            Self::Errand(_) => None,
        }
    }

    fn refuse(self, why: CallError) {
        let kind = Error::<()>::from(why).kind();
        match self {
            Self::Read(call) | Self::Held(_, call) => call.refuse(Error::new(kind)),
            Self::Snapshot(request) => request.reply.answer(Err(Error::new(kind))),
            Self::Errand(_) => {}
        }
    }

    fn is_same_errand(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Errand(one), Self::Errand(other)) if one == other)
    }
}

/// A request for a lease: the call that is answered when the lease begins, and the state of the lease.
pub(crate) struct LeaseRequest {
    pub(crate) opening: Box<dyn WriteCall>,
    pub(crate) state: Arc<LeaseState>,
}

/// A request for a held snapshot.
pub(crate) struct SnapshotRequest {
    pub(crate) reply: Reply<Result<Arc<Held>, Error>>,
    pub(crate) origin: Origin,
}
