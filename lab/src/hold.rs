//! A process that takes and releases the write lock of a database on request.

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use crate::Result;

/// Reads `take` and `release` from standard input, and prints `held` and `released`. Ends at the end of its input.
pub(crate) fn run(file: &Path) -> Result<()> {
    let conn = Connection::open(file)?;
    conn.busy_timeout(Duration::from_secs(10))?;
    for line in std::io::stdin().lock().lines() {
        let said = match line?.as_str() {
            "take" => conn.execute_batch("BEGIN IMMEDIATE").map(|()| "held"),
            "release" => conn.execute_batch("COMMIT").map(|()| "released"),
            order => return Err(format!("cannot `{order}`; orders are take and release").into()),
        };
        let mut out = std::io::stdout().lock();
        match said {
            Ok(said) => writeln!(out, "{said}")?,
            Err(error) => writeln!(out, "{error}")?,
        }
        out.flush()?;
    }
    Ok(())
}
