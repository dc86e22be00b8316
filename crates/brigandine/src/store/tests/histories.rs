//! Histories that are exported and imported: every table and every byte is as it was.

use super::*;
use crate::store::history::write as write_history;
use crate::store::schema;
use std::io::Write;
use std::path::{Path, PathBuf};

fn quiet(_: i64, _: i64) {}

async fn exported(database: &Database) -> Vec<u8> {
    let read = database.read_once(|s| {
        let mut out = Vec::new();
        export(s, &mut out, &quiet).expect("it is written");
        Ok(out)
    });
    read.await.expect("reads")
}

/// Every row of every table but `server`, which no two state directories share.
pub(super) fn dump(conn: &Connection) -> Vec<String> {
    let mut out = Vec::new();
    write_history(conn, 1, &mut out, &quiet).expect("it is written");
    String::from_utf8(out).expect("text").lines().map(str::to_owned).collect()
}

fn imported(
    place: &Path,
    name: &str,
    history: &[u8],
) -> (PathBuf, Result<ImportedHistory, String>) {
    let (file, state) = (place.join(format!("{name}.jsonl")), place.join(name));
    std::fs::write(&file, history).expect("a file");
    let done = import_history(&file, &state, &|_| ()).map_err(|error| error.to_string());
    (state, done)
}

/// Checks that a database is the same after an export and an import, and that it is exported to the same bytes.
pub(super) async fn check_round_trip(database: &Database) {
    let place = tempfile::tempdir().expect("a directory");
    let first = exported(database).await;
    let (state, done) = imported(place.path(), "state", &first);
    let done = done.expect("imports");
    let rows: i64 = done.rows.values().sum();
    assert_eq!(usize::try_from(rows).expect("few"), first.split(|byte| *byte == b'\n').count() - 2);
    let other = open(&state).await.expect("opens");
    assert_eq!(exported(&other).await, first);
    other.close().await.expect("closes");
    let file = files::file(StateDir::new(&state).database());
    let lines: Vec<String> =
        String::from_utf8(first).expect("text").lines().skip(1).map(str::to_owned).collect();
    assert_eq!(dump(&file)[1..], lines);
    let sound: String =
        file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checks");
    assert_eq!(sound, "ok");
}

/// A small history: two specifications, a build with everything, texts of every kind.
async fn small(place: &Path) -> Vec<u8> {
    let state = place.join("origin");
    let database = open(&state).await.expect("opens");
    let rows = "INSERT INTO specification VALUES (1, 's', '{\"project\":\"p\"}', 1, 0, 0, '', 0, 0, 0, 0, NULL),
           (2, 'ü\"\\\n\u{1}', '{}', 1, 0, 0, 'x', 1, 0, 0, 0, NULL);
         INSERT INTO evaluation VALUES (1, 1, 'e', 0, 'm', 1, 1, 1, 'logs/evaluation/1.log.zst', 0, 0, 1, 0, 0, 0, 0);
         UPDATE specification SET evaluation_id = 1 WHERE id = 1;
         INSERT INTO checkout VALUES (1, 0, 'i', 'r', 's', 'a', 5);
         INSERT INTO build VALUES (1, 'd', -9223372036854775808, 1, 1, 'j', 'y', 'n', 0, 0, -1, 0, 1, 0, 0, '', 0, 0, 1,
           1, 1, 'logs/build/0/1-1.log.zst', 1, ''), (2, 'f', 9223372036854775807, 1, 1, 'k', 'y', 'n', 0, -2, -1, 0,
           0, 0, 1, '', 0, 0, 1, 0, 0, '', 0, '');
         UPDATE build SET status = 4, stopped_at = 3 WHERE id = 2;
         INSERT INTO definition VALUES (1, '{}');
         INSERT INTO job VALUES (1, 'j', 1, 0);
         INSERT INTO dependency VALUES (2, 1, 'n');
         INSERT INTO attempt VALUES (1, 1, 'w', 0, '', 1, 1);
         INSERT INTO output VALUES (1, 'out', 'outputs/0a');
         INSERT INTO product VALUES (1, 1, 'file', 'n', 'outputs/0a/n', 1, '');
         INSERT INTO leftover VALUES ('outputs/0b')";
    database.exclusive(move |conn| conn.execute_batch(rows)).await.expect("rows");
    check_round_trip(&database).await;
    let history = exported(&database).await;
    database.close().await.expect("closes");
    history
}

