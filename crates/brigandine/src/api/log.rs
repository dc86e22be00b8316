//! `/build/ID/log/raw`: the build log as it is, while it is written and after.

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;

use super::builds::find;
use crate::http::{Path, Query, Refusal, Result, Site, closed, stream};
use crate::log::LogReader;

/// The build log from byte `offset` on, or that of an earlier attempt; goes on until the build ends.
///
/// # Errors
/// 404 with what became of the log, where there is none.
pub(super) async fn raw(
    State(site): State<Site>,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response> {
    let offset: u64 = query.parsed("offset")?.unwrap_or(0);
    let attempt: Option<i64> = query.parsed("attempt")?;
    let wanted = id.clone();
    let build = site.read(move |s| find(s, &wanted)).await?;
    let build = build.ok_or_else(|| Refusal::no_build(&id))?;
    let number = attempt.unwrap_or(build.attempt);
    let reader = match attempt {
        None => site.logs().open(&build, offset).await,
        Some(attempt) => site.logs().open_attempt(&build, attempt, offset).await,
    };
    let Some(mut reader) = reader else {
        return Err(Refusal::not_found(match attempt {
            Some(attempt) => format!("Build {} has no attempt {attempt}.", build.id),
            None if !build.status.is_finished() => {
                format!("The log of build {} has not begun.", build.id)
            }
            None if build.imported => {
                format!("Build {} was imported; its log stayed on the other server.", build.id)
            }
            None => format!("Build {} was never started, so it has no log.", build.id),
        }));
    };
    let last = number == build.attempt;
    let ended = build.status.is_finished() || !last;
    if !ended {
        return follow(&site, Vec::new(), reader);
    }
    // Read before the answer begins, so that it can say what is wrong with the file.
    if last {
        site.check_log(&build).await?;
    }
    let first = reader.next().await.map_err(|error| {
        tracing::warn!(%error, build = %build.id, attempt = number, "a build log cannot be read");
        Refusal::not_found(format!("The log of build {} cannot be read: {error}", build.id))
    })?;
    if reader.is_missing() && (!last || !build.log.path.is_empty()) {
        let what = format!("The log of attempt {number} of build {} is not kept.", build.id);
        return Err(Refusal::not_found(what));
    }
    let mut response = follow(&site, first.unwrap_or_default(), reader)?;
    if last && offset == 0 && build.log.bytes > 0 {
        // Known length: clients see whether they got all of it.
        let length = HeaderValue::from(build.log.bytes);
        response.headers_mut().insert(header::CONTENT_LENGTH, length);
    }
    Ok(response)
}

/// A log as text, `first` and what the reader gives after it; goes on until it ends.
///
/// # Errors
/// Too many streams are open.
pub(crate) fn follow(site: &Site, first: Vec<u8>, mut reader: LogReader) -> Result<Response> {
    let mut closing = site.closing();
    stream("text/plain; charset=utf-8", move |sender| async move {
        if !first.is_empty() && !sender.send(first).await {
            return;
        }
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
