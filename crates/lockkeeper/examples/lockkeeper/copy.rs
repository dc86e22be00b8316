//! Making and restoring backups.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;

use lockkeeper::{BackupProgress, BackupReport, Restore};
use serde_json::json;

use crate::stop::Stop;
use crate::{Answer, Outcome};

pub(crate) fn backup(file: &Path, to: &Path, stop: &Stop) -> Outcome {
    let report = copy(file, to, stop)?;
    let facts = json!({
        "backup": to.display().to_string(),
        "bytes": report.bytes,
        "milliseconds": report.elapsed.as_millis() as u64,
        "integrity_check": "ok",
    });
    Ok(Answer { facts, good: true })
}

pub(crate) fn restore(from: &Path, file: &Path, stop: &Stop) -> Outcome {
    let report = copy(from, file, stop)?;
    let (file, bytes) = (file.display().to_string(), report.bytes);
    let facts = json!({ "restored": file, "bytes": bytes, "integrity_check": "ok" });
    Ok(Answer { facts, good: true })
}

/// Copies with `Restore`, because opening a `Database` would switch the file to WAL mode.
fn copy(from: &Path, to: &Path, stop: &Stop) -> Result<BackupReport, lockkeeper::Error> {
    let mut told = 0;
    let restore = Restore::new(from, to).stop_when(Arc::clone(&stop.0)).progress(move |progress| {
        let BackupProgress { pages, of, .. } = progress;
        let percent = pages * 100 / of.max(1);
        // The progress is shown only on a terminal, every ten per cent.
        if percent / 10 > told && std::io::stderr().is_terminal() {
            told = percent / 10;
            let then = if pages == of { "; checking the copy" } else { "" };
            eprintln!("lockkeeper: {percent} % of {of} pages copied{then}");
        }
    });
    restore.blocking_run()
}