/// What is changed in a history, and what an import says of it.
const WRONG: [(&str, &str, &str); 16] = [
    ("\"history\"", "\"other\"", "line 1: it is not the first line of a history"),
    ("\"format\":1", "\"format\":2", "line 1: a newer program wrote the file"),
    ("\"attempt\":1,", "\"attempt\":2,", "it has 1 rows of `attempt`, and its first line says 2"),
    ("{\"build\":{", "{\"building\":{", "there is no table `building`"),
    ("\"derivation\":\"d\",", "", "`derivation` of `build` is missing"),
    ("\"derivation\":\"d\"", "\"colour\":1,\"derivation\":\"d\"", "`build` has no column `colour`"),
    ("\"derivation\":\"d\"", "\"derivation\":[]", "`derivation` is no text and no number"),
    ("-9223372036854775808", "1.5", "`derivation_key` is no whole number"),
    ("-9223372036854775808", "\"x\"", "cannot store TEXT value in INTEGER column"),
    (
        "\"needs_id\":1",
        "\"needs_id\":7",
        "`dependency` refers to a row of `build` that is not there",
    ),
    ("\"status\":4", "\"status\":9", "the status is known"),
    ("\"builds\":1", "\"builds\":2", "its `build_count` does not count its builds"),
    ("\"logs/build/0/1-1.log.zst\"", "\"../x\"", "`log_path` leads out of the state directory"),
    ("\"outputs/0a/n\"", "\"/etc/passwd\"", "`path` leads out of the state directory"),
    ("{\"checkout\":", "{\"checkout\" ", "it is no row"),
    ("}}\n{\"build\"", "}}\n\n{\"build\"", "it is no row"),
];

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().expect("it is there").permissions().mode() & 0o777
}

#[tokio::test]
async fn a_history_that_was_changed_is_refused_with_its_line() {
    let place = tempfile::tempdir().expect("a directory");
    let history = String::from_utf8(small(place.path()).await).expect("text");
    for (number, (from, to, said)) in WRONG.into_iter().enumerate() {
        let changed = history.replacen(from, to, 1);
        assert_ne!(changed, history, "{from}");
        let (state, done) = imported(place.path(), &format!("wrong-{number}"), changed.as_bytes());
        let error = done.expect_err(said);
        assert!(error.contains(said), "{from}: {error}");
        assert!(!StateDir::new(&state).database().exists(), "{from}");
        assert_eq!(
            std::fs::read_dir(&state).expect("a folder").count(),
            0,
            "{from}: nothing stays"
        );
        // So the right file is imported by the next command.
        let file = place.path().join("right");
        std::fs::write(&file, &history).expect("a file");
        import_history(&file, &state, &|_| ()).expect("imported");
        assert_eq!(mode(&state), 0o700, "{from}");
    }
    let cut = &history.as_bytes()[..history.len() - 30];
    let (_, done) = imported(place.path(), "cut", cut);
    assert!(done.expect_err("cut").contains("the file ends in the middle of it"));
    let whole_lines = history.trim_end().rsplit_once('\n').expect("lines").0.to_owned() + "\n";
    let (_, done) = imported(place.path(), "short", whole_lines.as_bytes());
    assert!(done.expect_err("short").contains("was it cut off?"));
}

