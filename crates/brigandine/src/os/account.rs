//! The user that this process runs as, and the users to whom files belong.

use nix::unistd::{Uid, User, getuid};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The name of the user that started this process; without a name, the number.
pub(crate) fn own_name() -> String {
    name(getuid())
}

/// The name of the user to whom a file belongs; without a name, `#` and the number, as `sudo` takes it. `None`: there is
/// no such file.
pub(crate) fn owner(of: &Path) -> Option<String> {
    let id = Uid::from_raw(of.metadata().ok()?.uid());
    let user = User::from_uid(id).ok().flatten();
    Some(user.map_or_else(|| format!("#{id}"), |user| user.name))
}

/// Whether this process is root's, and the file is another user's.
pub(crate) fn is_root_elsewhere(of: &Path) -> bool {
    getuid().is_root() && of.metadata().is_ok_and(|metadata| metadata.uid() != 0)
}

fn name(id: Uid) -> String {
    User::from_uid(id).ok().flatten().map_or_else(|| id.to_string(), |user| user.name)
}
