//! `/build/ID/log`: the whole log of a build by its lines, and the lines that have a text.
//!
//! A page has [`LINES`] lines. Each line has its number in the whole log, and an address of its own: the page of the line,
//! and behind it `#L` with the number, or with two numbers for a range.

use std::borrow::Cow;

use askama::Template;
use axum::response::Response;

use super::ansi::Lines;
use super::layout::{Layout, or_refusal, render};
use super::view;
use crate::context::Reading;
use crate::http::{self, HttpError, Path, Query, Result};
use crate::log::{Line, LinePass};
use crate::model::Build;
use crate::store::{Visible, visible};

/// The lines of a page.
const LINES: u64 = 500;
/// The most lines with a text that a page lists.
const FOUND_MAX: usize = 500;
/// The most bytes of the text that is looked for.
const TEXT_BYTES_MAX: usize = 200;
/// The most bytes of HTML for the lines of a page. Lines behind them are shown without their text.
const HTML_BYTES_MAX: usize = 2 << 20;

#[derive(Template)]
#[template(path = "log.html")]
struct Page {
    layout: Layout,
    build: Build,
    /// The attempt that the address names; empty: the last one.
    attempt: String,
    /// The text that is looked for; empty: the page shows the lines from one of them on.
    find: String,
    lines: Vec<Row>,
    /// The addresses of the neighbouring pages.
    previous: Option<String>,
    next: Option<String>,
    /// What the page shows, in a sentence.
    about: String,
}

/// A line as the page shows it.
struct Row {
    number: u64,
    /// The address of the page that has the line, and of the line on it.
    href: String,
    /// ` err`, ` warn`: the line looks like an error or a warning.
    class: &'static str,
    html: String,
    omitted: u64,
}

/// What a page shows of a log.
enum Wanted {
    /// The page that has this line.
    Line(u64),
    /// The first line that looks like an error.
    FirstError,
    /// The lines with this text.
    Text(String),
}

impl Wanted {
    /// # Errors
    /// The query names no line, or a text that is too long.
    fn read(query: &Query) -> Result<Self> {
        if let Some(text) = query.get("find") {
            if text.len() > TEXT_BYTES_MAX {
                return Err(HttpError::BadRequest(format!(
                    "'find' has more than {TEXT_BYTES_MAX} bytes; a part of the line is enough"
                )));
            }
            return Ok(Self::Text(text));
        }
        match query.get("line").as_deref() {
            None => Ok(Self::Line(1)),
            Some("error") => Ok(Self::FirstError),
            Some(number) => match number.parse() {
                Ok(number @ 1..) => Ok(Self::Line(number)),
                _ => Err(HttpError::BadRequest(
                    "'line' is the number of a line, from 1 on, or `error` for the first line that looks like an error"
                        .to_owned(),
                )),
            },
        }
    }
}

pub(super) async fn page(context: Reading, Path(id): Path<String>, query: Query) -> Response {
    or_refusal(&context, make(&context, &id, &query).await).await
}

async fn make(context: &Reading, id: &str, query: &Query) -> Result<Response> {
    let (wanted, attempt) = (Wanted::read(query)?, query.parsed::<i64>("attempt")?);
    let name = id.to_owned();
    let read =
        move |s: &Visible<'_>| Ok((visible::build_named(s, &name)?, visible::queue_counts(s)?));
    let (build, queue) = context.read_few(read).await?;
    let build = build.ok_or_else(|| HttpError::no_build(id))?;
    let reader = match attempt {
        None => context.logs().open(&build, 0).await,
        Some(attempt) => context.logs().open_attempt(&build, attempt, 0).await,
    };
    let Some(reader) = reader else {
        let why = build.no_log().unwrap_or("There was no such attempt.");
        return Err(HttpError::not_found(format!("Build {} has no log. {why}", build.id)));
    };
    let unreadable = |error: std::io::Error| {
        HttpError::unreadable(format_args!("The log of build {}", build.id), &error)
    };
    let _permit = context.logs().may_pass().await;
    let mut pass = LinePass::new(reader);
    let mut page = Page {
        layout: Layout {
            title: format!("Log of {} #{} · Brigandine", build.job, build.id),
            section: "",
            queue,
            live: String::new(),
            notice: context.health().notice(),
        },
        attempt: attempt.map(|attempt| attempt.to_string()).unwrap_or_default(),
        find: String::new(),
        lines: Vec::new(),
        previous: None,
        next: None,
        about: String::new(),
        build: build.clone(),
    };
    match wanted {
        Wanted::Line(number) => {
            let read = page.from(&mut pass, number).await;
            page.as_far_as(read).map_err(unreadable)?;
        }
        Wanted::Text(text) => {
            let read = page.with(&mut pass, text).await;
            page.as_far_as(read).map_err(unreadable)?;
        }
        Wanted::FirstError => match first_error(&mut pass).await.map_err(unreadable)? {
            Some(number) => return Ok(http::see_other(&page.address(number))),
            None => "No line looks like an error.".clone_into(&mut page.about),
        },
    }
    if pass.is_missing() && !build.log.path.is_empty() {
        return Err(HttpError::not_found(format!(
            "The log of build {} is gone: its file is not there any more.",
            build.id
        )));
    }
    render(&page)
}

