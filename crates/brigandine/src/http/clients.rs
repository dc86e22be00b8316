//! What each client holds of the web server: connections, streams, and bytes of answers that are not sent yet.
//!
//! A client never has to wait because another client holds more. When a bound is reached, the client that holds the
//! largest part of the bounded resource loses a connection. If that is the client of the new connection, it loses a
//! waiting or stalled connection; if it has none, the new connection is refused.
//!
//! | state of a connection | since | left by |
//! |---|---|---|
//! | waiting | it was accepted, its last answer was made, or a request's head came | [`Answering::at_once`] |
//! | answering | [`Answering::at_once`] | the drop of [`Answering`] |
//! | leaving | it was chosen to make room | the drop of its [`Permit`]; until then no sum includes it |
//!
//! In each state a connection is also *stalled* while the kernel takes no more bytes for its client (`socket.rs`).
//!
//! - CLNT1: each sum equals what its connections hold, without the leaving ones. All changes are made under one lock.
//! - CLNT2: another connection is accepted only while fewer than [`LEAVING_MAX`] connections are leaving.
//! - CLNT3: to make room, the client that holds the largest part of the bounded resource loses a connection. Waiting
//!   and stalled connections are chosen before answering ones, and among these the connection that has been in its
//!   state for the longest time.
//! - CLNT4: while a request from a trusted proxy is answered, its connection is included in the sums of the request's
//!   client, and otherwise in those of the proxy. A proxy may have as many connections as the server.

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
/// A connection whose client takes nothing for this long may be ended to make room.
const STALLED: Duration = Duration::from_millis(500);
/// The least time between two trace lines about refusals.
pub(super) const TELL: Duration = Duration::from_secs(60);

/// Why a connection or a stream is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// The client has reached the bound of one client.
    Client(Client),
    /// The bound of the server is reached, and no client holds more than this one.
    Server,
}

/// All connections of the server, and what their clients hold.
#[derive(Debug)]
pub(super) struct Clients {
    bounds: Bounds,
    state: Mutex<State>,
    /// Notified when a connection is closed.
    gone: Notify,
}

/// Guarded by the mutex of [`Clients`].
#[derive(Debug, Default)]
struct State {
    next: u64,
    /// At most [`LEAVING_MAX`] more than the bound of connections.
    connections: HashMap<u64, Connection>,
    /// The clients that hold something.
    clients: HashMap<Client, Held>,
    total: Sum,
    leaving: usize,
    /// The number of refusals since the last trace line about them.
    refused: u64,
    told: Option<Instant>,
}

/// What a client holds, or all clients together (CLNT1).
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
    /// The client at the connection's address.
    peer: Client,
    /// The client whose sums include the connection (CLNT4).
    client: Client,
    held: Sum,
    answering: bool,
    /// When the connection began to wait or to answer.
    since: Instant,
    /// When the kernel stopped taking bytes for the client; `None`: the kernel takes bytes.
    stalled: Option<Instant>,
    leaving: bool,
    leave: Arc<Notify>,
}

impl Connection {
    /// How long the connection has been waiting or stalled. `None`: it is neither waiting nor stalled, so ending it
    /// would lose an answer.
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
    /// Adds `more` to the sums of a connection, of its client and of the server, unless the connection is leaving.
    fn add(&mut self, id: u64, more: Sum, bounds: Bounds) {
        let Some(connection) = self.connections.get_mut(&id).filter(|it| !it.leaving) else {
            return;
        };
        connection.held.add(more);
        self.total.add(more);
        held(&mut self.clients, connection.client, bounds).sum.add(more);
    }

    /// Subtracts what [`State::add`] added.
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

    /// The connection to end when a bound is reached (CLNT3). `of` selects the field of the sums that has reached its
    /// bound.
    fn most(&self, of: impl Fn(&Sum) -> usize) -> Option<(u64, &Connection)> {
        let now = Instant::now();
        let all = self.connections.iter().map(|(id, connection)| (*id, connection));
        all.filter(|(_, it)| !it.leaving && of(&it.held) > 0)
            .max_by_key(|(_, it)| (of(&self.sum(it.client)), it.rank(now)))
    }

    /// The connection of `client` that has been waiting or stalled for the longest time; `None`: it has none.
    fn spare(&self, client: Client) -> Option<u64> {
        let now = Instant::now();
        let its = self.connections.iter().filter(|(_, it)| it.client == client && !it.leaving);
        let spare = its.filter_map(|(id, it)| it.spare(now).map(|time| (time, *id)));
        spare.max().map(|(_, id)| id)
    }

