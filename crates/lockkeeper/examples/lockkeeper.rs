//! `lockkeeper`: looks at a database file, copies it, folds its WAL back, and measures a disk.
//!
//! For the operator at three in the morning. Run it beside the program that has the file open: it never
//! opens the file but through SQLite, and `inspect` writes nothing.
//!
//! ```sh
//! cargo run --release -p lockkeeper --example lockkeeper -- inspect app.db
//! ```

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use lockkeeper::rusqlite::{self, Connection, OpenFlags};
use lockkeeper::{Database, blocking_restore};
use serde_json::{Map, Value, json};

#[derive(Parser)]
#[command(
    name = "lockkeeper",
    about = "Looks after SQLite files, beside the programs that use them"
)]
struct Arguments {
    /// Answer in JSON, on one line
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What is in a file: versions, WAL, who has it open, whether it is whole; writes nothing
    Inspect {
        file: PathBuf,
        /// Do not check the whole file, which reads all of it
        #[arg(long)]
        quick: bool,
    },
    /// Copy a file that may be in use; the copy is checked and renamed into place
    Backup { file: PathBuf, to: PathBuf },
    /// Put a backup in the place of a file that nobody uses; a damaged one is refused
    Restore { from: PathBuf, file: PathBuf },
    /// Fold the WAL back into the file and empty it, waiting for readers
    Checkpoint {
        file: PathBuf,
        /// How long to wait for readers and the writer
        #[arg(long, value_name = "MS", default_value_t = 5000)]
        timeout_ms: u64,
    },
    /// Measure durable writes, and a backup beside them, on a new file in a directory
    Bench {
        dir: PathBuf,
        #[arg(long, default_value_t = 64)]
        writers: usize,
        #[arg(long, default_value_t = 3)]
        seconds: u64,
        /// Size of the file that is backed up
        #[arg(long, value_name = "MIB", default_value_t = 64)]
        mib: usize,
    },
}

fn main() -> ExitCode {
    let Arguments { json, command } = Arguments::parse();
    let result = match &command {
        Command::Inspect { file, quick } => inspect(file, *quick),
        Command::Backup { file, to } => backup(file, to),
        Command::Restore { from, file } => restore(from, file),
        Command::Checkpoint { file, timeout_ms } => {
            checkpoint(file, Duration::from_millis(*timeout_ms))
        }
        Command::Bench { dir, writers, seconds, mib } => {
            bench(dir, (*writers).max(1), Duration::from_secs((*seconds).max(1)), (*mib).max(1))
        }
    };
    match result {
        Ok(Answer { facts, good }) => {
            match json {
                true => println!("{}", Value::Object(facts)),
                false => print_facts(&facts),
            }
            if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            match json {
                true => println!("{}", json!({ "error": error.to_string() })),
                false => eprintln!("lockkeeper: {error}"),
            }
            ExitCode::FAILURE
        }
    }
}

/// What a command found, and whether all is well: then the exit status is 0.
struct Answer {
    facts: Map<String, Value>,
    good: bool,
}

type Outcome = Result<Answer, Box<dyn Error>>;

fn answer(facts: Value, good: bool) -> Outcome {
    match facts {
        Value::Object(facts) => Ok(Answer { facts, good }),
        _ => Err("no facts".into()),
    }
}

