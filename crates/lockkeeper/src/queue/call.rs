//! A call's reply and its interrupt token: what the caller and the worker share.
//!
//! | slot | who may trust it | left by |
//! |---|---|---|
//! | `Waiting` | caller: no answer yet; its waker, if any, is stored | [`Reply::answer`], drop of [`Reply`] |
//! | `Answered` | caller: the value is there | [`Receiver::poll`] |
//! | `Lost` | caller: the worker's side went away without an answer | never |
//! | `Gone` | worker: nobody wants the value any more, or it was fetched | never |
//!
//! - CALL1: each accepted call is answered exactly once: `answer` consumes the [`Reply`], and dropping
//!   one unanswered marks the slot `Lost`, whatever made it drop (close, abort, panic, a dead thread).
//! - CALL2: a waker is called outside the slot's lock, so that a waker that polls at once finds it free.
//! - CALL3: a value whose caller is gone is dropped by the worker, outside every lock; what else holds
//!   the shared part (a worker's seat) never holds a caller's value.
//! - CALL4: a token is raised once; the first reason stays. It belongs to one call, so raising it late
//!   can never hit the next one.
//! - CALL5: a panic of a destructor or a waker has no caller to go to. It is caught where a worker or
//!   the clock would die of it ([`shielded`]).
//! - CALL6: whoever answers quietly owes the caller the waker that it was given.

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

/// A flag that asks one call, and no other, to stop. 0: it need not; otherwise the reason's place in [`REASONS`],
/// counted from 1.
#[derive(Debug)]
pub(crate) struct Token(AtomicU8);

impl Token {
    fn new() -> Self {
        Self(AtomicU8::new(0))
    }

    /// Asks the call to stop; only the first reason is kept.
    pub(crate) fn raise(&self, why: Interrupt) {
        // Pairs with the load in `raised`. Relaxed suffices: the flag carries no other data.
        let number = why as u8 + 1;
        let _ = self.0.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Why the call should stop, if it should.
    pub(crate) fn raised(&self) -> Option<Interrupt> {
        let number = usize::from(self.0.load(Ordering::Relaxed));
        REASONS.get(number.checked_sub(1)?).copied()
    }
}

/// Something that can be asked to stop; the type-erased end of a call.
pub(crate) trait Interruptible: Send + Sync {
    fn token(&self) -> &Token;
    /// Whether its caller need not wait for it any more.
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

/// The worker's end of a call. Dropping it unanswered tells the caller that the call is lost.
pub(crate) struct Reply<R>(Option<Arc<Shared<R>>>);

/// The caller's end of a call.
pub(crate) struct Receiver<R>(Arc<Shared<R>>);

/// The worker's end went away without an answer.
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

    /// Answers without waking the caller; the waker, if there is one, is to be called soon (CALL6).
    pub(crate) fn answer_quietly(mut self, value: R) -> Option<Waker> {
        self.0.take().and_then(|shared| store(&shared, Slot::Answered(value)))
    }

    pub(crate) fn token(&self) -> Option<Interrupt> {
        self.0.as_ref().and_then(|shared| shared.token.raised())
    }
}

impl<R: Send + 'static> Reply<R> {
    /// The type-erased token, to be shown to the code that runs the call.
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

/// Runs callers' code that nobody waits for: destructors and wakers. The panic hook has reported
/// what it threw.
pub(crate) fn shielded(f: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(f)) {
        // Its destructor might panic, too.
        std::mem::forget(payload);
    }
}

fn put<R>(shared: &Shared<R>, value: Slot<R>) {
    // CALL2, CALL5
    if let Some(waker) = store(shared, value) {
        shielded(|| waker.wake());
    }
}

/// Fills the slot; returns the waker of the caller, if it waits.
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

/// Runs `future` on this thread, which sleeps while nothing happens.
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
