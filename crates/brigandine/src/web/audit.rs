//! The changes of a build, an evaluation or a specification that people asked for, as its page shows them.

use super::view::{self, Moment};
use crate::model::{AuditFilter, Audited, BuildId, EvaluationId, Timestamp};
use crate::store::{Visible, visible};

/// How many changes a page shows.
const ROWS: u32 = 20;

/// A change that was made.
pub(super) struct AuditRow {
    pub(super) actor: String,
    pub(super) change: String,
    /// The build that was changed; `None`: the page is about it, or it was no change of a build.
    pub(super) build: Option<BuildId>,
    /// The evaluation that was changed; `None`: the page is about it, or it was no change of an evaluation.
    pub(super) evaluation: Option<EvaluationId>,
    pub(super) result: String,
    pub(super) reason: String,
    pub(super) at: Option<Moment>,
}

/// The latest changes that fit the filter, the latest first.
pub(super) fn changes(
    s: &Visible<'_>,
    filter: &AuditFilter,
    now: Timestamp,
) -> rusqlite::Result<Vec<AuditRow>> {
    some_changes(s, filter, ROWS, now)
}

/// Like [`changes`], at most `limit`.
pub(super) fn some_changes(
    s: &Visible<'_>,
    filter: &AuditFilter,
    limit: u32,
    now: Timestamp,
) -> rusqlite::Result<Vec<AuditRow>> {
    let row = |row: Audited| AuditRow {
        actor: row.actor,
        change: row.change,
        build: row.build.filter(|_| filter.build.is_none()),
        evaluation: row
            .evaluation
            .filter(|_| row.build.is_none() && filter.specification.is_some()),
        result: row.result,
        reason: row.reason,
        at: view::moment(row.at, now),
    };
    Ok(visible::audit(s, filter, limit)?.into_iter().map(row).collect())
}
