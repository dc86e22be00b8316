//! The lock of the state directory, the work that commands do while they hold it, and the recovery after a server was
//! killed.

use super::AppError;
use crate::backup::Restored;
use crate::input::Checkouts;
use crate::log::Logs;
use crate::measure::Meters;
use crate::model::{self, Keep, LogName};
use crate::os::digest::hex;
use crate::os::folder;
use crate::os::process::{Cgroups, Marked, STATE_VARIABLE, Supervisors, kill_marked};
use crate::os::state_dir::StateDir;
use crate::outputs::Outputs;
use crate::retention::{Pace, Pruned, Retention};
use crate::store::{self, Database, KILLED, OpenError, Recovered, SchemaError};
use sha2::{Digest, Sha256};
use std::fs::{File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, watch};

/// Deletes what retention does not keep, in a state directory on which no server runs.
///
/// # Errors
/// [`AppError::Locked`]: a server or another `prune` uses the directory, and nothing was changed; the caller can ask a
/// server to prune. After any other error the next run deletes the rest.
pub(crate) async fn prune(
    state: &Path,
    keep: Keep,
    stop: &watch::Receiver<bool>,
) -> Result<Pruned, AppError> {
    let failed = |error| AppError::File(state.to_owned(), error);
    let files = StateDir::new(state);
    let _lock = lock(state)?;
    let database = store::open_as_it_is(state).await?;
    let logs = Logs::new(state, 0);
    let outputs = Arc::new(Outputs::new(files.outputs(), 0).map_err(failed)?);
    std::fs::create_dir_all(files.work()).map_err(failed)?;
    let events = broadcast::Sender::new(1);
    let retention = Retention::new(&database, outputs, logs, keep, events).pace(Pace::ALONE);
    let pruned = retention.run(stop).await;
    drop(retention);
    database.close().await?;
    Ok(pruned?)
}

