//! What a database of Cuirass has and this server has no place for. It is counted, so that nothing is lost silently.

use super::source::{LeftOut, Result};
use rusqlite::Connection;

/// The table, the column (empty: the whole row), the rows in which there is something, and what it says.
type Unplaced = (&'static str, &'static str, &'static str, &'static str);

const UNPLACED: &[Unplaced] = &[
    ("Builds", "worker", "worker <> ''", "which machine built it"),
    ("Builds", "last_status", "last_status IS NOT NULL", "how the job's build before it ended"),
    ("Checkouts", "directory", "directory <> ''", "where Cuirass keeps the files"),
    ("Checkouts", "timestamp", "timestamp <> 0", "when the files were fetched"),
    (
        "Checkouts",
        "",
        "NOT EXISTS (SELECT 1 FROM Evaluations AS e WHERE e.id = Checkouts.evaluation)",
        "checkouts of evaluations that are not there",
    ),
    (
        "Inputs",
        "",
        "NOT EXISTS (SELECT 1 FROM Specifications AS s WHERE s.name = Inputs.specification)",
        "inputs of specifications that are not there",
    ),
    (
        "Derivations",
        "",
        "NOT EXISTS (SELECT 1 FROM Builds AS b WHERE b.derivation = Derivations.derivation
         AND b.evaluation = Derivations.evaluation)",
        "jobs that were not built for their evaluation",
    ),
    ("Stamps", "", "1", "which revisions Cuirass saw last"),
    ("Events", "", "1", "events that Cuirass has not delivered"),
    ("Metrics", "", "1", "Cuirass's own figures"),
    ("Workers", "", "1", "machines that build for Cuirass"),
];

/// Counts what the database has of each; what it has nothing of is not returned.
pub(super) fn count(conn: &Connection) -> Result<Vec<LeftOut>> {
    let mut found = Vec::new();
    for &(table, column, holds, what) in UNPLACED {
        let there: bool = conn.query_row(
            "SELECT EXISTS (SELECT 1 FROM pragma_table_info(?1) WHERE ?2 IN ('', name))",
            [table, column],
            |row| row.get(0),
        )?;
        if !there {
            continue;
        }
        let sql = format!("SELECT count(*) FROM {table} WHERE {holds}");
        let rows: i64 = conn.query_row(&sql, [], |row| row.get(0))?;
        if rows > 0 {
            let column = Some(column).filter(|column| !column.is_empty());
            found.push(LeftOut { table, column, rows, what });
        }
    }
    Ok(found)
}
