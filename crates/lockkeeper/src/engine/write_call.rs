//! Writes as they wait in the queue. The writer may run a write several times, and answers it after the commit.

use std::any::{Any, TypeId};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::call::{Body, Meta, Outcome, QueuedCall, TypedCall, kind_of_stop};
use super::held::Held;
use crate::error::{Error, ErrorKind};
use crate::queue::{Domain, Frame, Interrupt, Interruptible, Phase, shielded};
use crate::sqlite::transaction::Transaction;

/// The answer to a write's future, with a snapshot if the write asked for one.
pub(crate) type WriteOutcome<T, E> = Outcome<(T, Option<Arc<Held>>), E>;

/// How a run of a closure ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ran {
    Good,
    Failed,
    Panicked,
}

/// The writer's answer to a write.
#[derive(Debug)]
pub(crate) enum Fate {
    /// The result of the write's closure. If it is `Ok`, the write is stored.
    Own,
    /// As `Own`, with a snapshot of the state right after the commit.
    OwnAt(Result<Arc<Held>, Error>),
    /// This error, whatever the closure returned. The write is not stored; with `ErrorKind::Unknown` it may be.
    Instead(Error),
}

impl Fate {
    pub(crate) fn kind(kind: ErrorKind) -> Self {
        Self::Instead(Error::new(kind))
    }
}

/// A write, as the writer sees it.
pub(crate) trait WriteCall: QueuedCall {
    fn is_repeatable(&self) -> bool;
    /// See [`Body::closure`].
    fn closure(&self) -> TypeId;
    fn wants_snapshot(&self) -> bool;
    /// Runs the closure and keeps its result until [`WriteCall::finish`].
    fn run(&mut self, domain: Domain, tx: &Transaction) -> Ran;
    /// Turns the last run, which returned `Ok`, into a failure of this kind.
    fn judge(&mut self, kind: ErrorKind);
    /// Whether the last run was a success.
    fn has_succeeded(&self) -> bool;
    fn finish(self: Box<Self>, fate: Fate);
    /// The call itself, to be downcast to its type.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

/// A write with the types of its caller.
pub(crate) struct TypedWrite<B, T, E> {
    call: TypedCall<B, WriteOutcome<T, E>>,
    wants_snapshot: bool,
    ran: Option<Result<Result<T, E>, Box<dyn Any + Send>>>,
    /// Why the last run had been asked to stop when it ended; `None`: it had not. A later request cannot be the cause
    /// of the closure's error.
    stopped: Option<Interrupt>,
    judged: Option<ErrorKind>,
}

impl<B, T, E> TypedWrite<B, T, E> {
    pub(crate) fn new(call: TypedCall<B, WriteOutcome<T, E>>, wants_snapshot: bool) -> Self {
        Self { call, wants_snapshot, ran: None, stopped: None, judged: None }
    }

    /// The closure of a call that was refused before it could run.
    pub(crate) fn into_body(self) -> B {
        self.call.body
    }
}

impl<B: Send, T: Send + 'static, E: Send + 'static> QueuedCall for TypedWrite<B, T, E> {
    fn meta(&self) -> &Meta {
        self.call.meta()
    }

    fn interruptible(&self) -> Option<Arc<dyn Interruptible>> {
        self.call.interruptible()
    }

    fn interrupt(&self) -> Option<Interrupt> {
        self.call.interrupt()
    }
}

impl<B, T, E> WriteCall for TypedWrite<B, T, E>
where
    B: Body<Transaction, T, E>,
    T: Send + 'static,
    E: Send + 'static,
{
    fn is_repeatable(&self) -> bool {
        B::REPEATABLE
    }

    fn closure(&self) -> TypeId {
        self.call.body.closure()
    }

    fn wants_snapshot(&self) -> bool {
        self.wants_snapshot
    }

    fn run(&mut self, domain: Domain, tx: &Transaction) -> Ran {
        let call = &mut self.call;
        let _frame = Frame::enter(domain, call.ancestry.clone(), call.reply.interruptible());
        let _span = call.meta.enter();
        let (body, before) = (&mut call.body, self.ran.take());
        let ran = catch_unwind(AssertUnwindSafe(|| {
            drop(before);
            body.call(tx)
        }));
        self.stopped = call.reply.token();
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
            // A panic of the closure is passed to the caller, whatever happened to the transaction.
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
        let TypedCall { body, reply, .. } = self.call;
        reply.answer(outcome);
        shielded(|| drop(body));
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
