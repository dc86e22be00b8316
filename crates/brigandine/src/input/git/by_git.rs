//! git itself answers questions about clones that libgit2 cannot read: those whose objects are named by SHA-256. A
//! process for each question costs more than a reader (`reader.rs`), but such repositories are few.

use super::error::FetchError;
use super::repositories::{Bare, OUTPUT_MAX, Repositories};
use crate::input::objects::{self, PATHS_BYTES_MAX};
use crate::input::reader::About;
use crate::model::redact;
use crate::os::process::CaptureError;
use std::path::Path;

/// The configuration of a repository that uses the objects of a clone whose objects are named by SHA-256.
pub(super) const CONFIGURATION: &str =
    "[core]\n\trepositoryformatversion = 1\n[extensions]\n\tobjectformat = sha256\n";

/// Whether the objects of a clone are named by SHA-256.
pub(super) fn is_for(clone: &Path) -> bool {
    // `git init` writes the setting like this, and only git writes the configuration of a clone.
    std::fs::read(clone.join("config")).is_ok_and(|config| {
        String::from_utf8_lossy(&config).to_ascii_lowercase().contains("objectformat = sha256")
    })
}

/// Answers a question as a reader does.
pub(super) async fn answer(
    repositories: &Repositories,
    doing: &'static str,
    clone: Bare<'_>,
    about: &About,
) -> Result<Vec<u8>, FetchError> {
    let git = Git { repositories, doing, clone };
    match about {
        About::Resolve { name } => git.resolve(name).await,
        About::List { revision, .. } => {
            let arguments = ["ls-tree", "-r", "-z", "--full-tree", revision.as_str()];
            // Twice the limit, because each line also has a mode and the name of an object.
            let listed = git.run(&arguments, PATHS_BYTES_MAX * 2).await;
            listed.map_err(|error| match error {
                FetchError::Process { source: CaptureError::Output(_), doing, url } => {
                    FetchError::Refused { doing, url, said: objects::too_many() }
                }
                error => error,
            })
        }
        About::Read { objects, bytes_max, .. } => {
            let object = objects.first().map_or("", String::as_str);
            let file = match git.run(&["cat-file", "blob", object], *bytes_max).await {
                Ok(file) => Some(file),
                Err(FetchError::Process { source: CaptureError::Output(_), .. }) => None,
                Err(error) => return Err(error),
            };
            let mut contents = Vec::new();
            objects::put(&mut contents, file.as_deref());
            Ok(contents)
        }
        About::Pin { revision } => {
            git.run(&["update-ref", &objects::pin_name(revision), revision], OUTPUT_MAX).await
        }
        About::References => {
            git.run(&["for-each-ref", "--format=%(refname)"], PATHS_BYTES_MAX).await
        }
        About::RemoveReferences { names } => {
            for name in names {
                git.run(&["update-ref", "-d", name], OUTPUT_MAX).await?;
            }
            Ok(Vec::new())
        }
        About::Follow { .. } => {
            let (url, said) = (redact(&clone.origin.url), "git fetches it".to_owned());
            Err(FetchError::Refused { doing, url, said })
        }
    }
}

/// The git commands for one question.
struct Git<'a> {
    repositories: &'a Repositories,
    doing: &'static str,
    clone: Bare<'a>,
}

impl Git<'_> {
    async fn run(&self, arguments: &[&str], output_max: usize) -> Result<Vec<u8>, FetchError> {
        let Bare { origin, path } = self.clone;
        let mut command = self.repositories.command(path, origin.access);
        command.args(arguments);
        self.repositories.check(self.doing, &origin.url, command, output_max).await
    }

    async fn resolve(&self, name: &str) -> Result<Vec<u8>, FetchError> {
        let (doing, url) = (self.doing, redact(&self.clone.origin.url));
        let kind = self.run(&["cat-file", "-t", &format!("{name}^{{}}")], OUTPUT_MAX).await?;
        let kind = String::from_utf8_lossy(&kind).trim().to_owned();
        if kind != "commit" {
            return Err(FetchError::Refused { doing, url, said: objects::no_revision(&kind) });
        }
        let shown = "--format=%H%x00%an%x00%ct%x00%s";
        let arguments = ["rev-list", "--max-count=1", "--no-commit-header", "--encoding=UTF-8"];
        let told = self.run(&[&arguments[..], &[shown, name, "--"]].concat(), OUTPUT_MAX).await?;
        let told = String::from_utf8_lossy(&told);
        let parts: Vec<&str> = told.splitn(4, '\0').collect();
        let [revision, author, at, subject] = parts[..] else {
            return Err(FetchError::Unreadable { doing, url });
        };
        let resolved = at.parse().ok().and_then(|at| {
            let found = objects::resolved(revision.to_owned(), author, at, subject);
            serde_json::to_vec(&Some(found)).ok()
        });
        resolved.ok_or(FetchError::Unreadable { doing, url })
    }
}
