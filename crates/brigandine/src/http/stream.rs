//! Answers that go on: followed build logs, events, downloads.
//!
//! A task makes the answer piece by piece and hands it over through a short channel, so a slow
//! client slows the task and never piles up memory; a client that left ends it at its next piece.

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

use super::{Refusal, Result, STREAMS};

/// Pieces that wait for a slow client.
const PIECES_MAX: usize = 4;

/// The task's end of a stream.
pub(crate) struct Sender(mpsc::Sender<io::Result<Bytes>>);

impl Sender {
    /// Hands over a piece; false when the client left.
    pub(crate) async fn send(&self, piece: impl Into<Bytes>) -> bool {
        self.0.send(Ok(piece.into())).await.is_ok()
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

struct Pieces(mpsc::Receiver<io::Result<Bytes>>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

/// An answer of type `kind` that `make` sends piece by piece.
///
/// # Errors
/// Too many streams are open; `make` was not called.
pub(crate) fn stream<F>(kind: &'static str, make: impl FnOnce(Sender) -> F) -> Result<Response>
where
    F: Future<Output = ()> + Send + 'static,
{
    let place = STREAMS.try_acquire().map_err(|_| Refusal::Busy)?;
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    let task = make(Sender(sender));
    tokio::spawn(async move {
        task.await;
        drop(place);
    });
    let mut response = Response::new(Body::new(Pieces(pieces)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}
