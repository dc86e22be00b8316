//! Whether a request of a browser comes from a page of this server.
//!
//! A browser sends the cookie of a session with requests that pages of other sites cause, unless `SameSite` keeps it. So
//! a change with a cookie must say that it comes from a page of this server, in headers that pages cannot set.

use axum::http::{HeaderMap, HeaderName, header};

use crate::http::Arrived;

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A page of this server, or an address that a person typed.
    Same,
    /// Another site.
    Other,
    /// The request does not say. Browsers do; other programs may not.
    Unsaid,
}

/// Finds out where a request comes from: by `Sec-Fetch-Site`, else by `Origin`, else by `Referer`.
pub(crate) fn origin(headers: &HeaderMap, arrived: &Arrived) -> Origin {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if let Some(site) = text(HeaderName::from_static("sec-fetch-site")) {
        return if ["same-origin", "none"].contains(&site) { Origin::Same } else { Origin::Other };
    }
    let Some(said) = text(header::ORIGIN).or_else(|| text(header::REFERER)) else {
        return Origin::Unsaid;
    };
    if is_own(said, arrived) { Origin::Same } else { Origin::Other }
}

/// Whether an address, or the beginning of one, is on this server.
fn is_own(address: &str, arrived: &Arrived) -> bool {
    let Some((scheme, rest)) = address.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let port = match scheme {
        "https" => ":443",
        // Without a trusted proxy that says so, the server does not know whether the browser uses https.
        "http" if !arrived.secure => ":80",
        _ => return false,
    };
    let bare = |text: &str| text.strip_suffix(port).unwrap_or(text).to_ascii_lowercase();
    !authority.is_empty() && bare(authority) == bare(&arrived.host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Client;
    use axum::http::HeaderValue;

    fn of(lines: &[(&'static str, &'static str)], secure: bool) -> Origin {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        let client = Client::new([192, 0, 2, 1].into());
        let host = "ci.example.org".to_owned();
        origin(&headers, &Arrived { client, secure, host })
    }

    #[test]
    fn what_a_browser_says_of_the_site_decides() {
        for (site, wanted) in [
            ("same-origin", Origin::Same),
            ("none", Origin::Same),
            ("same-site", Origin::Other),
            ("cross-site", Origin::Other),
            ("", Origin::Other),
        ] {
            let own = ("origin", "https://ci.example.org");
            assert_eq!(of(&[("sec-fetch-site", site), own], true), wanted, "{site}");
        }
        assert_eq!(of(&[], true), Origin::Unsaid);
    }

    #[test]
    fn an_origin_is_compared_with_the_host_of_the_request() {
        for (address, secure, plain) in [
            ("https://ci.example.org", true, true),
            ("https://CI.example.org:443", true, true),
            ("http://ci.example.org", false, true),
            ("http://ci.example.org:80", false, true),
            ("https://ci.example.org/login?next=/", true, true),
            ("https://ci.example.org:8443", false, false),
            ("https://ci.example.org.evil.example", false, false),
            ("https://evil.example/ci.example.org", false, false),
            ("https://ci.example.org@evil.example", false, false),
            ("null", false, false),
            ("", false, false),
            ("https://", false, false),
            ("ftp://ci.example.org", false, false),
        ] {
            for name in ["origin", "referer"] {
                let wanted = |own| if own { Origin::Same } else { Origin::Other };
                assert_eq!(of(&[(name, address)], true), wanted(secure), "{address}");
                assert_eq!(of(&[(name, address)], false), wanted(plain), "{address}");
            }
        }
        let other = [("origin", "https://evil.example"), ("referer", "https://ci.example.org/")];
        assert_eq!(of(&other, true), Origin::Other, "`Origin` goes first");
    }
}
