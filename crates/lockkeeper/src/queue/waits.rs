//! Who waits for whom among calls that are made inside calls: a circle of waits is refused by the wait that
//! would close it.
//!
//! A call that makes another one, of another database or worker, and waits for it, keeps its thread meanwhile. A
//! chain that comes back to its own beginning is found by what calls carry (`context.rs`, [`super::Ancestry`]).
//! Several chains can close a circle too: a write on A that writes to B, beside a write on B that writes to A.
//! For these, waits that are made inside calls are kept in one list; others are never in it, so that the way of
//! ordinary calls has no lock in common.
//!
//! A wait is of a thread, for a call. Taken by a worker, the call ends if that worker's thread goes on; not yet
//! taken, if any worker of its queue goes on, one that may still be started included. A thread goes on if each
//! of its waits can end; whoever does not wait goes on. The threads that do not go on by these rules never will.
//!
//! - WAIT1: nobody in the list is stuck. A wait that would change that is refused, and the list is looked at and
//!   changed under one lock. What else changes frees threads, but for [`behind`], which looks as well.
//! - WAIT2: a wait leaves the list when its future is answered or dropped, or when the call in which it was waited
//!   for ends, whichever comes first; answered ones count as ended before they leave.
//!
//! A future that was polled inside a call counts as waited for, since what the executor does next cannot be seen.
//!
//! Lock order: the list's, then a reply's slot. Bound: a wait per future that is waited for inside a call.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::call::Interruptible;
use super::frames::{Domain, Kept, Seats, kept_here};

/// What a thread waits for.
#[derive(Clone)]
pub(crate) enum Awaited {
    /// A call in a queue.
    Call(Seats, Arc<dyn Interruptible>),
    /// That every thread of a domain comes to its end, or to its beginning.
    All(Domain),
    /// The next word of a call that holds the waiting thread, such as one that has taken a lease.
    Holder(Holder),
}

/// A call that holds another thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holder {
    thread: u64,
    frame: u64,
}

impl Holder {
    /// The call that this thread runs; `None`: it runs none.
    pub(crate) fn here() -> Option<Self> {
        kept_here().map(|kept| Self { thread: kept.thread, frame: kept.frame })
    }
}

struct Entry {
    id: u64,
    waiter: Kept,
    awaited: Awaited,
    /// The thread that runs the call, once it was taken.
    runner: Option<u64>,
    /// False: it was submitted, and nobody waits for it yet.
    blocks: bool,
}

/// Not one of `sync.rs`: it outlives the executions that loom explores, and no model makes calls inside calls.
static WAITS: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// How many there are, so that who has nothing to say in the matter need not take the lock. Written under it.
static COUNT: AtomicUsize = AtomicUsize::new(0);

fn waits() -> MutexGuard<'static, Vec<Entry>> {
    WAITS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The wait would close a circle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Circle;

/// A wait in the list; taken out when dropped.
#[derive(Debug)]
pub(crate) struct Wait {
    id: u64,
    /// The frame in which it is waited for.
    frame: u64,
    blocks: bool,
}

impl Wait {
    /// Enters the wait of this thread for `awaited`; `blocks` says whether it is waited for already. `None`: this
    /// thread runs no call, so nobody waits for it in turn.
    pub(crate) fn enter(
        awaited: impl FnOnce() -> Awaited,
        blocks: bool,
    ) -> Result<Option<Self>, Circle> {
        Self::enter_for(None, awaited, blocks)
    }

    /// As [`Wait::enter`]; what is waited for is said to who waited in `held`, which ends by it. A refused wait
    /// leaves that as it was.
    pub(crate) fn enter_for(
        held: Option<&mut Option<Self>>,
        awaited: impl FnOnce() -> Awaited,
        blocks: bool,
    ) -> Result<Option<Self>, Circle> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let Some(waiter) = kept_here() else {
            // Who does not wait in a call of this process cannot close a circle.
            held.map(Option::take);
            return Ok(None);
        };
        let (id, frame) = (NEXT.fetch_add(1, Ordering::Relaxed), waiter.frame);
        let (thread, awaited) = (waiter.thread, awaited());
        let mut list = waits();
        let held_by = |entry: &Entry| {
            held.as_ref().and_then(|held| held.as_ref()).is_some_and(|held| held.id == entry.id)
        };
        let spoken_to = list.iter().position(held_by).map(|at| list.swap_remove(at));
        list.push(Entry { id, waiter, awaited, runner: None, blocks });
        if blocks && is_stuck(&list, thread) {
            list.pop();
            list.extend(spoken_to);
            return Err(Circle);
        }
        COUNT.store(list.len(), Ordering::Relaxed);
        drop(list);
        held.map(Option::take);
        Ok(Some(Self { id, frame, blocks }))
    }

    /// Whether it is in the list as a wait of the frame `frame`.
    pub(crate) fn is_of(&self, frame: u64) -> bool {
        self.frame == frame
    }

    /// It is waited for from now on.
    pub(crate) fn block(&mut self) -> Result<(), Circle> {
        if std::mem::replace(&mut self.blocks, true) {
            return Ok(());
        }
        let mut list = waits();
        let Some(at) = list.iter().position(|entry| entry.id == self.id) else { return Ok(()) };
        let thread = list[at].waiter.thread;
        list[at].blocks = true;
        if is_stuck(&list, thread) { Err(Circle) } else { Ok(()) }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        leave(|entry| entry.id == self.id);
    }
}

