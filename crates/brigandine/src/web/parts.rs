//! What an open page asks for when it hears of a change: the parts of itself that differ from those that it shows.
//!
//! The parts of a page are its elements with `data-part`, which may be nested. A page that may change has the number of
//! its version in `data-version`. It asks for its own address with the header [`ASKED`], and with the version that it
//! shows in `If-None-Match`. The answer is 304, or has the title and the parts that differ, each as a whole element.
//!
//! - PART1: a version is a digest of the title and all parts, without the words that say how long ago something was.
//!   The script keeps these words up to date, so the version stays the same while nothing happens, on the disk neither.
//! - PART2: the digest of a part covers its own tags and text, and the names of the parts in it. If it differs, the part
//!   is sent with all that is in it; otherwise the parts in it are compared. A part that is in no other part is always on
//!   its page, perhaps empty: the script neither adds nor removes it.
//! - PART3: the server remembers at most [`DIGESTS_MAX`] digests of versions that it sent. A page whose version it does
//!   not remember, for example after a restart, gets all parts.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, VecDeque};
use std::hash::Hasher;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt;

use crate::http::{self, weak_tag};

/// The request header of a page that asks for its parts.
const ASKED: &str = "x-brigandine-parts";

/// What answers to requests for pages depend on.
const VARY: &[&str] = &["accept", ASKED];

/// The beginning of the attribute with the page's version. Pages that never change do not have it.
const VERSION: &str = " data-version=\"";

/// The most digests that are remembered: 4 MiB.
const DIGESTS_MAX: usize = 1 << 19;

/// What remembering a version costs besides its digests, counted as digests.
const VERSION_COST: usize = 16;

/// A part of a page.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    /// The element in the page, from its first tag to its last.
    range: Range<usize>,
    digest: u64,
}

/// A part whose end has not been reached.
struct Open {
    part: usize,
    element: String,
    /// How many elements of this name are open, this one included.
    depth: usize,
    digest: DefaultHasher,
}

/// The parts of a page, in the order in which they begin.
///
/// The text is our own, so it is well-formed, and text from elsewhere is escaped: each `<` begins a tag.
fn parts_of(page: &str) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    let (mut at, mut is_time) = (0, false);
    while let Some(begin) = page[at..].find('<').map(|found| at + found) {
        let Some(end) = page[begin..].find('>').map(|found| begin + found + 1) else { break };
        let (text, tag) = (&page[at..begin], &page[begin..end]);
        at = end;
        let name = element(tag);
        if let Some(inner) = open.last_mut()
            && !is_time
        {
            inner.digest.write(text.as_bytes());
        }
        is_time = is_time_tag(name, tag);
        if let Some(part) = attribute(tag, " data-part=\"") {
            if let Some(outer) = open.last_mut() {
                outer.digest.write(part.as_bytes());
                outer.digest.write_u8(0);
            }
            let mut digest = DefaultHasher::new();
            digest.write(tag.as_bytes());
            open.push(Open { part: parts.len(), element: name.to_owned(), depth: 1, digest });
            parts.push(Part { range: begin..end, digest: 0 });
            continue;
        }
        let Some(inner) = open.last_mut() else { continue };
        inner.digest.write(tag.as_bytes());
        if name.strip_prefix('/') == Some(&*inner.element) {
            inner.depth -= 1;
        } else if name == inner.element && !tag.ends_with("/>") {
            inner.depth += 1;
        }
        if inner.depth == 0
            && let Some(ended) = open.pop()
        {
            parts[ended.part].range.end = end;
            parts[ended.part].digest = ended.digest.finish();
        }
    }
    parts
}

/// The name in a tag, with the `/` of an end tag.
fn element(tag: &str) -> &str {
    let name = tag.trim_start_matches('<').trim_end_matches('>').trim_end_matches('/');
    let closes = usize::from(tag.starts_with("</"));
    let end = name[closes..].find([' ', '\n', '/']).map_or(name.len(), |end| end + closes);
    &name[..end]
}

/// The value of an attribute, which `begin` begins up to the quote.
fn attribute<'a>(text: &'a str, begin: &str) -> Option<&'a str> {
    let from = text.find(begin)? + begin.len();
    text[from..].split('"').next()
}

/// Whether the text after a tag says how long ago something was, or how long it has been going on (PART1).
fn is_time_tag(name: &str, tag: &str) -> bool {
    name == "time" || name == "span" && tag.contains(" data-since=\"")
}

