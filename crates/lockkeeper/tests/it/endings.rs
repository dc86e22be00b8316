//! Memory safety, whatever ends a connection: every module of the bundled SQLite is combined with every way in which a
//! connection ends. Each case runs in a process of its own, because it may fail by a crash.
//!
//! SQLite lists the statements of virtual tables beside those of callers. When a connection ends it has both, and
//! callers have left theirs in every state: in the cache, on a row, forgotten.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use lockkeeper::{Builder, Database, ErrorKind, Snapshot, Transaction};

use crate::fork::in_a_fork;
use crate::support::{Dir, HANG, Threads, block_on, files_open_in, kind, long, poll_once, within};

const CASE: &str = "LOCKKEEPER_TEST_ENDING";
const FILE: &str = "LOCKKEEPER_TEST_FILE";

/// How the tables of one module are made and used.
struct Module {
    name: &'static str,
    make: &'static str,
    write: &'static str,
    /// A query that returns several rows.
    read: &'static str,
}

const MODULES: [Module; 19] = [
    Module {
        name: "fts3",
        make: "CREATE VIRTUAL TABLE v USING fts3(x)",
        write: "INSERT INTO v VALUES ('one two'), ('two three'), ('two')",
        read: "SELECT snippet(v) FROM v WHERE v MATCH 'two'",
    },
    Module {
        name: "fts4",
        make: "CREATE VIRTUAL TABLE v USING fts4(x, y, prefix='2,3', order=desc)",
        write: "INSERT INTO v VALUES ('one two', 'a'), ('two three', 'b'), ('two', 'c')",
        read: "SELECT matchinfo(v) FROM v WHERE v MATCH 'tw*'",
    },
    Module {
        name: "fts4 with external content",
        make: "CREATE TABLE c (id INTEGER PRIMARY KEY, x);
               CREATE VIRTUAL TABLE v USING fts4(content='c', x)",
        write:
            "INSERT INTO c (x) VALUES ('one two'), ('two three'), ('two');
                INSERT INTO v (docid, x) SELECT id, x FROM c WHERE id > (SELECT max(id) - 3 FROM c)",
        read: "SELECT x FROM v WHERE v MATCH 'two'",
    },
    Module {
        name: "fts4aux",
        make: "CREATE VIRTUAL TABLE f USING fts4(x); CREATE VIRTUAL TABLE v USING fts4aux(f)",
        // The module shows only what has been merged, so `optimize` merges it.
        write: "INSERT INTO f VALUES ('one two'), ('two three');
                INSERT INTO f (f) VALUES ('optimize')",
        read: "SELECT term FROM v",
    },
    Module {
        name: "fts3tokenize",
        make: "CREATE VIRTUAL TABLE v USING fts3tokenize('porter')",
        write: "SELECT 1",
        read: "SELECT token FROM v WHERE input = 'one two three'",
    },
    Module {
        name: "fts5",
        make: "CREATE VIRTUAL TABLE v USING fts5(x)",
        write: "INSERT INTO v VALUES ('one two'), ('two three'), ('two')",
        read: "SELECT x FROM v WHERE v MATCH 'two'",
    },
    Module {
        name: "fts5 in the order of rank",
        make: "CREATE VIRTUAL TABLE v USING fts5(x, y UNINDEXED, prefix='2', detail=full)",
        write: "INSERT INTO v VALUES ('one two', 1), ('two three', 2), ('two', 3);
                INSERT INTO v (v) VALUES ('optimize')",
        read: "SELECT highlight(v, 0, '<', '>'), bm25(v) FROM v WHERE v MATCH 'two' ORDER BY rank",
    },
    Module {
        name: "fts5 with external content",
        make: "CREATE TABLE c (id INTEGER PRIMARY KEY, x);
               CREATE VIRTUAL TABLE v USING fts5(x, content='c', content_rowid='id');
               CREATE TRIGGER c_in AFTER INSERT ON c BEGIN
                   INSERT INTO v (rowid, x) VALUES (new.id, new.x);
               END",
        write: "INSERT INTO c (x) VALUES ('one two'), ('two three'), ('two')",
        read: "SELECT x FROM v WHERE v MATCH 'two'",
    },
    Module {
        name: "fts5 over a view",
        make: "CREATE TABLE b (id INTEGER PRIMARY KEY, x);
               CREATE VIEW c AS SELECT id, upper(x) AS x FROM b;
               CREATE VIRTUAL TABLE v USING fts5(x, content='c', content_rowid='id')",
        write: "INSERT INTO b (x) VALUES ('one two'), ('two three'), ('two');
                INSERT INTO v (v) VALUES ('rebuild')",
        read: "SELECT x FROM v WHERE v MATCH 'two'",
    },
    Module {
        name: "fts5 without content",
        make: "CREATE VIRTUAL TABLE v USING fts5(x, content='', contentless_delete=1)",
        write: "INSERT INTO v (x) VALUES ('one two'), ('two three'), ('two')",
        read: "SELECT rowid FROM v('two')",
    },
    Module {
        name: "fts5vocab",
        make: "CREATE VIRTUAL TABLE f USING fts5(x);
               CREATE VIRTUAL TABLE v USING fts5vocab(f, 'instance')",
        write: "INSERT INTO f VALUES ('one two'), ('two three')",
        read: "SELECT term, doc FROM v",
    },
    Module {
        name: "rtree",
        make: "CREATE VIRTUAL TABLE v USING rtree(id, x0, x1, y0, y1, +label TEXT)",
        write: "INSERT INTO v (x0, x1, y0, y1, label)
                VALUES (0, 1, 0, 1, 'a'), (0.5, 2, 0, 1, 'b'), (0, 3, 0, 1, 'c')",
        read: "SELECT id, label FROM v WHERE x1 > 0.5 AND y0 < 1",
    },
    Module {
        name: "rtree_i32",
        make: "CREATE VIRTUAL TABLE v USING rtree_i32(id, x0, x1)",
        write: "INSERT INTO v (x0, x1) VALUES (0, 1), (1, 2), (2, 3)",
        read: "SELECT id FROM v WHERE x1 > 0",
    },
    Module {
        name: "dbstat",
        make: "CREATE TABLE t (x); CREATE VIRTUAL TABLE v USING dbstat(main)",
        write: "INSERT INTO t VALUES (randomblob(9000))",
        read: "SELECT v.pageno, dbstat.name FROM v JOIN dbstat USING (pageno)",
    },
    Module {
        name: "json_each",
        make: "CREATE TABLE t (x)",
        write: "INSERT INTO t VALUES ('[1, 2, 3]')",
        read: "SELECT j.value FROM t, json_each(t.x) AS j",
    },
    Module {
        name: "json_tree",
        make: "CREATE TABLE t (x)",
        write: "INSERT INTO t VALUES ('{\"a\": [1, {\"b\": 2}]}')",
        read: "SELECT j.fullkey FROM t, json_tree(t.x) AS j",
    },
    Module {
        name: "pragma_table_xinfo",
        make: "CREATE TABLE t (x, y)",
        write: "INSERT INTO t VALUES (1, 2)",
        read: "SELECT i.name FROM sqlite_schema AS s, pragma_table_xinfo(s.name) AS i",
    },
    Module {
        name: "pragma_module_list",
        make: "CREATE TABLE t (x)",
        write: "INSERT INTO t VALUES (1)",
        read: "SELECT name FROM pragma_module_list",
    },
    // No module at all. Callers leave the same statements as in the other cases.
    Module {
        name: "a plain table",
        make: "CREATE TABLE v (x)",
        write: "INSERT INTO v VALUES (1), (2), (3)",
        read: "SELECT x FROM v",
    },
];

