//! The wake socket: other programs send the running server requests, and connect to it to see that it runs.
//!
//! A message has one or two words; `App::handle_message` knows them. Bound: the kernel's queue of datagrams; a sender does
//! not wait for room in it.

use crate::os::file::open_regular;
use crate::os::state_dir::StateDir;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::net::UnixDatagram;

/// Calls `f` with a path of the wake socket that is short enough for a socket address, however long the path of the state
/// directory is.
fn with_wake_path<T>(state: &Path, f: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    use std::os::fd::AsRawFd;
    let directory = File::open(state)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    f(&StateDir::new(&path).wake_socket())
}

/// Opens the wake socket. The caller holds the lock of the state directory.
pub(super) fn wake_socket(state: &Path) -> io::Result<UnixDatagram> {
    // With the lock held, an existing socket is one of a server that was killed.
    let _ = std::fs::remove_file(StateDir::new(state).wake_socket());
    with_wake_path(state, |path| UnixDatagram::bind(path))
}

/// Tells the server of this state directory that the database was changed: a specification was stored or removed, or a
/// look is wanted. Returns whether a server runs.
pub(crate) fn wake(state: &Path) -> bool {
    match tell(state, "look") {
        Ok(()) => true,
        // The server has messages to handle, and looks at the database then.
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// Sends the server of this state directory a message, such as `cancel ID`. A message that it does not know makes it look
/// at the database.
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
    /// A server runs, and receives messages.
    Yes,
    /// The directory is locked: a server starts or ends, or `brigandine prune` runs.
    Locked,
    /// No server runs.
    No,
}

/// Whether a server runs on this state directory now. Changes nothing.
pub(crate) fn served(state: &Path) -> Served {
    let connected = with_wake_path(state, |path| {
        // Refused if no process has the socket open any more, as after `kill -9`.
        std::os::unix::net::UnixDatagram::unbound()?.connect(path)
    });
    if connected.is_ok() {
        return Served::Yes;
    }
    let Ok(file) = open_regular(&StateDir::new(state).lock()) else { return Served::No };
    // The lock is released at once; a server that starts meanwhile tries again.
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Served::Locked,
        Ok(()) | Err(TryLockError::Error(_)) => Served::No,
    }
}

/// A server that has been absent for this long has gone. One that systemd restarts may be back before.
const ABSENCE: Duration = Duration::from_millis(400);

/// Notices that the server of a state directory has gone.
#[derive(Debug)]
pub(crate) struct Presence {
    state: PathBuf,
    absent_since: Option<Instant>,
}

impl Presence {
    /// For the server of this state directory.
    pub(crate) fn new(state: &Path) -> Self {
        Self { state: state.to_owned(), absent_since: None }
    }

    /// Whether no server has run for [`ABSENCE`]. Call it several times a second.
    pub(crate) fn has_gone(&mut self) -> bool {
        if served(&self.state) != Served::No {
            self.absent_since = None;
            return false;
        }
        self.absent_since.get_or_insert_with(Instant::now).elapsed() >= ABSENCE
    }
}
