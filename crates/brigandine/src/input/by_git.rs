//! What is asked of a clone that libgit2 cannot read, by git's own program: repositories whose objects are named by
//! SHA-256. A process for each question costs more than a reader (`reader.rs`), and such repositories are few.

use super::git::{Bare, FetchError, OUTPUT_MAX, Repositories, Resolved, last_words, redact};
use super::objects::{self, PATHS_BYTES_MAX};
use crate::os::process::CaptureError;
use std::path::Path;

/// Of a repository that has objects of such a clone.
pub(super) const CONFIGURATION: &str =
    "[core]\n\trepositoryformatversion = 1\n[extensions]\n\tobjectformat = sha256\n";

/// Whether it is such a clone.
pub(super) fn is_for(clone: &Path) -> bool {
    // As `git init` writes it: nobody else writes to the configuration of a clone.
    std::fs::read(clone.join("config")).is_ok_and(|config| {
        String::from_utf8_lossy(&config).to_ascii_lowercase().contains("objectformat = sha256")
    })
}

/// See [`objects::resolve`].
pub(super) async fn resolve(
    repositories: &Repositories,
    clone: Bare<'_>,
    name: &str,
) -> Result<Resolved, FetchError> {
    let (doing, url) = ("read", &clone.origin.url);
    let mut command = repositories.command(clone.path, clone.origin.access);
    command.args(["cat-file", "-t", &format!("{name}^{{}}")]);
    let kind = repositories.check(doing, url, command, OUTPUT_MAX).await?;
    let kind = String::from_utf8_lossy(&kind).trim().to_owned();
    if kind != "commit" {
        let said = objects::no_revision(&kind);
        return Err(FetchError::Refused { doing, url: redact(url), said });
    }
    let mut command = repositories.command(clone.path, clone.origin.access);
    command.args(["rev-list", "--max-count=1", "--no-commit-header", "--encoding=UTF-8"]);
    command.args(["--format=%H%x00%an%x00%ct%x00%s", name, "--"]);
    let told = repositories.check(doing, url, command, OUTPUT_MAX).await?;
    let told = String::from_utf8_lossy(&told).into_owned();
    let mut parts = told.splitn(4, '\0');
    let mut part = || parts.next().unwrap_or_default();
    let (revision, author, at, subject) = (part().to_owned(), part(), part(), part());
    let at = at.parse();
    let at = at.map_err(|_| FetchError::Unreadable { doing, url: redact(url) })?;
    Ok(objects::resolved(revision, author, at, subject))
}

/// See [`objects::list`].
pub(super) async fn list(
    repositories: &Repositories,
    clone: Bare<'_>,
    revision: &str,
) -> Result<Vec<u8>, FetchError> {
    let (doing, url) = ("list the files of", &clone.origin.url);
    let mut command = repositories.command(clone.path, clone.origin.access);
    command.args(["ls-tree", "-r", "-z", "--full-tree", revision]);
    // With modes and names of objects.
    let listed = repositories.check(doing, url, command, PATHS_BYTES_MAX * 2).await;
    listed.map_err(|error| match error {
        FetchError::Process { source: CaptureError::Output(_), doing, url } => {
            FetchError::Refused { doing, url, said: objects::too_many() }
        }
        error => error,
    })
}

/// A file of [`objects::read`].
pub(super) async fn read(
    repositories: &Repositories,
    clone: Bare<'_>,
    object: &str,
    bytes_max: usize,
) -> Result<Option<Vec<u8>>, FetchError> {
    let mut command = repositories.command(clone.path, clone.origin.access);
    command.args(["cat-file", "blob", object]);
    match repositories.run("read the files of", &clone.origin.url, command, bytes_max).await {
        Ok(done) if done.status.success() => Ok(Some(done.stdout)),
        Ok(done) => Err(FetchError::Git {
            doing: "read the files of",
            url: redact(&clone.origin.url),
            said: last_words(&done),
        }),
        Err(FetchError::Process { source: CaptureError::Output(_), .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// See [`objects::pin`].
pub(super) async fn pin(
    repositories: &Repositories,
    clone: Bare<'_>,
    revision: &str,
) -> Result<(), FetchError> {
    let mut command = repositories.command(clone.path, clone.origin.access);
    command.args(["update-ref", &objects::pin_name(revision), revision]);
    repositories.check("keep a revision of", &clone.origin.url, command, OUTPUT_MAX).await.map(drop)
}

/// See [`objects::references`].
pub(super) async fn references(
    repositories: &Repositories,
    clone: Bare<'_>,
) -> Result<Vec<u8>, FetchError> {
    let mut command = repositories.command(clone.path, clone.origin.access);
    command.args(["for-each-ref", "--format=%(refname)"]);
    let doing = "list the revisions of";
    repositories.check(doing, &clone.origin.url, command, PATHS_BYTES_MAX).await
}

/// See [`objects::remove_references`].
pub(super) async fn remove_references(
    repositories: &Repositories,
    clone: Bare<'_>,
    names: &[String],
) -> Result<(), FetchError> {
    for name in names {
        let mut command = repositories.command(clone.path, clone.origin.access);
        command.args(["update-ref", "-d", name]);
        repositories
            .check("let go of a revision of", &clone.origin.url, command, OUTPUT_MAX)
            .await?;
    }
    Ok(())
}