#[tokio::test]
async fn an_import_of_a_history_that_was_cut_goes_on_where_it_stood() {
    let place = tempfile::tempdir().expect("a directory");
    let origin = place.path().join("origin");
    make_sample(20_000, &origin, 1, &|_| ()).expect("the sample");
    let database = open(&origin).await.expect("opens");
    let history = exported(&database).await;
    database.close().await.expect("closes");
    let (file, state) = (place.path().join("history.jsonl"), place.path().join("state"));
    std::fs::write(&file, &history).expect("a file");
    // Unwinds after the first slice, as if the process were killed.
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        import_history(&file, &state, &|_| std::panic::resume_unwind(Box::new("cut")))
    }));
    assert!(outcome.is_err());
    let error = open(&state).await.expect_err("no database").to_string();
    assert!(error.contains("an import has not ended"), "{error}");
    let longer = place.path().join("longer.jsonl");
    std::fs::write(&longer, [&history[..], b"\n"].concat()).expect("a file");
    let error = import_history(&longer, &state, &|_| ()).expect_err("another file").to_string();
    assert!(error.contains("was begun from another"), "{error}");
    let done = import_history(&file, &state, &|_| ()).expect("goes on");
    assert_eq!(done.resumed_at, 50_000);
    let database = open(&state).await.expect("opens");
    assert!(exported(&database).await == history, "the bytes differ");
    database.close().await.expect("closes");
    let error = import_history(&file, &state, &|_| ()).expect_err("there is one").to_string();
    assert!(error.contains("a new state directory"), "{error}");
}

#[tokio::test]
async fn an_export_has_no_account_and_no_column_of_a_secret() {
    let place = tempfile::tempdir().expect("a directory");
    let database = open(place.path()).await.expect("opens");
    let before = exported(&database).await;
    let accounts = "INSERT INTO user VALUES (1, 'alice', '$argon2id$', 1, 0);
         INSERT INTO user_role VALUES (1, '', 'admin');
         INSERT INTO session VALUES (1, 1, x'ff', '192.0.2.1', 1, 1);
         INSERT INTO token VALUES (1, 'deploy', x'ff', '', 'admin', 1, 0, 1)";
    database.exclusive(move |conn| conn.execute_batch(accounts)).await.expect("rows");
    let exported = exported(&database).await;
    assert_eq!(exported, before);
    // A later table of secrets, which nobody has thought of here, must be left out too.
    let secret = "SELECT DISTINCT t.name FROM pragma_table_list t, pragma_table_info(t.name) c
         WHERE t.type = 'table' AND (c.type = 'BLOB' OR c.name IN ('password', 'digest', 'secret'))";
    let tables = database.exclusive(move |conn| {
        conn.prepare(secret)?.query_map([], |row| row.get::<_, String>(0))?.collect()
    });
    let tables: Vec<String> = tables.await.expect("the tables");
    assert!(tables.len() >= 3, "{tables:?}");
    let text = String::from_utf8(exported).expect("text");
    for table in tables {
        assert!(!text.contains(&format!("\"{table}\":")), "{table}: {text}");
    }
    database.close().await.expect("closes");
}

#[tokio::test]
async fn histories_of_older_schemas_are_migrated() {
    let place = tempfile::tempdir().expect("a directory");
    for version in 1..schema::VERSION {
        let state = place.path().join(format!("old-{version}"));
        std::fs::create_dir(&state).expect("a directory");
        let path = StateDir::new(&state).database();
        let old = upgrades::of_version(&path, version);
        let mut history = Vec::new();
        write_history(&old, version, &mut history, &quiet).expect("it is written");
        drop(old);
        let (imported, done) = imported(place.path(), &format!("new-{version}"), &history);
        assert_eq!(done.expect("imports").schema, version);
        open(&state).await.expect("migrates").close().await.expect("closes");
        let migrated = files::file(path);
        let imported = files::file(StateDir::new(&imported).database());
        assert_eq!(dump(&imported), dump(&migrated), "from version {version}");
        assert_eq!(files::schema_of(&imported), files::schema_of(&migrated), "from {version}");
    }
}

#[test]
fn a_file_is_told_by_how_it_begins() {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("file");
    for (bytes, kind) in [
        (&b"SQLite format 3\0and more"[..], Some(Kind::Cuirass)),
        (b"{\"brigandine\":\"history\"", Some(Kind::History)),
        (b"{\"other\":1}", None),
        (b"", None),
        (b"\x1f\x8b\x08", None),
    ] {
        std::fs::File::create(&path).and_then(|mut file| file.write_all(bytes)).expect("a file");
        assert_eq!(kind_of(&path).ok(), kind, "{bytes:?}");
    }
    let own = files::file(place.path().join("own"));
    own.execute_batch(include_str!("../../../schema.sql")).expect("the schema");
    let error = kind_of(&place.path().join("own")).expect_err("its own").to_string();
    assert!(error.contains("it is a database of Brigandine"), "{error}");
}
