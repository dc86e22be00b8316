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
        "evaluation NOT IN (SELECT id FROM Evaluations)",
        "checkouts of evaluations that are not there",
    ),
    (
        "Inputs",
        "",
        "specification NOT IN (SELECT name FROM Specifications)",
        "inputs of specifications that are not there",
    ),
    (
        "Derivations",
        "",
        "(derivation, evaluation) NOT IN (SELECT derivation, evaluation FROM Builds)",
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
