//! How this library finds the file that SQLite opens for a path that a caller passes.
//!
//! A SQLite that was compiled with `SQLITE_USE_URI`, as the bundled one is, reads every name that begins with `file:`
//! as a URI (<https://www.sqlite.org/uri.html>). A URI can name another file than the path with the same letters, and
//! can switch the locks off. So this library gives SQLite only absolute paths, which are never URIs; the one exception
//! is [`uri`]. It refuses URLs, and the error says what to write instead.
//!
//! SQLite derives the name of the WAL from the path with symbolic links resolved. So links are resolved here, before
//! anything else is checked. Then all checks, and SQLite, use the same name.

use std::ffi::{OsStr, OsString};
#[cfg(unix)]
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind};
use crate::place::{Place, Refusal};

/// The most symbolic links that are followed in a path; a path with more counts as a circle. Linux has the same limit.
const LINKS_MAX: usize = 40;

/// The suffixes that SQLite appends to a database's path for the files that belong to it.
pub(crate) const ENDS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// The most bytes of a path: on Unix SQLite's `MAX_PATHNAME`, less the longest suffix.
const PATH_MAX: usize = if cfg!(unix) { 512 - LONGEST_END } else { usize::MAX };

/// The most bytes of a file's name: the limit of the usual file systems, less the longest suffix.
const NAME_MAX: usize = if cfg!(unix) { 255 - LONGEST_END } else { usize::MAX };

/// The length in bytes of the longest suffix in [`ENDS`].
const LONGEST_END: usize = "-journal".len();

/// The device and inode of a file.
pub(crate) type FileId = (u64, u64);

/// The absolute form of `path`, after the checks that this library makes before it opens a path. For programs that open
/// SQLite connections of their own beside this library. The file need not exist, and symbolic links are not resolved.
///
/// # Errors
/// [`ErrorKind::Open`]: `path` is empty, is a URL (`file:…`, `sqlite:…`) or `:memory:`, holds a NUL byte, or names
/// a directory; or the current directory is not known.
///
/// # Examples
/// ```
/// let path = lockkeeper::absolute_path("data/app.db")?;
/// assert!(path.is_absolute() && path.ends_with("data/app.db"));
/// let error = lockkeeper::absolute_path("file:app.db?mode=ro").unwrap_err();
/// assert!(error.to_string().contains("write `app.db`"));
/// # Ok::<_, lockkeeper::Error>(())
/// ```
pub fn absolute_path(path: impl AsRef<Path>) -> Result<PathBuf, Error> {
    absolute(path.as_ref()).map_err(|why| Error::new(ErrorKind::Open).detail(why))
}

/// What `path` names. A relative path is resolved against the current directory of the process now.
pub(crate) fn place(path: &Path) -> Place {
    match path.to_str() {
        Some(":memory:") => Place::Memory,
        _ => absolute(path).map_or_else(Place::Nowhere, Place::File),
    }
}

/// The absolute form of `path`, which later changes of the current directory do not affect. Refuses a path that cannot
/// be the path of a file.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Refusal> {
    let bytes = path.as_os_str().as_encoded_bytes();
    let shown = path.display();
    if bytes.is_empty() {
        return Err(String::from("the path is empty; name a file"));
    }
    if bytes.contains(&0) {
        return Err(format!("{path:?} holds a NUL byte, which is in no file's name"));
    }
    let text = path.to_string_lossy();
    if text.eq_ignore_ascii_case(":memory:") {
        return Err(format!(
            "`{text}` is no file's path; a database in memory is opened by `:memory:`, a file of that name \
             by `./{text}`"
        ));
    }
    if let Some(instead) = instead_of_url(&text) {
        return Err(format!(
            "`{text}` is a URL, not a path; write {instead}, and `./{text}` for a file of that very name"
        ));
    }
    let is_separator = |byte: &u8| std::path::is_separator(char::from(*byte));
    let ends_as_dir = bytes.ends_with(b"/.") || bytes.last().is_some_and(is_separator);
    if ends_as_dir || path.file_name().is_none() {
        return Err(format!("{shown} names a directory; name a file, not a directory"));
    }
    std::path::absolute(path).map_err(|error| {
        format!("{shown}: the current directory is not known ({error}); give an absolute path")
    })
}

