//! Calls as they wait in a queue: a caller's closure with its reply, boxed.
//!
//! A *body* is the caller's closure; a *call* is a body with its reply. The threads that serve calls know them by
//! traits ([`ReadCall`], [`ExclusiveCall`], `WriteCall` in `write_call.rs`), which hide the caller's types.

use std::any::{Any, TypeId};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use crate::error::{Error, ErrorKind};
use crate::ffi::{Borrowed, View, type_id};
use crate::queue::{
    Ancestry, Domain, Frame, Interrupt, Interruptible, Phase, Reply, shielded, stopped,
};
use crate::sqlite::{snapshot::Snapshot, transaction::Transaction};
use crate::stats::holders::Origin;
use crate::sync::now;

/// The answer to a caller's future: the call's result, or its panic.
pub(crate) type Outcome<T, E> = Result<Result<T, Error<E>>, Box<dyn Any + Send>>;

/// A caller's closure over a view `V` of the database.
pub trait Body<V, T, E>: Send + 'static {
    /// Whether the closure may run more than once.
    const REPEATABLE: bool;

    /// The type of the closure. All closures that the same place in the caller's program makes have the same type.
    fn closure(&self) -> TypeId {
        TypeId::of::<Self>()
    }

    /// Runs the closure.
    fn call(&mut self, view: &V) -> Result<T, E>;
}

impl View for Transaction {
    type Ref<'v> = &'v Self;
}

impl View for Snapshot {
    type Ref<'v> = &'v Self;
}

impl View for rusqlite::Connection {
    type Ref<'v> = &'v mut Self;
}

/// A closure that may run more than once.
#[derive(Debug)]
pub struct Many<F>(pub(crate) F);

/// A closure that may run more than once and stays on its caller's stack.
pub(crate) struct ManyLent<V: View, E> {
    lent: Borrowed<V, E>,
    closure: TypeId,
}

impl<V: View, E> ManyLent<V, E> {
    /// `F` is the type of the closure.
    pub(crate) fn new<F>(lent: Borrowed<V, E>) -> Self {
        Self { lent, closure: type_id::<Many<F>>() }
    }
}

impl<V, E> Body<V, (), E> for ManyLent<V, E>
where
    V: for<'v> View<Ref<'v> = &'v V>,
    E: 'static,
{
    const REPEATABLE: bool = true;

    fn closure(&self) -> TypeId {
        self.closure
    }

    fn call(&mut self, view: &V) -> Result<(), E> {
        self.lent.run(view)
    }
}

/// A closure that runs at most once.
#[derive(Debug)]
pub struct Once<F>(pub(crate) Option<F>);

impl<V, T, E, F> Body<V, T, E> for Many<F>
where
    F: FnMut(&V) -> Result<T, E> + Send + 'static,
{
    const REPEATABLE: bool = true;

    fn call(&mut self, view: &V) -> Result<T, E> {
        (self.0)(view)
    }
}

impl<V, T, E, F> Body<V, T, E> for Once<F>
where
    F: FnOnce(&V) -> Result<T, E> + Send + 'static,
{
    const REPEATABLE: bool = false;

    fn call(&mut self, view: &V) -> Result<T, E> {
        let f = self.0.take().expect("a call that may not be repeated runs once");
        f(view)
    }
}

/// Stands for the closure's type after the call was submitted, because the queue or a worker has the closure then.
#[derive(Debug)]
pub(crate) enum Submitted {}

impl<V, T, E> Body<V, T, E> for Submitted {
    const REPEATABLE: bool = false;

    fn call(&mut self, _: &V) -> Result<T, E> {
        match *self {}
    }
}

/// The origin of a call, and when it was submitted.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    pub(crate) origin: Origin,
    pub(crate) submitted: Instant,
    /// The caller's span, under which the call runs.
    #[cfg(feature = "tracing")]
    pub(crate) span: tracing::Span,
}

impl Meta {
    pub(crate) fn new(origin: Origin) -> Self {
        Self {
            origin,
            submitted: now(),
            #[cfg(feature = "tracing")]
            span: tracing::Span::current(),
        }
    }

    /// Enters a span below the caller's span, with the origin of the call and how long the call waited. Values that the
    /// caller binds to statements are in no span.
    #[cfg(feature = "tracing")]
    pub(super) fn enter(&self) -> tracing::span::EnteredSpan {
        let Origin { kind, client, place } = &self.origin;
        let what = kind.name();
        let waited_us = u64::try_from((now() - self.submitted).as_micros()).unwrap_or(u64::MAX);
        let client = client.as_deref();
        tracing::debug_span!(
            target: "lockkeeper", parent: &self.span, "call", what, client, %place, waited_us
        )
        .entered()
    }

