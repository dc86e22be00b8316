//! Reads a row of builds as a value.

use crate::model::{Build, BuildLogFile};
use crate::store::query::{Columns, read};
use rusqlite::Row;

/// The columns that [`from_row`] reads from `build AS b` and `specification AS s`.
macro_rules! columns {
    () => {
        "b.id, b.derivation, b.specification_id, s.name, s.project, b.evaluation_id, b.job, \
         b.system, b.nix_name, b.priority, b.status, b.weather, b.attempt, b.waiting, b.message, \
         b.submitted_at, b.started_at, b.stopped_at, b.log_path, b.log_bytes, b.log_digest, \
         b.backend"
    };
}

macro_rules! select {
    ($rest:literal) => {
        select!("build AS b", $rest)
    };
    // `CROSS` makes SQLite read the tables in this order.
    ($from:literal, $rest:literal) => {
        concat!(
            "SELECT ",
            columns!(),
            " FROM ",
            $from,
            " CROSS JOIN specification AS s ON s.id = b.specification_id ",
            $rest
        )
    };
}

pub(super) use {columns, select};

pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Build> {
    from_columns(&mut Columns::of(row))
}

/// Reads a build from the next columns of a row.
pub(super) fn from_columns(columns: &mut Columns<'_, '_>) -> rusqlite::Result<Build> {
    Ok(read!(columns: Build {
        id, derivation, specification_id, specification, project, evaluation, job, system, nix_name,
        priority, status, weather, attempt, waiting, message, submitted_at, started_at, stopped_at;
        log: read!(columns: BuildLogFile { path, bytes, digest }),
        imported: columns.take::<i64>()? != 0
    }))
}
