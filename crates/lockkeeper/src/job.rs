//! Calls in the form in which they wait in a queue: boxed, with their reply.

use std::any::{Any, TypeId};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use crate::error::{Error, ErrorKind};
use crate::ffi::{Borrowed, View, type_id};
use crate::holders::Origin;
use crate::lease;
use crate::queue::{
    Ancestry, CallError, Domain, Frame, Interrupt, Interruptible, Item, Phase, Reply, now,
    shielded, stopped,
};
use crate::snapshot::Held;
use crate::transaction::{Snapshot, Transaction};

/// What a caller's future receives: the call's result, or its panic.
pub(crate) type Outcome<T, E> = Result<Result<T, Error<E>>, Box<dyn Any + Send>>;

/// What a write's future receives: also the snapshot that it may have asked for.
pub(crate) type WriteOutcome<T, E> = Outcome<(T, Option<Arc<Held>>), E>;

/// A caller's closure over a view `V` of the database.
pub trait Body<V, T, E>: Send + 'static {
    /// Whether it may run more than once.
    const REPEATABLE: bool;

    /// What calls of one place in the caller's program have in common.
    fn closure(&self) -> TypeId {
        TypeId::of::<Self>()
    }

    /// Runs it.
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
    /// `F` is its type.
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

/// Stands for the closure of a call that was submitted: it is the worker's.
#[derive(Debug)]
pub(crate) enum Submitted {}

impl<V, T, E> Body<V, T, E> for Submitted {
    const REPEATABLE: bool = false;

    fn call(&mut self, _: &V) -> Result<T, E> {
        match *self {}
    }
}

/// Where a call comes from, and since when it waits.
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

    /// Enters a span below the caller's, which says who the call is and how long it waited; what the
    /// statements are given is in no span.
    #[cfg(feature = "tracing")]
    fn enter(&self) -> tracing::span::EnteredSpan {
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
    fn enter(&self) -> NoSpan {
        NoSpan
    }
}

/// Stands for a span where there are none.
#[cfg(not(feature = "tracing"))]
struct NoSpan;

/// How a run of a closure ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ran {
    Good,
    Failed,
    Panicked,
}

/// What a write is told in the end.
#[derive(Debug)]
pub(crate) enum Fate {
    /// Its own result; for a successful one: it is stored.
    Own,
    /// Its own result, with the state of the database right after its commit.
    OwnAt(Result<Arc<Held>, Error>),
    /// It was not stored (or, for `Unknown`, perhaps), whatever the closure returned.
    Instead(Error),
}

impl Fate {
    pub(crate) fn kind(kind: ErrorKind) -> Self {
        Self::Instead(Error::new(kind))
    }
}

/// What waits in the writer's queue.
pub(crate) enum WriterItem {
    Write(Box<dyn WriteJob>),
    Exclusive(Box<dyn ExclusiveJob>),
    Lease(Box<LeaseRequest>),
    /// Memory databases only: their one connection serves reads as well.
    Read(Box<dyn ReadJob>),
    /// Memory databases only: a snapshot is a copy.
    Pin(Pin),
    /// Look whether another process has committed something, and whether a checkpoint is due.
    Look,
    /// Look whether what was asked before writes were stopped is done.
    Stop,
}

/// What waits in the readers' queue.
pub(crate) enum ReaderItem {
    Read(Box<dyn ReadJob>),
    /// A read on a held snapshot.
    Held(Arc<Held>, Box<dyn ReadJob>),
    Pin(Pin),
    /// Opens a connection for reads on the callers' threads.
    OpenShort,
    /// Closes a connection that a snapshot had and nobody needs.
    Trim,
}

pub(crate) trait WriteJob: Send {
    fn interruptible(&self) -> Option<Arc<dyn Interruptible>>;
    fn interrupt(&self) -> Option<Interrupt>;
    fn meta(&self) -> &Meta;
    fn is_repeatable(&self) -> bool;
    /// The type of its closure: what calls of one place in the caller's program have in common.
    fn closure(&self) -> TypeId;
    fn wants_snapshot(&self) -> bool;
    /// Runs the closure and keeps its result until [`WriteJob::finish`].
    fn run(&mut self, domain: Domain, tx: &Transaction) -> Ran;
    /// Makes the last run, which returned `Ok`, a failure of this kind.
    fn judge(&mut self, kind: ErrorKind);
    /// Whether the last run was a success.
    fn has_succeeded(&self) -> bool;
    fn finish(self: Box<Self>, fate: Fate);
}

pub(crate) trait ExclusiveJob: Send {
    fn meta(&self) -> &Meta;
    fn interruptible(&self) -> Option<Arc<dyn Interruptible>>;
    fn run(self: Box<Self>, domain: Domain, conn: &mut rusqlite::Connection);
    fn refuse(self: Box<Self>, error: Error);
}

