//! Which specifications a reader may not see.

use super::database::Snapshot;
use super::query::Query;
use crate::model::{Sight, SpecificationId};

/// The private specifications that a reader may not see, removed ones included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hidden(Vec<(SpecificationId, String)>);

/// Nothing is hidden.
pub(super) static NOTHING: Hidden = Hidden(Vec::new());

/// The private specifications. The index has those alone, so that nothing is read where there are none.
const PRIVATE: &str = "SELECT id, project, name FROM specification INDEXED BY specification_private
     WHERE json_extract(definition, '$.private') = 1";

impl Hidden {
    /// What is hidden from a reader.
    pub(super) fn read(s: &Snapshot, sight: &Sight) -> rusqlite::Result<Self> {
        if *sight == Sight::Everything {
            return Ok(Self::default());
        }
        let mut private: Vec<(SpecificationId, String, String)> =
            s.all(PRIVATE, [], |row| row.try_into())?;
        private.retain(|(_, project, name)| !sight.holds(project, name));
        Ok(Self(private.into_iter().map(|(id, _, name)| (id, name)).collect()))
    }

    /// Whether nothing is hidden.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a specification is hidden.
    pub(crate) fn has(&self, id: SpecificationId) -> bool {
        self.0.iter().any(|(hidden, _)| *hidden == id)
    }

    /// Whether the specification of this name is hidden.
    pub(crate) fn has_named(&self, name: &str) -> bool {
        self.0.iter().any(|(_, hidden)| hidden == name)
    }

    /// The numbers of the hidden specifications as JSON, for `json_each`.
    pub(super) fn json(&self) -> String {
        let ids: Vec<String> = self.0.iter().map(|(id, _)| id.to_string()).collect();
        format!("[{}]", ids.join(","))
    }
}
