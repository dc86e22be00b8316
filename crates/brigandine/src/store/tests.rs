//! The store against its document, its indexes, and the pure state machine.

use super::building::claim_for;
use super::*;
use crate::build::state::{Happening, LOSSES_MAX, State};
use crate::model::{
    BuildId, BuildLogFile, BuildStatus, Cancel, EvaluationId, Evaluator, Input, JobChange,
    Reference, Specification, SpecificationId,
};
use crate::os::state_dir::StateDir;
use rusqlite::Connection;
use std::collections::BTreeSet;

fn schema_of(connection: &Connection) -> Vec<String> {
    let mut statement = connection
        .prepare(
            "SELECT type || ' ' || name || ' ' || ifnull(sql, '') FROM sqlite_schema
             WHERE name NOT LIKE 'sqlite_stat%' ORDER BY 1",
        )
        .expect("a statement");
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).expect("rows");
    // A table that was renamed stands in quotes.
    rows.map(|row| row.expect("a row").replace("TABLE \"", "TABLE ").replace("\" (", " ("))
        .collect()
}

/// The file as SQLite alone sees it.
fn file(path: impl AsRef<std::path::Path>) -> Connection {
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
    document.execute_batch(include_str!("../../schema.sql")).expect("the schema");
    assert_eq!(schema_of(&migrated), schema_of(&document));
    assert_eq!(file_header(&migrated), file_header(&document));
}

/// A file of the first version with the contents of that time.
fn first_version(path: &std::path::Path) -> Connection {
    let old = file(path);
    old.execute_batch(include_str!("../../migrations/0001_initial.sql")).expect("version 1");
    old.execute_batch(include_str!("../../tests/data/migrations/0001.sql")).expect("contents");
    old
}

#[tokio::test]
async fn a_file_of_the_first_version_keeps_its_contents() {
    let directory = tempfile::tempdir().expect("a directory");
    drop(first_version(&StateDir::new(directory.path()).database()));
    let database = open(directory.path()).await.expect("opens");
    let (found, latest, counts) = database
        .read(|s| {
            let found = build_named(s, "gggg-lint-2.drv")?;
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
    document.execute_batch(include_str!("../../schema.sql")).expect("the schema");
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
    // The moment is the point of the test: each opening is given up a little later.
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
    // What the step meets in the middle stops it, as an interruption would.
    first_version(&path).execute_batch("CREATE TABLE job_2 (x)").expect("an obstacle");
    let before = schema_of(&file(&path));
    open(directory.path()).await.expect_err("job_2 is in the way");
    assert_eq!(schema_of(&file(&path)), before);
    assert_eq!(file_header(&file(&path)), (1_112_688_452, 1));
    file(&path).execute_batch("DROP TABLE job_2").expect("out of the way");
    open(directory.path()).await.expect("goes on").close().await.expect("closes");
    assert_eq!(file_header(&file(&path)), (1_112_688_452, 4));
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

/// A small generator of numbers that look random, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % sides
    }
}

/// A build of the model: its state and what it needs.
#[derive(Debug, Clone)]
struct Modelled {
    state: State,
    needs: BTreeSet<usize>,
    /// Its place in the queue.
    rank: (i64, i64, String),
    /// The start that is to be canceled.
    to_cancel: Option<i64>,
}

#[derive(Default)]
struct Model {
    builds: Vec<Modelled>,
}

impl Model {
    fn happen(&mut self, index: usize, happening: Happening) {
        let Some(next) = self.builds[index].state.after(happening) else { return };
        let before = std::mem::replace(&mut self.builds[index].state, next).status;
        if before == next.status || !next.status.is_finished() {
            return;
        }
        let told = if next.status.is_success() {
            Happening::DependencySucceeded
        } else {
            Happening::DependencyFailed
        };
        for other in 0..self.builds.len() {
            if self.builds[other].needs.contains(&index) {
                self.happen(other, told);
            }
        }
    }

    /// The end of a start that came to nothing: scheduled again, unless it was to be canceled.
    fn come_to_nothing(&mut self, index: usize, attempt: i64, happening: Happening) {
        if self.builds[index].to_cancel == Some(attempt) {
            self.happen(index, Happening::Ended(attempt, BuildStatus::Canceled));
        } else {
            self.happen(index, happening);
        }
    }

    fn ready(&self, limit: usize) -> Vec<usize> {
        let mut ready: Vec<usize> = (0..self.builds.len())
            .filter(|index| self.builds[*index].state.after(Happening::Claimed).is_some())
            .collect();
        ready.sort_by_key(|index| self.builds[*index].rank.clone());
        ready.truncate(limit);
        ready
    }

    fn started(&self) -> Vec<usize> {
        let started = |index: &usize| self.builds[*index].state.status == BuildStatus::Started;
        (0..self.builds.len()).filter(started).collect()
    }
}

fn specification(name: &str) -> Specification {
    Specification {
        name: name.to_owned(),
        description: String::new(),
        inputs: vec![Input {
            name: "source".to_owned(),
            url: "/nowhere".to_owned(),
            reference: Reference::Head,
            submodules: false,
            submodules_from: Vec::new(),
        }],
        evaluator: Evaluator::Jobs { input: None, file: "f".to_owned(), jobs: Vec::new() },
        interval_s: None,
        keep: None,
        priority: 0,
        network: false,
        enabled: true,
    }
}

async fn write<T: Send + 'static>(
    database: &Database,
    f: impl FnMut(&Transaction) -> rusqlite::Result<T> + Send + 'static,
) -> T {
    database.write(f).await.expect("the write succeeds")
}

