//! How clones come and are kept up to date.

use super::name::{clone_name, redact};
use super::{Bare, FetchError, OUTPUT_MAX, Repositories, Resolved, last_words};
use crate::input::address::{Access, Origin};
use crate::input::reader::About;
use crate::input::{by_git, objects};
use crate::model::Reference;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

impl Repositories {
    /// An empty clone.
    pub(in crate::input) async fn init(
        &self,
        clone: Bare<'_>,
        format: &str,
    ) -> Result<(), FetchError> {
        self.written(clone.path);
        let mut command = self.command(clone.path, clone.origin.access);
        command.env("GIT_DEFAULT_REF_FORMAT", "files").args([
            "init",
            "--quiet",
            "--bare",
            "--template=",
            &format!("--object-format={format}"),
        ]);
        self.check("prepare a clone of", &clone.origin.url, command, OUTPUT_MAX).await?;
        Ok(())
    }

    /// A clone, if there is none.
    pub(in crate::input) async fn create(&self, clone: Bare<'_>) -> Result<(), FetchError> {
        let Bare { origin, path } = clone;
        if std::fs::symlink_metadata(path).is_ok() {
            return Ok(());
        }
        std::fs::create_dir_all(&self.directory)
            .map_err(|source| FetchError::File { path: self.directory.clone(), source })?;
        if origin.access == Access::Input {
            // As earlier versions named it.
            let earlier = self.directory.join(clone_name(origin, 8));
            if earlier.join("HEAD").exists() && std::fs::rename(&earlier, path).is_ok() {
                return Ok(());
            }
        }
        self.init(clone, "sha1").await
    }

    /// Fetches what `reference` stands for and says which revision that is.
    ///
    /// # Cancel safety
    /// Dropped: git is killed; the clone stays usable.
    pub(crate) async fn fetch(
        &self,
        url: &str,
        reference: &Reference,
    ) -> Result<Resolved, FetchError> {
        self.obtain(&Origin::input(url), reference).await
    }

    /// Makes sure that a revision is in the clone, fetching it if need be.
    pub(in crate::input) async fn ensure_revision(
        &self,
        origin: &Origin,
        revision: &str,
    ) -> Result<(), FetchError> {
        self.obtain(origin, &Reference::Revision(revision.to_owned())).await.map(drop)
    }

    /// Fetches into a clone that is locked.
    pub(in crate::input) async fn bring(
        &self,
        clone: Bare<'_>,
        reference: &Reference,
    ) -> Result<Resolved, FetchError> {
        let remote = match reference {
            Reference::Branch(name) => format!("refs/heads/{name}"),
            Reference::Tag(name) => format!("refs/tags/{name}"),
            Reference::Head => "HEAD".to_owned(),
            Reference::Revision(revision) => return self.bring_revision(clone, revision).await,
        };
        let local = objects::tip_name(&remote);
        let moves = !matches!(reference, Reference::Tag(_));
        if moves && let Some(followed) = self.follow(clone, &remote, &local).await {
            return Ok(followed);
        }
        if let Some(said) = self.fetch_into(clone, &[format!("+{remote}:{local}")]).await? {
            if said.contains("couldn't find remote ref") {
                return Err(self.no_reference(clone.origin, reference).await);
            }
            return Err(fetch_failed(clone.origin, said));
        }
        self.resolve(clone, &local).await
    }

    /// Has git fetch. What it says if it fails.
    async fn fetch_into(
        &self,
        clone: Bare<'_>,
        refspecs: &[String],
    ) -> Result<Option<String>, FetchError> {
        let url = &clone.origin.url;
        let mut command = self.command(clone.path, clone.origin.access);
        fetch_arguments(&mut command);
        if refspecs.iter().any(|refspec| refspec.contains('*')) {
            // A branch may have become a folder of branches.
            command.arg("--prune");
        }
        command.arg("--").arg(url).args(refspecs);
        let done = self.run("fetch", url, command, OUTPUT_MAX).await;
        self.written(clone.path);
        let failed = !done.as_ref().is_ok_and(|done| done.status.success());
        if failed {
            crate::input::mend::remove_locks(clone.path);
        }
        done.map(|done| failed.then(|| last_words(&done)))
    }

