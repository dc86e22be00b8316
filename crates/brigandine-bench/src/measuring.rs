//! SQL statements that measurements need and the server does not. They run before the measurements begin, because
//! [`JOBS`] reads the whole index of jobs, which takes a second for five million builds.

use brigandine::model::{Build, BuildId, EvaluationId, SpecificationId};
use brigandine::store::{self, Snapshot, Transaction};
use rusqlite::params;

/// A specification and its number of finished builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Size {
    /// The row number.
    pub(crate) id: SpecificationId,
    /// The specification's name.
    pub(crate) name: String,
    /// The number of finished builds.
    pub(crate) finished: i64,
}

/// All specifications with finished builds, the one with the fewest first.
pub(crate) fn sizes(s: &Snapshot) -> rusqlite::Result<Vec<Size>> {
    let mut sizes: Vec<Size> = Vec::new();
    let mut statement = s.prepare_cached(
        "SELECT s.id, s.name, c.builds FROM build_count AS c
         CROSS JOIN specification AS s ON s.id = c.specification_id
         WHERE c.status >= 0 AND c.builds > 0",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, builds): (_, i64) = (row.get(0)?, row.get(2)?);
        match sizes.iter_mut().find(|size| size.id == id) {
            Some(size) => size.finished += builds,
            None => sizes.push(Size { id, name: row.get(1)?, finished: builds }),
        }
    }
    sizes.sort_unstable_by_key(|size| (size.finished, size.id));
    Ok(sizes)
}

const JOBS: &str = "SELECT s.name, j.job, j.builds FROM
       (SELECT specification_id, job, count(*) AS builds
        FROM build INDEXED BY build_latest_of_job WHERE status >= 0 GROUP BY specification_id, job) AS j
     CROSS JOIN specification AS s ON s.id = j.specification_id";

/// The number of finished builds that is nearest to `wanted` and that some job has. Also at most `count` jobs with this
/// number, as specification and job, from all parts of the index.
pub(crate) fn jobs_with(
    s: &Snapshot,
    wanted: i64,
    count: usize,
) -> rusqlite::Result<(i64, Vec<(String, String)>)> {
    let mut statement = s.prepare_cached(JOBS)?;
    let mut rows = statement.query([])?;
    let mut nearest = i64::MAX;
    // The jobs whose keys are smallest are chosen, so that each run chooses the same.
    let mut chosen = std::collections::BinaryHeap::new();
    while let Some(row) = rows.next()? {
        let builds: i64 = row.get(2)?;
        let (distance, known) = ((builds - wanted).abs(), (nearest - wanted).abs());
        if nearest != i64::MAX && (distance > known || distance == known && builds != nearest) {
            continue;
        }
        if builds != nearest {
            nearest = builds;
            chosen.clear();
        }
        let (specification, job): (String, String) = (row.get(0)?, row.get(1)?);
        chosen.push((store::derivation_key(&job), specification, job));
        if chosen.len() > count {
            chosen.pop();
        }
    }
    let jobs = chosen.into_sorted_vec().into_iter().map(|(_, of, job)| (of, job)).collect();
    Ok((nearest, jobs))
}

