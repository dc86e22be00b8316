//! Retention over random databases, and the size of its slices.

use super::*;
use crate::model::{Actor, Asked, History, Specified, Specify};
use crate::os::state_dir::StateDir;
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// A small pseudo-random generator, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("small") % sides
    }
}

struct Place {
    directory: tempfile::TempDir,
    database: Database,
    outputs: Arc<Outputs>,
}

impl Place {
    async fn new(rows: String) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let database = store::open(directory.path()).await.expect("opens");
        let outputs = Outputs::new(directory.path().join("outputs"), 0).expect("outputs");
        let filled = database.exclusive(move |conn| conn.execute_batch(&rows));
        filled.await.expect("rows");
        Self { directory, database, outputs: Arc::new(outputs) }
    }

    fn retention(&self, keep: Keep) -> Retention {
        Retention::new(
            &self.database,
            Arc::clone(&self.outputs),
            Logs::new(self.directory.path(), 0),
            keep,
            broadcast::Sender::new(4),
        )
    }

    async fn prune(&self, keep: Keep) -> Pruned {
        let (_sender, stop) = watch::channel(false);
        self.retention(keep).run(&stop).await.expect("prunes")
    }

    fn rows(&self, sql: &str) -> Vec<String> {
        let path = StateDir::new(self.directory.path()).database();
        let connection =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("opens");
        let mut statement = connection.prepare(sql).expect(sql);
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            let values = (0..columns).map(|at| row.get::<_, rusqlite::types::Value>(at));
            let values: rusqlite::Result<Vec<_>> = values.collect();
            Ok(values?.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().join("|"))
        });
        rows.expect(sql).map(|row| row.expect(sql)).collect()
    }

    fn check(&self) {
        assert_eq!(self.rows("PRAGMA foreign_key_check"), [""; 0]);
        assert_eq!(self.rows("PRAGMA integrity_check"), ["Text(\"ok\")"]);
        let counted = "SELECT e.id FROM evaluation AS e WHERE
             (scheduled, started, succeeded, failed, failed_dependency, failed_other, canceled) IS NOT
             (SELECT ifnull(sum(b.status = -2), 0), ifnull(sum(b.status = -1), 0),
                ifnull(sum(b.status = 0), 0), ifnull(sum(b.status = 1), 0),
                ifnull(sum(b.status = 2), 0), ifnull(sum(b.status = 3), 0),
                ifnull(sum(b.status = 4), 0)
              FROM job AS j JOIN build AS b ON b.id = j.build_id WHERE j.evaluation_id = e.id)";
        assert_eq!(self.rows(counted), [""; 0], "evaluations whose counters are wrong");
        let counts =
            "SELECT 1 FROM build_count AS c WHERE builds <> (SELECT count(*) FROM build AS b
             WHERE b.status = c.status AND b.specification_id = c.specification_id
             AND b.system = c.system)";
        assert_eq!(self.rows(counts), [""; 0], "counts of builds that are wrong");
        let places = "SELECT b.id FROM build AS b JOIN evaluation AS e ON e.id = b.evaluation_id
             WHERE b.specification_id <> e.specification_id";
        assert_eq!(self.rows(places), [""; 0], "builds of two specifications");
    }
}