/// Registers an evaluation with new jobs that need earlier ones, and some that are known already.
async fn evaluate(database: &Database, model: &mut Model, dice: &mut Dice, round: i64) {
    let mut jobs: Vec<NewJob> = Vec::new();
    let mut places: Vec<usize> = Vec::new();
    for _ in 0..dice.roll(8) + 1 {
        let known = !model.builds.is_empty() && dice.roll(3) == 0;
        let index = if known { dice.roll(model.builds.len()) } else { model.builds.len() };
        let mut needs = Vec::new();
        if !known {
            let mut state =
                State { status: BuildStatus::Scheduled, attempt: 0, losses: 0, waiting: 0 };
            let mut wanted = BTreeSet::new();
            for _ in 0..dice.roll(3).min(jobs.len()) {
                let place = dice.roll(jobs.len());
                if wanted.insert(places[place]) {
                    needs.push((format!("n{place}"), place));
                }
            }
            for need in &wanted {
                let status = model.builds[*need].state.status;
                if !status.is_success() {
                    state.waiting += 1;
                }
                if status.is_finished() && !status.is_success() {
                    state.status = BuildStatus::FailedDependency;
                }
            }
            let priority = i64::try_from(dice.roll(3)).expect("small");
            let rank = (-priority, round, format!("{index:04}.drv"));
            model.builds.push(Modelled { state, needs: wanted, rank, to_cancel: None });
        }
        places.push(index);
        jobs.push(NewJob {
            name: format!("j{}", jobs.len()),
            derivation: format!("{index:04}.drv"),
            system: "s".to_owned(),
            nix_name: "n".to_owned(),
            priority: -model.builds[index].rank.0,
            timeout_s: 0,
            max_silent_s: 0,
            definition: Some("{}".to_owned()),
            needs,
        });
    }
    write(database, move |tx| {
        let stamp = format!("stamp {round}");
        let begun = begin_evaluation(tx, SpecificationId::new(1), &stamp, &[], "", round)?;
        assert_eq!(begun, Begun::New(EvaluationId::new(round)));
        assert!(register(tx, EvaluationId::new(round), &jobs, "", "", round)?.is_some());
        assert!(
            register(tx, EvaluationId::new(round), &jobs, "", "", round)?.is_none(),
            "only once"
        );
        Ok(())
    })
    .await;
}

fn id(index: usize) -> BuildId {
    BuildId::new(i64::try_from(index).expect("small") + 1)
}

