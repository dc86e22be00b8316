//! The cookie of a session.

use axum::http::{HeaderMap, HeaderValue, header};

use crate::http::Arrived;
use crate::model::Session;

/// The name of the cookie.
const NAME: &str = "brigandine";

/// The secret in the cookie of a request.
pub(super) fn cookie(headers: &HeaderMap) -> Option<&str> {
    cookie_named(headers, NAME)
}

/// The value of the request's first cookie of this name.
pub(super) fn cookie_named<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (name.trim(), value.trim()))
        .find(|(found, _)| *found == name)
        .map(|(_, value)| value)
}

/// The value of `Set-Cookie` that gives a browser the secret; `None`: that takes the cookie away.
///
/// Scripts cannot read the cookie, browsers do not send it with changes that pages of other sites cause, and one that was
/// given over https is sent over https only.
pub(super) fn set_cookie(secret: Option<&str>, arrived: &Arrived) -> Option<HeaderValue> {
    let (value, age) = secret.map_or(("", 0), |secret| (secret, Session::AGE_S));
    set_cookie_named(NAME, value, age, arrived)
}

/// Like [`set_cookie`], for a cookie of another name that ends after `age` seconds; 0: at once.
pub(super) fn set_cookie_named(
    name: &str,
    value: &str,
    age: i64,
    arrived: &Arrived,
) -> Option<HeaderValue> {
    let secure = if arrived.secure { "; Secure" } else { "" };
    let text = format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Client;

    #[test]
    fn the_cookie_is_found_among_others() {
        for (lines, wanted) in [
            (&["brigandine=abc"][..], Some("abc")),
            (&["a=b; brigandine=abc; c=d"], Some("abc")),
            (&["a=b", "c=d;brigandine = abc "], Some("abc")),
            (&["brigandine=first; brigandine=second"], Some("first")),
            (&["xbrigandine=abc; brigandinex=abc; brigandine"], None),
            (&[""], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::COOKIE, HeaderValue::from_static(line));
            }
            assert_eq!(cookie(&headers), wanted, "{lines:?}");
        }
    }

    #[test]
    fn the_cookie_is_for_this_server_alone() {
        let client = Client::new([192, 0, 2, 1].into());
        for secure in [false, true] {
            let arrived = Arrived { client, secure, host: String::new() };
            for secret in [Some("abc"), None] {
                let set = set_cookie(secret, &arrived).expect("a header");
                let set = set.to_str().expect("text");
                assert!(
                    set.contains("; HttpOnly; SameSite=Lax") && set.contains("; Path=/;"),
                    "{set}"
                );
                assert_eq!(set.ends_with("; Secure"), secure, "{set}");
                assert_eq!(
                    set.starts_with("brigandine=; Path=/; Max-Age=0;"),
                    secret.is_none(),
                    "{set}"
                );
            }
        }
    }
}