/// Three specifications, whose evaluations share builds, within and between specifications. Builds have needs,
/// attempts, outputs and products; some are pending.
#[expect(clippy::too_many_lines, reason = "the rows of each table in turn")]
fn drawn(dice: &mut Dice) -> String {
    let mut sql = String::from("BEGIN;");
    for id in 1..=3 {
        let _ = write!(
            sql,
            "INSERT INTO specification VALUES ({id}, 's{id}', '{{\"name\":\"s{id}\",\"inputs\":[],
               \"evaluator\":{{\"kind\":\"jobs\",\"file\":\"f\"}}}}', 1, 0, 0, '', 0, 0, 0, 0, NULL);"
        );
    }
    let mut known: Vec<usize> = Vec::new();
    for evaluation in 1..=30_usize {
        let status = [0, 0, 0, 1, 2][dice.roll(5)];
        let _ = write!(
            sql,
            "INSERT INTO evaluation VALUES ({evaluation}, {}, 't{evaluation}', {status}, '',
               {evaluation}, 1, 1, '', 0, 0, 0, 0, 0, 0, 0);
             INSERT INTO checkout VALUES ({evaluation}, 0, 'i', 'r', '', '', 0);",
            dice.roll(3) + 1
        );
        let mut mine = BTreeSet::new();
        for _ in 0..if status == 0 { dice.roll(12) } else { 0 } {
            if !known.is_empty() && dice.roll(5) > 2 {
                mine.insert(known[known.len() - 1 - dice.roll(known.len().min(20))]);
                continue;
            }
            let build = known.len() + 1;
            let status =
                [0, 0, 0, 0, 1, 2, 3, 4, -2][dice.roll(if evaluation > 26 { 9 } else { 8 })];
            let stopped = i64::from(status >= 0);
            let _ = write!(
                sql,
                "INSERT INTO build SELECT {build}, 'd{build}', {build}, specification_id, id, 'j',
                   'y{}', 'n', 0, {status}, -1, 0, 1, 0, 0, '', 0, 0, 1, 1, {stopped}, '', 0, ''
                   FROM evaluation WHERE id = {evaluation};
                 INSERT INTO definition VALUES ({build}, '{{}}');
                 INSERT INTO attempt VALUES ({build}, 1, 'w', {status}, '', 1, {stopped});
                 INSERT INTO output VALUES ({build}, 'out', 'outputs/{:04x}');",
                dice.roll(2),
                dice.roll(40)
            );
            if dice.roll(3) == 0 {
                let _ = write!(
                    sql,
                    "INSERT INTO product (build_id, kind, name, path, bytes, checksum)
                       VALUES ({build}, 'file', 'n', 'p', 1, '');"
                );
            }
            // A need is a known build: one of this evaluation, or of another one, although no real evaluator prints
            // such a need.
            for _ in 0..dice.roll(3) {
                if let Some(need) = known.get(dice.roll(known.len().max(1))) {
                    let _ = write!(
                        sql,
                        "INSERT OR IGNORE INTO dependency VALUES ({build}, {need}, 'n');"
                    );
                }
            }
            known.push(build);
            mine.insert(build);
        }
        for build in mine {
            let _ = write!(sql, "INSERT INTO job VALUES ({evaluation}, 'j{build}', {build}, 0);");
        }
    }
    sql.push_str(
        "UPDATE evaluation SET (scheduled, started, succeeded, failed, failed_dependency,
           failed_other, canceled) =
         (SELECT ifnull(sum(b.status = -2), 0), 0, ifnull(sum(b.status = 0), 0),
            ifnull(sum(b.status = 1), 0), ifnull(sum(b.status = 2), 0),
            ifnull(sum(b.status = 3), 0), ifnull(sum(b.status = 4), 0)
          FROM job AS j JOIN build AS b ON b.id = j.build_id WHERE j.evaluation_id = evaluation.id);
         COMMIT;",
    );
    sql
}

#[tokio::test]
async fn what_need_not_be_kept_goes_and_the_rest_stays_as_it_was() {
    let (mut evaluations, mut builds) = (0, 0);
    for seed in 0..20 {
        let mut dice = Dice(seed);
        let place = Place::new(drawn(&mut dice)).await;
        place.check();
        let newest = dice.roll(4) + 1;
        let keep = Keep { evaluations: u32::try_from(newest).ok(), days: None };
        let table = |name: &str, of: &str, kept: &BTreeSet<String>| {
            let rows = place.rows(&format!("SELECT {of}, * FROM {name} ORDER BY 1, 2, 3, 4"));
            let of = |row: &String| row.split('|').next().is_some_and(|id| kept.contains(id));
            rows.into_iter().filter(of).collect::<Vec<_>>()
        };
        // The expected evaluations, computed from the rules in another way than the program does.
        let kept: BTreeSet<String> = place
            .rows(&format!(
                "SELECT id FROM evaluation AS e WHERE scheduled + started > 0
                 OR (SELECT count(*) FROM evaluation AS n
                     WHERE n.specification_id = e.specification_id AND n.id > e.id) < {newest}
                 OR id = (SELECT max(id) FROM evaluation AS n
                          WHERE n.specification_id = e.specification_id AND n.status = 0)
                 OR id IN (SELECT max(evaluation_id) FROM job
                           WHERE build_id = (SELECT max(id) FROM build))
                 OR id IN (SELECT max(evaluation_id) FROM job WHERE build_id =
                           (SELECT build_id FROM product ORDER BY id DESC LIMIT 1))"
            ))
            .into_iter()
            .collect();
        let before = ["job", "checkout"].map(|name| table(name, "evaluation_id", &kept));
        let all = place.rows("SELECT id FROM build").len();
        let due = place.database.read(move |s| store::due(s, keep, 1000)).await.expect("reads");
        let pruned = place.prune(keep).await;
        place.check();
        let found: BTreeSet<String> = place.rows("SELECT id FROM evaluation").into_iter().collect();
        assert_eq!(found, kept, "seed {seed}");
        let promised: usize = due.iter().map(|due| due.evaluations.len()).sum();
        assert_eq!(pruned.evaluations, promised, "seed {seed}: as the dry run said");
        let after = ["job", "checkout"].map(|name| table(name, "evaluation_id", &kept));
        assert_eq!(after, before, "seed {seed}");
        // Each build that has no job is needed by another build. No build that a job or a need names was deleted.
        let idle = "SELECT id FROM build AS b
             WHERE NOT EXISTS (SELECT 1 FROM job WHERE build_id = b.id)
             AND NOT EXISTS (SELECT 1 FROM dependency WHERE needs_id = b.id)";
        assert_eq!(place.rows(idle), [""; 0], "seed {seed}: builds that nobody wants");
        assert_eq!(place.rows("SELECT path FROM leftover"), [""; 0], "seed {seed}");
        assert_eq!(pruned.builds, all - place.rows("SELECT id FROM build").len(), "seed {seed}");
        assert_eq!(place.prune(keep).await.evaluations, 0, "nothing is left to do");
        evaluations += pruned.evaluations;
        builds += pruned.builds;
        place.database.close().await.expect("closes");
    }
    assert!(evaluations > 200 && builds > 300, "{evaluations} evaluations, {builds} builds");
}

