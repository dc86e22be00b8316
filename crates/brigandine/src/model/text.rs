//! Bounds texts from repositories, programs and users, and escapes control characters, so that the texts can be stored,
//! shown and traced.

/// The mark at the end of a text that was cut.
const CUT: &str = "… (cut)";

/// The longest error or message of another program that is kept, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 4096;

/// A text as one line of at most `bytes_max` bytes. Line ends become `; `. Control characters, and characters that
/// change the direction of text, are escaped. A longer text is cut, and ends with a mark.
pub fn one_line(text: &str, bytes_max: usize) -> String {
    let mut line = String::new();
    // `true`: a line end was read after the last character. So line ends at the beginning and at the end of the text
    // have no effect.
    let mut broken = false;
    for c in text.trim().chars() {
        if matches!(c, '\n' | '\r' | '\u{2028}' | '\u{2029}') {
            broken = true;
            continue;
        }
        if std::mem::take(&mut broken) && !line.is_empty() {
            line.push_str("; ");
        }
        match c {
            '\t' => line.push(' '),
            c if is_steering(c) => line.extend(c.escape_unicode()),
            c => line.push(c),
        }
        if line.len() > bytes_max {
            let mut end = bytes_max.saturating_sub(CUT.len());
            while !line.is_char_boundary(end) {
                end -= 1;
            }
            line.truncate(end);
            line.push_str(CUT);
            break;
        }
    }
    line
}

/// Like [`one_line`], but keeps line ends and indentation, for messages that show a place in a file.
pub fn lines(text: &str, bytes_max: usize) -> String {
    let mut lines = String::new();
    for line in text.trim_end().lines().filter(|line| !line.trim().is_empty()) {
        let room = bytes_max.saturating_sub(lines.len());
        if room < CUT.len() {
            break;
        }
        let indent = line.len() - line.trim_start_matches(' ').len();
        let indent = indent.min(room - CUT.len());
        if !lines.is_empty() {
            lines.push('\n');
        }
        lines.extend(std::iter::repeat_n(' ', indent));
        lines.push_str(&one_line(line, room - indent));
    }
    lines
}

/// Whether a character controls a terminal or the direction of text.
pub fn is_steering(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

/// The message of an error and of its causes. A cause that the text already contains is left out.
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| cause.source()) {
        let cause = cause.to_string();
        // SQLite's errors have one more cause, which is the same message behind a number.
        let numbered = cause.strip_prefix("Error code ").and_then(|rest| rest.split_once(": "));
        let said = numbered.map_or(&*cause, |(_, said)| said);
        if !text.contains(said) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// A number of bytes: `512 B`, `3.4 KiB`.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1000.0 {
            let digits = usize::from(unit != "B" && value < 100.0);
            return format!("{value:.digits$} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// A condition for `skip_serializing_if`.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
pub(super) const fn is_no(yes: &bool) -> bool {
    !*yes
}

#[cfg(test)]
mod tests {
    use super::{lines, one_line, with_causes};

    #[test]
    fn a_cause_that_is_said_already_is_left_out() {
        let locked = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(5), None);
        let text = with_causes(&locked);
        assert_eq!(text.matches("locked").count(), 1, "{text}");
        let error = std::io::Error::other(locked);
        assert_eq!(with_causes(&error), text);
    }

    #[test]
    fn a_text_from_outside_is_one_bounded_line_without_control_characters() {
        for (text, expected) in [
            ("plain", "plain"),
            ("", ""),
            ("\n\r\n", ""),
            (" a\n\nb\r\nc ", "a; b; c"),
            ("a\tb", "a b"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("a\u{202e}b\u{2028}c", "a\\u{202e}b; c"),
            ("nul\0", "nul\\u{0}"),
            ("naïveté", "naïveté"),
        ] {
            assert_eq!(one_line(text, 100), expected, "{text:?}");
        }
        for text in ["x".repeat(1000), "é".repeat(1000), "\u{1b}".repeat(1000), "日".repeat(1000)]
        {
            for bytes in [10, 11, 12, 13, 100, 999] {
                let line = one_line(&text, bytes);
                assert!(line.len() <= bytes.max("… (cut)".len()), "{} of {bytes}", line.len());
                assert!(line.ends_with("… (cut)"), "{line}");
            }
        }
        assert_eq!(one_line(&"x".repeat(20), 20), "x".repeat(20), "what fits is not cut");
    }

    #[test]
    fn a_text_of_several_lines_keeps_its_line_ends_and_is_bounded() {
        assert_eq!(lines("a\n   3 | b\tc\r\n\n     | ^\n", 100), "a\n   3 | b c\n     | ^");
        assert_eq!(lines("\u{1b}[1m\n\u{202e}x", 100), "\\u{1b}[1m\n\\u{202e}x");
        for text in ["x\n".repeat(1000), " ".repeat(1000) + "x", "日本\n".repeat(1000)] {
            assert!(lines(&text, 100).len() <= 100 + "\n".len(), "{}", lines(&text, 100));
        }
    }
}
