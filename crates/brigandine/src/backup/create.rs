//! Makes a backup of a state directory, beside its server or without one.

use super::control::{Control, Files, Step};
use super::error::BackupError;
use super::manifest::{self, DATABASE, Manifest};
use super::tree::{Copier, Root};
use crate::model::{self, BuildId, EvaluationId, LogName, Timestamp, output_digest, output_path};
use crate::os::file::of;
use crate::os::folder::{Temporary, remove_all, unused};
use crate::os::state_dir::{LOGS, OUTPUTS};
use crate::store::{self, Database, DatabaseCopy};
use rustix::fs::{CWD, RenameFlags, renameat_with, syncfs};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The most rows that one read returns.
const PAGE: u32 = 1000;
/// The most characters of the backup's name in the name of the folder in which it is made.
const NAME_SHOWN: usize = 40;
/// The pause between two checks whether the work is to stop.
const STOP_PAUSE: Duration = Duration::from_millis(50);

/// What a backup has besides the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts {
    /// Whether it has the logs of builds and evaluations.
    pub(crate) logs: bool,
    /// Whether it has the outputs of builds.
    pub(crate) outputs: bool,
}

/// Makes the backup `target` of the state directory `state`, whose database is `database`.
///
/// # Errors
/// There is something at `target` already, or a file cannot be read or written. Nothing is left of the backup.
pub(crate) async fn create(
    database: &Database,
    state: &Path,
    target: &Path,
    parts: Parts,
    control: &Control,
) -> Result<Manifest, BackupError> {
    let made_at = model::now();
    let target = of(target, std::path::absolute(target))?;
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(BackupError::Exists(target));
    };
    if target.symlink_metadata().is_ok() {
        return Err(BackupError::Exists(target));
    }
    let real = |folder: &Path| folder.canonicalize().ok();
    if real(parent).zip(real(state)).is_some_and(|(parent, state)| parent.starts_with(state)) {
        return Err(BackupError::Inside(target));
    }
    let shown: String = name.to_string_lossy().chars().take(NAME_SHOWN).collect();
    let partial = Temporary(unused(parent, &format!(".{shown}.partial-"), ""));
    // Other users may not read it, as they may not read the state directory.
    of(parent, DirBuilder::new().mode(0o700).create(&partial.0))?;
    let copy = partial.0.join(DATABASE);
    let report = control.report.clone();
    let copied =
        store::copy_database(database, &copy, move |done, of| report(Step::Database(done, of)));
    tokio::select! {
        copied = copied => copied?,
        () = stopped(control) => return Err(BackupError::Stopped),
    }
    let (state, control) = (state.to_owned(), control.clone());
    let filled = tokio::task::spawn_blocking(move || {
        let manifest = fill(&state, &partial.0, parts, made_at, &control)?;
        control.step(Step::Sync)?;
        of(&partial.0, File::open(&partial.0).and_then(|folder| Ok(syncfs(folder)?)))?;
        put_in_place(&partial.0, &target)?;
        Ok(manifest)
    });
    filled.await.map_err(io::Error::other)?
}

async fn stopped(control: &Control) {
    while !control.is_stopped() {
        tokio::time::sleep(STOP_PAUSE).await;
    }
}

/// Copies the files that the copied database names, and writes the manifest (BACK2).
fn fill(
    state: &Path,
    partial: &Path,
    parts: Parts,
    made_at: Timestamp,
    control: &Control,
) -> Result<Manifest, BackupError> {
    let path = partial.join(DATABASE);
    let copy = DatabaseCopy::open(&path).map_err(|e| BackupError::Copy(path.clone(), e))?;
    let mut manifest = Manifest::new(made_at, &copy).map_err(BackupError::copy(path.clone()))?;
    let (from, to) = (Root::open(state)?, Root::open(partial)?);
    if parts.logs {
        manifest.logs = Some(logs(&copy, &path, from.path(), to.path(), control)?);
    }
    if parts.outputs {
        manifest.outputs = Some(outputs(&copy, &path, from.path(), to.path(), control)?);
    }
    drop(copy);
    manifest.database = manifest::digest(&path)?;
    manifest.write(partial)?;
    Ok(manifest)
}

