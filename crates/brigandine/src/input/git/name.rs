//! The names of clones, and repositories that are on this machine.

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

#[cfg(test)]
mod tests {
    use super::local_path;

    #[test]
    fn a_repository_on_this_machine_is_known_by_its_url() {
        assert_eq!(local_path("file:///a/b"), Some("/a/b".into()));
        assert_eq!(local_path("/a/b"), Some("/a/b".into()));
        assert_eq!(local_path("file:///a%20b"), None);
        assert_eq!(local_path("git@host:a"), None);
        assert_eq!(local_path("file://host/a"), None);
    }
}
