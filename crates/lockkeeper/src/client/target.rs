//! The target of a copy: which file is there, whether the copy may replace it, and how (`backup.rs` BKUP1, BKUP2, BKUP4,
//! BKUP5).

use std::fs::{Metadata, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::{Connection, OpenFlags};

use crate::error::{Error, ErrorKind, kind_of_own};
use crate::place::Refusal;
use crate::sqlite::instance;
use crate::sqlite::path::{self, FileId};

/// The path of a copy, and the file that it replaces.
pub(crate) struct Target {
    /// The path with all symbolic links resolved.
    pub(crate) path: PathBuf,
    /// The file that is there; `None`: there is none.
    file: Option<Metadata>,
}

impl Target {
    /// Checks whether a copy may be put at the absolute path `to` (BKUP2, BKUP4).
    pub(crate) fn find(to: &Path) -> Result<Self, Error> {
        let path = path::resolve(to).map_err(refused)?;
        path::check_length(&path).map_err(refused)?;
        let refuse = |why: String| Err(refused(format!("{}: {why}", path.display())));
        let file = path::check_kind(&path).map_err(refused)?;
        if instance::is_open(&path) {
            return refuse(String::from(
                "this process has it open as a database; name another file",
            ));
        }
        if let Some(owner) = path::owner(&path) {
            return refuse(format!(
                "by its name it is a part of the database {}; name another file",
                owner.display()
            ));
        }
        for end in ["-wal", "-journal"] {
            let beside = path::beside(&path, end);
            let shown = beside.display();
            if beside.symlink_metadata().is_ok() {
                return refuse(match file {
                    Some(_) => format!(
                        "there is {shown}, so it is in use or was left by a crash; close its users, or \
                         open and close it once; if it is damaged, move both away"
                    ),
                    None => format!(
                        "there is {shown}, left by a database that is gone, which SQLite would take for a \
                         part of the copy; move it away"
                    ),
                });
            }
        }
        if let Some(file) = &file
            && file.len() > 0
            && !is_database(&path)?
        {
            return refuse(String::from(
                "it is no SQLite database (it does not begin as one), and nothing else is replaced; name \
                 another file, or move it away",
            ));
        }
        Ok(Self { path, file })
    }

    /// Whether the same file is still there and may still be replaced.
    pub(crate) fn is_as_found(&self) -> Result<bool, Error> {
        let id =
            |target: &Self| -> Option<Option<FileId>> { target.file.as_ref().map(path::id_of) };
        Ok(id(&Self::find(&self.path)?) == id(self))
    }

    /// Makes an empty file beside the target for the copy of the file `source`.
    pub(crate) fn begin(&self, source: Option<&Path>) -> Result<Partial, Error> {
        let partial = Partial::path_for(&self.path)?;
        // A killed process with the same process number may have left this file. If it is a link, only the link is
        // removed.
        if partial.symlink_metadata().is_ok() {
            std::fs::remove_file(&partial).map_err(|error| io(&partial, &error))?;
        }
        let source = source.and_then(|source| std::fs::metadata(source).ok());
        let mut options = OpenOptions::new();
        rights::limit(&mut options, self.file.as_ref(), source.as_ref());
        options.write(true).create_new(true).open(&partial).map_err(|error| {
            use std::io::ErrorKind::{QuotaExceeded, StorageFull};
            let shown = partial.display();
            match error.kind() {
                StorageFull | QuotaExceeded => {
                    Error::new(ErrorKind::DiskFull).detail(format!("{shown}: {error}"))
                }
                _ => refused(format!(
                    "{shown}: {error}; the copy is made beside its target; check that the directory can be written"
                )),
            }
        })?;
        Ok(Partial(partial))
    }
}

/// Whether the regular file at `path` begins as a database does. Reads the file through SQLite, because closing another
/// file descriptor of it would drop the locks of this process's connections.
fn is_database(path: &Path) -> Result<bool, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(|error| of(path, error))?;
    Ok(crate::ffi::first_bytes(&conn).is_some_and(|bytes| bytes == *b"SQLite format 3\0"))
}

/// The file of a copy under way. The drop removes it unless it was put in place.
pub(crate) struct Partial(PathBuf);

