//! The socket by which other programs tell the server that runs what they changed or want, and by which
//! they see that it runs.
//!
//! A message is a word or two; `App::hear` says which there are. Bound: the kernel's queue of datagrams,
//! in which nobody waits for room.

use crate::os::file::open_regular;
use crate::os::state_dir::StateDir;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::net::UnixDatagram;

/// Runs `f` with a path to the wake socket that fits a socket address, however long the path of
/// the state directory is.
fn with_wake_path<T>(state: &Path, f: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    use std::os::fd::AsRawFd;
    let directory = File::open(state)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    f(&StateDir::new(&path).wake_socket())
}

/// Opens it for the server that has the state directory's lock.
pub(super) fn wake_socket(state: &Path) -> io::Result<UnixDatagram> {
    // The lock is ours, so a socket that is there is a killed server's.
    let _ = std::fs::remove_file(StateDir::new(state).wake_socket());
    with_wake_path(state, |path| UnixDatagram::bind(path))
}

/// Tells the server of this state directory, if one runs, that the database was changed: a
/// specification was stored or removed, or a look is wanted. Says whether one heard it.
pub(crate) fn wake(state: &Path) -> bool {
    match tell(state, "look") {
        Ok(()) => true,
        // A full queue means that it is about to look anyway.
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// Tells the server of this state directory, if one runs, to do something: `cancel ID`, or anything
/// else for a look at the database.
pub(crate) fn tell(state: &Path, what: &str) -> io::Result<()> {
    with_wake_path(state, |path| {
        let socket = std::os::unix::net::UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to(what.as_bytes(), path).map(drop)
    })
}

/// Whether a server has a state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    /// One runs, and hears what it is told.
    Yes,
    /// The directory is locked: a server starts or ends, or another command deletes what is not kept.
    Locked,
    /// No server runs.
    No,
}

/// Whether a server has this state directory now. Looks only, and changes nothing.
pub(crate) fn served(state: &Path) -> Served {
    let connected = with_wake_path(state, |path| {
        // Refused where nothing is bound to it any more, as after `kill -9`.
        std::os::unix::net::UnixDatagram::unbound()?.connect(path)
    });
    if connected.is_ok() {
        return Served::Yes;
    }
    let Ok(file) = open_regular(&StateDir::new(state).lock()) else { return Served::No };
    // A shared lock for this moment; a server that starts meanwhile asks again.
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Served::Locked,
        Ok(()) | Err(TryLockError::Error(_)) => Served::No,
    }
}

/// A server that is away for as long has gone; one that systemd starts again may be back before.
const AWAY: Duration = Duration::from_millis(400);

/// Sees that the server of a state directory has gone.
#[derive(Debug)]
pub(crate) struct Presence {
    state: PathBuf,
    away_since: Option<Instant>,
}

impl Presence {
    /// Of the server that has this state directory, or should.
    pub(crate) fn new(state: &Path) -> Self {
        Self { state: state.to_owned(), away_since: None }
    }

    /// Whether no server has had the directory for [`AWAY`]. To be asked several times a second.
    pub(crate) fn has_gone(&mut self) -> bool {
        if served(&self.state) != Served::No {
            self.away_since = None;
            return false;
        }
        self.away_since.get_or_insert_with(Instant::now).elapsed() >= AWAY
    }
}
