//! Restores a backup into an empty directory, whose server then says what was restored.

use super::control::{Control, Files, Step};
use super::error::BackupError;
use super::manifest::{self, DATABASE, Manifest};
use super::tree::Copier;
use crate::model::Timestamp;
use crate::os::file::{of, open_regular};
use crate::os::folder::{remove_all, room};
use crate::os::state_dir::{LOGS, OUTPUTS, StateDir};
use crate::store::{self, DatabaseCopy};
use rustix::fs::syncfs;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The most bytes of the note about a restore.
const NOTE_BYTES_MAX: u64 = 1 << 16;

/// A note in a restored state directory, which the first server reads and removes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Restored {
    /// The backup.
    pub(crate) backup: PathBuf,
    /// When the backup was made.
    pub(crate) made_at: Timestamp,
    /// The version of the program that made it.
    pub(crate) version: String,
    /// Whether the logs were restored.
    pub(crate) logs: bool,
    /// Whether the outputs were restored.
    pub(crate) outputs: bool,
}

impl Restored {
    /// The note in a state directory; `None`: the directory was not restored since the last start of a server.
    pub(crate) fn read(state: &Path) -> Option<Self> {
        let mut text = Vec::new();
        let file = open_regular(&StateDir::new(state).restored()).ok()?;
        file.take(NOTE_BYTES_MAX).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn write(&self, state: &Path) -> io::Result<()> {
        let path = StateDir::new(state).restored();
        of(&path, fs::write(&path, serde_json::to_vec(self)?))
    }
}

/// Checks that a backup can be restored into a directory: it is absent or empty, apart from the lock of servers.
///
/// # Errors
/// There is something in the directory.
pub(crate) fn check_target(state: &Path) -> Result<(), BackupError> {
    let entries = match fs::read_dir(state) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => of(state, entries)?,
    };
    let files = StateDir::new(state);
    if files.unfinished_restore().is_some() {
        return Err(BackupError::Interrupted(state.to_owned()));
    }
    for entry in entries {
        if of(state, entry)?.path() != files.lock() {
            return Err(BackupError::NotEmpty(state.to_owned()));
        }
    }
    Ok(())
}

/// Restores the backup at `backup`, whose manifest was read, into a directory that [`check_target`] has accepted and
/// that this process has locked. `state_id` becomes the identity of the directory (BACK5). Blocks.
///
/// # Errors
/// The backup is damaged, there is no room, or a file cannot be read or written. What was restored has been removed.
pub(crate) fn restore(
    backup: &Path,
    manifest: &Manifest,
    state: &Path,
    state_id: &str,
    control: &Control,
) -> Result<(), BackupError> {
    let (needed, free) = (manifest.bytes(), room(state));
    if needed > free {
        return Err(BackupError::NoRoom { target: state.to_owned(), needed, free });
    }
    let done = fill(backup, manifest, state, state_id, control);
    if done.is_err() {
        let files = StateDir::new(state);
        // The database goes last, because its name says that the directory is not whole.
        for path in [files.logs(), files.outputs(), files.restored(), files.restore()] {
            if let Err(error) = remove_all(&path) {
                eprintln!("brigandine: {} cannot be removed: {error}", path.display());
            }
        }
    }
    done
}

fn fill(
    backup: &Path,
    manifest: &Manifest,
    state: &Path,
    state_id: &str,
    control: &Control,
) -> Result<(), BackupError> {
    let files = StateDir::new(state);
    database(backup, manifest, &files.restore(), state_id, control)?;
    for (name, to, wanted, step) in [
        (LOGS, files.logs(), manifest.logs, Step::Logs as fn(Files) -> Step),
        (OUTPUTS, files.outputs(), manifest.outputs, Step::Outputs as fn(Files) -> Step),
    ] {
        let Some(wanted) = wanted else { continue };
        let mut copier = Copier::new(control, step);
        copier.folder(&backup.join(name), &to)?;
        let found = copier.copied;
        if (found.files, found.bytes) != (wanted.files, wanted.bytes) {
            let why = format!(
                "its {name} are {} files of {} bytes, and the manifest says {} of {}",
                found.files, found.bytes, wanted.files, wanted.bytes
            );
            return Err(BackupError::Damaged(backup.to_owned(), why));
        }
    }
    let note = Restored {
        backup: backup.to_owned(),
        made_at: manifest.made_at,
        version: manifest.version.clone(),
        logs: manifest.logs.is_some(),
        outputs: manifest.outputs.is_some(),
    };
    note.write(state)?;
    control.step(Step::Sync)?;
    let folder = of(state, File::open(state))?;
    of(state, syncfs(&folder).map_err(Into::into))?;
    of(state, fs::rename(files.restore(), files.database()))?; // BACK4
    Ok(of(state, folder.sync_all())?)
}

/// Checks the database of the backup against the manifest, and copies it to `to`.
fn database(
    backup: &Path,
    manifest: &Manifest,
    to: &Path,
    state_id: &str,
    control: &Control,
) -> Result<(), BackupError> {
    let from = backup.join(DATABASE);
    let damaged = |why: String| BackupError::Damaged(backup.to_owned(), why);
    control.step(Step::Check)?;
    if manifest::digest(&from)? != manifest.database {
        return Err(damaged(format!("the manifest has another digest of {DATABASE}")));
    }
    let report = control.report.clone();
    let copied = store::copy_back(&from, to, &control.stop, move |done, of| {
        report(if done == of { Step::Check } else { Step::Database(done, of) });
    });
    match copied {
        Err(_) if control.is_stopped() => return Err(BackupError::Stopped),
        copied => copied?,
    }
    let copy = DatabaseCopy::open(to).map_err(|e| BackupError::Copy(to.to_owned(), e))?;
    let failed = || BackupError::copy(to.to_owned());
    if (copy.schema(), &copy.rows().map_err(failed())?) != (manifest.schema, &manifest.rows) {
        return Err(damaged("the manifest counts other rows than its database has".to_owned()));
    }
    copy.set_identity(state_id).map_err(failed())
}