fn leave(which: impl Fn(&Entry) -> bool) {
    let mut list = waits();
    let gone: Vec<Entry> = list.extract_if(.., |entry| which(entry)).collect();
    COUNT.store(list.len(), Ordering::Relaxed);
    drop(list);
    // Outside the lock: it may hold the last reference to a value of the caller's.
    drop(gone);
}

/// The call `frame` has ended: nobody waits in it any more.
pub(crate) fn frame_ended(frame: u64) {
    leave(|entry| {
        let holds = matches!(entry.awaited, Awaited::Holder(holder) if holder.frame == frame);
        holds || entry.waiter.frame == frame
    });
}

/// The thread `thread` runs `call`, which was made inside another call.
pub(crate) fn runs(call: &Arc<dyn Interruptible>, thread: u64) {
    if let Some(entry) = find(&mut waits(), call) {
        entry.runner = Some(thread);
    }
}

/// `call` waits for the thread `thread`, and no other, to come to it; false: it would wait for ever.
pub(crate) fn behind(call: Option<Arc<dyn Interruptible>>, thread: u64) -> bool {
    // Who entered a wait for this call did so before it was submitted, and the call came here through a lock.
    let Some(call) = call.filter(|_| COUNT.load(Ordering::Relaxed) > 0) else { return true };
    let mut list = waits();
    let Some(entry) = find(&mut list, &call) else { return true };
    entry.runner = Some(thread);
    let waiter = entry.waiter.thread;
    !is_stuck(&list, waiter)
}

fn find<'l>(list: &'l mut [Entry], call: &Arc<dyn Interruptible>) -> Option<&'l mut Entry> {
    list.iter_mut().find(|entry| {
        matches!(&entry.awaited, Awaited::Call(_, own) if std::ptr::addr_eq(Arc::as_ptr(own), Arc::as_ptr(call)))
    })
}

/// Whether `thread` would never go on.
fn is_stuck(list: &[Entry], thread: u64) -> bool {
    let blocks: Vec<&Entry> = list.iter().filter(|entry| entry.blocks).collect();
    // All that wait, until they prove to go on.
    let mut stuck: Vec<&Kept> = Vec::new();
    for entry in &blocks {
        if !stuck.iter().any(|kept| kept.thread == entry.waiter.thread) {
            stuck.push(&entry.waiter);
        }
    }
    // Ends: it shrinks each time.
    loop {
        let goes_on = |kept: &Kept| {
            let mut own = blocks.iter().filter(|entry| entry.waiter.thread == kept.thread);
            own.all(|entry| can_end(entry, &stuck))
        };
        let still: Vec<&Kept> = stuck.iter().copied().filter(|kept| !goes_on(kept)).collect();
        if still.len() == stuck.len() {
            return stuck.iter().any(|kept| kept.thread == thread);
        }
        stuck = still;
    }
}

fn can_end(entry: &Entry, stuck: &[&Kept]) -> bool {
    match (&entry.awaited, entry.runner) {
        (Awaited::Call(_, call), _) if call.is_answered() => true,
        (_, Some(runner)) => !stuck.iter().any(|kept| kept.thread == runner),
        (Awaited::Call(seats, _), None) => {
            let held =
                stuck.iter().filter(|kept| kept.seat.is_some_and(|s| s.queue == seats.queue));
            held.count() < seats.workers_max
        }
        (Awaited::Holder(holder), None) => !stuck.iter().any(|kept| kept.thread == holder.thread),
        (Awaited::All(domain), None) => !stuck.iter().any(|kept| kept.domains.contains(domain)),
    }
}
