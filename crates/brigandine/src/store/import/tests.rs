//! Imports from databases with the schemas of Cuirass, which the tests fill row by row.

use crate::model::{
    BuildFilter, BuildId, BuildStatus, Cancel, EvaluationId, Evaluator, Reference, Weather,
};
use crate::os::state_dir::StateDir;
use crate::store::builds::claim_for;
use crate::store::*;
use rusqlite::Connection;
use std::cell::Cell;
use std::path::{Path, PathBuf};

/// Tables that both schemas of 2018 have.
const BOTH: &str = "
    CREATE TABLE Specifications (name, load_path_inputs, package_path_inputs, proc_input, proc_file,
      proc, proc_args);
    CREATE TABLE Inputs (specification, name, url, load_path, branch, tag, revision, no_compile_p);
    CREATE TABLE Stamps (specification, stamp);
    INSERT INTO Specifications VALUES ('master', '(\"guix\")', '()', 'guix', 'ci.scm', 'jobs', '()');
    INSERT INTO Inputs VALUES ('master', 'guix', 'https://example.org/g.git', '.', 'm', NULL, NULL, 1);
    INSERT INTO Inputs VALUES ('master', 'more', 'https://example.org/m.git', '.', NULL, 'v1', NULL, 1);";

const EVALUATIONS: &str = "
    CREATE TABLE Evaluations (id INTEGER PRIMARY KEY, specification, commits);
    INSERT INTO Evaluations VALUES (3, 'master', 'aaaa bbbb'), (5, 'master', 'cccc dddd');";

/// Builds keyed by their derivation; the ids of the rows become their numbers.
const AUGUST: &str = "
    CREATE TABLE Builds (derivation TEXT PRIMARY KEY, evaluation, job_name, system, nix_name, log,
      status, timestamp, starttime, stoptime);
    CREATE TABLE Outputs (derivation, name, path, PRIMARY KEY (derivation, name));
    INSERT INTO Builds (rowid, derivation, evaluation, job_name, system, nix_name, log, status,
      timestamp, starttime, stoptime) VALUES
      (7, '/gnu/store/a-x.drv', 3, 'x.s', 's', 'x', '/var/log/a.bz2', 0, 100, 110, 150),
      (8, '/gnu/store/b-y.drv', 3, 'y.s', 's', 'y', '', 1, 100, 120, 140),
      (9, '/gnu/store/c-x.drv', 5, 'x.s', 's', 'x', '', 4, 200, 0, 0),
      (11, '/gnu/store/d-y.drv', 5, 'y.s', 's', 'y', '', -2, 200, 0, 0),
      (12, '/gnu/store/e-z.drv', 5, 'z.t', 't', 'z', '', -1, 200, 230, 0),
      (13, '/gnu/store/f-z.drv', 5, 'z.t', 't', 'z', '', 2, 200, 0, 240);
    INSERT INTO Outputs VALUES ('/gnu/store/a-x.drv', 'out', '/gnu/store/1-x'),
      ('/gnu/store/a-x.drv', 'doc', '/gnu/store/1-x-doc'), ('/gnu/store/b-y.drv', 'out', 'oy'),
      ('/gnu/store/d-y.drv', 'out', 'od'), ('/gnu/store/e-z.drv', 'out', 'oe');";

/// The same rows, with a table of derivations.
const JULY: &str = "
    CREATE TABLE Derivations (derivation, evaluation, job_name, system, nix_name,
      PRIMARY KEY (derivation, evaluation));
    CREATE TABLE Builds (id INTEGER PRIMARY KEY, derivation, evaluation, log, status, timestamp,
      starttime, stoptime);
    CREATE TABLE Outputs (build, name, path, PRIMARY KEY (build, name));
    INSERT INTO Derivations SELECT derivation, evaluation, job_name, system, nix_name FROM old.Builds;
    INSERT INTO Builds SELECT rowid, derivation, evaluation, log, status, timestamp, starttime, stoptime
      FROM old.Builds;
    INSERT INTO Outputs SELECT b.rowid, o.name, o.path FROM old.Outputs AS o
      JOIN old.Builds AS b ON b.derivation = o.derivation;";

