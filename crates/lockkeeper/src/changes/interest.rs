//! The tables that a live query reads, and whether a change concerns it.

use std::collections::BTreeSet;

use super::change::Change;

/// Tables that a query has read, or that have changed.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    pub(crate) tables: BTreeSet<String>,
    /// Whether something other than a table, such as the schema, was read or has changed. If a query has read such a
    /// thing, every change concerns the query. If such a thing has changed, the change concerns every query.
    pub(crate) anything: bool,
}

impl Reads {
    /// Notes a table under the name that the change feed uses.
    pub(crate) fn note(&mut self, schema: &str, table: &str) {
        self.tables.insert(match schema.eq_ignore_ascii_case("main") {
            true => table.to_owned(),
            false => format!("{schema}.{table}"),
        });
    }
}

/// The most names of changed tables that are kept during one run.
const NAMES_MAX: usize = 1024;

/// The tables that a query reads, and whether one of them has changed.
#[derive(Debug, Default)]
pub(super) struct Interest {
    /// What the last run read; `None`: a run is under way, and changed tables are noted in `noted`.
    settled: Option<Reads>,
    /// The tables that changed since the run began. After [`NAMES_MAX`] names, `anything` is set instead.
    noted: Reads,
    /// The newest commit that made the result out of date.
    pub(super) changed: Option<u64>,
    /// The last commit that was noted.
    last: u64,
}

impl Interest {
    pub(super) fn note(&mut self, change: &Change) -> bool {
        self.last = change.commit();
        if let Some(reads) = &self.settled {
            // After a change of the schema a name may mean another table.
            let schema = matches!(change, Change::Commit(commit) if commit.changes_schema());
            let concerned =
                schema || reads.anything || reads.tables.iter().any(|table| change.touches(table));
            if concerned {
                self.changed = Some(self.last);
            }
            return concerned;
        }
        match change {
            Change::Commit(commit)
                if self.noted.tables.len() < NAMES_MAX && !commit.changes_schema() =>
            {
                self.noted.tables.extend(commit.tables().map(str::to_ascii_lowercase));
            }
            _ => self.noted.anything = true,
        }
        false
    }

    /// To be called before a run. Forgets the changes that were noted until now, because the run sees them.
    pub(super) fn begin(&mut self) {
        *self = Self { last: self.last, ..Self::default() };
    }

    /// To be called after a run, with what the run read.
    pub(super) fn settle(&mut self, reads: Reads) {
        let noted = std::mem::take(&mut self.noted);
        let read =
            |name: &String| reads.tables.iter().any(|table| table.eq_ignore_ascii_case(name));
        let some = !noted.tables.is_empty();
        if noted.anything || (reads.anything && some) || noted.tables.iter().any(read) {
            self.changed = Some(self.last);
        }
        self.settled = Some(reads);
    }
}
