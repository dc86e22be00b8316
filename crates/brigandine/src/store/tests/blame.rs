//! Since when a job fails, over random histories, against a walk through all evaluations.

use super::*;
use crate::model::Blame;
use crate::store::blame::surroundings;

/// An evaluation of a history: its number, and the build and status of the job; `None`: it does not have the job.
type Past = (i64, Option<(i64, i64)>);

/// A history of the job `it` of the specification 1. Some evaluations lack the job, some have the build of an earlier one,
/// and some are of another specification, which has the job too.
async fn random(database: &Database, dice: &mut Dice, evaluations: i64) -> Vec<Past> {
    let mut rows = String::from(
        "INSERT INTO specification VALUES (1, 's', '{}', 1, 0, 0, '', 0, 0, 0, 0, NULL),
           (2, 't', '{}', 1, 0, 0, '', 0, 0, 0, 0, NULL);",
    );
    let mut history: Vec<Past> = Vec::new();
    let mut build = 0;
    for id in 1..=evaluations {
        let of = if dice.roll(5) == 0 { 2 } else { 1 };
        rows += &format!(
            "INSERT INTO evaluation VALUES ({id}, {of}, 's{id}', 0, '', 1, 1, 1, '', 0, 0, 0, 0, 0, 0, 0);"
        );
        let known: Vec<(i64, i64)> = history.iter().filter_map(|past| past.1).collect();
        let job = match dice.roll(6) {
            0 => None,
            1 if !known.is_empty() => Some(known[dice.roll(known.len())]),
            _ => {
                build += 1;
                // Mostly failures, so that their rows are long.
                let status = [-2, 0, 1, 1, 1, 2, 3, 4][dice.roll(8)];
                let at = i64::from(status >= 0);
                rows += &format!(
                    "INSERT INTO build VALUES ({build}, 'd{build}', {build}, {of}, {id}, 'it', 'y', 'n', 0,
                       {status}, -1, 0, 0, 0, 0, '', 0, 0, 1, {at}, {at}, '', 0, '');"
                );
                Some((build, status))
            }
        };
        if let Some((build, _)) = job {
            rows += &format!(
                "INSERT INTO job VALUES ({id}, 'it', {build}, 0), ({id}, 'other', {build}, 0);"
            );
        }
        if of == 1 {
            history.push((id, job));
        }
    }
    database.exclusive(move |conn| conn.execute_batch(&rows)).await.expect("rows");
    history
}

/// The part of a history that is looked at from an evaluation, before and after it.
fn around(history: &[Past], at: i64, horizon: usize) -> (&[Past], &[Past]) {
    let place = history.iter().position(|past| past.0 == at).expect("it is there");
    let first = place.saturating_sub(horizon);
    let last = (place + 1 + horizon).min(history.len());
    (&history[first..place], &history[place + 1..last])
}

/// Since when the job fails, by the definition: from the success that is nearest before, the first failure.
fn wanted_blame(before: &[Past], at: i64, build: i64) -> Blame {
    let number =
        |(evaluation, build): (i64, i64)| (EvaluationId::new(evaluation), BuildId::new(build));
    let is = |past: &&Past, good: bool| match past.1 {
        Some((_, status)) => {
            if good {
                status == 0
            } else {
                (1..=3).contains(&status)
            }
        }
        None => false,
    };
    let success = before.iter().rposition(|past| is(&past, true));
    let after = success.map_or(before, |success| &before[success + 1..]);
    let failed = after.iter().position(|past| is(&past, false));
    let failure = match failed {
        Some(place) => (after[place].0, after[place].1.expect("a build").0),
        None => (at, build),
    };
    let mut suspects = Vec::new();
    if success.is_some() {
        let until = failed.map_or(after.len(), |place| place + 1);
        suspects.extend(after[..until].iter().map(|past| past.0));
        suspects.extend(failed.is_none().then_some(at));
    }
    suspects.reverse();
    let others = suspects.len().saturating_sub(6);
    suspects.truncate(6);
    Blame {
        success: success
            .map(|place| number((before[place].0, before[place].1.expect("a build").0))),
        failure: number(failure),
        suspects: suspects.into_iter().map(EvaluationId::new).collect(),
        others: i64::try_from(others).expect("few"),
    }
}

