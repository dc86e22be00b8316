//! Comparisons of evaluations over random histories, against what the definitions of the changes say, word by word.

use super::*;
use crate::model::{ComparedJob, JobChange};

/// A job of an evaluation: its name, its build, and the status of the build.
type Job = (String, i64, i64);

const EVALUATIONS: i64 = 5;

/// A specification with evaluations whose jobs share builds; some names are in some evaluations only, and some occur
/// twice in one. The second evaluation is as large as the others together.
async fn random(database: &Database, dice: &mut Dice) {
    let mut rows = format!(
        "INSERT INTO specification VALUES (1, 's', '{{}}', 1, 0, 0, '', 0, 0, 0, 0, NULL);
         INSERT INTO evaluation (id, specification_id, stamp, status, message, created_at,
           checkout_at, finished_at, log_path, scheduled, started, succeeded, failed,
           failed_dependency, failed_other, canceled)
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {EVALUATIONS})
         SELECT i, 1, 's' || i, 0, '', 1, 1, 1, '', 0, 0, 0, 0, 0, 0, 0 FROM n;
         INSERT INTO checkout SELECT id, 0, 'i', substr('abcd' || id || 'ef0123456789', 1, 12), '', '', 0
         FROM evaluation;"
    );
    for id in 1..=150 {
        let status = [-2, -1, 0, 0, 0, 1, 2, 3, 4][dice.roll(9)];
        let (started, at) = (i64::from(status > -2), i64::from(status >= 0));
        rows += &format!(
            "INSERT INTO build VALUES ({id}, 'd{id}', {id}, 1, 1, 'j', 'y', 'n', 0, {status}, -1, 0,
               {started}, 0, 0, '', 0, 0, 1, {at}, {at}, '', 0, '');"
        );
        let name = dice.roll(70);
        for evaluation in 1..=EVALUATIONS {
            let sides = if evaluation == 2 { 1 } else { 3 };
            if dice.roll(sides) == 0 {
                // Some builds have another name in another evaluation.
                let name = if dice.roll(9) == 0 { dice.roll(70) } else { name };
                rows += &format!(
                    "INSERT OR IGNORE INTO job VALUES ({evaluation}, 'Jöb-{name:02}', {id}, 0);"
                );
            }
        }
    }
    database.exclusive(move |conn| conn.execute_batch(&rows)).await.expect("rows");
}

