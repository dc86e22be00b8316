//! The beginning of an import: tables, specifications, evaluations.

use super::outcome::ImportError;
use super::source::{CuirassError, CuirassEvaluation, CuirassInput, CuirassSpecification, Source};
use crate::model::{
    Evaluator, Input, MAIN_PROJECT, RESERVED_NAMES, RESERVED_WHY, Reference, Specification,
    SpecificationId, Timestamp,
};
use crate::store::query::integer;
use crate::store::{schema, specifications};
use rusqlite::{Connection, params};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::path::Path;

/// Stores tables, specifications and evaluations, unless an interrupted import has stored them already.
pub(super) fn begin(
    conn: &mut Connection,
    cuirass: &dyn Source,
    identity: &str,
    now: Timestamp,
    path: &Path,
    source: &Path,
) -> Result<(), ImportError> {
    let failed = |error| ImportError::Target(path.to_owned(), error);
    let from = |error| ImportError::Source(source.to_owned(), error);
    let there: bool = conn
        .query_row("SELECT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))
        .map_err(failed)?;
    if there {
        let known: String = conn
            .query_row("SELECT source FROM import WHERE id = 1", [], |row| row.get(0))
            .map_err(failed)?;
        if known != identity {
            return Err(ImportError::Other(path.to_owned(), known));
        }
        return Ok(());
    }
    let specifications = cuirass.specifications().map_err(from)?;
    let evaluations = cuirass.evaluations().map_err(from)?;
    let mut ids = HashMap::new();
    let tx = conn.transaction().map_err(failed)?;
    schema::make_tables(&tx).map_err(failed)?;
    note_source(&tx, identity).map_err(failed)?;
    for specification in &specifications {
        let definition =
            translate(specification).map_err(|what| from(CuirassError::Unknown(what)))?;
        let id = specifications::insert(&tx, &definition, now).map_err(failed)?;
        ids.insert(specification.name.as_str(), id);
    }
    for evaluation in &evaluations {
        // It belongs to nothing, so it is left out with its builds (`unplaced.rs` counts them).
        let Some(specification) = ids.get(evaluation.specification.as_str()) else { continue };
        let inputs = specifications
            .iter()
            .find(|specification| specification.name == evaluation.specification)
            .map_or(&[][..], |specification| &specification.inputs);
        let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
        insert_evaluation(&tx, evaluation, *specification, &names).map_err(
            |error| match error {
                CuirassError::Sqlite(error) => failed(error),
                error => from(error),
            },
        )?;
    }
    tx.commit().map_err(failed)
}

/// Makes the table that says from where an import is, and how far.
pub(super) fn note_source(tx: &Connection, identity: &str) -> rusqlite::Result<()> {
    tx.execute_batch(
        "CREATE TABLE import (id INTEGER PRIMARY KEY, source TEXT NOT NULL, builds INTEGER NOT NULL,
           last_build INTEGER NOT NULL, outputs INTEGER NOT NULL, rescheduled INTEGER NOT NULL,
           logs INTEGER NOT NULL) STRICT",
    )?;
    tx.execute("INSERT INTO import VALUES (1, ?1, 0, 0, 0, 0, 0)", [identity]).map(drop)
}

