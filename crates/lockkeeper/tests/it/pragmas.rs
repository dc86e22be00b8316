//! Whatever PRAGMA a call sets, afterwards its connection and all others read the same settings as after opening
//! (promise A40).
//!
//! The tests combine every PRAGMA that SQLite lists with every value that may mean something and every kind of call.
//! The default form leaves out some values, and sets all PRAGMAs of a kind of call on one database. The long form takes
//! all values, with a database for each PRAGMA.

use std::collections::BTreeMap;

use lockkeeper::{Database, Snapshot};
use rusqlite::Connection;

use crate::support::{Dir, HANG, Place, block_on, long, within};

/// Values that some PRAGMA understands.
const VALUES: [&str; 32] = [
    "0",
    "1",
    "2",
    "-1",
    "OFF",
    "ON",
    "FULL",
    "EXTRA",
    "NORMAL",
    "EXCLUSIVE",
    "DELETE",
    "TRUNCATE",
    "PERSIST",
    "MEMORY",
    "WAL",
    "DEFAULT",
    "FILE",
    "INCREMENTAL",
    "NONE",
    "FAST",
    "PASSIVE",
    "RESTART",
    "RESET",
    "4096",
    "65536",
    "1000000",
    "-2000",
    "'UTF-8'",
    "'UTF-16le'",
    "'UTF-16be'",
    "'/tmp'",
    "0x10002",
];

/// Settings that are stored in the file, so an exclusive call may change them (`docs/design/state.md`).
const OF_THE_FILE: [&str; 9] = [
    "application_id",
    "auto_vacuum",
    "data_version",
    "default_cache_size",
    "encoding",
    "freelist_count",
    "page_count",
    "schema_version",
    "user_version",
];

/// PRAGMAs that are no settings: they check the whole file, list other objects, or report what was compiled in.
const NO_SETTINGS: [&str; 5] =
    ["compile_options", "function_list", "integrity_check", "module_list", "quick_check"];

/// Every PRAGMA that this SQLite has.
fn pragmas() -> Vec<String> {
    let conn = Connection::open_in_memory().expect("a connection");
    let mut list = conn.prepare("PRAGMA pragma_list").expect("the list");
    let names = list.query_map([], |row| row.get(0)).expect("rows");
    names.collect::<rusqlite::Result<_>>().expect("names")
}

/// The values of all PRAGMAs that can be read.
type Readings = BTreeMap<String, String>;

fn readings(list: &[String], mut read: impl FnMut(&str) -> rusqlite::Result<String>) -> Readings {
    list.iter().filter_map(|name| Some((name.clone(), read(name).ok()?))).collect()
}

fn settings(all: &[String]) -> Vec<String> {
    let other = |name: &&String| !NO_SETTINGS.contains(&name.as_str());
    // Without an argument these PRAGMAs do something.
    let idle = |name: &&String| {
        !["incremental_vacuum", "optimize", "shrink_memory", "wal_checkpoint"]
            .contains(&name.as_str())
    };
    all.iter().filter(other).filter(idle).cloned().collect()
}

fn shown(row: &rusqlite::Row<'_>) -> rusqlite::Result<String> {
    row.get_ref(0).map(|value| format!("{value:?}"))
}

fn read_all(s: &Snapshot, list: &[String]) -> rusqlite::Result<Readings> {
    Ok(readings(list, |name| s.pragma_query_value(None, name, shown)))
}

/// Sets the PRAGMA and ignores errors and results.
fn set(conn: &Connection, sql: &str) {
    if let Ok(mut statement) = conn.prepare(sql) {
        let mut rows = statement.raw_query();
        while let Ok(Some(_)) = rows.next() {}
    }
}

fn set_in_call(s: &Snapshot, sql: &str) {
    if let Ok(mut statement) = s.prepare(sql)
        && let Ok(mut rows) = statement.query([])
    {
        while let Ok(Some(_)) = rows.next() {}
    }
}