/// Checkouts in a table, outputs keyed by their path, builds with numbers, priorities and more.
const LATER: &str = "
    CREATE TABLE Evaluations (id INTEGER PRIMARY KEY, specification, status, timestamp,
      checkouttime, evaltime);
    CREATE TABLE Checkouts (specification, revision, evaluation, input, directory, timestamp);
    CREATE TABLE Builds (id INTEGER PRIMARY KEY, derivation, evaluation, job_name, system, nix_name,
      log, status, timestamp, starttime, stoptime, priority, max_silent, timeout);
    CREATE TABLE Outputs (derivation, name, path PRIMARY KEY);
    CREATE TABLE Events (id INTEGER PRIMARY KEY);
    INSERT INTO Evaluations VALUES (3, 'master', 0, 90, 91, 99), (5, 'master', -1, 190, 0, 0);
    INSERT INTO Checkouts VALUES ('master', 'aaaa', 3, 'guix', '/d', 90),
      ('master', 'bbbb', 3, 'more', '/d', 90);
    INSERT INTO Builds SELECT rowid, derivation, evaluation, job_name, system, nix_name, log, status,
      timestamp, starttime, stoptime, 4, 60, 600 FROM old.Builds;
    INSERT INTO Outputs SELECT derivation, name, path FROM old.Outputs ORDER BY rowid DESC;";

fn connection(path: &Path) -> Connection {
    Connection::open_with_flags(path, rusqlite::OpenFlags::default()).expect("opens")
}

fn make(directory: &Path, name: &str, statements: &[&str]) -> PathBuf {
    let path = directory.join(name);
    let made = connection(&path);
    for text in statements {
        made.execute_batch(text).expect(text);
    }
    path
}

fn august(directory: &Path) -> PathBuf {
    make(directory, "august.sqlite", &[BOTH, EVALUATIONS, AUGUST])
}

fn import(source: &Path, state: &Path) -> Result<Imported, String> {
    import_cuirass(source, state, 1000, &|_| ()).map_err(|error| error.to_string())
}

async fn check(source: &Path, state: &Path, later: bool) {
    let before = std::fs::read(source).expect("the source");
    let done = import(source, state).expect("imports");
    assert_eq!((done.specifications, done.evaluations, done.builds, done.outputs), (1, 2, 6, 5));
    assert_eq!((done.rescheduled, done.logs, done.resumed_at), (1, 1, 0));
    assert_eq!(std::fs::read(source).expect("the source"), before, "it is only read");
    let database = open(state).await.expect("opens");
    let found = database.read(move |s| {
        let first = builds_named(s, "a-x.drv")?.remove(0);
        assert_eq!((first.id.get(), first.evaluation.get()), (7, 3));
        assert_eq!((first.submitted_at, first.started_at, first.stopped_at), (100, 110, 150));
        assert_eq!((&*first.job, &*first.specification), ("x.s", "master"));
        // Cuirass builds the lowest priority first, this server the highest.
        assert_eq!(first.priority, if later { -4 } else { 0 });
        let names: Vec<_> = outputs(s, &[first.id])?.remove(&first.id).unwrap_or_default();
        assert_eq!(
            names.iter().map(|o| &*o.path).collect::<Vec<_>>(),
            ["/gnu/store/1-x-doc", "/gnu/store/1-x"]
        );
        let latest = latest_builds(s, &BuildFilter::default(), 10)?;
        // Build 9 was canceled without a stop time, so the time of its submission becomes its stop time.
        let stops: Vec<_> = latest.iter().map(|b| (b.id.get(), b.stopped_at)).collect();
        assert_eq!(stops, [(13, 240), (9, 200), (7, 150), (8, 140)]);
        let waiting = queue(s, &BuildFilter::default(), 10)?;
        assert_eq!(
            waiting.iter().map(|b| (b.id.get(), b.status)).collect::<Vec<_>>(),
            [(11, BuildStatus::Scheduled), (12, BuildStatus::Scheduled)]
        );
        assert_eq!(queue_counts(s)?, crate::model::QueueCounts { scheduled: 2, started: 0 });
        let details = evaluation_details(s, EvaluationId::new(3))?.expect("evaluation 3");
        let revisions: Vec<_> =
            details.checkouts.iter().map(|c| (&*c.input, &*c.revision)).collect();
        assert_eq!(revisions, [("guix", "aaaa"), ("more", "bbbb")]);
        let counters = details.evaluation.counters;
        assert_eq!((counters.succeeded, counters.failed, counters.total()), (1, 1, 2));
        assert_eq!(details.evaluation.created_at, if later { 90 } else { 100 });
        let second = evaluation(s, EvaluationId::new(5))?.expect("evaluation 5");
        let counters = second.counters;
        assert_eq!((counters.scheduled, counters.canceled, counters.failed_dependency), (2, 1, 1));
        let specification = specification(s, "master")?.expect("the specification").specification;
        assert!(!specification.enabled, "nobody can evaluate it here");
        assert_eq!(specification.inputs.len(), 2);
        Ok(())
    });
    found.await.expect("reads");
    // This server does not know how to build them, so the server neither starts nor cancels them.
    let (claimed, recovered) = database
        .write(|tx| Ok((claim_for(tx, "s", 10, 1)?, recover(tx, 2)?)))
        .await
        .expect("writes");
    assert_eq!((claimed.len(), recovered.gone), (0, 0));
    let canceled = database.write(|tx| cancel(tx, BuildId::new(11), "m", 3)).await.expect("writes");
    assert!(matches!(canceled, Cancel::Done(_)), "people can cancel them");
    let counted = database.read(queue_counts).await.expect("reads");
    assert_eq!(counted.scheduled, 1, "the triggers are there");
    database.close().await.expect("closes");
}

