//! Subscribers, each with a bounded queue of changes or the number of one commit.
//!
//! The writer publishes after a COMMIT and before it answers the calls of that commit. It never waits for a subscriber:
//! a subscriber that falls behind loses changes, and gets [`Change::Lagged`].
//!
//! | state of a subscriber | what may be trusted | left by |
//! |---|---|---|
//! | open | the queue has every commit since the subscription that was not taken yet | overflow, `close`, drop |
//! | lagged | commits up to `lagged` were discarded; the queue has the later ones | the next `take` |
//! | closed | nothing is published any more; queued changes can still be taken | never |
//!
//! Invariants:
//!
//! - FEED1: in order. Only the writer thread publishes, one commit after another.
//! - FEED2: nothing is missed. `subscribe` raises the count of subscribers before it returns; the writer reads the
//!   count after the COMMIT. Either the writer sees the subscriber, or the COMMIT was over before `subscribe` returned,
//!   and a read after that sees what the COMMIT stored.
//! - FEED3: bounded. A queue holds `capacity` changes at most. A change that would exceed this replaces the whole queue
//!   by [`Change::Lagged`]. A watch holds one number.
//! - FEED4: a subscriber's waker is called outside every lock, and its panic is caught.
//!
//! Lock order: the list of subscribers, then one subscriber.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;

use super::change::Change;
use super::interest::{Interest, Reads};
use crate::queue::{block_on, shielded};
use crate::sync::{Mutex, lock};

/// The subscribers of one database.
#[derive(Debug)]
pub(crate) struct Feed {
    /// The number of open subscribers; changed under the lock of `list`, read by the writer without it (FEED2).
    watched: AtomicUsize,
    list: Mutex<List>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct List {
    /// A subscriber for each subscription that has not been dropped.
    subscribers: Vec<Arc<Subscriber>>,
    closed: bool,
}

type Subscriber = Mutex<State>;

#[derive(Debug)]
struct State {
    wants: Wants,
    waker: Option<Waker>,
    closed: bool,
}

#[derive(Debug)]
enum Wants {
    /// All changes, in a queue whose `cost` is at most `capacity` (FEED3).
    All { queue: VecDeque<Change>, cost: usize, capacity: usize, lagged: Option<u64> },
    /// Whether one of these tables has changed; an empty list means any table. `changed`: the newest commit that
    /// changed one of them and was not reported yet.
    Tables { tables: Vec<String>, changed: Option<u64> },
    /// As `Tables`, for a live query, whose runs find out the tables (`client/live.rs`).
    Query(Interest),
}

impl Wants {
    /// Notes a change; returns whether the change concerns this subscriber.
    fn note(&mut self, change: &Change) -> bool {
        match self {
            Self::All { queue, cost, capacity, lagged } => {
                *cost += change.cost();
                if *cost > *capacity {
                    // FEED3
                    queue.clear();
                    *cost = 0;
                    *lagged = Some(change.commit());
                } else {
                    queue.push_back(change.clone());
                }
                true
            }
            Self::Tables { tables, changed } => {
                let concerned =
                    tables.is_empty() || tables.iter().any(|table| change.touches(table));
                if concerned {
                    *changed = Some(change.commit());
                }
                concerned
            }
            Self::Query(interest) => interest.note(change),
        }
    }

    fn take(&mut self) -> Option<Change> {
        match self {
            Self::All { queue, cost, lagged, .. } => {
                if let Some(commit) = lagged.take() {
                    return Some(Change::Lagged { commit });
                }
                let change = queue.pop_front()?;
                *cost -= change.cost();
                Some(change)
            }
            Self::Tables { changed, .. } | Self::Query(Interest { changed, .. }) => {
                changed.take().map(|commit| Change::Unknown { commit })
            }
        }
    }
}

impl Feed {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { watched: AtomicUsize::new(0), list: Mutex::new(List::default()), capacity }
    }

    /// Whether there are subscribers. Pairs with the store in `subscribe` (FEED2).
    pub(crate) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::SeqCst) > 0
    }

    fn subscribe(self: &Arc<Self>, wants: Wants) -> Subscription {
        let mut list = lock(&self.list);
        let state = State { wants, waker: None, closed: list.closed };
        let subscriber = Arc::new(Mutex::new(state));
        if !list.closed {
            list.subscribers.push(Arc::clone(&subscriber));
            self.watched.store(list.subscribers.len(), Ordering::SeqCst);
        }
        Subscription { feed: Arc::clone(self), subscriber }
    }

    pub(crate) fn publish(&self, change: &Change) {
        let mut wakers = Vec::new();
        for subscriber in &lock(&self.list).subscribers {
            let mut state = lock(subscriber);
            if state.wants.note(change) {
                wakers.extend(state.waker.take());
            }
        }
        wake(wakers);
    }

    /// Closes all subscriptions. Later subscriptions are closed from the beginning.
    pub(crate) fn close(&self) {
        let mut wakers = Vec::new();
        let mut list = lock(&self.list);
        list.closed = true;
        for subscriber in std::mem::take(&mut list.subscribers) {
            let mut state = lock(&subscriber);
            state.closed = true;
            wakers.extend(state.waker.take());
        }
        self.watched.store(0, Ordering::SeqCst);
        drop(list);
        wake(wakers);
    }
}

