//! A call's reply and its interrupt token: what the caller and the worker share.
//!
//! | slot | what may be trusted | left by |
//! |---|---|---|
//! | `Waiting` | there is no answer yet; the caller's waker is stored if it has polled | [`Reply::answer`], drop of [`Reply`] |
//! | `Answered` | the value is there | [`Receiver::poll`] |
//! | `Lost` | the [`Reply`] was dropped without an answer | never |
//! | `Gone` | the caller has fetched the value or dropped its [`Receiver`] | never |
//!
//! - CALL1: each accepted call is answered exactly once. `answer` consumes the [`Reply`]. The drop of an unanswered
//!   [`Reply`], for whatever reason (close, abort, panic, a dead thread), marks the slot `Lost`.
//! - CALL2: a waker is called outside the slot's lock, so a waker that polls immediately can take the lock.
//! - CALL3: if the caller is gone, the worker drops the value, outside every lock. A worker's slot in the queue also
//!   refers to the shared part, and may drop the last reference to it under the queue's lock. By then the shared part
//!   holds no value of a caller.
//! - CALL4: a token keeps the first reason for which it is raised. It belongs to one call, so raising it late cannot
//!   stop the next call.
//! - CALL5: a panic of a destructor or a waker belongs to no call. It is caught ([`shielded`]) where it would end a
//!   worker's thread or the clock's thread.
//! - CALL6: the caller of [`Reply::answer_quietly`] must wake the waker that `answer_quietly` returns.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use crate::sync::{AtomicU8, Mutex, Ordering, lock};

/// Why a running call is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Interrupt {
    /// The caller dropped its future.
    Canceled,
    /// The call's deadline passed.
    Deadline,
    /// The queue was aborted.
    Aborted,
    /// A snapshot reached its maximum age.
    Expired,
    /// A lease was held or left idle for too long.
    LeaseExpired,
}

/// The reasons, in the order in which they are declared.
const REASONS: [Interrupt; 5] = [
    Interrupt::Canceled,
    Interrupt::Deadline,
    Interrupt::Aborted,
    Interrupt::Expired,
    Interrupt::LeaseExpired,
];

/// A flag that asks one call to stop: 0, or the position of the reason in [`REASONS`], counted from 1.
#[derive(Debug)]
pub(crate) struct Token(AtomicU8);

impl Token {
    fn new() -> Self {
        Self(AtomicU8::new(0))
    }

    /// Asks the call to stop, unless it has been asked before (CALL4).
    pub(crate) fn raise(&self, why: Interrupt) {
        // Pairs with the load in `raised`. Relaxed suffices: the flag carries no other data.
        let number = why as u8 + 1;
        let _ = self.0.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Why the call should stop; `None`: it need not.
    pub(crate) fn raised(&self) -> Option<Interrupt> {
        let number = usize::from(self.0.load(Ordering::Relaxed));
        REASONS.get(number.checked_sub(1)?).copied()
    }
}

/// A call that can be asked to stop. The trait hides the call's types.
pub(crate) trait Interruptible: Send + Sync {
    fn token(&self) -> &Token;
    /// Whether a wait for the call can end, because the call was answered, or its [`Reply`] or its [`Receiver`] was
    /// dropped.
    fn is_answered(&self) -> bool;
}

struct Shared<R> {
    token: Token,
    slot: Mutex<Slot<R>>,
}

enum Slot<R> {
    Waiting(Option<Waker>),
    Answered(R),
    Lost,
    Gone,
}

impl<R: Send> Interruptible for Shared<R> {
    fn token(&self) -> &Token {
        &self.token
    }

