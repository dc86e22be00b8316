//! The checks that a request passes before its route sees it, and the accounting of the answer.
//!
//! The order: check the target, join its slashes and take the base off; check the host; find the client that sent the request; read the
//! body (that of a GET or HEAD is dropped); wait for the client's turn, unless the route is answered at once; call the
//! route. The bytes of the body are counted for the client until the route has dropped them, those of the answer until
//! they are sent.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::arrived::Arrived;
use super::base::Base;
use super::client::{Client, named};
use super::clients::{Answering, Full, Permit};
use super::error::{HttpError, Result, methods};
use super::host::{self, Arrival};
use super::meters::HttpMeters;
use super::slashes::join;
use super::socket::Flags;
use super::stream::Streaming;
use super::turns::InTurns;
use crate::config::Web;
use crate::model::Live;

/// The most bytes of a request's target.
const TARGET_BYTES_MAX: usize = 8 * 1024;
/// The most bytes of a request's body; the refusal's message contains this number.
const BODY_BYTES_MAX: u64 = 1 << 20;

/// Answers the requests of one connection.
pub(super) struct Gate {
    pub(super) router: TowerToHyperService<Router>,
    /// See [`Routes`](super::Routes).
    pub(super) at_once: &'static [&'static str],
    pub(super) meters: Arc<HttpMeters>,
    pub(super) web: Live<Arc<Web>>,
    /// The path below which the server is served.
    pub(super) base: Base,
    pub(super) permit: Arc<Permit>,
    pub(super) flags: Arc<Flags>,
    pub(super) peer: IpAddr,
    pub(super) arrival: Arrival,
}

impl Gate {
    /// Answers a request, and counts the answer. A refused request gets an answer too.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response {
        let began = Instant::now();
        let response = self.answer_uncounted(request).await;
        self.meters.answered(&response, began.elapsed());
        response
    }

    async fn answer_uncounted(&self, request: Request<Incoming>) -> Response {
        let (parts, body) = request.into_parts();
        let has_body = !body.is_end_stream();
        match self.pass(parts, body).await {
            Ok(response) => response,
            Err(refusal) => {
                let mut response = refusal.into_response();
                if has_body {
                    // The rest of the body must not be read as the next request, so the connection is closed.
                    self.flags.unread.store(true, Ordering::Relaxed);
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                response
            }
        }
    }

    async fn pass(&self, mut parts: Parts, body: Incoming) -> Result<Response> {
        check_target(&parts)?;
        join(&mut parts.uri);
        self.base.take_off(&mut parts.uri);
        let web = self.web.get();
        host::check(&parts, web.hosts.as_deref(), self.arrival)?;
        let client = self.client(&parts, &web);
        let mut answering =
            self.permit.begin(client).map_err(|full| self.refuse(full, HttpError::TooMany))?;
        let dropped = matches!(parts.method, Method::GET | Method::HEAD);
        let read = self.read_body(body, !dropped);
        let read = tokio::time::timeout(web.client_time, read).await;
        let body = read.unwrap_or(Err(HttpError::TooSlow))?;
        self.flags.unread.store(false, Ordering::Relaxed);
        if parts.method != Method::GET {
            // Ranges are defined only for GET (RFC 9110, 14.2).
            parts.headers.remove(header::RANGE);
        }
        let arrived = Arrived::new(&parts, client, self.arrival.proxied);
        parts.extensions.insert(arrived);
        let request = Request::from_parts(parts, Body::from(body));
        let at_once = self.at_once.contains(&request.uri().path());
        let answer = self.router.call(request);
        let answered =
            if at_once { answering.at_once(answer).await } else { answering.turn(answer).await };
        let mut response = answered.unwrap_or_else(|never: Infallible| match never {});
        if response.status() == StatusCode::NOT_MODIFIED {
            // The router wrote the length of the empty body. In a 304, the header would be the length of the body that is
            // not sent (RFC 9110, 8.6).
            response.headers_mut().remove(header::CONTENT_LENGTH);
        }
        let goes_on = response.extensions().get::<Streaming>().is_some();
        let response = if goes_on {
            answering.stream().map_err(|full| self.refuse(full, HttpError::Busy))?;
            let turns = answering.turns();
            response.map(|body| Body::new(InTurns::new(body, turns)))
        } else {
            response
        };
        let permit = Arc::clone(&self.permit);
        Ok(response.map(|inner| Body::new(Counted { inner, permit, _answering: answering })))
    }

    /// Reads a request's body to its end. Returns it if it is to be kept; otherwise the result is empty.
    async fn read_body(&self, mut body: Incoming, keep: bool) -> Result<Bytes> {
        if body.size_hint().lower() > BODY_BYTES_MAX {
            return Err(HttpError::BodyTooLarge);
        }
        let (mut bytes, mut kept) = (0, Vec::new());
        while let Some(frame) = body.frame().await {
            let broken = |_| HttpError::BadRequest("the request's body cannot be read".to_owned());
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            bytes += data.len() as u64;
            if bytes > BODY_BYTES_MAX {
                return Err(HttpError::BodyTooLarge);
            }
            if keep && !data.is_empty() {
                kept.push(self.permit.charge(data));
            }
        }
        Ok(match kept.len() {
            0 => Bytes::new(),
            1 => kept.remove(0),
            _ => self.permit.charge(Bytes::from(kept.concat())),
        })
    }

    /// The client that sent a request.
    fn client(&self, parts: &Parts, web: &Web) -> Client {
        Client::new(if self.arrival.proxied {
            named(&parts.headers, self.peer, &web.trusted_proxies)
        } else {
            self.peer
        })
    }

    fn refuse(&self, full: Full, refusal: HttpError) -> HttpError {
        self.permit.tell_refused(full, Client::new(self.peer));
        refusal
    }
}

fn check_target(parts: &Parts) -> Result<()> {
    if parts.uri.path_and_query().is_some_and(|target| target.as_str().len() > TARGET_BYTES_MAX) {
        return Err(HttpError::TargetTooLong);
    }
    // `CONNECT host:port` and `OPTIONS *` do not name a resource of this server.
    if parts.method == Method::CONNECT || !parts.uri.path().starts_with('/') {
        return Err(HttpError::WrongMethod(methods(&parts.uri)));
    }
    Ok(())
}

/// The body of an answer. Its bytes are counted for the connection until they are sent.
struct Counted {
    inner: Body,
    permit: Arc<Permit>,
    /// Held until the body is dropped, because the request is being answered until then.
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
            Ok(frame) => Ok(frame.map_data(|bytes| self.permit.charge(bytes))),
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
