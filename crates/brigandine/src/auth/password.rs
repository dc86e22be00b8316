//! Passwords: their rules, and hashing them with argon2id.
//!
//! - PASS1: hashing runs on threads for blocking work, at most [`AT_ONCE`] at the same time, each with 19 MiB of memory;
//!   at most [`WAITING_MAX`] wait, and others are refused.
//! - PASS2: for a name that nobody has, as much is computed as for a wrong password.

use std::sync::{Arc, OnceLock};

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use tokio::sync::Semaphore;

use crate::http::{HttpError, Result};
use crate::os::random::random;

/// The fewest characters of a password.
const CHARS_MIN: usize = 10;
/// The most bytes of a password.
const BYTES_MAX: usize = 1024;

/// How many passwords are hashed at once.
const AT_ONCE: usize = 2;
/// How many requests may wait for their passwords to be hashed.
const WAITING_MAX: usize = 32;

/// Argon2id with 19 MiB, two passes and one lane, as the Password Storage Cheat Sheet of OWASP recommends.
fn argon2() -> Argon2<'static> {
    let params = Params::new(19 * 1024, 2, 1, None);
    // The numbers are within argon2's bounds. If they were not, the crate's own are the same today.
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params.unwrap_or_default())
}

/// Checks that a new password may be one.
///
/// # Errors
/// What a password is.
pub(crate) fn check_password(password: &str) -> std::result::Result<(), String> {
    if password.chars().count() < CHARS_MIN || password.len() > BYTES_MAX {
        return Err(format!(
            "a password has {CHARS_MIN} characters at least, and {BYTES_MAX} bytes at most"
        ));
    }
    if password.chars().any(char::is_control) {
        return Err("a password has no control characters".to_owned());
    }
    Ok(())
}

/// The digest of a password, with a new salt and its parameters, in PHC's form. Takes tens of milliseconds of a
/// processor.
///
/// # Errors
/// There is no memory for it, or the kernel has no random bytes.
pub(crate) fn password_digest(password: &str) -> std::result::Result<String, String> {
    let salt =
        random::<16>().map_err(|error| format!("the kernel has no random bytes: {error}"))?;
    let digest = argon2().hash_password_with_salt(password.as_bytes(), &salt);
    let digest: PasswordHash =
        digest.map_err(|error| format!("the password cannot be hashed: {error}"))?;
    Ok(digest.to_string())
}

/// Whether a digest is that of the password.
fn is_right(password: &str, digest: &str) -> bool {
    argon2().verify_password(password.as_bytes(), digest).is_ok()
}

/// What a password is compared with if nobody has the name.
fn nobodys() -> &'static str {
    static DIGEST: OnceLock<String> = OnceLock::new();
    DIGEST.get_or_init(|| password_digest("nobody has this password").unwrap_or_default())
}

/// Compares passwords (PASS1).
#[derive(Debug)]
pub(super) struct Passwords {
    hashing: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Passwords {
    pub(super) fn new() -> Self {
        Self {
            hashing: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: Semaphore::new(AT_ONCE + WAITING_MAX),
        }
    }

    /// Whether `digest` is that of the password. `None`: nobody has the name, and it is not (PASS2).
    ///
    /// # Errors
    /// 503: too many others wait.
    ///
    /// # Cancel safety
    /// Dropped while it waits, nothing is computed. Dropped later, the thread finishes, and keeps its place until then.
    pub(super) async fn is_right(&self, password: String, digest: Option<String>) -> Result<bool> {
        let busy = || HttpError::Waiting("too many people log in, try again later".to_owned());
        let _place = self.waiting.try_acquire().map_err(|_| busy())?;
        let hashing = Arc::clone(&self.hashing).acquire_owned().await.map_err(|_| busy())?;
        let compared = tokio::task::spawn_blocking(move || {
            let _hashing = hashing;
            // Made before the first comparison of either kind, so that both take the same time.
            let nobodys = nobodys();
            let known = digest.is_some();
            is_right(&password, digest.as_deref().unwrap_or(nobodys)) && known
        });
        compared.await.map_err(|error| {
            tracing::error!(%error, "a password could not be compared");
            HttpError::Internal
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_are_those_of_owasp() {
        let digest = password_digest("correct horse").expect("a digest");
        assert!(digest.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{digest}");
        let other = password_digest("correct horse").expect("a digest");
        assert_ne!(digest, other, "each has a salt of its own");
        assert!(is_right("correct horse", &digest) && is_right("correct horse", &other));
        assert!(!is_right("Correct horse", &digest));
        for broken in ["", "$argon2id$", "correct horse", &digest[..60]] {
            assert!(!is_right("correct horse", broken), "{broken}");
        }
    }

    #[test]
    fn short_long_and_unprintable_passwords_are_refused() {
        assert!(check_password("ten chars!").is_ok() && check_password("zehn Züge…").is_ok());
        for wrong in ["", "nine char", "ten chars\n!", &"x".repeat(1025)] {
            assert!(check_password(wrong).is_err(), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn nobody_has_the_password_of_nobody() {
        let passwords = Passwords::new();
        let right = async |password: &str, digest: Option<String>| {
            passwords.is_right(password.to_owned(), digest).await.expect("room")
        };
        assert!(!right("nobody has this password", None).await);
        let digest = password_digest("correct horse").expect("a digest");
        assert!(right("correct horse", Some(digest.clone())).await);
        assert!(!right("wrong horse", Some(digest)).await);
    }

    #[tokio::test]
    async fn what_is_too_much_is_refused_at_once() {
        let passwords = Passwords::new();
        let _all = passwords.hashing.acquire_many(2).await.expect("free");
        let _waiting = passwords.waiting.try_acquire_many(34).expect("free");
        let refused = passwords.is_right("x".to_owned(), None).await.expect_err("refused");
        assert_eq!(refused.parts().0, 503);
    }
}
