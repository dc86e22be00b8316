//! Which file a database has, and whether that file is still in its place.
//!
//! SQLite keeps file descriptors open. If the file is deleted, or another file is renamed over it, writes go into a
//! file that has no name any more, and connections that are opened later read the other file. The same holds for the
//! WAL and its index. So the device and inode of these three files are recorded. They are compared when a connection
//! has been opened, before a checkpoint, and every [`CHECK_INTERVAL`] while calls are served. A check calls `stat`
//! three times. It opens no file, because closing a descriptor of the file would drop the process's locks. An idle
//! database checks nothing.
//!
//! | state | what may be trusted | left by |
//! |---|---|---|
//! | unknown | no identity: the file is not open yet, is in memory, or is kept elsewhere by a VFS | `connected` |
//! | in place | the file was there at `seen`; calls answered before are in it | a check that finds it missing or replaced |
//! | lost | every call is refused with the same error; `lost` says what was found, and when | never |
//!
//! - FILE1: the WAL and its index are compared only while the writer is connected, because SQLite deletes the WAL when
//!   the last connection is closed. The writer notes under the lock of the check that it connects and disconnects.
//! - FILE2: the check comes before the COMMIT of the calls that it covers. So at most the calls that were answered since
//!   the last check can be lost without an error.
//! - FILE3: a lost file stays lost. Even if the right file comes back, some reads and writes may have gone to another
//!   file. So the database must be closed and opened again.
//! - FILE4: once the file's identity is known, no connection is opened with the right to create the file. Otherwise SQLite
//!   would make an empty file in the place of one that has just gone, and delete the WAL, which it would take for that of
//!   the empty file.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::Connection;

use super::path::{self, FileId};
use crate::error::{Error, ErrorKind};
use crate::sync::{Mutex, lock, now};

/// When a call is answered, the last check is at most this old. The documentation promises one second; this is a
/// quarter of that.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// The suffixes of the files that belong to the database file while it is open.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

/// What is known about the file of one database.
#[derive(Debug)]
pub(crate) struct DatabaseFile {
    /// The absolute path, in which symbolic links are resolved. Not set: the file was not looked for yet, or the
    /// database is in memory.
    path: OnceLock<PathBuf>,
    watched: Mutex<Watched>,
    /// Why the file counts as lost: the detail of the error of every later call. Not set: the file is not lost.
    lost: OnceLock<String>,
    began: Instant,
    /// Milliseconds after `began` at which the next check is due. A hint: two threads may both check.
    next_check: AtomicU64,
}

#[derive(Debug)]
struct Watched {
    /// The identity of the database file; `None`: the file is not watched.
    main: Option<FileId>,
    /// The file was not empty when it was opened. If it is empty later, it was damaged from outside, because SQLite
    /// never empties a file in WAL mode.
    was_filled: bool,
    /// The identities of the WAL and its index. `None`: the writer has no connection (FILE1).
    beside: Option<[Option<FileId>; 2]>,
    /// When a check last found all files in their places.
    seen: SystemTime,
}

/// What a path leads to.
enum Found {
    Is {
        id: FileId,
        /// The file has no bytes.
        is_empty: bool,
    },
    Nothing,
    /// `stat` failed for another reason, for example because a directory may not be searched.
    Unknown,
}

impl Default for DatabaseFile {
    fn default() -> Self {
        let watched =
            Watched { main: None, was_filled: false, beside: None, seen: SystemTime::now() };
        Self {
            path: OnceLock::new(),
            watched: Mutex::new(watched),
            lost: OnceLock::new(),
            began: now(),
            next_check: AtomicU64::new(0),
        }
    }
}

