//! Grids over random histories, against a walk through all rows.

use super::*;
use std::collections::BTreeMap;

const EVALUATIONS: i64 = 12;

/// Evaluations of two specifications, some of them failed, without jobs or still building, which share builds and have few
/// names, some of them several times.
fn random(dice: &mut Dice) -> String {
    let mut rows = String::from(
        "INSERT INTO specification VALUES (1, 's', '{}', 1, 0, 0, '', 0, 0, 0, 0, NULL),
           (2, 't', '{}', 1, 0, 0, '', 0, 0, 0, 0, NULL);",
    );
    let mut full = Vec::new();
    for id in 1..=EVALUATIONS {
        let of = if dice.roll(5) == 0 { 2 } else { 1 };
        let (status, jobs) = ([0, 0, 0, 1][dice.roll(4)], usize::from(dice.roll(5) > 0));
        let pending = dice.roll(2) * jobs;
        full.push(jobs > 0);
        rows += &format!(
            "INSERT INTO evaluation VALUES ({id}, {of}, 's{id}', {status}, '', 1, 1, 1, '', {pending}, 0, {jobs}, 0, 0, 0, 0);"
        );
    }
    for id in 1..=60 {
        let status = [-2, -1, 0, 0, 1, 2, 3, 4][dice.roll(8)];
        let (started, at) = (i64::from(status > -2), i64::from(status >= 0));
        rows += &format!(
            "INSERT INTO build VALUES ({id}, 'd{id}', {id}, 1, 1, 'j', 'y', 'n', 0, {status}, -1, 0,
               {started}, 0, 0, '', 0, 0, 1, {at}, {at}, '', 0, '');"
        );
        for (evaluation, full) in (1..=EVALUATIONS).zip(&full) {
            if *full && dice.roll(3) == 0 {
                let name = dice.roll(25);
                rows += &format!(
                    "INSERT OR IGNORE INTO job VALUES ({evaluation}, 'jöb \"{name:02}\"', {id}, 0);"
                );
            }
        }
    }
    rows
}

/// An evaluation that succeeded: its number, whether it has pending builds, and its jobs.
type Column = (i64, bool, BTreeMap<String, (i64, BuildStatus)>);

/// The evaluations of the first specification, the latest first. Of builds of one name, the first failed one, or else the
/// first.
fn columns(s: &Snapshot) -> rusqlite::Result<Vec<Column>> {
    let sql = "SELECT id, scheduled FROM evaluation WHERE specification_id = 1 AND status = 0 AND succeeded > 0 ORDER BY id DESC";
    let evaluations: Vec<(i64, bool)> =
        s.prepare_cached(sql)?.query_map([], |row| row.try_into())?.collect::<Result<_, _>>()?;
    let mut columns = Vec::new();
    for (id, pending) in evaluations {
        let sql = "SELECT j.name, b.id, b.status FROM job AS j JOIN build AS b ON b.id = j.build_id
             WHERE j.evaluation_id = ?1 ORDER BY b.status BETWEEN 1 AND 3, b.id DESC";
        let all: Vec<(String, i64, BuildStatus)> = s
            .prepare_cached(sql)?
            .query_map([id], |row| row.try_into())?
            .collect::<Result<_, _>>()?;
        // The last one of a name is kept.
        let jobs = all.into_iter().map(|(name, build, status)| (name, (build, status)));
        columns.push((id, pending, jobs.collect()));
    }
    Ok(columns)
}

/// The rows that a grid of these evaluations has, all jobs or only failing ones.
fn wanted(columns: &[Column], failing: bool) -> Vec<(String, Vec<GridCell>)> {
    let ended = columns.iter().position(|(_, pending, _)| !pending);
    let count = ended.map_or(3, |at| at + 1).min(3).min(columns.len());
    let searched = if failing { &columns[..count] } else { columns };
    let mut names = BTreeSet::new();
    for (_, _, jobs) in searched {
        let fits = jobs.iter().filter(|(_, (_, status))| !failing || status.is_broken());
        names.extend(fits.map(|(name, _)| name.clone()));
    }
    let cell = |jobs: &BTreeMap<String, (i64, BuildStatus)>, name: &String| {
        jobs.get(name).map(|(build, status)| (BuildId::new(*build), *status))
    };
    let row = |name: String| {
        let cells = columns.iter().map(|(_, _, jobs)| cell(jobs, &name)).collect();
        (name, cells)
    };
    names.into_iter().map(row).collect()
}

/// The rows of all pages, forwards; and checks that the pages backwards are the same.
fn pages(s: &Snapshot, filter: &GridFilter) -> rusqlite::Result<Vec<(String, Vec<GridCell>)>> {
    let of = SpecificationId::new(1);
    let (mut filter, mut rows) = (filter.clone(), Vec::new());
    let mut page = grid(s, of, &filter)?;
    assert!(!page.has_before);
    loop {
        assert!(page.rows.len() <= filter.jobs as usize);
        rows.extend(page.rows.clone());
        if !page.has_after {
            break;
        }
        filter.after = page.rows.last().map(|(name, _)| name.clone());
        page = grid(s, of, &filter)?;
        assert!(page.has_before);
    }
    let (mut back, mut first) = (page.rows.clone(), page);
    while first.has_before {
        filter.after = None;
        filter.before = first.rows.first().map(|(name, _)| name.clone());
        first = grid(s, of, &filter)?;
        assert!(first.has_after && !first.rows.is_empty());
        back.splice(0..0, first.rows.clone());
    }
    assert_eq!(back, rows);
    Ok(rows)
}

#[tokio::test]
async fn the_pages_of_a_grid_have_what_a_walk_through_all_rows_finds() {
    let mut cells = 0;
    for seed in 0..30 {
        let database = with_rows(&random(&mut Dice(seed))).await;
        let checked = database.read(move |s| {
            let all = columns(s)?;
            let mut seen = 0;
            for (evaluations, jobs) in [(1, 1), (2, 7), (5, 3), (30, 4), (30, 100)] {
                for failing in [false, true] {
                    let mut filter =
                        GridFilter { evaluations, jobs, failing, ..GridFilter::default() };
                    let mut newer = None;
                    for part in all.chunks(evaluations as usize) {
                        let found = grid(s, SpecificationId::new(1), &filter)?;
                        let ids: Vec<i64> = found.evaluations.iter().map(|id| id.get()).collect();
                        assert_eq!(ids, part.iter().map(|(id, ..)| *id).collect::<Vec<_>>());
                        assert_eq!(found.newer, newer, "{seed}");
                        let rows = pages(s, &filter)?;
                        assert_eq!(rows, wanted(part, failing), "{seed}, {filter:?}");
                        seen += rows.len() * part.len();
                        newer = found.evaluations.first().copied();
                        filter.until = found.older;
                    }
                    assert_eq!(filter.until, None, "no page follows the last");
                }
            }
            Ok(seen)
        });
        cells += checked.await.expect("reads");
        database.close().await.expect("closes");
    }
    assert!(cells > 10_000, "{cells}");
}
