//! What requests are about, chosen so that a request lists as much at every number of builds.
//!
//! In a hundred thousand builds most jobs have been built once or twice, in five million most of those that one
//! meets a hundred times: what lists the builds of a job would grow by what it lists. So jobs are chosen that
//! have been built [`HISTORY`] times, evaluations whose page is full, and as many different ones in each size:
//! a few that are asked for again and again are likelier to stay in SQLite's own cache.

use std::path::Path;

use crate::measuring::{self, Size};
use crate::output::{Failure, failed};
use brigandine::COMPARED;
use brigandine::model::BuildId;
use brigandine::store::{self, Snapshot};

/// Builds and jobs that requests are about, at most.
const COUNT: usize = 400;
/// Evaluations that requests are about, at most.
const EVALUATIONS: usize = 50;
/// Finished builds of each job that is asked about: what such a request lists. A hundred thousand builds
/// in the shape of a Cuirass have 464 jobs of six, and three of ten.
const HISTORY: i64 = 6;
/// What a request for the builds of a small jobset lists.
const SMALL: i64 = 10;

/// A job's builds, as requests name them.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) specification: String,
    pub(crate) name: String,
    pub(crate) system: String,
    /// Its finished builds, latest stop first.
    pub(crate) builds: Vec<i64>,
}

/// What requests are about.
#[derive(Debug)]
pub(crate) struct Samples {
    /// The highest id of a build.
    pub(crate) highest: i64,
    /// Builds from all over the database, with the last components of their derivations.
    pub(crate) builds: Vec<(i64, String)>,
    /// Jobs with as many finished builds each.
    pub(crate) jobs: Vec<Job>,
    /// As many: [`HISTORY`], or the nearest there is.
    pub(crate) history: i64,
    /// Evaluations that fill their page, and are too large to be compared on it.
    pub(crate) evaluations: Vec<i64>,
    /// Names of all specifications.
    pub(crate) specifications: Vec<String>,
    /// The specification with the fewest finished builds, of those that fill a list of ten.
    pub(crate) small: Size,
    /// What the database has not enough of.
    pub(crate) notes: Vec<String>,
}

/// Chooses from a state directory that no server runs on.
///
/// # Errors
/// The database cannot be read, or there is nothing in it to ask about.
pub(crate) async fn choose(state: &Path) -> Result<Samples, Failure> {
    let database = store::open_as_it_is(state).await.map_err(failed)?;
    let chosen = database.read(choose_from).await.map_err(failed);
    database.close().await.map_err(failed)?;
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
    // Where builds were deleted, a draw finds the next one above; a bound, not a wait.
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
    /// Builds of the jobs: of each job another one in turn.
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
