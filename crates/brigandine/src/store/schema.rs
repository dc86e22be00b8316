//! The schema version of a file, the migration to this program's version, and the indexes.
//!
//! Migration steps change tables, each in one transaction, and never go back. Indexes are not part of the steps: each
//! start of a server makes the indexes of `schema.sql` that are missing, each in a transaction of its own. So an index
//! can be added to five million builds with reports of progress, and an interruption loses only the index that was
//! being made. In an empty file one transaction makes everything.

use super::query::Query;
use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// `schema.sql`, which has every table, index and trigger.
const SCHEMA: &str = include_str!("../../schema.sql");

/// "BRGD": distinguishes Brigandine's files from those of other programs.
const APPLICATION_ID: i64 = 1_112_688_452;

/// [`APPLICATION_ID`] as the header of a file has it.
pub(super) const OWN_MARK: [u8; 4] = *b"BRGD";

/// The steps, in their order. Each runs in one transaction, and sets the version to its place, counted from 1.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/0001_initial.sql"),
    include_str!("../../migrations/0002_millions.sql"),
    include_str!("../../migrations/0003_retention.sql"),
    include_str!("../../migrations/0004_looks.sql"),
    include_str!("../../migrations/0005_projects.sql"),
    include_str!("../../migrations/0006_audit.sql"),
    include_str!("../../migrations/0007_accounts.sql"),
    include_str!("../../migrations/0008_wishes.sql"),
    include_str!("../../migrations/0009_login_providers.sql"),
];

/// Why a file cannot be used as the database.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The file belongs to another program.
    #[error(
        "the file belongs to another program (application id {0}); name another state directory"
    )]
    Foreign(i64),
    /// A newer Brigandine wrote the file.
    #[error(
        "the file has schema version {0}, and this program knows {version} at most; use the newer program that wrote it",
        version = VERSION
    )]
    Newer(i64),
    /// An older Brigandine wrote the file, and only a server migrates it to this version.
    #[error(
        "the file has schema version {0}, and this program's is {version}: only `brigandine serve` of this version \
         brings it there, after a copy; stop the older server first, or use its program",
        version = VERSION
    )]
    Older(i64),
    /// The file lacks an index, which only a server makes.
    #[error(
        "the file has no index `{0}` yet: `brigandine serve` of this version makes it when it starts"
    )]
    Unindexed(&'static str),
    /// The file has no tables yet.
    #[error("the file has no tables yet: start `brigandine serve` once, or add a specification")]
    Empty,
    /// SQLite refused a step.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

/// The progress of a migration, for trace lines; `None`: no step has begun.
#[derive(Debug, Default)]
pub(super) struct Progress(Mutex<Option<Activity>>);

#[derive(Debug)]
struct Activity {
    what: String,
    since: Instant,
    /// Bytes that this process had read and written when the activity began.
    io: Io,
}

impl Progress {
    /// A text for people: what is being done, for how long, and how many bytes were read and written meanwhile.
    ///
    /// The bytes are the kernel's counts for the whole process, which does nothing else while it opens its database.
    /// SQLite's progress handler is not used, because Lockkeeper needs it to stop statements.
    pub(super) fn text(&self) -> String {
        let activity = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Activity { what, since, io: before }) = &*activity else {
            return "waiting for the writer".to_owned();
        };
        let io = Io::now();
        let mib = |now: u64, before: u64| now.saturating_sub(before) >> 20;
        let (read, written) = (mib(io.read, before.read), mib(io.written, before.written));
        let seconds = since.elapsed().as_secs();
        format!("{what}, for {seconds} s, {read} MiB read and {written} MiB written")
    }

    pub(super) fn set(&self, what: String) {
        let activity = Activity { what, since: Instant::now(), io: Io::now() };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(activity);
    }
}

/// Bytes that this process has read and written, whether from the kernel's cache or the disk.
#[derive(Debug, Clone, Copy, Default)]
struct Io {
    read: u64,
    written: u64,
}

impl Io {
    /// The counts up to now; zeros if the kernel does not provide them.
    fn now() -> Self {
        let text = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
        let of = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.trim().parse().ok()).unwrap_or(0)
        };
        Self { read: of("rchar:"), written: of("wchar:") }
    }
}

/// The schema version of this program.
pub(super) const VERSION: usize = MIGRATIONS.len();

/// Lists the tables of a file, without SQLite's own.
pub(super) const TABLES: &str = "SELECT name FROM sqlite_schema
     WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name";

