//! How clones are made and kept up to date.

use super::error::FetchError;
use super::mend::remove_locks;
use super::name::clone_name;
use super::repositories::{Bare, OUTPUT_MAX, Repositories, last_words};
use crate::input::address::{Access, Origin};
use crate::input::objects;
use crate::input::reader::About;
use crate::input::revision::Resolved;
use crate::model::Reference;
use crate::model::redact;
use std::path::Path;
use std::process::Command;

impl Repositories {
    /// Makes an empty clone. `format` is `sha1` or `sha256`.
    pub(crate) async fn init(&self, clone: Bare<'_>, format: &str) -> Result<(), FetchError> {
        self.written(clone.path);
        let mut command = self.command(clone.path, clone.origin.access);
        command.env("GIT_DEFAULT_REF_FORMAT", "files");
        command.args(["init", "--quiet", "--bare", "--template="]);
        command.arg(format!("--object-format={format}"));
        self.check("prepare a clone of", &clone.origin.url, command, OUTPUT_MAX).await.map(drop)
    }

    /// Makes an empty clone, if there is none.
    pub(crate) async fn create(&self, clone: Bare<'_>) -> Result<(), FetchError> {
        let Bare { origin, path } = clone;
        if std::fs::symlink_metadata(path).is_ok() {
            return Ok(());
        }
        std::fs::create_dir_all(&self.directory)
            .map_err(|source| FetchError::File { path: self.directory.clone(), source })?;
        if origin.access == Access::Input {
            // Earlier versions gave the clone this name.
            let earlier = self.directory.join(clone_name(origin, 8));
            if earlier.join("HEAD").exists() && std::fs::rename(&earlier, path).is_ok() {
                return Ok(());
            }
        }
        self.init(clone, "sha1").await
    }

    /// Fetches the revision that `reference` names.
    ///
    /// # Cancel safety
    /// If the future is dropped, git is killed; the clone stays usable.
    pub(crate) async fn fetch(
        &self,
        url: &str,
        reference: &Reference,
    ) -> Result<Resolved, FetchError> {
        self.obtain(&Origin::input(url), reference).await
    }

    /// Fetches a revision, unless the clone has it.
    pub(crate) async fn ensure_revision(
        &self,
        origin: &Origin,
        revision: &str,
    ) -> Result<(), FetchError> {
        self.obtain(origin, &Reference::Revision(revision.to_owned())).await.map(drop)
    }

    /// Fetches the revision that `reference` names into a clone that the caller has locked.
    pub(crate) async fn bring(
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

    /// Runs `git fetch`. `Some`: git failed and printed these last words.
    async fn fetch_into(
        &self,
        clone: Bare<'_>,
        refspecs: &[String],
    ) -> Result<Option<String>, FetchError> {
        let url = &clone.origin.url;
        let mut command = self.command(clone.path, clone.origin.access);
        fetch_arguments(&mut command);
        if refspecs.iter().any(|refspec| refspec.contains('*')) {
            // If branches `x/…` have replaced a branch `x`, its old reference would keep them from being stored.
            command.arg("--prune");
        }
        command.arg("--").arg(url).args(refspecs);
        let done = self.run("fetch", url, command, OUTPUT_MAX).await;
        self.written(clone.path);
        let failed = !done.as_ref().is_ok_and(|done| done.status.success());
        if failed {
            remove_locks(clone.path);
        }
        done.map(|done| failed.then(|| last_words(&done)))
    }

    /// Fetches the pinned revisions of an old clone into a new one, because the source may have lost them.
    pub(crate) async fn take_over(&self, old: &Path, new: Bare<'_>) -> Result<(), FetchError> {
        for file in ["HEAD", "config"] {
            // These files are the same in all clones, and they may be damaged in the old one.
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
        // Most hosts send any revision that they have. From other hosts all branches and tags are fetched, whose
        // history may contain the revision.
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

    /// The revision that `name` names. `name` is a reference of the clone, or a full revision.
    async fn resolve(&self, clone: Bare<'_>, name: &str) -> Result<Resolved, FetchError> {
        let doing = "read";
        let answer = self.ask(doing, clone, About::Resolve { name: name.to_owned() }).await?;
        let found = serde_json::from_slice::<Option<Resolved>>(&answer).ok().flatten();
        let url = || redact(&clone.origin.url);
        found.ok_or_else(|| FetchError::Unreadable { doing, url: url() })
    }

    /// Keeps a revision from being collected as garbage, although a force push may take its branch away.
    pub(crate) async fn pin(&self, url: &str, revision: &str) -> Result<(), FetchError> {
        let origin = &Origin::input(url);
        let pin = move || async move {
            let path = self.path(origin);
            let _lock = self.lock(&path).await;
            self.pin_locked(Bare { origin, path: &path }, revision).await
        };
        self.mended(origin, revision, pin).await
    }

    async fn pin_locked(&self, clone: Bare<'_>, revision: &str) -> Result<(), FetchError> {
        let about = About::Pin { revision: revision.to_owned() };
        self.ask("keep a revision of", clone, about).await.map(drop)
    }
}

fn fetch_arguments(command: &mut Command) {
    command.args(["fetch", "--quiet", "--no-tags", "--force", "--no-write-fetch-head"]);
    // From a shallow source, git fetches the history that the source has.
    command.args(["--no-recurse-submodules", "--update-shallow"]);
}

fn fetch_failed(origin: &Origin, said: String) -> FetchError {
    FetchError::Git { doing: "fetch", url: redact(&origin.url), said }
}