impl DatabaseFile {
    /// The path by which SQLite opens the file; `None`: the file was not looked for yet, or the database is in memory.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.get().map(PathBuf::as_path)
    }

    /// The size of the `-wal` file in bytes, by `stat`; 0: there is none.
    pub(crate) fn wal_bytes(&self) -> u64 {
        let Some(path) = self.path() else { return 0 };
        std::fs::metadata(path::beside(path, "-wal")).map_or(0, |file| file.len())
    }

    /// Sets the path. To be called once, before the file is opened.
    pub(crate) fn found(&self, path: PathBuf) {
        let _ = self.path.set(path);
    }

    /// To be called when the writer has opened its connection, and the WAL with it. The first call records the file's
    /// identity.
    pub(crate) fn connected(&self) -> Result<(), Error> {
        let Some(path) = self.path() else { return Ok(()) };
        let mut watched = lock(&self.watched);
        if watched.main.is_none()
            && let Found::Is { id, is_empty } = look_at(path)
        {
            (watched.main, watched.was_filled) = (Some(id), !is_empty);
        }
        watched.beside = Some(BESIDE.map(|end| path::identity(&path::beside(path, end))));
        drop(watched);
        self.check()
    }

    /// To be called before the writer closes its connection, or lends it to a call that may change the journal mode.
    pub(crate) fn disconnecting(&self) {
        lock(&self.watched).beside = None;
    }

    /// Ends the watch. To be called when the writer has closed its last connection.
    pub(crate) fn closed(&self) {
        lock(&self.watched).main = None;
    }

    /// Whether the last check found the file in its place. If, at the time `at`, that check is older than
    /// [`CHECK_INTERVAL`], makes a new check.
    pub(crate) fn is_in_place(&self, at: Instant) -> bool {
        if self.is_lost() {
            return false;
        }
        let since = at.saturating_duration_since(self.began).as_millis();
        u64::try_from(since).is_ok_and(|since| since < self.next_check.load(Ordering::Relaxed))
            || self.check().is_ok()
    }

    /// Compares the files with the recorded ones. The error says that the file is lost.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if let Some(lost) = self.lost() {
            return Err(lost);
        }
        let Some(path) = self.path() else { return Ok(()) };
        let mut watched = lock(&self.watched);
        if let Some(what) = watched.look(path) {
            self.lost.get_or_init(|| explain(path, &what, watched.seen));
            return self.lost().map_or(Ok(()), Err);
        }
        watched.seen = SystemTime::now();
        let next = (now() - self.began + CHECK_INTERVAL).as_millis();
        self.next_check.store(u64::try_from(next).unwrap_or(u64::MAX), Ordering::Relaxed);
        Ok(())
    }

    /// Whether the file's identity was recorded, so that the file must not be created any more (FILE4).
    pub(crate) fn is_known(&self) -> bool {
        lock(&self.watched).main.is_some()
    }

    /// Whether a check has found that the file is missing or replaced.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.get().is_some()
    }

    /// The error that every call gets once the file is lost; `None`: it is not lost.
    pub(crate) fn lost<E>(&self) -> Option<Error<E>> {
        self.lost.get().map(|why| Error::new(ErrorKind::Replaced).detail(why.clone()))
    }

    /// Returns `error`. If it is about a lost file, the result also says what the check found.
    pub(crate) fn explain<E>(&self, error: Error<E>) -> Error<E> {
        match (error.kind(), self.lost()) {
            (ErrorKind::Replaced, Some(lost)) => lost,
            _ => error,
        }
    }

    /// Whether the WAL must be copied back and emptied when the file is given up.
    ///
    /// | the file | its WAL | WAL and index are the writer's | |
    /// |---|---|---|---|
    /// | in its place | there | yes | no: the next opener finds both |
    /// | gone, or another is there | there | yes | yes: it would be taken for the WAL of another file |
    /// | any | gone | yes | yes: the next opener would not find it |
    /// | any | any | no, or not known | no: it may belong to another process |
    pub(crate) fn must_empty_wal(&self) -> bool {
        let (Some(path), watched) = (self.path(), lock(&self.watched)) else { return false };
        let (Some(main), Some([wal, index])) = (watched.main, watched.beside) else { return false };
        let [wal_end, index_end] = BESIDE;
        let wal_found = look_at(&path::beside(path, wal_end));
        let foreign = |found: &Found, id: Option<FileId>| match found {
            Found::Is { id: found, .. } => id != Some(*found),
            Found::Nothing => false,
            Found::Unknown => true,
        };
        if foreign(&wal_found, wal) || foreign(&look_at(&path::beside(path, index_end)), index) {
            return false;
        }
        // An empty file counts as gone: SQLite deletes the WAL of an empty file.
        let in_place = matches!(look_at(path), Found::Is { id, is_empty: false } if id == main);
        !in_place || matches!(wal_found, Found::Nothing)
    }
}

impl Watched {
    /// What is wrong with the files; `None`: they are in their places.
    fn look(&self, path: &Path) -> Option<String> {
        let compare = |path: &Path, id: FileId, may_be_empty: bool| {
            let shown = path.display();
            match look_at(path) {
                Found::Is { id: found, .. } if found != id => {
                    Some(format!("another file is in the place of {shown}"))
                }
                Found::Is { is_empty: true, .. } if !may_be_empty => {
                    Some(format!("{shown} was cut off: it is empty now"))
                }
                Found::Nothing => Some(format!("{shown} was deleted or moved away")),
                Found::Is { .. } | Found::Unknown => None,
            }
        };
        let wrong = compare(path, self.main?, !self.was_filled);
        let beside = BESIDE.iter().zip(self.beside.unwrap_or_default());
        let mut beside = beside.filter_map(|(end, id)| Some((path::beside(path, end), id?)));
        wrong.or_else(|| beside.find_map(|(path, id)| compare(&path, id, true)))
    }
}

fn look_at(path: &Path) -> Found {
    use std::io::ErrorKind::{NotADirectory, NotFound};

    match std::fs::metadata(path) {
        Ok(file) => path::id_of(&file)
            .map_or(Found::Unknown, |id| Found::Is { id, is_empty: file.len() == 0 }),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Found::Nothing,
        Err(_) => Found::Unknown,
    }
}

fn explain(path: &Path, what: &str, seen: SystemTime) -> String {
    format!(
        "{what}; it was in place at {} and was missed at {}: what was answered in between may be lost, what was \
         answered before is in the file that was there; nothing is read or written any more: close the \
         database, put the right file at {}, open it again",
        shown(seen),
        shown(SystemTime::now()),
        path.display()
    )
}

/// A point in time as text for people, made by SQLite's date functions.
fn shown(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let sql = "SELECT strftime('%Y-%m-%dT%H:%M:%fZ', ?1, 'unixepoch')";
    let text = Connection::open_in_memory()
        .and_then(|conn| conn.query_row(sql, [since], |row| row.get::<_, String>(0)));
    text.unwrap_or_else(|_| format!("{since:.3} (Unix time)"))
}
