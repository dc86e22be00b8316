//! Tells open pages about changes, by server-sent events.
//!
//! A message of `/live` says only *that* something on the page has changed. The page then requests the parts of itself
//! that differ (`parts.rs`). So a page is made in only one way, and a missed event only delays the update.
//! There is at most one message per [`PAUSE`], however many builds end.

use std::pin::pin;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout, timeout_at};

use super::ansi::Lines;
use super::tail::{self, Tail};
use crate::context::Reading;
use crate::http::{HttpError, Path, Query, Result, Sender, closed, stream, text};
use crate::log::LogReader;
use crate::model::{BuildId, Event};
use crate::store::{Hidden, visible};

/// The least time between two messages about changes.
const PAUSE: Duration = Duration::from_millis(400);

/// The longest time for which changes outside of a page's scope are held back. They change the counters at the top of
/// the page.
const STALE: Duration = Duration::from_secs(5);

/// The longest time between two messages. Proxies keep a stream open because of these messages.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The least time between two messages about an unfinished line of a build log.
const PART_PAUSE: Duration = Duration::from_millis(200);

/// The most bytes of a build log in one message. The HTML of short lines is many times as long.
const PART: usize = 4 * 1024;

/// The most builds that one page may watch by their numbers.
const WATCHED_MAX: usize = 200;

const KIND: &str = "text/event-stream";

/// Which changes a page is told about.
enum Scope {
    All,
    Specification(i64),
    Builds(Vec<i64>),
}

/// The changes that the sender of a request may know of.
struct Seen {
    reading: Reading,
    hidden: Hidden,
}

impl Seen {
    /// Reads again what is hidden. While the database does not answer, what was hidden stays so.
    async fn look(&mut self) {
        if let Ok(hidden) = self.reading.hidden().await {
            self.hidden = hidden;
        }
    }

    /// Whether the sender may know of a change.
    async fn holds(&mut self, event: &Event) -> bool {
        if matches!(event, Event::Specification { .. }) {
            self.look().await;
        }
        match event {
            Event::Notice => true,
            Event::Build { id, specification, .. } if self.hidden.has(*specification) => {
                // A visible evaluation may have the build too.
                let id = *id;
                let found = self.reading.read_few(move |s| visible::build(s, id)).await;
                found.is_ok_and(|found| found.is_some())
            }
            Event::Build { .. } => true,
            Event::Specification { id: of }
            | Event::Looked { specification: of, .. }
            | Event::Evaluation { specification: of, .. } => !self.hidden.has(*of),
        }
    }
}

impl Scope {
    /// Whether the page is told about a change of which its reader may know. A specification that is hidden is as one
    /// that does not exist, even if a build changes that it shares.
    fn holds(&self, event: &Event, hidden: &Hidden) -> bool {
        match (self, event) {
            (Self::All, _) | (_, Event::Notice) => true,
            (Self::Specification(id), Event::Specification { id: of })
            | (
                Self::Specification(id),
                Event::Looked { specification: of, .. }
                | Event::Evaluation { specification: of, .. }
                | Event::Build { specification: of, .. },
            ) => of.get() == *id && !hidden.has(*of),
            (Self::Builds(ids), Event::Build { id, .. }) => ids.contains(&id.get()),
            (Self::Builds(_), _) => false,
        }
    }
}

/// Sends a message when something in the scope has changed.
pub(super) async fn changes(context: Reading, query: Query) -> Result<Response> {
    let specification: Option<i64> = query.parsed("specification")?;
    let builds = query.list("builds");
    let scope = match specification {
        Some(id) => Scope::Specification(id),
        None if builds.is_empty() => Scope::All,
        None => {
            let ids = builds.iter().take(WATCHED_MAX).map(|id| id.parse());
            let refuse = |_| HttpError::BadRequest("the value of 'builds' is not valid".to_owned());
            Scope::Builds(ids.collect::<std::result::Result<_, _>>().map_err(refuse)?)
        }
    };
    // Subscribed before the answer begins, so that no later change is missed.
    let mut events = context.events();
    let mut closing = context.closing();
    let mut seen = Seen { hidden: context.hidden().await?, reading: context };
    Ok(stream(KIND, move |sender| async move {
        let mut stale_since: Option<Instant> = None;
        // The page may be older than this stream, so the first message is sent immediately.
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
                        Ok(event) => {
                            // Noted first: the look at what is hidden may be cut by the next keep-alive.
                            let before = stale_since;
                            let since = *stale_since.get_or_insert_with(Instant::now);
                            if !seen.holds(&event).await {
                                stale_since = before;
                                continue;
                            }
                            // Checked here too, because the timeout never fires while events come without a pause.
                            if scope.holds(&event, &seen.hidden) || since.elapsed() >= STALE {
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
                    Err(_) => {
                        seen.look().await;
                        ": still here\n\n"
                    }
                },
                () = closed(&mut closing) => return,
                () = sender.closed() => return,
            };
        }
    }))
}

