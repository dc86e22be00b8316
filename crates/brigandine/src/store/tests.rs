//! Tests of the store against `schema.sql`, its indexes, and the pure state machine.

mod blame;
mod comparison;
mod files;
mod grid;
mod histories;
mod job;
mod machine;
mod requests;
mod search;
mod upgrades;
mod why;

use super::builds::claim_for;
use super::hidden::NOTHING;
use super::specifications::remove_specification;
use super::*;
use crate::build::state::{Happening, LOSSES_MAX, State};
use crate::model::{
    BuildId, BuildLogFile, BuildStatus, EvaluationId, Evaluator, Input, Loaded, Reference,
    Specification, SpecificationId,
};
use crate::os::state_dir::StateDir;
use rusqlite::Connection;
use std::collections::BTreeSet;

/// A small pseudo-random generator that gives the same numbers in every run.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % sides
    }
}

fn specification(name: &str) -> Specification {
    Specification {
        name: name.to_owned(),
        project: "main".to_owned(),
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
        supersede: crate::model::Supersede::default(),
        network: false,
        private: false,
        enabled: true,
    }
}

async fn write<T: Send + 'static>(
    database: &Database,
    f: impl FnMut(&Transaction) -> rusqlite::Result<T> + Send + 'static,
) -> T {
    database.write(f).await.expect("the write succeeds")
}

/// A database in memory, with the statements `rows` carried out.
async fn with_rows(rows: &str) -> Database {
    let database =
        Database::open(std::path::Path::new(":memory:"), true, std::time::Duration::from_secs(30))
            .await
            .expect("opens");
    let text = format!("{}{rows}", include_str!("../../schema.sql"));
    database.exclusive(move |conn| conn.execute_batch(&text)).await.expect("rows");
    database
}

#[tokio::test]
async fn a_specification_is_replaced_only_when_asked_and_comes_back_with_its_past() {
    let database = with_rows("").await;
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

/// A database with the sample that the tests of the pages use.
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
    let queue = database.read(move |s| whole_queue(s, &seen, &NOTHING, 200)).await.expect("reads");
    let ready: Vec<BuildId> = queue.ready.iter().map(|pending| pending.build.id).collect();
    assert_eq!(ready, expected, "the page");
    // A resting build is not started, and does not count towards the limit.
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
            claim(tx, &wanted).map(|(claimed, _)| claimed)
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
        database.read(move |s| whole_queue(s, &systems, &NOTHING, 200)).await.expect("reads")
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
    // The limit cuts the queue in this order.
    for limit in 0..8 {
        let systems = systems.clone();
        let cut =
            database.read(move |s| whole_queue(s, &systems, &NOTHING, limit)).await.expect("reads");
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

#[tokio::test]
async fn a_build_that_the_database_refuses_to_reschedule_keeps_no_server_from_starting() {
    let other = BuildId::new(1008);
    let id = BuildId::new(1006);
    let no_change = "CREATE TRIGGER refuse BEFORE UPDATE ON build WHEN old.id = 1006
         BEGIN SELECT RAISE(ABORT, 'refused'); END";
    // Whether the build has a definition, and how it is afterwards.
    for (trouble, is_known, expected) in [
        ("", true, BuildStatus::Scheduled),
        (
            "CREATE TRIGGER refuse BEFORE UPDATE ON build WHEN old.id = 1006 AND new.status = -2
             BEGIN SELECT RAISE(ABORT, 'refused'); END",
            true,
            BuildStatus::FailedOther,
        ),
        (no_change, true, BuildStatus::Started),
        (no_change, false, BuildStatus::Started),
    ] {
        let database = sample().await;
        let text = format!(
            "INSERT INTO definition (build_id, text) VALUES (1007, '{{}}'), (1008, '{{}}');
             INSERT INTO definition (build_id, text) SELECT 1006, '{{}}' WHERE {is_known};
             {trouble}"
        );
        database.exclusive(move |conn| conn.execute_batch(&text)).await.expect("made");
        let begun = write(&database, |tx| note_start(tx, "x")).await;
        let started = write(&database, move |tx| start(tx, other, "w", 1_800_000_000)).await;
        assert!(started.is_some());
        // What is still started is recovered, whatever the last server says of its end.
        write(&database, note_stop).await;
        let again = write(&database, |tx| note_start(tx, "x")).await;
        assert_eq!(again, server::Started { killed: true, ..begun });
        let recovered = write(&database, |tx| recover(tx, 1_800_000_001)).await;
        let refused: Vec<BuildId> = recovered.refused.iter().map(|(id, _)| *id).collect();
        assert_eq!(refused, if trouble.is_empty() { vec![] } else { vec![id] });
        assert_eq!(recovered.gone, 0, "{trouble} {is_known}");
        let both = database.read(move |s| Ok((build(s, id)?, build(s, other)?)));
        let (bad, good) = both.await.expect("reads");
        assert_eq!(bad.expect("there").status, expected, "{trouble}");
        assert_eq!(good.expect("there").status, BuildStatus::Scheduled, "{trouble}");
        write(&database, note_stop).await;
        let last = write(&database, |tx| note_start(tx, "x")).await;
        assert_eq!(last.killed, expected == BuildStatus::Started, "{trouble}");
    }
}

#[tokio::test]
async fn a_build_that_the_database_refuses_to_cancel_is_not_counted_as_canceled() {
    let database = sample().await;
    let text = "INSERT INTO definition (build_id, text) VALUES (1006, '{}'), (1008, '{}');
         CREATE TRIGGER refuse BEFORE UPDATE ON build WHEN old.id = 1007
         BEGIN SELECT RAISE(ABORT, 'refused'); END";
    database.exclusive(move |conn| conn.execute_batch(text)).await.expect("made");
    let recovered = write(&database, |tx| recover(tx, 1_800_000_001)).await;
    let refused: Vec<i64> = recovered.refused.iter().map(|(id, _)| id.get()).collect();
    assert_eq!((recovered.gone, refused), (0, vec![1007]));
}