/// The kinds of calls that set PRAGMAs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Write,
    Exclusive,
    Lease,
    Read,
    Short,
    Snapshot,
}

const BY: [By; 6] = [By::Write, By::Exclusive, By::Lease, By::Read, By::Short, By::Snapshot];

fn set_by(db: &Database, by: By, sql: String) {
    // Whether the PRAGMA is refused does not matter here.
    let _ = match by {
        By::Write => db.blocking_write(move |tx| {
            set_in_call(tx, &sql);
            Ok(())
        }),
        By::Exclusive => db.blocking_exclusive(move |conn| {
            set(conn, &sql);
            Ok(())
        }),
        By::Lease => block_on(async {
            let mut lease = db.lease().await?;
            lease
                .run(move |tx| {
                    set_in_call(tx, &sql);
                    Ok(())
                })
                .await?;
            lease.commit().await
        }),
        By::Read => db.blocking_read(move |s| {
            set_in_call(s, &sql);
            Ok(())
        }),
        By::Short => block_on(
            db.read(move |s| {
                set_in_call(s, &sql);
                Ok(())
            })
            .short(),
        ),
        By::Snapshot => block_on(db.snapshot()).and_then(|snapshot| {
            snapshot.blocking_read(move |s| {
                set_in_call(s, &sql);
                Ok(())
            })
        }),
    };
}

/// The values that the writer, a reader and a short read get.
fn all_readings(db: &Database, list: &[String]) -> [Readings; 3] {
    let of = |list: &[String]| {
        let list = list.to_vec();
        move |s: &Snapshot| read_all(s, &list)
    };
    let writer = {
        let list = list.to_vec();
        db.blocking_write(move |tx| read_all(tx, &list)).expect("the writer reads")
    };
    let reader = db.blocking_read(of(list)).expect("a reader reads");
    let short = block_on(db.read(of(list)).short()).expect("a short read");
    [writer, reader, short]
}

/// Only the values that belong to connections and must stay the same.
fn of_connections(readings: [Readings; 3], except: &[&str]) -> [Readings; 3] {
    readings.map(|mut all| {
        all.retain(|name, _| !except.contains(&name.as_str()));
        all
    })
}

fn open(dir: &Dir) -> Database {
    dir.builder(Place::File).readers(1).readers_max(1).blocking_open().expect("opens")
}

/// Sets each of `names` to each of `values`, in calls of the kind `by`, on one database.
fn check(by: By, names: &[String], values: &[&str]) {
    let list = settings(&pragmas());
    let dir = Dir::new();
    let db = open(&dir);
    db.blocking_write(|tx| {
        tx.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY CHECK (id >= 0), v)")
    })
    .expect("a table");
    // The PRAGMAs that such a call may change in the file, and those that change by themselves.
    let own: &[&str] = match by {
        By::Exclusive => &OF_THE_FILE,
        _ => &["application_id", "data_version", "page_count", "schema_version", "user_version"],
    };
    let before = of_connections(all_readings(&db, &list), own);
    let mut id = 0;
    for (name, value) in names.iter().flat_map(|name| values.iter().map(move |value| (name, value)))
    {
        let case = format!("PRAGMA {name} = {value} by {by:?}");
        set_by(&db, by, format!("PRAGMA {name} = {value}"));
        let after = of_connections(all_readings(&db, &list), own);
        for (before, after) in before.iter().zip(&after) {
            for (setting, value) in before {
                assert_eq!(after.get(setting), Some(value), "{setting} after {case}");
            }
        }
        id += 1;
        db.blocking_write(move |tx| tx.execute("INSERT INTO t VALUES (?1, 1)", [id]))
            .unwrap_or_else(|error| panic!("a write after {case}: {error:?}"));
        let refused = db.blocking_write(|tx| tx.execute("INSERT INTO t VALUES (-1, 1)", []));
        assert!(refused.is_err(), "a CHECK after {case}");
        let read = db.blocking_read(|s| {
            s.query_row("SELECT max(id) FROM t", [], |row| row.get::<_, i64>(0))
        });
        assert_eq!(read.ok(), Some(id), "read after {case}");
    }
    db.blocking_close().unwrap_or_else(|error| panic!("closing after {names:?}: {error:?}"));
    let conn = Connection::open(dir.file("test.db")).expect("the file");
    let sql = "SELECT (SELECT * FROM pragma_journal_mode), count(*) FROM t";
    let stored: (String, i64) =
        conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
    assert_eq!(stored, (String::from("wal"), id), "stored, after {names:?} by {by:?}");
    drop(conn);
    let db = open(&dir);
    let again = of_connections(all_readings(&db, &list), own);
    assert_eq!(again, before, "opened again after {names:?} by {by:?}");
    db.blocking_close().expect("closes");
}

