//! Deadlock detection for calls made inside calls: a wait that would close a circle of waits is refused.
//!
//! A call that submits a call to another database or worker, and waits for it, blocks its own thread. If such a chain
//! of calls leads back to its beginning, the domains that calls carry show it (`context.rs`, [`super::Ancestry`]).
//! Several chains can also close a circle together: a write on A that writes to B, beside a write on B that writes to
//! A. To find these circles, one list holds all waits that are made inside calls. Waits outside of calls are never in
//! the list, so ordinary calls share no lock.
//!
//! Each wait in the list is one thread that waits for one call. If a worker has taken the call, the wait can end when
//! that worker's thread proceeds. If not, the wait can end when any worker of the queue proceeds, including a worker
//! that the pool may still start. A thread proceeds if each of its waits can end; a thread without waits proceeds. All
//! other threads are deadlocked.
//!
//! - WAIT1: no thread in the list is deadlocked. A wait that would deadlock its thread is refused; the check and the
//!   change of the list are under one lock. Of the other changes of the list, only [`behind`] can deadlock a thread, so
//!   it checks, too.
//! - WAIT2: a wait is removed from the list when its future is answered or dropped, or when the call around it ends,
//!   whichever comes first. From the moment when a call is answered, the wait for it counts as ended, even while it is
//!   still in the list.
//!
//! A future that was polled inside a call counts as a wait of that call's thread, since the list cannot see what the
//! executor does next.
//!
//! Lock order: the list's, then a reply's slot. Bound: one entry per future that is waited for inside a call.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::call::Interruptible;
use super::frames::{Domain, Waiter, WorkerSet, waiter_here};

/// What a thread waits for.
#[derive(Clone)]
pub(crate) enum Awaited {
    /// A call in a queue.
    Call(WorkerSet, Arc<dyn Interruptible>),
    /// The start of all threads of a domain, or their end.
    All(Domain),
    /// The next command of a call. For example, the writer's thread waits for the next command of a call that holds a
    /// lease.
    Holder(Holder),
}

/// A call that another thread waits for, because only this call can send the next command. It is named by its
/// thread and its frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holder {
    thread: u64,
    frame: u64,
}

impl Holder {
    /// The call that this thread runs; `None`: it runs none.
    pub(crate) fn here() -> Option<Self> {
        waiter_here().map(|waiter| Self { thread: waiter.thread, frame: waiter.frame })
    }
}

struct Entry {
    id: u64,
    waiter: Waiter,
    awaited: Awaited,
    /// The thread that runs the call, or that alone will run it; `None`: any worker may run it.
    runner: Option<u64>,
    /// `false`: the call was submitted, and its future has not been polled yet.
    blocks: bool,
}

/// A mutex of `std` instead of `sync.rs`, because a static outlives the executions that loom explores. No loom model
/// makes calls inside calls.
static WAITS: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// The length of the list, written under its lock, so that [`behind`] need not take the lock while the list is empty.
static COUNT: AtomicUsize = AtomicUsize::new(0);

fn waits() -> MutexGuard<'static, Vec<Entry>> {
    WAITS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The wait would close a circle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Circle;

/// A wait in the list. Its drop removes it from the list.
#[derive(Debug)]
pub(crate) struct Wait {
    id: u64,
    /// The frame of the call that waits.
    frame: u64,
    blocks: bool,
}

impl Wait {
    /// Enters into the list that this thread waits for `awaited`. `blocks`: the thread waits from now on; otherwise it
    /// waits once it polls ([`Wait::block`]). `None`: this thread runs no call, so its wait cannot be part of a circle.
    pub(crate) fn enter(
        awaited: impl FnOnce() -> Awaited,
        blocks: bool,
    ) -> Result<Option<Self>, Circle> {
        Self::enter_for(None, awaited, blocks)
    }