fn print_facts(facts: &Map<String, Value>) {
    let width = facts.keys().map(String::len).max().unwrap_or(0);
    for (name, value) in facts {
        let name = name.replace('_', " ");
        match value {
            Value::Array(items) if items.is_empty() => println!("{name:width$}  none"),
            Value::Array(items) => {
                for (n, item) in items.iter().enumerate() {
                    println!("{:width$}  {}", if n == 0 { &name } else { "" }, plain(item));
                }
            }
            value => println!("{name:width$}  {}", plain(value)),
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Opens an existing file; SQLite's own words do not say which.
fn open(file: &Path, flags: OpenFlags) -> Result<Connection, Box<dyn Error>> {
    let shown = file.display();
    if !file.exists() {
        return Err(format!("{shown}: there is no such file").into());
    }
    let conn = Connection::open_with_flags(file, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|error| format!("{shown}: {error}"))?;
    conn.busy_timeout(Duration::from_secs(5))?;
    let look = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
    look.map_err(|error| format!("{shown}: {error}; is it a database, and may you read it?"))?;
    Ok(conn)
}

fn inspect(file: &Path, quick: bool) -> Outcome {
    let conn = open(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
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
    let whole = problems == ["ok"];
    let page = number("page_size")?;
    let wal = wal_bytes(file);
    answer(
        json!({
            "file": file.display().to_string(),
            "bytes": std::fs::metadata(file)?.len(),
            "page_size": page,
            "pages": number("page_count")?,
            "free_pages": number("freelist_count")?,
            "journal_mode": text("journal_mode")?,
            "wal_bytes": wal,
            "wal_frames_at_most": wal.saturating_sub(32) / (page as u64 + 24),
            "application_id": format!("{id:#010x}{}", letters(id)),
            "schema_version": number("user_version")?,
            "tables": tables,
            "encoding": text("encoding")?,
            "open_in": holders(file),
            "violated_foreign_keys": keys,
            check: problems,
            "sqlite_here": rusqlite::version(),
        }),
        whole && keys == 0,
    )
}

/// The application id in letters, if it is made of some.
fn letters(id: i64) -> String {
    let bytes = i32::try_from(id).unwrap_or(0).to_be_bytes();
    match bytes.iter().all(u8::is_ascii_graphic) {
        true => format!(" \"{}\"", String::from_utf8_lossy(&bytes)),
        false => String::new(),
    }
}

/// By `stat`: closing another descriptor of a file would drop SQLite's locks on it.
fn wal_bytes(file: &Path) -> u64 {
    let mut wal = file.as_os_str().to_owned();
    wal.push("-wal");
    std::fs::metadata(PathBuf::from(wal)).map_or(0, |wal| wal.len())
}

/// The processes that have the file open, this one left out; those of others need root to be seen.
fn holders(file: &Path) -> Vec<String> {
    let Ok(file) = file.canonicalize() else { return Vec::new() };
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        if pid == std::process::id() {
            continue;
        }
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

fn backup(file: &Path, to: &Path) -> Outcome {
    if !file.exists() {
        return Err(format!("{}: there is no such file", file.display()).into());
    }
    // Not as a `Database`, which would change the journal mode of a file that has another one.
    let report = blocking_restore(file, to).map_err(explained)?;
    answer(
        json!({
            "backup": to.display().to_string(),
            "bytes": report.bytes,
            "milliseconds": report.elapsed.as_millis() as u64,
            "integrity_check": "ok",
        }),
        true,
    )
}

fn restore(from: &Path, file: &Path) -> Outcome {
    let report = blocking_restore(from, file).map_err(explained)?;
    let (file, bytes) = (file.display().to_string(), report.bytes);
    answer(json!({ "restored": file, "bytes": bytes, "integrity_check": "ok" }), true)
}

/// The library's message holds the path and the remedy.
#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` calls")]
fn explained(error: lockkeeper::Error) -> String {
    error.to_string()
}

fn checkpoint(file: &Path, patience: Duration) -> Outcome {
    let before = wal_bytes(file);
    let conn = open(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    conn.busy_timeout(patience)?;
    let (busy, log, copied): (bool, i64, i64) =
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    if log < 0 {
        return Err(format!("{} is not in WAL mode; nothing to fold back", file.display()).into());
    }
    // All is copied, but a reader still needs the WAL: it is emptied another time.
    let remedy = match busy {
        false => "none",
        true => "a reader or writer kept it; see `inspect` for who has it open, and try again",
    };
    answer(
        json!({
            "file": file.display().to_string(),
            "emptied": !busy,
            "frames_left": (log - copied).max(0),
            "wal_bytes_before": before,
            "wal_bytes": wal_bytes(file),
            "remedy": remedy,
        }),
        !busy,
    )
}

/// Writes single rows from many threads until `until`; how many were stored.
fn write_until(db: &Database, writers: usize, over: &AtomicBool) -> Result<u64, String> {
    let stored = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers)
            .map(|_| {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        let sql = "INSERT INTO bench (data) VALUES (randomblob(100))";
                        db.blocking_write(move |tx| tx.execute(sql, [])).map_err(explained)?;
                        stored.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(String::from("a writer panicked")))
        })
    })?;
    Ok(stored.into_inner())
}

fn bench(dir: &Path, writers: usize, time: Duration, mib: usize) -> Outcome {
    let dir = tempfile::Builder::new()
        .prefix("lockkeeper-bench-")
        .tempdir_in(dir)
        .map_err(|error| format!("{}: {error}", dir.display()))?;
    let file = dir.path().join("bench.db");
    let db = Database::blocking_open(&file).map_err(explained)?;
    db.blocking_write(|tx| {
        tx.execute_batch("CREATE TABLE bench (id INTEGER PRIMARY KEY, data BLOB)")
    })
    .map_err(explained)?;
    for _ in 0..mib {
        db.blocking_write(|tx| {
            let rows = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 256)
                        INSERT INTO bench (data) SELECT randomblob(4000) FROM n";
            tx.execute(rows, [])
        })
        .map_err(explained)?;
    }
    let copy = dir.path().join("copy.db");
    let idle = db.backup(&copy).blocking_run().map_err(explained)?;
    let alone = measure(&db, writers, || {
        std::thread::park_timeout(time);
        Ok(())
    })?;
    let mut busy = Duration::ZERO;
    let beside = measure(&db, writers, || {
        busy = db.backup(&copy).blocking_run().map_err(explained)?.elapsed;
        Ok(())
    })?;
    let wal = wal_bytes(&file);
    db.blocking_close().map_err(explained)?;
    answer(
        json!({
            "writers": writers,
            "durable_writes_per_second": alone,
            "durable_writes_per_second_beside_backup": beside,
            "backup_bytes": idle.bytes,
            "backup_milliseconds_idle": idle.elapsed.as_millis() as u64,
            "backup_milliseconds_beside_writes": busy.as_millis() as u64,
            "wal_bytes_after_backup": wal,
        }),
        true,
    )
}

/// Writes per second while `f` runs.
fn measure(
    db: &Database,
    writers: usize,
    f: impl FnOnce() -> Result<(), String>,
) -> Result<u64, String> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let began = Instant::now();
        let stored = scope.spawn(|| write_until(db, writers, &over));
        let result = f();
        over.store(true, Ordering::Relaxed);
        let stored = stored.join().map_err(|_| String::from("the writers panicked"))??;
        result?;
        Ok((stored as f64 / began.elapsed().as_secs_f64()) as u64)
    })
}