async fn step(database: &Database, model: &mut Model, dice: &mut Dice, now: i64) {
    let started = model.started();
    let pick = |dice: &mut Dice| started.get(dice.roll(started.len().max(1))).copied();
    match dice.roll(10) {
        0..=2 => {
            let limit = dice.roll(4) + 1;
            let claimed = write(database, move |tx| claim_for(tx, "s", limit, now)).await;
            let expected = model.ready(limit);
            let found: Vec<BuildId> = claimed.iter().map(|claimed| claimed.changed.id).collect();
            assert_eq!(found, expected.iter().map(|index| id(*index)).collect::<Vec<_>>());
            for index in expected {
                model.happen(index, Happening::Claimed);
            }
        }
        3..=6 => {
            let Some(index) = pick(dice) else { return };
            let late = i64::from(dice.roll(5) == 0);
            let attempt = model.builds[index].state.attempt - late;
            let status = [
                BuildStatus::Succeeded,
                BuildStatus::Succeeded,
                BuildStatus::Failed,
                BuildStatus::FailedOther,
                BuildStatus::Canceled,
            ][dice.roll(5)];
            let end = Finish {
                id: id(index),
                attempt,
                status,
                message: String::new(),
                stopped_at: now,
                log: BuildLogFile::default(),
                outputs: vec![("out".to_owned(), "outputs/x".to_owned())],
                products: Vec::new(),
            };
            let changed = write(database, move |tx| finish(tx, &end)).await;
            assert_eq!(changed.is_empty(), late == 1, "a late result changes nothing");
            model.happen(index, Happening::Ended(attempt, status));
        }
        7 => {
            let Some(index) = pick(dice) else { return };
            let state = model.builds[index].state;
            let happening = if dice.roll(2) == 0 {
                Happening::Lost(state.attempt)
            } else {
                Happening::Stopped(state.attempt)
            };
            let next = state.after(happening).expect("it runs");
            assert!(next.losses <= LOSSES_MAX);
            write(database, move |tx| {
                let log = BuildLogFile::default();
                lose(tx, id(index), state.attempt, "m", next.losses, next.status, &log, now)
            })
            .await;
            model.come_to_nothing(index, state.attempt, happening);
        }
        8 => {
            let index = dice.roll(model.builds.len());
            let done = write(database, move |tx| cancel(tx, id(index), now)).await;
            let state = model.builds[index].state;
            match done {
                Cancel::Done(_) => assert_eq!(state.status, BuildStatus::Scheduled),
                Cancel::Running(attempt) => {
                    assert_eq!((state.status, state.attempt), (BuildStatus::Started, attempt));
                    model.builds[index].to_cancel = Some(attempt);
                }
                Cancel::TooLate => assert!(state.status.is_finished()),
            }
            model.happen(index, Happening::Cancel);
        }
        _ => {
            let recovered = write(database, move |tx| recover(tx, now)).await;
            assert_eq!(recovered.builds.len(), started.len());
            for index in started {
                let attempt = model.builds[index].state.attempt;
                model.come_to_nothing(index, attempt, Happening::Stopped(attempt));
            }
        }
    }
}

async fn compare(database: &Database, model: &Model) {
    let found: Vec<State> = write(database, |tx| {
        tx.prepare_cached("SELECT status, attempt, losses, waiting FROM build ORDER BY id")?
            .query_map([], |row| {
                Ok(State {
                    status: row.get(0)?,
                    attempt: row.get(1)?,
                    losses: row.get(2)?,
                    waiting: row.get(3)?,
                })
            })?
            .collect()
    })
    .await;
    let expected: Vec<State> = model.builds.iter().map(|build| build.state).collect();
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
        // A finished build waits for nothing that matters.
        let waiting = if expected.status.is_finished() { found.waiting } else { expected.waiting };
        assert_eq!(*found, State { waiting, ..*expected }, "build {}", id(index));
    }
    let counted: i64 = write(database, |tx| {
        tx.query_row(
            "SELECT count(*) FROM evaluation AS e WHERE
             scheduled IS NOT (SELECT count(*) FROM job AS j JOIN build AS b ON b.id = build_id
               WHERE j.evaluation_id = e.id AND b.status = -2)
             OR started IS NOT (SELECT count(*) FROM job AS j JOIN build AS b ON b.id = build_id
               WHERE j.evaluation_id = e.id AND b.status = -1)
             OR succeeded IS NOT (SELECT count(*) FROM job AS j JOIN build AS b ON b.id = build_id
               WHERE j.evaluation_id = e.id AND b.status = 0)
             OR failed + failed_dependency + failed_other + canceled IS NOT
               (SELECT count(*) FROM job AS j JOIN build AS b ON b.id = build_id
               WHERE j.evaluation_id = e.id AND b.status > 0)",
            [],
            |row| row.get(0),
        )
    })
    .await;
    assert_eq!(counted, 0, "the counters are those of the builds");
}