/// What to write instead of the URL `text`; `None`: `text` is not a URL.
fn instead_of_url(text: &str) -> Option<String> {
    let (scheme, mut rest) = text.split_once(':')?;
    let scheme = scheme.to_ascii_lowercase();
    let of_sqlite = ["file", "sqlite", "sqlite3", "jdbc"].contains(&scheme.as_str());
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    // A scheme of one letter is a Windows drive.
    let is_other = is_scheme && scheme.len() > 1 && rest.starts_with("//");
    if !of_sqlite && !is_other {
        return None;
    }
    if scheme == "jdbc" {
        rest = rest.strip_prefix("sqlite:").unwrap_or("");
    }
    let (rest, query) = match rest.split_once(['?', '#']) {
        Some((rest, query)) => (rest, query),
        None => (rest, ""),
    };
    let path = match rest.strip_prefix("//") {
        Some(after) if scheme == "file" => after.find('/').map_or("", |at| &after[at..]),
        Some(after) => after,
        None => rest,
    };
    let path = decoded(path);
    if path == ":memory:" || query.split(['&', '#']).any(|one| one == "mode=memory") {
        return Some(String::from("`:memory:`"));
    }
    if !of_sqlite || absolute(Path::new(&path)).is_err() {
        return Some(String::from("a path"));
    }
    Some(match query.is_empty() {
        true => format!("`{path}`"),
        false => format!("`{path}` (what follows `?` is set with `Builder`)"),
    })
}

/// `text` with its percent-encoded bytes decoded.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let code = code.filter(|_| first == b'%').and_then(|two| u8::from_str_radix(two, 16).ok());
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The absolute path `path` with symbolic links resolved. Its last component need not exist.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf, Refusal> {
    let shown = path.display();
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        if let Ok(whole) = path.canonicalize() {
            return Ok(whole);
        }
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { break };
        // Either the path is a symbolic link whose target is missing, or there is nothing at the path.
        match path.read_link() {
            // A link in /proc leads to an open file, whatever path the text of the link names.
            Ok(_) if path.metadata().is_ok() => {
                return path.canonicalize().map_err(|_| {
                    format!(
                        "{shown} leads to a file without a name (deleted, perhaps); name a file"
                    )
                });
            }
            Ok(target) => path = dir.join(target),
            Err(_) => {
                return dir.canonicalize().map(|dir| dir.join(name)).map_err(|error| {
                    match error.kind() {
                        std::io::ErrorKind::NotFound => {
                            format!("{shown}: its directory does not exist; there is no such directory")
                        }
                        _ => format!(
                            "{shown}: {error}; check that the file and its directory can be read and written"
                        ),
                    }
                });
            }
        }
    }
    Err(format!("{shown}: its symbolic links lead in a circle, or nowhere"))
}

/// Whether it is certain that there is no file at `path`.
pub(crate) fn is_absent(path: &Path) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    let looked = std::fs::metadata(path);
    looked.is_err_and(|error| matches!(error.kind(), NotFound | NotADirectory))
}

/// Refuses the resolved path `path` if it is too long, so that SQLite could not open it, or could not open it with a
/// suffix.
pub(crate) fn check_length(path: &Path) -> Result<(), Refusal> {
    let (bytes, name) = (path.as_os_str().len(), path.file_name().map_or(0, OsStr::len));
    if name > NAME_MAX {
        return Err(format!(
            "{}: its name has {name} bytes; SQLite appends to it, so give at most {NAME_MAX}",
            path.display()
        ));
    }
    if bytes > PATH_MAX {
        return Err(format!(
            "{}: the path has {bytes} bytes; SQLite takes no longer paths than 512 bytes with what it appends, so \
             give at most {PATH_MAX}",
            path.display()
        ));
    }
    Ok(())
}

