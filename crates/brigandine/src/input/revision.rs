//! A revision, as it is shown and stored.

use serde::{Deserialize, Serialize};

/// The revision that an input's reference names right now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resolved {
    /// The full revision.
    pub(crate) revision: String,
    /// First line of its message.
    pub(crate) subject: String,
    /// Who wrote it.
    pub(crate) author: String,
    /// When it was committed.
    pub(crate) revision_at: i64,
}
