//! Build logs as HTML, as a terminal would show them: everything escaped, colours kept.
//!
//! The text of a log is chosen by whoever wrote the job. Each line is in an element of its own, so a piece can
//! be appended to a page without looking at what is there. A line is drawn into cells, as on a terminal: a
//! carriage return goes back to its beginning, and what is written then covers what was there. So a progress bar
//! without a line end takes the memory of one line, and shows what it drew last.
//!
//! A1: pieces of any size give the same lines: half a character or half a control sequence waits for its rest.
//! A2: a line end ends every control sequence, so one that is never closed hides one line at most.
//! A3: memory is bounded by [`LINE_MAX`] cells and [`SEQUENCE_MAX`] characters.

use std::fmt::Write as _;

/// Characters of one line; longer lines are broken.
const LINE_MAX: usize = 8 * 1024;
/// Characters of a control sequence that are looked at.
const SEQUENCE_MAX: usize = 64;

/// Turns the bytes of a log into lines of HTML, piece by piece.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The line whose end has not come.
    cells: Vec<(char, Style)>,
    /// Where the next character goes; may be behind the cells.
    column: usize,
    /// Whether the line goes on one that was broken.
    broken: bool,
    /// Colours stay across lines.
    style: Style,
    sequence: Sequence,
    /// The beginning of a character, at most three bytes.
    partial: Vec<u8>,
    /// Bytes that were taken.
    taken: u64,
    /// See [`Lines::resume`].
    resume: u64,
}

/// Where in a control sequence the next character stands.
#[derive(Debug, Default)]
enum Sequence {
    /// In none.
    #[default]
    Text,
    /// Behind ESC.
    Escape,
    /// Behind ESC `[`: what came since.
    Control(String),
    /// In a title, a link or another text for the terminal, until BEL or ESC `\`.
    String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Style {
    /// 0 for the usual colour, else 30 to 37 and 90 to 97.
    colour: u8,
    bold: bool,
    faint: bool,
}

impl Lines {
    /// Lines of a log whose first byte stands at `offset`.
    pub(super) fn at(offset: u64) -> Self {
        Self { taken: offset, resume: offset, ..Self::default() }
    }

    /// Adds bytes and appends the lines that are complete to `html`.
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

    /// Appends the last line, which has no end.
    pub(super) fn finish(&mut self, html: &mut String) {
        if !std::mem::take(&mut self.partial).is_empty() {
            self.take(char::REPLACEMENT_CHARACTER, html);
        }
        if !self.cells.is_empty() {
            self.line(html);
        }
        self.resume = self.taken;
    }

    /// Forgets the line whose end has not come: it was begun before what is to be shown.
    pub(super) fn forget(&mut self) {
        self.cells.clear();
        self.column = 0;
        self.resume = self.taken;
    }

    /// The line whose end has not come as it is now; nothing while it is empty.
    pub(super) fn unfinished(&self) -> String {
        let mut html = String::new();
        if !self.cells.is_empty() {
            self.draw("l part", &mut html);
        }
        html
    }

    /// Where a reader goes on who has the complete lines: at the beginning of the line whose end has not come, or
    /// behind the last carriage return in it.
    pub(super) fn resume(&self) -> u64 {
        self.resume
    }

    fn take(&mut self, c: char, html: &mut String) {
        if c == '\n' {
            self.sequence = Sequence::Text; // A2
            // The end of a line that was broken just there.
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
                // Another ESC, or a character set of which the name follows.
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
                // A terminal obeys a carriage return even here; what is no part of a sequence ends it.
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
                // Marks that change the direction of text could show a command as another one.
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

    /// What a terminal does at ESC `[` BODY LAST; what moves to other lines is left out.
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

    /// Ends the line.
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
                // 256 colours or true colour: shown plain, but their numbers are not codes.
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
