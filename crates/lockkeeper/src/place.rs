//! Where a database is stored, and what its connections are for.

use std::path::PathBuf;

/// Where a database is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the file with this absolute path.
    File(PathBuf),
    Memory,
    /// Nowhere: the given path cannot be the path of a file, for this reason.
    Nowhere(Refusal),
}

/// A message that says why a path cannot be used. It names the path and says what to do.
pub(crate) type Refusal = String;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Writer,
    Reader,
    /// Only copies the WAL back into the file.
    Copier,
    /// A private copy of a memory database.
    Copy,
}
