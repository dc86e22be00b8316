//! The reading end of a log, which follows the writer.

use super::file::{Progress, compressed};
use crate::os::file::{blocking, open_regular};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use tokio::sync::watch;

/// The most bytes of one read.
const CHUNK: usize = 64 * 1024;

/// A position in a log.
pub(crate) struct LogReader {
    pub(super) source: Source,
    /// The offset of the next byte in the plain text.
    pub(super) offset: u64,
    /// The progress that the writer reports; `None`: the log is stored.
    pub(super) live: Option<watch::Receiver<Progress>>,
    /// `true`: there was no file to open.
    pub(super) missing: bool,
    /// The least number of bytes of a stored log; `None`: it is not known.
    pub(super) expected: Option<u64>,
}

pub(super) enum Source {
    /// Not opened yet. The path is that of the plain file.
    Closed(PathBuf),
    /// The plain text, from the reader's offset on.
    Open(Box<dyn Read + Send + Sync>),
    /// There is no file, and there will be none.
    Empty,
}

impl Source {
    /// Opens the plain or the compressed file, at `offset` of the plain text.
    fn open(plain: &Path, offset: u64) -> io::Result<Self> {
        // The plain file is tried first. It is removed only when the compressed file exists, so one of them is found
        // (LOG2).
        match open_regular(plain) {
            Ok(mut file) => {
                file.seek(SeekFrom::Start(offset))?;
                return Ok(Self::Open(Box::new(file)));
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
        Ok(Self::Open(Box::new(decoder)))
    }

    fn read(&mut self, limit: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; limit.min(CHUNK)];
        let count = match self {
            Self::Closed(_) | Self::Empty => 0,
            Self::Open(text) => text.read(&mut bytes)?,
        };
        bytes.truncate(count);
        Ok(bytes)
    }
}

impl LogReader {
    /// The next bytes; waits for them while the log is being written. `None`: the log has ended.
    ///
    /// # Errors
    /// The log cannot be read, or is damaged.
    ///
    /// # Cancel safety
    /// If the future is dropped while it waits for the writer, nothing is lost. If it is dropped while it reads the
    /// file, the reader returns no more bytes.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let limit = match &mut self.live {
            None => u64::MAX,
            Some(live) => loop {
                let progress = *live.borrow_and_update();
                if progress.bytes > self.offset {
                    break progress.bytes - self.offset;
                }
                // If the writer is gone, the log has ended.
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

    /// Whether there is no file: the build printed nothing, or the log is lost.
    pub(crate) fn is_missing(&self) -> bool {
        self.missing
    }

    /// Whether everything written so far has been read, so that the next read waits.
    pub(crate) fn is_at_end(&self) -> bool {
        let bytes = |live: &watch::Receiver<Progress>| live.borrow().bytes;
        self.live.as_ref().is_some_and(|live| bytes(live) <= self.offset)
    }

    /// The offset of the next byte in the plain text.
    #[cfg(test)]
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }
}
