//! The end of a build log as a page shows it: what there is so far of one that is being written.

use super::ansi::Lines;
use crate::log::LogReader;

/// Bytes from the end of a build log that a page shows.
const TAIL: u64 = 256 * 1024;

/// Bytes before these that are read as well, to learn whether a character or a control sequence is cut there.
const LEAD: u64 = 256;

/// The end of a log, and where to go on.
pub(super) struct Tail {
    /// Where the shown part begins.
    pub(super) from: u64,
    /// The complete lines.
    pub(super) html: String,
    /// Knows the line whose end has not come.
    pub(super) lines: Lines,
    /// At the end of what there was.
    pub(super) reader: LogReader,
    /// Whether the log has ended.
    pub(super) ended: bool,
    /// Why what is shown is not all: the rest of the file cannot be read.
    pub(super) error: Option<std::io::Error>,
}

/// Where a reader of the end of a log with so many bytes begins.
pub(super) const fn start(bytes: u64) -> u64 {
    bytes.saturating_sub(TAIL + LEAD)
}

impl Tail {
    /// Reads what `reader` gives without waiting for more to be written. It begins at [`start`], or anywhere
    /// before: what is too much is passed over. Of a file that cannot be read to its end it has what comes before.
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

/// How many bytes of a log's end are left out, so that it begins with a whole line; where there is none, with a
/// line that was drawn anew after a carriage return; where there is none either, anywhere.
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
