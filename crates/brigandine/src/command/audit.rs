//! `brigandine audit`: lists which changes were made, by whom and why, the latest first.

use std::path::Path;

use super::remote::Remote;
use super::{Failure, existing, no_specification, print_json, table};
use crate::cli;
use crate::model::{self, Asked, AuditFilter, Audited};
use crate::store;
use crate::wire::AuditJson;

/// Prints the list.
///
/// # Errors
/// The state directory or the specification does not exist, or the database cannot be read. With `--server`: the server
/// cannot be reached or refuses the request.
pub(crate) async fn run(arguments: &cli::Audit) -> Result<(), Failure> {
    let filter = AuditFilter {
        build: arguments.build,
        evaluation: arguments.evaluation,
        specification: arguments.spec.clone(),
        before: None,
    };
    let number = u32::from(arguments.number);
    let rows = match Remote::new(&arguments.server)? {
        Some(remote) => remote.audit(filter, number).await?,
        None => of_state(&arguments.state.state, filter, number).await?,
    };
    if arguments.json {
        print_json(&rows.into_iter().map(AuditJson::from).collect::<Vec<_>>());
        return Ok(());
    }
    if rows.is_empty() {
        eprintln!("no change was asked for");
        return Ok(());
    }
    let mut lines = vec![["WHEN", "WHO", "CHANGE", "OF", "RESULT", "WHY"].map(str::to_owned)];
    lines.extend(rows.into_iter().map(line));
    table(&lines);
    Ok(())
}

/// The rows of a state directory.
async fn of_state(state: &Path, filter: AuditFilter, number: u32) -> Result<Vec<Audited>, Failure> {
    let database = existing(state).await?;
    let read = database.read(move |s| {
        if let Some(name) = &filter.specification {
            // A removed specification may still have rows.
            let names = store::specification_names(s)?;
            if !names.contains(name) {
                return Ok(Err(no_specification(name, &names)));
            }
        }
        store::audit(s, &filter, number).map(Ok)
    });
    read.await?
}

fn line(row: Audited) -> [String; 6] {
    let of = match (row.build, row.evaluation, row.specification) {
        (Some(build), ..) => format!("build {build}"),
        (None, Some(evaluation), _) => format!("evaluation {evaluation}"),
        (None, None, specification) => specification.unwrap_or_default(),
    };
    // The reason may have several lines, and another server may send anything.
    let line = |text: &str| model::one_line(text, Asked::REASON_BYTES_MAX);
    let [who, change, result, why] =
        [&row.actor, &row.change, &row.result, &row.reason].map(|text| line(text));
    [model::iso(row.at), who, change, line(&of), result, why]
}
