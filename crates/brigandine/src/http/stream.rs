//! Answers that continue: followed build logs, events, downloads.
//!
//! The task of the connection makes the answer piece by piece, and makes the next piece only when the last one was
//! sent. So pieces for a slow client are made slowly and use no more memory than others, and none is made after the
//! connection has ended.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use http_body::Frame;
use tokio::sync::mpsc;

/// Marks an answer as a stream. The bound on streams is lower than the bound on connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct Streaming;

/// Sends the pieces of a stream.
pub(crate) struct Sender(mpsc::Sender<io::Result<Bytes>>);

impl Sender {
    /// Sends a piece, and waits until the connection has taken it. `false`: the client has left.
    pub(crate) async fn send(&self, piece: impl Into<Bytes>) -> bool {
        // The channel holds one piece, so `reserve` waits until the connection has taken this one. The next piece is
        // made only after that.
        self.0.send(Ok(piece.into())).await.is_ok() && self.0.reserve().await.is_ok()
    }

    /// Cuts the connection, so that the client does not take a part of the answer for the whole.
    pub(crate) async fn fail(&self, error: io::Error) {
        let _ = self.0.send(Err(error)).await;
    }

    /// Resolves when the client has left.
    pub(crate) async fn closed(&self) {
        self.0.closed().await;
    }
}

struct Pieces {
    /// The future that makes the pieces; `None`: it has ended.
    make: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    pieces: mpsc::Receiver<io::Result<Bytes>>,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            if let Poll::Ready(piece) = self.pieces.poll_recv(context) {
                return Poll::Ready(piece.map(|piece| piece.map(Frame::data)));
            }
            // If `make` has ended, the channel is closed, and `poll_recv` was ready above.
            let Some(make) = &mut self.make else { return Poll::Pending };
            if make.as_mut().poll(context).is_ready() {
                self.make = None;
            } else if self.pieces.is_empty() {
                return Poll::Pending;
            }
        }
    }
}

/// An answer of type `kind`. `make` gets a sender and sends the pieces.
pub(crate) fn stream<F>(kind: &'static str, make: impl FnOnce(Sender) -> F) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, pieces) = mpsc::channel(1);
    let make = Some(Box::pin(make(Sender(sender))) as _);
    let mut response = Response::new(Body::new(Pieces { make, pieces }));
    response.extensions_mut().insert(Streaming);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
