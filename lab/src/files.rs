//! The databases for measurements. Each kind is made once, and copied for peers that write to it.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use measure::{Workload, person, sql};
use rusqlite::Connection;

use crate::Result;
use crate::place::Place;

/// Databases in a directory that is removed when this is dropped.
pub(crate) struct Files {
    place: Place,
    next: Cell<u32>,
}

impl Files {
    /// Makes the databases for these workloads.
    pub(crate) fn make(workloads: impl Iterator<Item = Workload>) -> Result<Self> {
        let files = Self { place: Place::new()?, next: Cell::new(0) };
        let mut made = Vec::new();
        for name in workloads.map(template) {
            if made.contains(&name) {
                continue;
            }
            let mut conn = Connection::open(files.place.file(name))?;
            conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
            let tx = conn.transaction()?;
            match name {
                "page" => fill_page(&tx)?,
                "people" => {
                    tx.execute_batch(sql::PERSON)?;
                    let mut insert = tx.prepare(sql::INSERT)?;
                    for n in 0..sql::PEOPLE {
                        insert.execute((person(n), 1))?;
                    }
                }
                _ => tx.execute_batch(sql::PERSON)?,
            }
            tx.commit()?;
            conn.close().map_err(|(_, error)| error)?;
            made.push(name);
        }
        Ok(files)
    }

    /// The directory of all databases.
    pub(crate) fn dir(&self) -> PathBuf {
        self.place.file("")
    }

    /// The database for one measurement. `converts`: the peer changes even a file that it only reads.
    ///
    /// A copy is at `sql/app.db` in a directory of its own, because tinystore expects it there.
    pub(crate) fn get(&self, workload: Workload, converts: bool) -> Result<PathBuf> {
        let from = self.place.file(template(workload));
        if is_only_read(workload) && !converts {
            return Ok(from);
        }
        let n = self.next.replace(self.next.get() + 1);
        let to = self.place.file(&n.to_string()).join("sql/app.db");
        std::fs::create_dir_all(to.with_file_name(""))?;
        std::fs::copy(from, &to)?;
        // Synced now, so that the copy is not written to the disk during the measurement.
        std::fs::File::open(&to)?.sync_all()?;
        Ok(to)
    }

    /// Removes a copy with its directory.
    pub(crate) fn done(&self, file: &Path) -> Result<()> {
        match file.parent().and_then(Path::parent) {
            Some(dir) if dir.parent() == Some(&self.dir()) => Ok(std::fs::remove_dir_all(dir)?),
            _ => Ok(()),
        }
    }
}

fn template(workload: Workload) -> &'static str {
    match workload {
        Workload::PointReads | Workload::Mixed | Workload::LongScan => "people",
        Workload::ReadPage => "page",
        Workload::TinyWrites
        | Workload::Stall
        | Workload::Fairness
        | Workload::Cancel
        | Workload::Bulk => "empty",
    }
}

fn is_only_read(workload: Workload) -> bool {
    matches!(workload, Workload::PointReads | Workload::LongScan)
}

fn fill_page(tx: &Connection) -> Result<()> {
    tx.execute_batch(sql::PAGE_SCHEMA)?;
    let mut project = tx.prepare("INSERT INTO project (id, name, builds) VALUES (?1, ?2, ?3)")?;
    for n in 0..sql::PROJECTS {
        let builds = sql::BUILDS.cast_signed();
        project.execute(((n + 1).cast_signed(), sql::project(n), builds))?;
    }
    let mut build = tx.prepare(sql::ADD_BUILD)?;
    for n in 0..sql::PROJECTS * sql::BUILDS {
        let n = n.cast_signed();
        let projects = sql::PROJECTS.cast_signed();
        build.execute((n % projects + 1, (n / projects) % 4, 30 + n % 60))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_goes_with_what_lies_beside_it_and_the_template_stays() {
        let files = Files::make([Workload::TinyWrites].into_iter()).unwrap();
        let file = files.get(Workload::TinyWrites, false).unwrap();
        std::fs::write(file.with_file_name("app.db-log"), "beside").unwrap();
        files.done(&file).unwrap();
        assert!(!file.with_file_name("").exists());
        let template = files.dir().join("empty");
        files.done(&template).unwrap();
        assert!(template.exists());
    }
}
