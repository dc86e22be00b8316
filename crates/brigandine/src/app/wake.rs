//! The wake socket: other programs send requests to the running server, and connect to see whether a server runs.
//!
//! A message has one or two words, which `App::handle_message` reads: `prune now`, or anything else, which says that the
//! database was changed. The kernel's datagram queue bounds the number of
//! waiting messages. While the queue is full, sending fails and does not wait.

use crate::os::file::open_regular;
use crate::os::state_dir::StateDir;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::net::UnixDatagram;

/// Calls `f` with a path to the wake socket. The path is short enough for a socket address, however long the path of
/// the state directory is.
fn with_wake_path<T>(state: &Path, f: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    use std::os::fd::AsRawFd;
    let directory = File::open(state)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    f(&StateDir::new(&path).wake_socket())
}

/// Opens the wake socket. The caller must hold the lock of the state directory.
pub(super) fn wake_socket(state: &Path) -> io::Result<UnixDatagram> {
    // Because the caller holds the lock, an existing socket belongs to a server that was killed.
    let _ = std::fs::remove_file(StateDir::new(state).wake_socket());
    with_wake_path(state, |path| UnixDatagram::bind(path))
}

/// Notifies the server of this state directory that the database was changed: a specification was stored or removed, a
/// look at the inputs was requested, a build was canceled. Returns whether a server runs.
pub(crate) fn wake(state: &Path) -> bool {
    match tell(state, "look") {
        Ok(()) => true,
        // The queue is full: the server has messages to handle, and will read the database then.
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// Sends a message, such as `prune now`, to the server of this state directory. A message that the server does not know
/// makes it read the database.
pub(crate) fn tell(state: &Path, what: &str) -> io::Result<()> {
    with_wake_path(state, |path| {
        let socket = std::os::unix::net::UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to(what.as_bytes(), path).map(drop)
    })
}

/// Whether a server runs on a state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    /// A server runs and receives messages.
    Yes,
    /// The directory is locked: a server is starting or ending, or `brigandine prune` is running.
    Locked,
    /// No server runs.
    No,
}

/// Whether a server runs on this state directory now. The check changes nothing.
pub(crate) fn served(state: &Path) -> Served {
    let connected = with_wake_path(state, |path| {
        // The kernel refuses the connection if no process has the socket open any more, as after `kill -9`.
        std::os::unix::net::UnixDatagram::unbound()?.connect(path)
    });
    if connected.is_ok() {
        return Served::Yes;
    }
    let Ok(file) = open_regular(&StateDir::new(state).lock()) else { return Served::No };
    // The lock is released immediately. If a server starts in this moment, it repeats its attempt to lock.
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Served::Locked,
        Ok(()) | Err(TryLockError::Error(_)) => Served::No,
    }
}

/// A server that has been absent for this long has gone. A server that systemd restarts may return sooner.
const ABSENCE: Duration = Duration::from_millis(400);

/// Detects that the server of a state directory has gone.
#[derive(Debug)]
pub(crate) struct Presence {
    state: PathBuf,
    absent_since: Option<Instant>,
}

impl Presence {
    /// Watches the server of this state directory.
    pub(crate) fn new(state: &Path) -> Self {
        Self { state: state.to_owned(), absent_since: None }
    }

    /// Whether no server has run for [`ABSENCE`]. Must be called several times per second.
    pub(crate) fn has_gone(&mut self) -> bool {
        if served(&self.state) != Served::No {
            self.absent_since = None;
            return false;
        }
        self.absent_since.get_or_insert_with(Instant::now).elapsed() >= ABSENCE
    }
}
