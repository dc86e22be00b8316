//! The socket by which other programs tell the server that runs what they changed or want.
//!
//! A message is a word or two; `App::hear` says which there are. Bound: the kernel's queue of datagrams,
//! in which nobody waits for room.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use tokio::net::UnixDatagram;

/// The socket by which other programs say that they changed the database.
pub(super) const WAKE: &str = "wake.sock";

/// Runs `f` with a path to the wake socket that fits a socket address, however long the path of
/// the state directory is.
fn with_wake_path<T>(state: &Path, f: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    use std::os::fd::AsRawFd;
    let directory = File::open(state)?;
    f(&PathBuf::from(format!("/proc/self/fd/{}/{WAKE}", directory.as_raw_fd())))
}

/// Opens it for the server that has the state directory's lock.
pub(super) fn wake_socket(state: &Path) -> io::Result<UnixDatagram> {
    // The lock is ours, so a socket that is there is a killed server's.
    let _ = std::fs::remove_file(state.join(WAKE));
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