/// The element with the title of a page.
fn title(page: &str) -> &str {
    let begin = page.find("<title>").unwrap_or(0);
    let end = page[begin..].find("</title>").map_or(begin, |end| begin + end + "</title>".len());
    &page[begin..end]
}

/// The versions that the server remembers (PART3).
#[derive(Debug, Clone, Default)]
pub(crate) struct Versions(Arc<Mutex<Remembered>>);

/// Guarded by the mutex of [`Versions`].
#[derive(Debug, Default)]
struct Remembered {
    /// The digests of each version's parts, sorted.
    versions: HashMap<u64, Arc<[u64]>>,
    /// The versions, the oldest first.
    order: VecDeque<u64>,
    /// The cost of all versions.
    digests: usize,
}

impl Versions {
    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        // A panic under the lock could only leave a wrong cost, so the poison is ignored.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The digests of a version; none: it is not remembered.
    fn get(&self, version: u64) -> Arc<[u64]> {
        self.remembered().versions.get(&version).cloned().unwrap_or_default()
    }

    /// Remembers a version. Forgets the oldest versions while there are too many.
    fn put(&self, version: u64, parts: &[Part]) {
        let mut remembered = self.remembered();
        let remembered = &mut *remembered;
        if remembered.versions.contains_key(&version) {
            return;
        }
        let mut digests: Vec<u64> = parts.iter().map(|part| part.digest).collect();
        digests.sort_unstable();
        remembered.digests += digests.len() + VERSION_COST;
        remembered.versions.insert(version, digests.into());
        remembered.order.push_back(version);
        while remembered.digests > DIGESTS_MAX
            && let Some(oldest) = remembered.order.pop_front()
        {
            if let Some(digests) = remembered.versions.remove(&oldest) {
                remembered.digests -= digests.len() + VERSION_COST;
            }
        }
    }
}

/// A layer of the router: writes the versions into pages, and answers requests for parts.
pub(crate) async fn parts(
    State(versions): State<Versions>,
    request: Request,
    next: Next,
) -> Response {
    let asked = request.headers().contains_key(ASKED).then(|| shown(request.headers()));
    let response = next.run(request).await;
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_page = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if response.status() != StatusCode::OK || !is_page {
        return response;
    }
    let (mut head, body) = response.into_parts();
    // Pages are in memory, so this does not fail.
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    http::vary(&mut head.headers, VARY);
    let Some((page, at)) = std::str::from_utf8(&body)
        .ok()
        .and_then(|page| Some((page, page.find(VERSION)? + VERSION.len())))
    else {
        return Response::from_parts(head, Body::from(body));
    };
    let parts = parts_of(page);
    let version = version(page, &parts);
    versions.put(version, &parts);
    let text = match asked {
        None => format!("{}{version:016x}{}", &page[..at], &page[at..]),
        Some(shown) => {
            head.headers.remove(header::CONTENT_SECURITY_POLICY);
            head.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            head.headers.insert(header::ETAG, weak_tag(version));
            differing(page, &parts, &versions.get(shown))
        }
    };
    Response::from_parts(head, Body::from(text))
}

/// The version that a page shows, as it says in `If-None-Match`; 0 if it says nothing that is understood.
fn shown(headers: &HeaderMap) -> u64 {
    let tag = headers.get(header::IF_NONE_MATCH).and_then(|tag| tag.to_str().ok());
    let number = tag.and_then(|tag| tag.trim_start_matches("W/").trim_matches('"').get(..16));
    number.and_then(|number| u64::from_str_radix(number, 16).ok()).unwrap_or(0)
}

/// The version of a page (PART1).
fn version(page: &str, parts: &[Part]) -> u64 {
    let mut version = DefaultHasher::new();
    version.write(title(page).as_bytes());
    parts.iter().for_each(|part| version.write_u64(part.digest));
    version.finish()
}

/// The title, and the parts whose digests are not in `known`, which is sorted (PART2).
fn differing(page: &str, parts: &[Part], known: &[u64]) -> String {
    let mut text = format!("<!doctype html>{}", title(page));
    let mut sent = 0;
    for part in parts {
        if part.range.start >= sent && known.binary_search(&part.digest).is_err() {
            text.push_str(&page[part.range.clone()]);
            sent = part.range.end;
        }
    }
    text
}

#[cfg(test)]
mod tests;
