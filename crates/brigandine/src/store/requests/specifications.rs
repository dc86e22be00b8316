//! Changes of a specification.

use super::made::{Made, nothing, refused};
use crate::model::{Asked, Change, Outcome};
use crate::store::audit::{Subject, note};
use crate::store::database::Transaction;
use crate::store::specifications::{define, specification, want_look};

pub(super) fn evaluate(tx: &Transaction, name: &str, asked: &Asked) -> rusqlite::Result<Made> {
    let Some(found) = specification(tx, name)? else { return Ok(nothing(Outcome::Missing)) };
    if !found.specification.enabled {
        return Ok(refused(format!("{name} is disabled")));
    }
    want_look(tx, name, asked.at)?;
    note(tx, Change::Evaluate, Subject::Specification(found.id), asked, "looked at now")?;
    Ok(nothing(Outcome::Done(0)))
}

/// Enables or disables a specification.
pub(super) fn set_enabled(
    tx: &Transaction,
    name: &str,
    change: Change,
    asked: &Asked,
) -> rusqlite::Result<Made> {
    let Some(found) = specification(tx, name)? else { return Ok(nothing(Outcome::Missing)) };
    let enabled = change == Change::Enable;
    let word = if enabled { "enabled" } else { "disabled" };
    let mut specification = found.specification;
    if specification.enabled == enabled {
        return Ok(refused(format!("{name} is {word} already")));
    }
    specification.enabled = enabled;
    define(tx, found.id, &specification)?;
    note(tx, change, Subject::Specification(found.id), asked, word)?;
    Ok(nothing(Outcome::Done(0)))
}
