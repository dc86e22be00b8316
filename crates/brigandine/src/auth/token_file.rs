//! The token in a file, whose owner is an administrator.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sha2::{Digest, Sha256};

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
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
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

    /// Whether `given` is the token.
    pub(super) fn is(&self, given: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(given).into();
        digest == self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
