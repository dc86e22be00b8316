//! `brigandine builds`: pending builds, then finished ones, latest first.

use super::{Failure, existing, print_json, table, trouble};
use crate::api::builds_json;
use crate::cli;
use crate::model::{self, BuildFilter, EvaluationId};
use crate::store;

/// Prints the list.
///
/// # Errors
/// There is no such state directory, or it cannot be read.
pub(crate) fn run(arguments: &cli::Builds) -> Result<(), Failure> {
    super::runtime()?.block_on(list(arguments))
}

async fn list(arguments: &cli::Builds) -> Result<(), Failure> {
    let database = existing(&arguments.state.state).await?;
    let filter = BuildFilter {
        specification: arguments.spec.clone(),
        job: arguments.job.clone(),
        system: arguments.system.clone(),
        evaluation: arguments.evaluation.map(EvaluationId::new),
        derivation: None,
        status: arguments.status,
    };
    let (number, as_json) = (u32::from(arguments.number), arguments.json);
    let (builds, json) = database
        .read(move |s| {
            let mut builds = store::queue(s, &filter, number)?;
            let left = number - u32::try_from(builds.len()).unwrap_or(number);
            if left > 0 {
                builds.extend(store::latest_builds(s, &filter, left)?);
            }
            let json = if as_json { Some(builds_json(s, builds.clone())?) } else { None };
            Ok((builds, json))
        })
        .await
        .map_err(trouble)?;
    if let Some(json) = json {
        print_json(&json);
        return Ok(());
    }
    let now = model::now();
    let mut rows = vec![["ID", "STATUS", "JOB", "SPECIFICATION", "TOOK", "WHY"].map(str::to_owned)];
    for build in builds {
        let took = if build.started_at == 0 {
            "-".to_owned()
        } else {
            let end = if build.stopped_at > 0 { build.stopped_at } else { now };
            format!("{} s", (end - build.started_at).max(0))
        };
        rows.push([
            build.id.to_string(),
            build.status.to_string(),
            build.job,
            build.specification,
            took,
            build.message,
        ]);
    }
    table(&rows);
    Ok(())
}
