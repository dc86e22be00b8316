//! A snapshot as somebody may see it.

use crate::model::{EvaluationId, Sight, SpecificationId};
use crate::store::database::Snapshot;
use crate::store::hidden::Hidden;
use crate::store::query::Query;

/// A snapshot as somebody may see it.
pub(crate) struct Visible<'s> {
    pub(super) snapshot: &'s Snapshot,
    pub(super) hidden: Hidden,
}

impl<'s> Visible<'s> {
    /// The snapshot as somebody with this sight sees it.
    pub(crate) fn new(snapshot: &'s Snapshot, sight: &Sight) -> rusqlite::Result<Self> {
        Ok(Self { snapshot, hidden: Hidden::read(snapshot, sight)? })
    }

    /// The snapshot as those see it who may see everything, such as the commands on this machine.
    pub(crate) fn everything(snapshot: &'s Snapshot) -> Self {
        Self { snapshot, hidden: Hidden::default() }
    }

    /// What is hidden.
    pub(crate) fn hidden(&self) -> &Hidden {
        &self.hidden
    }

    /// Whether an evaluation belongs to a hidden specification.
    pub(super) fn hides_evaluation(&self, id: EvaluationId) -> rusqlite::Result<bool> {
        if self.hidden.is_empty() {
            return Ok(false);
        }
        let sql = "SELECT specification_id FROM evaluation WHERE id = ?1";
        let of: Option<SpecificationId> = self.snapshot.value(sql, [id])?;
        Ok(of.is_some_and(|of| self.hidden.has(of)))
    }
}
