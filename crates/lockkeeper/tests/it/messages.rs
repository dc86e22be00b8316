//! The messages of errors, and `?` from the library's error into error types of all kinds.

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use lockkeeper::rusqlite::{self, Connection, OpenFlags, ffi};
use lockkeeper::{Database, ErrorKind, queue};

use crate::crash::{Process, say};
use crate::support::fault_vfs::{self, Fault, Plan};
use crate::support::{Dir, Place, TABLE, block_on, ids, insert, on_each_place};

const DUPLICATE: &str = "INSERT INTO t VALUES (1, 1), (1, 1)";
const UNIQUE: &str = "UNIQUE constraint failed: t.id";

/// The messages of an error and of its sources.
fn chain(error: &(dyn StdError + 'static)) -> Vec<String> {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(error) = next {
        texts.push(error.to_string());
        next = error.source();
    }
    texts
}

#[test]
fn a47_a_printed_error_holds_what_sqlite_said_and_says_nothing_twice() {
    let wrong = [
        DUPLICATE,
        "INSERT INTO t VALUES (1, 'text')",
        "INSERT INTO nowhere VALUES (1)",
        "nonsense",
        "SELECT 1; SELECT 2",
        "INSERT INTO t VALUES (?1, ?2)",
        "CREATE TABLE t (x)",
        "SELECT abs(-9223372036854775808)",
    ];
    on_each_place(|db, place| {
        let raw = Connection::open_in_memory().expect("a database");
        raw.execute_batch(TABLE).expect("the table");
        for sql in wrong {
            let said = raw.execute(sql, []).expect_err("it is wrong").to_string();
            let write = db.blocking_write(|tx| tx.execute(sql, [])).expect_err("it is wrong");
            let exclusive = db.blocking_exclusive(|conn| conn.execute(sql, []));
            let exclusive = exclusive.expect_err("it is wrong");
            for error in [write, exclusive] {
                assert_eq!(error.to_string(), said, "{sql} on {place:?}");
                let texts = chain(&error);
                let distinct: BTreeSet<_> = texts.iter().collect();
                assert_eq!(distinct.len(), texts.len(), "{texts:?}");
            }
        }
        let read = db.blocking_read(|s| s.query_row("SELECT * FROM nowhere", [], |_| Ok(())));
        assert!(read.expect_err("it is wrong").to_string().starts_with("no such table: nowhere"));
    });
}

#[test]
fn a47_errors_of_anyhow_go_through_and_keep_their_context() {
    async fn store(db: &Database) -> anyhow::Result<()> {
        let any = db.with_error::<anyhow::Error>();
        any.write(|tx| {
            tx.execute(DUPLICATE, []).context("while importing")?;
            Ok(())
        })
        .await?;
        Ok(())
    }
    fn plain(db: &Database) -> anyhow::Result<()> {
        db.blocking_write(|tx| tx.execute(DUPLICATE, []))?;
        Ok(())
    }
    fn untouched(db: &Database) -> anyhow::Result<()> {
        let any = db.with_error::<anyhow::Error>();
        any.blocking_write(|tx| Ok(tx.execute(DUPLICATE, [])?))
            .map_err(lockkeeper::Error::flatten)?;
        Ok(())
    }
    on_each_place(|db, _| {
        let error = block_on(store(db)).expect_err("it fails");
        let said = error.to_string();
        assert!(said.starts_with(&format!("while importing: {UNIQUE}")), "{said}");
        let error = plain(db).expect_err("it fails");
        assert_eq!(error.to_string(), UNIQUE);
        assert!(
            error.downcast_ref::<lockkeeper::Error>().is_some_and(|error| error.call().is_some())
        );
        let error = untouched(db).expect_err("it fails");
        assert!(error.downcast_ref::<rusqlite::Error>().is_some(), "{error:?}");
    });
}

