//! One instance per file and process.
//!
//! Two `Database`s on one file in one process would be two writers that wait for each other's lock, two checkpointers,
//! and readers that do not see what the other instance has answered. Worse, a file that is opened by two hard links has
//! two WALs, and two writers with two WALs destroy the file. So a file is claimed when it is opened, by its resolved
//! path and by device and inode. The claim is released when the last connection has been closed.
//!
//! | state of an entry | what may be trusted | left by |
//! |---|---|---|
//! | claimed | no other instance has the path; the file may not exist yet | `Claim::confirm`, drop |
//! | confirmed | the file exists; its device and inode are known | `share`, drop |
//! | shared | the instance is wholly open; other openers can share it (`shared.rs`) | drop |
//! | closing | the instance's queue is closed; another opener waits until the entry is removed | drop |
//!
//! - INST1: an opener searches the table and adds its entry under one lock, so of two openers one is refused.
//! - INST2: an entry that was made before a fork belongs to the parent. The child must not open that file: SQLite's list of
//!   open files was copied with the memory, and says that this process holds locks that only the parent holds
//!   (<https://www.sqlite.org/howtocorrupt.html>, 2.6).
//! - INST3: a file that a writer has attached, and can write, cannot be opened as a database. `BEGIN IMMEDIATE` locks
//!   both files. If two databases attached each other's file, each would hold one lock and wait for the other.
//!
//! Bound: one entry per open database.

use std::any::Any;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;
use std::time::Instant;

use super::file::DatabaseFile;
use super::path::{self, FileId, identity};
use crate::config::Config;
use crate::error::{Error, ErrorKind};
use crate::place::Place;
use crate::queue::{Item, Queue, after};
use crate::sync::{Condvar, Mutex, lock, now, wait_until};

/// All entries of this process. [`RELEASED`] is notified when an entry is removed or shared.
static ENTRIES: Mutex<Vec<Entry>> = Mutex::new(Vec::new());
static RELEASED: Condvar = Condvar::new();

struct Entry {
    id: u64,
    /// The absolute form of the path that the caller gave.
    path: PathBuf,
    /// The path with symbolic links resolved. SQLite derives the name of the WAL from it.
    resolved: PathBuf,
    file: Option<FileId>,
    /// The attached files that the writer of this instance can write, by resolved path.
    attached: Vec<(PathBuf, Option<FileId>)>,
    opened_by: &'static Location<'static>,
    /// The writer's queue; its address identifies the instance.
    writer: Arc<dyn Intake>,
    /// `None`: the instance is not wholly open yet.
    shared: Option<Handle>,
    pid: u32,
}

/// The queue of an instance, without the type of its calls.
trait Intake: Send + Sync {
    /// False: the instance is being closed.
    fn is_open(&self) -> bool;
}

impl<C: Item> Intake for Queue<C> {
    fn is_open(&self) -> bool {
        Self::is_open(self)
    }
}

/// A weak handle to a database, by which other openers share the instance. Its type is declared in `shared.rs`, which
/// this file may not use.
pub(crate) type Handle = Arc<dyn Any + Send + Sync>;

/// The outcome of an attempt to claim a file.
pub(crate) enum Claimed {
    /// There is no file: the database is in memory.
    Nothing,
    Own(Claim),
    /// Another instance has the file, and this handle shares it.
    Other(Handle),
}

/// The claim of an instance to its file; released when dropped.
#[derive(Debug)]
pub(crate) struct Claim(u64);

