//! What a repository holds, read in this process by libgit2 rather than by a git process per
//! question: revisions, listings, files, and new revisions of a repository on this machine.
//!
//! Only reading and plain object writing happens here. Whatever talks to another machine, rewrites
//! a URL, converts files or collects garbage is left to git's own program, and so is everything
//! that is larger than [`OBJECTS_MAX`] or [`BYTES_MAX`]: a process can be killed, a call cannot.
//!
//! O1: an object of a clone has all that it names beside it. git writes packs, whole or not at all
//! (`fetch.unpackLimit=1`), and [`follow`] writes an object after everything it names; so a copy
//! may stop at whatever the clone has already.

use super::git::Resolved;
use super::tree::Entry;
use crate::model::one_line;
use git2::{ErrorClass, ErrorCode, ObjectType, Odb, OdbLookupFlags, Oid, Repository};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// How many objects are copied from a repository on this machine before git's program does it.
const OBJECTS_MAX: usize = 4096;
/// How many bytes of them.
const BYTES_MAX: usize = 32 << 20;
/// How deep trees may lie in one another, and how many revisions may come at once.
const DEPTH_MAX: usize = 1024;
/// How many files and folders a revision may have, with its submodules.
pub(super) const FILES_MAX: usize = 1_000_000;
/// How many bytes all paths of a listing may have, and one of them, which the kernel would not take.
const PATHS_BYTES_MAX: usize = 256 << 20;
const PATH_BYTES_MAX: usize = 4096;
/// What is kept of a revision's author and subject, which anybody writes as they like.
const AUTHOR_BYTES_MAX: usize = 200;
const SUBJECT_BYTES_MAX: usize = 400;
/// Open clones that nobody uses right now. Each may hold its packs open.
const IDLE_MAX: usize = 4;

/// Open clones, kept so that not everybody opens the same one again.
#[derive(Default)]
pub(super) struct Pool {
    /// Guard: the mutex. At most [`IDLE_MAX`]; one in use is not here.
    idle: Mutex<Vec<(PathBuf, Repository)>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Pool {
    /// Gives `f` an open clone. Blocks.
    pub(super) fn with<T>(
        &self,
        path: &Path,
        f: impl FnOnce(&Repository) -> Result<T, git2::Error>,
    ) -> Result<T, git2::Error> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let held = {
            let mut idle = idle();
            let place = idle.iter().position(|(known, _)| known == path);
            place.map(|place| idle.swap_remove(place).1)
        };
        let repository = match held {
            // A clone that somebody removed meanwhile is not the one that was opened.
            Some(held) if path.join("HEAD").exists() => held,
            _ => Repository::open_bare(path)?,
        };
        let done = f(&repository);
        let mut idle = idle();
        if idle.len() >= IDLE_MAX {
            idle.remove(0);
        }
        idle.push((path.to_owned(), repository));
        done
    }
}

/// What a reference or a full revision stands for in a clone.
pub(super) fn resolve(clone: &Repository, name: &str) -> Result<Resolved, git2::Error> {
    let object = match full(name) {
        Some(id) => clone.find_object(id, None)?,
        None => clone.find_reference(name)?.peel(ObjectType::Any)?,
    };
    let commit = object.peel_to_commit()?;
    let encoding = commit.message_encoding().unwrap_or_default().to_ascii_lowercase();
    let latin = matches!(encoding.as_str(), "iso-8859-1" | "iso8859-1" | "latin1" | "latin-1");
    let text = |bytes: &[u8]| {
        if latin {
            bytes.iter().map(|byte| char::from(*byte)).collect()
        } else {
            String::from_utf8_lossy(bytes).into_owned()
        }
    };
    Ok(Resolved {
        revision: commit.id().to_string(),
        author: one_line(&text(commit.author().name_bytes()), AUTHOR_BYTES_MAX),
        revision_at: commit.time().seconds(),
        subject: one_line(&text(commit.summary_bytes().unwrap_or_default()), SUBJECT_BYTES_MAX),
    })
}

fn full(name: &str) -> Option<Oid> {
    let plain = name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if plain { Oid::from_str(name).ok() } else { None }
}

fn not_understood(what: &str) -> git2::Error {
    git2::Error::new(ErrorCode::Invalid, ErrorClass::Tree, what)
}

