//! What each client holds of the web server: connections, streams, bytes of answers that are not sent yet.
//!
//! No client waits for a client that holds more. When something is full, the client that holds most of it loses a
//! connection; when that is the newcomer itself, the newcomer is refused.
//!
//! | state of a connection | since | left by |
//! |---|---|---|
//! | waiting for a request | it was accepted, its last answer was made, or the head of the request came | [`Answering::turn`] |
//! | answering | [`Answering::turn`] | the drop of [`Answering`] |
//! | leaving | it was chosen to make room | the drop of its [`Permit`]; until then it counts for nothing |
//!
//! Besides, it is *stalled* while the kernel takes no more bytes for it (`socket.rs`).
//!
//! - CLNT1: each sum equals what its connections hold, leaving ones left out; every change is under the one lock.
//! - CLNT2: at most [`LEAVING_MAX`] connections are leaving when another is accepted.
//! - CLNT3: to make room, the client that holds most of what is full loses a connection: a waiting or stalled one before
//!   an answering one, and of these the one that has been so for the longest.
//! - CLNT4: while a request is answered, its connection from a trusted proxy counts for the request's client, else for the
//!   proxy. A proxy may have as many connections as there are.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore};

use super::bounds::Bounds;
use super::client::Client;

/// The most connections that were chosen to make room and are not closed yet.
const LEAVING_MAX: usize = 64;
/// A connection whose client takes nothing for this long may be ended for another.
const STALLED: Duration = Duration::from_millis(500);
/// The least time between two lines about refusals.
pub(super) const TELL: Duration = Duration::from_secs(60);

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// The client has reached the bound of one client.
    Client(Client),
    /// The bound of the server is reached, and no client holds more than this one.
    Server,
}

/// All connections.
#[derive(Debug)]
pub(super) struct Clients {
    bounds: Bounds,
    state: Mutex<State>,
    /// Notified when a connection is closed.
    gone: Notify,
}

/// Guard: the mutex of [`Clients`].
#[derive(Debug, Default)]
struct State {
    next: u64,
    /// At most the bound of connections and [`LEAVING_MAX`] more.
    connections: HashMap<u64, Connection>,
    /// Clients that hold anything.
    clients: HashMap<Client, Held>,
    total: Sum,
    leaving: usize,
    /// Refusals since the last line about them.
    refused: u64,
    told: Option<Instant>,
}

/// What a client, or all of them, hold (CLNT1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    connections: usize,
    streams: usize,
    bytes: usize,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.connections += other.connections;
        self.streams += other.streams;
        self.bytes += other.bytes;
    }

    fn take(&mut self, other: Self) {
        self.connections -= other.connections;
        self.streams -= other.streams;
        self.bytes -= other.bytes;
    }
}

#[derive(Debug)]
struct Held {
    sum: Sum,
    turns: Arc<Semaphore>,
}

#[derive(Debug)]
struct Connection {
    /// The client by its address.
    peer: Client,
    /// The client that it counts for (CLNT4).
    client: Client,
    held: Sum,
    answering: bool,
    /// When it began to wait or to answer.
    since: Instant,
    /// Since when the kernel takes no more bytes for it.
    stalled: Option<Instant>,
    leaving: bool,
    leave: Arc<Notify>,
}

impl Connection {
    /// How long it has been waiting or stalled; `None`: it is neither, so ending it would lose an answer.
    fn spare(&self, now: Instant) -> Option<Duration> {
        match self.stalled {
            Some(stalled) => Some(now - stalled).filter(|stalled| *stalled >= STALLED),
            None if self.answering || self.held.bytes > 0 => None,
            None => Some(now - self.since),
        }
    }

    /// The connection with the greatest rank is ended first (CLNT3).
    fn rank(&self, now: Instant) -> (Option<Duration>, Duration) {
        (self.spare(now), now - self.since)
    }
}

impl State {
    /// Counts `more` for a connection, unless it leaves.
    fn add(&mut self, id: u64, more: Sum, bounds: Bounds) {
        let Some(connection) = self.connections.get_mut(&id).filter(|it| !it.leaving) else {
            return;
        };
        connection.held.add(more);
        self.total.add(more);
        held(&mut self.clients, connection.client, bounds).sum.add(more);
    }

    /// Undoes [`State::add`].
    fn take(&mut self, id: u64, less: Sum) {
        let Some(connection) = self.connections.get_mut(&id).filter(|it| !it.leaving) else {
            return;
        };
        connection.held.take(less);
        let client = connection.client;
        self.forget(client, less);
    }

    fn forget(&mut self, client: Client, less: Sum) {
        self.total.take(less);
        if let Some(held) = self.clients.get_mut(&client) {
            held.sum.take(less);
            if held.sum == Sum::default() {
                self.clients.remove(&client);
            }
        }
    }

    fn sum(&self, client: Client) -> Sum {
        self.clients.get(&client).map_or(Sum::default(), |held| held.sum)
    }

