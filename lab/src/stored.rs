//! Checks the file after a measurement: is every write stored that was answered with success?

use std::path::Path;

use measure::{Figures, Random, Workload, person, sql};
use rusqlite::Connection;

use crate::Result;

/// How many of the writes that succeeded are not in the file. Each is looked up by its key, so that a row of a failed
/// write cannot stand for a lost row.
pub(crate) fn missing(file: &Path, workload: Workload, figures: &Figures) -> Result<u64> {
    let conn = Connection::open(file)?;
    if workload == Workload::ReadPage {
        return missing_builds(&conn, figures);
    }
    let mut find = conn.prepare("SELECT 1 FROM person WHERE name = ?1")?;
    let mut missing = 0;
    let mut look = |key: &str| -> Result<()> {
        missing += u64::from(!find.exists([key])?);
        Ok(())
    };
    for written in &figures.written {
        let mut keys = Random::of_task(written.seed);
        for is_answered in written.calls() {
            let key = keys.key();
            if is_answered {
                look(&key)?;
            }
        }
    }
    for n in 0..figures.bulk_rows {
        look(&person(n))?;
    }
    Ok(missing)
}

/// Builds have no keys of their own, so they are counted for each project.
fn missing_builds(conn: &Connection, figures: &Figures) -> Result<u64> {
    let mut answered = vec![0_u64; sql::PROJECTS as usize];
    for written in &figures.written {
        let mut keys = Random::of_task(written.seed);
        for is_answered in written.calls() {
            let project = keys.next() % sql::PROJECTS;
            answered[project as usize] += u64::from(is_answered);
        }
    }
    let mut count = conn.prepare("SELECT count(*) FROM build WHERE project = ?1")?;
    let mut missing = 0;
    for (project, answered) in (1_i64..).zip(answered) {
        let stored: i64 = count.query_row([project], |row| row.get(0))?;
        missing += (sql::BUILDS + answered).saturating_sub(stored.cast_unsigned());
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use measure::Written;

    use super::*;
    use crate::files::Files;

    /// Stores the first three keys of a task except one, and three rows of other keys.
    fn stored_but(lost: usize) -> (Files, std::path::PathBuf) {
        let files = Files::make([Workload::TinyWrites].into_iter()).unwrap();
        let file = files.get(Workload::TinyWrites, false).unwrap();
        let conn = Connection::open(&file).unwrap();
        let mut keys = Random::of_task(7);
        for n in 0..3 {
            let key = keys.key();
            if n != lost {
                conn.execute(sql::INSERT, (key, 1)).unwrap();
            }
            conn.execute(sql::INSERT, (format!("untold-{n}"), 1)).unwrap();
        }
        (files, file)
    }

    #[test]
    fn an_answered_row_that_is_gone_is_missed_however_many_others_are_stored() {
        let (_files, file) = stored_but(1);
        let mut figures = Figures::default();
        figures.written.push(Written { seed: 7, calls: 3, failed: vec![] });
        assert_eq!(missing(&file, Workload::TinyWrites, &figures).unwrap(), 1);
        figures.written[0].failed.push(1);
        assert_eq!(missing(&file, Workload::TinyWrites, &figures).unwrap(), 0);
        figures.bulk_rows = 2;
        assert_eq!(missing(&file, Workload::TinyWrites, &figures).unwrap(), 2);
    }

    #[test]
    fn an_answered_build_is_looked_for_in_its_project() {
        let files = Files::make([Workload::ReadPage].into_iter()).unwrap();
        let file = files.get(Workload::ReadPage, false).unwrap();
        let figures = Figures {
            written: vec![Written { seed: 0, calls: 1, failed: vec![] }],
            ..Figures::default()
        };
        let project = Random::of_task(0).next() % sql::PROJECTS;
        let conn = Connection::open(&file).unwrap();
        let add = |project: u64| {
            conn.execute(sql::ADD_BUILD, ((project + 1).cast_signed(), 0, 60)).unwrap();
        };
        add((project + 1) % sql::PROJECTS);
        assert_eq!(missing(&file, Workload::ReadPage, &figures).unwrap(), 1);
        add(project);
        assert_eq!(missing(&file, Workload::ReadPage, &figures).unwrap(), 0);
    }
}