/// All files of a revision, without those of its submodules.
///
/// A few trees that name each other many times over are as many files as one likes. No call can be killed, so it
/// ends by itself when there are more than `most` files and folders, or more bytes of paths than [`PATHS_BYTES_MAX`].
pub(super) fn list(
    clone: &Repository,
    revision: &str,
    prefix: &str,
    most: usize,
) -> Result<Vec<Entry>, git2::Error> {
    let (mut count, mut bytes) = (0, 0);
    let root = clone.find_object(Oid::from_str(revision)?, None)?.peel_to_tree()?;
    let mut entries = Vec::new();
    let mut open = vec![(prefix.to_owned(), root.id(), 0)];
    while let Some((below, id, depth)) = open.pop() {
        if depth > DEPTH_MAX {
            return Err(not_understood("it has too many levels of directories"));
        }
        for entry in &clone.find_tree(id)? {
            // A name that is not UTF-8 cannot be named by a pattern.
            let name = std::str::from_utf8(entry.name_bytes())
                .map_err(|_| not_understood("it has a file name that is not UTF-8"))?;
            let path = format!("{below}{name}");
            (count, bytes) = (count + 1, bytes + path.len());
            if count > most || bytes > PATHS_BYTES_MAX {
                return Err(not_understood(&format!(
                    "it has more than {FILES_MAX} files and folders, or too long paths"
                )));
            }
            if path.len() > PATH_BYTES_MAX {
                return Err(not_understood("it has a path that no file can have"));
            }
            if entry.filemode_raw() == 0o040_000 {
                open.push((format!("{path}/"), entry.id(), depth + 1));
                continue;
            }
            let entry = Entry::new(path, name, entry.filemode_raw(), entry.id().to_string());
            entries.push(entry.ok_or_else(|| not_understood("it has a file that cannot be"))?);
        }
    }
    Ok(entries)
}

/// The contents of a file. `None`: it has more than `bytes_max` bytes.
pub(super) fn read(
    clone: &Repository,
    object: &str,
    bytes_max: usize,
) -> Result<Option<Vec<u8>>, git2::Error> {
    let (id, odb) = (Oid::from_str(object)?, clone.odb()?);
    let (size, kind) = odb.read_header(id)?;
    if kind != ObjectType::Blob {
        return Err(not_understood("it has a file that is none"));
    }
    if size > bytes_max {
        return Ok(None);
    }
    Ok(Some(odb.read(id)?.data().to_vec()))
}

/// Keeps a revision from being collected, although a force push may take away its branch.
pub(super) fn pin(clone: &Repository, revision: &str) -> Result<(), git2::Error> {
    let (name, id) = (pin_name(revision), Oid::from_str(revision)?);
    if clone.find_reference(&name).is_ok_and(|found| found.target() == Some(id)) {
        return Ok(());
    }
    clone.reference(&name, id, true, "").map(drop)
}

pub(super) fn pin_name(revision: &str) -> String {
    format!("{PINS}{revision}")
}

const PINS: &str = "refs/brigandine/pins/";

/// The revisions that are pinned.
pub(super) fn pins(clone: &Repository) -> Result<Vec<String>, git2::Error> {
    let mut found = Vec::new();
    for name in clone.references_glob(&format!("{PINS}*"))?.names() {
        found.extend(name?.strip_prefix(PINS).map(str::to_owned));
    }
    Ok(found)
}

/// Lets go of a pinned revision.
pub(super) fn unpin(clone: &Repository, revision: &str) -> Result<(), git2::Error> {
    clone.find_reference(&pin_name(revision))?.delete()
}

/// Whether git would collect garbage, judged as git does: by one of the 256 folders of loose
/// objects, and by the packs.
pub(super) fn is_untidy(clone: &Path) -> bool {
    let count = |folder: &str| std::fs::read_dir(clone.join(folder)).map_or(0, Iterator::count);
    // A pack comes with an index, and often with a reverse index.
    count("objects/17") > 6700 / 256 || count("objects/pack") > 50 * 2
}

/// Brings what `remote` stands for in the repository at `source` into the clone, as `local`.
/// `false`: there is more to bring than this is good for, or none of it is here yet.
///
/// # Errors
/// Something is not as expected: git's own program knows better what to do or say.
pub(super) fn follow(
    source: &Path,
    clone: &Repository,
    remote: &str,
    local: &str,
    deadline: Instant,
) -> Result<bool, git2::Error> {
    // Refuses, as git does, what belongs to somebody else.
    let source = Repository::open(source)?;
    let wanted = source.find_reference(remote)?.resolve()?;
    let wanted = wanted.target().ok_or_else(|| not_understood("a reference to nothing"))?;
    let Some(here) = clone.find_reference(local).ok().and_then(|found| found.target()) else {
        return Ok(false);
    };
    let (from, to) = (source.odb()?, clone.odb()?);
    if here == wanted && to.exists(wanted) {
        return Ok(true);
    }
    // Once for all: packs that came since the clone was opened.
    to.refresh()?;
    let mut copy = Copy { from, to, objects: 0, bytes: 0, deadline };
    if !copy.revisions(&source, wanted)? {
        return Ok(false);
    }
    clone.reference(local, wanted, true, "").map(|_| true)
}