#[test]
fn a40_no_pragma_that_a_call_sets_is_read_by_the_next() {
    within(HANG * 5, || {
        let all = pragmas();
        for by in BY.into_iter().filter(|by| *by != By::Exclusive) {
            match long() {
                true => all.chunks(1).for_each(|one| check(by, one, &VALUES)),
                false => check(by, &all, &["0", "1", "EXCLUSIVE"]),
            }
        }
    });
}

#[test]
fn a40_no_pragma_that_an_exclusive_call_sets_is_read_by_the_next() {
    within(HANG * 5, || {
        let values: &[&str] = if long() { &VALUES } else { &VALUES[..14] };
        pragmas().chunks(1).for_each(|one| check(By::Exclusive, one, values));
    });
}

/// The temporary database has a header too, with these two fields.
#[test]
fn a40_a_call_cannot_set_the_version_of_the_temporary_file() {
    let dir = Dir::new();
    let db = open(&dir);
    for name in ["user_version", "application_id"] {
        let set = db.blocking_write(move |tx| tx.execute_batch(&format!("PRAGMA temp.{name} = 7")));
        assert!(set.is_err(), "{name}");
        db.blocking_write(move |tx| tx.execute_batch(&format!("PRAGMA main.{name} = 7")))
            .expect("that of the file can be set");
    }
    db.blocking_close().expect("closes");
}

/// Settings in the file stay, because exclusive calls exist to change them.
#[test]
fn a40_what_an_exclusive_call_sets_in_the_file_stays() {
    within(HANG, || {
        let dir = Dir::new();
        let db = open(&dir);
        db.blocking_exclusive(|conn| {
            conn.execute_batch(
                "PRAGMA user_version = 7; PRAGMA application_id = 8; PRAGMA auto_vacuum = FULL; VACUUM",
            )
        })
        .expect("set");
        for name in ["user_version", "application_id", "auto_vacuum"] {
            let expected = match name {
                "user_version" => 7,
                "application_id" => 8,
                _ => 1,
            };
            let read =
                move |s: &Snapshot| s.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
            assert_eq!(db.blocking_write(move |tx| read(tx)).ok(), Some(expected), "{name}");
            assert_eq!(db.blocking_read(read).ok(), Some(expected), "{name}");
        }
        db.blocking_close().expect("closes");
    });
}

/// Limits of the process would affect every database of the process, and the library could not restore them.
#[test]
fn a40_an_exclusive_call_cannot_set_what_belongs_to_the_process() {
    let dir = Dir::new();
    let db = open(&dir);
    for sql in [
        "PRAGMA hard_heap_limit = 1",
        "PRAGMA soft_heap_limit = 1",
        "PRAGMA Temp_Store_Directory = '/tmp'",
    ] {
        let refused = db.blocking_exclusive(move |conn| {
            conn.query_row(sql, [], |_| Ok(())).or_else(|error| match error {
                rusqlite::Error::QueryReturnedNoRows => Ok(()),
                error => Err(error),
            })
        });
        assert!(refused.is_err(), "{sql}");
    }
    db.blocking_close().expect("closes");
}
