//! The values of the change feed.

use std::sync::Arc;

/// An item of the change feed; see [`changes`](crate::Client::changes).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Calls of this process were committed.
    Commit(Arc<Commit>),
    /// Something was committed, or may have been, but it is not known what. The commit was made by another process, by
    /// an exclusive call (then this is published right after the call's answer), by calls that ran before the
    /// subscription, by a call that altered a table, or by a COMMIT that ended in an I/O error. This is also published
    /// whenever the writer's connection was replaced, because the new connection cannot tell whether other processes
    /// have committed before it was opened. Anything may have changed.
    Unknown {
        /// The number of the last commit of this process at that time.
        commit: u64,
    },
    /// The subscriber fell behind: its queue, up to this commit, was discarded. Anything may have changed. Later
    /// commits are delivered in full.
    Lagged {
        /// The last commit that was discarded.
        commit: u64,
    },
}

impl Change {
    /// The number of the commit, counted from the opening of the database.
    pub fn commit(&self) -> u64 {
        match self {
            Self::Commit(commit) => commit.number,
            Self::Unknown { commit } | Self::Lagged { commit } => *commit,
        }
    }

    /// Whether this table may have changed. Letter case is ignored, as in SQLite.
    pub fn touches(&self, table: &str) -> bool {
        match self {
            Self::Commit(commit) => commit.tables().any(|other| other.eq_ignore_ascii_case(table)),
            Self::Unknown { .. } | Self::Lagged { .. } => true,
        }
    }

    pub(super) fn cost(&self) -> usize {
        match self {
            Self::Commit(commit) => commit.calls.iter().map(|call| 1 + call.rows()).sum(),
            Self::Unknown { .. } | Self::Lagged { .. } => 1,
        }
    }
}

/// One COMMIT of this process, with those of its calls that changed anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub(crate) number: u64,
    pub(crate) calls: Vec<CallChanges>,
}

impl Commit {
    /// The number of the commit, counted from the opening of the database.
    /// [`HeldSnapshot::commit`](crate::HeldSnapshot::commit) counts in the same way.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What each call changed, in the order in which they ran. Calls that failed are not here.
    pub fn calls(&self) -> &[CallChanges] {
        &self.calls
    }

    pub(super) fn changes_schema(&self) -> bool {
        self.calls.iter().any(|call| call.schema)
    }

    /// The tables that changed; a table may appear several times.
    pub fn tables(&self) -> impl Iterator<Item = &str> {
        self.calls.iter().flat_map(|call| &call.tables).map(TableChange::table)
    }
}

/// What one call changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallChanges {
    pub(crate) tables: Vec<TableChange>,
    /// The call, or an earlier call of the transaction, changed the schema, for example a view.
    pub(crate) schema: bool,
}

impl CallChanges {
    /// The tables that the call changed, each once.
    pub fn tables(&self) -> &[TableChange] {
        &self.tables
    }

    pub(crate) fn rows(&self) -> usize {
        self.tables.iter().map(|table| table.rows.as_ref().map_or(0, Vec::len)).sum()
    }
}

/// What one call changed in one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableChange {
    pub(crate) table: Arc<str>,
    pub(crate) rows: Option<Vec<RowChange>>,
}

impl TableChange {
    /// The table's name; for a table of an attached file, `schema.table`.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The rows that changed, in order; `None`: any row may have changed.
    ///
    /// SQLite cannot name the rows of tables `WITHOUT ROWID` and of virtual tables, rows that `REPLACE` removes, rows
    /// of a `DELETE` without a condition, and rows whose key an `UPDATE` changes. At most 10,000 rows of a call are
    /// named.
    pub fn rows(&self) -> Option<&[RowChange]> {
        self.rows.as_deref()
    }
}

/// A row that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct RowChange {
    /// What was done to the row.
    pub kind: RowKind,
    /// The row id.
    pub rowid: i64,
}

/// What was done to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowKind {
    /// It was inserted.
    Insert,
    /// It was updated in place.
    Update,
    /// It was deleted.
    Delete,
}
