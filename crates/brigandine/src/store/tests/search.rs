//! Searches for random words, step after step, against a walk through all rows.

use super::*;
use crate::model::Search;

const SPECIFICATIONS: usize = 3;
const EVALUATIONS: usize = 18;
const BUILDS: usize = 400;
const JOBS: usize = 60;
const AUTHORS: [&str; 3] = ["Ada Lovelace", "Ben", "Änne"];

/// Builds of every status, many of which ended in the same second. The latest evaluation of each specification has every
/// job.
fn random(dice: &mut Dice) -> String {
    let mut rows = String::new();
    for id in 1..=SPECIFICATIONS {
        rows += &format!(
            "INSERT INTO specification VALUES ({id}, 's{id}', '{{}}', 1, 0, 0, '', 0, 0, 0, 0, NULL);"
        );
    }
    for id in 1..=EVALUATIONS {
        let of = (id - 1) % SPECIFICATIONS + 1;
        rows += &format!(
            "INSERT INTO evaluation VALUES ({id}, {of}, 's{id}', 0, '', 1, 1, 1, '', 0, 0, {JOBS}, 0, 0, 0, 0);"
        );
        for position in 0..2 {
            let author = AUTHORS[dice.roll(AUTHORS.len())];
            rows += &format!(
                "INSERT INTO checkout VALUES ({id}, {position}, 'i{position}', 'abcdef{id:02}', '', '{author}', 0);"
            );
        }
    }
    for id in 1..=BUILDS {
        let evaluation = dice.roll(EVALUATIONS) + 1;
        let of = (evaluation - 1) % SPECIFICATIONS + 1;
        let (job, system) = (dice.roll(JOBS), dice.roll(2));
        let status = [-2, -1, 0, 0, 0, 1, 2, 3, 4][dice.roll(9)];
        let started = i64::from(status > -2);
        let at = if status >= 0 { dice.roll(60) + 1 } else { 0 };
        let submitted = dice.roll(20) + 1;
        rows += &format!(
            "INSERT INTO build VALUES ({id}, 'd{id}', {id}, {of}, {evaluation}, 'Jöb-{job:02}', 'y{system}', 'n', 0,
               {status}, -1, 0, {started}, 0, 0, '', 0, 0, {submitted}, {at}, {at}, '', 0, '');"
        );
    }
    for of in 1..=SPECIFICATIONS {
        let latest = EVALUATIONS - SPECIFICATIONS + of;
        for job in 0..JOBS {
            rows += &format!("INSERT INTO job VALUES ({latest}, 'Jöb-{job:02}', 1, 0);");
        }
    }
    rows
}

/// What one build is, and the authors of its evaluation.
struct Row {
    id: i64,
    specification: String,
    job: String,
    system: String,
    status: BuildStatus,
    submitted_at: i64,
    stopped_at: i64,
    authors: String,
}

fn rows(connection: &Connection) -> Vec<Row> {
    let sql = "SELECT b.id, s.name, b.job, b.system, b.status, b.submitted_at, b.stopped_at,
           (SELECT group_concat(c.author, '|') FROM checkout AS c WHERE c.evaluation_id = b.evaluation_id)
         FROM build AS b JOIN specification AS s ON s.id = b.specification_id";
    let mut statement = connection.prepare(sql).expect("a plain query");
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Row {
            id: row.get(0)?,
            specification: row.get(1)?,
            job: row.get(2)?,
            system: row.get(3)?,
            status: row.get(4)?,
            submitted_at: row.get(5)?,
            stopped_at: row.get(6)?,
            authors: row.get(7)?,
        })
    };
    let found = statement.query_map([], read).expect("rows");
    found.map(|row| row.expect("a row")).collect()
}

/// The builds that a search finds, in its order.
fn wanted(rows: &[Row], search: &Search) -> Vec<i64> {
    let pending = search.status.filter(|status| !status.is_finished());
    let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|it| it == value);
    let fits = |row: &&Row| {
        is(&search.specification, &row.specification)
            && is(&search.job, &row.job)
            && is(&search.system, &row.system)
            && search.status.is_none_or(|status| status == row.status)
            && (pending.is_some() || row.status.is_finished())
            && search.author.as_ref().is_none_or(|it| row.authors.to_lowercase().contains(it))
            && search.texts.iter().all(|text| row.job.to_lowercase().contains(text))
    };
    let mut found: Vec<&Row> = rows.iter().filter(fits).collect();
    match pending {
        Some(_) => found.sort_by_key(|row| (row.submitted_at, row.id)),
        None => found.sort_by_key(|row| std::cmp::Reverse((row.stopped_at, row.id))),
    }
    found.iter().map(|row| row.id).collect()
}