#[tokio::test]
async fn builds_keyed_by_their_derivation_keep_their_numbers() {
    let directory = tempfile::tempdir().expect("a directory");
    let source = august(directory.path());
    check(&source, &directory.path().join("state"), false).await;
}

#[tokio::test]
async fn builds_beside_a_table_of_derivations_keep_their_numbers() {
    let directory = tempfile::tempdir().expect("a directory");
    let old = august(directory.path());
    let attach = format!("ATTACH '{}' AS old", old.display());
    let source = make(directory.path(), "july.sqlite", &[&attach, BOTH, EVALUATIONS, JULY]);
    check(&source, &directory.path().join("state"), false).await;
}

#[tokio::test]
async fn later_schemas_are_known_as_far_as_they_add_to_these() {
    let directory = tempfile::tempdir().expect("a directory");
    let old = august(directory.path());
    let attach = format!("ATTACH '{}' AS old", old.display());
    let source = make(directory.path(), "later.sqlite", &[&attach, BOTH, LATER]);
    check(&source, &directory.path().join("state"), true).await;
}

/// Columns and rows that later versions of Cuirass have.
const MORE: &str = "
    ALTER TABLE Specifications ADD COLUMN build_outputs;
    ALTER TABLE Specifications ADD COLUMN priority;
    UPDATE Specifications SET build_outputs = '((iso (job . \"x\")))', priority = 9;
    UPDATE Inputs SET tag = 'v2', load_path = 'modules' WHERE name = 'guix';
    UPDATE Inputs SET no_compile_p = 0 WHERE name = 'more';
    INSERT INTO Inputs VALUES ('gone', 'guix', 'https://example.org/g.git', '.', 'm', NULL, NULL, 1);
    ALTER TABLE Builds ADD COLUMN worker;
    ALTER TABLE Builds ADD COLUMN weather;
    ALTER TABLE Builds ADD COLUMN last_status;
    UPDATE Builds SET worker = 'overdrive1', last_status = 1 WHERE id IN (7, 8);
    UPDATE Builds SET weather = 0, worker = '' WHERE id = 7;
    UPDATE Builds SET weather = 3 WHERE id IN (8, 12);
    INSERT INTO Inputs VALUES (NULL, 'x', 'https://example.org/x.git', '', NULL, NULL, NULL, 0);
    INSERT INTO Checkouts VALUES ('master', 'eeee', 99, 'guix', '', 0);
    INSERT INTO Outputs VALUES ('/gnu/store/gone.drv', 'out', '/gnu/store/gone');
    INSERT INTO Stamps VALUES ('master', 'aaaa bbbb');
    INSERT INTO Events VALUES (1), (2);";

