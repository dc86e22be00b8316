//! A revision, as it is shown and stored.

use serde::{Deserialize, Serialize};

/// The revision that an input's reference names right now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resolved {
    /// The full revision.
    pub(crate) revision: String,
    /// The first line of the revision's message.
    pub(crate) subject: String,
    /// The author's name.
    pub(crate) author: String,
    /// When it was committed, in UTC seconds.
    pub(crate) revision_at: i64,
}
