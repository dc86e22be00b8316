//! Specifications, the audit and the counts, as somebody may see them.

use super::snapshot::Visible;
use crate::model::{AuditFilter, Audited, SpecificationId, SpecificationState};
use crate::store::audit::audit_without;
use crate::store::figures::{self, Figures};
use crate::store::specifications as all;

/// All specifications that were not removed, by name.
pub(crate) fn specifications(s: &Visible<'_>) -> rusqlite::Result<Vec<SpecificationState>> {
    let mut found = all::specifications(s.snapshot)?;
    found.retain(|state| !s.hidden.has(state.id));
    Ok(found)
}

/// The names of all specifications that were not removed, sorted.
pub(crate) fn active_names(s: &Visible<'_>) -> rusqlite::Result<Vec<String>> {
    let mut names = all::active_names(s.snapshot)?;
    names.retain(|name| !s.hidden.has_named(name));
    Ok(names)
}

/// The specification of this name; `None`: there is none, or it was removed.
pub(crate) fn specification(
    s: &Visible<'_>,
    name: &str,
) -> rusqlite::Result<Option<SpecificationState>> {
    let found = all::specification(s.snapshot, name)?;
    Ok(found.filter(|state| !s.hidden.has(state.id)))
}

/// The project of the named specification, removed or not; `None`: there is none of this name.
pub(crate) fn project_of(s: &Visible<'_>, name: &str) -> rusqlite::Result<Option<String>> {
    if s.hidden.has_named(name) {
        return Ok(None);
    }
    all::project_of(s.snapshot, name)
}

/// The specification with this number, removed or not.
pub(crate) fn specification_by_id(
    s: &Visible<'_>,
    id: SpecificationId,
) -> rusqlite::Result<Option<SpecificationState>> {
    if s.hidden.has(id) {
        return Ok(None);
    }
    all::specification_by_id(s.snapshot, id)
}

/// The latest rows of the audit that fit the filter, the latest first.
pub(crate) fn audit(
    s: &Visible<'_>,
    filter: &AuditFilter,
    limit: u32,
) -> rusqlite::Result<Vec<Audited>> {
    audit_without(s.snapshot, &s.hidden, filter, limit)
}

/// Counts for monitoring.
pub(crate) fn figures(s: &Visible<'_>) -> rusqlite::Result<Figures> {
    figures::figures(s.snapshot, &s.hidden)
}