impl Claim {
    /// Claims `file`, which `config` names, for the instance with the queue `writer`.
    ///
    /// If another instance has the file, this function waits in two cases, for the busy timeout at most. If that
    /// instance is being closed, it waits for the end of the close. If that instance is being opened and `config`
    /// allows sharing it, it waits until that instance is wholly open.
    pub(crate) fn take<C: Item>(
        config: &Config,
        file: &DatabaseFile,
        writer: &Arc<Queue<C>>,
    ) -> Result<Claimed, Error> {
        let (Place::File(path), Some(resolved)) = (&config.place, file.path()) else {
            return Ok(Claimed::Nothing);
        };
        let give_up_at = after(config.busy_timeout);
        let mut entries = lock(&ENTRIES);
        loop {
            // Read again after each wait, because another file may be at the path now.
            let file = identity(resolved);
            let other = conflict(&entries, resolved, file, None);
            let Some(other) = other.or_else(|| attaching(&entries, resolved, file)) else {
                let id = entries.iter().map(|entry| entry.id).max().unwrap_or(0) + 1;
                entries.push(Entry {
                    id,
                    path: path.clone(),
                    resolved: resolved.to_owned(),
                    file,
                    attached: Vec::new(),
                    opened_by: config.opened_by,
                    writer: Arc::<Queue<C>>::clone(writer),
                    shared: None,
                    pid: crate::process::id(),
                });
                return Ok(Claimed::Own(Self(id)));
            };
            let waits = config.share
                && other.pid == crate::process::id()
                && other.writer.is_open()
                && !attaches(other, resolved, file);
            match &other.shared {
                Some(other) if waits => return Ok(Claimed::Other(Handle::clone(other))),
                None if waits && now() < give_up_at => {}
                _ => check(other, path, resolved, give_up_at)?,
            }
            entries = wait_until(&RELEASED, entries, give_up_at);
        }
    }

    /// To be called when the file exists. Refuses the file if another instance has opened it by another name.
    pub(crate) fn confirm(&self) -> Result<(), Error> {
        let mut entries = lock(&ENTRIES);
        let Some(index) = entries.iter().position(|entry| entry.id == self.0) else {
            return Ok(());
        };
        let file = identity(&entries[index].resolved);
        entries[index].file = file;
        let own = &entries[index];
        match conflict(&entries, &own.resolved, file, Some(self.0)) {
            Some(other) => Err(refusal(other, &own.path, &own.resolved)),
            None => Ok(()),
        }
    }
}

/// Whether this process has the file at the resolved path `path` open, by this name or another one.
pub(crate) fn is_open(path: &Path) -> bool {
    let (entries, file) = (lock(&ENTRIES), identity(path));
    conflict(&entries, path, file, None).or_else(|| attaching(&entries, path, file)).is_some()
}

/// Whether this process has a database open by this path. Inodes are not compared, because the inode of a database that
/// was deleted and is still being closed may belong to another file by now.
pub(crate) fn is_open_as(path: &Path) -> bool {
    let attached = |entry: &Entry| entry.attached.iter().any(|(other, _)| other == path);
    lock(&ENTRIES).iter().any(|entry| entry.resolved == path || attached(entry))
}

/// Notes the attached files that the writer of this instance can write (INST3). Refuses a file that a database of this
/// process has open. But if that database is being closed, waits for the end of the close first, for the busy timeout
/// at most.
pub(crate) fn attach(
    config: &Config,
    own: &DatabaseFile,
    files: Vec<PathBuf>,
) -> Result<(), Error> {
    let (own, give_up_at) = (own.path(), after(config.busy_timeout));
    let mut entries = lock(&ENTRIES);
    let mut attached = Vec::new();
    for file in files {
        let resolved = path::resolve(&file).unwrap_or(file);
        while let Some(other) = conflict(&entries, &resolved, identity(&resolved), None) {
            let goes_soon = !other.writer.is_open() && other.pid == crate::process::id();
            if !goes_soon || Some(&*other.resolved) == own || now() >= give_up_at {
                let (file, first) = (resolved.display(), other.path.display());
                return Err(Error::new(ErrorKind::AlreadyOpen).detail(format!(
                    "`setup` attaches {file}, which this process opened as {first} at {}: each would wait \
                     for the other's lock; attach it read-only (`ATTACH 'file:{file}?mode=ro' AS …`), or \
                     write to it through that `Database`",
                    other.opened_by
                )));
            }
            entries = wait_until(&RELEASED, entries, give_up_at);
        }
        let id = identity(&resolved);
        attached.push((resolved, id));
    }
    if let Some(own) = entries.iter_mut().find(|entry| Some(&*entry.resolved) == own) {
        own.attached = attached;
    }
    Ok(())
}

