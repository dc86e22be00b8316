//! One instance per file and process.
//!
//! Two `Database`s on one file in one process would be two writers that wait for each other's
//! lock, two checkpointers, and readers that do not see what the other has answered. Worse, a file
//! that is opened by two hard links has two WALs, and two writers with two WALs destroy it. So each
//! file is claimed when it is opened, by its resolved path and by device and inode, and the claim is
//! given back when its last connection has been closed.
//!
//! | state of an entry | what may be trusted | left by |
//! |---|---|---|
//! | claimed | the path is ours; the file may not exist yet | `Claim::confirm`, drop |
//! | confirmed | the file is there, its device and inode are known | `share`, drop |
//! | shared | it is wholly open: whoever wants this instance can have it (`shared.rs`) | drop |
//! | closing | its queue is closed: it goes soon, so another opener waits for it | drop |
//!
//! - INST1: the table is looked at and written under one lock, so of two openers one is refused.
//! - INST2: an entry that was made before a fork belongs to the parent. The child must not open that file:
//!   SQLite's own list of open files was copied with the memory, and says that this process holds locks
//!   which only the parent holds (<https://www.sqlite.org/howtocorrupt.html>, 2.6).
//! - INST3: a file that a writer has attached and can write is the main file of no database: `BEGIN IMMEDIATE` locks both,
//!   and of two databases that attach each other each would hold one lock and wait for the other.
//!
//! Bound: an entry per open database.

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

/// Guarded by its lock; [`RELEASED`] is rung after each removal.
static ENTRIES: Mutex<Vec<Entry>> = Mutex::new(Vec::new());
static RELEASED: Condvar = Condvar::new();

struct Entry {
    id: u64,
    /// As the caller named it.
    path: PathBuf,
    /// The same without links; SQLite names the WAL after this one.
    resolved: PathBuf,
    file: Option<FileId>,
    /// The resolved files that its writer can write besides.
    attached: Vec<(PathBuf, Option<FileId>)>,
    opened_by: &'static Location<'static>,
    /// The queue of its writer, which tells it from other instances.
    writer: Arc<dyn Intake>,
    /// `None`: it is not wholly open yet.
    shared: Option<Handle>,
    pid: u32,
}

/// What takes the calls of an instance.
trait Intake: Send + Sync {
    /// False: the instance is being closed.
    fn is_open(&self) -> bool;
}

impl<C: Item> Intake for Queue<C> {
    fn is_open(&self) -> bool {
        Self::is_open(self)
    }
}

/// What others can have an instance by: a weak handle to the database, whose type is declared above this file
/// (`shared.rs`).
pub(crate) type Handle = Arc<dyn Any + Send + Sync>;

/// What became of an attempt to claim a file.
pub(crate) enum Claimed {
    /// There is no file to be claimed.
    Nothing,
    Own(Claim),
    /// This instance has it, which will do as well.
    Other(Handle),
}

/// A file that belongs to one instance; given back when dropped.
#[derive(Debug)]
pub(crate) struct Claim(u64);

impl Claim {
    /// Claims `file`, which `config` names, for the instance with the queue `writer`.
    ///
    /// An instance that is being closed is waited for, for the busy timeout at most; so is one that is being
    /// opened, if it will do.
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
            // Again after each wait: an instance that was closed may have left another file.
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

    /// To be called when the file is there: whoever else has it, by whatever name, was first.
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

/// Whether this process has the file at the resolved path `path` open, by whatever name.
pub(crate) fn is_open(path: &Path) -> bool {
    let (entries, file) = (lock(&ENTRIES), identity(path));
    conflict(&entries, path, file, None).or_else(|| attaching(&entries, path, file)).is_some()
}

/// Whether this process has a database open by this very path. Another file may have got the number (inode) that a
/// database had which was deleted and is still being closed.
pub(crate) fn is_open_as(path: &Path) -> bool {
    let attached = |entry: &Entry| entry.attached.iter().any(|(other, _)| other == path);
    lock(&ENTRIES).iter().any(|entry| entry.resolved == path || attached(entry))
}

/// INST3. The writer of the instance of `config` is about to use these attached files, which it can write. One that is
/// being closed is waited for.
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

/// The path by which this process has the file at the resolved path `path` open, if it is another one: SQLite
/// would not find its WAL by `path`.
pub(crate) fn other_name(path: &Path) -> Option<PathBuf> {
    let entries = lock(&ENTRIES);
    let entry = conflict(&entries, path, identity(path), None)?;
    (entry.resolved != path).then(|| entry.resolved.clone())
}

/// The instance with the queue `writer` is wholly open, and can be had as `instance`.
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
        // Outside the lock: it may hold the last reference to a queue.
        drop(gone);
    }
}

/// Whether `other` is going to leave soon; otherwise why its file cannot be had.
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
    if attaches(other, resolved, identity(resolved)) {
        let (first, by, path) = (other.path.display(), other.opened_by, path.display());
        return Error::new(ErrorKind::AlreadyOpen).detail(format!(
            "{path} is attached by the `setup` of {first}, which this process opened at {by}; write to it \
             through that `Database`, or attach it read-only there"
        ));
    }
    let (first, by, path) = (other.path.display(), other.opened_by, path.display());
    let state = match other.writer.is_open() {
        true if other.shared.is_none() => "it is being opened; wait for that",
        true => "use a clone of that `Database`, or `open_shared`, or close it first",
        false => "it is being closed, and a call or a held transaction keeps it; end that first",
    };
    Error::new(ErrorKind::AlreadyOpen)
        .detail(format!("{path} is the file that this process opened as {first} at {by}; {state}"))
}

/// An instance whose writer can write this file, which is attached to it.
fn attaching<'e>(entries: &'e [Entry], path: &Path, file: Option<FileId>) -> Option<&'e Entry> {
    entries.iter().find(|entry| attaches(entry, path, file))
}

fn attaches(entry: &Entry, path: &Path, file: Option<FileId>) -> bool {
    entry.attached.iter().any(|(other, id)| other == path || (file.is_some() && *id == file))
}

fn conflict<'e>(
    entries: &'e [Entry],
    resolved: &Path,
    file: Option<FileId>,
    but: Option<u64>,
) -> Option<&'e Entry> {
    entries.iter().filter(|entry| Some(entry.id) != but).find(|entry| {
        // The path counts even when another file has taken its place: the WALs have one name.
        entry.resolved == resolved || (file.is_some() && entry.file == file)
    })
}
