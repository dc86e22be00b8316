//! The history of a job and its rates over random histories, against a walk through all rows.

use super::*;
use crate::model::JobRates;
use std::collections::BTreeMap;

/// More than are looked at for the rates.
const EVALUATIONS: i64 = 180;

/// A specification beside another one; builds of few derivations with several attempts; evaluations that lack the job,
/// have a known build, or, as imported ones may, several builds of the name.
fn random(dice: &mut Dice) -> String {
    let mut rows = String::from(
        "INSERT INTO specification VALUES (1, 's', '{}', 1, 0, 0, '', 0, 0, 0, 0, NULL),
           (2, 't', '{}', 1, 0, 0, '', 0, 0, 0, 0, NULL);",
    );
    let mut build = 0;
    for id in 1..=EVALUATIONS {
        let of = if dice.roll(4) == 0 { 2 } else { 1 };
        rows += &format!(
            "INSERT INTO evaluation VALUES ({id}, {of}, 's{id}', 0, '', 1, 1, 1, '', 0, 0, 0, 0, 0, 0, 0);"
        );
        for _ in 0..[0, 1, 1, 1, 1, 3][dice.roll(6)] {
            let of_job = if build > 0 && dice.roll(4) == 0 {
                i64::try_from(dice.roll(usize::try_from(build).expect("few"))).expect("few") + 1
            } else {
                build += 1;
                let status = [-2, -1, 0, 0, 1, 2, 3, 4][dice.roll(8)];
                let (started, at) = (i64::from(status > -2), i64::from(status >= 0));
                let derivation = dice.roll(120);
                rows += &format!(
                    "INSERT INTO build VALUES ({build}, 'd{derivation}', {derivation}, {of}, {id}, 'it', 'y', 'n', 0,
                       {status}, -1, 0, {started}, 0, 0, '', 0, 0, 1, {at}, {at}, '', 0, '');"
                );
                for number in 1..=dice.roll(3) {
                    let status = [-2, 0, 1, 3, 4][dice.roll(5)];
                    rows += &format!(
                        "INSERT INTO attempt VALUES ({build}, {number}, 'w', {status}, '', 1, 2);"
                    );
                }
                build
            };
            rows += &format!(
                "INSERT OR IGNORE INTO job VALUES ({id}, 'it', {of_job}, {}), ({id}, 'other', {of_job}, 0);",
                dice.roll(2)
            );
        }
    }
    rows
}

/// What the rates are, by their definitions.
fn wanted_rates(
    evaluations: i64,
    jobs: &[(i64, i64)],
    builds: &BTreeMap<i64, (String, i64)>,
    attempts: &[(i64, i64)],
) -> JobRates {
    let ids: BTreeSet<i64> = jobs.iter().map(|(_, build)| *build).collect();
    let count = |fits: &dyn Fn(i64) -> bool| {
        let fitting = ids.iter().filter(|id| fits(builds[id].1)).count();
        i64::try_from(fitting).expect("few")
    };
    let derivations: BTreeSet<&str> = ids.iter().map(|id| &*builds[id].0).collect();
    let has = |derivation: &str, outcomes: &[i64]| {
        let of: BTreeSet<i64> =
            ids.iter().copied().filter(|id| builds[id].0 == derivation).collect();
        let ended = of.iter().any(|id| outcomes.contains(&builds[id].1));
        ended || attempts.iter().any(|(id, status)| of.contains(id) && outcomes.contains(status))
    };
    let tried = derivations.iter().filter(|it| has(it, &[0, 1, 3])).count();
    let both = derivations.iter().filter(|it| has(it, &[0]) && has(it, &[1, 3]));
    let good = jobs.iter().filter(|(_, build)| builds[build].1 == 0).max();
    JobRates {
        evaluations,
        succeeded: count(&|status| status == 0),
        failed: count(&|status| (1..=3).contains(&status)),
        derivations: i64::try_from(tried).expect("few"),
        flaky: both.map(|it| (*it).to_owned()).collect(),
        success: good
            .map(|(evaluation, build)| (EvaluationId::new(*evaluation), BuildId::new(*build))),
    }
}

/// All rows of a plain query of two numbers.
fn pairs(s: &Snapshot, sql: &str) -> rusqlite::Result<Vec<(i64, i64)>> {
    s.prepare_cached(sql)?.query_map([], |row| row.try_into())?.collect()
}

#[tokio::test]
async fn the_history_and_the_rates_of_a_job_are_as_a_walk_through_all_rows_says() {
    let mut flaky = 0;
    for seed in 0..8 {
        let database = with_rows(&random(&mut Dice(seed))).await;
        let checked = database.read(|s| {
            let of = SpecificationId::new(1);
            let jobs = pairs(
                s,
                "SELECT j.evaluation_id, j.build_id FROM job AS j JOIN evaluation AS e ON e.id = j.evaluation_id
                 WHERE e.specification_id = 1 AND j.name = 'it' ORDER BY 1 DESC, 2",
            )?;
            let builds: BTreeMap<i64, (String, i64)> = s
                .prepare_cached("SELECT id, derivation, status FROM build")?
                .query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?
                .collect::<rusqlite::Result<_>>()?;
            let attempts = pairs(s, "SELECT build_id, status FROM attempt")?;
            let rates = job_rates(s, of, "it")?;
            let sql = "SELECT id, 0 FROM evaluation WHERE specification_id = 1 ORDER BY id DESC";
            let rated = pairs(s, sql)?[..100].to_vec();
            let latest: Vec<_> =
                jobs.iter().copied().filter(|(of, _)| *of >= rated[99].0).collect();
            assert_eq!(rates, wanted_rates(100, &latest, &builds, &attempts));
            let none = JobRates { evaluations: 100, ..JobRates::default() };
            assert_eq!(job_rates(s, of, "none")?, none);
            // Page after page, everything is seen once, whatever the size of a page.
            for limit in [3, 4, 7, 1000] {
                let (mut before, mut seen) = (EvaluationId::new(i64::MAX), Vec::new());
                loop {
                    let (page, next) = job_past(s, of, "it", before, limit)?;
                    assert!(page.len() <= limit);
                    seen.extend(page.iter().map(|one| (one.evaluation.get(), one.build.id.get())));
                    let Some(next) = next else { break };
                    assert!(next < before);
                    before = next;
                }
                assert!(seen.is_sorted_by_key(|(evaluation, _)| -evaluation));
                seen.sort_unstable_by_key(|(evaluation, build)| (-evaluation, *build));
                assert_eq!(seen, jobs, "{limit} on a page");
            }
            Ok(rates.flaky.len())
        });
        flaky += checked.await.expect("reads");
        database.close().await.expect("closes");
    }
    assert!(flaky > 20, "{flaky}");
}
