//! Inspecting a file, and checkpointing its WAL.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lockkeeper::rusqlite::{self, Connection, ErrorCode, OpenFlags};
use serde_json::{Value, json};

use crate::stop::Stop;
use crate::{Answer, Failure, Outcome};

/// How long to wait for a lock that another program holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Look,
    FoldBack,
}

/// The path of an existing file, with symbolic links resolved, because SQLite derives the name of the WAL from it.
/// Refuses URLs.
fn known(file: &Path) -> Result<PathBuf, Failure> {
    let file = lockkeeper::absolute_path(file)?;
    let known = file.canonicalize().map_err(|error| format!("{}: {error}", file.display()))?;
    let about =
        std::fs::metadata(&known).map_err(|error| format!("{}: {error}", file.display()))?;
    match (about.is_file(), about.is_dir()) {
        (true, _) => Ok(known),
        (_, true) => Err(format!("{}: name a file, not a directory", file.display()).into()),
        _ => Err(format!("{}: name a regular file", file.display()).into()),
    }
}

/// Opens a file whose path [`known`] returned. The errors name the file and say what to do, which SQLite's own do not.
fn open(file: &Path, purpose: Purpose) -> Result<Connection, Failure> {
    let shown = file.display();
    let has_wal = beside(file, "-wal").exists();
    if std::fs::metadata(file)?.len() == 0 && !has_wal {
        return Err(format!(
            "{shown}: the file is empty, which SQLite takes for a database without tables; was it cut off?"
        )
        .into());
    }
    // Reading a file in WAL mode makes a WAL and its index. Only a connection that can write removes them again, and if
    // they stayed, `restore` would take the file to be in use. If there is a WAL already, the connection is read-only
    // and leaves it alone.
    let to_look_in = has_wal || beside(file, "-journal").exists();
    let flags = match purpose {
        Purpose::Look if to_look_in => OpenFlags::SQLITE_OPEN_READ_ONLY,
        Purpose::Look | Purpose::FoldBack => OpenFlags::SQLITE_OPEN_READ_WRITE,
    };
    let conn = Connection::open_with_flags(file, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|error| explained(file, &error))?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    if purpose == Purpose::Look {
        conn.execute_batch("PRAGMA query_only = ON")?;
    }
    let look = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
    look.map_err(|error| explained(file, &error))?;
    Ok(conn)
}

/// Explains an error of SQLite, with the file's name and what to do.
pub(crate) fn explained(file: &Path, error: &rusqlite::Error) -> String {
    let shown = file.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => {
            format!("{shown}: it is no SQLite database, or an encrypted one")
        }
        Some(ErrorCode::DatabaseCorrupt) => format!(
            "{shown}: it is damaged ({error}); restore a backup, or save what can be saved with \
             `.recover` of the sqlite3 shell"
        ),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            let holders = holders(file);
            let who = match holders.is_empty() {
                true => String::from("a process that cannot be seen from here; try as root"),
                false => holders.join(", "),
            };
            format!("{shown}: it is locked, and stayed so while it was waited for; open in: {who}")
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => format!(
            "{shown}: {error}; may you read it, and, as it is in WAL mode, write to its directory?"
        ),
        Some(ErrorCode::OperationInterrupted) => format!("{shown}: stopped; nothing was changed"),
        _ => format!("{shown}: {error}"),
    }
}

pub(crate) fn inspect(file: &Path, quick: bool, stop: &Stop) -> Outcome {
    let file = &known(file)?;
    let wal = wal_bytes(file);
    let mut conn = open(file, Purpose::Look)?;
    let stop = Arc::clone(&stop.0);
    conn.progress_handler(100_000, Some(move || stop.load(Ordering::Relaxed)))?;
    let (mut facts, good) = look(&conn, quick).map_err(|error| explained(file, &error))?;
    let open_in = holders(file);
    let mut notes = Vec::new();
    if wal > 0 && open_in.is_empty() {
        notes.push(
            "nobody seems to have it open, so the WAL was left by a crash: whoever opens it next \
             recovers it; `checkpoint` does so at once",
        );
    }
    if unseen() > 0 {
        notes.push("the files of other users' processes cannot be seen from here; run it as root");
    }
    // The WAL's header has 32 bytes, the header of each frame 24.
    let page_bytes = facts["page_size"].as_u64().unwrap_or(0);
    facts["file"] = json!(file.display().to_string());
    facts["bytes"] = json!(std::fs::metadata(file)?.len());
    facts["wal_bytes"] = json!(wal);
    facts["wal_frames_at_most"] = json!(wal.saturating_sub(32) / (page_bytes + 24));
    facts["open_in"] = json!(open_in);
    facts["notes"] = json!(notes);
    Ok(Answer { facts, good })
}

