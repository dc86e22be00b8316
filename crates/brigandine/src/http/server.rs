//! Accepts connections and speaks HTTP on them.
//!
//! axum's own loop has no bound on connections and no time limit for the head of a request. This loop has both, for all
//! clients together and for each (`clients.rs`). It speaks only HTTP/1.1: the clients use keep-alive and pipelining,
//! and a proxy in front of the server can speak the other versions.
//!
//! - SERV1: whatever a client does or fails to do, the loop accepts the next connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::Router;
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::base::Base;
use super::bounds::Bounds;
use super::client::{Client, is_trusted};
use super::clients::{Clients, Full, Permit, TELL};
use super::error::HttpError;
use super::gate::Gate;
use super::host::Arrival;
use super::meters::HttpMeters;
use super::socket::{Flags, Socket, end_of_answers};
use crate::config::Web;
use crate::model::Live;
use crate::os::file::has_no_room;

/// The most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// How long open requests may take after closing has begun.
const CLOSE_TIME: Duration = Duration::from_secs(5);

/// How long a client may take to read an answer that was sent before its whole request had arrived.
const LINGER_TIME: Duration = Duration::from_secs(2);

/// The most refused connections that linger at the same time; further ones are closed immediately.
const REFUSED_MAX: usize = 16;

/// The pause after the process or machine had no room for another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// What a server answers.
pub(crate) struct Routes {
    pub(crate) router: Router,
    /// The paths of requests that do not wait for a turn of their client, because their answers take little time.
    pub(crate) at_once: &'static [&'static str],
    /// Where answers are counted.
    pub(crate) meters: Arc<HttpMeters>,
}