/// Reads the header and whether the file is empty, for [`judge`].
pub(super) const MARKS: &str =
    "SELECT application_id, user_version, NOT EXISTS (SELECT 1 FROM sqlite_schema)
     FROM pragma_application_id, pragma_user_version";

/// Checks the header of a file and returns its schema version; 0: the file has no tables yet.
pub(super) fn judge(
    (application_id, version, is_empty): (i64, i64, bool),
) -> Result<usize, SchemaError> {
    if application_id != APPLICATION_ID && !(is_empty && application_id == 0) {
        return Err(SchemaError::Foreign(application_id));
    }
    let done = usize::try_from(version).unwrap_or(usize::MAX);
    if done > VERSION { Err(SchemaError::Newer(version)) } else { Ok(done) }
}

/// Reads a row of [`MARKS`].
pub(super) fn marks(row: &rusqlite::Row<'_>) -> rusqlite::Result<(i64, i64, bool)> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

/// Adds the function that steps use.
pub(super) fn add_function(conn: &Connection) -> rusqlite::Result<()> {
    conn.create_scalar_function(
        "derivation_key",
        1,
        FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC,
        |context| Ok(super::derivations::derivation_key(context.get_raw(0).as_str()?)),
    )
}

/// Makes the tables of schema version `version` in an empty file, without triggers. The version of this program gets no
/// indexes either.
pub(super) fn make_tables_of(conn: &Connection, version: usize) -> Result<(), SchemaError> {
    if version == VERSION {
        return Ok(make_tables(conn)?);
    }
    add_function(conn)?;
    for (place, step) in MIGRATIONS.iter().enumerate().take(version) {
        conn.execute_batch(step)?;
        conn.execute_batch(&format!("PRAGMA user_version = {}", place + 1))?;
    }
    let drops: Vec<String> = conn
        .values("SELECT 'DROP TRIGGER ' || name FROM sqlite_schema WHERE type = 'trigger'", [])?;
    Ok(conn.execute_batch(&drops.join(";"))?)
}

/// Makes the triggers of schema version `version` that are missing.
pub(super) fn make_triggers_of(conn: &Connection, version: usize) -> rusqlite::Result<()> {
    if version == VERSION {
        return make_triggers(conn);
    }
    let document = Connection::open_in_memory()?;
    add_function(&document)?;
    for step in MIGRATIONS.iter().take(version) {
        document.execute_batch(step)?;
    }
    copy_triggers(&document, conn)
}

/// Makes everything in an empty file, in one transaction: another program that has the file open sees no version in
/// between.
fn make(conn: &mut Connection) -> Result<(), SchemaError> {
    let transaction = conn.transaction()?;
    for step in MIGRATIONS {
        transaction.execute_batch(step)?;
    }
    transaction.execute_batch(&format!("PRAGMA user_version = {VERSION}"))?;
    make_indexes(&transaction, &|_| ())?;
    Ok(transaction.commit()?)
}

/// Migrates an empty or older file to this program's version.
pub(super) fn migrate(conn: &mut Connection, progress: &Progress) -> Result<(), SchemaError> {
    let done = judge(conn.query_row(MARKS, [], marks)?)?;
    if done < VERSION {
        add_function(conn)?;
        // A step may replace a table that other tables refer to.
        conn.pragma_update(None, "foreign_keys", false)?;
    }
    if done == 0 {
        progress.set("the tables are made".to_owned());
        make(conn)?;
    }
    let rest = if done == 0 { VERSION } else { done };
    for (place, step) in MIGRATIONS.iter().enumerate().skip(rest) {
        progress.set(format!("step {} of {VERSION}", place + 1));
        let transaction = conn.transaction()?;
        transaction.execute_batch(step)?;
        transaction.execute_batch(&format!("PRAGMA user_version = {}", place + 1))?;
        transaction.commit()?;
    }
    if done < VERSION {
        conn.pragma_update(None, "foreign_keys", true)?;
        conn.remove_function("derivation_key", 1)?;
    }
    make_indexes(conn, &|text| progress.set(text))
}

/// Name and statement of each index in `schema.sql`.
fn indexes() -> impl Iterator<Item = (&'static str, &'static str)> {
    SCHEMA.split_inclusive(';').filter_map(|statement| {
        let start = ["CREATE INDEX ", "CREATE UNIQUE INDEX "].iter().find_map(|words| {
            statement.find(&format!("\n{words}")).map(|at| (at + 1, words.len()))
        });
        let (at, words) = start?;
        let statement = statement[at..].trim_end_matches(';');
        let name = statement[words..].split(' ').next()?;
        Some((name, statement))
    })
}

/// Lists the indexes that a file has.
pub(super) const INDEXES: &str = "SELECT name FROM sqlite_schema WHERE type = 'index'";

/// The first index of `schema.sql` that `there` does not have.
pub(super) fn first_missing(there: &[String]) -> Option<&'static str> {
    indexes().map(|(name, _)| name).find(|name| !there.iter().any(|there| there == name))
}

