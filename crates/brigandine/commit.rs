//! Which commit a source tree is; for the build script, and for its test.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The commit of the source tree at `folder`, with `-dirty` if tracked files differ from it. `None`: the tree is not in
/// a repository of git, as when it comes from a tarball; or it is in one that does not track it.
pub(crate) fn commit(folder: &Path) -> Option<String> {
    git(folder, &["ls-files", "--error-unmatch", "Cargo.toml"])?;
    let commit = git(folder, &["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(folder, &["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { commit } else { format!("{commit}-dirty") })
}

/// The files of git that change with the commit.
pub(crate) fn watched(folder: &Path) -> Vec<PathBuf> {
    let of = |name| git(folder, &["rev-parse", "--git-path", name]).map(|path| folder.join(path));
    ["HEAD", "logs/HEAD"].into_iter().filter_map(of).filter(|path| path.exists()).collect()
}

/// What git prints; `None`: it is not there, or fails.
fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let done = Command::new("git")
        .arg("-C")
        .arg(folder)
        // Reading the status must not write to the repository.
        .arg("--no-optional-locks")
        .args(arguments)
        .output()
        .ok()?;
    let text = String::from_utf8(done.stdout).ok()?;
    done.status.success().then(|| text.trim().to_owned())
}