/// Compares what is said of every build of a history with a walk through it.
async fn check(database: &Database, history: &[Past], horizon: usize) -> usize {
    let (found, builds) = database
        .read(move |s| {
            let sql = "SELECT id FROM build ORDER BY id";
            let ids: Vec<BuildId> = s
                .prepare_cached(sql)?
                .query_map([], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            let mut all = Vec::new();
            for id in ids {
                let build = build(s, id)?.expect("it is there");
                all.push((surroundings(s, &NOTHING, &build)?, build));
            }
            Ok(all)
        })
        .await
        .expect("reads")
        .into_iter()
        .unzip::<_, _, Vec<_>, Vec<_>>();
    let mut blamed = 0;
    for (found, build) in found.into_iter().zip(builds) {
        if build.specification_id != SpecificationId::new(1) {
            continue;
        }
        let (id, at) = (build.id.get(), build.evaluation.get());
        let (before, after) = around(history, at, horizon);
        let other = |past: &Past| past.1.map(|job| job.0).filter(|other| *other != id);
        let previous = before.iter().rev().find_map(other).map(BuildId::new);
        assert_eq!(found.previous, previous, "build {id}");
        assert_eq!(found.next, after.iter().find_map(other).map(BuildId::new), "build {id}");
        match found.blame {
            Some(blame) => {
                assert!(build.status.is_broken());
                assert_eq!(blame, wanted_blame(before, at, id), "build {id}");
                blamed += usize::from(blame.success.is_some() && blame.suspects.len() > 1);
            }
            None => assert!(!build.status.is_broken()),
        }
    }
    blamed
}

#[tokio::test]
async fn blame_over_random_histories_is_as_a_walk_through_them_says() {
    let mut blamed = 0;
    for seed in 0..12 {
        let database = with_rows("").await;
        let history = random(&database, &mut Dice(seed), 60).await;
        blamed += check(&database, &history, 500).await;
        database.close().await.expect("closes");
    }
    assert!(blamed > 30, "{blamed}");
}

#[tokio::test]
async fn no_more_than_the_horizon_is_looked_at() {
    let database = with_rows("").await;
    let history = random(&database, &mut Dice(3), 1300).await;
    check(&database, &history, 500).await;
    database.close().await.expect("closes");
}

#[tokio::test]
async fn the_evaluations_of_a_build_are_named_once_each_the_latest_first() {
    let database = with_rows("").await;
    random(&database, &mut Dice(5), 80).await;
    let all = database
        .read(move |s| {
            let sql =
                "SELECT build_id, evaluation_id FROM job WHERE name = 'it' ORDER BY 1, 2 DESC";
            let rows: Vec<(BuildId, EvaluationId)> = s
                .prepare_cached(sql)?
                .query_map([], |row| row.try_into())?
                .collect::<Result<_, _>>()?;
            let mut all = Vec::new();
            for id in rows.iter().map(|row| row.0).collect::<BTreeSet<_>>() {
                let wanted = rows.iter().filter(|row| row.0 == id).map(|row| row.1);
                let build = build(s, id)?.expect("it is there");
                all.push((surroundings(s, &NOTHING, &build)?, wanted.collect::<Vec<_>>()));
            }
            Ok(all)
        })
        .await
        .expect("reads");
    for (found, mut wanted) in all {
        let others = wanted.len().saturating_sub(6);
        wanted.truncate(6);
        assert_eq!(
            (found.evaluations, found.others),
            (wanted, i64::try_from(others).expect("few"))
        );
    }
    database.close().await.expect("closes");
}
