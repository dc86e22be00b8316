//! Secrets of 256 random bits: access tokens, and the secrets in cookies. Only their digests are stored.

use sha2::{Digest, Sha256};

use crate::os::digest::hex;
use crate::os::random::random;

/// How an access token begins, so that people and programs that search for secrets recognise it.
const PREFIX: &str = "brg_";

/// The digits of a secret.
const DIGITS: usize = 64;

/// A new access token.
///
/// # Errors
/// The kernel has no random bytes.
pub(crate) fn new_token() -> std::io::Result<String> {
    Ok(format!("{PREFIX}{}", hex(&random::<32>()?)))
}

/// A new secret for a cookie.
///
/// # Errors
/// The kernel has no random bytes.
pub(super) fn new_secret() -> std::io::Result<String> {
    Ok(hex(&random::<32>()?))
}

/// The digest of the secret in a cookie; `None`: the text is none.
pub(super) fn secret_digest(text: &str) -> Option<[u8; 32]> {
    is_secret(text).then(|| digest(text))
}

/// The form token of a session: from it, the secret of the session cannot be computed.
pub(super) fn form_token(secret: &str) -> String {
    hex(&digest(&format!("form token of {secret}")))
}

/// Whether two texts are the same, by their digests (AUTH2).
pub(super) fn is_same(one: &str, other: &str) -> bool {
    digest(one) == digest(other)
}

/// The digest of an access token; `None`: the text is none.
pub(super) fn token_digest(text: &str) -> Option<[u8; 32]> {
    is_secret(text.strip_prefix(PREFIX)?).then(|| digest(text))
}

/// The digest under which a secret is stored. A digest that is looked up or compared in a time that depends on it
/// reveals nothing about the secret.
pub(crate) fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

fn is_secret(text: &str) -> bool {
    text.len() == DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_recognised_by_its_form() {
        let token = new_token().expect("a token");
        assert_eq!(token_digest(&token), Some(digest(&token)));
        let (_, secret) = token.split_once('_').expect("a prefix");
        for wrong in ["", "brg_", secret, &token[1..], &token[..40], &token.to_uppercase()] {
            assert_eq!(token_digest(wrong), None, "{wrong}");
        }
    }
}