#[tokio::test]
async fn a_specification_that_is_removed_with_its_history_leaves_only_what_is_kept_or_needed() {
    let mut gone = 0;
    for seed in 0..10 {
        let place = Place::new(drawn(&mut Dice(seed))).await;
        let prepare = "INSERT INTO kept_evaluation (evaluation_id)
               SELECT min(id) FROM evaluation WHERE specification_id = 1;
             UPDATE specification SET evaluation_id =
               (SELECT max(id) FROM evaluation WHERE specification_id = 1) WHERE id = 1;";
        let prepared = place.database.exclusive(move |conn| conn.execute_batch(prepare));
        prepared.await.expect("prepared");
        // The expected evaluations, computed from the rules in another way than the program does.
        let kept = place.rows(
            "SELECT id FROM evaluation WHERE specification_id <> 1 OR scheduled + started > 0
             OR id IN (SELECT evaluation_id FROM kept_evaluation)
             OR id IN (SELECT max(evaluation_id) FROM job
                       WHERE build_id = (SELECT max(id) FROM build))
             OR id IN (SELECT max(evaluation_id) FROM job WHERE build_id =
                       (SELECT build_id FROM product ORDER BY id DESC LIMIT 1))
             ORDER BY id",
        );
        let everything = Keep { evaluations: None, days: None };
        assert_eq!(place.prune(everything).await.evaluations, 0);
        let remove = Specify::Remove { names: vec!["s1".to_owned()], history: History::Deleted };
        let asked = Asked::new(Actor::token(), 1000, "");
        let removed = place.database.write(move |tx| store::specify(tx, &remove, &asked)).await;
        assert_eq!(removed.expect("removed"), Specified::Removed(vec!["s1".to_owned()]));
        gone += place.prune(everything).await.evaluations;
        place.check();
        assert_eq!(place.rows("SELECT id FROM evaluation ORDER BY id"), kept, "seed {seed}");
        place.database.close().await.expect("closes");
    }
    assert!(gone > 50, "{gone} evaluations");
}

