//! Why a repository could not be looked at.

use crate::os::process::CaptureError;
use std::io;
use std::path::PathBuf;

/// Why a repository could not be looked at.
#[derive(Debug)]
pub(crate) enum FetchError {
    /// The process git could not be run, took too long or wrote too much.
    Process {
        /// What it was to do.
        doing: &'static str,
        /// The repository.
        url: String,
        /// Why.
        source: CaptureError,
    },
    /// git said no, perhaps because the clone is damaged.
    Git {
        /// What it was to do.
        doing: &'static str,
        /// The repository.
        url: String,
        /// Its last words.
        said: String,
    },
    /// The repository has what cannot be built, and its clone is as it is.
    Refused {
        /// What was to be done.
        doing: &'static str,
        /// The repository.
        url: String,
        /// Why it cannot, for people.
        said: String,
    },
    /// The repository is there, and the reference is not.
    NoReference {
        /// The repository.
        url: String,
        /// `branch main`, `tag v1`, …
        reference: String,
        /// What there is instead, for people.
        hint: String,
    },
    /// git said something that cannot be understood.
    Unreadable {
        /// What it was to do.
        doing: &'static str,
        /// The repository.
        url: String,
    },
    /// A file of the state directory.
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl std::fmt::Display for FetchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Process { doing, url, source } => write!(f, "{doing} {url}: git {source}"),
            Self::Git { doing, url, said } | Self::Refused { doing, url, said } => {
                write!(f, "{doing} {url}: {said}")
            }
            Self::NoReference { url, reference, hint } => {
                write!(f, "{url} has no {reference}; {hint}")
            }
            Self::Unreadable { doing, url } => {
                write!(f, "{doing} {url}: git's answer cannot be understood")
            }
            Self::File { path, source } => write!(f, "{}: {source}", path.display()),
        }
    }
}

impl std::error::Error for FetchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Process { source, .. } => Some(source),
            Self::File { source, .. } => Some(source),
            Self::Git { .. }
            | Self::Refused { .. }
            | Self::NoReference { .. }
            | Self::Unreadable { .. } => None,
        }
    }
}

/// How programs say that there is no room: by bytes, by files, or for this user.
const FULL: [&str; 2] = ["No space left on device", "Disk quota exceeded"];

impl FetchError {
    /// Whether a disk was full. It may have room again by now: what could not be written whole was removed.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Git { said, .. } => FULL.iter().any(|full| said.contains(full)),
            Self::File { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Process { .. }
            | Self::Refused { .. }
            | Self::NoReference { .. }
            | Self::Unreadable { .. } => false,
        }
    }

    /// Whether somebody else's repository did not give what was asked of it, which may pass.
    pub(crate) fn is_of_fetch(&self) -> bool {
        match self {
            // Large files are fetched while they are written.
            Self::Git { doing, said, .. } => {
                *doing == "fetch" || said.contains("smudge filter lfs")
            }
            Self::Process { doing, .. } => *doing == "fetch",
            Self::NoReference { .. } => true,
            Self::Refused { .. } | Self::Unreadable { .. } | Self::File { .. } => false,
        }
    }

    /// Whether a new clone may do what this one could not.
    pub(in crate::input) fn may_be_damage(&self) -> bool {
        match self {
            // A filter such as LFS reads no objects of git's, and a folder can be full whatever is written there.
            Self::Git { said, .. } => !said.contains("smudge filter") && !self.is_full(),
            Self::Unreadable { .. } => true,
            Self::Process { .. }
            | Self::Refused { .. }
            | Self::NoReference { .. }
            | Self::File { .. } => false,
        }
    }
}
