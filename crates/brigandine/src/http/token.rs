//! The token that authorizes changes over HTTP.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};

use super::error::{HttpError, Result};
use crate::os::file::open_regular;

/// The fewest bytes of a token, because a shorter one could be guessed.
const BYTES_MIN: usize = 16;
/// The most bytes of a token file.
const BYTES_MAX: u64 = 1024;

/// The digest of the token. Comparing digests takes a time that reveals nothing about the token.
#[derive(Debug, Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// Reads the token from a file, which only its owner may be able to read.
    ///
    /// # Errors
    /// A message that says what is wrong with the file, and how to correct it.
    pub(crate) fn read(path: &Path) -> std::result::Result<Self, String> {
        let name = path.display();
        let failed = |error: std::io::Error| format!("the token file {name}: {error}");
        let file = open_regular(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(format!(
                "the token file {name} may be read by others (mode {mode:03o}); chmod 600 {name}"
            ));
        }
        let mut text = String::new();
        file.take(BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
        let token = text.trim();
        let plain = token.bytes().all(|byte| byte.is_ascii_graphic());
        if token.len() < BYTES_MIN || text.len() as u64 > BYTES_MAX || !plain {
            return Err(format!(
                "the token file {name} holds no token: {BYTES_MIN} to {BYTES_MAX} letters, digits \
                 and signs without blanks, for example from `openssl rand -hex 32`"
            ));
        }
        Ok(Self(Sha256::digest(token).into()))
    }

    /// Checks that a request has the token.
    ///
    /// # Errors
    /// The request has no token, or a wrong one.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<()> {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.split_once(' '));
        let right = given.is_some_and(|(scheme, token)| {
            let digest: [u8; 32] = Sha256::digest(token.trim()).into();
            scheme.eq_ignore_ascii_case("bearer") && digest == self.0
        });
        if right { Ok(()) } else { Err(HttpError::Unauthorized) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn read(text: &str, mode: u32) -> std::result::Result<Token, String> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        std::fs::write(&path, text).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("a mode");
        Token::read(&path)
    }

    #[test]
    fn only_the_token_itself_is_accepted() {
        let token = read("0123456789abcdef\n", 0o600).expect("a token");
        let accepts = |value: &str| {
            let mut headers = HeaderMap::new();
            let value = HeaderValue::from_str(value).expect("a header");
            headers.insert(header::AUTHORIZATION, value);
            token.check(&headers).is_ok()
        };
        assert!(accepts("Bearer 0123456789abcdef"));
        assert!(accepts("bearer 0123456789abcdef"));
        for wrong in ["Bearer 0123456789abcdeX", "Bearer", "Bearer ", "Basic 0123456789abcdef", ""]
        {
            assert!(!accepts(wrong), "{wrong}");
        }
        assert!(token.check(&HeaderMap::new()).is_err());
    }

    #[test]
    fn a_file_that_is_no_secret_is_refused_with_a_remedy() {
        assert!(read("0123456789abcdef", 0o640).expect_err("readable").contains("chmod 600"));
        for text in ["short", "", "0123456789 abcdef0123", &"x".repeat(2000)] {
            assert!(read(text, 0o600).expect_err(text).contains("openssl rand"), "{text}");
        }
    }
}
