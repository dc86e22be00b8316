//! Build logs as HTML: everything escaped, colours kept, control sequences gone.
//!
//! The text of a log is chosen by whoever wrote the job. Only complete lines are shown, each in an
//! element of its own, so a piece can be appended to a page without looking at what is there, and
//! its byte offset says where to go on. Memory is bounded by one line, and a line by [`LINE_MAX`].

use std::fmt::Write as _;

/// Bytes of one line that are shown; longer lines are broken.
const LINE_MAX: usize = 8 * 1024;

/// Turns the bytes of a log into lines of HTML, piece by piece.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The beginning of a line whose end has not come.
    pending: Vec<u8>,
    /// Colours stay across lines.
    style: Style,
    /// Bytes that were shown, so that a reader can go on from there.
    shown: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Style {
    /// 0 for the usual colour, else 31 to 36 and 90 to 97.
    colour: u8,
    bold: bool,
    faint: bool,
}

impl Lines {
    /// Lines of a log whose first byte stands at `offset`.
    pub(super) fn at(offset: u64) -> Self {
        Self { shown: offset, ..Self::default() }
    }

    /// Adds bytes and appends the lines that are complete to `html`.
    pub(super) fn push(&mut self, bytes: &[u8], html: &mut String) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.pending.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.line(html);
            }
            while self.pending.len() > LINE_MAX {
                // Not inside of a character.
                let mut end = LINE_MAX;
                while end > LINE_MAX - 4 && self.pending[end] & 0xc0 == 0x80 {
                    end -= 1;
                }
                let rest = self.pending.split_off(end);
                self.line(html);
                self.pending = rest;
            }
        }
    }

    /// Appends the last line, which has no end.
    pub(super) fn finish(&mut self, html: &mut String) {
        if !self.pending.is_empty() {
            self.line(html);
        }
    }

    /// The offset of the first byte that was not shown.
    pub(super) fn shown(&self) -> u64 {
        self.shown
    }

    fn line(&mut self, html: &mut String) {
        let line = std::mem::take(&mut self.pending);
        self.shown += line.len() as u64;
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']);
        // A progress bar writes over itself: what it wrote last is what a terminal shows.
        let text = text.rsplit('\r').next().unwrap_or(text);
        html.push_str("<div class=\"l\">");
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find('\u{1b}').unwrap_or(rest.len());
            self.span(&rest[..end], html);
            rest = &rest[end..];
            if let Some(sequence) = rest.strip_prefix('\u{1b}') {
                rest = self.sequence(sequence);
            }
        }
        html.push_str("</div>");
    }

    fn span(&self, text: &str, html: &mut String) {
        if text.is_empty() {
            return;
        }
        let styled = self.style != Style::default();
        if styled {
            html.push_str("<span class=\"");
            if self.style.colour > 0 {
                let _ = write!(html, "c{}", self.style.colour);
            }
            html.push_str(if self.style.bold { " b" } else { "" });
            html.push_str(if self.style.faint { " f" } else { "" });
            html.push_str("\">");
        }
        for c in text.chars() {
            match c {
                '&' => html.push_str("&amp;"),
                '<' => html.push_str("&lt;"),
                '>' => html.push_str("&gt;"),
                '"' => html.push_str("&quot;"),
                '\t' => html.push('\t'),
                // Marks that change the direction of text could show a command as another one.
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => html.push('\u{fffd}'),
                c if c.is_control() => {}
                c => html.push(c),
            }
        }
        if styled {
            html.push_str("</span>");
        }
    }

    /// Obeys a colour, skips any other sequence; gives what comes after it.
    fn sequence<'t>(&mut self, text: &'t str) -> &'t str {
        if let Some(body) = text.strip_prefix('[') {
            let end = body.find(|c: char| ('@'..='~').contains(&c));
            let Some(end) = end else { return "" };
            if body.as_bytes()[end] == b'm' {
                self.colours(&body[..end]);
            }
            return &body[end + 1..];
        }
        if let Some(body) = text.strip_prefix(']') {
            // A title or link, ended by a bell or by ESC \.
            let end = body.find(['\u{7}', '\u{1b}']);
            return end.map_or("", |end| {
                let rest = &body[end..];
                rest.strip_prefix("\u{1b}\\").or(rest.strip_prefix('\u{7}')).unwrap_or(rest)
            });
        }
        let mut chars = text.chars();
        chars.next();
        chars.as_str()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn html(text: &[u8]) -> String {
        let (mut lines, mut html) = (Lines::default(), String::new());
        lines.push(text, &mut html);
        lines.finish(&mut html);
        assert_eq!(lines.shown(), text.len() as u64);
        html
    }

    #[test]
    fn everything_a_job_prints_is_escaped() {
        assert_eq!(
            html(b"<script>alert(\"x\")</script> & more"),
            "<div class=\"l\">&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; more</div>"
        );
        assert_eq!(
            html(b"\x1b[31m<b>\x1b[0m"),
            "<div class=\"l\"><span class=\"c31\">&lt;b&gt;</span></div>"
        );
        assert!(!html("a\u{202e}b".as_bytes()).contains('\u{202e}'));
    }

    #[test]
    fn colours_stay_until_they_are_reset_and_other_sequences_vanish() {
        assert_eq!(
            html(b"\x1b[1;32mok\nstill\x1b[0m plain\x1b[2K\x1b]0;title\x07!"),
            "<div class=\"l\"><span class=\"c32 b\">ok</span></div>\
             <div class=\"l\"><span class=\"c32 b\">still</span> plain!</div>"
        );
        assert_eq!(html(b"\x1b[38;5;31mx\x1b[38;2;1;31;3my"), "<div class=\"l\">xy</div>");
    }

    #[test]
    fn a_progress_bar_shows_what_it_wrote_last() {
        assert_eq!(
            html(b"10%\r50%\r100%\r\ndone"),
            "<div class=\"l\">100%</div><div class=\"l\">done</div>"
        );
    }

    #[test]
    fn pieces_of_any_size_give_the_same_page() {
        let text = "naïve \u{1b}[31mröd\u{1b}[0m\n\nlast ✓ line\nno end".as_bytes();
        let whole = html(text);
        for size in 1..text.len() {
            let (mut lines, mut pieces) = (Lines::default(), String::new());
            for piece in text.chunks(size) {
                lines.push(piece, &mut pieces);
            }
            lines.finish(&mut pieces);
            assert_eq!(pieces, whole, "pieces of {size}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_broken_and_takes_bounded_memory() {
        let (mut lines, mut html) = (Lines::default(), String::new());
        for _ in 0..100 {
            lines.push("é".repeat(1000).as_bytes(), &mut html);
            assert!(lines.pending.len() <= LINE_MAX);
        }
        lines.finish(&mut html);
        assert!(!html.contains('\u{fffd}'), "a character was cut");
        assert_eq!(html.matches('é').count(), 100_000);
    }
}
