//! Changes to specifications that somebody asks for. Each is made whole or not at all, with a row of the audit for each
//! specification that it changes.

use super::audit::{Subject, note};
use super::database::Transaction;
use super::query::Query;
use super::specifications::{put_specification, remove_specification, specification};
use crate::model::{
    Asked, Change, History, Keep, Loaded, Replace, Specification, SpecificationId, Specified,
    Specify,
};
use rusqlite::params;

/// Makes a change to specifications. Nothing is changed unless the outcome is [`Specified::Done`] or
/// [`Specified::Removed`].
pub(crate) fn specify(
    tx: &Transaction,
    change: &Specify,
    asked: &Asked,
) -> rusqlite::Result<Specified> {
    match change {
        Specify::Put { specifications, replace } => put(tx, specifications, *replace, asked),
        Specify::Remove { names, history } => remove(tx, names, *history, asked),
    }
}

fn put(
    tx: &Transaction,
    specifications: &[Specification],
    replace: Replace,
    asked: &Asked,
) -> rusqlite::Result<Specified> {
    let mut kept = Vec::new();
    for one in specifications.iter().filter(|_| replace != Replace::Always) {
        let Some(stored) = specification(tx, &one.name)? else { continue };
        let project = stored.specification.project.clone();
        if replace == Replace::InProject {
            if project != one.project {
                return Ok(Specified::Elsewhere(one.name.clone(), project));
            }
            continue;
        }
        let keys = one.differences(&stored.specification);
        if !keys.is_empty() {
            kept.push((one.name.clone(), keys));
        }
    }
    if !kept.is_empty() {
        return Ok(Specified::Kept(kept));
    }
    let put = |one: &Specification| {
        let kept = Specification { private: is_private(tx, one, replace)?, ..one.clone() };
        let one = &kept;
        let (id, loaded) = put_specification(tx, one, replace != Replace::Never, asked.at)?;
        if loaded != Loaded::Unchanged {
            note(tx, Change::Define, Subject::Specification(id), asked, loaded.as_str())?;
        }
        Ok((one.name.clone(), loaded))
    };
    let done: rusqlite::Result<Vec<(String, Loaded)>> = specifications.iter().map(put).collect();
    done.map(Specified::Done)
}

/// Whether a specification is private once it is stored. Clients of Hydra, which replace in a project, cannot say so: it
/// stays as it is, also if it was removed, because its evaluations and builds return with it.
fn is_private(tx: &Transaction, one: &Specification, replace: Replace) -> rusqlite::Result<bool> {
    if replace != Replace::InProject {
        return Ok(one.private);
    }
    let sql = "SELECT ifnull(json_extract(definition, '$.private'), 0) FROM specification WHERE name = ?1";
    Ok(tx.value(sql, [&one.name])?.unwrap_or(false))
}

fn remove(
    tx: &Transaction,
    names: &[String],
    history: History,
    asked: &Asked,
) -> rusqlite::Result<Specified> {
    for name in names {
        if specification(tx, name)?.is_none() {
            return Ok(Specified::Missing(name.clone()));
        }
    }
    for name in names {
        if history == History::Deleted
            && let Some(stored) = specification(tx, name)?
        {
            forget(tx, stored.id, stored.specification, asked)?;
        }
        if let Some(id) = remove_specification(tx, name, asked.at)? {
            let result = match history {
                History::Kept => "removed",
                History::Deleted => "removed with its evaluations and builds",
            };
            note(tx, Change::Remove, Subject::Specification(id), asked, result)?;
        }
    }
    Ok(Specified::Removed(names.to_vec()))
}

/// Lets the retention delete all evaluations of a specification that is about to be removed.
fn forget(
    tx: &Transaction,
    id: SpecificationId,
    specification: Specification,
    asked: &Asked,
) -> rusqlite::Result<()> {
    let keep = Some(Keep { evaluations: Some(0), days: None });
    put_specification(tx, &Specification { keep, ..specification }, true, asked.at)?;
    tx.execute("UPDATE specification SET evaluation_id = NULL WHERE id = ?1", params![id])?;
    Ok(())
}