#[tokio::test]
async fn the_store_does_what_the_state_machine_says() {
    for seed in 0..12 {
        let database = Database::open(
            std::path::Path::new(":memory:"),
            true,
            std::time::Duration::from_secs(30),
        )
        .await
        .expect("opens");
        database
            .exclusive(|connection| connection.execute_batch(include_str!("../../schema.sql")))
            .await
            .expect("the schema");
        let stored = specification("sample");
        write(&database, move |tx| put_specification(tx, &stored, false, 1)).await;
        let mut dice = Dice(seed);
        let mut model = Model::default();
        let mut round = 0;
        for moment in 0..150 {
            if moment == 0 || dice.roll(8) == 0 {
                round += 1;
                evaluate(&database, &mut model, &mut dice, round).await;
            }
            step(&database, &mut model, &mut dice, 1000 + moment).await;
            compare(&database, &model).await;
        }
        assert!(model.builds.iter().any(|build| build.state.status.is_finished()));
        database.close().await.expect("closes");
    }
}

#[tokio::test]
async fn a_specification_is_replaced_only_when_asked_and_comes_back_with_its_past() {
    let database =
        Database::open(std::path::Path::new(":memory:"), true, std::time::Duration::from_secs(30))
            .await
            .expect("opens");
    database
        .exclusive(|connection| connection.execute_batch(include_str!("../../schema.sql")))
        .await
        .expect("the schema");
    let put = |specification: Specification, replace: bool| {
        let database = database.clone();
        async move {
            write(&database, move |tx| put_specification(tx, &specification, replace, 5)).await.1
        }
    };
    let first = specification("a");
    let second = Specification { priority: 3, ..first.clone() };
    assert_eq!(put(first.clone(), false).await, Loaded::New);
    assert_eq!(put(first.clone(), true).await, Loaded::Unchanged);
    assert_eq!(put(second.clone(), false).await, Loaded::Kept(vec!["priority".to_owned()]));
    assert_eq!(put(second.clone(), true).await, Loaded::Changed);
    let removed = write(&database, |tx| remove_specification(tx, "a", 9)).await;
    assert_eq!(removed, Some(SpecificationId::new(1)));
    assert_eq!(write(&database, |tx| remove_specification(tx, "a", 9)).await, None);
    assert_eq!(write(&database, |tx| want_look(tx, "a", 9)).await, None);
    assert_eq!(put(first, false).await, Loaded::New);
    let wishes = write(&database, |tx| {
        want_look(tx, "a", 9)?;
        want_look(tx, "a", 9)?;
        Ok(specification_by_id(tx, SpecificationId::new(1))?.map(|state| state.look.wanted_at))
    });
    assert_eq!(wishes.await, Some(10), "two wishes in one second are two");
}