/// At most `count` evaluations with more than `jobs` jobs, from all parts of the table. If there are none, those with
/// the most jobs. Also the number of jobs of the smallest evaluation that was chosen.
pub(crate) fn evaluations_with(
    s: &Snapshot,
    jobs: i64,
    count: usize,
) -> rusqlite::Result<(i64, Vec<EvaluationId>)> {
    let all: Vec<(EvaluationId, i64)> = s
        .prepare_cached(
            "SELECT id, scheduled + started + succeeded + failed + failed_dependency + failed_other
             + canceled FROM evaluation ORDER BY id",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let most = all.iter().map(|(_, jobs)| *jobs).max().unwrap_or(0);
    let least = most.min(jobs + 1);
    let fitting: Vec<_> = all.into_iter().filter(|(_, jobs)| *jobs >= least).collect();
    let chosen: Vec<_> = (0..count.min(fitting.len()))
        .filter_map(|at| fitting.get(at * fitting.len() / count.min(fitting.len())))
        .collect();
    let smallest = chosen.iter().map(|(_, jobs)| *jobs).min().unwrap_or(0);
    Ok((smallest, chosen.into_iter().map(|(id, _)| *id).collect()))
}

/// The highest id of a build; 0: there are no builds.
pub(crate) fn highest_build(s: &Snapshot) -> rusqlite::Result<i64> {
    s.prepare_cached("SELECT ifnull(max(id), 0) FROM build")?.query_row([], |row| row.get(0))
}

/// At most `limit` builds with ids above `id`, ordered by id.
pub(crate) fn builds_above(s: &Snapshot, id: BuildId, limit: u32) -> rusqlite::Result<Vec<Build>> {
    let ids: Vec<BuildId> = s
        .prepare_cached("SELECT id FROM build WHERE id > ?1 ORDER BY id LIMIT ?2")?
        .query_map(params![id, limit], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    ids.into_iter().filter_map(|id| store::build(s, id).transpose()).collect()
}

/// Adds an evaluation that began at `at` and has ended. `seed` makes it different from others.
pub(crate) fn add_evaluation(
    tx: &Transaction,
    specification: SpecificationId,
    seed: i64,
    at: i64,
) -> rusqlite::Result<EvaluationId> {
    tx.query_row(
        "INSERT INTO evaluation (specification_id, stamp, status, message, created_at, checkout_at,
           finished_at, log_path, scheduled, started, succeeded, failed, failed_dependency,
           failed_other, canceled)
         VALUES (?1, ?2, 0, '', ?3, ?3, ?3 + 1, '', 0, 0, 0, 0, 0, 0, 0) RETURNING id",
        params![specification, format!("past {seed}"), at],
        |row| row.get(0),
    )
}

/// Gives an evaluation a revision, and as many ended jobs as `seed` says, of which some failed.
pub(crate) fn add_outcome(
    tx: &Transaction,
    evaluation: EvaluationId,
    seed: i64,
) -> rusqlite::Result<()> {
    let drawn = store::mix(seed);
    let (succeeded, failed) = (20 + drawn % 80, (drawn >> 20) % 8 / 5 * ((drawn >> 30) % 9));
    tx.execute(
        "UPDATE evaluation SET succeeded = ?2, failed = ?3 WHERE id = ?1",
        params![evaluation, succeeded.cast_signed(), failed.cast_signed()],
    )?;
    let revision = format!("{drawn:016x}{:016x}{:08x}", store::mix(!seed), seed.unsigned_abs());
    tx.execute(
        "INSERT INTO checkout (evaluation_id, position, input, revision, subject, author, revision_at)
         VALUES (?1, 0, 'source', ?2, ?3, 'Somebody', 0)",
        params![evaluation, revision, format!("Change {} things about {}", drawn % 97, drawn % 1009)],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn jobs_for_measurements_have_the_same_number_of_builds_and_evaluations_enough_jobs() {
        let directory = tempfile::tempdir().expect("a directory");
        store::make_sample(30_000, directory.path(), 1, &|_| ()).expect("the sample");
        let database = store::open_as_it_is(directory.path()).await.expect("opens");
        database
            .read(|s| {
                let (built, jobs) = jobs_with(s, 3, 50)?;
                assert_eq!((built, jobs.len()), (3, 50));
                for (specification, job) in &jobs {
                    assert_eq!(store::job_history(s, specification, job, 10)?.len(), 3, "{job}");
                }
                // If no job has so many builds, the jobs with the most builds are returned, and each call returns the
                // same ones.
                let (most, few) = jobs_with(s, 1000, 50)?;
                assert!(most > 3 && !few.is_empty() && few.len() <= 50, "{most}: {}", few.len());
                for (specification, job) in &few {
                    assert_eq!(store::job_history(s, specification, job, 1000)?.len() as i64, most);
                }
                assert_eq!(jobs_with(s, 3, 50)?.1, jobs);
                let (least, evaluations) = evaluations_with(s, 1999, 4)?;
                assert_eq!((least, evaluations.len()), (2000, 4));
                assert!(evaluations.windows(2).all(|two| two[0] < two[1]), "{evaluations:?}");
                let (least, evaluations) = evaluations_with(s, 5000, 4)?;
                assert_eq!((least, evaluations.len()), (2000, 4), "none has more");
                let sizes = sizes(s)?;
                assert!(
                    sizes.windows(2).all(|two| two[0].finished <= two[1].finished),
                    "{sizes:?}"
                );
                let finished: i64 = sizes.iter().map(|size| size.finished).sum();
                let pending = "SELECT count(*) FROM build WHERE status < 0";
                let pending: i64 = s.query_row(pending, [], |row| row.get(0))?;
                assert_eq!(finished + pending, highest_build(s)?);
                Ok(())
            })
            .await
            .expect("reads");
        database.close().await.expect("closes");
    }
}
