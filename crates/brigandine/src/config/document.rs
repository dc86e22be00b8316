//! A file that is being read: its text, and the problems found in it.

use super::diagnostic::{Diagnostic, Diagnostics};
use std::cell::RefCell;
use std::ops::Range;

/// The largest file that is parsed, in bytes.
pub(crate) const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A file that is being read.
pub(crate) struct Document<'i> {
    pub(super) file: &'i str,
    pub(super) text: &'i str,
    pub(super) problems: RefCell<Diagnostics>,
}

/// A string, and its place in the file including the quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) value: String,
    pub(crate) span: Range<usize>,
}

impl<'i> Document<'i> {
    /// Adds a problem at `span`.
    pub(crate) fn problem(
        &self,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let mut problems = self.problems.borrow_mut();
        if problems.is_full() {
            problems.drop_one();
        } else {
            problems.push(Diagnostic::at(self.file, self.text, span, message).help(help));
        }
    }

    /// Whether further problems are only counted, so that remedies need not be searched for.
    pub(crate) fn is_full(&self) -> bool {
        self.problems.borrow().is_full()
    }

    /// The line in which `span` starts, for messages that name another place.
    pub(crate) fn line(&self, span: &Range<usize>) -> usize {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        before.iter().filter(|&&byte| byte == b'\n').count() + 1
    }
}

/// A remedy for a syntax error. The function recognises the most common causes.
pub(super) fn syntax_help(message: &str, text: &str, span: &Range<usize>) -> &'static str {
    let line_start = text[..span.start.min(text.len())].rfind('\n').map_or(0, |at| at + 1);
    let line = text.get(line_start..).and_then(|rest| rest.lines().next()).unwrap_or("");
    let unquoted = line.split_once('=').is_some_and(|(_, value)| {
        value.trim_start().starts_with(|c: char| c.is_alphabetic() || c == '/' || c == '.')
    });
    if message.contains("duplicate key") {
        "a key stands once in its table; remove one of the two"
    } else if line.trim_start().starts_with('[') {
        "a header ends with the brackets it starts with, for example `[[specification]]`"
    } else if line.contains('=') && unquoted {
        "text stands in double quotes, for example `branch = \"main\"`"
    } else if !line.contains('=') && (line.contains(": ") || line.trim_end().ends_with(':')) {
        "this is YAML; TOML writes `[[specification]]` and below it `name = \"hello\"`"
    } else if line.matches('"').count() % 2 == 1 {
        "the text lacks its closing double quote"
    } else {
        "see https://toml.io for the syntax; a key is `name = \"value\"`, a table `[name]`"
    }
}