/// What SQLite reports about a file, and whether the file is in order.
fn look(conn: &Connection, quick: bool) -> rusqlite::Result<(Value, bool)> {
    let number = |name: &str| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let text = |name: &str| conn.pragma_query_value(None, name, |row| row.get::<_, String>(0));
    let id = number("application_id")?;
    let tables = "SELECT count(*) FROM sqlite_schema WHERE type = 'table'";
    let tables: i64 = conn.query_row(tables, [], |row| row.get(0))?;
    let check = if quick { "quick_check" } else { "integrity_check" };
    let mut statement = conn.prepare(&format!("PRAGMA {check}(10)"))?;
    let problems: Vec<String> =
        statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let keys: i64 =
        conn.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| row.get(0))?;
    let good = problems == ["ok"] && keys == 0;
    let facts = json!({
        "page_size": number("page_size")?,
        "pages": number("page_count")?,
        "free_pages": number("freelist_count")?,
        "journal_mode": text("journal_mode")?,
        "application_id": format!("{id:#010x}{}", letters(id)),
        "schema_version": number("user_version")?,
        "tables": tables,
        "encoding": text("encoding")?,
        "violated_foreign_keys": keys,
        check: problems,
        "sqlite_here": rusqlite::version(),
    });
    Ok((facts, good))
}

/// The application id as letters, or an empty text if its bytes are not printable.
fn letters(id: i64) -> String {
    let bytes = i32::try_from(id).unwrap_or(0).to_be_bytes();
    match bytes.iter().all(u8::is_ascii_graphic) {
        true => format!(" \"{}\"", String::from_utf8_lossy(&bytes)),
        false => String::new(),
    }
}

/// The size of the WAL. This uses `stat`, because closing a descriptor of a file would drop SQLite's locks on it.
pub(crate) fn wal_bytes(file: &Path) -> u64 {
    std::fs::metadata(beside(file, "-wal")).map_or(0, |wal| wal.len())
}

fn beside(file: &Path, end: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// The number of processes whose open files this process may not see.
fn unseen() -> usize {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let denied = |path: PathBuf| {
        std::fs::read_dir(path)
            .is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    };
    processes.filter(|process| denied(process.path().join("fd"))).count()
}

/// The other processes that have the file open. Processes of other users are visible only to root.
fn holders(file: &Path) -> Vec<String> {
    let Ok(file) = file.canonicalize() else { return Vec::new() };
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        let Some(pid) = pid.filter(|pid| *pid != std::process::id()) else { continue };
        let descriptors = std::fs::read_dir(process.path().join("fd")).into_iter().flatten();
        let count = descriptors
            .flatten()
            .filter(|link| std::fs::read_link(link.path()).is_ok_and(|target| target == file))
            .count();
        if count > 0 {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let name = name.trim_end();
            found.push(format!("{name} (pid {pid}), descriptors: {count}"));
        }
    }
    found
}

pub(crate) fn checkpoint(file: &Path, timeout: Duration) -> Outcome {
    let file = &known(file)?;
    let before = wal_bytes(file);
    let conn = open(file, Purpose::FoldBack)?;
    conn.busy_timeout(timeout)?;
    let (busy, log, copied): (bool, i64, i64) = conn
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .map_err(|error| explained(file, &error))?;
    if log < 0 {
        return Err(format!("{} is not in WAL mode; nothing to fold back", file.display()).into());
    }
    // If SQLite was busy, a reader or writer kept the WAL from being emptied.
    let remedy = match busy {
        false => "none",
        true => "a reader or writer kept it; see `inspect` for who has it open, and try again",
    };
    let facts = json!({
        "file": file.display().to_string(),
        "emptied": !busy,
        "frames_left": (log - copied).max(0),
        "wal_bytes_before": before,
        "wal_bytes": wal_bytes(file),
        "remedy": remedy,
    });
    Ok(Answer { facts, good: !busy })
}