    /// Fetches what an older clone keeps of revisions that their source may not have any more.
    pub(in crate::input) async fn take_over(
        &self,
        old: &Path,
        new: Bare<'_>,
    ) -> Result<(), FetchError> {
        for file in ["HEAD", "config"] {
            // The same in all clones.
            let _ = std::fs::copy(new.path.join(file), old.join(file));
        }
        let mut command = self.command(new.path, Access::Input);
        fetch_arguments(&mut command);
        let pins = format!("+{0}*:{0}*", objects::PINS);
        command.arg("--").arg(old).arg(pins);
        self.check("fetch", &new.origin.url, command, OUTPUT_MAX).await.map(drop)
    }

    async fn bring_revision(
        &self,
        clone: Bare<'_>,
        revision: &str,
    ) -> Result<Resolved, FetchError> {
        match self.resolve(clone, revision).await {
            Err(FetchError::Git { .. } | FetchError::Process { .. }) => {}
            known => return known,
        }
        // Most servers hand out any revision they know; for the others, all branches and tags may
        // hold it.
        let mut failure = None;
        for refspecs in [
            vec![format!("+{revision}:{}", objects::pin_name(revision))],
            vec![
                "+refs/heads/*:refs/brigandine/all/heads/*".to_owned(),
                "+refs/tags/*:refs/brigandine/all/tags/*".to_owned(),
            ],
        ] {
            let said = self.fetch_into(clone, &refspecs).await?;
            match self.resolve(clone, revision).await {
                Err(FetchError::Git { .. } | FetchError::Process { .. }) => {}
                Ok(found) => {
                    self.pin_locked(clone, revision).await?;
                    return Ok(found);
                }
                refused => return refused,
            }
            failure = said.or(failure);
        }
        match failure {
            Some(said) if !said.contains("not our ref") => Err(fetch_failed(clone.origin, said)),
            _ => {
                let reference = Reference::Revision(revision.to_owned());
                Err(self.no_reference(clone.origin, &reference).await)
            }
        }
    }

    pub(in crate::input) async fn resolve(
        &self,
        clone: Bare<'_>,
        name: &str,
    ) -> Result<Resolved, FetchError> {
        if by_git::is_for(clone.path) {
            return by_git::resolve(self, clone, name).await;
        }
        let answer = self.ask("read", clone, About::Resolve { name: name.to_owned() }).await?;
        let found = serde_json::from_slice::<Option<Resolved>>(&answer).ok().flatten();
        let url = || redact(&clone.origin.url);
        found.ok_or_else(|| FetchError::Unreadable { doing: "read", url: url() })
    }

    /// Keeps a revision from being collected, although a force push may take away its branch.
    pub(crate) async fn pin(&self, url: &str, revision: &str) -> Result<(), FetchError> {
        let origin = Origin::input(url);
        self.mended(&origin, revision, || self.pin_once(&origin, revision)).await
    }

    async fn pin_once(&self, origin: &Origin, revision: &str) -> Result<(), FetchError> {
        let path = self.path(origin);
        let _lock = self.lock(&path).await;
        self.pin_locked(Bare { origin, path: &path }, revision).await
    }

    async fn pin_locked(&self, clone: Bare<'_>, revision: &str) -> Result<(), FetchError> {
        if by_git::is_for(clone.path) {
            return by_git::pin(self, clone, revision).await;
        }
        let about = About::Pin { revision: revision.to_owned() };
        self.ask("keep a revision of", clone, about).await.map(drop)
    }
}

fn fetch_arguments(command: &mut Command) {
    command.args([
        OsStr::new("fetch"),
        OsStr::new("--quiet"),
        OsStr::new("--no-tags"),
        OsStr::new("--force"),
        OsStr::new("--no-write-fetch-head"),
        OsStr::new("--no-recurse-submodules"),
        // A shallow repository is built as far as it goes.
        OsStr::new("--update-shallow"),
    ]);
}

fn fetch_failed(origin: &Origin, said: String) -> FetchError {
    FetchError::Git { doing: "fetch", url: redact(&origin.url), said }
}