#[tokio::test]
async fn what_has_a_place_is_imported_and_everything_else_is_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let old = august(directory.path());
    let attach = format!("ATTACH '{}' AS old", old.display());
    let source = make(directory.path(), "more.sqlite", &[&attach, BOTH, LATER, MORE]);
    let state = directory.path().join("state");
    let done = import(&source, &state).expect("imports");
    let left: Vec<_> =
        done.left_out.iter().map(|left| (left.table, left.column, left.rows)).collect();
    assert_eq!(
        left,
        [
            ("Builds", Some("worker"), 1),
            ("Builds", Some("last_status"), 2),
            ("Checkouts", Some("directory"), 2),
            ("Checkouts", Some("timestamp"), 2),
            ("Checkouts", None, 1),
            ("Inputs", None, 2),
            ("Stamps", None, 1),
            ("Events", None, 2),
            ("Outputs", None, 1),
        ]
    );
    let database = open(&state).await.expect("opens");
    let found = database.read(|s| {
        let specification = specification(s, "master")?.expect("the specification").specification;
        assert_eq!(specification.priority, -9, "Cuirass builds the lowest first");
        let tag = Reference::Tag("v2".to_owned());
        assert_eq!(specification.inputs[0].reference, tag);
        let Evaluator::Command { arguments, .. } = &specification.evaluator else {
            panic!("another evaluator")
        };
        assert_eq!(arguments["build-outputs"], "((iso (job . \"x\")))");
        assert_eq!(
            arguments["inputs"],
            serde_json::json!({
                "guix": { "load-path": "modules", "no-compile": true, "branch": "m" },
                "more": { "load-path": "." },
            })
        );
        for (name, weather) in [
            ("a-x.drv", Weather::NewSuccess),
            ("b-y.drv", Weather::StillFailing),
            ("c-x.drv", Weather::Unknown),
            // It was running in Cuirass, and waits here.
            ("e-z.drv", Weather::Unknown),
        ] {
            assert_eq!(builds_named(s, name)?.remove(0).weather, weather, "{name}");
        }
        Ok(())
    });
    found.await.expect("reads");
    database.close().await.expect("closes");
}

#[test]
fn jobs_without_a_build_of_their_evaluation_are_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let old = august(directory.path());
    let attach = format!("ATTACH '{}' AS old", old.display());
    let row = "INSERT INTO Derivations VALUES ('/gnu/store/a-x.drv', 5, 'x.s', 's', 'x')";
    let source = make(directory.path(), "july.sqlite", &[&attach, BOTH, EVALUATIONS, JULY, row]);
    let done = import(&source, &directory.path().join("state")).expect("imports");
    assert_eq!(done.left_out.len(), 1, "{:?}", done.left_out);
    assert_eq!((done.left_out[0].table, done.left_out[0].rows), ("Derivations", 1));
}

#[tokio::test]
async fn an_import_that_was_cut_goes_on_where_it_stood() {
    let directory = tempfile::tempdir().expect("a directory");
    let source = august(directory.path());
    let state = directory.path().join("state");
    // Unwinds between the slices and the indexes, so the import is cut there as if its process were killed.
    let cut = Cell::new(false);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        import_cuirass(&source, &state, 1000, &|step| {
            if matches!(step, Step::Other(_)) {
                cut.set(true);
                std::panic::resume_unwind(Box::new("cut"));
            }
        })
    }));
    assert!(outcome.is_err() && cut.get());
    let error = open(&state).await.expect_err("no server takes it for a database").to_string();
    assert!(error.contains("an import has not ended"), "{error}");

    let other = make(
        directory.path(),
        "other.sqlite",
        &[BOTH, EVALUATIONS, AUGUST, "DELETE FROM Builds WHERE rowid = 13"],
    );
    let error = import(&other, &state).expect_err("another source");
    assert!(error.contains("was begun from another file"), "{error}");

    let done = import(&source, &state).expect("goes on");
    assert_eq!((done.builds, done.resumed_at, done.outputs), (6, 6, 5));
    let error = import(&source, &state).expect_err("there is a database");
    assert!(error.contains("a new state directory"), "{error}");
    let whole = connection(&StateDir::new(&state).database());
    let left: i64 = whole
        .query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'import'", [], |row| row.get(0))
        .expect("a count");
    assert_eq!(left, 0);
    let sound: String =
        whole.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checks");
    assert_eq!(sound, "ok");
}