    fn is_answered(&self) -> bool {
        !matches!(*lock(&self.slot), Slot::Waiting(_))
    }
}

/// The worker's end of a call. If it is dropped without an answer, the caller gets [`Lost`].
pub(crate) struct Reply<R>(Option<Arc<Shared<R>>>);

/// The caller's end of a call.
pub(crate) struct Receiver<R>(Arc<Shared<R>>);

/// The worker's end was dropped without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost;

/// Makes the two ends of a call.
pub(crate) fn reply<R>() -> (Reply<R>, Receiver<R>) {
    let shared = Arc::new(Shared { token: Token::new(), slot: Mutex::new(Slot::Waiting(None)) });
    (Reply(Some(Arc::clone(&shared))), Receiver(shared))
}

impl<R> Reply<R> {
    pub(crate) fn answer(mut self, value: R) {
        if let Some(shared) = self.0.take() {
            put(&shared, Slot::Answered(value));
        }
    }

    /// Answers without waking the caller. The worker must soon wake the returned waker (CALL6).
    pub(crate) fn answer_quietly(mut self, value: R) -> Option<Waker> {
        self.0.take().and_then(|shared| store(&shared, Slot::Answered(value)))
    }

    /// Why the call should stop; `None`: it need not.
    pub(crate) fn token(&self) -> Option<Interrupt> {
        self.0.as_ref().and_then(|shared| shared.token.raised())
    }
}

impl<R: Send + 'static> Reply<R> {
    /// The call without its types. The code that runs the call uses it to see when it must stop.
    pub(crate) fn interruptible(&self) -> Option<Arc<dyn Interruptible>> {
        self.0.as_ref().map(|shared| Arc::clone(shared) as Arc<dyn Interruptible>)
    }
}

impl<R> Drop for Reply<R> {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            put(&shared, Slot::Lost);
        }
    }
}

/// Runs a destructor or a waker of a caller. Ignores its panic, because the panic hook has reported it (CALL5).
pub(crate) fn shielded(f: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(f)) {
        // The payload's destructor might panic, too.
        std::mem::forget(payload);
    }
}

fn put<R>(shared: &Shared<R>, value: Slot<R>) {
    // CALL2, CALL5
    if let Some(waker) = store(shared, value) {
        shielded(|| waker.wake());
    }
}

/// Fills the slot; returns the waker of a caller that waits.
fn store<R>(shared: &Shared<R>, value: Slot<R>) -> Option<Waker> {
    let mut slot = lock(&shared.slot);
    if matches!(*slot, Slot::Gone) {
        drop(slot);
        // CALL3, CALL5
        shielded(|| drop(value));
        return None;
    }
    match std::mem::replace(&mut *slot, value) {
        Slot::Waiting(waker) => waker,
        _ => None,
    }
}

impl<R> Receiver<R> {
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<Result<R, Lost>> {
        let mut slot = lock(&self.0.slot);
        match &mut *slot {
            Slot::Waiting(Some(waker)) if waker.will_wake(context.waker()) => Poll::Pending,
            Slot::Waiting(waker) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            Slot::Lost => Poll::Ready(Err(Lost)),
            Slot::Answered(_) | Slot::Gone => match std::mem::replace(&mut *slot, Slot::Gone) {
                Slot::Answered(value) => Poll::Ready(Ok(value)),
                _ => Poll::Ready(Err(Lost)),
            },
        }
    }

    pub(crate) fn token(&self) -> &Token {
        &self.0.token
    }
}

impl<R: Send + 'static> Receiver<R> {
    pub(crate) fn interruptible(&self) -> Arc<dyn Interruptible> {
        Arc::clone(&self.0) as Arc<dyn Interruptible>
    }
}

impl<R> Future for Receiver<R> {
    type Output = Result<R, Lost>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Receiver::poll(&self, context)
    }
}

impl<R> Drop for Receiver<R> {
    fn drop(&mut self) {
        let mut slot = lock(&self.0.slot);
        let value = std::mem::replace(&mut *slot, Slot::Gone);
        drop(slot);
        drop(value);
    }
}

/// Runs `future` on this thread, which sleeps until the future is woken.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
        fn wake_by_ref(self: &Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        // `park` may return early; the loop polls again.
        std::thread::park();
    }
}
