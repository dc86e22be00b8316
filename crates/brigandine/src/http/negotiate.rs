//! What a client accepts and what it has: compressed answers, entity tags, and 304 instead of a body that the client has
//! already.
//!
//! This is about answers whose whole body is in memory. Streams pass as they are: events must not wait in a compressor,
//! and products and logs have ranges and tags of their own (`range.rs`).
//!
//! - NEGO1: every answer has `Content-Length`, since its body is compressed as a whole before the head is sent.
//! - NEGO2: compression of more than [`INLINE_BYTES_MAX`] runs on a thread for blocking work, and only so many at once.
//!   An answer that would have to wait for such a thread is sent uncompressed, so no bodies pile up before they are
//!   counted (`clients.rs`).
//! - NEGO3: tags are weak. All codings of a body share one, which is a digest of the body before compression.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::sync::Semaphore;

use super::accept::vary;
use super::coding::Coding;
use super::error::HttpError;
use super::range::{digest, has};
use super::stream::Streaming;

/// Bodies with fewer bytes are not compressed: they fit into one packet with the head.
const BYTES_MIN: usize = 512;

/// The most bytes that are compressed on a thread of the runtime, which takes less than a millisecond.
const INLINE_BYTES_MAX: usize = 32 * 1024;

/// The types of answers that are worth compressing.
const KINDS: [&str; 3] = ["text/", "application/json", "image/svg+xml"];

/// Limits how many large answers are compressed at once.
#[derive(Debug, Clone)]
pub(crate) struct Compressors(Arc<Semaphore>);

impl Compressors {
    /// Two for each processor.
    pub(crate) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self(Arc::new(Semaphore::new(2 * processors)))
    }

    /// `body` compressed; `None`: it is to be sent as it is.
    async fn compress(&self, coding: Coding, body: &Bytes) -> Option<Bytes> {
        let compressed = if body.len() <= INLINE_BYTES_MAX {
            coding.compress(body).ok()?
        } else {
            let permit = Arc::clone(&self.0).try_acquire_owned().ok()?;
            let body = body.clone();
            let work = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                coding.compress(&body)
            });
            work.await.ok()?.ok()?
        };
        (compressed.len() < body.len()).then(|| compressed.into())
    }
}

/// A layer of the router: sends no body that the client has, and compresses what the client accepts compressed.
pub(crate) async fn negotiate(
    State(compressors): State<Compressors>,
    request: Request,
    next: Next,
) -> Response {
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    let asked = request.headers().clone();
    let response = next.run(request).await;
    if !reads || response.extensions().get::<Streaming>().is_some() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        // Only streams can fail.
        Err(error) => {
            tracing::error!(%error, "an answer in memory cannot be read");
            return HttpError::Internal.into_response();
        }
    };
    let coded = parts.headers.contains_key(header::CONTENT_ENCODING);
    let compressible = !coded && body.len() >= BYTES_MIN && is_compressible(&parts.headers);
    if coded || compressible {
        vary(&mut parts.headers, &["accept-encoding"]);
    }
    // Errors too: a cache may otherwise keep a 404 until after the build exists (RFC 9110, 15.1).
    parts.headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache"));
    if parts.status == StatusCode::OK && may_be_had(&parts.headers) {
        let tag = parts.headers.entry(header::ETAG).or_insert_with(|| digest(&body)).clone();
        if has(&asked, &tag) {
            let mut response = not_modified(&parts.headers);
            *response.extensions_mut() = parts.extensions;
            return response;
        }
    }
    let coding = Coding::preferred(&asked).filter(|_| compressible);
    let compressed = match coding {
        Some(coding) => compressors.compress(coding, &body).await.map(|body| (coding, body)),
        None => None,
    };
    let Some((coding, body)) = compressed else {
        return Response::from_parts(parts, Body::from(body));
    };
    parts.headers.insert(header::CONTENT_ENCODING, coding.header());
    Response::from_parts(parts, Body::from(body))
}

/// Whether a client may have an answer. It has none that it must not store, such as that of a probe, but for the parts of
/// a page, whose tag is the version that the page shows.
fn may_be_had(headers: &HeaderMap) -> bool {
    let control = headers.get(header::CACHE_CONTROL);
    headers.contains_key(header::ETAG) || control.is_none_or(|control| control != "no-store")
}

fn is_compressible(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| KINDS.iter().any(|compressed| kind.starts_with(compressed)))
}

/// The answer to a client that has what an answer with `headers` would bring.
fn not_modified(headers: &HeaderMap) -> Response {
    let mut response = StatusCode::NOT_MODIFIED.into_response();
    for name in [header::ETAG, header::CACHE_CONTROL, header::VARY] {
        if let Some(value) = headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_would_wait_for_a_thread_is_not_compressed() {
        let none_left = Compressors(Arc::new(Semaphore::new(0)));
        let (short, long) = (vec![b'a'; INLINE_BYTES_MAX], vec![b'a'; INLINE_BYTES_MAX + 1]);
        for coding in [Coding::Zstd, Coding::Gzip] {
            let of = async |room: &Compressors, body: &Vec<u8>| {
                room.compress(coding, &Bytes::from(body.clone())).await.is_some()
            };
            assert!(of(&none_left, &short).await);
            assert!(!of(&none_left, &long).await);
            // Twice, because the first one must give its place back.
            let one_left = Compressors(Arc::new(Semaphore::new(1)));
            assert!(of(&one_left, &long).await && of(&one_left, &long).await);
        }
    }
}