pub(crate) trait ReadJob: Send {
    fn meta(&self) -> &Meta;
    fn interruptible(&self) -> Option<Arc<dyn Interruptible>>;
    fn interrupt(&self) -> Option<Interrupt>;
    /// Runs the closure and answers; the caller's waker is to be called soon.
    fn run(self: Box<Self>, domain: Domain, snapshot: &Snapshot) -> Option<Waker>;
    fn refuse(self: Box<Self>, error: Error);
}

impl Item for WriterItem {
    fn interruptible(&self) -> Option<Arc<dyn Interruptible>> {
        match self {
            Self::Write(job) => job.interruptible(),
            Self::Exclusive(job) => job.interruptible(),
            Self::Lease(lease) => lease.opening.interruptible(),
            Self::Read(job) => job.interruptible(),
            Self::Pin(pin) => pin.reply.interruptible(),
            Self::Look | Self::Stop => None,
        }
    }

    fn changes_something(&self) -> bool {
        matches!(self, Self::Write(_) | Self::Exclusive(_) | Self::Lease(_))
    }

    fn refuse(self, why: CallError) {
        let kind = Error::<()>::from(why).kind();
        match self {
            Self::Write(job) => job.finish(Fate::kind(kind)),
            Self::Exclusive(job) => job.refuse(Error::new(kind)),
            Self::Lease(lease) => lease.opening.finish(Fate::kind(kind)),
            Self::Read(job) => job.refuse(Error::new(kind)),
            Self::Pin(pin) => pin.answer(Err(Error::new(kind))),
            Self::Look | Self::Stop => {}
        }
    }