/// Reads from the module's table, and leaves statements in every state that safe code can bring about.
fn read_and_leave(s: &Snapshot, sql: &str) -> rusqlite::Result<()> {
    let mut statement = s.prepare_cached(sql)?;
    let all: Vec<()> = statement.query_map([], |_| Ok(()))?.collect::<rusqlite::Result<_>>()?;
    assert!(all.len() > 1, "{} rows", all.len());
    drop(statement);
    // A statement that goes back into the cache while it stands on a row.
    let mut cached = s.prepare_cached(sql)?;
    let mut rows = cached.query([])?;
    rows.next()?;
    std::mem::forget(rows);
    drop(cached);
    // A forgotten statement that has not begun.
    std::mem::forget(s.prepare_cached(sql)?);
    // A forgotten statement that stands on a row, with open cursors.
    let mut forgotten = s.prepare(sql)?;
    let mut rows = forgotten.query([])?;
    rows.next()?;
    std::mem::forget(rows);
    std::mem::forget(forgotten);
    Ok(())
}

fn write_and_leave(tx: &Transaction, module: &Module) -> rusqlite::Result<()> {
    tx.execute_batch(module.write)?;
    read_and_leave(tx, module.read)
}

/// A database whose writer and reader have both used the module.
fn used(module: &'static Module, builder: Builder) -> Database {
    let db = builder.blocking_open().expect("opens");
    if !db.blocking_read(|s| s.table_exists(None, "is_made")).expect("a read") {
        db.blocking_write(|tx| {
            tx.execute_batch(module.make)?;
            tx.execute_batch("CREATE TABLE is_made (x)")
        })
        .expect("the tables");
    }
    db.blocking_write(|tx| write_and_leave(tx, module)).expect("a write");
    read(&db, module);
    db
}

