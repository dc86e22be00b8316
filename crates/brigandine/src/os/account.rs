//! The user that this process runs as.

use nix::unistd::{User, getuid};

/// The name of the user that started this process; without a name, the number.
pub(crate) fn own_name() -> String {
    let id = getuid();
    User::from_uid(id).ok().flatten().map_or_else(|| id.to_string(), |user| user.name)
}