/// Objects on their way from one repository to another. Its functions say `false` when it is too
/// much; what was copied until then does no harm (O1).
struct Copy<'a> {
    from: Odb<'a>,
    to: Odb<'a>,
    objects: usize,
    bytes: usize,
    deadline: Instant,
}

impl Copy<'_> {
    /// Whether the clone has an object. One that came in this moment may be copied once more.
    fn is_here(&self, id: Oid) -> bool {
        self.to.exists_ext(id, OdbLookupFlags::NO_REFRESH)
    }

    /// A revision with its history, oldest first.
    fn revisions(&mut self, source: &Repository, wanted: Oid) -> Result<bool, git2::Error> {
        let mut order = Vec::new();
        let mut open = vec![(wanted, false)];
        let mut seen = std::collections::HashSet::new();
        while let Some((id, expanded)) = open.pop() {
            if expanded {
                order.push(id);
                continue;
            }
            if self.is_here(id) || !seen.insert(id) {
                continue;
            }
            if seen.len() > DEPTH_MAX {
                return Ok(false);
            }
            open.push((id, true));
            open.extend(source.find_commit(id)?.parent_ids().map(|parent| (parent, false)));
        }
        for id in order {
            let tree = source.find_commit(id)?.tree_id();
            if !self.tree(source, tree, 0)? || !self.object(id)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A tree after all that is in it.
    fn tree(&mut self, source: &Repository, id: Oid, depth: usize) -> Result<bool, git2::Error> {
        if self.is_here(id) {
            return Ok(true);
        }
        if depth > DEPTH_MAX / 4 {
            return Ok(false);
        }
        for entry in &source.find_tree(id)? {
            let copied = match entry.kind() {
                Some(ObjectType::Tree) => self.tree(source, entry.id(), depth + 1)?,
                // Submodules are in other repositories.
                Some(ObjectType::Commit) => true,
                _ if self.is_here(entry.id()) => true,
                _ => self.object(entry.id())?,
            };
            if !copied {
                return Ok(false);
            }
        }
        self.object(id)
    }

    /// An object that is not here, after all that it names.
    fn object(&mut self, id: Oid) -> Result<bool, git2::Error> {
        let (size, kind) = self.from.read_header(id)?;
        (self.objects, self.bytes) = (self.objects + 1, self.bytes.saturating_add(size));
        let late = Instant::now() >= self.deadline;
        if late || self.objects > OBJECTS_MAX || self.bytes > BYTES_MAX {
            return Ok(false);
        }
        let written = self.to.write(kind, self.from.read(id)?.data())?;
        if written != id {
            return Err(not_understood("an object that is not what its name says"));
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::Duration;

    struct Place {
        directory: tempfile::TempDir,
        clone: Repository,
    }

    /// A repository `source` with one revision, and a clone of it made by git.
    fn place() -> Place {
        let directory = tempfile::tempdir().expect("a directory");
        git(directory.path(), &["init", "-q", "--initial-branch=main", "source"]);
        git(directory.path(), &["init", "-q", "--bare", "--template=", "clone"]);
        let clone = Repository::open_bare(directory.path().join("clone")).expect("a clone");
        let place = Place { directory, clone };
        place.commit(&[("a/b/one", "1"), ("two", "2")]);
        place
    }

    fn git(directory: &Path, arguments: &[&str]) -> String {
        let done = Command::new("git")
            .arg("-C")
            .arg(directory)
            .args(["-c", "user.name=A", "-c", "user.email=a@b", "-c", "commit.gpgSign=false"])
            .args(arguments)
            .output()
            .expect("git");
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }

    impl Place {
        fn source(&self) -> PathBuf {
            self.directory.path().join("source")
        }

        fn commit(&self, files: &[(&str, &str)]) -> String {
            for (path, text) in files {
                let path = self.source().join(path);
                std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
                std::fs::write(path, text).expect("a file");
            }
            git(&self.source(), &["add", "--all"]);
            git(&self.source(), &["commit", "-q", "--allow-empty", "--message=a change\n\nmore"]);
            git(&self.source(), &["rev-parse", "HEAD"])
        }

        fn fetch(&self) {
            let source = self.source().to_string_lossy().into_owned();
            let clone = self.directory.path().join("clone");
            git(&clone, &["fetch", "-q", &source, "+refs/heads/main:refs/brigandine/heads/main"]);
        }

        fn follow_until(&self, deadline: Instant) -> Result<bool, git2::Error> {
            let local = "refs/brigandine/heads/main";
            follow(&self.source(), &self.clone, "refs/heads/main", local, deadline)
        }

        fn follow(&self) -> bool {
            let deadline = Instant::now() + Duration::from_secs(100);
            self.follow_until(deadline).expect("followed")
        }

        /// git itself finds nothing missing below the clone's references.
        fn check(&self, revision: &str) {
            let clone = self.directory.path().join("clone");
            git(&clone, &["fsck", "--full", "--strict"]);
            let here = git(&clone, &["rev-parse", "refs/brigandine/heads/main"]);
            assert_eq!(here, revision);
        }
    }

    #[test]
    fn a_branch_is_followed_over_merges_removals_and_force_pushes() {
        let place = place();
        assert!(!place.follow(), "nothing is here yet: git's own program is better at that");
        place.fetch();
        assert!(place.follow(), "nothing is new");
        let source = place.source();
        let old = place.commit(&[("a/b/three", "3")]);
        git(&source, &["checkout", "-q", "-b", "side", "HEAD~1"]);
        place.commit(&[("side", "s")]);
        git(&source, &["checkout", "-q", "main"]);
        git(&source, &["merge", "-q", "--no-edit", "side"]);
        git(&source, &["rm", "-q", "two"]);
        let merged = place.commit(&[]);
        assert!(place.follow());
        place.check(&merged);
        git(&source, &["reset", "-q", "--hard", &old]);
        let forced = place.commit(&[("forced", "f")]);
        assert!(place.follow());
        place.check(&forced);
        let found = resolve(&place.clone, "refs/brigandine/heads/main").expect("resolved");
        assert_eq!((found.revision, found.subject.as_str()), (forced.clone(), "a change"));
        let mut paths: Vec<String> = list(&place.clone, &forced, "x/", FILES_MAX)
            .expect("listed")
            .into_iter()
            .map(|entry| entry.path)
            .collect();
        paths.sort_unstable();
        assert_eq!(paths, ["x/a/b/one", "x/a/b/three", "x/forced", "x/two"]);
    }

    #[test]
    fn what_is_too_much_or_too_late_is_left_to_git() {
        let place = place();
        place.fetch();
        let before = git(&place.source(), &["rev-parse", "HEAD"]);
        let late = place.commit(&[("late", "l")]);
        assert!(!place.follow_until(Instant::now()).expect("no error"), "it is too late");
        place.check(&before);
        assert!(place.follow());
        place.check(&late);
        let names: Vec<String> = (0..=OBJECTS_MAX).map(|number| format!("many/{number}")).collect();
        let files: Vec<(&str, &str)> = names.iter().map(|name| (&**name, &**name)).collect();
        let many = place.commit(&files);
        assert!(!place.follow());
        place.check(&late);
        place.fetch();
        place.check(&many);
    }

    #[test]
    fn a_repository_that_is_not_whole_is_an_error_and_changes_nothing() {
        let place = place();
        place.fetch();
        let before = git(&place.source(), &["rev-parse", "HEAD"]);
        place.commit(&[("lost", "to be removed")]);
        let lost = git(&place.source(), &["rev-parse", "HEAD:lost"]);
        let (folder, rest) = lost.split_at(2);
        std::fs::remove_file(place.source().join(".git/objects").join(folder).join(rest))
            .expect("a loose object");
        let deadline = Instant::now() + Duration::from_secs(100);
        assert!(place.follow_until(deadline).is_err());
        place.check(&before);
    }

    #[test]
    fn pins_are_kept_listed_and_let_go() {
        let place = place();
        place.fetch();
        let revision = git(&place.source(), &["rev-parse", "HEAD"]);
        pin(&place.clone, &revision).expect("pinned");
        pin(&place.clone, &revision).expect("pinned again");
        assert_eq!(pins(&place.clone).expect("listed").as_slice(), std::slice::from_ref(&revision));
        unpin(&place.clone, &revision).expect("let go");
        assert!(pins(&place.clone).expect("listed").is_empty());
    }

    #[test]
    fn a_file_is_read_up_to_a_size() {
        let place = place();
        place.fetch();
        let object = git(&place.source(), &["rev-parse", "HEAD:a/b/one"]);
        assert_eq!(read(&place.clone, &object, 1).expect("read"), Some(b"1".to_vec()));
        assert_eq!(read(&place.clone, &object, 0).expect("read"), None);
    }
}
