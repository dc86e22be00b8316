//! Where a database lives, and what its connections are for.

use std::path::PathBuf;

/// Where the database lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// From the root on.
    File(PathBuf),
    Memory,
    /// What was named can be no file, and why.
    Nowhere(Refusal),
}

/// Why a path cannot be used: which, and what to do.
pub(crate) type Refusal = String;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Writer,
    Reader,
    /// Copies the WAL back into the file, and nothing else.
    Copier,
    /// A private copy of a memory database.
    Copy,
}