/// A search by a random choice of fields.
fn drawn(dice: &mut Dice) -> Search {
    let mut draw = |values: &[&str]| {
        let at = dice.roll(2 * values.len());
        values.get(at).map(|value| (*value).to_owned())
    };
    Search {
        specification: draw(&["s1", "s2", "none"]),
        job: draw(&["Jöb-07", "Jöb-11", "gone"]).filter(|job| job != "gone"),
        system: draw(&["y0", "y1"]),
        status: draw(&["succeeded", "failed", "canceled", "scheduled", "started"])
            .map(|name| name.parse().expect("a status")),
        author: draw(&["ada", "änne", "nobody"]),
        texts: [draw(&["j", "-1", "öb-2", "x"]), draw(&["5"])].into_iter().flatten().collect(),
    }
}

/// All builds that a search finds, step after step.
fn found(s: &Snapshot, search: &Search, step: SearchStep) -> rusqlite::Result<Vec<i64>> {
    let (mut after, mut found, mut steps) = (None, Vec::new(), 0);
    loop {
        let page = search_builds(s, search, &NOTHING, after, step)?;
        assert!(page.builds.len() <= step.rows);
        found.extend(page.builds.iter().map(|build| build.id.get()));
        steps += 1;
        assert!(steps <= 2 * BUILDS, "{search:?} comes to an end");
        let Some(next) = page.next else { return Ok(found) };
        assert_ne!(after, Some(next), "{search:?} goes on");
        after = Some(next);
    }
}

#[tokio::test]
async fn a_search_finds_each_build_that_fits_once_whatever_the_length_of_a_step() {
    let mut hits = 0;
    for seed in 0..4 {
        let filled = random(&mut Dice(seed));
        let connection = Connection::open_in_memory().expect("opens");
        let text = format!("{}{filled}", include_str!("../../../schema.sql"));
        connection.execute_batch(&text).expect("rows");
        let all = rows(&connection);
        let database = with_rows(&filled).await;
        let checked = database.read(move |s| {
            let (mut dice, mut hits) = (Dice(seed + 100), 0);
            for round in 0..150 {
                let search = drawn(&mut dice);
                let step = SearchStep {
                    rows: [1, 3, 50][round % 3],
                    looked_at: [20, 60, 2000][dice.roll(3)],
                };
                let wanted = wanted(&all, &search);
                assert_eq!(found(s, &search, step)?, wanted, "{seed}: {search:?} {step:?}");
                hits += wanted.len();
            }
            Ok(hits)
        });
        hits += checked.await.expect("reads");
        database.close().await.expect("closes");
    }
    assert!(hits > 3000, "{hits}");
}

#[tokio::test]
async fn evaluations_are_found_by_the_author_and_the_beginning_of_a_revision() {
    let database =
        Database::open(std::path::Path::new(":memory:"), true, std::time::Duration::from_secs(30))
            .await
            .expect("opens");
    let text = format!("{}{}", include_str!("../../../schema.sql"), random(&mut Dice(1)));
    let authors = "UPDATE checkout SET author = 'Eve' WHERE evaluation_id IN (4, 8);";
    let text = format!("{text}{authors}");
    database.exclusive(move |conn| conn.execute_batch(&text)).await.expect("rows");
    let checked = database.read(|s| {
        for (text, wanted) in [
            ("author:EVE", vec![8, 4]),
            ("author:eve spec:s1", vec![4]),
            ("author:eve spec:none", vec![]),
            ("abcdef1", (10..=18).rev().collect()),
            ("abcdef12 spec:s3", vec![12]),
            ("ABCDEF12 author:eve", vec![]),
            // Too short, or no revision.
            ("abcdef", vec![]),
            ("abcdefgh", vec![]),
        ] {
            let search: Search = text.parse().expect("a search");
            let found: Vec<i64> =
                search_evaluations(s, &search, &NOTHING)?.iter().map(|id| id.get()).collect();
            assert_eq!(found, wanted, "{text}");
        }
        Ok(())
    });
    checked.await.expect("reads");
}
