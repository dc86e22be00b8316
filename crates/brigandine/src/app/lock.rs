//! The state directory: its lock, its database, what a server that was killed left in it.

use super::AppError;
use crate::input::Checkouts;
use crate::log::Logs;
use crate::model::{self, Keep, LogName};
use crate::os::digest::hex;
use crate::os::folder;
use crate::os::process::{Cgroups, STATE_VARIABLE, Supervisors, kill_marked};
use crate::os::state_dir::StateDir;
use crate::outputs::Outputs;
use crate::retention::{Pace, Pruned, Retention};
use crate::store::{self, Database, OpenError, Recovered, SchemaError};
use sha2::{Digest, Sha256};
use std::fs::{File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, watch};

/// Deletes what need not be kept in a state directory that no server has.
///
/// # Errors
/// [`AppError::Locked`]: a server has it, and nothing was changed; it can be told to. Otherwise what was
/// deleted is, and the next run goes on.
pub(crate) async fn prune(
    state: &Path,
    keep: Keep,
    stop: &watch::Receiver<bool>,
) -> Result<Pruned, AppError> {
    let failed = |error| AppError::File(state.to_owned(), error);
    let _lock = lock(state)?;
    let database = store::open_as_it_is(state).await?;
    let logs = Logs::new(state, 0);
    let outputs = Arc::new(Outputs::new(StateDir::new(state).outputs(), 0).map_err(failed)?);
    std::fs::create_dir_all(StateDir::new(state).work()).map_err(failed)?;
    let events = broadcast::Sender::new(1);
    let retention = Retention::new(&database, outputs, logs, keep, events).pace(Pace::ALONE);
    let pruned = retention.run(stop).await;
    drop(retention);
    database.close().await?;
    Ok(pruned?)
}

/// Makes the database of a state directory that has none; waits for a server that is about to.
///
/// # Errors
/// It cannot be made, or what is there is no database of this version.
pub(crate) async fn make_state(state: &Path) -> Result<(), AppError> {
    std::fs::create_dir_all(state).map_err(|error| AppError::State(state.to_owned(), error))?;
    let began = Instant::now();
    loop {
        if StateDir::new(state).database().exists() {
            match store::open_as_it_is(state).await {
                Err(OpenError::Schema(_, SchemaError::Empty | SchemaError::Unindexed(_))) => {}
                found => return Ok(found?.close().await?),
            }
        }
        match lock(state) {
            Ok(_lock) => return Ok(store::open(state).await?.close().await?),
            Err(AppError::Locked(_)) if began.elapsed() < LAST_SERVER => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Takes the rights of others at the database away, which SQLite gives by the machine's custom. By name: to
/// open it is SQLite's alone.
pub(super) fn keep_private(state: &Path) -> Result<(), AppError> {
    let files = StateDir::new(state);
    for path in [files.database()].into_iter().chain(files.wal()) {
        match std::fs::set_permissions(&path, Permissions::from_mode(0o600)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(AppError::File(path, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A program that looks whether there is a server holds the lock for a moment: see [`wake::served`](super::wake::served).
const LOCK_TRIES: u32 = 20;
/// Between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Locks the state directory for this process.
pub(super) fn lock(state: &Path) -> Result<File, AppError> {
    let path = StateDir::new(state).lock();
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        // What is no file is not waited for.
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(&path)
        .map_err(|error| AppError::File(path.clone(), error))?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(std::fs::TryLockError::Error(error)) => return Err(AppError::File(path, error)),
        }
    }
    Err(AppError::Locked(state.to_owned()))
}

/// How long the processes of a server that was killed are waited for; only the kernel can delay their end.
const LAST_SERVER: Duration = Duration::from_secs(30);

/// What starts programs, when all that the last server started is gone: its supervisors hold a lock until
/// then.
pub(super) async fn supervisors(state: &Path) -> Result<Arc<Supervisors>, AppError> {
    let path = StateDir::new(state).processes_lock();
    let failed = |error| AppError::File(path.clone(), error);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        // What is no file is not waited for.
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(&path)
        .map_err(failed)?;
    let again = file.try_clone().map_err(failed)?;
    let locked = tokio::task::spawn_blocking(move || again.lock());
    match tokio::time::timeout(LAST_SERVER, locked).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => return Err(failed(error)),
        Ok(Err(error)) => return Err(failed(std::io::Error::other(error))),
        Err(_) => tracing::error!(
            "processes that the last server started have not ended in {} s: find what the kernel waits for \
             (state D in `ps`)",
            LAST_SERVER.as_secs()
        ),
    }
    let name = hex(&Sha256::digest(state.as_os_str().as_bytes()))[..16].to_owned();
    let begun = tokio::task::spawn_blocking(move || Cgroups::begin(&name)).await;
    let cgroups = match begun.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(cgroups) => {
            tracing::info!(kept = cgroups.describe(), "builds have control groups (cgroup v2)");
            Some(cgroups)
        }
        Err(why) => {
            tracing::info!(
                why,
                "builds have no control groups (cgroup v2): what they take is measured"
            );
            None
        }
    };
    Ok(Supervisors::with_groups(Some(file), cgroups))
}

/// Puts right what a killed server left: its child processes, its rows, its half-made files.
pub(super) async fn recover(
    state: &Path,
    state_id: &str,
    database: &Database,
    logs: &Logs,
    checkouts: &Arc<Checkouts>,
) -> Result<(), AppError> {
    // Processes first: they may still write to directories that go next.
    let mark = format!("{STATE_VARIABLE}={state_id}");
    let (work, exports) = (StateDir::new(state).work(), Arc::clone(checkouts));
    let cleaned = tokio::task::spawn_blocking(move || {
        let killed = kill_marked(&mark);
        // The folder stays: it may be a link, or where another disk is mounted.
        let removed = folder::empty(&work);
        exports.clean();
        (killed, removed)
    });
    let (killed, removed) = cleaned.await.map_err(|error| AppError::Ended {
        part: "the recovery".to_owned(),
        why: error.to_string(),
    })?;
    if let Err(error) = removed {
        // It takes room, and nothing else: no two starts of builds have the same directory.
        let path = StateDir::new(state).work();
        tracing::error!(%error, path = %path.display(), "what builds left cannot be removed; remove it by hand");
    }
    let now = model::now();
    let Recovered { builds, evaluations, gone } =
        database.write(move |tx| store::recover(tx, now)).await?;
    for (id, attempt) in &builds {
        logs.remove(LogName::Build(*id, *attempt));
    }
    tracing::warn!(
        processes = killed,
        builds = builds.len(),
        evaluations,
        gone,
        "the last server was killed: its processes are gone, its builds are scheduled again"
    );
    Ok(())
}
