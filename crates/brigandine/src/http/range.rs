//! Range and conditional requests for a representation of known length (RFC 9110, 13 and 14).

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::ops::Range;

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;

use super::error::{HttpError, Result};

/// Which part of a representation a request wants.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The whole representation.
    Whole,
    /// These bytes; at least one.
    Part(Range<u64>),
    /// No bytes, because the client has the current version already.
    Nothing,
}

/// Whether the client of a request has the version with the entity tag `tag`, as `If-None-Match` says. Whether tags are
/// weak does not matter.
pub(super) fn has(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let Ok(tag) = tag.to_str() else { return false };
    let tag = tag.trim_start_matches("W/");
    let known = headers.get_all(header::IF_NONE_MATCH).iter();
    let known = known.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    known.map(str::trim).any(|known| known == "*" || known.trim_start_matches("W/") == tag)
}

/// Which part a request wants of a representation with `bytes` bytes and the entity tag `tag`. The tag must differ
/// whenever the bytes do.
///
/// A request for several ranges gets the whole representation, which the RFC allows. So does a request whose header is
/// not a valid range of bytes.
///
/// # Errors
/// 416: all ranges begin past the end.
pub(crate) fn wanted(headers: &HeaderMap, bytes: u64, tag: &HeaderValue) -> Result<Wanted> {
    if has(headers, tag) {
        return Ok(Wanted::Nothing);
    }
    // The client has another version, so a part of the current one is useless to it. A weak tag or a date never
    // matches.
    if headers.get(header::IF_RANGE).is_some_and(|known| known != tag) {
        return Ok(Wanted::Whole);
    }
    let mut lines = headers.get_all(header::RANGE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return Ok(Wanted::Whole) };
    let Some(ranges) = line.to_str().ok().and_then(parse) else { return Ok(Wanted::Whole) };
    let within: Vec<_> = ranges.iter().filter_map(|range| range.within(bytes)).collect();
    match (ranges.as_slice(), within.as_slice()) {
        ([_], [part]) if !part.is_empty() => Ok(Wanted::Part(part.clone())),
        (_, []) => Err(HttpError::OutOfRange(bytes)),
        _ => Ok(Wanted::Whole),
    }
}

/// Sets the headers that tell which part of `bytes` bytes an answer has, and the tag of the whole.
pub(crate) fn describe(response: &mut Response, wanted: &Wanted, bytes: u64, tag: HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(header::ETAG, tag);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // Caches may store the answer, and must ask with its tag whether it has changed.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let length = match wanted {
        Wanted::Whole => bytes,
        Wanted::Part(part) => {
            let range = format!("bytes {}-{}/{bytes}", part.start, part.end - 1);
            if let Ok(range) = HeaderValue::from_str(&range) {
                headers.insert(header::CONTENT_RANGE, range);
            }
            *response.status_mut() = axum::http::StatusCode::PARTIAL_CONTENT;
            part.end - part.start
        }
        Wanted::Nothing => {
            *response.status_mut() = axum::http::StatusCode::NOT_MODIFIED;
            return;
        }
    };
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
}

/// The weak tag of a body (NEGO3).
pub(super) fn digest(body: &[u8]) -> HeaderValue {
    let mut digest = DefaultHasher::new();
    digest.write(body);
    weak_tag(digest.finish())
}

/// A weak tag with this number.
pub(crate) fn weak_tag(number: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("W/\"{number:016x}\""))
        .unwrap_or_else(|_| HeaderValue::from_static("W/\"\""))
}

/// The strong entity tag of a representation with this digest.
pub(crate) fn tag(digest: &str) -> HeaderValue {
    // Digests are hexadecimal, so the conversion does not fail.
    HeaderValue::from_str(&format!("\"{digest}\""))
        .unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// One range, as the header states it.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// `first-last`, or `first-` (`None`).
    From(u64, Option<u64>),
    /// `-length`: this many bytes from the end.
    Last(u64),
}

impl Asked {
    /// The range as positions in `bytes` bytes; `None`: it begins past the end.
    fn within(&self, bytes: u64) -> Option<Range<u64>> {
        match *self {
            Self::From(first, _) if first >= bytes => None,
            Self::From(first, last) => {
                Some(first..last.map_or(bytes, |last| bytes.min(last.saturating_add(1))))
            }
            Self::Last(0) => None,
            Self::Last(length) => Some(bytes.saturating_sub(length)..bytes),
        }
    }
}

