//! Answers that go on: followed build logs, events, downloads.
//!
//! The task of the connection makes the answer piece by piece: it asks for the next one when the last one is on
//! its way. So a slow client slows the making and never piles up memory, and a client that left ends it.

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

/// Marks an answer that goes on, of which there are fewer at once than of others.
#[derive(Debug, Clone, Copy)]
pub(super) struct GoesOn;

/// The maker's end of a stream.
pub(crate) struct Sender(mpsc::Sender<io::Result<Bytes>>);

impl Sender {
    /// Hands over a piece, and waits until it is on its way; false when the client left.
    pub(crate) async fn send(&self, piece: impl Into<Bytes>) -> bool {
        // There is room again when it was taken: no piece is made before.
        self.0.send(Ok(piece.into())).await.is_ok() && self.0.reserve().await.is_ok()
    }

    /// Breaks the connection off, so that the client does not take a part for the whole.
    pub(crate) async fn fail(&self, error: io::Error) {
        let _ = self.0.send(Err(error)).await;
    }

    /// Resolves when the client left.
    pub(crate) async fn closed(&self) {
        self.0.closed().await;
    }
}

struct Pieces {
    /// Makes the pieces; gone when it has ended.
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
            // Without a maker the channel is closed, and the line above has returned.
            let Some(make) = &mut self.make else { return Poll::Pending };
            if make.as_mut().poll(context).is_ready() {
                self.make = None;
            } else if self.pieces.is_empty() {
                return Poll::Pending;
            }
        }
    }
}

/// An answer of type `kind` that `make` sends piece by piece.
pub(crate) fn stream<F>(kind: &'static str, make: impl FnOnce(Sender) -> F) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, pieces) = mpsc::channel(1);
    let make = Some(Box::pin(make(Sender(sender))) as _);
    let mut response = Response::new(Body::new(Pieces { make, pieces }));
    response.extensions_mut().insert(GoesOn);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