/// The other path by which this process has the file at the resolved path `path` open; `None`: there is no such path.
/// SQLite would not find the file's WAL by `path`.
pub(crate) fn other_name(path: &Path) -> Option<PathBuf> {
    let entries = lock(&ENTRIES);
    let entry = conflict(&entries, path, identity(path), None)?;
    (entry.resolved != path).then(|| entry.resolved.clone())
}

/// To be called when the instance with the queue `writer` is wholly open: other openers can share the instance through
/// `instance`.
pub(crate) fn share<C: Item>(writer: &Arc<Queue<C>>, instance: Handle) {
    let mut entries = lock(&ENTRIES);
    let is_own = |entry: &Entry| ptr::addr_eq(Arc::as_ptr(&entry.writer), Arc::as_ptr(writer));
    if let Some(entry) = entries.iter_mut().find(|entry| is_own(entry)) {
        entry.shared = Some(instance);
        RELEASED.notify_all();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut entries = lock(&ENTRIES);
        let gone = entries.iter().position(|entry| entry.id == self.0);
        let gone = gone.map(|index| entries.swap_remove(index));
        RELEASED.notify_all();
        drop(entries);
        // Outside the lock, because the entry may hold the last reference to a queue.
        drop(gone);
    }
}

/// `Ok`: `other` is being closed, and the caller can wait for that. The error says why the file cannot be opened.
fn check(other: &Entry, path: &Path, resolved: &Path, give_up_at: Instant) -> Result<(), Error> {
    // INST2
    if other.pid != crate::process::id() {
        let (path, by) = (path.display(), other.opened_by);
        return Err(Error::new(ErrorKind::Forked).detail(format!(
            "{path} was open (opened at {by}) when this process was forked, and SQLite cannot open \
             it again here; fork before it is opened, or run another program (exec)"
        )));
    }
    if !other.writer.is_open() && now() < give_up_at {
        return Ok(());
    }
    Err(refusal(other, path, resolved))
}

fn refusal(other: &Entry, path: &Path, resolved: &Path) -> Error {
    let (first, by, path) = (other.path.display(), other.opened_by, path.display());
    let state = match other.writer.is_open() {
        true if other.shared.is_none() => "it is being opened; wait for that",
        true => "use a clone of that `Database`, or `open_shared`, or close it first",
        false => "it is being closed, and a call or a held transaction keeps it; end that first",
    };
    Error::new(ErrorKind::AlreadyOpen).detail(match attaches(other, resolved, identity(resolved)) {
        true => format!(
            "{path} is attached by the `setup` of {first}, which this process opened at {by}; write to it \
             through that `Database`, or attach it read-only there"
        ),
        false => format!("{path} is the file that this process opened as {first} at {by}; {state}"),
    })
}

/// The instance whose writer has attached this file and can write it.
fn attaching<'e>(entries: &'e [Entry], path: &Path, file: Option<FileId>) -> Option<&'e Entry> {
    entries.iter().find(|entry| attaches(entry, path, file))
}

fn attaches(entry: &Entry, path: &Path, file: Option<FileId>) -> bool {
    entry.attached.iter().any(|(other, id)| other == path || (file.is_some() && *id == file))
}

/// The instance, other than `but`, that has this file open.
fn conflict<'e>(
    entries: &'e [Entry],
    resolved: &Path,
    file: Option<FileId>,
    but: Option<u64>,
) -> Option<&'e Entry> {
    entries.iter().filter(|entry| Some(entry.id) != but).find(|entry| {
        // An equal path is a conflict even if another file is at it by now, because both WALs would have the same name.
        entry.resolved == resolved || (file.is_some() && entry.file == file)
    })
}
