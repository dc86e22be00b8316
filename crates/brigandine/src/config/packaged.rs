//! The state directory of commands that are told none.

use super::load;
use super::server::Config;
use std::path::{Path, PathBuf};
use toml::de::DeTable;

/// The configuration of the package.
pub(crate) const PACKAGED: &str = "/etc/brigandine/brigandine.toml";

/// The state directory of the package, unless its configuration names another one.
const PACKAGED_STATE: &str = "/var/lib/brigandine";

/// The state directory of a command that is told none: `brigandine-state` if the folder `here` has it, or else that of
/// the package, whose configuration is `packaged`.
pub(crate) fn usual_state(here: &Path, packaged: &Path) -> PathBuf {
    let usual = Config::default().state;
    if here.join(&usual).exists() {
        return usual;
    }
    packaged_state(packaged).unwrap_or(usual)
}

/// The state directory that the configuration `file` names. Mistakes in the file are for `check` and the server: commands
/// are needed most while it has some. `None`: there is no such file.
fn packaged_state(file: &Path) -> Option<PathBuf> {
    if matches!(file.try_exists(), Ok(false)) {
        return None;
    }
    let text = load(file).unwrap_or_default();
    let (table, _) = DeTable::parse_recoverable(&text);
    let named = table.get_ref().iter().find(|(name, _)| name.get_ref() == "state");
    let named = named.and_then(|(_, value)| value.get_ref().as_str());
    let folder = file.parent().unwrap_or(Path::new(""));
    Some(named.map_or_else(|| PACKAGED_STATE.into(), |state| folder.join(state)))
}
