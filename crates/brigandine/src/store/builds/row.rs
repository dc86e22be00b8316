//! A row of builds as a value.

use crate::model::{Build, BuildLogFile};
use rusqlite::Row;

/// The columns that [`from_row`] reads, of `build AS b` and `specification AS s`.
macro_rules! columns {
    () => {
        "b.id, b.derivation, b.specification_id, s.name, b.evaluation_id, b.job, b.system, \
         b.nix_name, b.priority, b.status, b.weather, b.attempt, b.waiting, b.message, \
         b.submitted_at, b.started_at, b.stopped_at, b.log_path, b.log_bytes, b.log_digest, \
         b.backend"
    };
}

pub(super) const COLUMN_COUNT: usize = 21;

macro_rules! select {
    ($rest:literal) => {
        select!("build AS b", $rest)
    };
    // CROSS: tables are read in the order they are written in.
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
    Ok(Build {
        id: row.get(0)?,
        derivation: row.get(1)?,
        specification_id: row.get(2)?,
        specification: row.get(3)?,
        evaluation: row.get(4)?,
        job: row.get(5)?,
        system: row.get(6)?,
        nix_name: row.get(7)?,
        priority: row.get(8)?,
        status: row.get(9)?,
        weather: row.get(10)?,
        attempt: row.get(11)?,
        waiting: row.get(12)?,
        message: row.get(13)?,
        submitted_at: row.get(14)?,
        started_at: row.get(15)?,
        stopped_at: row.get(16)?,
        log: BuildLogFile { path: row.get(17)?, bytes: row.get(18)?, digest: row.get(19)? },
        imported: row.get::<_, i64>(20)? != 0,
    })
}
