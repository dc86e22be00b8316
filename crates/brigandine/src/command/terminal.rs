//! The output of commands: the size of the terminal, the width of texts on it, tables, and a progress line that
//! overwrites itself.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The assumed columns and rows of a terminal that does not report its size.
const DEFAULT_SIZE: (usize, usize) = (80, 24);

/// Columns and rows of the terminal behind `stream`. `None`: `stream` is not a terminal.
pub(super) fn size(stream: &(impl AsFd + IsTerminal)) -> Option<(usize, usize)> {
    if !stream.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(stream.as_fd()).ok();
    let size = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
    Some(size.map_or(DEFAULT_SIZE, |size| (size.ws_col.into(), size.ws_row.into())))
}

/// The width for which a command writes its answer: what `COLUMNS` says, as `watch` sets it, or else the width of the
/// terminal. `None`: standard output is no terminal, and nothing is cut.
pub(super) fn width() -> Option<usize> {
    let wanted = std::env::var_os("COLUMNS");
    let wanted = wanted.as_deref().and_then(std::ffi::OsStr::to_str).and_then(wanted_width);
    wanted.or_else(|| size(&std::io::stdout()).map(|(columns, _)| columns))
}

/// The width that the text of `COLUMNS` says; `None`: it says none.
fn wanted_width(text: &str) -> Option<usize> {
    text.trim().parse().ok().filter(|columns| *columns > 0)
}

/// How many columns a text without control characters takes.
pub(super) fn columns(text: &str) -> usize {
    text.width()
}

/// The text, cut to `width` columns. A text that was cut ends with a mark.
pub(super) fn fit(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut cut = String::new();
    let mut room = width.saturating_sub(1);
    for c in text.chars() {
        let Some(left) = room.checked_sub(c.width().unwrap_or(0)) else { break };
        room = left;
        cut.push(c);
    }
    if width > 0 {
        cut.push('…');
    }
    cut
}

/// The text as lines that begin with `indent` blanks. On a terminal of `width` columns no line is longer: the text is
/// broken at its blanks, and in a word that is too long for a line. Elsewhere (`None`) words stay whole, so that they
/// can be searched for and copied, and only lines of one word have more than [`DEFAULT_SIZE`].
pub(super) fn wrapped(text: &str, indent: usize, width: Option<usize>) -> Vec<String> {
    let most = width.unwrap_or(DEFAULT_SIZE.0);
    let room = width.map(|width| width.saturating_sub(indent).max(CELL_MIN));
    let mut all: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match all.last_mut() {
            Some(line) if columns(line) + 1 + columns(word) <= most => {
                line.push(' ');
                line.push_str(word);
            }
            _ => {
                let pieces = room.map_or_else(|| vec![word.to_owned()], |room| pieces(word, room));
                all.extend(pieces.iter().map(|piece| format!("{:indent$}{piece}", "")));
            }
        }
    }
    all
}

/// A word in pieces of at most `room` columns.
fn pieces(word: &str, room: usize) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut left = room;
    for c in word.chars() {
        let takes = c.width().unwrap_or(0);
        if takes > left {
            all.push(String::new());
            left = room;
        }
        left = left.saturating_sub(takes);
        if let Some(piece) = all.last_mut() {
            piece.push(c);
        }
    }
    all
}

/// Lines on standard output and, if standard error is a terminal, a progress line below them.
#[derive(Debug, Default)]
pub(super) struct Progress {
    shown: String,
}

impl Progress {
    /// Prints a line on standard output.
    pub(super) fn line(&mut self, line: &str) {
        self.clear();
        say(line);
    }

    /// Replaces the progress line.
    pub(super) fn show(&mut self, text: &str) {
        let Some((width, _)) = size(&std::io::stderr()) else { return };
        // The last column stays free, because some terminals begin a new line after it.
        let text = fit(text, width.saturating_sub(1));
        if text != self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
            self.shown = text;
        }
    }

    /// Removes the progress line.
    pub(super) fn clear(&mut self) {
        if !std::mem::take(&mut self.shown).is_empty() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The least time between two reports, if standard error is a terminal.
const TERMINAL_PAUSE: Duration = Duration::from_millis(200);
/// The least time between two reports, if standard error is a file or a pipe.
const FILE_PAUSE: Duration = Duration::from_secs(10);

/// Reports of long work on standard error. On a terminal each report overwrites the one before.
#[derive(Debug)]
pub(super) struct Reports {
    is_terminal: bool,
    /// When the last report was printed.
    printed: Mutex<Instant>,
}

impl Reports {
    /// The first report is due after a pause.
    pub(super) fn new() -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        Self { is_terminal, printed: Mutex::new(Instant::now()) }
    }

    /// Prints the report that `line` returns, unless the last one was printed a moment ago. `always`: prints it on a
    /// terminal in any case, because no report follows for a while. In a file only long work is reported, so that what a
    /// timer runs says nothing while all is well.
    pub(super) fn show(&self, always: bool, line: impl FnOnce() -> String) {
        let mut printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = if self.is_terminal { TERMINAL_PAUSE } else { FILE_PAUSE };
        if !(always && self.is_terminal) && printed.elapsed() < pause {
            return;
        }
        *printed = Instant::now();
        let mut err = std::io::stderr();
        let _ = if self.is_terminal {
            write!(err, "\r\x1b[K{}", line())
        } else {
            writeln!(err, "{}", line())
        };
    }

    /// Removes the last report from a terminal.
    pub(super) fn clear(&self) {
        if self.is_terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// Prints a line. A closed pipe is not an error.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

pub(crate) fn print_json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => say(&text),
        Err(error) => eprintln!("brigandine: {error}"),
    }
}