    /// The connection to end when the field `of` of the sums is full (CLNT3).
    fn most(&self, of: impl Fn(&Sum) -> usize) -> Option<(u64, &Connection)> {
        let now = Instant::now();
        let all = self.connections.iter().map(|(id, connection)| (*id, connection));
        all.filter(|(_, it)| !it.leaving && of(&it.held) > 0)
            .max_by_key(|(_, it)| (of(&self.sum(it.client)), it.rank(now)))
    }

    /// The connection of `client` that has been waiting or stalled for the longest.
    fn spare(&self, client: Client) -> Option<u64> {
        let now = Instant::now();
        let its = self.connections.iter().filter(|(_, it)| it.client == client && !it.leaving);
        let spare = its.filter_map(|(id, it)| it.spare(now).map(|time| (time, *id)));
        spare.max().map(|(_, id)| id)
    }

    /// Ends a connection.
    fn end(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id).filter(|it| !it.leaving) else {
            return;
        };
        connection.leaving = true;
        connection.leave.notify_one();
        let (client, held) = (connection.client, connection.held);
        self.leaving += 1;
        self.forget(client, held);
    }

    /// Counts a connection for another client.
    fn move_to(&mut self, id: u64, client: Client, bounds: Bounds) {
        let Some(connection) = self.connections.get_mut(&id).filter(|it| !it.leaving) else {
            return;
        };
        let (before, sum) = (std::mem::replace(&mut connection.client, client), connection.held);
        if before != client {
            held(&mut self.clients, client, bounds).sum.add(sum);
            self.total.add(sum);
            self.forget(before, sum);
        }
    }
}

fn held(clients: &mut HashMap<Client, Held>, client: Client, bounds: Bounds) -> &mut Held {
    clients.entry(client).or_insert_with(|| Held {
        sum: Sum::default(),
        turns: Arc::new(Semaphore::new(bounds.turns_per_client)),
    })
}

impl Clients {
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, state: Mutex::default(), gone: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // After a panic below the lock the sums may be wrong (CLNT1), and nothing else is.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when another connection may be accepted (CLNT2).
    pub(super) async fn room(&self) {
        loop {
            let gone = self.gone.notified();
            if self.state().leaving < LEAVING_MAX {
                return;
            }
            gone.await;
        }
    }

    /// A permit for a new connection; ends another connection if need be.
    ///
    /// # Errors
    /// There is no room for this client: the connection has to be refused.
    pub(super) fn enter(self: &Arc<Self>, peer: Client, proxy: bool) -> Result<Permit, Full> {
        let mut state = self.state();
        let has = state.sum(peer).connections;
        if !proxy && has >= self.bounds.connections_per_client {
            let spare = state.spare(peer).ok_or(Full::Client(peer))?;
            state.end(spare);
        } else if state.total.connections >= self.bounds.connections {
            let most = state.most(|sum| sum.connections);
            let (id, most) = most.ok_or(Full::Server)?;
            let more = state.sum(most.client).connections;
            // An answering connection is ended only for a client that holds less even with the new one.
            let spare = most.spare(Instant::now()).is_some();
            if more <= has && !(spare && most.client == peer) || !spare && more <= has + 1 {
                return Err(Full::Server);
            }
            state.end(id);
        }
        let (id, leave) = (state.next, Arc::new(Notify::new()));
        state.next += 1;
        let connection = Connection {
            peer,
            client: peer,
            held: Sum::default(),
            answering: false,
            since: Instant::now(),
            stalled: None,
            leaving: false,
            leave: Arc::clone(&leave),
        };
        state.connections.insert(id, connection);
        state.add(id, Sum { connections: 1, ..Sum::default() }, self.bounds);
        Ok(Permit { clients: Arc::clone(self), id, leave })
    }

    /// Ends a waiting or stalled connection, if there is one, when the machine has no room for another.
    pub(super) fn make_room(&self) {
        let mut state = self.state();
        let most = state.most(|sum| sum.connections);
        let spare = most.filter(|(_, connection)| connection.spare(Instant::now()).is_some());
        if let Some(id) = spare.map(|(id, _)| id) {
            state.end(id);
        }
    }

    /// Logs that connections or requests were refused, at most once in [`TELL`].
    pub(super) fn tell_refused(&self, why: Full, peer: Client) {
        let mut state = self.state();
        state.refused += 1;
        if state.told.is_some_and(|told| told.elapsed() < TELL) {
            return;
        }
        state.told = Some(Instant::now());
        let refused = std::mem::take(&mut state.refused);
        drop(state);
        match why {
            Full::Client(client) => tracing::warn!(
                %client, %peer, refused,
                "a client has as many connections or streams as one client may have, further ones are refused; if it \
                 is a proxy, name it in `trusted-proxies` under `[web]`, so that its clients are told apart"
            ),
            Full::Server => tracing::warn!(
                %peer, refused,
                "as many connections or streams are open as there may be, further ones are refused; see \
                 `connections` under `[web]`, and the limit of open files (ulimit -n)"
            ),
        }
    }
}

/// The permit of one connection, which counts until this is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    clients: Arc<Clients>,
    id: u64,
    leave: Arc<Notify>,
}

