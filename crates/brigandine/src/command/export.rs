//! `brigandine export`: prints the whole history as JSON lines.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::serve::Signals;
use super::terminal::Reports;
use super::{Failure, existing, file_failed, say};
use crate::cli;
use crate::os::folder::{Temporary, unused};
use crate::store::{self, ExportError};

/// The bytes that are written at once.
const BUFFER: usize = 1 << 16;

/// Prints the history, or writes it into a file.
///
/// # Errors
/// There is no state directory, something has the name of the file, or the history cannot be read or written.
pub(crate) async fn run(arguments: &cli::Export) -> Result<(), Failure> {
    let database = existing(&arguments.state.state).await?;
    let partial = arguments.output.as_deref().map(begin).transpose()?;
    let mut out: Box<dyn Write + Send> = match &partial {
        None => Box::new(io::stdout()),
        Some((file, path)) => {
            Box::new(file.try_clone().map_err(|error| file_failed(&path.0, &error))?)
        }
    };
    let reports = Arc::new(Reports::new());
    let own = Arc::clone(&reports);
    let read = database.read_once(move |s| {
        let report = |done: i64, all: i64| {
            own.show(false, || format!("{done} of {all} rows ({} %)", done * 100 / all.max(1)));
        };
        Ok(store::export(s, &mut BufWriter::with_capacity(BUFFER, &mut out), &report))
    });
    let written = match &partial {
        // A signal ends the program, and nothing is left to remove.
        None => read.await,
        Some(_) => {
            let mut signals = Signals::new()?;
            tokio::select! {
                written = read.into_future() => written,
                name = signals.next() => {
                    reports.clear();
                    return Err(Failure::failed(format!("{name}: stopped; what was written has been removed")));
                }
            }
        }
    };
    reports.clear();
    let rows = match written? {
        // Whoever read the lines has enough of them.
        Err(ExportError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            return Err(Failure::failed(""));
        }
        written => written.map_err(|error| Failure::failed(error.to_string()))?,
    };
    database.close().await?;
    if let (Some((file, partial)), Some(to)) = (partial, &arguments.output) {
        let placed = file.sync_all().and_then(|()| put_in_place(&partial.0, to));
        placed.map_err(|error| file_failed(to, &error))?;
        let all: i64 = rows.values().sum();
        say(&format!("{} builds, {all} rows", rows.get("build").copied().unwrap_or(0)));
    }
    Ok(())
}

/// Makes the file that becomes `to`, under another name beside it.
fn begin(to: &Path) -> Result<(File, Temporary), Failure> {
    if to.symlink_metadata().is_ok() {
        return Err(Failure::failed(format!(
            "there is something at {} already, and an export replaces nothing: name another file",
            to.display()
        )));
    }
    let folder = folder(to);
    let partial = Temporary(unused(&folder, ".brigandine-export-", ".partial"));
    // Other users may not read it, as they may not read the state directory.
    let made = File::options().write(true).create_new(true).mode(0o600).open(&partial.0);
    Ok((made.map_err(|error| file_failed(&folder, &error))?, partial))
}

fn folder(of: &Path) -> PathBuf {
    match of.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Gives the finished file its name, unless something has it.
fn put_in_place(partial: &Path, to: &Path) -> io::Result<()> {
    // A hard link replaces nothing. The name of before is removed with the temporary file.
    std::fs::hard_link(partial, to)?;
    File::open(folder(to))?.sync_all()
}
