//! What a clone holds, as processes that stay read it.

use super::name::{local_path, redact};
use super::{Bare, FetchError, Repositories, Resolved};
use crate::input::address::Origin;
use crate::input::reader::About;
use crate::input::tree::Entry;
use crate::input::{by_git, objects};

/// How many bytes of files are read in one go, beyond the first.
const READ_BYTES_MAX: usize = 4 << 20;

impl Repositories {
    /// All files of a revision that the clone has, without those of its submodules: an error if they are more than
    /// `most`, with folders.
    pub(in crate::input) async fn list(
        &self,
        origin: &Origin,
        revision: &str,
        prefix: &[u8],
        most: usize,
    ) -> Result<Vec<Entry>, FetchError> {
        self.mended(origin, revision, || self.list_once(origin, revision, prefix, most)).await
    }

    async fn list_once(
        &self,
        origin: &Origin,
        revision: &str,
        prefix: &[u8],
        most: usize,
    ) -> Result<Vec<Entry>, FetchError> {
        let doing = "list the files of";
        let path = self.path(origin);
        let clone = Bare { origin, path: &path };
        let listing = if by_git::is_for(&path) {
            by_git::list(self, clone, revision).await?
        } else {
            self.ask(doing, clone, About::List { revision: revision.to_owned(), most }).await?
        };
        let url = || redact(&origin.url);
        Entry::parse(&listing, prefix, most).map_err(|said| FetchError::Refused {
            doing,
            url: url(),
            said,
        })
    }

    /// The contents of as many of these files of a revision as are to be had in one go, one at least. `None` for
    /// each that is larger than `bytes_max`.
    pub(in crate::input) async fn read_objects(
        &self,
        origin: &Origin,
        revision: &str,
        objects: &[String],
        bytes_max: usize,
    ) -> Result<Vec<Option<Vec<u8>>>, FetchError> {
        self.mended(origin, revision, || self.read_once(origin, objects, bytes_max)).await
    }

    async fn read_once(
        &self,
        origin: &Origin,
        objects: &[String],
        bytes_max: usize,
    ) -> Result<Vec<Option<Vec<u8>>>, FetchError> {
        let doing = "read the files of";
        let path = self.path(origin);
        let clone = Bare { origin, path: &path };
        if by_git::is_for(&path) {
            let object = objects.first().map_or("", String::as_str);
            return Ok(vec![by_git::read(self, clone, object, bytes_max).await?]);
        }
        let about = About::Read { objects: objects.to_vec(), bytes_max, most: READ_BYTES_MAX };
        let answer = self.ask(doing, clone, about).await?;
        objects::contents(&answer)
            .filter(|contents| !contents.is_empty())
            .ok_or_else(|| FetchError::Unreadable { doing, url: redact(&origin.url) })
    }

    /// Brings a branch of a repository on this machine up to date without a process of git.
    /// `None`: git's own program is to do it, or to say what is wrong.
    pub(super) async fn follow(
        &self,
        clone: Bare<'_>,
        remote: &str,
        local: &str,
    ) -> Option<Resolved> {
        let source = local_path(&clone.origin.url)?;
        // Where they cannot be read, git's own program says why.
        if self.manner().await.ok()?.rewrites || by_git::is_for(clone.path) {
            return None;
        }
        let about = About::Follow {
            source: source.into_os_string(),
            remote: remote.to_owned(),
            local: local.to_owned(),
            time: self.fetch_timeout / 2,
        };
        let followed = self.ask("fetch", clone, about).await;
        let followed = followed.inspect_err(|error| tracing::debug!(%error, "left to git")).ok()?;
        serde_json::from_slice(&followed).ok().flatten()
    }
}
