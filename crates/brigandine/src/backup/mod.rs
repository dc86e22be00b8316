//! Backups: a directory with a copy of the database, of the build logs and of the outputs, and a manifest.
//!
//! ```text
//! DIR/manifest.json    what the backup has, and from which version (`manifest.rs`)
//! DIR/brigandine.db    the database, as it was at one moment
//! DIR/logs/ outputs/   the logs and outputs that this database names, unless they were left out
//! ```
//!
//! - BACK1: a backup has its name only when it is whole and on the disk: it is made in a folder beside its place, synced,
//!   and renamed to a name that nothing has (`create.rs`).
//! - BACK2: the database is copied first, and then the files that the copy names. So no row names a file that was made
//!   later. A file that was deleted meanwhile, as retention does, is counted in the manifest.
//! - BACK3: logs of attempts that the copy does not know are left out. A server that uses the copy gives their numbers to
//!   other attempts.
//! - BACK4: a restored directory has a database only when everything else is there: the database is copied under another
//!   name, which no server opens, and renamed last (`restore.rs`).
//! - BACK5: a restored directory has an identity of its own, so that its server ends no process of the server from which
//!   the backup was made, which may still run.

mod control;
mod create;
mod error;
mod manifest;
mod restore;
mod tree;

pub(crate) use control::{Control, Files, Step};
pub(crate) use create::{Parts, create};
pub(crate) use error::BackupError;
pub(crate) use manifest::Manifest;
pub(crate) use restore::{Restored, check_target, restore};

#[cfg(test)]
mod tests;
