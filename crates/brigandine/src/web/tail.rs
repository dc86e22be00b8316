//! The end of a build log, as a page shows it. For a running build, the end of what it has written so far.

use super::ansi::Lines;
use crate::log::LogReader;

/// How many bytes from the end of a build log a page shows.
const TAIL: u64 = 256 * 1024;

/// How many bytes before these are also read, so that no character or control sequence is cut at the beginning.
const LEAD: u64 = 256;

/// The end of a build log, and the reader that continues from there.
pub(super) struct Tail {
    /// The offset at which the shown part begins.
    pub(super) from: u64,
    /// The complete lines.
    pub(super) html: String,
    /// What turns further bytes into lines. It has the unfinished line.
    pub(super) lines: Lines,
    /// The reader, positioned behind the last byte that was read.
    pub(super) reader: LogReader,
    /// Whether the log has ended, or cannot be read any further.
    pub(super) ended: bool,
    /// Why the rest of the file cannot be read; `None`: the file can be read.
    pub(super) error: Option<std::io::Error>,
}

/// The offset from which to read, in a log of this many bytes, to get its end.
pub(super) const fn start(bytes: u64) -> u64 {
    bytes.saturating_sub(TAIL + LEAD)
}

impl Tail {
    /// Reads what the log has, without waiting for more to be written. `reader` begins at `from`, which is [`start`] or
    /// any offset before it; surplus bytes are skipped. If a file cannot be read to its end, the result has its first
    /// part.
    pub(super) async fn read(mut reader: LogReader, mut from: u64) -> Self {
        let most = usize::try_from(TAIL + LEAD).unwrap_or(usize::MAX);
        let (mut text, mut error) = (Vec::new(), None);
        let ended = loop {
            if reader.is_at_end() {
                break false;
            }
            let piece = match reader.next().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break true,
                Err(found) => {
                    error = Some(found);
                    break true;
                }
            };
            text.extend_from_slice(&piece);
            if text.len() > 2 * most {
                let over = text.len() - most;
                text.drain(..over);
                from += over as u64;
            }
        };
        let over = text.len().saturating_sub(most);
        text.drain(..over);
        from += over as u64;
        let mut lines = Lines::at(from);
        let mut html = String::new();
        if from > 0 {
            let skipped = whole(&text);
            lines.push(&text[..skipped], &mut html);
            lines.forget();
            html.clear();
            text.drain(..skipped);
            from += skipped as u64;
        }
        lines.push(&text, &mut html);
        if ended {
            lines.finish(&mut html);
        }
        Self { from, html, lines, reader, ended, error }
    }
}

/// How many bytes to skip so that the rest begins with a whole line. If there is no line end, the rest begins behind a
/// carriage return. If there is none either, [`LEAD`] bytes are skipped.
fn whole(text: &[u8]) -> usize {
    let lead = usize::try_from(LEAD).unwrap_or(0).min(text.len());
    let behind = |byte: u8| {
        let at = text[lead..].iter().position(|&found| found == byte)?;
        let begin = lead + at + 1;
        let something = text[begin..].iter().any(|byte| !matches!(byte, b'\r' | b'\n'));
        something.then_some(begin)
    };
    behind(b'\n').or_else(|| behind(b'\r')).unwrap_or(lead)
}

#[cfg(test)]
mod tests;
