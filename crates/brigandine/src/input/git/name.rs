//! The names of clones, and the names of repositories in messages.

use crate::input::address::Origin;
use crate::os::digest::hex;
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// The name of a clone's folder: the first `digest_bytes` bytes of its origin's digest, and the repository's name for
/// people.
pub(super) fn clone_name(origin: &Origin, digest_bytes: usize) -> String {
    let digest = Sha256::digest(origin.key());
    let hex = hex(&digest[..digest_bytes]);
    let name: String = origin
        .url
        .trim_end_matches('/')
        .rsplit(['/', ':'])
        .next()
        .unwrap_or_default()
        .trim_end_matches(".git")
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        .take(40)
        .collect();
    format!("{hex}-{name}.git")
}

/// The path of a repository on this machine. `None`: the URL names no plain path.
pub(super) fn local_path(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("file://").filter(|path| !path.contains('%')).unwrap_or(url);
    path.starts_with('/').then(|| PathBuf::from(path))
}

/// A URL without its password. Of an HTTP URL also without its user, because forges take a token as the user's name.
pub(crate) fn redact(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let Some((user, host)) = host.rsplit_once('@') else { return url.to_owned() };
    match user.split_once(':') {
        _ if scheme.to_ascii_lowercase().starts_with("http") => {
            format!("{scheme}://***@{host}{path}")
        }
        Some((user, _)) => format!("{scheme}://{user}:***@{host}{path}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{local_path, redact};

    #[test]
    fn a_repository_on_this_machine_is_known_by_its_url() {
        assert_eq!(local_path("file:///a/b"), Some("/a/b".into()));
        assert_eq!(local_path("/a/b"), Some("/a/b".into()));
        assert_eq!(local_path("file:///a%20b"), None);
        assert_eq!(local_path("git@host:a"), None);
        assert_eq!(local_path("file://host/a"), None);
    }

    #[test]
    fn a_password_in_a_url_is_never_shown() {
        for secret in ["token", "me:secret", "me:a@b", "token:x-oauth-basic", ":secret"] {
            assert_eq!(redact(&format!("https://{secret}@host/x.git")), "https://***@host/x.git");
        }
        assert_eq!(redact("HTTP://token@host"), "HTTP://***@host");
        assert_eq!(redact("ssh://git@host/x.git"), "ssh://git@host/x.git");
        assert_eq!(redact("ssh://git:secret@host/x.git"), "ssh://git:***@host/x.git");
        assert_eq!(redact("https://host/x:y@z.git"), "https://host/x:y@z.git");
        assert_eq!(redact("git@host:x.git"), "git@host:x.git");
    }
}