/// Makes the database of a state directory that has none, or waits until a server that is starting has made it.
///
/// # Errors
/// The database cannot be made, or has another version.
pub(crate) async fn make_state(state: &Path) -> Result<(), AppError> {
    std::fs::create_dir_all(state).map_err(|error| AppError::State(state.to_owned(), error))?;
    let began = Instant::now();
    loop {
        // What another process has made, which may be a server that migrates it now.
        if StateDir::new(state).database().exists() {
            match store::open_as_it_is(state).await {
                Err(error) if error.is_for_a_server() => {}
                found => return Ok(found?.close().await?),
            }
        }
        match lock(state) {
            Ok(_lock) => return make_locked(state).await,
            Err(AppError::Locked(_)) if began.elapsed() < LAST_SERVER_TIME => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Makes the database of a state directory that this process has locked, or finishes it. An older one is left to
/// servers: it may belong to one of an older version, which somebody starts again.
async fn make_locked(state: &Path) -> Result<(), AppError> {
    if StateDir::new(state).database().exists() {
        match store::open_as_it_is(state).await {
            Err(OpenError::Schema(_, SchemaError::Empty | SchemaError::Unindexed(_))) => {}
            found => return Ok(found?.close().await?),
        }
    }
    Ok(store::open(state).await?.close().await?)
}

/// Makes the database readable only for the server's user, because SQLite creates it with the modes that the umask
/// allows. The modes are changed by path, because only SQLite may open the file.
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

/// How many times the server tries to take the lock. One try is not enough, because [`served`](super::wake::served) may
/// hold the lock for a moment.
const LOCK_TRIES: u32 = 20;
/// The pause between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Locks the state directory for this process, as long as the returned file is open.
pub(crate) fn lock(state: &Path) -> Result<File, AppError> {
    let path = StateDir::new(state).lock();
    let file = lock_file(&path)?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => {
                // A server that was killed has left this file. Commands would take it for that of this process.
                let _ = std::fs::remove_file(StateDir::new(state).server());
                return Ok(file);
            }
            Err(std::fs::TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(std::fs::TryLockError::Error(error)) => return Err(AppError::File(path, error)),
        }
    }
    Err(AppError::Locked(state.to_owned()))
}

/// Opens a file that is to be locked.
fn lock_file(path: &Path) -> Result<File, AppError> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        // Without this flag, opening a named pipe would wait for a reader of the pipe.
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(|error| AppError::File(path.to_owned(), error))
}

/// How long a new server waits for the processes of a server that was killed. Only the kernel can delay their end.
const LAST_SERVER_TIME: Duration = Duration::from_secs(30);

/// Returns the supervisors of this server, after all processes of the last server have ended. The last server's
/// supervisors hold a lock until then.
pub(super) async fn supervisors(state: &Path) -> Result<Arc<Supervisors>, AppError> {
    let path = StateDir::new(state).processes_lock();
    let failed = |error| AppError::File(path.clone(), error);
    let file = lock_file(&path)?;
    let again = file.try_clone().map_err(failed)?;
    let locked = tokio::task::spawn_blocking(move || again.lock());
    match tokio::time::timeout(LAST_SERVER_TIME, locked).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => return Err(failed(error)),
        Ok(Err(error)) => return Err(failed(std::io::Error::other(error))),
        Err(_) => tracing::error!(
            "processes that the last server started have not ended in {} s: find what the kernel waits for \
             (state D in `ps`)",
            LAST_SERVER_TIME.as_secs()
        ),
    }
    let name = hex(&Sha256::digest(state.as_os_str().as_bytes()))[..16].to_owned();
    let begun = tokio::task::spawn_blocking(move || Cgroups::begin(&name)).await;
    let cgroups = match begun.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(cgroups) => {
            tracing::info!("builds have control groups (cgroup v2): {}", cgroups.describe());
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

/// Recovers from a server that was killed: ends its child processes, reschedules its builds, and removes its partial
/// files. Counts the builds and evaluations that have ended by that.
pub(super) async fn recover(
    state: &Path,
    state_id: &str,
    database: &Database,
    logs: &Logs,
    checkouts: &Arc<Checkouts>,
    meters: &Meters,
    is_restored: bool,
) -> Result<(), AppError> {
    // Processes are ended first, because they may still write to the directories that are removed next.
    let mark = format!("{STATE_VARIABLE}={state_id}");
    let (work, exports) = (StateDir::new(state).work(), Arc::clone(checkouts));
    let cleaned = tokio::task::spawn_blocking(move || {
        let killed = kill_marked(&mark);
        // The folder itself stays, because it may be a link or a mount point.
        let removed = folder::empty(&work);
        exports.clean();
        (killed, removed)
    });
    let failed = |error: &tokio::task::JoinError| AppError::Ended {
        part: "the recovery".to_owned(),
        why: error.to_string(),
    };
    let (killed, removed) = cleaned.await.map_err(|error| failed(&error))?;
    let Marked { killed, left } = killed.unwrap_or_else(|error| {
        tracing::error!(%error, "cannot look in /proc for processes of the last server: end them by hand");
        Marked::default()
    });
    if !left.is_empty() {
        tracing::error!(
            processes = ?left,
            "processes that the last server started could not be ended: end them by hand, because they may still write"
        );
    }
    if let Err(error) = removed {
        // The leftovers only use disk space, because every attempt at a build has a directory of its own.
        let path = StateDir::new(state).work();
        tracing::error!(%error, path = %path.display(), "what builds left cannot be removed; remove it by hand");
    }
    let now = model::now();
    let Recovered { builds, changed, evaluations, gone, refused } =
        database.write(move |tx| store::recover(tx, now)).await?;
    meters.builds_changed(&changed);
    meters.evaluations_aborted(evaluations);
    let count = builds.len();
    let logs = logs.clone();
    let closed = tokio::task::spawn_blocking(move || {
        for (id, attempt) in builds {
            if let Err(error) = logs.close(LogName::Build(id, attempt), KILLED) {
                tracing::warn!(%error, build = %id, attempt, "cannot compress a log of the last server: it stays as it is");
            }
        }
    });
    closed.await.map_err(|error| failed(&error))?;
    for (id, why) in refused {
        tracing::error!(
            build = %id,
            error = why,
            "the database refuses to reschedule a build of the last server, so the build has failed; look for \
             what is wrong with its rows (SQLite's `integrity_check`), then `brigandine restart {id}`"
        );
    }
    if is_restored {
        tracing::info!(
            builds = count,
            evaluations,
            gone,
            "what ran when the backup was made is scheduled again"
        );
    } else {
        tracing::warn!(
            processes = killed,
            builds = count,
            evaluations,
            gone,
            "the last server was killed: its processes were ended, its builds are scheduled again"
        );
    }
    Ok(())
}

/// Says from which backup a state directory was restored, and removes the note about it.
pub(super) fn tell_restored(state: &Path, restored: &Restored) {
    let Restored { backup, made_at, version, logs, outputs } = restored;
    tracing::info!(
        backup = %backup.display(),
        made_at = %model::iso(*made_at),
        version,
        logs,
        outputs,
        "this state directory was restored from a backup"
    );
    let path = StateDir::new(state).restored();
    if let Err(error) = std::fs::remove_file(&path) {
        tracing::warn!(%error, path = %path.display(), "the note about the restore cannot be removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a database that says that it has schema version 4, as one does between two steps of a migration. Returns the
    /// version of this program too.
    async fn made(state: &Path) -> (rusqlite::Connection, i64) {
        store::open(state).await.expect("made").close().await.expect("closes");
        let conn = rusqlite::Connection::open_with_flags(
            StateDir::new(state).database(),
            rusqlite::OpenFlags::default(),
        )
        .expect("opens");
        let newest = version(&conn);
        conn.pragma_update(None, "user_version", 4).expect("written");
        (conn, newest)
    }

    fn version(conn: &rusqlite::Connection) -> i64 {
        conn.pragma_query_value(None, "user_version", |row| row.get(0)).expect("a version")
    }

    #[tokio::test]
    async fn a_command_waits_for_the_server_that_migrates_the_database() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = directory.path().to_owned();
        let (conn, newest) = made(&state).await;
        let server = lock(&state).expect("locked");
        let mut command = std::pin::pin!(make_state(&state));
        let early = tokio::time::timeout(Duration::from_millis(300), &mut command).await;
        assert!(early.is_err(), "it did not wait: {early:?}");
        conn.pragma_update(None, "user_version", newest).expect("migrated");
        drop(server);
        command.await.expect("the database is of this version");
    }

    #[tokio::test]
    async fn a_command_leaves_an_older_database_to_servers() {
        let directory = tempfile::tempdir().expect("a directory");
        let (conn, _) = made(directory.path()).await;
        let error = make_state(directory.path()).await.expect_err("it is older");
        assert!(error.to_string().contains("schema version 4"), "{error}");
        assert_eq!(version(&conn), 4);
    }
}
