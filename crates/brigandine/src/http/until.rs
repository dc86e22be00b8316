//! Streams that end early, because something else has happened.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::Frame;

use super::stream::Streaming;

/// Ends an answer that continues when `ended` resolves. The connection is cut, so that the client does not take a part
/// for the whole. Other answers stay as they are.
pub(crate) fn until(
    response: Response,
    ended: impl Future<Output = ()> + Send + 'static,
) -> Response {
    if response.extensions().get::<Streaming>().is_none() {
        return response;
    }
    response.map(|inner| Body::new(Until { inner, ended: Box::pin(ended), cut: false }))
}

struct Until {
    inner: Body,
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Whether `ended` has resolved.
    cut: bool,
}

impl http_body::Body for Until {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.cut {
            return Poll::Ready(None);
        }
        if self.ended.as_mut().poll(context).is_ready() {
            self.cut = true;
            return Poll::Ready(Some(Err(io::Error::other(
                "the stream's reader may read no longer",
            ))));
        }
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        frame.map(|frame| frame.map(|frame| frame.map_err(io::Error::other)))
    }

    fn is_end_stream(&self) -> bool {
        self.cut || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{stream, text};
    use axum::http::StatusCode;
    use http_body_util::BodyExt;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn a_stream_is_cut_and_another_answer_is_not() {
        let (end, ended) = oneshot::channel::<()>();
        let endless = stream("text/plain", |sender| async move {
            while sender.send("piece").await {
                sender.closed().await;
            }
        });
        let mut cut = until(endless, async move { drop(ended.await) }).into_body();
        let first = cut.frame().await.expect("a piece").expect("no error");
        assert_eq!(first.into_data().expect("data"), "piece");
        end.send(()).expect("awaited");
        assert!(cut.frame().await.expect("an end").is_err());
        assert!(cut.frame().await.is_none());

        let whole = until(text(StatusCode::OK, "whole"), async {}).into_body();
        assert_eq!(whole.collect().await.expect("read").to_bytes(), "whole");
    }
}
