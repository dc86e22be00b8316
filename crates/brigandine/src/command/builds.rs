//! `brigandine builds`: lists pending builds, then finished ones, the latest first.

use serde::Serialize;

use super::{Failure, existing, no_specification, print_json, table, unknown};
use crate::cli;
use crate::model::{self, Build, BuildFilter, BuildStatus, SpecificationState};
use crate::store::{self, JobFilter, Snapshot, Visible};
use crate::wire::{BuildJson, builds_json};

/// The most jobs of an evaluation among which a name is searched for.
const JOBS_MAX: u32 = 5000;

/// A build as the API shows it, with the additional columns of the table.
#[derive(Debug, Serialize)]
pub(super) struct Listed {
    #[serde(flatten)]
    known: BuildJson,
    /// The name of the build's status.
    #[serde(serialize_with = "name_of")]
    status: BuildStatus,
    /// Why the build has its status, or what it waits for; may be empty.
    reason: String,
    /// When the build was registered.
    queuedtime: i64,
    /// Seconds from the build's start to its end, or until now; `None`: it has not started.
    seconds: Option<i64>,
    /// How many of the builds that this one needs have not succeeded.
    waiting: i64,
    /// How many times the build was started.
    attempts: i64,
    #[serde(skip)]
    build: Build,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn name_of<S: serde::Serializer>(status: &BuildStatus, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(status.as_str())
}

impl Listed {
    /// Reads what the list shows of each build.
    pub(super) fn all(s: &Snapshot, builds: Vec<Build>) -> rusqlite::Result<Vec<Self>> {
        let json = builds_json(&Visible::everything(s), builds.clone())?;
        let one = |(build, known): (Build, BuildJson)| Self {
            known,
            status: build.status,
            reason: reason(&build),
            queuedtime: build.submitted_at,
            seconds: seconds(&build),
            waiting: build.waiting,
            attempts: build.attempt,
            build,
        };
        Ok(builds.into_iter().zip(json).map(one).collect())
    }
}

/// Why a build has its status, or what it waits for.
fn reason(build: &Build) -> String {
    if build.status == BuildStatus::Scheduled && build.waiting > 0 {
        return format!("waits for {} of the builds it needs", build.waiting);
    }
    build.message.clone()
}

/// Prints the list.
///
/// # Errors
/// The state directory, specification, evaluation or job does not exist, or the database cannot be read.
pub(crate) async fn run(arguments: &cli::Builds) -> Result<(), Failure> {
    let database = existing(&arguments.state.state).await?;
    let filter = BuildFilter {
        project: None,
        specification: arguments.spec.clone(),
        job: arguments.job.clone(),
        system: arguments.system.clone(),
        evaluation: arguments.evaluation,
        derivation: None,
        status: arguments.status,
    };
    let number = u32::from(arguments.number);
    let read = database.read(move |s| {
        let mut builds = store::queue(s, &filter, number)?;
        let left = number - u32::try_from(builds.len()).unwrap_or(number);
        if left > 0 {
            builds.extend(store::latest_builds(s, &filter, left)?);
        }
        let checked = if builds.is_empty() { check(s, &filter)? } else { Ok(()) };
        Ok((checked, Listed::all(s, builds)?))
    });
    let (checked, builds) = read.await?;
    checked?;
    if arguments.json {
        print_json(&builds);
        return Ok(());
    }
    if builds.is_empty() {
        eprintln!("no build is like this");
        return Ok(());
    }
    let mut rows = vec![["ID", "STATUS", "JOB", "SPECIFICATION", "TOOK", "WHY"].map(str::to_owned)];
    for build in builds {
        rows.push([
            build.build.id.to_string(),
            build.status.to_string(),
            build.build.job,
            build.build.specification,
            build.seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds} s")),
            build.reason,
        ]);
    }
    table(&rows);
    Ok(())
}

/// Explains an empty list: fails if the specification, evaluation, system or job of the filter does not exist.
fn check(s: &Snapshot, filter: &BuildFilter) -> rusqlite::Result<Result<(), Failure>> {
    if let Some(name) = &filter.specification {
        // A removed specification may still have builds.
        let names = store::specification_names(s)?;
        if !names.contains(name) {
            return Ok(Err(no_specification(name, &names)));
        }
    }
    if let Some(id) = filter.evaluation
        && store::evaluation(s, id)?.is_none()
    {
        return Ok(Err(Failure::not_found(format!("there is no evaluation {id}"))));
    }
    if let Some(system) = &filter.system {
        let systems = store::systems(s)?;
        if !systems.contains(system) {
            return Ok(Err(unknown("build for the system", system, &systems)));
        }
    }
    let Some(job) = &filter.job else { return Ok(Ok(())) };
    let of = |state: &SpecificationState| {
        filter.specification.as_ref().is_none_or(|name| *name == state.specification.name)
    };
    let mut names = Vec::new();
    for state in store::specifications(s)?.iter().filter(|state| of(state)) {
        if let Some(latest) = state.latest_evaluation {
            let page = store::job_page(s, latest, &JobFilter::default(), JOBS_MAX)?;
            names.extend(page.jobs.into_iter().map(|job| job.job));
        }
    }
    names.sort_unstable();
    names.dedup();
    Ok(if names.contains(job) { Ok(()) } else { Err(unknown("build of a job", job, &names)) })
}

/// Seconds from a build's start to its end, or until now; `None`: the build has not started.
pub(super) fn seconds(build: &Build) -> Option<i64> {
    let end = if build.stopped_at > 0 { build.stopped_at } else { model::now() };
    (build.started_at > 0).then(|| (end - build.started_at).max(0))
}