    /// As [`Wait::enter`], for a command to a thread whose wait for the command is `held`. The command ends that wait,
    /// so `held` becomes `None`. If the new wait is refused, `held` stays.
    pub(crate) fn enter_for(
        held: Option<&mut Option<Self>>,
        awaited: impl FnOnce() -> Awaited,
        blocks: bool,
    ) -> Result<Option<Self>, Circle> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let Some(waiter) = waiter_here() else {
            // A thread that runs no call cannot close a circle.
            held.map(Option::take);
            return Ok(None);
        };
        let (id, frame) = (NEXT.fetch_add(1, Ordering::Relaxed), waiter.frame);
        let (thread, awaited) = (waiter.thread, awaited());
        let mut list = waits();
        let held_by = |entry: &Entry| {
            held.as_ref().and_then(|held| held.as_ref()).is_some_and(|held| held.id == entry.id)
        };
        let ended = list.iter().position(held_by).map(|at| list.swap_remove(at));
        list.push(Entry { id, waiter, awaited, runner: None, blocks });
        if blocks && is_stuck(&list, thread) {
            list.pop();
            list.extend(ended);
            return Err(Circle);
        }
        COUNT.store(list.len(), Ordering::Relaxed);
        drop(list);
        held.map(Option::take);
        Ok(Some(Self { id, frame, blocks }))
    }

    /// Whether the call with the frame number `frame` makes this wait.
    pub(crate) fn is_of(&self, frame: u64) -> bool {
        self.frame == frame
    }

    /// Notes that the thread waits from now on.
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
    // Dropped outside the lock, because an entry may hold the last reference to a value of a caller.
    drop(gone);
}

/// Removes the waits of the call `frame`, which has ended, and the waits for a command of that call.
pub(crate) fn frame_ended(frame: u64) {
    leave(|entry| {
        let holds = matches!(entry.awaited, Awaited::Holder(holder) if holder.frame == frame);
        holds || entry.waiter.frame == frame
    });
}

/// Notes that the thread `thread` runs `call`, which was made inside another call.
pub(crate) fn runs(call: &Arc<dyn Interruptible>, thread: u64) {
    if let Some(entry) = find(&mut waits(), call) {
        entry.runner = Some(thread);
    }
}

/// Notes that only the thread `thread` will run `call`, after the calls before it. `false`: that would be a deadlock.
pub(crate) fn behind(call: Option<Arc<dyn Interruptible>>, thread: u64) -> bool {
    // A wait for this call was entered before the call was submitted, and the queue's lock orders that before this
    // load.
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

/// Whether `thread` is deadlocked.
fn is_stuck(list: &[Entry], thread: u64) -> bool {
    let blocks: Vec<&Entry> = list.iter().filter(|entry| entry.blocks).collect();
    // Begins with all waiting threads. The loop removes those that can proceed.
    let mut stuck: Vec<&Waiter> = Vec::new();
    for entry in &blocks {
        if !stuck.iter().any(|waiter| waiter.thread == entry.waiter.thread) {
            stuck.push(&entry.waiter);
        }
    }
    // The loop ends, because each pass makes the list shorter.
    loop {
        let proceeds = |waiter: &Waiter| {
            let mut own = blocks.iter().filter(|entry| entry.waiter.thread == waiter.thread);
            own.all(|entry| can_end(entry, &stuck))
        };
        let still: Vec<&Waiter> =
            stuck.iter().copied().filter(|waiter| !proceeds(waiter)).collect();
        if still.len() == stuck.len() {
            return stuck.iter().any(|waiter| waiter.thread == thread);
        }
        stuck = still;
    }
}

fn can_end(entry: &Entry, stuck: &[&Waiter]) -> bool {
    match (&entry.awaited, entry.runner) {
        (Awaited::Call(_, call), _) if call.is_answered() => true,
        (_, Some(runner)) => !stuck.iter().any(|waiter| waiter.thread == runner),
        (Awaited::Call(workers, _), None) => {
            let sets = stuck.iter().filter_map(|waiter| waiter.worker_of);
            sets.filter(|set| set.queue == workers.queue).count() < workers.workers_max
        }
        (Awaited::Holder(holder), None) => {
            !stuck.iter().any(|waiter| waiter.thread == holder.thread)
        }
        (Awaited::All(domain), None) => !stuck.iter().any(|waiter| waiter.domains.contains(domain)),
    }
}