/// The number of the first line that looks like an error.
async fn first_error(pass: &mut LinePass) -> std::io::Result<Option<u64>> {
    while let Some(line) = pass.next().await? {
        if class(&plain(line.text)) == ERROR {
            return Ok(Some(line.number));
        }
    }
    Ok(None)
}

impl Page {
    /// Of a log that cannot be read to its end, says so below the lines that could be read.
    ///
    /// # Errors
    /// No line could be read.
    fn as_far_as(&mut self, read: std::io::Result<()>) -> std::io::Result<()> {
        let Err(error) = read else { return Ok(()) };
        if self.lines.is_empty() {
            return Err(error);
        }
        self.about = format!("The log is shown as far as it can be read: {error}.");
        Ok(())
    }

    /// Shows the page of lines that has the line with this number.
    async fn from(&mut self, pass: &mut LinePass, number: u64) -> std::io::Result<()> {
        let first = number - (number - 1) % LINES;
        pass.skip_to(first).await?;
        let (mut drawn, mut bytes) = (Lines::default(), 0);
        while let Some(line) = pass.next().await? {
            if self.lines.len() as u64 == LINES {
                self.next = Some(self.address(first + LINES));
                break;
            }
            let href = self.address(line.number);
            self.lines.push(Row::new(&line, href, &mut drawn, &mut bytes));
        }
        self.previous = (first > 1).then(|| self.address(first.saturating_sub(LINES).max(1)));
        self.about = match (self.lines.first(), self.lines.last()) {
            (Some(first), Some(last)) => {
                format!(
                    "Lines {} to {}",
                    view::number(signed(first.number)),
                    view::number(signed(last.number))
                )
            }
            _ if first == 1 => "It has no lines so far.".to_owned(),
            _ => format!("It has fewer than {} lines.", view::number(signed(first))),
        };
        Ok(())
    }

    /// Shows the first lines that have the text, in letters of any case.
    async fn with(&mut self, pass: &mut LinePass, text: String) -> std::io::Result<()> {
        let (wanted, mut more, mut bytes) = (text.to_lowercase(), false, 0);
        while let Some(line) = pass.next().await? {
            if !plain(line.text).to_lowercase().contains(&wanted) {
                continue;
            }
            more = self.lines.len() == FOUND_MAX;
            if more {
                break;
            }
            // The colours of a line alone are its own.
            let href = self.address(line.number);
            self.lines.push(Row::new(&line, href, &mut Lines::default(), &mut bytes));
        }
        self.about = match self.lines.len() {
            0 => "No line has this text.".to_owned(),
            count if more => format!("The first {count} lines with this text"),
            count => {
                view::count(i64::try_from(count).unwrap_or(i64::MAX), "line") + " with this text"
            }
        };
        self.find = text;
        Ok(())
    }

    /// The address of the page that begins with, or has, this line; and of the line on it.
    fn address(&self, number: u64) -> String {
        let Self { build, attempt, .. } = self;
        let attempt =
            if attempt.is_empty() { String::new() } else { format!("&attempt={attempt}") };
        format!("/build/{}/log?line={number}{attempt}#L{number}", build.id)
    }
}

impl Row {
    fn new(line: &Line<'_>, href: String, drawn: &mut Lines, bytes: &mut usize) -> Self {
        let left_out = *bytes > HTML_BYTES_MAX;
        let html = if left_out { String::new() } else { drawn.whole(line.text) };
        *bytes += html.len();
        let all = line.text.len() as u64 + line.omitted;
        Self {
            number: line.number,
            href,
            class: class(&plain(line.text)),
            html,
            omitted: if left_out { all } else { line.omitted },
        }
    }
}

/// The text of a line without control sequences, as far as they are those of colours and titles.
fn plain(line: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(line);
    if !text.contains('\u{1b}') {
        return text;
    }
    let mut plain = String::with_capacity(text.len());
    let mut parts = text.split('\u{1b}');
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let end = match part.strip_prefix('[') {
            // A final byte ends the sequence.
            Some(rest) => rest.find(|c: char| ('@'..='~').contains(&c)).map(|at| at + 2),
            None if part.starts_with(']') => part.find('\u{7}').map(|at| at + 1),
            None => part.chars().next().map(char::len_utf8),
        };
        plain.push_str(&part[end.unwrap_or(part.len())..]);
    }
    Cow::Owned(plain)
}

const ERROR: &str = " err";
const WARNING: &str = " warn";

/// How a line looks: by the words with which compilers, make, git, Python, Rust and Go begin what they say of an error.
fn class(text: &str) -> &'static str {
    const ERRORS: [&str; 8] = [
        "error:",
        "error[",
        "fatal:",
        "panicked at",
        "traceback (most recent call last)",
        "panic:",
        "failed!",
        "*** [",
    ];
    const WARNINGS: [&str; 2] = ["warning:", "warning["];
    let lower = text.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if has(&ERRORS) {
        ERROR
    } else if has(&WARNINGS) {
        WARNING
    } else {
        ""
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