#[tokio::test]
async fn evaluations_are_compared_as_plain_queries_would() {
    let directory = tempfile::tempdir().expect("a directory");
    let database = open(directory.path()).await.expect("opens");
    let mut dice = Dice(99);
    let mut rows = String::from(
        "INSERT INTO specification VALUES (1, 's', '{}', 1, 0, 0, '', 0, 0, 0, 0, NULL);
         INSERT INTO evaluation (id, specification_id, stamp, status, message, created_at,
           checkout_at, finished_at, log_path, scheduled, started, succeeded, failed,
           failed_dependency, failed_other, canceled)
         SELECT value, 1, 's' || value, 0, '', 1, 1, 1, '', 0, 0, 0, 0, 0, 0, 0
         FROM json_each('[1, 2]');",
    );
    for id in 1..=120 {
        let status = [-2, 0, 0, 1, 2, 3, 4][dice.roll(7)];
        let at = i64::from(status >= 0);
        rows += &format!(
            "INSERT INTO build VALUES ({id}, 'd{id}', {id}, 1, 1, 'j', 'y', 'n', 0, {status}, -1, 0,
               1, 0, 0, '', 0, 0, 1, {at}, {at}, '', 0, '');"
        );
        // Some jobs share a build, some names stand twice, some are in one evaluation alone.
        for evaluation in 1..=2 {
            if dice.roll(4) > 0 {
                let name = dice.roll(60);
                rows += &format!("INSERT INTO job VALUES ({evaluation}, 'n{name:02}', {id}, 0);");
            }
        }
    }
    database.exclusive(move |conn| conn.execute_batch(&rows)).await.expect("rows");
    let plain = |sql: &str| {
        let connection = file(StateDir::new(directory.path()).database());
        let mut statement = connection.prepare(sql).expect(sql);
        let found = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect(sql);
        found.collect::<rusqlite::Result<Vec<(String, i64)>>>().expect(sql)
    };
    let both =
        "SELECT now.name, now.build_id FROM job AS now JOIN build AS b ON b.id = now.build_id
         JOIN job AS past ON past.evaluation_id = 1 AND past.name = now.name
         JOIN build AS p ON p.id = past.build_id
         WHERE now.evaluation_id = 2 AND b.id <> p.id AND";
    let only = |here, there| {
        format!(
            "SELECT name, build_id FROM job WHERE evaluation_id = {here}
             AND name NOT IN (SELECT name FROM job WHERE evaluation_id = {there}) ORDER BY 1, 2"
        )
    };
    let order = "ORDER BY 1, 2";
    let wanted = [
        plain(&format!("{both} b.status BETWEEN 1 AND 3 AND p.status = 0 {order}")),
        plain(&format!("{both} b.status = 0 AND p.status BETWEEN 1 AND 3 {order}")),
        plain(&only(2, 1)),
        plain(&only(1, 2)),
    ];
    assert!(wanted.iter().all(|jobs| jobs.len() > 3), "{wanted:?}");
    for limit in [0, 1, 3, 1000] {
        let (now, past) = (EvaluationId::new(2), EvaluationId::new(1));
        let found = database.read(move |s| changes(s, now, past, limit)).await.expect("reads");
        let kinds = [JobChange::NewlyFailing, JobChange::Fixed, JobChange::New, JobChange::Gone];
        for (kind, wanted) in kinds.into_iter().zip(&wanted) {
            let of_kind = found.iter().filter(|(.., found)| *found == kind);
            let jobs: Vec<_> =
                of_kind.map(|(name, build, _)| (name.clone(), build.get())).collect();
            assert_eq!(jobs, wanted[..wanted.len().min(limit as usize)], "{kind:?} of {limit}");
        }
    }
    database.close().await.expect("closes");
}

#[tokio::test]
async fn a_sample_builds_derivation_and_output_have_digests_of_their_own() {
    let directory = tempfile::tempdir().expect("a directory");
    make_sample(1000, directory.path(), 1, &|_| ()).expect("the sample");
    let database = open(directory.path()).await.expect("opens");
    let one = database.read(|s| build_details(s, BuildId::new(7))).await;
    let one = one.expect("reads").expect("build 7");
    let digest = |path: &str| path.trim_start_matches("/gnu/store/")[..32].to_owned();
    let derivation = digest(&one.build.derivation);
    assert_ne!(derivation[..16], derivation[16..], "{derivation}");
    assert_ne!(derivation, digest(&one.outputs[0].path));
    database.close().await.expect("closes");
}

/// A file with the sample of all pages.
async fn sample() -> Database {
    let database =
        Database::open(std::path::Path::new(":memory:"), true, std::time::Duration::from_secs(30))
            .await
            .expect("opens");
    let text = format!(
        "{}BEGIN;{}COMMIT;",
        include_str!("../../schema.sql"),
        include_str!("../../tests/data/pages/fill.sql")
    );
    database.exclusive(move |conn| conn.execute_batch(&text)).await.expect("filled");
    database
}