/// How many bytes the name of a file in the directory of `path` may have.
pub(crate) fn room_for_name(path: &Path) -> usize {
    let dir = path.parent().map_or(0, |dir| dir.as_os_str().len() + 1);
    NAME_MAX.min(PATH_MAX.saturating_sub(dir))
}

/// Refuses the resolved path `path` if something other than a regular file is there. Returns the file's metadata;
/// `None`: nothing is there.
pub(crate) fn check_kind(path: &Path) -> Result<Option<std::fs::Metadata>, Refusal> {
    let shown = path.display();
    let Ok(file) = std::fs::metadata(path) else { return Ok(None) };
    match kind(&file) {
        None => Ok(Some(file)),
        Some("directory") => Err(format!("{shown} is a directory; name a file, not a directory")),
        Some(kind) => Err(format!("{shown} is a {kind}; name a regular file")),
    }
}

/// The kind of a file that is not regular; `None`: it is regular.
fn kind(file: &std::fs::Metadata) -> Option<&'static str> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let kind = file.file_type();
        if kind.is_fifo() {
            return Some("FIFO");
        }
        if kind.is_socket() {
            return Some("socket");
        }
        if kind.is_char_device() || kind.is_block_device() {
            return Some("device");
        }
    }
    match (file.is_file(), file.is_dir()) {
        (true, _) => None,
        (_, true) => Some("directory"),
        _ => Some("special file"),
    }
}

/// The path of the database to which the file at the resolved path `path` belongs as WAL, index or journal, judged by
/// its name. `None`: no such database is beside it. SQLite reads and deletes files with such names.
pub(crate) fn owner(path: &Path) -> Option<PathBuf> {
    let bytes = path.file_name()?.as_encoded_bytes();
    let end = ENDS.iter().find(|end| bytes.ends_with(end.as_bytes()) && bytes.len() > end.len())?;
    // The name need not be UTF-8, so the directory's entries are compared byte by byte.
    let entries = std::fs::read_dir(path.parent()?).ok()?;
    let stem = &bytes[..bytes.len() - end.len()];
    let owner = entries.flatten().find(|entry| entry.file_name().as_encoded_bytes() == stem)?;
    Some(owner.path())
}

/// The URI with which SQLite opens the absolute path `path` as `parameter` says: `immutable=1` (without locks, and without
/// looking for a WAL) or `mode=rw` (without creating the file). Every character of the path that has a meaning in a URI
/// is encoded.
pub(crate) fn uri(path: &Path, parameter: &str) -> String {
    let mut uri = String::from(if cfg!(windows) { "file:///" } else { "file:" });
    for &byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'\\' if cfg!(windows) => uri.push('/'),
            b'/' | b'-' | b'_' | b'.' => uri.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(byte)),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push('?');
    uri.push_str(parameter);
    uri
}

/// `path` with the suffix `end`.
pub(crate) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    PathBuf::from(name)
}

/// The device and inode of the file at `path`; `None`: not known. This uses `stat`, because to open the file and close
/// its descriptor would drop SQLite's locks.
pub(crate) fn identity(path: &Path) -> Option<FileId> {
    std::fs::metadata(path).ok().as_ref().and_then(id_of)
}

/// The device and inode of a file. `None` on systems other than Unix, where files are compared by their paths alone.
#[cfg_attr(not(unix), expect(unused_variables, reason = "only Unix tells"))]
pub(crate) fn id_of(file: &std::fs::Metadata) -> Option<FileId> {
    #[cfg(unix)]
    return Some((file.dev(), file.ino()));
    #[cfg(not(unix))]
    return None;
}
