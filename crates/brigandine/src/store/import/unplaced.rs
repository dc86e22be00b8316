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
        "Evaluations",
        "",
        "NOT EXISTS (SELECT 1 FROM Specifications AS s WHERE s.name = Evaluations.specification)",
        "evaluations of specifications that are not there",
    ),
    (
        "Builds",
        "",
        "NOT EXISTS (SELECT 1 FROM Evaluations AS e JOIN Specifications AS s ON s.name = e.specification
         WHERE e.id = Builds.evaluation)",
        "builds of evaluations that are not there or were not imported",
    ),
    (
        "Checkouts",
        "",
        "NOT EXISTS (SELECT 1 FROM Evaluations AS e JOIN Specifications AS s ON s.name = e.specification
         WHERE e.id = Checkouts.evaluation)",
        "checkouts of evaluations that are not there or were not imported",
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

/// Builds whose job only `Derivations` could name, and does not, of evaluations that are there.
const JOBLESS: &str = "EXISTS (SELECT 1 FROM Evaluations AS e JOIN Specifications AS s
       ON s.name = e.specification WHERE e.id = Builds.evaluation)
     AND NOT EXISTS (SELECT 1 FROM Derivations AS d
       WHERE d.derivation = Builds.derivation AND d.evaluation = Builds.evaluation)";

/// The tables of which something is left out.
pub(super) fn tables() -> impl Iterator<Item = &'static str> {
    UNPLACED.iter().map(|(table, ..)| *table)
}

/// Counts what the database has of each; what it has nothing of is not returned.
pub(super) fn count(conn: &Connection) -> Result<Vec<LeftOut>> {
    let mut unplaced = UNPLACED.to_vec();
    if has(conn, "Derivations", "")? && !has(conn, "Builds", "job_name")? {
        unplaced.push(("Builds", "", JOBLESS, "builds of which nothing says the job"));
    }
    let mut found = Vec::new();
    for (table, column, holds, what) in unplaced {
        if !has(conn, table, column)? {
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

/// Whether a table has a column, or (`column` is empty) whether the table is there.
fn has(conn: &Connection, table: &str, column: &str) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM pragma_table_info(?1) WHERE ?2 IN ('', name))";
    Ok(conn.query_row(sql, [table, column], |row| row.get(0))?)
}
