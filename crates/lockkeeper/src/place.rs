//! Where a database is stored, and what its connections are for.

use std::path::PathBuf;

/// Where a database is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// An absolute path.
    File(PathBuf),
    Memory,
    /// The path cannot be that of a file, for this reason.
    Nowhere(Refusal),
}

/// Why a path cannot be used: it names the path and what to do.
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
