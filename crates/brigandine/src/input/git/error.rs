//! Why a repository could not be fetched or read.

use crate::os::file::is_full;
use crate::os::process::CaptureError;
use std::io;
use std::path::PathBuf;

/// Why a repository could not be fetched or read. `doing` is the verb of the message, `url` is without its password.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// git could not be run, took too long or printed too much.
    #[error("{doing} {url}: git {source}")]
    Process { doing: &'static str, url: String, source: CaptureError },
    /// git failed with these last words, perhaps because the clone is damaged.
    #[error("{doing} {url}: {said}")]
    Git { doing: &'static str, url: String, said: String },
    /// The clone is whole, but holds something that cannot be built.
    #[error("{doing} {url}: {said}")]
    Refused { doing: &'static str, url: String, said: String },
    /// The repository has no such reference (`branch main`, `tag v1`, …). The hint says what it has.
    #[error("{url} has no {reference}; {hint}")]
    NoReference { url: String, reference: String, hint: String },
    /// git printed something unexpected.
    #[error("{doing} {url}: git's answer cannot be understood")]
    Unreadable { doing: &'static str, url: String },
    /// A file of the state directory cannot be read or written.
    #[error("{}: {source}", .path.display())]
    File { path: PathBuf, source: io::Error },
}

/// The messages of programs when a disk or the user's quota has no room for bytes or files.
const FULL: [&str; 2] = ["No space left on device", "Disk quota exceeded"];

impl FetchError {
    /// Whether a disk was full. There may be room again, because half-written files have been removed.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Git { said, .. } => FULL.iter().any(|full| said.contains(full)),
            Self::File { source, .. } => is_full(source),
            _ => false,
        }
    }

    /// Whether a fetch failed. A later fetch may succeed.
    pub(crate) fn is_of_fetch(&self) -> bool {
        match self {
            // git-lfs fetches large files while git writes them.
            Self::Git { doing, said, .. } => {
                *doing == "fetch" || said.contains("smudge filter lfs")
            }
            Self::Process { doing, .. } => *doing == "fetch",
            Self::NoReference { .. } => true,
            Self::Refused { .. } | Self::Unreadable { .. } | Self::File { .. } => false,
        }
    }

    /// Whether the clone may be damaged, so that a new clone may work.
    pub(super) fn may_be_damage(&self) -> bool {
        match self {
            // A filter such as LFS reads no objects of the clone, and a full disk is no damage.
            Self::Git { said, .. } => !said.contains("smudge filter") && !self.is_full(),
            Self::Unreadable { .. } => true,
            _ => false,
        }
    }
}
