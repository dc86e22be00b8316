//! The jobs, builds and evaluations for which requests ask. They are chosen so that an answer lists the same number of
//! entries whatever the number of builds.
//!
//! With a hundred thousand builds, most jobs have one or two of them; with five million, a hundred. So the list of a
//! job's builds would grow with the database. Therefore requests ask for jobs with [`HISTORY`] builds, and for
//! evaluations whose page is full. Each size has the same number of different samples, because a few that are requested
//! again and again would stay in SQLite's cache.

use std::path::Path;

use crate::measuring::{self, Size};
use crate::output::{Failure, failed};
use brigandine::COMPARED;
use brigandine::model::BuildId;
use brigandine::store::{self, Snapshot};

/// The most builds for which requests ask, and the most jobs.
const COUNT: usize = 400;
/// The most evaluations for which requests ask.
const EVALUATIONS: usize = 50;
/// The number of finished builds of each job for which requests ask. A database of a hundred thousand builds that
/// resembles Cuirass's has 464 jobs with six, and three with ten.
const HISTORY: i64 = 6;
/// The number of builds in the answer to a request for a small jobset.
const SMALL: i64 = 10;

/// A job and its builds.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) specification: String,
    pub(crate) name: String,
    pub(crate) system: String,
    /// The job's finished builds, sorted by the time at which they stopped, the newest first.
    pub(crate) builds: Vec<i64>,
}

/// The samples for which requests ask.
#[derive(Debug)]
pub(crate) struct Samples {
    /// The highest id of a build.
    pub(crate) highest: i64,
    /// Builds from all parts of the database, with the last components of their derivations.
    pub(crate) builds: Vec<(i64, String)>,
    /// Jobs that have `history` finished builds each.
    pub(crate) jobs: Vec<Job>,
    /// [`HISTORY`], or the nearest number of finished builds that a job has.
    pub(crate) history: i64,
    /// Evaluations whose page is full, and which have too many jobs to be compared on the page.
    pub(crate) evaluations: Vec<i64>,
    /// Names of all specifications.
    pub(crate) specifications: Vec<String>,
    /// The specification with the fewest finished builds among those with at least [`SMALL`].
    pub(crate) small: Size,
    /// Warnings about what is missing in the database.
    pub(crate) notes: Vec<String>,
}

/// Chooses samples from a state directory on which no server runs.
///
/// # Errors
/// The database cannot be read, or has too few builds.
pub(crate) async fn choose(state: &Path) -> Result<Samples, Failure> {
    let database = store::open_as_it_is(state).await?;
    let chosen = database.read(choose_from).await;
    database.close().await?;
    chosen?.ok_or_else(|| {
        failed(format!(
            "{}: no specification has {SMALL} finished builds; `site` measures databases with many",
            state.display()
        ))
    })
}

fn choose_from(s: &Snapshot) -> rusqlite::Result<Option<Samples>> {
    let small = measuring::sizes(s)?.into_iter().find(|size| size.finished >= SMALL);
    let Some(small) = small else { return Ok(None) };
    let highest = measuring::highest_build(s)?;
    let mut notes = Vec::new();
    let mut builds = Vec::with_capacity(COUNT);
    // If the build with the drawn id was deleted, the next higher one is taken.
    for draw in 1..=COUNT as i64 {
        let id = store::mix(draw).cast_signed().rem_euclid(highest.max(1));
        for build in measuring::builds_above(s, BuildId::new(id), 1)? {
            let base = build.derivation.rsplit('/').next().unwrap_or_default().to_owned();
            builds.push((build.id.get(), base));
        }
    }
    let (built, names) = measuring::jobs_with(s, HISTORY, COUNT)?;
    if built != HISTORY {
        notes.push(format!(
            "no job has {HISTORY} finished builds: those of {built} are asked for instead"
        ));
    }
    let mut jobs = Vec::with_capacity(names.len());
    for (specification, name) in names {
        let limit = u32::try_from(built).unwrap_or(u32::MAX);
        let builds = store::job_history(s, &specification, &name, limit)?;
        let system = builds.first().map(|build| build.system.clone()).unwrap_or_default();
        let builds = builds.iter().map(|build| build.id.get()).collect();
        jobs.push(Job { specification, name, system, builds });
    }
    let (least, evaluations) = measuring::evaluations_with(s, COMPARED, EVALUATIONS)?;
    if least <= COMPARED {
        notes.push(format!(
            "no evaluation has more than {COMPARED} jobs: those of {least} are asked for instead"
        ));
    }
    let specifications = store::specifications(s)?;
    let specifications = specifications.into_iter().map(|found| found.specification.name).collect();
    Ok(Some(Samples {
        highest,
        builds,
        jobs,
        history: built,
        evaluations: evaluations.into_iter().map(|id| id.get()).collect(),
        specifications,
        small,
        notes,
    }))
}

impl Samples {
    /// Builds of the jobs, in rounds: one build of each job, then another one of each.
    pub(crate) fn builds_of_jobs(&self) -> Vec<i64> {
        let jobs = self.jobs.len().max(1);
        (0..COUNT)
            .filter_map(|turn| {
                let builds = &self.jobs.get(turn % jobs)?.builds;
                builds.get((turn + turn / jobs) % builds.len().max(1)).copied()
            })
            .collect()
    }
}
