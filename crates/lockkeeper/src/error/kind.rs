//! The kinds of errors.

use std::fmt;

#[cfg(doc)]
use super::Error;
use crate::queue::Phase;

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The closure itself returned an error; [`Error::into_call`] returns that error.
    Call,
    /// Another process kept the write lock for the whole busy timeout.
    Busy,
    /// The call's deadline passed.
    Timeout(Phase),
    /// The database was aborted while the call ran.
    Canceled,
    /// The call was undone together with its transaction, which another call lost. It was not run again, because it may
    /// run only once ([`write_once`](crate::Client::write_once)). The caller can make it again.
    NotApplied,
    /// An I/O error in COMMIT itself: the call's effects may or may not survive a crash.
    Unknown,
    /// The call was made inside another call, and waiting for it would be a deadlock: both calls are of the same
    /// database, or calls of several databases would wait for each other in a circle. Use the transaction or snapshot
    /// that the closure was given, or make the calls of several databases one after another.
    Nested,
    /// The call wrote inside a read, or in a database that was opened by
    /// [`Builder::read_only`](crate::Builder::read_only), or in a file that cannot be written.
    ReadOnly,
    /// The database is closed; nothing ran.
    Closed,
    /// Writes are stopped for now ([`Database::stop_writes`](crate::Database::stop_writes)); nothing ran.
    WritesStopped,
    /// A thread of the database died, or its connection could not be opened again.
    Faulted,
    /// The call's own statement rolled the whole transaction back (`OR ROLLBACK`,
    /// `RAISE(ROLLBACK)`, a full disk), but the closure returned `Ok`.
    RolledBack,
    /// The call left a deferred foreign key violated.
    ForeignKey,
    /// The snapshot was released because it reached its maximum age. Or the WAL reached its maximum size, and the
    /// snapshot was released or the read was stopped because it kept the WAL from starting over.
    SnapshotExpired,
    /// The [`Lease`](crate::Lease) was held, or left idle, for longer than allowed; everything that was
    /// done in it is rolled back.
    LeaseExpired,
    /// The lease is over: it was dropped in the middle of a call, or one of its statements rolled the
    /// whole transaction back. Nothing of it is stored.
    LeaseEnded,
    /// The maximum number of snapshots is held already.
    TooManySnapshots,
    /// The database is overloaded: the call had waited longer than the target of
    /// [`Builder::shed_after`](crate::Builder::shed_after) and was not run.
    Overloaded,
    /// The disk or the quota is full.
    DiskFull,
    /// The file is damaged, or is not a database.
    Corrupt,
    /// The database could not be opened.
    Open,
    /// There is no such file, and the settings do not allow to create it; see
    /// [`Builder::create_if_missing`](crate::Builder::create_if_missing).
    NotFound,
    /// This process has the file open already, perhaps by another name. The detail says where the file was opened.
    AlreadyOpen,
    /// The file is on a network file system, see [`NetworkFiles`](crate::NetworkFiles).
    NetworkFileSystem,
    /// This version of SQLite may lose commits.
    SqliteVersion,
    /// The file belongs to another program, or is not marked as belonging to any; see
    /// [`Migrations`](crate::Migrations).
    ForeignFile,
    /// The file was written by a newer version of this program.
    NewerFile,
    /// A step of the [`Migrations`](crate::Migrations) failed and was undone; the steps before it are kept.
    Migration,
    /// The database's file, or its WAL, was deleted, replaced or moved, or the file was emptied, while it was open. Every
    /// later call gets this error; the detail says what was found, when the file was last in its place, and what to do.
    Replaced,
    /// A backup failed; the previous one, if any, is untouched.
    Backup,
    /// A setting makes no sense.
    Config,
    /// The process forked; a connection must not be used in the child, nor its file opened there.
    Forked,
    /// Another failure of SQLite; see [`Error::sqlite`].
    Sqlite,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Call => "the call returned an error",
            Self::Busy => "the database is locked by another process, and the busy timeout is over",
            Self::Timeout(phase) => return write!(f, "the deadline passed while {phase}"),
            Self::Canceled => "the database was aborted while the call ran",
            Self::NotApplied => "the call was undone with its transaction; it may be made again",
            Self::Unknown => "an I/O error in COMMIT: whether the call was stored is not known",
            Self::Nested => {
                "called from inside a call that would wait for itself, directly or through calls of other \
                 databases; use the transaction or snapshot given to the closure"
            }
            Self::ReadOnly => "a write where nothing can be written",
            Self::Closed => "the database is closed",
            Self::WritesStopped => "writes are stopped for now; reads go on",
            Self::Faulted => "a thread or connection of the database is gone",
            Self::RolledBack => "a statement of the call rolled everything back",
            Self::ForeignKey => "the call left a foreign key violated",
            Self::SnapshotExpired => {
                "the snapshot was released: it reached its maximum age, or the WAL its maximum size"
            }
            Self::LeaseExpired => {
                "the lease was held or left idle for too long and is rolled back; await less in it, \
                 or raise `hold_max` or `idle_max`"
            }
            Self::LeaseEnded => "the lease is over and rolled back",
            Self::TooManySnapshots => "too many snapshots are held",
            Self::Overloaded => {
                "the database is overloaded; the call waited too long and never began"
            }
            Self::DiskFull => "the disk or the quota is full",
            Self::Corrupt => "the file is damaged or not a database",
            Self::Open => "the database could not be opened",
            Self::NotFound => "there is no such file",
            Self::AlreadyOpen => "the file is open already",
            Self::NetworkFileSystem => "the file is on a network file system",
            Self::SqliteVersion => "this version of SQLite is not safe",
            Self::ForeignFile => "the file is another program's",
            Self::NewerFile => "the file is newer than this program",
            Self::Migration => "the schema could not be brought up to date",
            Self::Replaced => "the file was deleted, replaced or emptied while it was open",
            Self::Backup => "the copy could not be made",
            Self::Config => "a setting makes no sense",
            Self::Forked => {
                "the process forked, and nothing of SQLite survives that; fork before opening, or \
                 run another program (exec)"
            }
            Self::Sqlite => "SQLite failed",
        })
    }
}
