//! Reads repositories with libgit2, which is cheaper than a git process for each question: revisions, listings and
//! files. Also copies new revisions of a repository on this machine. Runs in processes of its own (`reader.rs`).
//!
//! This code only reads repositories and writes plain objects and references. git itself does the rest: it talks to
//! other machines, rewrites URLs, converts files, collects garbage, copies more than [`OBJECTS_MAX`] objects or
//! [`BYTES_MAX`] bytes, and reads repositories that libgit2 cannot read.
//!
//! - OBJ1: if a clone has an object, it has all objects that this object names, except where the source is shallow. git
//!   adds a whole pack or nothing (`fetch.unpackLimit=1`), and [`follow`] writes an object after all objects that it
//!   names. So a copy need not look behind an object that the clone already has.

use super::revision::Resolved;
use crate::model::one_line;
use crate::os::digest::hex;
use git2::{ObjectType, Odb, OdbLookupFlags, Oid, Repository};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

/// The most objects that [`follow`] copies. If there are more, git fetches them.
const OBJECTS_MAX: usize = 4096;
/// The most bytes of objects that [`follow`] copies.
const BYTES_MAX: usize = 32 << 20;
/// The most levels of trees in a listing, and the most new revisions that [`follow`] copies. [`follow`] copies trees of
/// at most a quarter of these levels.
const DEPTH_MAX: usize = 1024;
/// The most files and folders of a revision with its submodules.
pub(super) const FILES_MAX: usize = 1_000_000;
/// The most bytes of all paths of a listing.
pub(super) const PATHS_BYTES_MAX: usize = 256 << 20;
/// The most bytes of one path; the kernel accepts no longer path.
pub(super) const PATH_BYTES_MAX: usize = 4096;
/// The most bytes that are kept of a revision's author.
const AUTHOR_BYTES_MAX: usize = 200;
/// The most bytes that are kept of a revision's subject.
const SUBJECT_BYTES_MAX: usize = 400;

/// Why a question has no answer, for people.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ObjectError {
    /// The repository is whole, but holds something that cannot be used.
    Refused(String),
    /// The repository may be damaged.
    Failed(String),
}

impl From<git2::Error> for ObjectError {
    fn from(error: git2::Error) -> Self {
        Self::Failed(error.message().to_owned())
    }
}

fn refused<T>(why: &str) -> Result<T, ObjectError> {
    Err(ObjectError::Refused(why.to_owned()))
}

fn failed(why: &str) -> ObjectError {
    ObjectError::Failed(why.to_owned())
}

/// The revision that `name` names. `name` is a reference of the clone, or a full revision.
pub(super) fn resolve(clone: &Repository, name: &str) -> Result<Resolved, ObjectError> {
    let id = match full(name) {
        Some(id) => id,
        None => clone
            .find_reference(name)?
            .resolve()?
            .target()
            .ok_or_else(|| failed("it names nothing"))?,
    };
    let mut object = clone.find_object(id, None)?;
    while let Some(tag) = object.as_tag() {
        object = tag.target()?;
    }
    let kind = object.kind().unwrap_or(ObjectType::Any);
    let Ok(commit) = object.into_commit() else { return refused(&no_revision(kind.str())) };
    let encoding = commit.message_encoding().unwrap_or_default().to_ascii_lowercase();
    let latin = matches!(encoding.as_str(), "iso-8859-1" | "iso8859-1" | "latin1" | "latin-1");
    let text = |bytes: &[u8]| {
        if latin {
            bytes.iter().map(|byte| char::from(*byte)).collect()
        } else {
            String::from_utf8_lossy(bytes).into_owned()
        }
    };
    Ok(resolved(
        commit.id().to_string(),
        &text(commit.author().name_bytes()),
        commit.time().seconds(),
        &text(commit.summary_bytes().unwrap_or_default()),
    ))
}

/// A revision with its texts cut to one line.
pub(super) fn resolved(
    revision: String,
    author: &str,
    revision_at: i64,
    subject: &str,
) -> Resolved {
    let (author, subject) =
        (one_line(author, AUTHOR_BYTES_MAX), one_line(subject, SUBJECT_BYTES_MAX));
    Resolved { revision, author, revision_at, subject }
}