fn read(db: &Database, module: &'static Module) {
    db.blocking_read(|s| read_and_leave(s, module.read)).expect("a read");
}

/// A way in which connections end. The function ends the connections and closes the database.
struct Ending {
    name: &'static str,
    /// Whether statements were leaked through the bare connection. Then the connection stays open, and so does the
    /// file.
    leaks: bool,
    end: fn(&'static Module, &Path),
}

fn options(file: &Path) -> Builder {
    Database::builder(file).readers(1)
}

const ENDINGS: [Ending; 19] = [
    ending("close", |module, file| close(&used(module, options(file)))),
    ending("drop of the last handle", |module, file| {
        let threads = Threads::default();
        drop(used(module, threads.watch(options(file))));
        threads.wait_for(0);
    }),
    ending("abort", |module, file| {
        let db = used(module, options(file));
        block_on(db.abort()).expect("closes");
    }),
    ending("a surplus reader that leaves", |module, file| {
        let threads = Threads::default();
        let db = used(module, threads.watch(options(file).readers_max(2)));
        let before = threads.alive();
        let (release, released) = mpsc::channel::<()>();
        let mut holds = db.read_once(move |_| {
            let _ = released.recv();
            Ok(())
        });
        assert!(poll_once(&mut holds).is_pending());
        // The first reader is held, so the pool starts another reader for this read.
        read(&db, module);
        drop(release);
        block_on(holds).expect("a read");
        threads.wait_for(before);
        close(&db);
    }),
    ending("a lost transaction", |module, file| {
        let db = used(module, options(file));
        let lost = db.blocking_write(|tx| {
            write_and_leave(tx, module)?;
            tx.execute_batch("CREATE TABLE u (x UNIQUE); INSERT INTO u VALUES (1)")?;
            tx.execute_batch("INSERT OR ROLLBACK INTO u VALUES (1)")
        });
        assert!(lost.is_err());
        close(&db);
    }),
    ending("a panic", |module, file| {
        let db = used(module, options(file));
        let call = std::panic::AssertUnwindSafe(|| {
            let write = db.blocking_write(|tx| -> rusqlite::Result<()> {
                write_and_leave(tx, module)?;
                std::panic::resume_unwind(Box::new("a panic"))
            });
            write.map(drop)
        });
        assert!(std::panic::catch_unwind(call).is_err());
        close(&db);
    }),
    ending("a connection swapped by an exclusive call", |module, file| {
        let db = used(module, options(file));
        db.blocking_exclusive(|conn| {
            *conn = rusqlite::Connection::open_in_memory()?;
            conn.execute_batch(module.make)?;
            conn.execute_batch(module.write)
        })
        .expect("the call itself");
        db.blocking_write(|tx| write_and_leave(tx, module)).expect("on the file");
        close(&db);
    }),
    ending("an exclusive call that leaves a transaction and hooks", |module, file| {
        let db = used(module, options(file));
        db.blocking_exclusive(|conn| {
            let rolled_back = Arc::new(());
            conn.rollback_hook(Some(move || _ = Arc::strong_count(&rolled_back)))?;
            conn.execute_batch("BEGIN")?;
            conn.execute_batch(module.write)
        })
        .expect("the call itself");
        close(&db);
    }),
    Ending {
        name: "an exclusive call that leaks statements",
        leaks: true,
        end: |module, file| {
            let db = used(module, options(file));
            db.blocking_exclusive(|conn| leak(conn, module.read)).expect("the call itself");
            db.blocking_write(|tx| write_and_leave(tx, module)).expect("nothing is in the way");
            close(&db);
        },
    },
    Ending {
        name: "a setup that leaks statements",
        leaks: true,
        end: |module, file| {
            close(&used(module, options(file)));
            let leaky = options(file).setup(|conn| leak(conn, module.read));
            let db = used(module, leaky);
            assert_eq!(count(&db), 2, "no connection stays on an old snapshot");
            close(&db);
        },
    },
    Ending {
        name: "an opening that fails",
        leaks: true,
        end: |module, file| {
            close(&used(module, options(file)));
            let fails = options(file).setup(|conn| {
                conn.execute_batch("BEGIN")?;
                conn.execute_batch(module.write)?;
                leak(conn, module.read)?;
                conn.execute_batch("nonsense")
            });
            assert_eq!(kind(fails.blocking_open().map(drop)), ErrorKind::Open);
            close(&used(module, options(file)));
        },
    },
    ending("a migration", |module, file| {
        let make = "CREATE TABLE is_made (x)";
        let steps = lockkeeper::Migrations::new(7).sql("make", module.make).sql("mark", make);
        close(&used(module, options(file).migrations(steps)));
    }),
    ending("a fork", |module, file| {
        let db = used(module, options(file));
        let snapshot = block_on(db.snapshot()).expect("a snapshot");
        snapshot.blocking_read(|s| read_and_leave(s, module.read)).expect("a read");
        let (childs, childs_snapshot) = (db.clone(), snapshot.clone());
        in_a_fork(move || {
            drop((childs_snapshot, childs));
            0
        });
        read(&db, module);
        drop(snapshot);
        close(&db);
    }),
    ending("a held snapshot that is dropped", |module, file| {
        let db = used(module, options(file).snapshots_max(2));
        for _ in 0..6 {
            let held = [block_on(db.snapshot()), block_on(db.snapshot())];
            for snapshot in held {
                let snapshot = snapshot.expect("a snapshot");
                snapshot.blocking_read(|s| read_and_leave(s, module.read)).expect("a read");
            }
        }
        close(&db);
    }),
    ending("a held snapshot that grows too old, and one that is forgotten", |module, file| {
        let db = used(module, options(file).snapshot_age_max(Duration::from_millis(20)));
        let snapshot = block_on(db.snapshot()).expect("a snapshot");
        while snapshot.blocking_read(|s| read_and_leave(s, module.read)).is_ok() {}
        std::mem::forget(block_on(db.snapshot()).expect("another snapshot"));
        close(&db);
    }),
    ending("a backup", |module, file| {
        let db = used(module, options(file));
        let copy = file.with_file_name("copy.db");
        db.backup(&copy).blocking_run().expect("a backup");
        close(&db);
        close(&used(module, options(&copy)));
        std::fs::remove_file(copy).expect("the copy");
    }),
    ending("short reads", |module, file| {
        let db = used(module, options(file));
        for _ in 0..30 {
            block_on(db.read(|s| read_and_leave(s, module.read)).short()).expect("a short read");
        }
        close(&db);
    }),
    ending("leases, one committed and one dropped", |module, file| {
        let db = used(module, options(file));
        let mut lease = block_on(db.lease()).expect("a lease");
        lease.blocking_run(|tx| write_and_leave(tx, module)).expect("a call");
        lease.blocking_commit().expect("a commit");
        let mut lease = block_on(db.lease()).expect("a lease");
        lease.blocking_run(|tx| write_and_leave(tx, module)).expect("a call");
        drop(lease);
        close(&db);
    }),
    ending("a database in memory and copies of it", |module, file| {
        let db = used(module, Database::builder(":memory:").snapshots_max(2));
        for _ in 0..4 {
            let snapshot = block_on(db.snapshot()).expect("a copy");
            snapshot.blocking_read(|s| read_and_leave(s, module.read)).expect("a read");
        }
        db.blocking_exclusive(|conn| leak(conn, module.read)).expect("the call itself");
        db.blocking_write(|tx| write_and_leave(tx, module)).expect("it is there still");
        close(&db);
        close(&used(module, options(file)));
    }),
];

const fn ending(name: &'static str, end: fn(&'static Module, &Path)) -> Ending {
    Ending { name, leaks: false, end }
}