    /// Tells a connection to end, and removes it from the sums.
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

    /// Moves a connection from the sums of its client to those of another client.
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
        // After a panic under the lock only the sums may be wrong (CLNT1), so the poison is ignored.
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

    /// Returns a permit for a new connection. Ends another connection if that is needed to make room.
    ///
    /// # Errors
    /// There is no room for this client: the caller must refuse the connection.
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
            // An answering connection is ended only if its client holds more than the new client will hold with its new
            // connection.
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

    /// How many connections and streams there are, and how many bytes of answers are not sent yet.
    pub(super) fn held(&self) -> (usize, usize, usize) {
        let Sum { connections, streams, bytes } = self.state().total;
        (connections, streams, bytes)
    }

    /// Called when the process or machine has no room for another connection. Ends a waiting or stalled connection if
    /// there is one.
    pub(super) fn make_room(&self) {
        let mut state = self.state();
        let most = state.most(|sum| sum.connections);
        let spare = most.filter(|(_, connection)| connection.spare(Instant::now()).is_some());
        if let Some(id) = spare.map(|(id, _)| id) {
            state.end(id);
        }
    }

    /// Logs that connections or requests were refused, at most once per [`TELL`].
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

/// The permit of one connection. The server counts the connection until the permit is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    clients: Arc<Clients>,
    id: u64,
    leave: Arc<Notify>,
}

impl Permit {
    /// Resolves when the connection must end to make room.
    pub(super) async fn ended(&self) {
        self.leave.notified().await;
    }

    /// Logs that a request was refused.
    pub(super) fn tell_refused(&self, why: Full, peer: Client) {
        self.clients.tell_refused(why, peer);
    }

    /// Notes whether the kernel has stopped taking bytes for the client.
    pub(super) fn stalled(&self, stalled: bool) {
        if let Some(connection) = self.clients.state().connections.get_mut(&self.id) {
            connection.stalled = stalled.then(Instant::now);
        }
    }

    /// Whether the kernel has stopped taking bytes for the client.
    pub(super) fn is_stalled(&self) -> bool {
        let state = self.clients.state();
        state.connections.get(&self.id).is_some_and(|connection| connection.stalled.is_some())
    }

    /// Includes the connection in the sums of `client`, which has sent the head of a request. The body may come later.
    ///
    /// # Errors
    /// The client has as many connections as it may have. This happens only to requests that come through a proxy.
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
        // If the connection is leaving, no sum includes it, so the client may have no entry.
        let alone = || Arc::new(Semaphore::new(bounds.turns_per_client));
        let turns = state.clients.get(&client).map_or_else(alone, |held| Arc::clone(&held.turns));
        Ok(Answering { permit: Arc::clone(self), turns, streams: false })
    }

    /// Includes bytes of an answer in the sums until they are sent. Ends other connections while there are too many
    /// bytes.
    pub(super) fn charge(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        let clients = &self.clients;
        let mut state = clients.state();
        state.add(self.id, Sum { bytes: bytes.len(), ..Sum::default() }, clients.bounds);
        while state.total.bytes > clients.bounds.answers_bytes {
            let Some((id, most)) = state.most(|sum| sum.bytes) else { break };
            // A single connection's answers may exceed the bound.
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

/// A request while it is being answered. Dropped together with the body of the answer.
#[derive(Debug)]
pub(super) struct Answering {
    permit: Arc<Permit>,
    turns: Arc<Semaphore>,
    streams: bool,
}

impl Answering {
    /// Runs `work` once the client has a turn. The request must have arrived completely.
    pub(super) async fn turn<T>(&self, work: impl Future<Output = T>) -> T {
        self.at_once(async {
            // The result is ignored, because the semaphore is never closed.
            let _turn = self.turns.acquire().await;
            work.await
        })
        .await
    }

    /// Like [`Answering::turn`], but does not wait for a turn.
    pub(super) async fn at_once<T>(&self, work: impl Future<Output = T>) -> T {
        if let Some(connection) = self.permit.clients.state().connections.get_mut(&self.permit.id) {
            (connection.answering, connection.since) = (true, Instant::now());
        }
        work.await
    }

    /// The semaphore of the client's turns.
    pub(super) fn turns(&self) -> Arc<Semaphore> {
        Arc::clone(&self.turns)
    }

    /// Counts the answer as a stream. Ends another client's stream if that is needed to make room.
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

/// Bytes of an answer. They are included in the sums of their connection until they are dropped.
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