#[test]
fn a47_errors_of_eyre_go_through_and_keep_their_context() {
    fn store(db: &Database) -> eyre::Result<()> {
        let any = db.with_error::<eyre::Report>();
        any.blocking_write(|tx| {
            eyre::WrapErr::wrap_err(tx.execute(DUPLICATE, []), "while importing")?;
            Ok(())
        })?;
        Ok(())
    }
    on_each_place(|db, _| {
        let error = store(db).expect_err("it fails");
        let said = error.to_string();
        assert!(said.starts_with(&format!("while importing: {UNIQUE}")), "{said}");
    });
}

#[test]
fn a47_boxed_errors_go_through_and_lead_to_their_sources() {
    type Boxed = Box<dyn StdError + Send + Sync>;

    #[derive(Debug)]
    struct Import(rusqlite::Error);

    impl std::fmt::Display for Import {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("the import failed")
        }
    }

    impl StdError for Import {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    fn store(db: &Database) -> Result<(), Boxed> {
        let boxed = db.with_error::<Boxed>();
        boxed.blocking_write(|tx| {
            tx.execute("INSERT INTO t VALUES (7, 7)", [])?;
            tx.execute(DUPLICATE, []).map_err(Import)?;
            Ok(())
        })?;
        Ok(())
    }
    fn refuse(db: &Database) -> Result<(), Boxed> {
        db.with_error::<Boxed>().blocking_write(|_| Err::<(), _>("no, by a text".into()))?;
        Ok(())
    }
    on_each_place(|db, _| {
        let error = store(db).expect_err("it fails");
        assert_eq!(chain(&*error)[..2], ["the import failed", UNIQUE]);
        assert_eq!(refuse(db).expect_err("it fails").to_string(), "no, by a text");
        let write =
            db.with_error::<Boxed>().blocking_read(|s| Ok(s.prepare(DUPLICATE).map(drop)?));
        let kind = write.expect_err("it writes").kind();
        assert_eq!(kind, ErrorKind::ReadOnly, "the kind is seen through the box");
    });
}

/// Codes with which the VFS refuses to write to the WAL in a COMMIT, and the kind of error that the call gets.
const REFUSALS: [(i32, ErrorKind); 5] = [
    (ffi::SQLITE_FULL, ErrorKind::DiskFull),
    (ffi::SQLITE_READONLY, ErrorKind::Sqlite),
    (ffi::SQLITE_PERM, ErrorKind::Sqlite),
    (ffi::SQLITE_NOLFS, ErrorKind::Sqlite),
    (ffi::SQLITE_AUTH, ErrorKind::Sqlite),
];

#[test]
fn a47_an_error_of_commit_is_told_as_it_was() {
    for (code, kind) in REFUSALS {
        let (dir, db, plan) = faulty();
        let fault = Fault { nth: 1, goes_on: true, torn: false, code };
        let said = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        let check = |error: lockkeeper::Error, what: &str| {
            plan.disarm();
            assert_eq!(error.kind(), kind, "{what}, {said}: {error:?}");
            assert!(error.to_string().contains("in COMMIT"), "{what}: {error}");
            let sqlite = error.sqlite().and_then(rusqlite::Error::sqlite_error);
            assert_eq!(sqlite.map(|error| error.extended_code), Some(code), "{what}: {error}");
        };
        plan.arm(Some(fault));
        check(db.blocking_write(|tx| insert(tx, 1)).expect_err("refused"), "a write");
        let mut lease = block_on(db.lease()).expect("a lease");
        block_on(lease.run(|tx| insert(tx, 2))).expect("it is in the transaction");
        plan.arm(Some(fault));
        check(block_on(lease.commit()).expect_err("refused"), "a lease");
        assert_eq!(ids(&db), []);
        db.blocking_write(|tx| insert(tx, 3)).expect("the disk is well again");
        db.blocking_close().expect("closes");
        drop(dir);
    }
}

