//! Build logs and the logs of evaluations: files beside the database, written as they come,
//! compressed when finished, followed by any number of readers.
//!
//! | state of a log | file | who knows its length |
//! |---|---|---|
//! | no byte yet | none | the writer's channel says 0 |
//! | being written | `….log` | the writer's channel, changed after each write |
//! | finished | `….log.zst` | the channel, until [`Logs::forget`]; then the row in the database |
//!
//! L1: the channel changes after the bytes are in the file, so a reader that was told of bytes
//! finds them. L2: `….log` is removed only after `….log.zst` has its name, so one of the two is
//! always there. L3: a log is forgotten only after its row is committed, so a reader finds it in
//! one place or the other. L4: a row that says "started" is committed before its log is there, so whoever
//! commits it announces the log first ([`Logs::announce`]); a reader that has such a row and finds no log waits
//! until the announcements of that moment have ended, and looks again.
//!
//! Readers wait for the channel, never for time. Offsets are those of the plain text.

use crate::model::{
    Build, BuildId, BuildLogFile, BuildStatus, Evaluation, EvaluationStatus, LogName,
};
use crate::os::digest::hex;
use crate::os::file::open_regular;
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

#[cfg(test)]
pub(crate) mod tests;

/// What a writer tells its readers.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    bytes: u64,
    finished: bool,
}

/// The logs of a state directory.
#[derive(Debug, Clone)]
pub(crate) struct Logs {
    state: Arc<PathBuf>,
    /// Guard: the mutex. One entry per running build or evaluation, and for a moment after.
    live: Arc<Mutex<HashMap<LogName, watch::Receiver<Progress>>>>,
    announced: Arc<watch::Sender<Announced>>,
    bytes_max: u64,
}

/// Writes under way that may begin builds or evaluations (L4). Bounded by the builder and the monitors.
#[derive(Debug, Default)]
struct Announced {
    /// The number of the last one.
    last: u64,
    open: BTreeSet<u64>,
}

/// Logs may be about to begin, until this is dropped.
#[derive(Debug)]
#[must_use = "dropped, it has ended"]
pub(crate) struct Announcement {
    announced: Arc<watch::Sender<Announced>>,
    number: u64,
}

impl Drop for Announcement {
    fn drop(&mut self) {
        self.announced.send_modify(|announced| {
            announced.open.remove(&self.number);
        });
    }
}

const CHUNK: usize = 64 * 1024;
/// What stays of a log that met a full disk, at most: it may be what fills it.
const KEPT: u64 = 1 << 20;

impl Logs {
    /// Keeps logs below `state`; none grows beyond `bytes_max`.
    pub(crate) fn new(state: &Path, bytes_max: u64) -> Self {
        Self {
            state: Arc::new(state.to_owned()),
            live: Arc::default(),
            announced: Arc::default(),
            bytes_max,
        }
    }

    /// Says that logs may be about to begin: call it before the write that says so, and drop what it gives when
    /// they are there (L4).
    pub(crate) fn announce(&self) -> Announcement {
        let mut number = 0;
        self.announced.send_modify(|announced| {
            announced.last += 1;
            number = announced.last;
            announced.open.insert(number);
        });
        Announcement { announced: Arc::clone(&self.announced), number }
    }

    /// Waits until every log that was announced before this call is there.
    async fn settled(&self) {
        let last = self.announced.borrow().last;
        let over = |announced: &Announced| announced.open.first().is_none_or(|open| *open > last);
        // The sender lives in `self`, so this cannot fail.
        let _ = self.announced.subscribe().wait_for(over).await;
    }

    fn live(&self) -> std::sync::MutexGuard<'_, HashMap<LogName, watch::Receiver<Progress>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a log. The file comes with its first byte.
    pub(crate) fn create(&self, name: LogName) -> LogWriter {
        let (progress, receiver) = watch::channel(Progress::default());
        self.live().insert(name, receiver);
        LogWriter {
            path: self.state.join(name.path()),
            name,
            file: None,
            progress,
            bytes_max: self.bytes_max,
            cut: false,
            broken: None,
        }
    }

    /// Forgets a finished log. Call it once the row that names the file is committed (L3).
    pub(crate) fn forget(&self, name: LogName) {
        self.live().remove(&name);
    }

    /// Removes a log that belongs to nothing any more. Blocks.
    pub(crate) fn remove(&self, name: LogName) {
        let path = self.state.join(name.path());
        let _ = std::fs::remove_file(&path);
        let _ = std::fs::remove_file(compressed(&path));
    }

