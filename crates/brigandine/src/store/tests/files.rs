//! Tests with files of other versions and of other programs.

use super::*;

pub(super) fn schema_of(connection: &Connection) -> Vec<String> {
    let mut statement = connection
        .prepare(
            "SELECT type || ' ' || name || ' ' || ifnull(sql, '') FROM sqlite_schema
             WHERE name NOT LIKE 'sqlite_stat%' ORDER BY 1",
        )
        .expect("a statement");
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).expect("rows");
    // SQLite quotes the name of a renamed table, so the quotes are removed.
    rows.map(|row| row.expect("a row").replace("TABLE \"", "TABLE ").replace("\" (", " ("))
        .collect()
}

/// The file opened by SQLite without Lockkeeper.
pub(super) fn file(path: impl AsRef<std::path::Path>) -> Connection {
    Connection::open_with_flags(path, rusqlite::OpenFlags::default()).expect("opens")
}

fn file_header(connection: &Connection) -> (i64, i64) {
    let number = |sql| connection.query_row(sql, [], |row| row.get(0)).expect(sql);
    (number("PRAGMA application_id"), number("PRAGMA user_version"))
}

#[tokio::test]
async fn migrations_lead_to_the_schema_document() {
    let directory = tempfile::tempdir().expect("a directory");
    open(directory.path()).await.expect("opens").close().await.expect("closes");
    let migrated = file(StateDir::new(directory.path()).database());
    let document = Connection::open_in_memory().expect("opens");
    document.execute_batch(include_str!("../../../schema.sql")).expect("the schema");
    assert_eq!(schema_of(&migrated), schema_of(&document));
    assert_eq!(file_header(&migrated), file_header(&document));
}

/// Makes a file of the first version, with contents of that time.
fn first_version(path: &std::path::Path) -> Connection {
    let old = file(path);
    old.execute_batch(include_str!("../../../migrations/0001_initial.sql")).expect("version 1");
    old.execute_batch(include_str!("../../../tests/data/migrations/0001.sql")).expect("contents");
    old
}

#[tokio::test]
async fn a_file_of_the_first_version_keeps_its_contents() {
    let directory = tempfile::tempdir().expect("a directory");
    drop(first_version(&StateDir::new(directory.path()).database()));
    let database = open(directory.path()).await.expect("opens");
    let (found, latest, counts) = database
        .read(|s| {
            let found = builds_named(s, "gggg-lint-2.drv")?.pop();
            let one =
                crate::model::BuildFilter { job: Some("test".to_owned()), ..Default::default() };
            Ok((found, latest_builds(s, &one, 10)?, queue_counts(s)?))
        })
        .await
        .expect("reads");
    let found = found.expect("the build");
    assert_eq!((found.id.get(), &*found.derivation), (7, "/store/gggg-lint-2.drv"));
    assert_eq!(latest.iter().map(|build| build.id.get()).collect::<Vec<_>>(), [3, 2]);
    assert_eq!((counts.scheduled, counts.started), (1, 1));
    database.close().await.expect("closes");
    let migrated = file(StateDir::new(directory.path()).database());
    let broken: Option<String> = migrated
        .query_row("SELECT group_concat(\"table\") FROM pragma_foreign_key_check", [], |row| {
            row.get(0)
        })
        .expect("checks");
    assert_eq!(broken, None, "every reference has its row");
    let document = Connection::open_in_memory().expect("opens");
    document.execute_batch(include_str!("../../../schema.sql")).expect("the schema");
    assert_eq!(schema_of(&migrated), schema_of(&document));
}

#[tokio::test]
async fn indexes_that_an_interruption_left_out_are_made_at_the_next_opening() {
    let directory = tempfile::tempdir().expect("a directory");
    open(directory.path()).await.expect("opens").close().await.expect("closes");
    let path = StateDir::new(directory.path()).database();
    let whole = schema_of(&file(&path));
    file(&path).execute_batch("DROP INDEX build_latest; DROP INDEX build_queue").expect("drops");
    assert_ne!(schema_of(&file(&path)), whole);
    open(directory.path()).await.expect("opens").close().await.expect("closes");
    assert_eq!(schema_of(&file(&path)), whole);
}

#[tokio::test]
async fn an_index_that_is_interrupted_in_the_middle_is_made_by_a_later_opening() {
    let directory = tempfile::tempdir().expect("a directory");
    make_sample(30_000, directory.path(), 1, &|_| ()).expect("the sample");
    let path = StateDir::new(directory.path()).database();
    let whole = schema_of(&file(&path));
    let drop_some = "DROP INDEX build_latest_of_job; DROP INDEX build_derivation;
         DROP INDEX job_by_build; DROP INDEX build_latest;";
    file(&path).execute_batch(drop_some).expect("dropped");
    let (mut interrupted, mut finished) = (0, 0);
    // Each opening is dropped a little later than the one before, so that one of them is dropped while it makes an
    // index.
    for round in 1..40 {
        let patience = std::time::Duration::from_millis(4 * round);
        match tokio::time::timeout(patience, open(directory.path())).await {
            Err(_) => interrupted += 1,
            Ok(opened) => {
                opened.expect("opens").close().await.expect("closes");
                finished += 1;
                if finished == 2 {
                    break;
                }
                file(&path).execute_batch(drop_some).expect("dropped");
            }
        }
        let checked: String =
            file(&path).query_row("PRAGMA quick_check", [], |row| row.get(0)).expect("checks");
        assert_eq!(checked, "ok");
    }
    assert!(interrupted > 1, "no opening was interrupted");
    open(directory.path()).await.expect("opens").close().await.expect("closes");
    assert_eq!(schema_of(&file(&path)), whole);
}

#[tokio::test]
async fn a_step_that_is_interrupted_leaves_the_file_as_it_was() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = StateDir::new(directory.path()).database();
    // The table `job_2` makes the step fail in the middle, as an interruption would.
    first_version(&path).execute_batch("CREATE TABLE job_2 (x)").expect("an obstacle");
    let before = schema_of(&file(&path));
    open(directory.path()).await.expect_err("job_2 is in the way");
    assert_eq!(schema_of(&file(&path)), before);
    assert_eq!(file_header(&file(&path)), (1_112_688_452, 1));
    file(&path).execute_batch("DROP TABLE job_2").expect("out of the way");
    open(directory.path()).await.expect("goes on").close().await.expect("closes");
    let version = i64::try_from(schema::VERSION).expect("small");
    assert_eq!(file_header(&file(&path)), (1_112_688_452, version));
}

#[tokio::test]
async fn files_of_others_and_of_newer_programs_are_refused_untouched() {
    for (pragma, expected) in [
        ("PRAGMA application_id = 7; CREATE TABLE t (x)", "belongs to another program"),
        ("PRAGMA application_id = 1112688452; PRAGMA user_version = 99", "schema version 99"),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = StateDir::new(directory.path()).database();
        file(&path).execute_batch(pragma).expect("a header");
        let error = open(directory.path()).await.expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
        let after = file(&path);
        assert!(schema_of(&after).len() <= 1, "nothing was made");
    }
}