#[test]
fn what_is_not_understood_is_refused_by_its_name() {
    for (change, wanted) in [
        ("CREATE TABLE Secrets (x)", "a table `Secrets`"),
        ("ALTER TABLE Builds ADD COLUMN colour", "`Builds` has a column `colour`"),
        ("ALTER TABLE Builds DROP COLUMN stoptime", "`Builds` has no column `stoptime`"),
        ("DROP TABLE Inputs", "no table `Inputs`"),
        ("UPDATE Builds SET status = 9 WHERE rowid = 8", "build 8 has status 9"),
        ("ALTER TABLE Builds ADD COLUMN weather DEFAULT 4", "build 7 has weather 4"),
        ("UPDATE Specifications SET name = 'grid'", "`/jobset/NAME/grid`"),
        ("UPDATE Specifications SET name = 'a/b'", "specification `a/b`"),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let source = august(directory.path());
        connection(&source).execute_batch(change).expect(change);
        let state = directory.path().join("state");
        let error = import(&source, &state).expect_err(wanted);
        assert!(error.contains(wanted), "{change}: {error}");
        assert!(!StateDir::new(&state).database().exists());
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("text");
    std::fs::write(&path, "no database at all, however long it may be").expect("a file");
    let error = import(&path, &directory.path().join("state")).expect_err("no database");
    assert!(error.contains("not a database"), "{error}");
}

#[test]
fn rows_that_belong_to_nothing_are_left_out_and_counted() {
    let lost = "UPDATE Evaluations SET specification = 'x' WHERE id = 5";
    for (change, evaluations, builds, left) in [
        ("DELETE FROM Evaluations WHERE id = 3", 1, 4, &[("Builds", 2), ("Outputs", 3)][..]),
        (lost, 1, 2, &[("Evaluations", 1), ("Builds", 4), ("Outputs", 2)][..]),
        (
            "UPDATE Evaluations SET specification = NULL WHERE id = 5",
            1,
            2,
            &[("Evaluations", 1), ("Builds", 4), ("Outputs", 2)][..],
        ),
        ("UPDATE Builds SET evaluation = NULL WHERE rowid = 13", 2, 5, &[("Builds", 1)][..]),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let source = august(directory.path());
        connection(&source).execute_batch(change).expect(change);
        let state = directory.path().join("state");
        let done = import(&source, &state).expect(change);
        assert_eq!((done.evaluations, done.builds), (evaluations, builds), "{change}");
        let found: Vec<_> = done.left_out.iter().map(|left| (left.table, left.rows)).collect();
        assert_eq!(found, left, "{change}");
        let whole = connection(&StateDir::new(&state).database());
        let strays = "SELECT (SELECT count(*) FROM pragma_foreign_key_check), (SELECT sum(builds) FROM build_count)";
        let strays: (i64, i64) = whole.query_row(strays, [], |row| row.try_into()).expect("counts");
        assert_eq!(strays, (0, builds), "{change}");
    }
}

#[test]
fn builds_without_a_row_that_names_their_job_are_left_out_and_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let old = august(directory.path());
    let attach = format!("ATTACH '{}' AS old", old.display());
    let more = "DELETE FROM Derivations WHERE derivation = '/gnu/store/b-y.drv'";
    let source = make(directory.path(), "july.sqlite", &[&attach, BOTH, EVALUATIONS, JULY, more]);
    let done = import(&source, &directory.path().join("state")).expect("imports");
    assert_eq!((done.builds, done.outputs), (5, 4));
    let found: Vec<_> = done.left_out.iter().map(|left| (left.table, left.rows)).collect();
    assert_eq!(found, [("Builds", 1), ("Outputs", 1)]);
}

#[test]
fn an_import_that_fails_ends_however_many_builds_are_left() {
    let directory = tempfile::tempdir().expect("a directory");
    let source = august(directory.path());
    // The first build cannot be stored, because it has two outputs of one name.
    let more = "CREATE TABLE Other AS SELECT * FROM Outputs
          UNION ALL SELECT '/gnu/store/a-x.drv', 'out', 'another' ORDER BY derivation;
        DROP TABLE Outputs;
        ALTER TABLE Other RENAME TO Outputs;
        WITH RECURSIVE n (i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
        INSERT INTO Builds (rowid, derivation, evaluation, job_name, system, nix_name, log, status,
          timestamp, starttime, stoptime)
        SELECT i, i || '.drv', 5, 'x.s', 's', 'x', '', 0, 200, 210, 220 FROM n";
    connection(&source).execute_batch(more).expect(more);
    let error =
        import(&source, &directory.path().join("state")).expect_err("build 7 cannot be stored");
    assert!(error.contains("UNIQUE"), "{error}");
}