/// The message about a reference that names an object other than a revision.
pub(super) fn no_revision(kind: &str) -> String {
    format!(
        "what it names is a {kind} and no revision; name a branch, a tag of a revision, or a revision"
    )
}

fn full(name: &str) -> Option<Oid> {
    let plain = name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if plain { Oid::from_str(name).ok() } else { None }
}

/// All files of a revision, without those of its submodules, as `git ls-tree -r -z` prints them.
///
/// A few trees that name each other many times can stand for any number of files. So the listing fails above `most`
/// files and folders, or [`PATHS_BYTES_MAX`] bytes of paths.
pub(super) fn list(
    clone: &Repository,
    revision: &str,
    most: usize,
) -> Result<Vec<u8>, ObjectError> {
    let (mut count, mut bytes) = (0, 0);
    let root = clone.find_object(Oid::from_str(revision)?, None)?.peel_to_tree()?;
    let mut listing = Vec::new();
    let mut open = vec![(Vec::new(), root.id(), 0)];
    while let Some((below, id, depth)) = open.pop() {
        if depth > DEPTH_MAX {
            return refused("it has too many levels of directories");
        }
        for entry in &clone.find_tree(id)? {
            let path = [below.as_slice(), entry.name_bytes()].concat();
            (count, bytes) = (count + 1, bytes + path.len());
            if count > most || bytes > PATHS_BYTES_MAX {
                return refused(&too_many());
            }
            if entry.filemode_raw() & 0o170_000 == 0o040_000 {
                open.push(([path.as_slice(), b"/"].concat(), entry.id(), depth + 1));
                continue;
            }
            // A `-` replaces the object's kind, which follows from its mode.
            let written = write!(listing, "{:06o} - {}\t", entry.filemode_raw(), entry.id());
            written.map_err(|error| failed(&error.to_string()))?;
            listing.extend_from_slice(&path);
            listing.push(0);
        }
    }
    Ok(listing)
}

pub(super) fn too_many() -> String {
    format!("it has more than {FILES_MAX} files and folders, or too long paths")
}

/// The contents of as many of these files as fit into `most` bytes, but at least one, in the format of [`put`]. Files
/// larger than `bytes_max` are left out.
pub(super) fn read(
    clone: &Repository,
    objects: &[String],
    bytes_max: usize,
    most: usize,
) -> Result<Vec<u8>, ObjectError> {
    let odb = clone.odb()?;
    let mut contents = Vec::new();
    for (place, object) in objects.iter().enumerate() {
        let id = Oid::from_str(object)?;
        let (size, kind) = odb.read_header(id)?;
        if kind != ObjectType::Blob {
            return refused("it has a file that is none");
        }
        if size > bytes_max {
            put(&mut contents, None);
            continue;
        }
        if place > 0 && contents.len() + size > most {
            break;
        }
        put(&mut contents, Some(odb.read(id)?.data()));
    }
    Ok(contents)
}

/// Appends a file: a byte (1: the file follows, 0: it is left out), the eight bytes of its length, and its contents.
pub(super) fn put(contents: &mut Vec<u8>, file: Option<&[u8]>) {
    let data = file.unwrap_or_default();
    contents.push(file.is_some().into());
    contents.extend_from_slice(&(data.len() as u64).to_le_bytes());
    contents.extend_from_slice(data);
}

/// Reads what [`put`] wrote: for each file its contents, or `None` if it was left out. Returns `None` if the bytes are
/// incomplete.
pub(super) fn contents(mut answer: &[u8]) -> Option<Vec<Option<Vec<u8>>>> {
    let mut found = Vec::new();
    while let Some((there, rest)) = answer.split_first() {
        let (length, rest) = rest.split_first_chunk::<8>()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let (file, rest) = rest.split_at_checked(length)?;
        found.push((*there == 1).then(|| file.to_vec()));
        answer = rest;
    }
    Some(found)
}