/// The jobs of an evaluation, in the order of names and builds.
fn jobs(connection: &Connection, evaluation: i64) -> Vec<Job> {
    let sql =
        "SELECT j.name, j.build_id, b.status FROM job AS j JOIN build AS b ON b.id = j.build_id
         WHERE j.evaluation_id = ?1 ORDER BY 1, 2";
    let mut statement = connection.prepare(sql).expect("a plain query");
    let rows = statement
        .query_map([evaluation], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .expect("rows");
    rows.map(|row| row.expect("a row")).collect()
}

fn is_broken(status: i64) -> bool {
    (1..=3).contains(&status)
}

/// Whether a job failed in an evaluation: its build did, if that evaluation has the build under this name; otherwise any
/// build of this name.
fn failed(job: &Job, evaluation: &[Job]) -> bool {
    let named: Vec<&Job> = evaluation.iter().filter(|other| other.0 == job.0).collect();
    match named.iter().find(|other| other.1 == job.1) {
        Some(same) => is_broken(same.2),
        None => named.iter().any(|other| is_broken(other.2)),
    }
}

/// The jobs that differ in a way, as its definition says.
fn differing(change: JobChange, now: &[Job], past: &[Job]) -> Vec<(String, i64)> {
    let has = |jobs: &[Job], name: &str| jobs.iter().any(|other| other.0 == name);
    let (from, other) = if change == JobChange::Removed { (past, now) } else { (now, past) };
    let fits = |job: &&Job| match change {
        JobChange::NewlyFailing => is_broken(job.2) && !failed(job, past),
        JobChange::StillFailing => is_broken(job.2) && failed(job, past),
        JobChange::Fixed => job.2 == 0 && failed(job, past),
        JobChange::New | JobChange::Removed => !has(other, &job.0),
        JobChange::Canceled => job.2 == 4,
    };
    from.iter().filter(fits).map(|(name, build, _)| (name.clone(), *build)).collect()
}

fn names(list: &ComparedList) -> Vec<(String, i64)> {
    list.jobs.iter().map(|job| (job.name.clone(), job.build.get())).collect()
}

/// Checks what is said of one job.
fn check(job: &ComparedJob, change: JobChange, now: &[Job], past: &[Job]) {
    let is = |jobs: &[Job], build: BuildId, status: BuildStatus| {
        jobs.contains(&(job.name.clone(), build.get(), status.code()))
    };
    assert_eq!(job.removed, change == JobChange::Removed, "{job:?}");
    assert!(is(if job.removed { past } else { now }, job.build, job.status), "{job:?}");
    if let Some((build, status)) = job.before {
        assert!(!job.removed && is(past, build, status), "{job:?}");
    }
}

/// Checks the part of a list behind or in front of a border.
fn check_part(list: &ComparedList, all: &[(String, i64)], filter: &ComparisonFilter, limit: usize) {
    let border = filter.after.as_ref().or(filter.before.as_ref());
    let (name, build) = border.map(|(name, build)| (name.clone(), build.get())).expect("a border");
    let place = |job: &&(String, i64)| job.cmp(&&(name.clone(), build));
    if filter.after.is_some() {
        let behind: Vec<_> = all.iter().filter(|job| place(job).is_gt()).cloned().collect();
        assert_eq!(names(list), behind[..behind.len().min(limit)]);
        assert_eq!(list.has_before, behind.len() < all.len());
        assert_eq!(list.has_after, behind.len() > limit);
    } else {
        let front: Vec<_> = all.iter().filter(|job| place(job).is_lt()).cloned().collect();
        assert_eq!(names(list), front[front.len().saturating_sub(limit)..]);
        assert_eq!(list.has_before, front.len() > limit);
        assert_eq!(list.has_after, front.len() < all.len());
    }
}

/// Compares two evaluations, with random filters.
async fn check_pair(
    database: &Database,
    dice: &mut Dice,
    (id, now): (i64, &[Job]),
    (other, past): (i64, &[Job]),
) {
    let compared = |filter: ComparisonFilter| {
        let (id, other) = (EvaluationId::new(id), EvaluationId::new(other));
        database.read(move |s| compare(s, id, other, &filter))
    };
    let all = ComparisonFilter { limits: [1000; 6], ..ComparisonFilter::default() };
    let mut whole = compared(all.clone()).await.expect("reads");
    for change in JobChange::ALL {
        let wanted = differing(change, now, past);
        let list = whole.take(change);
        assert_eq!(names(&list), wanted, "{} of {id} and {other}", change.as_str());
        assert_eq!(whole.count(change), i64::try_from(wanted.len()).expect("few"));
        assert!(!list.has_before && !list.has_after);
        list.jobs.iter().for_each(|job| check(job, change, now, past));
        // A border in the list, or anywhere.
        let name = format!("Jöb-{:02}", dice.roll(70));
        let border = match wanted.get(dice.roll(wanted.len().max(1) * 2)) {
            Some((name, build)) => (name.clone(), BuildId::new(*build)),
            None => (name, BuildId::new([i64::MIN, 75, i64::MAX][dice.roll(3)])),
        };
        let limit = dice.roll(5);
        let few = ComparisonFilter::one(change, u32::try_from(limit).expect("few"));
        for filter in [
            ComparisonFilter { after: Some(border.clone()), ..few.clone() },
            ComparisonFilter { before: Some(border), ..few },
        ] {
            let mut part = compared(filter.clone()).await.expect("reads");
            assert_eq!(part.counts, whole.counts);
            check_part(&part.take(change), &wanted, &filter, limit);
            assert_eq!(part.lists.iter().map(|list| list.jobs.len()).sum::<usize>(), 0);
        }
        let text = ComparisonFilter { text: "ÖB-3".to_owned(), ..all.clone() };
        let named: Vec<_> =
            wanted.into_iter().filter(|(name, _)| name.starts_with("Jöb-3")).collect();
        assert_eq!(names(&compared(text).await.expect("reads").take(change)), named);
    }
}

#[tokio::test]
async fn comparisons_of_random_evaluations_are_as_the_definitions_say() {
    let mut seen = [0; 6];
    for seed in 0..4 {
        let directory = tempfile::tempdir().expect("a directory");
        let database = open(directory.path()).await.expect("opens");
        let mut dice = Dice(seed);
        random(&database, &mut dice).await;
        let connection = files::file(StateDir::new(directory.path()).database());
        let all: Vec<_> = (1..=EVALUATIONS).map(|id| (id, jobs(&connection, id))).collect();
        for (id, now) in &all {
            assert!(now.len() > 20, "{}", now.len());
            for (other, past) in &all {
                check_pair(&database, &mut dice, (*id, now), (*other, past)).await;
            }
        }
        drop(connection);
        let (first, second) = (EvaluationId::new(1), EvaluationId::new(2));
        let none = ComparisonFilter::default();
        let some = database.read(move |s| compare(s, first, second, &none)).await.expect("reads");
        for (seen, count) in seen.iter_mut().zip(some.counts) {
            *seen += count;
        }
        database.close().await.expect("closes");
    }
    // The random histories have every change.
    let [newly, still, fixed, _, removed, canceled] = seen;
    assert!([newly, still, fixed, removed, canceled].iter().all(|count| *count > 3), "{seen:?}");
}

#[tokio::test]
async fn an_evaluation_to_compare_with_is_named_by_number_or_by_the_beginning_of_a_revision() {
    let directory = tempfile::tempdir().expect("a directory");
    let database = open(directory.path()).await.expect("opens");
    random(&database, &mut Dice(1)).await;
    let other = "INSERT INTO specification VALUES (2, 't', '{}', 1, 0, 0, '', 0, 0, 0, 0, NULL);
         INSERT INTO evaluation SELECT 9, 2, 'x', 0, '', 1, 1, 1, '', 0, 0, 0, 0, 0, 0, 0;
         INSERT INTO checkout VALUES (9, 0, 'i', 'abcd9ef01234', '', '', 0)";
    database.exclusive(move |conn| conn.execute_batch(other)).await.expect("rows");
    for (text, wanted) in [
        ("1", Some(1)),
        (" #4 ", Some(4)),
        ("9", Some(9)),
        // The latest that is not the evaluation itself.
        ("abcd", Some(4)),
        ("ABCD2E", Some(2)),
        ("abcd2ef01234", Some(2)),
        ("abcd2ef012345", None),
        // Of another specification, too short, too long, no revision.
        ("abcd9e", None),
        ("abc", None),
        ("", None),
        ("#", None),
        ("6", None),
        ("-1", None),
        ("wxyz", None),
        ("abcd%", None),
        ("99999999999999999999", None),
    ] {
        let found = database.read(move |s| {
            let of = evaluation(s, EvaluationId::new(5))?.expect("the fifth");
            other_evaluation(s, &of, text)
        });
        let found = found.await.expect("reads").map(|found| found.id.get());
        assert_eq!(found, wanted, "{text:?}");
    }
    database.close().await.expect("closes");
}
