//! The handle of a client: its lanes in both queues, and a reference that keeps the database open.

use std::any::Any;
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use crate::engine::core::Core;
use crate::engine::item::{ReaderItem, WriterItem};
use crate::queue::Lane;
#[cfg(doc)]
use crate::{Database, Error};

/// A client of a database: its calls take turns with those of the other clients.
///
/// Clients of one name share a lane. See [`Database::client`].
pub struct Client<E = rusqlite::Error> {
    pub(crate) inner: Arc<Inner>,
    error: PhantomData<fn() -> E>,
}

/// The state that the clones of a handle and its calls share. It does not depend on the closures' error type.
pub(crate) struct Inner {
    pub(crate) writes: Arc<Lane<WriterItem>>,
    pub(crate) reads: Arc<Lane<ReaderItem>>,
    /// Dropping the last reference closes the database. Declared after the lanes, so that they are dropped first.
    _open: Arc<dyn Any + Send + Sync>,
    pub(crate) core: Arc<Core>,
    /// The client's name; `None`: the database's own handle.
    pub(crate) label: Option<Arc<str>>,
}

impl Inner {
    /// The handle of the client called `name`; `None`: the database's own handle. `open` keeps the database open.
    pub(crate) fn new(
        core: &Arc<Core>,
        name: Option<&str>,
        open: Arc<dyn Any + Send + Sync>,
    ) -> Arc<Self> {
        let (writes, reads) = match name {
            Some(name) => (Lane::named(&core.writer, name), Lane::named(&core.readers, name)),
            None => (Lane::main(Arc::clone(&core.writer)), Lane::main(Arc::clone(&core.readers))),
        };
        let (core, label) = (Arc::clone(core), name.map(Arc::from));
        Arc::new(Self { writes, reads, _open: open, core, label })
    }
}

// A panic inside a call leaves the database and its handles in a valid state (`writer/mod.rs`, `queue/worker.rs`).
impl<E> UnwindSafe for Client<E> {}
impl<E> RefUnwindSafe for Client<E> {}

impl<E> Clone for Client<E> {
    fn clone(&self) -> Self {
        Self::of(Arc::clone(&self.inner))
    }
}

opaque_debug!("Client", [E] Client<E>, lane: inner.writes.id);

impl<E> Client<E> {
    pub(crate) fn of(inner: Arc<Inner>) -> Self {
        Self { inner, error: PhantomData }
    }
}