#[tokio::test]
async fn builds_for_several_systems_are_started_by_priority_and_age_over_all_of_them() {
    let database = sample().await;
    let insert = "
        INSERT INTO build SELECT id + n, n || derivation, derivation_key + n, specification_id, evaluation_id, job || n,
          'system' || (n % 3), nix_name, n % 5, -2, -1, 0, 0, 0, 0, '', 0, 0, submitted_at - n / 5, 0, 0, '', 0, ''
          FROM build, (WITH RECURSIVE m (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM m WHERE n < 30) SELECT n FROM m)
          WHERE id = 1015;";
    database.exclusive(move |conn| conn.execute_batch(insert)).await.expect("filled");
    let systems: Vec<String> = (0..3).map(|n| format!("system{n}")).collect();
    let expected: Vec<BuildId> = {
        let by = "SELECT id FROM build WHERE system LIKE 'system_' ORDER BY priority DESC, submitted_at, derivation";
        let ids = move |s: &Snapshot| s.prepare(by)?.query_map([], |row| row.get(0))?.collect();
        database.read(ids).await.expect("reads")
    };
    let seen = systems.clone();
    let queue = database.read(move |s| whole_queue(s, &seen, 200)).await.expect("reads");
    let ready: Vec<BuildId> = queue.ready.iter().map(|pending| pending.build.id).collect();
    assert_eq!(ready, expected, "the page");
    // One that rests is left out, and is not in the way of others.
    let resting = vec![expected[1]];
    let mut started = Vec::new();
    for limit in [1, 4, 100] {
        let (systems, resting) = (systems.clone(), resting.clone());
        let claimed = write(&database, move |tx| {
            let wanted = Claim {
                systems: &systems,
                limit,
                resting: &resting,
                worker: "w",
                now: 1_800_000_000,
            };
            claim(tx, &wanted)
        })
        .await;
        started.extend(claimed.into_iter().map(|claimed| claimed.changed.id));
    }
    let wanted: Vec<BuildId> =
        expected.iter().copied().filter(|id| !resting.contains(id)).collect();
    assert_eq!(started, wanted, "the scheduler");
}

#[tokio::test]
async fn the_queue_says_of_each_build_why_it_waits() {
    let database = sample().await;
    let insert = "
        UPDATE build SET waiting = 2 WHERE id = 1007;
        INSERT INTO dependency VALUES (1007, 1008, 'x');
        INSERT INTO build SELECT 1101, derivation, derivation_key, 1005, 1007, 'twin', system, nix_name, 50, -2, -1, 0, 0,
          0, 0, '', 0, 0, 1, 0, 0, '', 0, '' FROM build WHERE id = 1006;
        INSERT INTO build SELECT 1102, 'x', 1, 1005, 1007, 'elsewhere', 'riscv64-linux', nix_name, 99, -2, -1, 0, 0,
          0, 0, '', 0, 0, 1, 0, 0, '', 0, '' FROM build WHERE id = 1006;
        INSERT INTO build SELECT 1103, 'y', 2, 1005, 1007, 'later', 'riscv64-linux', nix_name, 0, -2, -1, 0, 0,
          0, 1, '', 0, 0, 1, 0, 0, '', 0, '' FROM build WHERE id = 1006;";
    database.exclusive(move |conn| conn.execute_batch(insert)).await.expect("filled");
    let systems = vec!["x86_64-linux".to_owned()];
    let queue = {
        let systems = systems.clone();
        database.read(move |s| whole_queue(s, &systems, 200)).await.expect("reads")
    };
    let ids =
        |builds: &[crate::model::Build]| builds.iter().map(|b| b.id.get()).collect::<Vec<_>>();
    let pending =
        |builds: &[Pending]| builds.iter().map(|it| it.build.id.get()).collect::<Vec<_>>();
    assert_eq!(ids(&queue.running), [1006]);
    assert_eq!(pending(&queue.ready), [1101, 1008]);
    assert_eq!(queue.ready[0].twin, Some(BuildId::new(1006)));
    assert_eq!(pending(&queue.waiting), [1007]);
    let needs: Vec<i64> = queue.waiting[0].needs.iter().map(|(id, _)| id.get()).collect();
    assert_eq!(needs, [1006, 1008]);
    assert_eq!(ids(&queue.foreign), [1102, 1103, 1014]);
    // Cut in this order.
    for limit in 0..8 {
        let systems = systems.clone();
        let cut = database.read(move |s| whole_queue(s, &systems, limit)).await.expect("reads");
        let shown = |queue: &WholeQueue| {
            let mut all = ids(&queue.running);
            all.extend(pending(&queue.ready));
            all.extend(pending(&queue.waiting));
            all.extend(ids(&queue.foreign));
            all
        };
        assert_eq!(shown(&cut), shown(&queue)[..(limit as usize).min(7)], "{limit}");
    }
}
