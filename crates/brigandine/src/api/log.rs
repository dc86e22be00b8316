//! `/build/ID/log/raw`: the build log as it is, while it is written and after.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;

use super::builds::find;
use crate::http::{Path, Query, Refusal, Result, Site, closed, stream, text};
use crate::log::LogReader;

/// The build log from byte `offset` on; goes on until the build ends.
pub(super) async fn raw(
    State(site): State<Site>,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response> {
    let offset: u64 = query.parsed("offset")?.unwrap_or(0);
    let wanted = id.clone();
    let build = site.read(move |s| find(s, &wanted)).await?;
    let build = build.ok_or_else(|| Refusal::no_build(&id))?;
    let Some(reader) = site.log(&build, offset).await? else {
        if build.status.is_finished() {
            return Ok(text(StatusCode::OK, ""));
        }
        return Err(Refusal::not_found(format!("The log of build {} has not begun.", build.id)));
    };
    let mut response = follow(&site, reader)?;
    if build.status.is_finished() && offset == 0 && build.log.bytes > 0 {
        // Known length: clients see whether they got all of it.
        let length = HeaderValue::from(build.log.bytes);
        response.headers_mut().insert(header::CONTENT_LENGTH, length);
    }
    Ok(response)
}

/// A log as text; goes on until it ends.
///
/// # Errors
/// Too many streams are open.
pub(crate) fn follow(site: &Site, mut reader: LogReader) -> Result<Response> {
    let mut closing = site.closing();
    stream("text/plain; charset=utf-8", move |sender| async move {
        loop {
            let piece = tokio::select! {
                piece = reader.next() => piece,
                () = sender.closed() => return,
                () = closed(&mut closing) => {
                    return sender.fail(std::io::Error::other("the server ends")).await;
                }
            };
            match piece {
                Ok(Some(piece)) => {
                    if !sender.send(piece).await {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "a log cannot be read to its end");
                    return sender.fail(error).await;
                }
            }
        }
    })
}
