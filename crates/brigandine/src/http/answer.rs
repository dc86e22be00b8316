//! Answers with a body that is known as a whole.

use std::path::Path;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;

use super::disposition::attachment;
use super::{Refusal, Result, Wanted};
use crate::model::Product;
use crate::os::file::open_regular;

/// What pages may load: their own style and script, and nothing from anywhere else.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
    img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// An answer; its length is known, so it is always said.
fn answer(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// `value` as JSON without blanks around `:`, since some clients read it with sed.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => answer(status, "application/json", body),
        // Only a map with keys that are no text could do it, and there is none.
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            answer(StatusCode::INTERNAL_SERVER_ERROR, "application/json", r#"{"error":"internal"}"#)
        }
    }
}

/// Plain text.
pub(crate) fn text(status: StatusCode, body: impl Into<Body>) -> Response {
    answer(status, "text/plain; charset=utf-8", body)
}

/// A page.
pub(crate) fn html(status: StatusCode, page: String) -> Response {
    let mut response = answer(status, "text/html; charset=utf-8", page);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // One address serves pages and JSON (`/build/7`): caches must tell them apart.
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

/// A file of the state directory as a download. Nothing a build made is ever shown as a page.
///
/// # Errors
/// 404 with what became of it when the file is gone, cannot be read or is not what was stored, 416 when no byte of
/// it is in the range.
pub(crate) async fn file(path: &Path, product: &Product, headers: &HeaderMap) -> Result<Response> {
    use tokio::io::{AsyncReadExt, AsyncSeekExt};
    let bytes = u64::try_from(product.bytes).unwrap_or(0);
    let wanted_path = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || {
        let file = open_regular(&wanted_path)?;
        Ok((file.metadata()?.len(), file))
    });
    let opened = opened.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    let (found, opened) = opened.map_err(|error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Refusal::not_found("the file is not kept any more"),
        _ => Refusal::unreadable("the product", &error),
    })?;
    if found != bytes {
        let error = format!("it is damaged: it has {found} bytes, and {bytes} were stored");
        return Err(Refusal::unreadable("the product", &std::io::Error::other(error)));
    }
    let mut opened = tokio::fs::File::from_std(opened);
    let tag = super::tag(&product.checksum);
    let wanted = super::wanted(headers, bytes, &tag)?;
    let part = match &wanted {
        Wanted::Whole => 0..bytes,
        Wanted::Part(part) => part.clone(),
        Wanted::Nothing => 0..0,
    };
    let moved = opened.seek(std::io::SeekFrom::Start(part.start)).await;
    moved.map_err(|error| Refusal::unreadable("the product", &error))?;
    let mut source = opened.take(part.end - part.start);
    let mut response = super::stream("application/octet-stream", move |sender| async move {
        loop {
            let mut piece = Vec::with_capacity(64 * 1024);
            match source.read_buf(&mut piece).await {
                Ok(0) => return,
                Ok(_) => {
                    if !sender.send(piece).await {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a product cannot be read to its end");
                    return sender.fail(error).await;
                }
            }
        }
    });
    response.headers_mut().insert(header::CONTENT_DISPOSITION, attachment(&product.name));
    super::describe(&mut response, &wanted, bytes, tag);
    Ok(response)
}
