//! The lines of a log, from the first one on.
//!
//! - LOG5: a pass keeps [`KEPT`] bytes of a line and one piece of the file, however long the log and its lines are.

use super::LogReader;
use std::io;

/// The most bytes of one line that are kept. The rest of the line is read over.
pub(crate) const KEPT: usize = 64 * 1024;

/// A pass over the lines of a log, as far as the log goes now: it never waits for a writer.
pub(crate) struct LinePass {
    reader: LogReader,
    /// What was read last.
    piece: Vec<u8>,
    /// Where the rest of the piece begins.
    at: usize,
    /// The number of the line that [`LinePass::next`] returns. The first line has 1.
    number: u64,
    text: Vec<u8>,
}

/// A line of a log, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    pub(crate) number: u64,
    pub(crate) text: &'a [u8],
    /// How many bytes of the line were left out.
    pub(crate) omitted: u64,
}

impl LinePass {
    /// A pass with a reader at the beginning of its log.
    pub(crate) fn new(reader: LogReader) -> Self {
        Self { reader, piece: Vec::new(), at: 0, number: 1, text: Vec::new() }
    }

    /// Reads over the lines before the one with this number. If there are fewer lines, the pass is at the end of the log.
    ///
    /// # Errors
    /// The log cannot be read, or is damaged.
    pub(crate) async fn skip_to(&mut self, number: u64) -> io::Result<()> {
        while self.number < number {
            let rest = &self.piece[self.at..];
            let ends = rest.iter().filter(|byte| **byte == b'\n').count() as u64;
            if self.number + ends < number {
                self.number += ends;
                if !self.fill().await? {
                    return Ok(());
                }
                continue;
            }
            // The line begins in this piece.
            let before = usize::try_from(number - self.number).unwrap_or(usize::MAX);
            let mut ends = (0..rest.len()).filter(|at| rest[*at] == b'\n');
            self.at += ends.nth(before - 1).map_or(0, |end| end + 1);
            self.number = number;
        }
        Ok(())
    }

    /// The next line. `None`: the log has no more lines now. The last line need not have an end.
    ///
    /// # Errors
    /// The log cannot be read, or is damaged.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.text.clear();
        let (mut omitted, mut begun) = (0, false);
        loop {
            let rest = &self.piece[self.at..];
            if rest.is_empty() {
                match self.fill().await? {
                    true => continue,
                    false if begun => break,
                    false => return Ok(None),
                }
            }
            begun = true;
            let end = rest.iter().position(|byte| *byte == b'\n');
            let part = &rest[..end.unwrap_or(rest.len())];
            let kept = part.len().min(KEPT - self.text.len());
            self.text.extend_from_slice(&part[..kept]);
            omitted += (part.len() - kept) as u64;
            self.at += part.len() + usize::from(end.is_some());
            if end.is_some() {
                break;
            }
        }
        let number = self.number;
        self.number += 1;
        Ok(Some(Line { number, text: &self.text, omitted }))
    }

    /// Reads the next piece. `false`: there is none now.
    async fn fill(&mut self) -> io::Result<bool> {
        self.piece.clear();
        self.at = 0;
        if self.reader.is_at_end() {
            return Ok(false);
        }
        let Some(piece) = self.reader.next().await? else { return Ok(false) };
        self.piece = piece;
        Ok(true)
    }

    /// Whether there is no file: the build printed nothing, or the log is lost.
    pub(crate) fn is_missing(&self) -> bool {
        self.reader.is_missing()
    }
}

#[cfg(test)]
mod tests {
    use super::{KEPT, LinePass};
    use crate::log::Logs;
    use crate::log::tests::build;
    use crate::model::{Build, BuildId, BuildLogFile, BuildStatus, LogName};

    /// A log with this text while it is written, and when it has ended.
    async fn passes(text: &[u8]) -> (tempfile::TempDir, [LinePass; 2]) {
        let state = tempfile::tempdir().expect("a directory");
        let logs = Logs::new(state.path(), u64::MAX);
        let mut writer = logs.create(LogName::Build(BuildId::new(7), 1));
        writer.write(text).await.expect("written");
        let of = |status, log| Build { status, log, started_at: 1, ..build(1, "") };
        let running = of(BuildStatus::Started, BuildLogFile::default());
        let live = logs.open(&running, 0).await.expect("a log");
        let mut live = LinePass::new(live);
        // The file is open before it is compressed.
        live.fill().await.expect("read");
        let finished = of(BuildStatus::Failed, writer.finish().await);
        logs.forget(LogName::Build(BuildId::new(7), 1));
        let ended = logs.open(&finished, 0).await.expect("a log");
        (state, [live, LinePass::new(ended)])
    }

    /// Lines of many lengths, with and without an end of the last one.
    fn texts() -> Vec<String> {
        let long = "x".repeat(KEPT + 7);
        let many: String = (0..10_000).map(|n| format!("line {n}\n")).collect();
        vec![
            String::new(),
            "\n".to_owned(),
            "one".to_owned(),
            "one\n\n\nfour\n".to_owned(),
            format!("a\n{long}\nb\n{long}"),
            "y".repeat(64 * 1024 - 1) + "\nbehind a piece\n",
            "y".repeat(64 * 1024) + "\nbehind a piece\n",
            many,
        ]
    }

    #[tokio::test]
    async fn a_pass_from_any_line_returns_the_lines_of_the_text_and_their_numbers() {
        for text in texts() {
            let lines: Vec<&str> = text.split_terminator('\n').collect();
            let count = lines.len() as u64;
            for from in [1, 2, 3, 4, 500, count.max(1), count + 1, count + 2, u64::MAX] {
                let (_state, both) = passes(text.as_bytes()).await;
                for mut pass in both {
                    pass.skip_to(from).await.expect("read");
                    let mut number = from;
                    while let Some(line) = pass.next().await.expect("read") {
                        let wanted = lines[usize::try_from(number).expect("small") - 1].as_bytes();
                        let kept = wanted.len().min(KEPT);
                        let omitted = (wanted.len() - kept) as u64;
                        assert_eq!((line.number, line.omitted), (number, omitted));
                        assert!(line.text == &wanted[..kept], "line {number} from {from}");
                        number += 1;
                    }
                    assert_eq!(number, from.max(count + 1), "from {from} of {count}");
                }
            }
        }
    }
}