impl Permit {
    /// Resolves when the connection has to end to make room.
    pub(super) async fn ended(&self) {
        self.leave.notified().await;
    }

    /// Logs that a request was refused.
    pub(super) fn tell_refused(&self, why: Full, peer: Client) {
        self.clients.tell_refused(why, peer);
    }

    /// Flags that the kernel takes no more bytes, or takes them again.
    pub(super) fn stalled(&self, stalled: bool) {
        if let Some(connection) = self.clients.state().connections.get_mut(&self.id) {
            connection.stalled = stalled.then(Instant::now);
        }
    }

    /// Whether the kernel takes no more bytes.
    pub(super) fn is_stalled(&self) -> bool {
        let state = self.clients.state();
        state.connections.get(&self.id).is_some_and(|connection| connection.stalled.is_some())
    }

    /// Counts a request for `client`. Its body may be still to come.
    ///
    /// # Errors
    /// The client has as many connections as it may have, which happens to requests through a proxy alone.
    pub(super) fn begin(self: &Arc<Self>, client: Client) -> Result<Answering, Full> {
        let bounds = self.clients.bounds;
        let mut state = self.clients.state();
        let now = state.connections.get(&self.id).map(|connection| connection.client);
        if now != Some(client) {
            if state.sum(client).connections >= bounds.connections_per_client {
                return Err(Full::Client(client));
            }
            state.move_to(self.id, client, bounds);
        }
        if let Some(connection) = state.connections.get_mut(&self.id) {
            connection.since = Instant::now();
        }
        // A leaving connection counts for no client.
        let alone = || Arc::new(Semaphore::new(bounds.turns_per_client));
        let turns = state.clients.get(&client).map_or_else(alone, |held| Arc::clone(&held.turns));
        Ok(Answering { permit: Arc::clone(self), turns, streams: false })
    }

    /// Counts bytes of an answer until they are sent. Ends another connection when there are too many.
    pub(super) fn charge(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        let clients = &self.clients;
        let mut state = clients.state();
        state.add(self.id, Sum { bytes: bytes.len(), ..Sum::default() }, clients.bounds);
        while state.total.bytes > clients.bounds.answers_bytes {
            let Some((id, most)) = state.most(|sum| sum.bytes) else { break };
            // A single answer may exceed the bound.
            if most.held.bytes == state.total.bytes {
                break;
            }
            state.end(id);
        }
        drop(state);
        Bytes::from_owner(Charged { bytes, permit: Arc::clone(self) })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.clients.state();
        state.end(self.id);
        state.connections.remove(&self.id);
        state.leaving -= 1;
        drop(state);
        self.clients.gone.notify_one();
    }
}

/// A request while it is answered; dropped with the body of the answer.
#[derive(Debug)]
pub(super) struct Answering {
    permit: Arc<Permit>,
    turns: Arc<Semaphore>,
    streams: bool,
}

impl Answering {
    /// Runs `work` when it is the client's turn. The request has arrived as a whole.
    pub(super) async fn turn<T>(&self, work: impl Future<Output = T>) -> T {
        if let Some(connection) = self.permit.clients.state().connections.get_mut(&self.permit.id) {
            (connection.answering, connection.since) = (true, Instant::now());
        }
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await;
        work.await
    }

    /// The client's turns.
    pub(super) fn turns(&self) -> Arc<Semaphore> {
        Arc::clone(&self.turns)
    }

    /// Counts the answer as a stream. Ends another stream if need be.
    ///
    /// # Errors
    /// There is no room for another stream of this client.
    pub(super) fn stream(&mut self) -> Result<(), Full> {
        let clients = &self.permit.clients;
        let mut state = clients.state();
        let Some(connection) = state.connections.get(&self.permit.id) else { return Ok(()) };
        let client = connection.client;
        let has = state.sum(client).streams;
        if has >= clients.bounds.streams_per_client {
            return Err(Full::Client(client));
        }
        if state.total.streams >= clients.bounds.streams {
            let (id, most) = state.most(|sum| sum.streams).ok_or(Full::Server)?;
            if state.sum(most.client).streams <= has + 1 {
                return Err(Full::Server);
            }
            state.end(id);
        }
        state.add(self.permit.id, Sum { streams: 1, ..Sum::default() }, clients.bounds);
        self.streams = true;
        Ok(())
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let bounds = self.permit.clients.bounds;
        let mut state = self.permit.clients.state();
        if self.streams {
            state.take(self.permit.id, Sum { streams: 1, ..Sum::default() });
        }
        let Some(connection) = state.connections.get_mut(&self.permit.id) else { return };
        (connection.answering, connection.since) = (false, Instant::now());
        let peer = connection.peer;
        state.move_to(self.permit.id, peer, bounds);
    }
}

/// Bytes that count for a connection.
struct Charged {
    bytes: Bytes,
    permit: Arc<Permit>,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        let less = Sum { bytes: self.bytes.len(), ..Sum::default() };
        self.permit.clients.state().take(self.permit.id, less);
    }
}

#[cfg(test)]
mod tests;