impl Partial {
    /// A unique name for the copy in the directory of `to`, shortened if it would be too long for SQLite.
    fn path_for(to: &Path) -> Result<PathBuf, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (pid, n) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let own = format!(".{pid}-{n}.partial");
        let name = to.file_name().unwrap_or_default().to_string_lossy();
        let Some(room) = path::room_for_name(to).checked_sub(own.len()) else {
            return Err(refused(format!(
                "{}: the copy is made beside it, under a name that would make the path too long for SQLite; \
                 shorten the path",
                to.display()
            )));
        };
        let mut end = name.len().min(room);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        Ok(to.with_file_name(format!("{}{own}", &name[..end])))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Renames the copy to the name of the target (BKUP1, BKUP4, BKUP5).
    pub(crate) fn put_in_place(self, target: &Target) -> Result<(), Error> {
        let to = &target.path;
        match &target.file {
            None => rename_to_nothing(&self.0, to),
            Some(old) => {
                rights::take_over(&self.0, old).and_then(|()| std::fs::rename(&self.0, to))
            }
        }
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::ResourceBusy => {
                let why = "it is a mount point, which cannot be replaced; name another file";
                refused(format!("{}: {why}", to.display()))
            }
            _ => io(to, &error),
        })?;
        sync_dir(to)
    }
}

/// The owner and the mode of the copy (BKUP5). SQLite would make the copy readable for all users.
#[cfg(unix)]
mod rights {
    use std::fs::{Metadata, OpenOptions, Permissions};
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
    use std::path::Path;

    /// The permission bits of a file's mode.
    const RIGHTS: u32 = 0o777;
    const OF_OWNER: u32 = 0o600;

    /// Gives the new file the permissions of `source`. If it will replace `old`, only its owner may use it until
    /// [`take_over`].
    pub(super) fn limit(
        options: &mut OpenOptions,
        old: Option<&Metadata>,
        source: Option<&Metadata>,
    ) {
        match (old, source) {
            (Some(_), _) => _ = options.mode(OF_OWNER),
            (None, Some(source)) => _ = options.mode(source.mode() & RIGHTS | OF_OWNER),
            (None, None) => _ = options.mode(0o644),
        }
    }

    /// Gives `copy` the owner and the mode of `old`, as far as this process may. If the process may not set the group,
    /// the present group of `copy` gets no more permissions than all other users.
    pub(super) fn take_over(copy: &Path, old: &Metadata) -> std::io::Result<()> {
        let mut mode = old.mode() & RIGHTS;
        if chown(copy, None, Some(old.gid())).is_err() {
            mode = mode & !0o070 | (mode & 0o007) << 3;
        }
        std::fs::set_permissions(copy, Permissions::from_mode(mode))?;
        let _ = chown(copy, Some(old.uid()), None);
        Ok(())
    }
}

/// On other systems the directory decides the permissions of a new file.
#[cfg(not(unix))]
mod rights {
    use std::fs::{Metadata, OpenOptions};
    use std::path::Path;

    pub(super) fn limit(_: &mut OpenOptions, _: Option<&Metadata>, _: Option<&Metadata>) {}

    pub(super) fn take_over(_: &Path, _: &Metadata) -> std::io::Result<()> {
        Ok(())
    }
}

/// Renames `from` to `to`. If the file system can check it, this fails when a file `to` exists by now.
#[cfg(target_os = "linux")]
fn rename_to_nothing(from: &Path, to: &Path) -> std::io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;

    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system knows the flag.
        Err(Errno::INVAL | Errno::NOSYS) => std::fs::rename(from, to),
        done => done.map_err(Into::into),
    }
}

#[cfg(not(target_os = "linux"))]
fn rename_to_nothing(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::rename(from, to)
}

impl Drop for Partial {
    fn drop(&mut self) {
        // If the copy was renamed, no file has this name any more.
        let _ = std::fs::remove_file(&self.0);
        let _ = std::fs::remove_file(path::beside(&self.0, "-journal"));
    }
}

/// Syncs the directory of the file `of`, so that the rename reaches the disk.
#[cfg(target_os = "linux")]
fn sync_dir(of: &Path) -> Result<(), Error> {
    use rustix::fs::{Mode, OFlags};

    let dir = match of.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(dir, flags, Mode::empty())
        .and_then(rustix::fs::fsync)
        .map_err(|error| io(dir, &error.into()))
}

#[cfg(not(target_os = "linux"))]
fn sync_dir(_of: &Path) -> Result<(), Error> {
    Ok(())
}

/// The error of a copy that is not made because of `why`.
pub(super) fn refused(why: Refusal) -> Error {
    Error::new(ErrorKind::Backup).detail(why)
}

/// An error of the file system.
pub(super) fn io(path: &Path, error: &std::io::Error) -> Error {
    Error::new(ErrorKind::Backup).detail(format!("{}: {error}", path.display()))
}

/// An error of SQLite about the file at `path`.
pub(super) fn of(path: &Path, error: rusqlite::Error) -> Error {
    let kind = match kind_of_own(&error) {
        kind @ (ErrorKind::Corrupt | ErrorKind::DiskFull) => kind,
        _ => ErrorKind::Backup,
    };
    let detail = format!("{}: {error}", path.display());
    Error::sqlite_error(kind, error).detail(detail)
}