    /// Removes a log by the path that [`LogName::path`] gives. Blocks.
    ///
    /// # Errors
    /// It is there and cannot be removed.
    pub(crate) fn remove_at(&self, path: &str) -> io::Result<()> {
        let plain = self.state.join(path);
        for path in [compressed(&plain), plain.clone()] {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if let Some(folder) = plain.parent() {
            // Where others are it stays.
            let _ = std::fs::remove_dir(folder);
        }
        Ok(())
    }

    /// A reader of a build's log from `offset` on. `None`: it has not been started, or not again.
    pub(crate) async fn open(&self, build: &Build, offset: u64) -> Option<LogReader> {
        if !build.has_run() {
            return None;
        }
        let name = LogName::Build(build.id, build.attempt);
        let bytes = u64::try_from(build.log.bytes).unwrap_or(0);
        let running = build.status == BuildStatus::Started;
        Some(self.open_named(name, &build.log.path, bytes, running, offset).await)
    }

    /// A reader of the log of one start of a build. `None`: there was no such start.
    pub(crate) async fn open_attempt(
        &self,
        build: &Build,
        attempt: i64,
        offset: u64,
    ) -> Option<LogReader> {
        if attempt == build.attempt && build.has_run() {
            return self.open(build, offset).await;
        }
        let past = (1..=build.attempt).contains(&attempt);
        let name = LogName::Build(build.id, attempt);
        if past { Some(self.open_named(name, "", 0, false, offset).await) } else { None }
    }

    /// Which of these starts of a build have a log. Blocks for a look at each.
    pub(crate) async fn kept(&self, id: BuildId, attempts: Vec<i64>) -> Vec<i64> {
        let logs = self.clone();
        let kept = move || {
            let there = |attempt: &i64| {
                let name = LogName::Build(id, *attempt);
                let plain = logs.state.join(name.path());
                logs.live().contains_key(&name) || plain.exists() || compressed(&plain).exists()
            };
            Ok(attempts.into_iter().filter(there).collect())
        };
        blocking(kept).await.unwrap_or_default()
    }

    /// Looks whether a finished build's log is what was stored. Blocks.
    ///
    /// # Errors
    /// It is gone, cannot be read, or is another one.
    pub(crate) fn check(&self, build: &Build) -> io::Result<()> {
        let log = &build.log;
        if log.digest.is_empty() || log.path.is_empty() {
            return Ok(());
        }
        let mut digest = Sha256::new();
        io::copy(&mut open_regular(&self.state.join(&log.path))?, &mut digest)?;
        if hex(&digest.finalize()) == log.digest {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "it is damaged: its digest is another one"))
    }

    /// Bytes of a build's log so far, compressed or not.
    pub(crate) fn bytes(&self, build: &Build) -> u64 {
        let live = self.live().get(&LogName::Build(build.id, build.attempt)).cloned();
        match live {
            Some(live) => live.borrow().bytes,
            None => u64::try_from(build.log.bytes).unwrap_or(0),
        }
    }

    /// A reader of an evaluation's log from `offset` on.
    pub(crate) async fn open_evaluation(&self, evaluation: &Evaluation, offset: u64) -> LogReader {
        let name = LogName::Evaluation(evaluation.id);
        let running = evaluation.status == EvaluationStatus::Started;
        // Its row does not say how many bytes; where there are none there is no file.
        self.open_named(name, &evaluation.log_path, 1, running, offset).await
    }

    /// `stored` is where its row says that it is, and `bytes` how many it has, if the row says that.
    async fn open_named(
        &self,
        name: LogName,
        stored: &str,
        bytes: u64,
        running: bool,
        offset: u64,
    ) -> LogReader {
        let plain = self.state.join(name.path());
        let mut live = self.live().get(&name).cloned();
        if live.is_none() && running {
            self.settled().await; // L4
            live = self.live().get(&name).cloned();
        }
        let source = if live.is_some() || stored.is_empty() {
            // A row read a moment ago may not name the file of a log that is finished by now.
            Source::Closed(plain)
        } else {
            Source::Closed(self.state.join(stored.trim_end_matches(".zst")))
        };
        let expected = (live.is_none() && !stored.is_empty()).then_some(bytes);
        LogReader { source, offset, live, missing: false, expected }
    }
}

fn compressed(plain: &Path) -> PathBuf {
    let mut path = plain.as_os_str().to_owned();
    path.push(".zst");
    path.into()
}