#[tokio::test]
async fn no_slice_asks_for_more_rows_than_it_may_and_any_number_of_slices_ends() {
    // One build with more rows than a slice may delete, and many small ones.
    let mut sql = drawn(&mut Dice(7));
    sql.push_str(
        "INSERT INTO evaluation VALUES (900, 1, 'a', 0, '', 1, 1, 1, '', 0, 0, 301, 0, 0, 0, 0),
           (901, 1, 'b', 0, '', 1, 1, 1, '', 0, 0, 1, 0, 0, 0, 0);
         WITH RECURSIVE n (i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < 1301)
         INSERT INTO build SELECT i, 'd' || i, i, 1, iif(i = 1301, 901, 900), 'j', 'y', 'n', 0, 0, -1, 0,
           1, 0, 0, '', 0, 0, 1, 1, 1, '', 0, '' FROM n;
         INSERT INTO job SELECT evaluation_id, 'j' || id, id, 0 FROM build WHERE id >= 1000;
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
         INSERT INTO product SELECT 5000 + i, 1300, 'file', 'n', 'p', 1, '' FROM n;
         INSERT INTO product VALUES (9999, 1301, 'file', 'n', 'p', 1, '');
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
         INSERT INTO output SELECT 1300, 'o' || i, 'outputs/' || i FROM n;
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
         INSERT INTO attempt SELECT 1300, i, 'w', 0, '', 1, 1 FROM n;
         INSERT INTO dependency SELECT 1300, id, 'n' FROM build WHERE id BETWEEN 1000 AND 1299;",
    );
    let place = Place::new(sql).await;
    place.check();
    const ROWS: usize = 40;
    let id = EvaluationId::new(900);
    assert!(place.database.write(move |tx| store::mark(tx, id)).await.expect("marked"));
    let mut builds: Vec<BuildId> = (1000..=1300).map(BuildId::new).rev().collect();
    let (mut slices, mut most) = (0, 0);
    while !builds.is_empty() {
        let list = builds.clone();
        let (slice, changed) = place
            .database
            .write(move |tx| {
                let changes = || tx.query_row("SELECT total_changes()", [], |row| row.get(0));
                let before: i64 = changes()?;
                let budget = Budget::new(ROWS, Duration::from_secs(60));
                let slice = store::prune_builds(tx, id, &list, budget)?;
                Ok((slice, changes()? - before))
            })
            .await
            .expect("a slice");
        let slice = slice.expect("it may go");
        builds.drain(..slice.settled);
        (slices, most) = (slices + 1, most.max(changed));
        place.check();
        assert!(slices < 200, "no slice may do nothing: {} builds are left", builds.len());
    }
    // For each deleted row, the slice may also note a file or change a count. The last change is that of the counters.
    assert!(most <= 2 * ROWS as i64 + 1, "a slice changed {most} rows");
    assert!(slices > 1200 / ROWS, "{slices} slices");
    assert_eq!(place.rows("SELECT count(*) FROM leftover"), ["Integer(600)"]);
    place.database.close().await.expect("closes");
}

#[tokio::test]
async fn an_output_goes_when_no_build_and_no_result_on_its_way_has_it() {
    let digest = "ab".repeat(32);
    let other = "cd".repeat(32);
    let place = Place::new(format!(
        "INSERT INTO leftover VALUES ('outputs/{digest}'), ('outputs/{other}'), ('outputs/../x');"
    ))
    .await;
    let folder = |digest: &str| place.directory.path().join("outputs").join(digest);
    let keep = Keep::default();
    for digest in [&digest, &other] {
        std::fs::create_dir(folder(digest)).expect("a folder");
        std::fs::write(folder(digest).join("it"), "it").expect("a file");
    }
    std::fs::create_dir(place.directory.path().join("x")).expect("a folder");
    let hold = place.outputs.hold_for_tests(&digest);
    assert_eq!(place.prune(keep).await.files, 2, "those that nobody holds");
    assert!(folder(&digest).exists() && !folder(&other).exists());
    drop(hold);
    assert_eq!(place.prune(keep).await.files, 1);
    assert!(!folder(&digest).exists());
    assert!(place.directory.path().join("x").exists(), "no digest, so no output");
    // A hold waits for the end of the removal.
    let removal = place.outputs.begin_removal(&digest).expect("at rest");
    assert!(place.outputs.begin_removal(&digest).is_none(), "by one at a time");
    let (outputs, wanted) = (Arc::clone(&place.outputs), digest.clone());
    let (sender, said) = std::sync::mpsc::sync_channel(2);
    let removed = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = Arc::clone(&removed);
    let waits = tokio::task::spawn_blocking(move || {
        sender.send(()).expect("heard");
        let hold = outputs.hold_for_tests(&wanted);
        assert!(seen.load(std::sync::atomic::Ordering::SeqCst), "it did not wait");
        drop(hold);
    });
    said.recv_timeout(Duration::from_secs(60)).expect("it is about to wait");
    removed.store(true, std::sync::atomic::Ordering::SeqCst);
    removal.finish().expect("gone already");
    waits.await.expect("ends");
    place.database.close().await.expect("closes");
}