/// Copies the logs that the database names.
fn logs(
    copy: &DatabaseCopy,
    path: &Path,
    from: &Path,
    to: &Path,
    control: &Control,
) -> Result<Files, BackupError> {
    let failed = || BackupError::copy(path.to_owned());
    let mut copier = Copier::new(control, Step::Logs);
    let folder = to.join(LOGS);
    of(&folder, fs::create_dir(&folder))?;
    let mut last = BuildId::new(0);
    loop {
        let page = copy.build_logs(last, PAGE).map_err(failed())?;
        let Some(end) = page.last() else { break };
        last = end.id;
        for build in page {
            // BACK3: the log of an attempt that has not ended is not finished either, and a server that uses the copy
            // begins it anew.
            let ended = build.attempt - i64::from(build.is_running);
            for attempt in 1..=ended {
                let copied = log(&mut copier, LogName::Build(build.id, attempt), from, to)?;
                let is_lost = attempt == build.attempt && build.is_named && !copied;
                copier.copied.missing += u64::from(is_lost);
            }
        }
    }
    let mut last = EvaluationId::new(0);
    loop {
        let page = copy.evaluation_logs(last, PAGE).map_err(failed())?;
        let Some(end) = page.last() else { return Ok(copier.copied) };
        last = *end;
        for id in page {
            let copied = log(&mut copier, LogName::Evaluation(id), from, to)?;
            copier.copied.missing += u64::from(!copied);
        }
    }
}

/// Copies a log, compressed or not. `false`: there is none.
fn log(
    copier: &mut Copier<'_>,
    name: LogName,
    from: &Path,
    to: &Path,
) -> Result<bool, BackupError> {
    let plain = name.path();
    let compressed = format!("{plain}.zst");
    // A log that ends is compressed, and the plain file is removed after that. So it is looked for once more.
    for path in [&compressed, &plain, &compressed] {
        let (source, target) = (from.join(path), to.join(path));
        if source.symlink_metadata().is_err() {
            continue;
        }
        if let Some(folder) = target.parent() {
            of(folder, fs::create_dir_all(folder))?;
        }
        if copier.file(&source, &target)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Copies the outputs that the database names.
fn outputs(
    copy: &DatabaseCopy,
    path: &Path,
    from: &Path,
    to: &Path,
    control: &Control,
) -> Result<Files, BackupError> {
    let mut copier = Copier::new(control, Step::Outputs);
    let folder = to.join(OUTPUTS);
    of(&folder, fs::create_dir(&folder))?;
    let mut last = String::new();
    loop {
        let page = copy.outputs(&last, PAGE).map_err(BackupError::copy(path.to_owned()))?;
        let Some(end) = page.last() else { return Ok(copier.copied) };
        last.clone_from(end);
        for stored in page {
            // The digest alone, so that no path in the database leads out of the folder.
            let digest = output_digest(&stored).filter(|digest| is_digest(digest));
            let Some(path) = digest.map(output_path) else {
                copier.copied.missing += 1;
                continue;
            };
            let (source, target) = (from.join(&path), to.join(&path));
            let copied = match copier.folder(&source, &target) {
                // It was removed meanwhile: what was copied of it is not an output.
                Err(BackupError::File(error))
                    if error.kind() == io::ErrorKind::NotFound
                        && source.symlink_metadata().is_err() =>
                {
                    remove_all(&target)?;
                    false
                }
                copied => copied?,
            };
            copier.copied.missing += u64::from(!copied);
        }
    }
}

fn is_digest(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Gives the finished folder `partial` its name, which nothing has (BACK1).
fn put_in_place(partial: &Path, target: &Path) -> Result<(), BackupError> {
    match renameat_with(CWD, partial, CWD, target, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Err(BackupError::Exists(target.to_owned())),
        // Not every file system knows the flag. A rename replaces an empty folder at most.
        Err(Errno::INVAL | Errno::NOSYS) => of(target, fs::rename(partial, target))?,
        Err(error) => of(target, Err(error.into()))?,
    }
    let parent: PathBuf = target.parent().map(Path::to_owned).unwrap_or_default();
    of(&parent, File::open(&parent).and_then(|folder| folder.sync_all()))?;
    Ok(())
}