/// The writing end of a log. Dropped without [`LogWriter::finish`], readers see its end.
#[derive(Debug)]
pub(crate) struct LogWriter {
    name: LogName,
    path: PathBuf,
    file: Option<File>,
    progress: watch::Sender<Progress>,
    bytes_max: u64,
    /// Nothing more is written.
    cut: bool,
    /// Why nothing more could be written.
    broken: Option<String>,
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

async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match tokio::task::spawn_blocking(f).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(io::Error::other(error)),
        },
    }
}

/// A place in a log.
#[derive(Debug)]
pub(crate) struct LogReader {
    source: Source,
    offset: u64,
    live: Option<watch::Receiver<Progress>>,
    /// Whether there was no file to open.
    missing: bool,
    /// It is finished, stored, and has at least so many bytes.
    expected: Option<u64>,
}

enum Source {
    /// Not opened yet: the plain file's path.
    Closed(PathBuf),
    Plain(File),
    Compressed(Box<zstd::stream::read::Decoder<'static, BufReader<File>>>),
    /// There is no file, and there will be none.
    Empty,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Closed(_) => "Closed",
            Self::Plain(_) => "Plain",
            Self::Compressed(_) => "Compressed",
            Self::Empty => "Empty",
        })
    }
}

impl Source {
    /// Opens whichever of the two files is there, at `offset` of the plain text.
    fn open(plain: &Path, offset: u64) -> io::Result<Self> {
        // L2: looked for in this order, one of them is found.
        match open_regular(plain) {
            Ok(mut file) => {
                file.seek(SeekFrom::Start(offset))?;
                return Ok(Self::Plain(file));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = match open_regular(&compressed(plain)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::Empty),
            Err(error) => return Err(error),
        };
        let mut decoder = zstd::stream::read::Decoder::new(file)?;
        io::copy(&mut (&mut decoder).take(offset), &mut io::sink())?;
        Ok(Self::Compressed(Box::new(decoder)))
    }

    fn read(&mut self, limit: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; limit.min(CHUNK)];
        let count = match self {
            Self::Closed(_) | Self::Empty => 0,
            Self::Plain(file) => file.read(&mut bytes)?,
            Self::Compressed(decoder) => decoder.read(&mut bytes)?,
        };
        bytes.truncate(count);
        Ok(bytes)
    }
}

impl LogReader {
    /// The next bytes; waits for them while the log is being written. `None`: the log has ended.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    ///
    /// # Cancel safety
    /// Dropped while waiting for the writer, nothing is lost. Dropped while reading the file, the
    /// reader has ended.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let limit = match &mut self.live {
            None => u64::MAX,
            Some(live) => loop {
                let progress = *live.borrow_and_update();
                if progress.bytes > self.offset {
                    break progress.bytes - self.offset;
                }
                // A writer that is gone is a log that has ended.
                if progress.finished || live.changed().await.is_err() {
                    let progress = *live.borrow();
                    if progress.bytes > self.offset {
                        continue;
                    }
                    return Ok(None);
                }
            },
        };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let offset = self.offset;
        let mut source = std::mem::replace(&mut self.source, Source::Empty);
        let (source, bytes) = blocking(move || {
            if let Source::Closed(path) = &source {
                source = Source::open(path, offset)?;
            }
            let bytes = source.read(limit)?;
            Ok((source, bytes))
        })
        .await?;
        self.missing |= matches!(source, Source::Empty);
        self.source = source;
        self.offset += u64::try_from(bytes.len()).unwrap_or(0);
        if !bytes.is_empty() {
            return Ok(Some(bytes));
        }
        match self.expected {
            Some(expected) if !self.missing && self.offset < expected => {
                let message = match self.offset {
                    0 => "it is damaged: it is empty".to_owned(),
                    read => format!("it is damaged: it ends after {read} of {expected} bytes"),
                };
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, message))
            }
            _ => Ok(None),
        }
    }

    /// Whether nothing was read because there is no file: of a build that printed nothing, or a lost one.
    pub(crate) fn is_missing(&self) -> bool {
        self.missing
    }

    /// Whether all that was written when this is asked has been read, so that the next read waits.
    pub(crate) fn is_at_end(&self) -> bool {
        let bytes = |live: &watch::Receiver<Progress>| live.borrow().bytes;
        self.live.as_ref().is_some_and(|live| bytes(live) <= self.offset)
    }

    /// Where the next bytes stand in the plain text.
    #[cfg(test)]
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }
}