fn close(db: &Database) {
    db.blocking_close().expect("closes");
}

/// Uses the database once more. Returns how many of the tables `late` and `is_made` a read then finds.
fn count(db: &Database) -> usize {
    db.blocking_write(|tx| tx.execute_batch("CREATE TABLE late (x)")).expect("a write");
    let seen =
        db.blocking_read(|s| Ok([s.table_exists(None, "late")?, s.table_exists(None, "is_made")?]));
    seen.expect("a read").into_iter().filter(|seen| *seen).count()
}

/// As [`read_and_leave`], on the bare connection, for which the session cannot take statements back.
fn leak(conn: &rusqlite::Connection, sql: &str) -> rusqlite::Result<()> {
    std::mem::forget(conn.prepare_cached(sql)?);
    let mut leaked = conn.prepare(sql)?;
    let mut rows = leaked.query([])?;
    rows.next()?;
    std::mem::forget(rows);
    std::mem::forget(leaked);
    Ok(())
}

/// If an environment variable names a case, runs that case in this process.
pub(crate) fn child() {
    let Some(case) = std::env::var_os(CASE) else { return };
    let case = case.into_string().expect("two numbers");
    #[cfg(asan)]
    if let Some(mistake) = case.strip_prefix("mistake ") {
        return make_mistake(mistake);
    }
    let (module, way) = case.split_once('/').expect("two numbers");
    let module = &MODULES[module.parse::<usize>().expect("a number")];
    let way = &ENDINGS[way.parse::<usize>().expect("a number")];
    let file = PathBuf::from(std::env::var_os(FILE).expect("the parent names the file"));
    within(HANG, move || {
        (way.end)(module, &file);
        let dir = file.parent().expect("a directory");
        let leaks = way.leaks && module.name != "a plain table";
        if !leaks {
            assert_eq!(files_open_in(dir), Vec::<PathBuf>::new(), "open after closing");
            let files = std::fs::read_dir(dir).expect("the directory").count();
            assert_eq!(files, 1, "nothing is left beside the file");
        }
        let conn = rusqlite::Connection::open(&file).expect("the file opens");
        let check: String =
            conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a check");
        assert_eq!(check, "ok");
    });
}

