//! Renders build logs as HTML, as a terminal would show them: everything is escaped, and colours are kept.
//!
//! The text of a build log comes from the job and is not trusted. Each line is an element of its own, so a page appends
//! new lines without changing the old ones. A line is drawn into cells, as on a terminal: a carriage return moves back
//! to the beginning of the line, and new characters replace those in the cells. So a progress bar without a line end
//! needs the memory of one line, and shows what it drew last.
//!
//! - ANSI1: the lines do not depend on how the log is cut into pieces: half a character or half a control sequence
//!   waits for its rest.
//! - ANSI2: a line end ends every control sequence, so a sequence that is never closed hides one line at most.
//! - ANSI3: memory is bounded by [`LINE_MAX`] cells and [`SEQUENCE_MAX`] characters.

use std::fmt::Write as _;

/// The most characters of one line. Longer lines are broken.
const LINE_MAX: usize = 8 * 1024;
/// The most characters of a control sequence that are kept.
const SEQUENCE_MAX: usize = 64;

/// Turns the bytes of a build log into lines of HTML, piece by piece.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The line whose end has not come yet.
    cells: Vec<(char, Style)>,
    /// The cell for the next character; it may be behind the last cell.
    column: usize,
    /// Whether this line continues one that was longer than [`LINE_MAX`].
    broken: bool,
    /// The colours that the log has set. They stay across lines.
    style: Style,
    sequence: Sequence,
    /// The beginning of a character whose rest has not come, at most three bytes.
    partial: Vec<u8>,
    /// The offset in the log behind the last byte that was read.
    taken: u64,
    /// The value of [`Lines::resume`].
    resume: u64,
}

/// Which part of a control sequence has been read.
#[derive(Debug, Default)]
enum Sequence {
    /// Outside of control sequences.
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// After ESC `[`, with the characters that came since.
    Control(String),
    /// In a title, a link or another text for the terminal. BEL or ESC `\` ends it.
    String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Style {
    /// 0 for the default colour, otherwise 30 to 37 or 90 to 97.
    colour: u8,
    bold: bool,
    faint: bool,
}

impl Lines {
    /// Reads a build log from the byte at `offset` on.
    pub(super) fn at(offset: u64) -> Self {
        Self { taken: offset, resume: offset, ..Self::default() }
    }

    /// Reads bytes, and appends the lines that are complete now to `html`.
    pub(super) fn push(&mut self, bytes: &[u8], html: &mut String) {
        for &byte in bytes {
            self.taken += 1;
            if self.partial.is_empty() && byte.is_ascii() {
                self.take(char::from(byte), html);
                continue;
            }
            self.partial.push(byte);
            while !self.partial.is_empty() {
                let (found, length) = match std::str::from_utf8(&self.partial) {
                    Ok(text) => (text.chars().next(), text.len()),
                    Err(error) => match error.error_len() {
                        None => break,
                        Some(length) => (Some(char::REPLACEMENT_CHARACTER), length),
                    },
                };
                self.partial.drain(..length);
                if let Some(found) = found {
                    self.take(found, html);
                }
            }
        }
    }

    /// Appends the last line, which has no line end.
    pub(super) fn finish(&mut self, html: &mut String) {
        if !std::mem::take(&mut self.partial).is_empty() {
            self.take(char::REPLACEMENT_CHARACTER, html);
        }
        if !self.cells.is_empty() {
            self.line(html);
        }
        self.resume = self.taken;
    }

    /// Reads a whole line without its end, and returns it as HTML without an element around it. The colours that it sets
    /// stay for the next line.
    pub(super) fn whole(&mut self, line: &[u8]) -> String {
        let mut html = String::new();
        self.push(line, &mut html);
        self.push(b"\n", &mut html);
        // A line that was broken because of its length is one line again. The text itself is escaped.
        let inner = html.replace("</div><div class=\"l\">", "");
        let inner = inner.strip_prefix("<div class=\"l\">").unwrap_or(&inner);
        inner.strip_suffix("</div>").unwrap_or(inner).to_owned()
    }

    /// Drops the unfinished line, because it began before the part that is shown.
    pub(super) fn forget(&mut self) {
        self.cells.clear();
        self.column = 0;
        self.resume = self.taken;
    }

    /// The unfinished line as HTML, as it is now; empty if it has no characters.
    pub(super) fn unfinished(&self) -> String {
        let mut html = String::new();
        if !self.cells.is_empty() {
            self.draw("l part", &mut html);
        }
        html
    }

    /// The offset from which a reader that has the complete lines must continue: the beginning of the unfinished line,
    /// or the position behind the last carriage return in that line.
    pub(super) fn resume(&self) -> u64 {
        self.resume
    }

