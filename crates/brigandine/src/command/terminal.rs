//! What a terminal shows: how wide it is, how wide a text is on it, and a line of progress that is
//! written over itself.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns and rows of a terminal that does not say how large it is.
const USUAL: (usize, usize) = (80, 24);

/// Columns and rows of the terminal behind `stream`. `None`: it is none.
pub(super) fn size(stream: &(impl AsFd + IsTerminal)) -> Option<(usize, usize)> {
    if !stream.is_terminal() {
        return None;
    }
    let told = rustix::termios::tcgetwinsize(stream.as_fd()).ok();
    let told = told.filter(|size| size.ws_col > 0 && size.ws_row > 0);
    Some(told.map_or(USUAL, |size| (size.ws_col.into(), size.ws_row.into())))
}

/// Columns that a text without control characters takes.
pub(super) fn columns(text: &str) -> usize {
    text.width()
}

/// The beginning of a text that fits into so many columns, with a mark where it was cut.
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

/// Lines on standard output, and below them, if standard error is a terminal, one that says how far it is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    shown: String,
}

impl Progress {
    /// Prints a line that stays.
    pub(super) fn line(&mut self, line: &str) {
        self.clear();
        super::say(line);
    }

    /// Shows how far it is, in place of what was shown before.
    pub(super) fn show(&mut self, text: &str) {
        let Some((width, _)) = size(&std::io::stderr()) else { return };
        // The last column stays free: some terminals begin a new line behind it.
        let text = fit(text, width.saturating_sub(1));
        if text != self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
            self.shown = text;
        }
    }

    /// Takes it away.
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

#[cfg(test)]
mod tests {
    use super::{columns, fit};

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
}