    #[cfg(not(feature = "tracing"))]
    pub(super) fn enter(&self) -> NoSpan {
        NoSpan
    }
}

/// Stands for a span if the feature `tracing` is off.
#[cfg(not(feature = "tracing"))]
pub(super) struct NoSpan;

/// What all calls in a queue have in common.
pub(crate) trait QueuedCall: Send {
    fn meta(&self) -> &Meta;
    fn interruptible(&self) -> Option<Arc<dyn Interruptible>>;
    /// Why the call should stop; `None`: it need not.
    fn interrupt(&self) -> Option<Interrupt>;
}

/// An exclusive call, as the writer sees it.
pub(crate) trait ExclusiveCall: QueuedCall {
    fn run(self: Box<Self>, domain: Domain, conn: &mut rusqlite::Connection);
    fn refuse(self: Box<Self>, error: Error);
}

/// A read, as the thread that serves it sees it.
pub(crate) trait ReadCall: QueuedCall {
    /// Runs the closure and answers. The reader must soon wake the returned waker.
    fn run(self: Box<Self>, domain: Domain, snapshot: &Snapshot) -> Option<Waker>;
    fn refuse(self: Box<Self>, error: Error);
}

/// The kind of error of a call that was asked to stop.
pub(crate) fn kind_of_stop(why: Interrupt, phase: Phase) -> ErrorKind {
    match why {
        Interrupt::Expired => ErrorKind::SnapshotExpired,
        Interrupt::LeaseExpired => ErrorKind::LeaseExpired,
        other => Error::<()>::from(stopped(other, phase)).kind(),
    }
}

/// A call with the types of its caller: the closure, and the reply for the closure's result.
pub(crate) struct TypedCall<B, R> {
    pub(crate) body: B,
    pub(crate) reply: Reply<R>,
    pub(crate) ancestry: Ancestry,
    pub(crate) meta: Meta,
}

impl<B: Send, R: Send + 'static> QueuedCall for TypedCall<B, R> {
    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn interruptible(&self) -> Option<Arc<dyn Interruptible>> {
        self.reply.interruptible()
    }

    fn interrupt(&self) -> Option<Interrupt> {
        self.reply.token()
    }
}

impl<F, T, E> ExclusiveCall for TypedCall<F, Outcome<T, E>>
where
    F: FnOnce(&mut rusqlite::Connection) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    fn run(self: Box<Self>, domain: Domain, conn: &mut rusqlite::Connection) {
        let Self { body: f, reply, ancestry, meta } = *self;
        let _span = meta.enter();
        let ran = {
            let _frame = Frame::enter(domain, ancestry, reply.interruptible());
            catch_unwind(AssertUnwindSafe(|| f(conn)))
        };
        let outcome = outcome_of(reply.token(), ran);
        reply.answer(outcome);
    }

    fn refuse(self: Box<Self>, error: Error) {
        let Self { body: f, reply, .. } = *self;
        reply.answer(Ok(Err(error.without_call())));
        shielded(|| drop(f));
    }
}

impl<B, T, E> ReadCall for TypedCall<B, Outcome<T, E>>
where
    B: Body<Snapshot, T, E>,
    T: Send + 'static,
    E: Send + 'static,
{
    fn run(self: Box<Self>, domain: Domain, snapshot: &Snapshot) -> Option<Waker> {
        let Self { mut body, reply, ancestry, meta } = *self;
        let _span = meta.enter();
        let ran = {
            let _frame = Frame::enter(domain, ancestry, reply.interruptible());
            catch_unwind(AssertUnwindSafe(|| body.call(snapshot)))
        };
        let outcome = outcome_of(reply.token(), ran);
        // Dropped before the answer, so that the values that the closure holds are gone when its caller gets the
        // answer.
        shielded(|| drop(body));
        reply.answer_quietly(outcome)
    }

    fn refuse(self: Box<Self>, error: Error) {
        let Self { body, reply, .. } = *self;
        shielded(|| drop(body));
        reply.answer(Ok(Err(error.without_call())));
    }
}

fn outcome_of<T, E: 'static>(
    stop: Option<Interrupt>,
    ran: Result<Result<T, E>, Box<dyn Any + Send>>,
) -> Outcome<T, E> {
    ran.map(|result| {
        result.map_err(|error| match stop {
            Some(why) => Error::of_call_as(kind_of_stop(why, Phase::Running), error),
            None => Error::of_call(error),
        })
    })
}