/// Keeps a revision from being collected as garbage, although a force push may take its branch away.
pub(super) fn pin(clone: &Repository, revision: &str) -> Result<(), ObjectError> {
    let (name, id) = (pin_name(revision), Oid::from_str(revision)?);
    if clone.find_reference(&name).is_ok_and(|found| found.target() == Some(id)) {
        return Ok(());
    }
    clone.reference(&name, id, true, "")?;
    Ok(())
}

pub(super) fn pin_name(revision: &str) -> String {
    format!("{PINS}{revision}")
}

pub(super) const PINS: &str = "refs/brigandine/pins/";
pub(super) const TIPS: &str = "refs/brigandine/tips/";

/// The name of a clone's reference for a reference of its source. It is not the source's own name, because a branch
/// `release` may later become a folder `release/…`, and a repository cannot have both names.
pub(super) fn tip_name(remote: &str) -> String {
    format!("{TIPS}{}", &hex(&Sha256::digest(remote))[..32])
}

/// The names of all references of a clone, one a line.
pub(super) fn references(clone: &Repository) -> Result<Vec<u8>, ObjectError> {
    let mut found = Vec::new();
    for name in clone.references()?.names() {
        found.extend_from_slice(name?.as_bytes());
        found.push(b'\n');
    }
    Ok(found)
}

pub(super) fn remove_references(clone: &Repository, names: &[String]) -> Result<(), ObjectError> {
    for name in names {
        clone.find_reference(name)?.delete()?;
    }
    Ok(())
}

/// Copies the revision that `remote` names in the repository at `source` into the clone, and makes `local` name it.
/// `false`: there is too much to copy or no time left, or the clone has nothing of this reference yet.
///
/// # Errors
/// Something is not as expected. The caller leaves the fetch to git, which also reports what is wrong.
pub(super) fn follow(
    source: &Path,
    clone: &Repository,
    remote: &str,
    local: &str,
    deadline: Instant,
) -> Result<bool, ObjectError> {
    // Like git, this refuses a repository that belongs to another user.
    let source = Repository::open(source)?;
    let wanted = source.find_reference(remote)?.resolve()?;
    let wanted = wanted.target().ok_or_else(|| failed("a reference to nothing"))?;
    let Some(here) = clone.find_reference(local).ok().and_then(|found| found.target()) else {
        return Ok(false);
    };
    let (from, to) = (source.odb()?, clone.odb()?);
    if here == wanted && to.exists(wanted) {
        return Ok(true);
    }
    // Finds packs that were added after the clone was opened, once for all lookups below.
    to.refresh()?;
    let mut copy = Copy { from, to, objects: 0, bytes: 0, deadline };
    if !copy.revisions(&source, wanted)? {
        return Ok(false);
    }
    clone.reference(local, wanted, true, "")?;
    Ok(true)
}

/// A copy of objects from one repository to another. Its functions return `false` when there is too much to copy or no
/// time left. The objects that were copied until then do no harm (OBJ1).
struct Copy<'a> {
    from: Odb<'a>,
    to: Odb<'a>,
    objects: usize,
    bytes: usize,
    deadline: Instant,
}

impl Copy<'_> {
    /// Whether the clone has an object. Objects that git adds during the copy are not noticed and may be copied again.
    fn is_here(&self, id: Oid) -> bool {
        self.to.exists_ext(id, OdbLookupFlags::NO_REFRESH)
    }

    /// Copies a revision with the part of its history that the clone does not have, oldest first.
    fn revisions(&mut self, source: &Repository, wanted: Oid) -> Result<bool, ObjectError> {
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

    /// Copies a tree, after everything that is in it.
    fn tree(&mut self, source: &Repository, id: Oid, depth: usize) -> Result<bool, ObjectError> {
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

    /// Copies an object that the clone does not have. The caller has copied all objects that it names.
    fn object(&mut self, id: Oid) -> Result<bool, ObjectError> {
        let (size, kind) = self.from.read_header(id)?;
        (self.objects, self.bytes) = (self.objects + 1, self.bytes.saturating_add(size));
        let late = Instant::now() >= self.deadline;
        if late || self.objects > OBJECTS_MAX || self.bytes > BYTES_MAX {
            return Ok(false);
        }
        let written = self.to.write(kind, self.from.read(id)?.data())?;
        if written != id {
            return Err(failed("an object that is not what its name says"));
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
