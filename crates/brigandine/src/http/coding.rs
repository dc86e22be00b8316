//! Content codings: which of them a client accepts, and bodies that are compressed once.
//!
//! gzip is what every client knows, and zstd takes a fraction of its processor time.

use std::io::{self, Write as _};

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::answer::answer;
use super::range::digest;

/// A way to compress the body of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Zstd,
    Gzip,
}

/// How much processor time compression may take.
#[derive(Debug, Clone, Copy)]
enum Effort {
    /// For an answer that is compressed each time.
    Usual,
    /// For a body that is compressed once.
    Most,
}

impl Coding {
    /// The name in `Accept-Encoding` and `Content-Encoding`.
    const fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// The value of `Content-Encoding`.
    pub(super) const fn header(self) -> HeaderValue {
        HeaderValue::from_static(self.name())
    }

    /// The coding that a request with these headers prefers (RFC 9110, 12.5.3); `None`: no coding.
    ///
    /// Between codings that the client likes equally, zstd is chosen. A client that accepts everything (`*`) gets gzip.
    pub(super) fn preferred(headers: &HeaderMap) -> Option<Self> {
        let lines = headers.get_all(header::ACCEPT_ENCODING).iter();
        let lines = lines.filter_map(|line| line.to_str().ok());
        let items: Vec<(&str, f32)> = lines.flat_map(|line| line.split(',')).map(item).collect();
        let of = |name: &str| {
            let named = items.iter().find(|(named, _)| named.eq_ignore_ascii_case(name));
            named.map(|(_, weight)| *weight)
        };
        let any = of("*");
        let zstd = of("zstd").unwrap_or(0.0);
        let gzip = of("gzip").or(of("x-gzip")).or(any).unwrap_or(0.0);
        // A client that does not mention it accepts it, and prefers what it mentions.
        let identity = of("identity").unwrap_or(0.0);
        let (best, weight) =
            if zstd > 0.0 && zstd >= gzip { (Self::Zstd, zstd) } else { (Self::Gzip, gzip) };
        (weight > 0.0 && weight >= identity).then_some(best)
    }

    /// Compresses an answer.
    ///
    /// # Errors
    /// The library has no memory.
    pub(super) fn compress(self, body: &[u8]) -> io::Result<Vec<u8>> {
        self.with_effort(body, Effort::Usual)
    }

    fn with_effort(self, body: &[u8], effort: Effort) -> io::Result<Vec<u8>> {
        match self {
            Self::Zstd => {
                let level = match effort {
                    Effort::Usual => 3,
                    Effort::Most => 19,
                };
                zstd::bulk::compress(body, level)
            }
            Self::Gzip => {
                let level = match effort {
                    Effort::Usual => Compression::new(6),
                    Effort::Most => Compression::best(),
                };
                let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), level);
                encoder.write_all(body)?;
                encoder.finish()
            }
        }
    }
}

/// A coding's name and weight. A weight that is not a number from 0 to 1 counts as 0.
fn item(item: &str) -> (&str, f32) {
    let mut parts = item.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
    let weight = weight.map_or(Some(1.0), |weight| weight.parse().ok());
    (name, weight.filter(|weight| (0.0..=1.0).contains(weight)).unwrap_or(0.0))
}

/// A body that never changes while the program runs, such as a style sheet. It is compressed once, with the most
/// effort.
pub(crate) struct Fixed {
    kind: &'static str,
    tag: HeaderValue,
    plain: Bytes,
    /// `None`: it would be no shorter.
    zstd: Option<Bytes>,
    gzip: Option<Bytes>,
}

impl Fixed {
    /// `text`, whose media type is `kind`.
    pub(crate) fn new(kind: &'static str, text: &'static str) -> Self {
        let compressed = |coding: Coding| {
            let body = coding.with_effort(text.as_bytes(), Effort::Most).ok()?;
            (body.len() < text.len()).then(|| Bytes::from(body))
        };
        Self {
            kind,
            tag: digest(text.as_bytes()),
            plain: Bytes::from_static(text.as_bytes()),
            zstd: compressed(Coding::Zstd),
            gzip: compressed(Coding::Gzip),
        }
    }

    /// The answer to a request with these headers.
    pub(crate) fn answer(&self, headers: &HeaderMap) -> Response {
        let coding = Coding::preferred(headers);
        let compressed = match coding {
            Some(Coding::Zstd) => self.zstd.as_ref(),
            Some(Coding::Gzip) => self.gzip.as_ref(),
            None => None,
        };
        let body = compressed.unwrap_or(&self.plain).clone();
        let mut response = answer(StatusCode::OK, self.kind, body);
        let answered = response.headers_mut();
        answered.insert(header::ETAG, self.tag.clone());
        if let (Some(coding), Some(_)) = (coding, compressed) {
            answered.insert(header::CONTENT_ENCODING, coding.header());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coding_is_the_one_that_the_client_likes_best() {
        use Coding::{Gzip, Zstd};
        for (value, wanted) in [
            ("", None),
            ("gzip", Some(Gzip)),
            ("x-gzip", Some(Gzip)),
            ("GZIP, deflate", Some(Gzip)),
            ("gzip, deflate, br, zstd", Some(Zstd)),
            ("gzip;q=1.0, zstd;q=0.5", Some(Gzip)),
            ("gzip;q=0.5, zstd;q=0.5", Some(Zstd)),
            ("gzip ; q=0.2 , zstd;Q=0.1", Some(Gzip)),
            ("gzip;q=0", None),
            ("gzip;q=0.000, zstd;q=0", None),
            ("gzip;q=0, *", None),
            ("*", Some(Gzip)),
            ("*;q=0", None),
            ("*;q=0.5, gzip;q=0, zstd;q=0.1", Some(Zstd)),
            ("identity", None),
            ("identity, gzip", Some(Gzip)),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some(Gzip)),
            ("identity;q=0", None),
            ("br, deflate, compress", None),
            ("gzip;q=2", None),
            ("gzip;q=-1", None),
            ("gzip;q=NaN", None),
            ("gzip;q=", None),
            ("gzip;level=9", Some(Gzip)),
            (",,;;,gzip", Some(Gzip)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            assert_eq!(Coding::preferred(&headers), wanted, "{value:?}");
        }
        assert_eq!(Coding::preferred(&HeaderMap::new()), None);
        let mut lines = HeaderMap::new();
        lines.append(header::ACCEPT_ENCODING, HeaderValue::from_static("deflate"));
        lines.append(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        assert_eq!(Coding::preferred(&lines), Some(Gzip));
    }
}