/// The ranges of a header; `None`: the header is not a valid range of bytes.
fn parse(line: &str) -> Option<Vec<Asked>> {
    let (unit, ranges) = line.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let ranges = ranges.split(',').map(str::trim).filter(|range| !range.is_empty());
    let ranges: Vec<_> = ranges.map(parse_one).collect::<Option<_>>()?;
    (!ranges.is_empty()).then_some(ranges)
}

fn parse_one(range: &str) -> Option<Asked> {
    let (first, last) = range.split_once('-')?;
    match (first, last) {
        ("", length) => Some(Asked::Last(number(length)?)),
        (first, "") => Some(Asked::From(number(first)?, None)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Asked::From(first, Some(last)))
        }
    }
}

/// Parses a number of any length. A number that does not fit becomes `u64::MAX`, which is past every end.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(lines: &[(&'static str, &str)], bytes: u64) -> std::result::Result<Wanted, u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        wanted(&headers, bytes, &tag("abc")).map_err(|refusal| refusal.parts().0.as_u16())
    }

    fn range(value: &str, bytes: u64) -> std::result::Result<Wanted, u16> {
        ask(&[("range", value)], bytes)
    }

    #[test]
    fn a_range_is_the_bytes_that_there_are_of_it() {
        for (value, part) in [
            ("bytes=0-9", 0..10),
            ("bytes=0-0", 0..1),
            ("bytes=5-", 5..100),
            ("bytes=-5", 95..100),
            ("bytes=-1000", 0..100),
            ("bytes=90-1000", 90..100),
            ("bytes=99-", 99..100),
            ("Bytes = 1-2", 1..3),
            ("bytes=0-99999999999999999999999", 0..100),
            ("bytes=, 3-4 ,", 3..5),
        ] {
            assert_eq!(range(value, 100), Ok(Wanted::Part(part)), "{value}");
        }
    }

    #[test]
    fn what_begins_past_the_end_is_refused() {
        for value in [
            "bytes=100-",
            "bytes=100-200",
            "bytes=-0",
            "bytes=99999999999999999999-",
            "bytes=100-,200-",
        ] {
            assert_eq!(range(value, 100), Err(416), "{value}");
        }
        assert_eq!(range("bytes=0-", 0), Err(416));
        assert_eq!(range("bytes=-5", 0), Ok(Wanted::Whole), "nothing is the whole of nothing");
    }

    #[test]
    fn what_is_no_range_and_several_ranges_are_the_whole() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-4",
            "bytes=1-2-3",
            "bytes=+1-2",
            "bytes=0x1-",
            "lines=1-2",
            "bytes 0-9",
            "bytes=0-1,x",
            "bytes=0-1,3-4",
            "bytes=0-1,200-",
            "bytes=--5",
            "bytes=1 - 2",
        ] {
            assert_eq!(range(value, 100), Ok(Wanted::Whole), "{value}");
        }
        let twice = [("range", "bytes=0-1"), ("range", "bytes=2-3")];
        assert_eq!(ask(&twice, 100), Ok(Wanted::Whole));
    }

    #[test]
    fn a_part_is_given_of_what_the_client_has_alone() {
        for (tag, wanted) in [
            ("\"abc\"", Wanted::Part(0..10)),
            ("\"other\"", Wanted::Whole),
            ("W/\"abc\"", Wanted::Whole),
            ("Mon, 30 Nov 2026 00:00:00 GMT", Wanted::Whole),
        ] {
            let lines = [("range", "bytes=0-9"), ("if-range", tag)];
            assert_eq!(ask(&lines, 100), Ok(wanted), "{tag}");
        }
        let stale = [("range", "bytes=100-"), ("if-range", "\"other\"")];
        assert_eq!(ask(&stale, 100), Ok(Wanted::Whole));
    }

    #[test]
    fn nothing_is_sent_of_what_the_client_has() {
        for known in ["\"abc\"", "W/\"abc\"", "*", "\"x\", \"abc\""] {
            let lines = [("if-none-match", known), ("range", "bytes=0-9")];
            assert_eq!(ask(&lines, 100), Ok(Wanted::Nothing), "{known}");
        }
        assert_eq!(ask(&[("if-none-match", "\"x\"")], 100), Ok(Wanted::Whole));
    }
}