/// The least width to which a column of a table is cut.
const CELL_MIN: usize = 4;

/// Prints a table. On a terminal, the widest columns are cut until the lines fit; otherwise nothing is cut.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) {
    for line in lines(rows, width()) {
        say(&line);
    }
}

/// The lines of a table, each at most `most` columns wide; `None`: as wide as needed.
fn lines<const N: usize>(rows: &[[String; N]], most: Option<usize>) -> Vec<String> {
    let width = |at: usize| rows.iter().map(|row| columns(&row[at])).max().unwrap_or(0);
    let mut widths: [usize; N] = std::array::from_fn(width);
    let between = 2 * N.saturating_sub(1);
    if let Some(most) = most {
        while widths.iter().sum::<usize>() + between > most {
            match widths.iter_mut().max() {
                Some(widest) if *widest > CELL_MIN => *widest -= 1,
                _ => break,
            }
        }
    }
    let line = |row: &[String; N]| {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(widths).enumerate() {
            let cell = if most.is_some() { fit(cell, width) } else { cell.clone() };
            line.push_str(&cell);
            if at + 1 < N {
                let blanks = width.saturating_sub(columns(&cell)) + 2;
                line.extend(std::iter::repeat_n(' ', blanks));
            }
        }
        let line = line.trim_end();
        most.map_or_else(|| line.to_owned(), |most| fit(line, most))
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::{columns, fit, lines, wanted_width, wrapped};

    #[test]
    fn a_wanted_width_is_a_number_of_columns() {
        for (text, columns) in [
            ("80", Some(80)),
            (" 132\n", Some(132)),
            ("0", None),
            ("", None),
            ("-3", None),
            ("wide", None),
        ] {
            assert_eq!(wanted_width(text), columns, "{text:?}");
        }
    }

    #[test]
    fn a_text_is_cut_by_the_columns_that_it_takes() {
        for (text, width, cut) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("日本語", 6, "日本語"),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
            // A combining accent takes no column, and stays with its letter.
            ("e\u{301}e\u{301}e\u{301}", 3, "e\u{301}e\u{301}e\u{301}"),
            ("e\u{301}e\u{301}e\u{301}", 2, "e\u{301}…"),
            ("abc", 0, ""),
        ] {
            assert_eq!(fit(text, width), cut, "{text} in {width}");
            assert!(columns(&fit(text, width)) <= width);
        }
    }

    #[test]
    fn a_wrapped_text_loses_nothing_and_fits_its_terminal() {
        let text = "input `source`: fetch /a/very/long/path/that/is/broken/in/the/middle 日本語の説明はここにあります of e\u{301}e\u{301}";
        let without = |text: &str| text.split_whitespace().collect::<String>();
        for width in [14, 20, 33, 80, 200] {
            let lines = wrapped(text, 9, Some(width));
            for line in &lines {
                assert!(
                    columns(line) <= width && line.starts_with("         "),
                    "{width}: {line:?}"
                );
            }
            assert_eq!(without(&lines.join("")), without(text), "{width}");
        }
        let lines = wrapped(&format!("short {}", "x".repeat(200)), 2, None);
        assert_eq!(lines, ["  short".to_owned(), format!("  {}", "x".repeat(200))]);
        assert_eq!(wrapped("", 9, None), [""; 0]);
    }

    #[test]
    fn a_table_fits_its_terminal_and_is_whole_elsewhere() {
        let rows = [
            ["ID", "STATUS", "WHY"].map(str::to_owned),
            ["1", "failed-dependency", "needs `a`: failed"].map(str::to_owned),
            ["2", "succeeded", "日本語の説明はここにあります"].map(str::to_owned),
        ];
        for width in [20, 30, 40, 80] {
            for line in lines(&rows, Some(width)) {
                assert!(columns(&line) <= width, "{width}: {line:?}");
            }
        }
        assert!(lines(&rows, Some(30))[1].contains('…'));
        assert_eq!(lines(&rows, None)[1], "1   failed-dependency  needs `a`: failed");
        assert_eq!(lines(&rows, Some(80)), lines(&rows, None));
    }
}