/// Translates a specification of Cuirass to one of this server. This server has no evaluator for Guix, so the
/// specification is disabled until an operator replaces it. The settings of Cuirass's evaluator become the arguments,
/// and with them everything that this server has no field for.
fn translate(from: &CuirassSpecification) -> Result<Specification, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if from.name.is_empty() || !from.name.chars().all(plain) {
        return Err(format!(
            "the name of specification `{}` has other characters than letters, digits, `-`, `_`, \
             `.`; rename it in a copy of the database",
            from.name.escape_debug()
        ));
    }
    if RESERVED_NAMES.contains(&from.name.as_str()) {
        return Err(format!(
            "a specification cannot be called `{}` ({RESERVED_WHY}); rename it in a copy of the database",
            from.name
        ));
    }
    let mut arguments = [
        ("proc", text(&from.proc)),
        ("proc-args", text(&from.proc_args)),
        ("load-path-inputs", text(&from.load_path_inputs)),
        ("package-path-inputs", text(&from.package_path_inputs)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into_iter()
    .collect::<Map<_, _>>();
    if let Some(outputs) = &from.build_outputs {
        arguments.insert("build-outputs".to_owned(), text(outputs));
    }
    let more: Map<_, _> = from
        .inputs
        .iter()
        .map(|input| (input.name.clone(), Value::Object(rest_of(input))))
        .filter(|(_, rest)| rest.as_object().is_some_and(|rest| !rest.is_empty()))
        .collect();
    if !more.is_empty() {
        arguments.insert("inputs".to_owned(), Value::Object(more));
    }
    Ok(Specification {
        name: from.name.clone(),
        project: MAIN_PROJECT.to_owned(),
        description: "imported from Cuirass".to_owned(),
        inputs: from
            .inputs
            .iter()
            .map(|input| Input {
                name: input.name.clone(),
                url: input.url.clone(),
                reference: match (&input.revision, &input.tag, &input.branch) {
                    (Some(revision), _, _) => Reference::Revision(revision.clone()),
                    (None, Some(tag), _) => Reference::Tag(tag.clone()),
                    (None, None, Some(branch)) => Reference::Branch(branch.clone()),
                    (None, None, None) => Reference::Head,
                },
                submodules: false,
                submodules_from: Vec::new(),
            })
            .collect(),
        evaluator: Evaluator::Command {
            input: Some(from.proc_input.clone()),
            command: vec![from.proc_file.clone()],
            arguments,
            timeout_s: None,
        },
        interval_s: None,
        keep: None,
        priority: from.priority,
        supersede: crate::model::Supersede::default(),
        network: false,
        private: false,
        enabled: false,
    })
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

/// What Cuirass knows of an input and this server's [`Input`] has no field for.
fn rest_of(input: &CuirassInput) -> Map<String, Value> {
    // The compiler refuses this pattern if a field is missing.
    let CuirassInput { name: _, url: _, load_path, no_compile, branch, tag, revision } = input;
    let mut rest = Map::new();
    if !load_path.is_empty() {
        rest.insert("load-path".to_owned(), text(load_path));
    }
    if *no_compile {
        rest.insert("no-compile".to_owned(), Value::Bool(true));
    }
    // The first of the three that is there is the input's reference.
    let references = [("revision", revision), ("tag", tag), ("branch", branch)];
    let named = references.into_iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
    rest.extend(named.skip(1).map(|(key, value)| (key.to_owned(), text(value))));
    rest
}

/// Stands for a time that is not known yet. It is replaced by the time at which the evaluation's first build was
/// submitted.
pub(super) const UNKNOWN_AT: i64 = 1;

fn insert_evaluation(
    tx: &Connection,
    evaluation: &CuirassEvaluation,
    specification: SpecificationId,
    inputs: &[&str],
) -> Result<(), CuirassError> {
    // An evaluation that was running in Cuirass does not run here.
    let (status, message) = match evaluation.status {
        -1 => (2, "it had not ended when it was imported"),
        status @ 0..=2 => (status, ""),
        status => {
            let what = format!("evaluation {} has status {status}", evaluation.id);
            return Err(CuirassError::Unknown(what));
        }
    };
    let at = evaluation.timestamp.max(UNKNOWN_AT);
    let revisions: Vec<&str> = evaluation.checkouts.iter().map(|(_, r)| r.as_str()).collect();
    tx.prepare_cached(
        "INSERT INTO evaluation (id, specification_id, stamp, status, message, created_at,
         checkout_at, finished_at, log_path, scheduled, started, succeeded, failed,
         failed_dependency, failed_other, canceled)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, '', 0, 0, 0, 0, 0, 0, 0)",
    )?
    .execute(params![
        evaluation.id,
        specification,
        format!("cuirass {}: {}", evaluation.id, revisions.join(" ")),
        status,
        message,
        at,
        evaluation.checkout_at.max(at),
        evaluation.finished_at.max(at),
    ])?;
    for (position, (input, revision)) in evaluation.checkouts.iter().enumerate() {
        let name = input.as_deref().or_else(|| inputs.get(position).copied()).unwrap_or("input");
        tx.prepare_cached(
            "INSERT INTO checkout (evaluation_id, position, input, revision, subject, author,
             revision_at) VALUES (?1, ?2, ?3, ?4, '', '', 0)",
        )?
        .execute(params![evaluation.id, integer(position), name, revision])?;
    }
    Ok(())
}