#[test]
fn a_case_of_its_own() {
    child();
}

/// A case that is running in a process of its own.
struct Running {
    name: String,
    child: Child,
    _dir: Dir,
}

fn start(module: usize, way: usize) -> Running {
    let name = format!("{} and {}", MODULES[module].name, ENDINGS[way].name);
    spawn(&name, &format!("{module}/{way}"))
}

fn spawn(name: &str, case: &str) -> Running {
    let dir = Dir::new();
    let child = Command::new(std::env::current_exe().expect("this test has a file"))
        .args(["--exact", "endings::a_case_of_its_own", "--nocapture", "--test-threads=1"])
        .env(CASE, case)
        .env(FILE, dir.file("test.db"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the child starts");
    Running { name: name.to_owned(), child, _dir: dir }
}

impl Running {
    /// Waits for the end of the process. `None`: the case went well; otherwise what the process said.
    fn end(self) -> Option<String> {
        let output = self.child.wait_with_output().expect("the child ends");
        let told = String::from_utf8_lossy(&output.stderr);
        let first: Vec<&str> = told.lines().take(40).collect();
        (!output.status.success())
            .then(|| format!("{}: {}\n{}", self.name, output.status, first.join("\n")))
    }
}

/// Runs cases, a few at a time. Fails with the output of each case that failed.
fn run(cases: impl IntoIterator<Item = (usize, usize)>) {
    /// The number of cases that run at the same time. They wait for the disk more than they compute.
    const AT_ONCE: usize = 6;
    let mut running = std::collections::VecDeque::new();
    let mut failed = Vec::new();
    let mut ran = 0;
    for (module, way) in cases {
        if running.len() == AT_ONCE {
            failed.extend(running.pop_front().and_then(Running::end));
        }
        running.push_back(start(module, way));
        ran += 1;
    }
    failed.extend(running.into_iter().filter_map(Running::end));
    assert!(failed.is_empty(), "{} of {ran} fail:\n{}", failed.len(), failed.join("\n"));
    println!("{ran} cases");
}

fn find<T>(list: &[T], name: &str, of: fn(&T) -> &'static str) -> usize {
    list.iter().position(|entry| of(entry) == name).unwrap_or_else(|| panic!("no {name}"))
}

fn module(name: &str) -> usize {
    find(&MODULES, name, |module| module.name)
}

fn way(name: &str) -> usize {
    find(&ENDINGS, name, |ending| ending.name)
}

#[test]
fn a39_closing_a_database_with_a_full_text_index_frees_nothing_twice() {
    run([(module("fts5"), way("close"))]);
}

/// A surplus reader ends after ten seconds without work. All modules run at the same time, so that the test waits only
/// once.
#[test]
fn a39_a_surplus_reader_that_leaves_harms_no_module() {
    let leaves = way("a surplus reader that leaves");
    let modules: Vec<usize> = match long() {
        true => (0..MODULES.len()).collect(),
        false => ["fts5", "fts4", "rtree"].map(module).to_vec(),
    };
    let running: Vec<Running> = modules.into_iter().map(|module| start(module, leaves)).collect();
    let failed: Vec<String> = running.into_iter().filter_map(Running::end).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn a39_no_way_in_which_a_connection_ends_harms_a_module() {
    let leaves = way("a surplus reader that leaves");
    let ways = |_| (0..ENDINGS.len()).filter(move |way| *way != leaves);
    // The default form runs half of the cases: each module with every other way, and each way with every other module.
    let taken = |(module, way): &(usize, usize)| long() || (module + way).is_multiple_of(2);
    let cases = (0..MODULES.len()).flat_map(|module| ways(module).map(move |way| (module, way)));
    run(cases.filter(taken));
}

/// Makes a memory error in memory that SQLite has allocated. The sanitizer must detect it.
#[cfg(asan)]
#[expect(unsafe_code, reason = "a mistake on purpose")]
fn make_mistake(mistake: &str) {
    use rusqlite::ffi::{sqlite3_free, sqlite3_malloc, sqlite3_stricmp};
    // SAFETY: this is unsound on purpose. The sanitizer ends this process, which does nothing else.
    unsafe {
        let text = sqlite3_malloc(8);
        text.cast::<u8>().write(0);
        sqlite3_free(text);
        match mistake {
            "freed twice" => sqlite3_free(text),
            _ => assert_eq!(sqlite3_stricmp(text.cast(), text.cast()), 0),
        }
    }
}

#[cfg(asan)]
#[test]
fn the_sanitizer_sees_what_becomes_of_memory_in_sqlite() {
    for mistake in ["freed twice", "read when freed"] {
        let failure = spawn(mistake, &format!("mistake {mistake}")).end().expect("it is a mistake");
        // When SQLite frees memory twice, it first reads the size of the freed memory, so both errors are a use after
        // free.
        assert!(failure.contains("AddressSanitizer: heap-use-after-free"), "{failure}");
    }
}

/// `PRAGMA module_list` names all modules. The modules of PRAGMAs (`pragma_…`) are left out, because they differ only
/// in the text of the PRAGMA.
#[test]
fn a39_every_module_of_the_bundled_sqlite_has_its_cases() {
    let conn = rusqlite::Connection::open_in_memory().expect("a connection");
    let mut list = conn.prepare("PRAGMA module_list").expect("a list");
    let all: BTreeSet<String> = list
        .query_map([], |row| row.get(0))
        .and_then(Iterator::collect)
        .expect("the names of the modules");
    let of_case = |name: &str| name.split(' ').next().unwrap_or_default().to_owned();
    let here: BTreeSet<String> = MODULES.iter().map(|module| of_case(module.name)).collect();
    let missing: Vec<&String> =
        all.iter().filter(|name| !name.starts_with("pragma_") && !here.contains(*name)).collect();
    assert!(all.len() > 5 && missing.is_empty(), "no cases for {missing:?} of {all:?}");
}
