//! The token in a file, whose owner is an administrator.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::os::file::{SECRET_BYTES_MAX, read_secret};

/// The fewest bytes of a token, because a shorter one could be guessed.
const BYTES_MIN: usize = 16;

/// The digest of the token. Comparing digests takes a time that reveals nothing about the token.
#[derive(Debug, Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// Reads the token from a file, which only its owner may be able to read.
    ///
    /// # Errors
    /// A message that says what is wrong with the file, and how to correct it.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        const WHAT: &str = "the token file";
        let token = read_secret(path, WHAT)?.unwrap_or_default();
        if token.len() < BYTES_MIN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!(
                "{WHAT} {} holds no token: {BYTES_MIN} to {SECRET_BYTES_MAX} letters, digits and signs without blanks, \
                 for example from `openssl rand -hex 32`",
                path.display()
            ));
        }
        Ok(Self(Sha256::digest(token).into()))
    }

    /// Whether `given` is the token.
    pub(super) fn is(&self, given: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(given).into();
        digest == self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn read(text: &str, mode: u32) -> Result<Token, String> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        std::fs::write(&path, text).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("a mode");
        Token::read(&path)
    }

    #[test]
    fn only_the_token_itself_is_accepted() {
        let token = read("0123456789abcdef\n", 0o600).expect("a token");
        assert!(token.is("0123456789abcdef"));
        for wrong in ["0123456789abcdeX", "0123456789abcde", "0123456789abcdef ", ""] {
            assert!(!token.is(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_file_that_is_no_secret_is_refused_with_a_remedy() {
        assert!(read("0123456789abcdef", 0o640).expect_err("readable").contains("chmod 600"));
        for text in ["short", "", "0123456789 abcdef0123", &"x".repeat(2000)] {
            assert!(read(text, 0o600).expect_err(text).contains("openssl rand"), "{text}");
        }
    }
}