    fn is_same_errand(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl Item for ReaderItem {
    fn interruptible(&self) -> Option<Arc<dyn Interruptible>> {
        match self {
            Self::Read(job) | Self::Held(_, job) => job.interruptible(),
            Self::Pin(pin) => pin.reply.interruptible(),
            Self::OpenShort | Self::Trim => None,
        }
    }

    fn refuse(self, why: CallError) {
        let kind = Error::<()>::from(why).kind();
        match self {
            Self::Read(job) | Self::Held(_, job) => job.refuse(Error::new(kind)),
            Self::Pin(pin) => pin.answer(Err(Error::new(kind))),
            Self::OpenShort | Self::Trim => {}
        }
    }

    fn is_same_errand(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// A request for a lease: the call that is answered when it has begun, and what is shared then.
pub(crate) struct LeaseRequest {
    pub(crate) opening: Box<dyn WriteJob>,
    pub(crate) shared: Arc<lease::Shared>,
}

/// A request for a held snapshot.
pub(crate) struct Pin {
    pub(crate) reply: Reply<Result<Arc<Held>, Error>>,
    pub(crate) origin: Origin,
}

impl Pin {
    pub(crate) fn answer(self, answer: Result<Arc<Held>, Error>) {
        self.reply.answer(answer);
    }
}

/// The kind of error of a call that was asked to stop.
pub(crate) fn kind_of_stop(why: Interrupt, phase: Phase) -> ErrorKind {
    match why {
        Interrupt::Expired => ErrorKind::SnapshotExpired,
        Interrupt::LeaseExpired => ErrorKind::LeaseExpired,
        other => Error::<()>::from(stopped(other, phase)).kind(),
    }
}

pub(crate) struct WriteCall<B, T, E> {
    body: B,
    reply: Reply<WriteOutcome<T, E>>,
    ancestry: Ancestry,
    meta: Meta,
    wants_snapshot: bool,
    ran: Option<Result<Result<T, E>, Box<dyn Any + Send>>>,
    /// What had asked the last run to stop when it ended. Later it can no longer be the reason of
    /// the closure's error.
    stopped: Option<Interrupt>,
    judged: Option<ErrorKind>,
}

impl<B, T, E> WriteCall<B, T, E> {
    pub(crate) fn new(
        body: B,
        reply: Reply<WriteOutcome<T, E>>,
        ancestry: Ancestry,
        meta: Meta,
        wants_snapshot: bool,
    ) -> Self {
        Self { body, reply, ancestry, meta, wants_snapshot, ran: None, stopped: None, judged: None }
    }
}

impl<B, T, E> WriteJob for WriteCall<B, T, E>
where
    B: Body<Transaction, T, E>,
    T: Send + 'static,
    E: Send + 'static,
{
    fn interruptible(&self) -> Option<Arc<dyn Interruptible>> {
        self.reply.interruptible()
    }

    fn interrupt(&self) -> Option<Interrupt> {
        self.reply.token()
    }

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn is_repeatable(&self) -> bool {
        B::REPEATABLE
    }

    fn closure(&self) -> TypeId {
        self.body.closure()
    }

    fn wants_snapshot(&self) -> bool {
        self.wants_snapshot
    }

    fn run(&mut self, domain: Domain, tx: &Transaction) -> Ran {
        let _frame = Frame::enter(domain, self.ancestry.clone(), self.reply.interruptible());
        let _span = self.meta.enter();
        let (body, before) = (&mut self.body, self.ran.take());
        let ran = catch_unwind(AssertUnwindSafe(|| {
            drop(before);
            body.call(tx)
        }));
        self.stopped = self.reply.token();
        let how = match &ran {
            Ok(Ok(_)) => Ran::Good,
            Ok(Err(_)) => Ran::Failed,
            Err(_) => Ran::Panicked,
        };
        self.ran = Some(ran);
        self.judged = None;
        how
    }

    fn judge(&mut self, kind: ErrorKind) {
        self.judged = Some(kind);
    }

    fn has_succeeded(&self) -> bool {
        matches!(self.ran, Some(Ok(Ok(_)))) && self.judged.is_none()
    }

    fn finish(mut self: Box<Self>, fate: Fate) {
        let ran = self.ran.take();
        let fate = match (fate, self.judged) {
            (Fate::Own | Fate::OwnAt(_), Some(kind)) => Fate::kind(kind),
            (fate, _) => fate,
        };
        let outcome = match (fate, ran) {
            // A panic is the caller's, whatever became of the transaction.
            (_, Some(Err(payload))) => Err(payload),
            (Fate::Own, Some(Ok(Ok(value)))) => Ok(Ok((value, None))),
            (Fate::OwnAt(Ok(held)), Some(Ok(Ok(value)))) => Ok(Ok((value, Some(held)))),
            (Fate::OwnAt(Err(error)), Some(Ok(Ok(value)))) => {
                shielded(|| drop(value));
                let stored = "the write is stored, but the snapshot could not be taken";
                Ok(Err(error.without_call().detail(stored)))
            }
            (Fate::Own | Fate::OwnAt(_), Some(Ok(Err(error)))) => Ok(Err(match self.stopped {
                Some(why) => Error::of_call_as(kind_of_stop(why, Phase::Running), error),
                None => Error::of_call(error),
            })),
            (Fate::Own | Fate::OwnAt(_), None) => Ok(Err(Error::new(ErrorKind::Faulted))),
            (Fate::Instead(error), ran) => {
                shielded(|| drop(ran));
                Ok(Err(error.without_call()))
            }
        };
        let Self { body, reply, .. } = *self;
        reply.answer(outcome);
        shielded(|| drop(body));
    }
}

pub(crate) struct ExclusiveCall<F, T, E> {
    pub(crate) f: F,
    pub(crate) reply: Reply<Outcome<T, E>>,
    pub(crate) ancestry: Ancestry,
    pub(crate) meta: Meta,
}

impl<F, T, E> ExclusiveJob for ExclusiveCall<F, T, E>
where
    F: FnOnce(&mut rusqlite::Connection) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    fn interruptible(&self) -> Option<Arc<dyn Interruptible>> {
        self.reply.interruptible()
    }

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn run(self: Box<Self>, domain: Domain, conn: &mut rusqlite::Connection) {
        let Self { f, reply, ancestry, meta } = *self;
        let _span = meta.enter();
        let stop = reply.interruptible();
        let ran = {
            let _frame = Frame::enter(domain, ancestry, stop);
            catch_unwind(AssertUnwindSafe(|| f(conn)))
        };
        let outcome = outcome_of(reply.token(), ran);
        reply.answer(outcome);
    }

    fn refuse(self: Box<Self>, error: Error) {
        let Self { f, reply, .. } = *self;
        reply.answer(Ok(Err(error.without_call())));
        shielded(|| drop(f));
    }
}

pub(crate) struct ReadCall<B, T, E> {
    body: B,
    reply: Reply<Outcome<T, E>>,
    ancestry: Ancestry,
    meta: Meta,
}

impl<B, T, E> ReadCall<B, T, E> {
    pub(crate) fn new(
        body: B,
        reply: Reply<Outcome<T, E>>,
        ancestry: Ancestry,
        meta: Meta,
    ) -> Self {
        Self { body, reply, ancestry, meta }
    }
}

impl<B, T, E> ReadJob for ReadCall<B, T, E>
where
    B: Body<Snapshot, T, E>,
    T: Send + 'static,
    E: Send + 'static,
{
    fn interruptible(&self) -> Option<Arc<dyn Interruptible>> {
        self.reply.interruptible()
    }

    fn interrupt(&self) -> Option<Interrupt> {
        self.reply.token()
    }

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn run(self: Box<Self>, domain: Domain, snapshot: &Snapshot) -> Option<Waker> {
        let Self { mut body, reply, ancestry, meta } = *self;
        let _span = meta.enter();
        let ran = {
            let _frame = Frame::enter(domain, ancestry, reply.interruptible());
            catch_unwind(AssertUnwindSafe(|| body.call(snapshot)))
        };
        let outcome = outcome_of(reply.token(), ran);
        // Before the answer: an answered caller finds everything released that its closure held.
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