/// Makes the indexes that are missing, each in a transaction of its own.
pub(super) fn make_indexes(
    conn: &Connection,
    progress: &dyn Fn(String),
) -> Result<(), SchemaError> {
    let there: Vec<String> = conn.values(INDEXES, [])?;
    let missing: Vec<_> =
        indexes().filter(|(name, _)| !there.iter().any(|there| there == name)).collect();
    for (place, (name, statement)) in missing.iter().enumerate() {
        progress(format!("index {name}, {} of {}", place + 1, missing.len()));
        conn.execute_batch(statement)?;
    }
    Ok(())
}

/// Makes the tables and keys of `schema.sql` in an empty file, without its indexes and triggers.
pub(super) fn make_tables(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch(SCHEMA)?;
    let sql = "SELECT 'DROP ' || type || ' ' || name FROM sqlite_schema
         WHERE type = 'trigger' OR type = 'index' AND sql IS NOT NULL";
    let drops: Vec<String> = conn.values(sql, [])?;
    conn.execute_batch(&drops.join(";"))
}

/// Makes the triggers of `schema.sql` that are missing.
pub(super) fn make_triggers(conn: &Connection) -> rusqlite::Result<()> {
    let document = Connection::open_in_memory()?;
    document.execute_batch(SCHEMA)?;
    copy_triggers(&document, conn)
}

/// Makes the triggers of `document` that are missing in `conn`.
fn copy_triggers(document: &Connection, conn: &Connection) -> rusqlite::Result<()> {
    let sql = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'";
    let triggers: Vec<(String, String)> = document.all(sql, [], |row| row.try_into())?;
    for (name, sql) in triggers {
        let exists = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ?1)";
        if !conn.query_row(exists, [name], |row| row.get::<_, bool>(0))? {
            conn.execute_batch(&sql)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_becomes_a_database_in_one_transaction() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("brigandine.db");
        let mut conn =
            Connection::open_with_flags(&path, rusqlite::OpenFlags::default()).expect("opens");
        migrate(&mut conn, &Progress::default()).expect("made");
        let marks = conn.query_row(MARKS, [], marks).expect("marks");
        assert_eq!(judge(marks).expect("this version"), VERSION);
        let there: Vec<String> = conn.values(INDEXES, []).expect("indexes");
        assert_eq!(first_missing(&there), None);
        // SQLite counts the transactions that have changed a file, in its header.
        let header = std::fs::read(&path).expect("the file");
        assert_eq!(header[24..28], [0, 0, 0, 1], "other programs saw a version in between");
        migrate(&mut conn, &Progress::default()).expect("nothing is left to do");
        assert_eq!(std::fs::read(&path).expect("the file"), header);
    }

    #[test]
    fn progress_says_what_for_how_long_and_how_much() {
        let progress = Progress::default();
        assert_eq!(progress.text(), "waiting for the writer");
        progress.set("index one, 1 of 2".to_owned());
        let mut file = tempfile::tempfile().expect("a file");
        let bytes = vec![7; 3 << 20];
        std::io::Write::write_all(&mut file, &bytes).expect("written");
        std::io::Seek::rewind(&mut file).expect("rewound");
        let mut back = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut back).expect("read");
        let text = progress.text();
        let number = |word: &str| {
            let (before, _) = text.split_once(word).expect("the word");
            before.split(' ').next_back().and_then(|number| number.parse::<u64>().ok())
        };
        assert!(text.starts_with("index one, 1 of 2, for 0 s, "), "{text}");
        // Other tests of this process may read and write at the same time, so the numbers may be higher.
        assert!(number(" MiB read") >= Some(3) && number(" MiB written") >= Some(3), "{text}");
        progress.set("index two, 2 of 2".to_owned());
        assert!(progress.text().starts_with("index two"), "each counts from its own beginning");
    }
}
