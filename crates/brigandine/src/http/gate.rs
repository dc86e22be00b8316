//! What every request passes before a route sees it, and every answer on its way back.
//!
//! In this order: the target and the host it names; whom it counts for; its body, which is read and dropped (no
//! route takes one yet); the client's turn; the route. The answer's bytes then count for the client until they
//! are sent.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Request, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::client::{Client, named};
use super::clients::{Answering, Full, Seat};
use super::host::{self, Way};
use super::socket::Notes;
use super::stream::GoesOn;
use super::turns::InTurns;
use super::{Refusal, Result, error};
use crate::config::Web;

/// Bytes of a request's target.
const TARGET_BYTES_MAX: usize = 8 * 1024;
/// Bytes of a request's body; the refusal says the number.
const BODY_BYTES_MAX: u64 = 1 << 20;

/// The gate of one connection.
pub(super) struct Gate {
    pub(super) router: TowerToHyperService<Router>,
    pub(super) web: Arc<Web>,
    pub(super) seat: Arc<Seat>,
    pub(super) notes: Arc<Notes>,
    pub(super) peer: IpAddr,
    pub(super) way: Way,
}

impl Gate {
    /// Answers a request, whatever it is.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response {
        let (parts, body) = request.into_parts();
        let has_body = !body.is_end_stream();
        match self.pass(parts, body).await {
            Ok(response) => response,
            Err(refusal) => {
                let mut response = refusal.into_response();
                if has_body {
                    // What is left of the body is no request.
                    self.notes.unread.store(true, Ordering::Relaxed);
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                response
            }
        }
    }

    async fn pass(&self, mut parts: Parts, body: Incoming) -> Result<Response> {
        check_target(&parts)?;
        host::check(&parts, self.web.hosts.as_deref(), self.way)?;
        let mut answering = self.begin(&parts)?;
        let read = tokio::time::timeout(self.web.client_time, drop_body(body)).await;
        read.unwrap_or(Err(Refusal::TooSlow))?;
        self.notes.unread.store(false, Ordering::Relaxed);
        if parts.method != Method::GET {
            // A range is of what GET answers (RFC 9110, 14.2).
            parts.headers.remove(header::RANGE);
        }
        let request = Request::from_parts(parts, Body::empty());
        let answered = answering.turn(self.router.call(request)).await;
        let response = answered.unwrap_or_else(|never: Infallible| match never {});
        let goes_on = response.extensions().get::<GoesOn>().is_some();
        let response = if goes_on {
            answering.stream().map_err(|full| self.refuse(full, Refusal::Busy))?;
            let turns = answering.turns();
            response.map(|body| Body::new(InTurns::new(body, turns)))
        } else {
            response
        };
        let seat = Arc::clone(&self.seat);
        Ok(response.map(|inner| Body::new(Counted { inner, seat, _answering: answering })))
    }

    fn begin(&self, parts: &Parts) -> Result<Answering> {
        let client = if self.way.proxied {
            named(&parts.headers, self.peer, &self.web.trusted_proxies)
        } else {
            self.peer
        };
        self.seat.begin(Client::new(client)).map_err(|full| self.refuse(full, Refusal::TooMany))
    }

    fn refuse(&self, full: Full, refusal: Refusal) -> Refusal {
        self.seat.tell_refused(full, Client::new(self.peer));
        refusal
    }
}

fn check_target(parts: &Parts) -> Result<()> {
    if parts.uri.path_and_query().is_some_and(|target| target.as_str().len() > TARGET_BYTES_MAX) {
        return Err(Refusal::TargetTooLong);
    }
    // `CONNECT host:port` and `OPTIONS *` are about no resource of a server like this one.
    if parts.method == Method::CONNECT || !parts.uri.path().starts_with('/') {
        return Err(Refusal::WrongMethod(error::methods(&parts.uri)));
    }
    Ok(())
}

/// Reads a request's body to its end.
async fn drop_body(mut body: Incoming) -> Result<()> {
    if body.size_hint().lower() > BODY_BYTES_MAX {
        return Err(Refusal::BodyTooLarge);
    }
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let broken = |_| Refusal::BadRequest("the request's body cannot be read".to_owned());
        bytes += frame.map_err(broken)?.data_ref().map_or(0, Bytes::len) as u64;
        if bytes > BODY_BYTES_MAX {
            return Err(Refusal::BodyTooLarge);
        }
    }
    Ok(())
}

/// The body of an answer, whose bytes count for the connection until they are sent.
struct Counted {
    inner: Body,
    seat: Arc<Seat>,
    /// Ends with the body.
    _answering: Answering,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        Poll::Ready(frame.map(|frame| match frame {
            Ok(frame) => Ok(frame.map_data(|bytes| self.seat.charge(bytes))),
            Err(error) => Err(io::Error::other(error)),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}