/// Sends the lines of a build log as they are written. The id of each message is the byte offset from which to
/// continue; a browser that lost the connection sends the id back.
///
/// | event | data |
/// |---|---|
/// | message | complete lines, which replace the unfinished line |
/// | `part` | the unfinished line as it is now |
/// | `end` | nothing: the log has ended |
///
/// `attempt` is the attempt that the page shows. If it is not the last attempt, the answer is 204, because its log has
/// ended.
pub(super) async fn log(
    context: Reading,
    Path(id): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response> {
    let number: BuildId = id.parse().map_err(|_| HttpError::no_build(&id))?;
    let build = context.read(move |s| visible::build(s, number)).await?;
    let build = build.ok_or_else(|| HttpError::no_build(&id))?;
    let attempt: Option<i64> = query.parsed("attempt")?;
    let resumed = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let offset: Option<u64> = resumed.or(query.parsed("offset")?);
    let from = offset.unwrap_or_else(|| tail::start(context.logs().bytes(&build)));
    let reader = match attempt {
        Some(attempt) if attempt != build.attempt => None,
        _ => context.logs().open(&build, from).await,
    };
    let Some(reader) = reader else {
        // 204 tells an `EventSource` not to reconnect.
        return Ok(text(StatusCode::NO_CONTENT, ""));
    };
    let mut closing = context.closing();
    Ok(stream(KIND, move |sender| async move {
        let mut follower = match Follower::begin(reader, from, offset.is_some(), &sender).await {
            Ok(follower) => follower,
            Err(error) => return unreadable(&sender, from, &error).await,
        };
        loop {
            // The same read continues across keep-alives, so no bytes that were read are lost.
            let piece = {
                let mut next = pin!(follower.reader.next());
                loop {
                    tokio::select! {
                        piece = &mut next => break piece,
                        () = tokio::time::sleep_until(follower.page.part_at), if follower.page.part_due => {
                            let part = follower.page.part();
                            if !part.is_empty() && !sender.send(part).await {
                                return;
                            }
                        }
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
                Ok(Some(piece)) => {
                    for part in piece.chunks(PART) {
                        let mut html = String::new();
                        follower.page.lines.push(part, &mut html);
                        if !send_lines(&sender, &html, follower.page.lines.resume()).await {
                            return;
                        }
                        follower.page.part_shown &= html.is_empty();
                    }
                    follower.page.note_part();
                }
                Ok(None) => {
                    let mut html = String::new();
                    follower.page.lines.finish(&mut html);
                    if send_lines(&sender, &html, follower.page.lines.resume()).await {
                        sender.send("event: end\ndata: \n\n").await;
                    }
                    return;
                }
                Err(error) => return unreadable(&sender, from, &error).await,
            }
        }
    }))
}

/// Sends the error, and then the event `end`: without `end`, a browser would reconnect for ever.
async fn unreadable(sender: &Sender, from: u64, error: &std::io::Error) {
    tracing::warn!(%error, "a build log cannot be read to its end");
    let why =
        error.to_string().replace('&', "&amp;").replace('<', "&lt;").replace(['\n', '\r'], " ");
    let html = format!("<p class=\"cut\">The log cannot be read any further: {why}.</p>");
    if send_lines(sender, &html, from).await {
        sender.send("event: end\ndata: \n\n").await;
    }
}

/// A build log that a page follows.
struct Follower {
    reader: LogReader,
    page: Shown,
}

/// The part of a log that the page has received.
struct Shown {
    lines: Lines,
    /// Whether the unfinished line must be sent, and when. It is not sent each time that a progress bar is drawn.
    part_due: bool,
    part_at: Instant,
    /// Whether the page shows an unfinished line.
    part_shown: bool,
}

impl Follower {
    /// Sends what the log has so far, from the page's offset on. If the page has no offset, sends only the end of the
    /// log.
    async fn begin(
        reader: LogReader,
        from: u64,
        resumed: bool,
        sender: &Sender,
    ) -> std::io::Result<Self> {
        let mut html = String::new();
        let (mut reader, mut lines, mut shown) = (reader, Lines::at(from), from);
        if !resumed {
            let tail = Tail::read(reader, from).await;
            if let Some(error) = tail.error {
                return Err(error);
            }
            (reader, lines, html, shown) = (tail.reader, tail.lines, tail.html, tail.from);
        }
        // The result is ignored: if the client has left, the next `send` returns `false`.
        sender.send(format!("retry: 1000\nevent: start\ndata: {shown}\n\n")).await;
        send_lines(sender, &html, lines.resume()).await;
        // A page that resumes may still show the unfinished line from before.
        let page =
            Shown { lines, part_due: !resumed, part_at: Instant::now(), part_shown: resumed };
        Ok(Self { reader, page })
    }
}

impl Shown {
    fn note_part(&mut self) {
        if !self.part_due {
            self.part_due = true;
            self.part_at = (self.part_at + PART_PAUSE).max(Instant::now());
        }
    }

    /// The message about the unfinished line; empty: there is no unfinished line, and the page shows none.
    fn part(&mut self) -> String {
        self.part_due = false;
        let html = self.lines.unfinished();
        let shown = std::mem::replace(&mut self.part_shown, !html.is_empty());
        if html.is_empty() && !shown {
            return String::new();
        }
        format!("id: {}\nevent: part\ndata: {html}\n\n", self.lines.resume())
    }
}

/// Sends lines. Their HTML has no line ends, so one `data:` line holds all of them.
async fn send_lines(sender: &Sender, html: &str, resume: u64) -> bool {
    html.is_empty() || sender.send(format!("id: {resume}\ndata: {html}\n\n")).await
}
