//! An attempt to log in, between the request that begins it and the one that comes back with a code (OIDC1).

use axum::http::{HeaderMap, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::auth::cookie::{cookie_named, set_cookie_named};
use crate::auth::secret::{is_same, new_secret, secret_digest};
use crate::http::Arrived;

/// The name of the cookie.
const NAME: &str = "brigandine-login";

/// How long somebody may take to log in at the provider.
const AGE_S: i64 = 600;

/// What the browser keeps of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// Comes back with the code.
    pub(crate) state: String,
    /// Comes back in the provider's token.
    pub(crate) nonce: String,
    /// The verifier of PKCE (RFC 7636).
    pub(crate) verifier: String,
    /// The address to which the login leads.
    pub(crate) next: String,
}

impl Attempt {
    /// A new attempt.
    ///
    /// # Errors
    /// The kernel has no random bytes.
    pub(crate) fn new(next: &str) -> std::io::Result<Self> {
        let next = next.to_owned();
        Ok(Self { state: new_secret()?, nonce: new_secret()?, verifier: new_secret()?, next })
    }

    /// The attempt that the browser began, if `state` belongs to it.
    pub(crate) fn of(headers: &HeaderMap, state: &str) -> Option<Self> {
        let mut parts = cookie_named(headers, NAME)?.split('.').map(str::to_owned);
        let attempt = Self {
            state: parts.next()?,
            nonce: parts.next()?,
            verifier: parts.next()?,
            next: percent_decode_str(&parts.next()?).decode_utf8().ok()?.into_owned(),
        };
        let secrets = [&attempt.state, &attempt.nonce, &attempt.verifier];
        let whole = parts.next().is_none() && secrets.iter().all(|it| secret_digest(it).is_some());
        (whole && is_same(&attempt.state, state)).then_some(attempt)
    }

    /// The value of `Set-Cookie` that gives the attempt to the browser.
    pub(crate) fn cookie(&self, arrived: &Arrived) -> Option<HeaderValue> {
        let Self { state, nonce, verifier, next } = self;
        let next = utf8_percent_encode(next, NON_ALPHANUMERIC);
        set_cookie_named(NAME, &format!("{state}.{nonce}.{verifier}.{next}"), AGE_S, arrived)
    }

    /// The value of `Set-Cookie` that takes the attempt away.
    pub(crate) fn taken_away(arrived: &Arrived) -> Option<HeaderValue> {
        set_cookie_named(NAME, "", 0, arrived)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Client;
    use axum::http::header;

    #[test]
    fn an_attempt_comes_back_as_it_was_and_with_its_own_state_only() {
        let client = Client::new([192, 0, 2, 1].into());
        let arrived = Arrived { client, secure: true, host: String::new() };
        for next in ["/", "/queue?x=%2Fy;z,\u{e4}.~", ""] {
            let attempt = Attempt::new(next).expect("random bytes");
            let set = attempt.cookie(&arrived).expect("a header");
            let set = set.to_str().expect("text");
            assert!(set.contains("; HttpOnly; SameSite=Lax; Secure"), "{set}");
            let sent = set.split(';').next().expect("a pair");
            let headers = |cookie: &str| {
                let mut headers = HeaderMap::new();
                headers.insert(header::COOKIE, HeaderValue::from_str(cookie).expect("a header"));
                headers
            };
            assert_eq!(Attempt::of(&headers(sent), &attempt.state), Some(attempt.clone()));
            let other = Attempt::new(next).expect("random bytes");
            assert_ne!(attempt, other);
            assert_eq!(Attempt::of(&headers(sent), &other.state), None);
            assert_eq!(Attempt::of(&HeaderMap::new(), &attempt.state), None);
            let short = sent.replace(&attempt.verifier, "abc");
            for wrong in
                [&short, &format!("{sent}.x"), &sent[..sent.len() / 2], "brigandine-login="]
            {
                assert_eq!(Attempt::of(&headers(wrong), &attempt.state), None, "{wrong}");
            }
        }
    }
}