/// Answers requests until `closing` becomes true. Then answers the open requests, within [`CLOSE_TIME`], and returns.
pub(crate) async fn serve(
    listener: TcpListener,
    routes: Routes,
    web: Live<Arc<Web>>,
    mut closing: watch::Receiver<bool>,
) {
    let bounds = bounds(&web.get());
    let server = Arc::new(Server {
        router: TowerToHyperService::new(routes.router),
        at_once: routes.at_once,
        meters: routes.meters,
        clients: Clients::new(bounds),
        base: Base::new(&web.get().base),
        web,
        refused: Arc::new(Semaphore::new(REFUSED_MAX)),
        closing: closing.clone(),
    });
    server.meters.watch(&server.clients);
    let mut connections = JoinSet::new();
    let mut told = None;
    loop {
        let accepted = tokio::select! {
            () = closed(&mut closing) => break,
            accepted = server.accept(&listener) => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Some(connection) = server.take(stream, peer) {
                    connections.spawn(connection);
                }
            }
            Err(error) if has_no_room(&error) => {
                if told.is_none_or(|told: Instant| told.elapsed() >= TELL) {
                    told = Some(Instant::now());
                    tracing::warn!(
                        %error, "a connection could not be accepted; see the limit of open files (ulimit -n)"
                    );
                }
                server.clients.make_room();
                tokio::select! {
                    () = closed(&mut closing) => break,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
            // Usually the client left before the connection was accepted.
            Err(error) => tracing::debug!(%error, "a connection could not be accepted"),
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(CLOSE_TIME, all).await.is_err() {
        tracing::warn!("some clients did not take their answers in time");
    }
}

fn bounds(web: &Web) -> Bounds {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let bounds = Bounds::new(web, files);
    let wanted = web.connections.unwrap_or(bounds.connections);
    if wanted > bounds.connections {
        tracing::warn!(
            wanted,
            connections = bounds.connections,
            files,
            "fewer connections than configured are accepted at once, since the limit of open files is low; raise \
             it (ulimit -n, or LimitNOFILE of systemd)"
        );
    }
    bounds
}

/// What all connections share.
struct Server {
    router: TowerToHyperService<Router>,
    at_once: &'static [&'static str],
    meters: Arc<HttpMeters>,
    clients: Arc<Clients>,
    base: Base,
    /// Changed by a reload. The bounds of connections stay as they were at the start.
    web: Live<Arc<Web>>,
    /// One permit for each refused connection that may linger.
    refused: Arc<Semaphore>,
    closing: watch::Receiver<bool>,
}

impl Server {
    async fn accept(&self, listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
        self.clients.room().await;
        listener.accept().await
    }

    /// Returns the future that serves a new connection; `None`: the connection was refused and closed.
    fn take(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Option<std::pin::Pin<Box<dyn Future<Output = ()> + Send>>> {
        let client = Client::new(peer.ip());
        let proxied = is_trusted(peer.ip(), &self.web.get().trusted_proxies);
        match self.clients.enter(client, proxied) {
            Ok(permit) => {
                let server = Arc::clone(self);
                Some(Box::pin(async move { server.converse(stream, peer, proxied, permit).await }))
            }
            Err(full) => {
                self.clients.tell_refused(full, client);
                let refusal = match full {
                    Full::Client(_) => HttpError::TooMany,
                    Full::Server => HttpError::Busy,
                };
                self.meters.refused(refusal.parts().0);
                send(&stream, &refusal);
                let permit = Arc::clone(&self.refused).try_acquire_owned().ok()?;
                Some(Box::pin(async move {
                    linger(&stream).await;
                    drop(permit);
                }))
            }
        }
    }

    /// Answers the requests of one connection.
    async fn converse(&self, stream: TcpStream, peer: SocketAddr, proxied: bool, permit: Permit) {
        let Ok(local) = stream.local_addr() else { return };
        let arrival = Arrival { local: local.ip().to_canonical(), proxied };
        let (stream, permit, flags) =
            (Arc::new(stream), Arc::new(permit), Arc::new(Flags::default()));
        let time = self.web.get().client_time;
        let socket =
            Socket::new(Arc::clone(&stream), Arc::clone(&permit), Arc::clone(&flags), time);
        let gate = Arc::new(Gate {
            router: self.router.clone(),
            at_once: self.at_once,
            meters: Arc::clone(&self.meters),
            web: self.web.clone(),
            base: self.base.clone(),
            permit: Arc::clone(&permit),
            flags: Arc::clone(&flags),
            peer: peer.ip(),
            arrival,
        });
        let service = service_fn(move |request: Request<Incoming>| {
            gate.flags.unread.store(false, Ordering::Relaxed);
            let gate = Arc::clone(&gate);
            async move { Ok::<Response, std::convert::Infallible>(gate.answer(request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(time)
            .max_header_size(HEAD_BYTES_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(socket), service);
        let mut closing = self.closing.clone();
        let ended = {
            tokio::pin!(connection);
            tokio::select! {
                outcome = connection.as_mut() => Some(outcome),
                () = permit.ended() => None,
                () = closed(&mut closing) => {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! {
                        outcome = connection => Some(outcome),
                        () = permit.ended() => None,
                    }
                }
            }
        };
        match ended {
            Some(outcome) => self.part(&stream, &flags, outcome, &permit).await,
            None => forget(&stream, &permit),
        }
    }

    /// Ends a connection that hyper has finished with: sends the refusals that hyper cannot send, and lets the client
    /// read them.
    async fn part(
        &self,
        stream: &TcpStream,
        flags: &Flags,
        outcome: hyper::Result<()>,
        permit: &Permit,
    ) {
        let unread = flags.unread.load(Ordering::Relaxed);
        let refusal = if flags.endless_line.load(Ordering::Relaxed) {
            Some(HttpError::TargetTooLong)
        } else if outcome.as_ref().is_err_and(|error| error.is_timeout() && unread) {
            Some(HttpError::TooSlow)
        } else {
            None
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, "a connection ended early");
        }
        if flags.stalled.load(Ordering::Relaxed) {
            return forget(stream, permit);
        }
        if let Some(refusal) = refusal {
            send(stream, &refusal);
        }
        if unread && !*self.closing.borrow() {
            tokio::select! {
                () = linger(stream) => {}
                () = permit.ended() => {}
            }
        }
    }
}

/// Sends as much of a refusal as the kernel takes. That is the whole refusal, unless other bytes still wait to be sent.
fn send(stream: &TcpStream, refusal: &HttpError) {
    use rustix::net::{SendFlags, send};
    // A direct system call, because the runtime does not know yet that a new connection is writable.
    let _ = send(stream, &refusal.bare(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
}

/// If the client is stalled, lets the kernel drop the bytes that the client did not take. Otherwise the kernel would
/// keep them for minutes.
fn forget(stream: &TcpStream, permit: &Permit) {
    if permit.is_stalled() {
        let _ = stream.set_zero_linger();
    }
}

/// Ends the sending side, and reads what the client still sends. If a connection is closed while it has unread bytes,
/// the kernel resets it, and the client may lose the answer.
async fn linger(stream: &TcpStream) {
    if end_of_answers(stream).is_err() {
        return;
    }
    let mut buffer = [0; 4096];
    let rest = async {
        while stream.readable().await.is_ok() {
            match stream.try_read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
    };
    let _ = tokio::time::timeout(LINGER_TIME, rest).await;
}

/// Resolves when closing begins, or when the sender of `closing` is dropped.
pub(crate) async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}