    fn take(&mut self, c: char, html: &mut String) {
        if c == '\n' {
            self.sequence = Sequence::Text; // ANSI2
            // If the line was broken exactly before its line end, the line end adds no empty line.
            if !(self.cells.is_empty() && self.broken) {
                self.line(html);
            }
            self.broken = false;
            self.resume = self.taken;
            return;
        }
        self.sequence = match std::mem::take(&mut self.sequence) {
            Sequence::Text => match c {
                '\u{1b}' => Sequence::Escape,
                c => {
                    self.write(c, html);
                    Sequence::Text
                }
            },
            Sequence::Escape => match c {
                '[' => Sequence::Control(String::new()),
                ']' | 'P' | 'X' | '^' | '_' => Sequence::String,
                // Another ESC, or the selection of a character set, whose name follows.
                '\u{1b}' | ' '..='/' => Sequence::Escape,
                _ => Sequence::Text,
            },
            Sequence::Control(mut body) => match c {
                '\u{1b}' => Sequence::Escape,
                '@'..='~' => {
                    self.obey(c, &body);
                    Sequence::Text
                }
                ' '..='?' => {
                    if body.len() < SEQUENCE_MAX {
                        body.push(c);
                    }
                    Sequence::Control(body)
                }
                // A terminal obeys control characters even here. Other characters that cannot be in a sequence end the
                // sequence.
                c if c.is_control() => {
                    self.write(c, html);
                    Sequence::Control(body)
                }
                c => {
                    self.write(c, html);
                    Sequence::Text
                }
            },
            Sequence::String => match c {
                '\u{7}' => Sequence::Text,
                '\u{1b}' => Sequence::Escape,
                _ => Sequence::String,
            },
        };
    }

    fn write(&mut self, c: char, html: &mut String) {
        match c {
            '\r' => {
                self.column = 0;
                self.resume = self.taken;
            }
            '\u{8}' => self.column = self.column.saturating_sub(1),
            c if c.is_control() && c != '\t' => {}
            c => {
                // Marks of text direction could show one command as another, so they are replaced.
                let c = match c {
                    '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
                    c => c,
                };
                while self.cells.len() <= self.column {
                    self.cells.push((' ', Style::default()));
                }
                self.cells[self.column] = (c, self.style);
                self.column += 1;
                if self.column >= LINE_MAX {
                    self.line(html);
                    self.broken = true;
                    self.resume = self.taken;
                }
            }
        }
    }

    /// Executes the control sequence ESC `[` BODY LAST like a terminal, except for moves to other lines.
    fn obey(&mut self, last: char, body: &str) {
        let number = || body.parse::<usize>().unwrap_or(0);
        let steps = || number().clamp(1, LINE_MAX);
        match last {
            'm' => self.colours(body),
            'K' | 'J' => match number() {
                0 => self.cells.truncate(self.column),
                1 => {
                    let end = self.cells.len().min(self.column + 1);
                    self.cells[..end].fill((' ', Style::default()));
                }
                _ => self.cells.clear(),
            },
            'G' | '`' => self.column = steps() - 1,
            'C' => self.column = (self.column + steps()).min(LINE_MAX - 1),
            'D' => self.column = self.column.saturating_sub(steps()),
            _ => {}
        }
    }

    /// Appends the line to `html`, and begins a new one.
    fn line(&mut self, html: &mut String) {
        self.draw("l", html);
        self.cells.clear();
        self.column = 0;
    }

    fn draw(&self, class: &str, html: &mut String) {
        let _ = write!(html, "<div class=\"{class}\">");
        for cells in self.cells.chunk_by(|(_, one), (_, other)| one == other) {
            let style = cells[0].1;
            let styled = style != Style::default();
            if styled {
                style.open(html);
            }
            for (c, _) in cells {
                match c {
                    '&' => html.push_str("&amp;"),
                    '<' => html.push_str("&lt;"),
                    '>' => html.push_str("&gt;"),
                    '"' => html.push_str("&quot;"),
                    c => html.push(*c),
                }
            }
            if styled {
                html.push_str("</span>");
            }
        }
        html.push_str("</div>");
    }

    fn colours(&mut self, codes: &str) {
        let mut codes = codes.split([';', ':']).map(|code| code.parse::<u8>().unwrap_or(0));
        while let Some(code) = codes.next() {
            match code {
                0 => self.style = Style::default(),
                1 => self.style.bold = true,
                2 => self.style.faint = true,
                22 => (self.style.bold, self.style.faint) = (false, false),
                30..=37 | 90..=97 => self.style.colour = code,
                39 => self.style.colour = 0,
                // 256 colours or true colour: shown in the default colour. The numbers that follow are not codes, so
                // they are skipped.
                38 | 48 => match codes.next() {
                    Some(5) => _ = codes.next(),
                    Some(2) => _ = codes.nth(2),
                    _ => {}
                },
                _ => {}
            }
        }
    }
}

impl Style {
    fn open(self, html: &mut String) {
        html.push_str("<span class=\"");
        if self.colour > 0 {
            let _ = write!(html, "c{}", self.colour);
        }
        html.push_str(if self.bold { " b" } else { "" });
        html.push_str(if self.faint { " f" } else { "" });
        html.push_str("\">");
    }
}

#[cfg(test)]
mod tests;
