//! What changes on a page while it is open: server-sent events.
//!
//! `/live` says only *that* something a page shows has changed; the page then asks for itself again
//! and takes over the parts that differ. So there is one way to make a page, and a missed event
//! costs nothing but time. Changes are told at most every [`PAUSE`], however many builds end.

use std::pin::pin;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout, timeout_at};

use super::ansi::Lines;
use crate::http::{Path, Query, Refusal, Result, Sender, Site, closed, stream, text};
use crate::model::{Build, BuildId, Event};
use crate::store;

/// Between two messages about changes.
const PAUSE: Duration = Duration::from_millis(400);

/// What happens elsewhere changes the counters in a page's head: told after this time.
const STALE: Duration = Duration::from_secs(5);

/// A stream says something at least this often, so that proxies keep it open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Bytes from the end of a build log that a page shows.
pub(super) const TAIL: u64 = 256 * 1024;

/// Builds that one page may watch by number.
const WATCHED_MAX: usize = 200;

const KIND: &str = "text/event-stream";

/// Which changes a page wants to hear of.
enum Scope {
    All,
    Specification(i64),
    Builds(Vec<i64>),
}

impl Scope {
    fn holds(&self, event: &Event) -> bool {
        match (self, event) {
            (Self::All, _) => true,
            (Self::Specification(id), Event::Specification { id: of })
            | (
                Self::Specification(id),
                Event::Looked { specification: of, .. }
                | Event::Evaluation { specification: of, .. }
                | Event::Build { specification: of, .. },
            ) => of.get() == *id,
            (Self::Builds(ids), Event::Build { id, .. }) => ids.contains(&id.get()),
            (Self::Builds(_), _) => false,
        }
    }
}

/// Tells when something in the wanted scope has changed.
pub(super) async fn changes(State(site): State<Site>, query: Query) -> Result<Response> {
    let specification: Option<i64> = query.parsed("specification")?;
    let builds = query.list("builds");
    let scope = match specification {
        Some(id) => Scope::Specification(id),
        None if builds.is_empty() => Scope::All,
        None => {
            let ids = builds.iter().take(WATCHED_MAX).map(|id| id.parse());
            let refuse = |_| Refusal::BadRequest("the value of 'builds' is not valid".to_owned());
            Scope::Builds(ids.collect::<std::result::Result<_, _>>().map_err(refuse)?)
        }
    };
    // Subscribed before the answer begins: what changes after the page was made is not missed.
    let mut events = site.events();
    let mut closing = site.closing();
    stream(KIND, move |sender| async move {
        let mut stale_since: Option<Instant> = None;
        // The page may be older than this stream, so the first message comes at once.
        let mut message = "retry: 2000\nevent: change\ndata: \n\n";
        loop {
            if !sender.send(message).await {
                return;
            }
            let news = async {
                if message.starts_with("event") {
                    tokio::time::sleep(PAUSE).await;
                }
                loop {
                    let event = match stale_since {
                        None => events.recv().await,
                        Some(since) => match timeout_at(since + STALE, events.recv()).await {
                            Ok(event) => event,
                            Err(_) => return true,
                        },
                    };
                    match event {
                        Ok(event) if scope.holds(&event) => return true,
                        // The time is also looked at here: events may come without a pause.
                        Ok(_) => {
                            if stale_since.get_or_insert_with(Instant::now).elapsed() >= STALE {
                                return true;
                            }
                        }
                        Err(RecvError::Lagged(_)) => return true,
                        Err(RecvError::Closed) => return false,
                    }
                }
            };
            message = tokio::select! {
                news = timeout(KEEP_ALIVE, news) => match news {
                    Ok(true) => {
                        stale_since = None;
                        "event: change\ndata: \n\n"
                    }
                    Ok(false) => return,
                    Err(_) => ": still here\n\n",
                },
                () = closed(&mut closing) => return,
                () = sender.closed() => return,
            };
        }
    })
}

/// The lines of a build log as they come. The id of each message is the byte offset after it: a
/// browser that was cut off sends it back and goes on from there.
pub(super) async fn log(
    State(site): State<Site>,
    Path(id): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response> {
    let number: BuildId = id.parse().map_err(|_| Refusal::no_build(&id))?;
    let build = site.read(move |s| store::build(s, number)).await?;
    let build = build.ok_or_else(|| Refusal::no_build(&id))?;
    let resumed = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let offset = resumed.or(query.parsed("offset")?);
    let from = match offset {
        Some(offset) => offset,
        None => tail_start(&site, &build),
    };
    let Some(mut reader) = site.log(&build, from).await? else {
        // 204 tells an EventSource not to come back.
        return Ok(text(StatusCode::NO_CONTENT, ""));
    };
    let mut closing = site.closing();
    stream(KIND, move |sender| async move {
        let mut lines = Lines::at(from);
        let mut skipping = offset.is_none() && from > 0;
        if !sender.send(format!("retry: 1000\nevent: start\ndata: {from}\n\n")).await {
            return;
        }
        // One read outlives the keep-alives, so nothing that was read is lost.
        'pieces: loop {
            let piece = {
                let mut next = pin!(reader.next());
                loop {
                    tokio::select! {
                        piece = &mut next => break piece,
                        () = tokio::time::sleep(KEEP_ALIVE) => {
                            if !sender.send(": still here\n\n").await {
                                return;
                            }
                        }
                        () = sender.closed() => return,
                        () = closed(&mut closing) => return,
                    }
                }
            };
            match piece {
                Ok(Some(mut piece)) => {
                    if skipping {
                        let Some(end) = piece.iter().position(|&byte| byte == b'\n') else {
                            lines = Lines::at(lines.shown() + piece.len() as u64);
                            continue 'pieces;
                        };
                        lines = Lines::at(lines.shown() + end as u64 + 1);
                        piece.drain(..=end);
                        skipping = false;
                    }
                    let mut html = String::new();
                    lines.push(&piece, &mut html);
                    if !send_lines(&sender, &html, lines.shown()).await {
                        return;
                    }
                }
                Ok(None) => {
                    let mut html = String::new();
                    lines.finish(&mut html);
                    if send_lines(&sender, &html, lines.shown()).await {
                        sender.send("event: end\ndata: \n\n").await;
                    }
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "a build log cannot be read to its end");
                    return;
                }
            }
        }
    })
}

/// The lines hold no line ends of their own, so one `data:` line takes them all.
async fn send_lines(sender: &Sender, html: &str, shown: u64) -> bool {
    html.is_empty() || sender.send(format!("id: {shown}\ndata: {html}\n\n")).await
}

/// Where the last part of a log begins that a page shows.
pub(super) fn tail_start(site: &Site, build: &Build) -> u64 {
    site.log_bytes(build).saturating_sub(TAIL)
}