fn faulty() -> (Dir, Database, std::sync::Arc<Plan>) {
    let dir = Dir::new();
    let plan = Plan::of(dir.path());
    let builder = Database::builder(dir.file("test.db")).vfs(fault_vfs::NAME);
    let db = builder.blocking_open().expect("the database opens");
    db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("the table");
    (dir, db, plan)
}

#[test]
fn a47_close_says_when_the_wal_could_not_be_folded_back() {
    for code in [ffi::SQLITE_FULL, ffi::SQLITE_IOERR] {
        let (dir, db, plan) = faulty();
        db.blocking_write(|tx| insert(tx, 1)).expect("it is stored");
        plan.arm(Some(Fault { nth: 1, goes_on: true, torn: false, code }));
        let error = db.blocking_close().expect_err("the file cannot be written");
        plan.disarm();
        assert!(error.sqlite().is_some(), "{error:?}");
        assert!(error.to_string().contains("test.db-wal could not be folded back"), "{error}");
        assert_eq!(db.blocking_close().map_err(|error| error.kind()), Ok(queue::Closed::Drained));
        let again = dir.builder(Place::File).blocking_open().expect("the WAL is there");
        assert_eq!(ids(&again), [1]);
        again.blocking_close().expect("closes");
    }
}

#[test]
fn a47_a_panic_at_the_start_keeps_its_message() {
    for place in [Place::File, Place::Memory] {
        let dir = Dir::new();
        let open = |builder: lockkeeper::Builder| {
            builder.blocking_open().expect_err("it panics").to_string()
        };
        let text = open(dir.builder(place).setup(|_| panic!("no key: {}", 7)));
        assert!(text.contains("setup") && text.contains("no key: 7"), "{text}");
        let text = open(dir.builder(place).on_thread_start(|| panic!("no such processor")));
        assert!(text.contains("no such processor"), "{text}");
        let steps = lockkeeper::Migrations::new(1).step("a step", |_| panic!("not this one"));
        let text = open(dir.builder(place).migrations(steps));
        assert!(text.contains("not this one"), "{text}");
        dir.builder(place)
            .blocking_open()
            .expect("nothing is left")
            .blocking_close()
            .expect("closes");
    }
    let build = || -> Result<(), rusqlite::Error> { panic!("no resource") };
    let worker = queue::Worker::builder("worker").blocking_spawn(build);
    let text = worker.err().expect("it panics").to_string();
    assert!(text.contains("no resource"), "{text}");
}

#[test]
fn a47_vacuum_in_a_call_points_to_exclusive() {
    on_each_place(|db, place| {
        for sql in ["VACUUM", "/* all */ vacuum main", "VACUUM INTO 'copy.db'"] {
            let said = [
                db.blocking_write(|tx| tx.execute_batch(sql)).expect_err("not in a transaction"),
                db.blocking_write(|tx| tx.execute(sql, []).map(drop)).expect_err("nor so"),
                db.blocking_write(|tx| tx.savepoint(|tx| tx.execute_batch(sql)))
                    .expect_err("nor so"),
                db.blocking_read(|s| s.prepare(sql).map(drop)).expect_err("nor in a read"),
            ];
            for error in said {
                assert!(
                    error.to_string().contains("use `exclusive`"),
                    "{sql} on {place:?}: {error}"
                );
            }
        }
        db.blocking_exclusive(|conn| conn.execute_batch("VACUUM")).expect("as it says");
        let checkpoint = db.blocking_write(|tx| tx.execute_batch("PRAGMA wal_checkpoint"));
        let error = checkpoint.expect_err("not in a transaction");
        assert!(error.to_string().contains("`exclusive`"), "{error}");
    });
}

