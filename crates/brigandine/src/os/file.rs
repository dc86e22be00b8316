//! Files that people name (configuration, specifications, tokens), and calls that block on files.

use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Opens a regular file for reading.
///
/// Anything else is refused immediately: opening a pipe waits for its writer, and a device may have no end.
///
/// # Errors
/// The file cannot be opened, or it is no regular file.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    // With NONBLOCK, opening a pipe does not wait for a writer. Regular files ignore the flag.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let opened = File::options().read(true).custom_flags(flags).open(path);
    let metadata = match &opened {
        Ok(file) => file.metadata(),
        // A socket cannot be opened, and the error does not say that the file is a socket.
        Err(_) => path.metadata(),
    };
    let kind = match metadata {
        Err(_) => return opened,
        Ok(metadata) if metadata.is_file() => return opened,
        Ok(metadata) => metadata.file_type(),
    };
    let what = if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}, not a regular file")))
}

/// The most bytes of a file with a secret.
pub(crate) const SECRET_BYTES_MAX: u64 = 1024;

/// Reads the secret in a file that only its owner may be able to read, without blanks around it. `what` names the file in
/// messages. `None`: the file is too large for a secret.
///
/// # Errors
/// A message that says what is wrong with the file, and how to correct it.
pub(crate) fn read_secret(path: &Path, what: &str) -> Result<Option<String>, String> {
    let name = path.display();
    let failed = |error: io::Error| format!("{what} {name}: {error}");
    let file = open_regular(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!(
            "{what} {name} may be read by others (mode {mode:03o}); chmod 600 {name}"
        ));
    }
    let mut text = String::new();
    file.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    Ok((text.len() as u64 <= SECRET_BYTES_MAX).then(|| text.trim().to_owned()))
}

/// Runs `f` on one of tokio's threads for blocking calls.
///
/// # Errors
/// The error of `f`, or `f` panicked.
pub(crate) async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(f).await.map_err(io::Error::other)?
}

/// Whether an error says that the disk or a quota is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether an error says that this process or machine has no room for another open file.
pub(crate) fn has_no_room(error: &io::Error) -> bool {
    let lacks = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| lacks.contains(&errno))
}

/// The most characters of a path that a message shows.
const PATH_SHOWN: usize = 400;

/// Adds the file's path to an error.
pub(crate) fn of<T>(path: &Path, done: io::Result<T>) -> io::Result<T> {
    let name = |error: io::Error| {
        let text = path.to_string_lossy();
        let shown: String = text.chars().take(PATH_SHOWN).collect();
        let cut = if shown.len() < text.len() { "…" } else { "" };
        io::Error::new(error.kind(), format!("`{shown}{cut}`: {error}"))
    };
    done.map_err(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_regular_file_is_refused_without_waiting_for_it() {
        let place = tempfile::tempdir().expect("a directory");
        let path = |name: &str| place.path().join(name);
        std::fs::write(path("file"), "x").expect("a file");
        std::os::unix::fs::symlink("file", path("link")).expect("a link");
        open_regular(&path("file")).expect("a file");
        open_regular(&path("link")).expect("a link to a file");
        let fifo = std::process::Command::new("mkfifo").arg(path("fifo")).status();
        assert!(fifo.expect("mkfifo").success());
        let _listener = std::os::unix::net::UnixListener::bind(path("socket")).expect("a socket");
        for (name, said) in [
            ("fifo", "a named pipe"),
            ("socket", "a socket"),
            ("/dev/null", "a device"),
            ("/dev/zero", "a device"),
            ("", "directory"),
            ("nothing", "No such file"),
        ] {
            let error = open_regular(&path(name)).expect_err(name).to_string();
            assert!(error.contains(said), "{name}: {error}");
        }
    }
}