/// Calls the wakers. The caller holds no lock (FEED4).
fn wake(wakers: Vec<Waker>) {
    for waker in wakers {
        shielded(|| waker.wake());
    }
}

/// A subscription, which ends when dropped.
#[derive(Debug)]
struct Subscription {
    feed: Arc<Feed>,
    subscriber: Arc<Subscriber>,
}

impl Subscription {
    fn try_take(&self) -> Option<Change> {
        lock(&self.subscriber).wants.take()
    }

    async fn take(&self) -> Option<Change> {
        poll_fn(|context| self.poll_take(context)).await
    }

    fn poll_take(&self, context: &mut Context<'_>) -> Poll<Option<Change>> {
        let mut state = lock(&self.subscriber);
        if let Some(change) = state.wants.take() {
            return Poll::Ready(Some(change));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        let before = match &state.waker {
            Some(waker) if waker.will_wake(context.waker()) => None,
            _ => state.waker.replace(context.waker().clone()),
        };
        drop(state);
        drop(before);
        Poll::Pending
    }
}

/// The subscription of a live query.
#[derive(Debug)]
pub(crate) struct QueryWatch(Subscription);

impl QueryWatch {
    pub(crate) fn new(feed: &Arc<Feed>) -> Self {
        Self(feed.subscribe(Wants::Query(Interest::default())))
    }

    /// `Ready(Some)`: the last result is out of date; `Ready(None)`: the database is closed.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<Option<()>> {
        self.0.poll_take(context).map(|change| change.map(drop))
    }

    pub(crate) fn begin(&self) {
        if let Wants::Query(interest) = &mut lock(&self.0.subscriber).wants {
            interest.begin();
        }
    }

    pub(crate) fn settle(&self, reads: Reads) {
        if let Wants::Query(interest) = &mut lock(&self.0.subscriber).wants {
            interest.settle(reads);
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut list = lock(&self.feed.list);
        list.subscribers.retain(|other| !Arc::ptr_eq(other, &self.subscriber));
        self.feed.watched.store(list.subscribers.len(), Ordering::SeqCst);
        drop(list);
        let waker = lock(&self.subscriber).waker.take();
        drop(waker);
    }
}

/// The stream of commits; see [`changes`](crate::Client::changes).
///
/// It does not keep the database open, and ends when the database is closed. Dropping it ends the
/// subscription.
#[derive(Debug)]
#[must_use = "dropping it ends the subscription"]
pub struct Changes(Subscription);

impl Changes {
    pub(crate) fn new(feed: &Arc<Feed>) -> Self {
        let capacity = feed.capacity;
        Self(feed.subscribe(Wants::All { queue: VecDeque::new(), cost: 0, capacity, lagged: None }))
    }

    /// The next change; `None`: the database is closed and all changes were taken.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Change> {
        self.0.take().await
    }

    /// As [`Changes::next`], blocking this thread. Do not use it in a call's closure: the next commit may need the
    /// thread that waits here, and the library does not detect this deadlock.
    pub fn blocking_next(&mut self) -> Option<Change> {
        block_on(self.0.take())
    }

    /// The next change; `None`: there is none at the moment.
    pub fn try_next(&mut self) -> Option<Change> {
        self.0.try_take()
    }
}

impl Stream for Changes {
    type Item = Change;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Change>> {
        self.0.poll_take(context)
    }
}

/// Reports that tables have changed; see [`watch`](crate::Client::watch).
///
/// It holds only one number, so it cannot fall behind. It does not keep the database open, and ends when the database
/// is closed.
#[derive(Debug)]
#[must_use = "dropping it ends the subscription"]
pub struct Watch(Subscription);

impl Watch {
    pub(crate) fn new<T: Into<String>>(
        feed: &Arc<Feed>,
        tables: impl IntoIterator<Item = T>,
    ) -> Self {
        let tables = tables.into_iter().map(Into::into).collect();
        Self(feed.subscribe(Wants::Tables { tables, changed: None }))
    }

    /// Waits until one of the tables may have changed since the last result. Returns the number of the newest commit
    /// that may have changed one of them. `None`: the database is closed.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<u64> {
        self.0.take().await.map(|change| change.commit())
    }

    /// As [`Watch::next`], blocking this thread. Do not use it in a call's closure: the next commit may need the thread
    /// that waits here, and the library does not detect this deadlock.
    pub fn blocking_next(&mut self) -> Option<u64> {
        block_on(self.0.take()).map(|change| change.commit())
    }

    /// The number of the newest commit that may have changed one of the tables since the last result; `None`: there is
    /// none.
    pub fn try_next(&mut self) -> Option<u64> {
        self.0.try_take().map(|change| change.commit())
    }
}

impl Stream for Watch {
    type Item = u64;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<u64>> {
        self.0.poll_take(context).map(|change| change.map(|change| change.commit()))
    }
}
