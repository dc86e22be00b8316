//! The writing end of a log: appends bytes as they come, then compresses the file.

use super::file::{Progress, compressed};
use crate::model::{BuildLogFile, LogName};
use crate::os::digest::hex;
use crate::os::file::blocking;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tokio::sync::watch;

/// The most bytes that are kept of a log that met a full disk, because the log itself may have filled the disk.
const KEPT: u64 = 1 << 20;

/// The writing end of a log. Dropping it ends the log as well, without compressing it.
#[derive(Debug)]
pub(crate) struct LogWriter {
    pub(super) name: LogName,
    pub(super) path: PathBuf,
    pub(super) file: Option<File>,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) bytes_max: u64,
    /// `true`: nothing more is written.
    pub(super) cut: bool,
    /// Why nothing more could be written; `None`: no write has failed.
    pub(super) broken: Option<String>,
}

impl LogWriter {
    /// Appends bytes. Bytes beyond the size limit are dropped, and one note in the log says so.
    ///
    /// # Cancel safety
    /// Not cancel safe: if the future is dropped while it writes, the writer loses the file.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.cut || bytes.is_empty() {
            return Ok(());
        }
        let room = self.bytes_max.saturating_sub(self.bytes());
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let mut text = bytes[..bytes.len().min(room)].to_vec();
        if text.len() < bytes.len() {
            self.cut = true;
            let limit = self.bytes_max;
            let note =
                format!("\n[brigandine: the log is cut here, at its limit of {limit} bytes]\n");
            text.extend_from_slice(note.as_bytes());
        }
        let (file, path) = (self.file.take(), self.path.clone());
        let begun = blocking(move || {
            let mut file = match file {
                Some(file) => file,
                None => create(&path)?,
            };
            let (written, outcome) = write_some(&mut file, &text);
            Ok((file, written, outcome))
        });
        let outcome = match begun.await {
            Ok((file, written, outcome)) => {
                self.file = Some(file);
                let count = u64::try_from(written).unwrap_or(0);
                // LOG1
                self.progress.send_modify(|progress| progress.bytes += count);
                outcome
            }
            Err(error) => Err(error),
        };
        outcome.inspect_err(|error| {
            self.cut = true;
            self.broken = Some(error.to_string());
        })
    }

    /// Bytes written so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.progress.borrow().bytes
    }

    /// Ends the log for its readers and compresses the file. If that fails, the plain file stays. If a write had
    /// failed, a note at the end of the log says so.
    pub(crate) async fn finish(mut self) -> BuildLogFile {
        let file = self.file.take();
        let mut bytes = self.bytes();
        if let (Some(file), Some(why)) = (&file, self.broken.take()) {
            let text = format!("\n[brigandine: the log is cut here: {why}]\n");
            let file = file.try_clone();
            let noted = blocking(move || note_cut(&file?, bytes, text.as_bytes())).await;
            bytes = noted.unwrap_or(bytes);
        }
        self.progress.send_modify(|progress| *progress = Progress { bytes, finished: true });
        let Some(file) = file else { return BuildLogFile::default() };
        drop(file);
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let path = self.path.clone();
        match blocking(move || compress(&path)).await {
            Ok(digest) => BuildLogFile { path: format!("{}.zst", self.name.path()), bytes, digest },
            Err(error) => {
                tracing::warn!(%error, "cannot compress a log: it stays as it is");
                BuildLogFile { path: self.name.path(), bytes, digest: String::new() }
            }
        }
    }
}

/// Ends a log that a killed server left as a plain file: a note says `why` it ends, and the file is compressed. If there
/// is no plain file, nothing is done.
pub(super) fn close(path: &Path, why: &str) -> io::Result<()> {
    let mut file = match File::options().append(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    file.write_all(format!("\n[brigandine: {why}]\n").as_bytes())?;
    drop(file);
    compress(path).map(drop)
}

/// Writes as much as possible. Returns the number of bytes that were written.
fn write_some(file: &mut File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// Replaces the end of a log of `bytes` bytes by `text`, and returns its new length. On a full disk this makes room for
/// the text, for the compressed file, and for the row that names it.
fn note_cut(file: &File, bytes: u64, text: &[u8]) -> io::Result<u64> {
    let kept = bytes.saturating_sub((bytes / 8).max(64 * 1024)).min(KEPT);
    file.set_len(kept)?;
    file.write_all_at(text, kept)?;
    Ok(kept + u64::try_from(text.len()).unwrap_or(0))
}

/// Compresses a log, and returns the digest of the compressed file. If this fails, the log stays as it is.
fn compress(path: &Path) -> io::Result<String> {
    let target = compressed(path);
    let mut partial = target.clone().into_os_string();
    partial.push(".partial");
    let compress = || {
        let file = private().create(true).truncate(true).open(&partial)?;
        let mut sink = Digesting { file, digest: Sha256::new() };
        let mut encoder = zstd::stream::Encoder::new(&mut sink, 3)?;
        // With a checksum, readers notice damage.
        encoder.include_checksum(true)?;
        io::copy(&mut File::open(path)?, &mut encoder)?;
        encoder.finish()?;
        // The file must be on the disk before the row that names it is committed.
        sink.file.sync_all()?;
        std::fs::rename(&partial, &target)?;
        Ok(sink)
    };
    let sink = compress().inspect_err(|_: &io::Error| {
        let _ = std::fs::remove_file(&partial);
    })?;
    if let Some(folder) = target.parent() {
        File::open(folder)?.sync_all()?;
    }
    std::fs::remove_file(path)?; // LOG2
    Ok(hex(&sink.digest.finalize()))
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.progress.send_modify(|progress| progress.finished = true);
    }
}

fn create(path: &Path) -> io::Result<File> {
    let open = || private().create(true).truncate(true).open(path);
    let mut done = open();
    // Retention removes a folder together with its last log, perhaps between the two calls below. So try again a few
    // times.
    for _ in 0..16 {
        if !done.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            break;
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
            // Sync the new folder's name.
            if let Some(above) = parent.parent() {
                File::open(above)?.sync_all()?;
            }
        }
        done = open();
    }
    done
}

/// Options for a file that only the server's user can read.
fn private() -> std::fs::OpenOptions {
    let mut options = File::options();
    options.write(true).mode(0o600);
    options
}

struct Digesting {
    file: File,
    digest: Sha256,
}

impl Write for Digesting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.digest.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
