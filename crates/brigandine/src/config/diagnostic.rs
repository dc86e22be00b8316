//! Problems of a file: place, message and remedy.
//!
//! Every problem has its file, line and column, shows the line, and says what to write instead. A file is read to its
//! end, so that one run reports all its mistakes.

use std::fmt;
use std::ops::Range;

use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use crate::model::is_steering;

/// How many problems of one file are kept. A file with more is probably not the file that was meant.
const PROBLEMS_MAX: usize = 50;

/// How many columns of a line are shown. A longer line is cut around the mistake.
const SHOWN_COLUMNS_MAX: usize = 100;

/// Shown instead of a tab.
const TAB: &str = "    ";

/// A problem at a place of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Diagnostic {
    /// The file, as the user named it.
    pub(crate) file: String,
    /// The line, counted from 1; 0: the problem is with the whole file (for example, it cannot be read).
    pub(crate) line: usize,
    /// The column in characters, counted from 1; 0 if `line` is 0.
    pub(crate) column: usize,
    /// What is wrong, without a full stop.
    pub(crate) message: String,
    /// What to write instead.
    pub(crate) help: Option<String>,
    /// The line of the file, which only [`fmt::Display`] shows.
    #[serde(skip)]
    excerpt: Option<Excerpt>,
}

/// The part of a line that is shown under a message.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Excerpt {
    text: String,
    /// The number of columns before the marks.
    indent: usize,
    /// The number of marks.
    width: usize,
}

impl Diagnostic {
    /// A problem at a byte range of `text`.
    pub(crate) fn at(
        file: &str,
        text: &str,
        span: Range<usize>,
        message: impl Into<String>,
    ) -> Self {
        let start = floor_boundary(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let line = text[..line_start].matches('\n').count() + 1;
        let column = text[line_start..start].chars().count() + 1;
        let end = floor_boundary(text, span.end.clamp(start, line_end));
        let line_text = text[line_start..line_end].trim_end();
        let place =
            (start - line_start).min(line_text.len())..(end - line_start).min(line_text.len());
        let excerpt = Some(excerpt(line_text, place));
        Self { line, column, excerpt, ..Self::whole_file(file, message) }
    }

    /// A problem with the file as a whole.
    pub(crate) fn whole_file(file: &str, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: 0,
            column: 0,
            message: message.into(),
            help: None,
            excerpt: None,
        }
    }

    /// A problem in a line whose text is not shown.
    pub(crate) fn on_line(file: &str, line: usize, message: impl Into<String>) -> Self {
        Self { line, column: 1, ..Self::whole_file(file, message) }
    }

    /// Adds what to write instead.
    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// The part of a line around `place`, with marks under `place`. A tab becomes blanks, because its width differs between
/// terminals. Control characters become U+FFFD. The marks take the width of each character on a terminal into account:
/// two columns for a wide character, none for a combining accent.
fn excerpt(line: &str, place: Range<usize>) -> Excerpt {
    let shown = |c: char| match c {
        '\t' => TAB.to_owned(),
        c if is_steering(c) => "\u{fffd}".to_owned(),
        c => c.to_string(),
    };
    let columns = |c: char| shown(c).width();
    let mut from = 0;
    if line[..place.start].chars().map(columns).sum::<usize>() > SHOWN_COLUMNS_MAX * 3 / 4 {
        // The excerpt begins so that half of the shown columns are before the place.
        let mut room = SHOWN_COLUMNS_MAX / 2;
        from = place.start;
        for (at, c) in line[..place.start].char_indices().rev() {
            let Some(left) = room.checked_sub(columns(c)) else { break };
            (room, from) = (left, at);
        }
    }
    let mut text = String::from(if from > 0 { "…" } else { "" });
    let (mut before, mut marked) = (text.clone(), String::new());
    let mut cut = false;
    for (at, c) in line.char_indices().skip_while(|(at, _)| *at < from) {
        let shown = shown(c);
        if text.width() + shown.width() > SHOWN_COLUMNS_MAX {
            cut = true;
            break;
        }
        text.push_str(&shown);
        if at < place.start {
            before.push_str(&shown);
        } else if at < place.end {
            marked.push_str(&shown);
        }
    }
    if cut {
        text.push('…');
    }
    Excerpt { text, indent: before.width(), width: marked.trim_end().width().max(1) }
}

fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}: error: {}", self.file, self.message)?;
        } else {
            write!(f, "{}:{}:{}: error: {}", self.file, self.line, self.column, self.message)?;
        }
        let gutter = self.line.to_string().len().max(3);
        if let Some(excerpt) = &self.excerpt {
            write!(f, "\n {:>gutter$} | {}", self.line, excerpt.text)?;
            let (indent, width) = (excerpt.indent, excerpt.width);
            write!(f, "\n {:gutter$} | {:indent$}{:^<width$}", "", "", "")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n {:gutter$} = help: {help}", "")?;
        }
        Ok(())
    }
}

/// The problems of one or more files. As an error it is never empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Diagnostics {
    problems: Vec<Diagnostic>,
    /// The number of problems beyond [`PROBLEMS_MAX`], which are counted and not kept.
    #[serde(skip)]
    dropped: usize,
}

impl Diagnostics {
    /// Adds a problem, or only counts it if [`PROBLEMS_MAX`] are kept already.
    pub(crate) fn push(&mut self, problem: Diagnostic) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        } else {
            self.dropped += 1;
        }
    }

    /// Whether further problems are only counted.
    pub(crate) fn is_full(&self) -> bool {
        self.problems.len() >= PROBLEMS_MAX
    }

    /// Counts a problem that is not kept.
    pub(crate) fn drop_one(&mut self) {
        self.dropped += 1;
    }

    /// Adds all problems of another file.
    pub(crate) fn extend(&mut self, other: Self) {
        self.dropped += other.dropped;
        for problem in other.problems {
            self.push(problem);
        }
    }

    /// The problems that are kept.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.problems.iter()
    }

    /// The first problem as one line, without its file: `line 3: unknown key`.
    pub(crate) fn first(&self) -> String {
        match self.problems.first() {
            Some(first) if first.line > 0 => format!("line {}: {}", first.line, first.message),
            Some(first) => first.message.clone(),
            None => String::new(),
        }
    }

    /// Whether there are no problems.
    pub(crate) fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// The number of problems, including those beyond [`PROBLEMS_MAX`].
    pub(crate) fn count(&self) -> usize {
        self.problems.len() + self.dropped
    }

    /// `value` if there are no problems; otherwise the problems, in the order of the lines.
    pub(crate) fn into_result<T>(mut self, value: Option<T>) -> Result<T, Self> {
        self.problems.sort_by_key(|problem| (problem.line, problem.column));
        match value {
            Some(value) if self.is_empty() => Ok(value),
            _ => Err(self),
        }
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(problem: Diagnostic) -> Self {
        Self { problems: vec![problem], dropped: 0 }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            write!(f, "{}{problem}", if n > 0 { "\n" } else { "" })?;
        }
        if self.dropped > 0 {
            write!(f, "\n… and {} more", self.dropped)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}
