//! The writing end of a log: bytes as they come, then the compressed file.

use super::file::{Progress, blocking, compressed};
use crate::model::{BuildLogFile, LogName};
use crate::os::digest::hex;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tokio::sync::watch;

/// What stays of a log that met a full disk, at most: it may be what fills it.
const KEPT: u64 = 1 << 20;

/// The writing end of a log. Dropped without [`LogWriter::finish`], readers see its end.
#[derive(Debug)]
pub(crate) struct LogWriter {
    pub(super) name: LogName,
    pub(super) path: PathBuf,
    pub(super) file: Option<File>,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) bytes_max: u64,
    /// Nothing more is written.
    pub(super) cut: bool,
    /// Why nothing more could be written.
    pub(super) broken: Option<String>,
}

impl LogWriter {
    /// Appends bytes. Beyond the size limit they are dropped, and the log says so once.
    ///
    /// # Cancel safety
    /// Not cancel safe: dropped in the middle, the log's file is lost to this writer.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.cut || bytes.is_empty() {
            return Ok(());
        }
        let written = self.progress.borrow().bytes;
        let room = self.bytes_max.saturating_sub(written);
        let mut text;
        let kept = if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > room {
            self.cut = true;
            text = bytes[..usize::try_from(room).unwrap_or(0)].to_vec();
            text.extend_from_slice(
                format!(
                    "\n[brigandine: the log is cut here, at its limit of {} bytes]\n",
                    self.bytes_max
                )
                .as_bytes(),
            );
            text
        } else {
            text = Vec::new();
            text.extend_from_slice(bytes);
            text
        };
        let path = self.file.is_none().then(|| self.path.clone());
        let file = self.file.take();
        let begun = blocking(move || {
            let mut file = match (file, path) {
                (Some(file), _) => file,
                (None, Some(path)) => create(&path)?,
                (None, None) => return Err(io::Error::other("the log's file was lost")),
            };
            let (written, outcome) = write_some(&mut file, &kept);
            Ok((file, written, outcome))
        });
        let outcome = match begun.await {
            Ok((file, written, outcome)) => {
                self.file = Some(file);
                let count = u64::try_from(written).unwrap_or(0);
                // L1: told after it is written.
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

    /// How many bytes it has.
    pub(crate) fn bytes(&self) -> u64 {
        self.progress.borrow().bytes
    }

    /// Ends the log: readers that reach its end are done; the file is compressed, or stays as it is where that is not
    /// possible. One that could not be written to its end says so.
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

/// Writes what can be written, and says how much that was.
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

/// Says in a log of so many bytes that it is cut, and how many it has then. Its last bytes go: on a full disk that is
/// the room for saying so, for compressing it, and for the row that names it.
fn note_cut(file: &File, bytes: u64, text: &[u8]) -> io::Result<u64> {
    let kept = bytes.saturating_sub((bytes / 8).max(64 * 1024)).min(KEPT);
    file.set_len(kept)?;
    file.write_all_at(text, kept)?;
    Ok(kept + u64::try_from(text.len()).unwrap_or(0))
}

/// Compresses a log, and gives the digest of what came of it. A failure leaves the log as it is.
fn compress(path: &Path) -> io::Result<String> {
    let target = compressed(path);
    let mut partial = target.clone().into_os_string();
    partial.push(".partial");
    let compress = || {
        let file = private().create(true).truncate(true).open(&partial)?;
        let mut sink = Digesting { file, digest: Sha256::new() };
        let mut encoder = zstd::stream::Encoder::new(&mut sink, 3)?;
        // Damage is found where it is read.
        encoder.include_checksum(true)?;
        io::copy(&mut File::open(path)?, &mut encoder)?;
        encoder.finish()?;
        // On the disk before the row that names it.
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
    std::fs::remove_file(path)?; // L2
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
    // A folder may go again with the last log that is removed there: once, or a few times where much is removed.
    for _ in 0..16 {
        if !done.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            break;
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
            // The new folder's own name.
            if let Some(above) = parent.parent() {
                File::open(above)?.sync_all()?;
            }
        }
        done = open();
    }
    done
}

/// For a file that nobody else reads.
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
