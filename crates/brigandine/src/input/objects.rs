//! What a repository holds, read by libgit2 rather than by a git process per question: revisions, listings, files,
//! and new revisions of a repository on this machine. Called in a process of its own: see `reader.rs`.
//!
//! Only reading and plain object writing happens here. Whatever talks to another machine, rewrites
//! a URL, converts files or collects garbage is left to git's own program, and so is everything
//! that is larger than [`OBJECTS_MAX`] or [`BYTES_MAX`], and every repository that libgit2 does not know how to read.
//!
//! O1: an object of a clone has all that it names beside it, down to where its source is shallow. git writes packs,
//! whole or not at all (`fetch.unpackLimit=1`), and [`follow`] writes an object after everything it names; so a copy
//! may stop at whatever the clone has already.

use super::git::Resolved;
use crate::model::one_line;
use crate::os::digest::hex;
use git2::{ObjectType, Odb, OdbLookupFlags, Oid, Repository};
use sha2::{Digest, Sha256};
use std::io::Write as _;
use std::path::Path;
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
pub(super) const PATHS_BYTES_MAX: usize = 256 << 20;
pub(super) const PATH_BYTES_MAX: usize = 4096;
/// What is kept of a revision's author and subject, which anybody writes as they like.
const AUTHOR_BYTES_MAX: usize = 200;
const SUBJECT_BYTES_MAX: usize = 400;

/// Why a question has no answer.
#[derive(Debug)]
pub(super) enum ObjectError {
    /// The repository is whole, and has what cannot be used: for people.
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

/// What a reference or a full revision stands for in a clone.
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

/// What is kept of a revision.
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

/// Of a tag or a revision that stands for something else: for people.
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
/// A few trees that name each other many times over are as many files as one likes, so it ends by itself when there
/// are more than `most` files and folders, or more bytes of paths than [`PATHS_BYTES_MAX`].
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
            // The kind of an object says nothing that its mode does not.
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

/// The contents of as many of these files as fit into `most` bytes, one at least, each after a byte that says whether
/// it is there (0: it is larger than `bytes_max`) and the eight bytes of its length.
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
            contents.extend_from_slice(&[0; 9]);
            continue;
        }
        if place > 0 && contents.len() + size > most {
            break;
        }
        let object = odb.read(id)?;
        contents.push(1);
        contents.extend_from_slice(&(object.data().len() as u64).to_le_bytes());
        contents.extend_from_slice(object.data());
    }
    Ok(contents)
}

/// What [`read`] gave: a file each, `None` if it is too large. `None` altogether: it is not what [`read`] gives.
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

/// Keeps a revision from being collected, although a force push may take away its branch.
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

/// The name under which a clone keeps what a reference of its source stands for. Not the source's own: a branch
/// `release` may become a folder of branches, and two names of which one is a folder of the other cannot both be kept.
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

/// Removes references.
pub(super) fn remove_references(clone: &Repository, names: &[String]) -> Result<(), ObjectError> {
    for name in names {
        clone.find_reference(name)?.delete()?;
    }
    Ok(())
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
) -> Result<bool, ObjectError> {
    // Refuses, as git does, what belongs to somebody else.
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
    // Once for all: packs that came since the clone was opened.
    to.refresh()?;
    let mut copy = Copy { from, to, objects: 0, bytes: 0, deadline };
    if !copy.revisions(&source, wanted)? {
        return Ok(false);
    }
    clone.reference(local, wanted, true, "")?;
    Ok(true)
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

    /// A tree after all that is in it.
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

    /// An object that is not here, after all that it names.
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
