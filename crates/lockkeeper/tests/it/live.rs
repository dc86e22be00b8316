//! Live queries find their tables by themselves (promise A48).

use lockkeeper::{Database, ErrorKind, Live, Snapshot};

use crate::support::{Dir, HANG, block_on, on_each_place, poll_once, within};

const SCHEMA: &str = "
    CREATE TABLE a (id INTEGER PRIMARY KEY, v);
    CREATE TABLE b (id INTEGER PRIMARY KEY, a REFERENCES a (id) ON DELETE CASCADE);
    CREATE TABLE c (id INTEGER PRIMARY KEY);
    CREATE TABLE other (x);
    CREATE TABLE keyed (k TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TRIGGER follow AFTER INSERT ON other WHEN NEW.x = 'c' BEGIN INSERT INTO c VALUES (NULL); END;
    CREATE VIEW one AS SELECT id, v FROM a;
    CREATE VIEW two AS SELECT one.id FROM one JOIN b ON b.a = one.id;
    CREATE VIRTUAL TABLE words USING fts5(text);
    INSERT INTO a VALUES (1, 1);
    INSERT INTO b VALUES (1, 1);";

/// For each query: a write that concerns the query, and a write that does not (empty: there is none).
const CASES: [(&str, &str, &str); 13] = [
    ("SELECT count(*) FROM a", "INSERT INTO a VALUES (2, 2)", "INSERT INTO b VALUES (2, NULL)"),
    ("SELECT max(v) FROM one", "UPDATE a SET v = 5", "INSERT INTO b VALUES (2, NULL)"),
    ("SELECT count(*) FROM two", "INSERT INTO b VALUES (2, 1)", "INSERT INTO c VALUES (2)"),
    ("SELECT count(*) FROM two", "DELETE FROM a", "INSERT INTO other VALUES ('x')"),
    // A write that changes the table through a cascade, and one that changes it through a trigger.
    ("SELECT count(*) FROM b", "DELETE FROM a WHERE id = 1", "INSERT INTO other VALUES ('c')"),
    ("SELECT count(*) FROM c", "INSERT INTO other VALUES ('c')", "DELETE FROM a"),
    // In the query, `c` is a name that the query itself defines, so the table `c` does not matter.
    (
        "WITH c AS (SELECT * FROM a) SELECT count(*) FROM c",
        "INSERT INTO a VALUES (2, 2)",
        "INSERT INTO c VALUES (2)",
    ),
    ("SELECT (SELECT count(*) FROM c) + 1", "INSERT INTO c VALUES (7)", "DELETE FROM a"),
    (
        "SELECT count(*) FROM a WHERE id IN (SELECT a FROM b)",
        "DELETE FROM b",
        "INSERT INTO c VALUES (2)",
    ),
    ("SELECT count(*) FROM keyed", "INSERT INTO keyed VALUES ('k')", "INSERT INTO c VALUES (2)"),
    (
        "SELECT count(*) FROM words WHERE words MATCH 'milk'",
        "INSERT INTO words VALUES ('milk')",
        "INSERT INTO c VALUES (2)",
    ),
    ("SELECT count(*) FROM sqlite_schema", "CREATE TABLE new (x)", ""),
    ("SELECT count(*) FROM pragma_table_info('a')", "ALTER TABLE a ADD COLUMN w", ""),
];

fn number(sql: &'static str) -> impl Fn(&Snapshot) -> rusqlite::Result<i64> + Send + Sync {
    move |s| s.query_row(sql, [], |row| row.get(0))
}

fn write(db: &Database, sql: &'static str) {
    db.blocking_write(move |tx| tx.execute_batch(sql))
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

fn is_quiet<T: Send + 'static>(live: &mut Live<T, rusqlite::Error>) -> bool {
    let pending = poll_once(&mut Box::pin(live.next())).is_pending();
    pending && format!("{live:?}").contains("running: false")
}

#[test]
fn a48_a_live_query_runs_again_when_what_it_reads_changes_and_only_then() {
    for (sql, concerns, foreign) in CASES {
        on_each_place(|db, place| {
            write(db, SCHEMA);
            let mut live = db.live_query(number(sql));
            let before = live.blocking_next().expect("open").expect("it runs");
            assert!(is_quiet(&mut live), "{sql} on {place:?}: nothing has happened");
            if !foreign.is_empty() {
                write(db, foreign);
                assert!(is_quiet(&mut live), "{sql} on {place:?} after {foreign}");
            }
            let expected = db.blocking_write(move |tx| {
                tx.execute_batch(concerns)?;
                tx.query_row(sql, [], |row| row.get::<_, i64>(0))
            });
            let expected = expected.expect("the write");
            let after = live.blocking_next().expect("open").expect("it runs");
            assert_eq!(after, expected, "{sql} on {place:?} after {concerns}, before: {before}");
        });
    }
}

#[test]
fn a48_a_live_query_follows_the_schema_and_its_own_course() {
    on_each_place(|db, place| {
        write(db, SCHEMA);
        // The view is made again and then reads another table.
        let mut live = db.live_query(number("SELECT count(*) FROM one"));
        assert_eq!(live.blocking_next().expect("open").expect("it runs"), 1);
        write(db, "DROP VIEW one; CREATE VIEW one AS SELECT id, NULL AS v FROM c");
        assert_eq!(live.blocking_next().expect("open").expect("it runs"), 0, "{place:?}");
        write(db, "INSERT INTO c VALUES (1)");
        assert_eq!(live.blocking_next().expect("open").expect("it runs"), 1, "{place:?}");
        write(db, "INSERT INTO a VALUES (9, 9)");
        assert!(is_quiet(&mut live), "{place:?}: `a` is not below it any more");
        // The rows of one table decide whether the query reads another table.
        let mut live =
            db.live_query(|s| match s.prepare_cached("SELECT 1 FROM other")?.exists([])? {
                false => Ok(-1),
                true => s.query_row("SELECT count(*) FROM keyed", [], |row| row.get(0)),
            });
        assert_eq!(live.blocking_next().expect("open").expect("it runs"), -1);
        write(db, "INSERT INTO keyed VALUES ('a')");
        assert!(is_quiet(&mut live), "{place:?}: it has not read it yet");
        write(db, "INSERT INTO other VALUES ('x')");
        assert_eq!(live.blocking_next().expect("open").expect("it runs"), 1);
        write(db, "INSERT INTO keyed VALUES ('b')");
        assert_eq!(live.blocking_next().expect("open").expect("it runs"), 2, "{place:?}");
        // The query fails until the table is created.
        let mut live = db.live_query(number("SELECT count(*) FROM later"));
        live.blocking_next().expect("open").expect_err("there is no such table");
        write(db, "CREATE TABLE later (x)");
        assert_eq!(live.blocking_next().expect("open").expect("it runs"), 0, "{place:?}");
    });
}

#[test]
fn a48_listed_views_stand_for_their_tables_and_unknown_names_are_refused() {
    on_each_place(|db, place| {
        write(db, SCHEMA);
        let mut live = db.live(["TWO"], number("SELECT count(*) FROM two"));
        assert_eq!(live.blocking_next().expect("open").expect("it runs"), 1);
        write(db, "INSERT INTO c VALUES (5)");
        assert!(is_quiet(&mut live), "{place:?}");
        write(db, "DELETE FROM a");
        assert_eq!(live.blocking_next().expect("open").expect("it runs"), 0, "{place:?}");
        for name in ["mispelt", "main.mispelt", "nowhere.a", "", "a b", "a\"b"] {
            let mut live = db.live(["a", name], number("SELECT 1"));
            let error = live.blocking_next().expect("open").expect_err("there is no such table");
            assert_eq!(error.kind(), ErrorKind::Config, "{name} on {place:?}: {error}");
            assert!(error.to_string().contains(&format!("`{name}`")), "{error}");
        }
        for name in ["a", "main.a", "words", "keyed"] {
            let mut live = db.live([name], number("SELECT 1"));
            assert_eq!(live.blocking_next().expect("open").expect("it runs"), 1, "{name}");
        }
    });
}

#[test]
fn a48_tables_of_attached_files_and_temporary_ones_are_told_apart() {
    within(HANG, || {
        let dir = Dir::new();
        let side = dir.file("side.db");
        rusqlite::Connection::open(&side)
            .and_then(|conn| conn.execute_batch("CREATE TABLE a (x)"))
            .expect("the side file");
        let attach = format!("ATTACH '{}' AS side", side.display());
        let builder = Database::builder(dir.file("test.db")).setup(move |conn| {
            conn.execute_batch(&attach)?;
            conn.execute_batch("CREATE TEMP TABLE mine (x)")
        });
        let db = builder.blocking_open().expect("opens");
        write(&db, SCHEMA);
        for listed in [false, true] {
            let query = number("SELECT count(*) FROM side.a, (SELECT count(*) FROM mine)");
            let mut live = match listed {
                false => db.live_query(query),
                true => db.live(["side.a", "mine"], query),
            };
            let before = live.blocking_next().expect("open").expect("it runs");
            write(&db, "INSERT INTO main.a VALUES (NULL, 0)");
            assert!(is_quiet(&mut live), "the other file's `a`");
            write(&db, "INSERT INTO side.a VALUES (1)");
            assert_eq!(live.blocking_next().expect("open").expect("it runs"), before + 1);
        }
        db.blocking_close().expect("closes");
    });
}

/// writer                    | live query
/// --------------------------|----------------------------------------
///                           | begins its first run and reads `a`
/// commits a change of `a`   |
///                           | ends the run: now its tables are known
#[test]
fn a48_a_commit_during_the_run_that_finds_the_tables_is_not_missed() {
    within(HANG, || {
        let dir = Dir::new();
        let db = dir.builder(crate::support::Place::File).blocking_open().expect("opens");
        write(&db, SCHEMA);
        let (begun, has_begun) = std::sync::mpsc::sync_channel(9);
        let (go, wait) = std::sync::mpsc::sync_channel::<()>(9);
        let wait = std::sync::Mutex::new(wait);
        let mut live = db.live_query(move |s| {
            let count: i64 = s.query_row("SELECT count(*) FROM a", [], |row| row.get(0))?;
            let _ = begun.send(());
            let _ = wait.lock().expect("no panic").recv();
            Ok(count)
        });
        let mut next = Box::pin(live.next());
        assert!(poll_once(&mut next).is_pending());
        has_begun.recv().expect("it runs");
        write(&db, "INSERT INTO a VALUES (2, 2)");
        go.send(()).expect("it waits");
        assert_eq!(block_on(next).expect("open").expect("it runs"), 1);
        go.send(()).expect("it waits");
        assert_eq!(live.blocking_next().expect("open").expect("it runs"), 2);
        drop(go);
        db.blocking_close().expect("closes");
    });
}
