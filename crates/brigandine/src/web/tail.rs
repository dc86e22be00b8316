//! The end of a build log, as a page shows it; of a running build, the end so far.

use super::ansi::Lines;
use crate::log::LogReader;

/// Bytes from the end of a build log that a page shows.
const TAIL: u64 = 256 * 1024;

/// Bytes before these that are read as well, so that no character or control sequence is cut at the beginning.
const LEAD: u64 = 256;

/// The end of a log, and what reads on from there.
pub(super) struct Tail {
    /// Where the shown part begins.
    pub(super) from: u64,
    /// The complete lines.
    pub(super) html: String,
    /// Holds the unfinished line.
    pub(super) lines: Lines,
    /// Stands behind the last byte that was read.
    pub(super) reader: LogReader,
    /// Whether the log has ended.
    pub(super) ended: bool,
    /// Why the rest of the file cannot be read.
    pub(super) error: Option<std::io::Error>,
}

/// The offset at which the end of a log with this many bytes begins.
pub(super) const fn start(bytes: u64) -> u64 {
    bytes.saturating_sub(TAIL + LEAD)
}

impl Tail {
    /// Reads what the log has, without waiting for more to be written. `reader` begins at `from`, which is [`start`] or
    /// any offset before it: further bytes are skipped. A file that cannot be read to its end gives its first part.
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

/// How many bytes to leave out so that the rest begins with a whole line; without one, behind a carriage return;
/// without one, behind [`LEAD`].
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