/// If SQLite lets a read-only connection run a statement in a transaction, a read may run it too.
#[test]
fn a47_no_pragma_that_only_reports_is_called_a_write() {
    on_each_place(|db, place| {
        let dir = Dir::new();
        let raw = Connection::open(dir.file("raw.db")).expect("a file");
        raw.execute_batch(&format!("PRAGMA journal_mode = WAL; {TABLE}")).expect("the table");
        let raw = Connection::open_with_flags(dir.file("raw.db"), OpenFlags::SQLITE_OPEN_READ_ONLY);
        let raw = raw.expect("a reader");
        raw.execute_batch("BEGIN; SELECT * FROM t").expect("a transaction");
        let names: Vec<String> = {
            let mut list = raw.prepare("SELECT name FROM pragma_pragma_list").expect("a list");
            let names = list.query_map([], |row| row.get(0)).expect("a list");
            names.collect::<Result<_, _>>().expect("a list")
        };
        let run = |statement: &mut rusqlite::Statement<'_>| -> rusqlite::Result<()> {
            let mut rows = statement.raw_query();
            while rows.next()?.is_some() {}
            Ok(())
        };
        let does = ["incremental_vacuum", "optimize", "shrink_memory", "wal_checkpoint"];
        let mut read = 0;
        for name in names.iter().filter(|name| !does.contains(&name.as_str())) {
            let sql = format!("PRAGMA main.{name}");
            let may = raw.prepare(&sql).and_then(|mut statement| run(&mut statement));
            let said = db.blocking_read({
                let sql = sql.clone();
                move |s| {
                    let mut statement = s.prepare(&sql)?;
                    let mut rows = statement.query([])?;
                    while rows.next()?.is_some() {}
                    Ok(())
                }
            });
            match (may, said) {
                (Ok(()), said) => {
                    said.unwrap_or_else(|error| panic!("{sql} on {place:?}: {error}"));
                    read += 1;
                }
                (Err(_), Ok(())) => {}
                (Err(_), Err(error)) => {
                    assert_ne!(error.kind(), ErrorKind::ReadOnly, "{sql}: {error}");
                }
            }
        }
        assert!(read > 40, "{read} of {}", names.len());
    });
}

/// With few file descriptors left, each call either works or says that there are too few.
#[test]
#[cfg(unix)]
fn a47_out_of_file_descriptors_is_said() {
    let dir = Dir::new();
    let mut child = Process::start("descriptors", &dir.file("test.db"));
    let mut told = 0;
    loop {
        let line = child.line().expect("the child says how it went");
        if line.ends_with("descriptors: done") {
            break;
        }
        if let Some((_, text)) = line.split_once("descriptors: failed: ") {
            assert!(text.contains("file descriptor"), "{text}");
            told += 1;
        }
    }
    assert!(told > 0, "none was missing");
}

/// What the child of the test above does.
pub(crate) fn child(file: &Path) {
    use rustix::process::{Resource, Rlimit, setrlimit};

    let limit = Rlimit { current: Some(64), maximum: Some(64) };
    setrlimit(Resource::Nofile, limit).expect("a limit");
    for spare in 0..16 {
        let mut all: Vec<File> = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            all.push(file);
        }
        all.truncate(all.len().saturating_sub(spare));
        let opened = Database::builder(file).readers(1).blocking_open();
        let ran = opened.and_then(|db| {
            db.blocking_write(|tx| tx.execute_batch("CREATE TABLE IF NOT EXISTS t (x)"))?;
            db.blocking_read(|s| s.query_row("SELECT count(*) FROM t", [], |_| Ok(())))?;
            block_on(db.read(|s| s.query_row("SELECT 1", [], |_| Ok(()))).short())?;
            let held = block_on(db.snapshot())?;
            drop(held);
            db.blocking_close().map(drop)
        });
        drop(all);
        match ran {
            Ok(()) => say("descriptors: enough\n"),
            Err(error) => say(&format!("descriptors: failed: {error}\n")),
        }
        // If opening failed or a call did, the dropped handle closes in the background. So this opening waits.
        let open = || Database::builder(file).busy_timeout(Duration::from_secs(20)).blocking_open();
        open().expect("with all of them it opens").blocking_close().expect("closes");
    }
    say("descriptors: done\n");
}
