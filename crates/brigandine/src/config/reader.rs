//! Reads TOML, and knows the place of every value.
//!
//! A reader that serde derives stops at the first problem and does not suggest `branch` for `brnach`. It also forgets
//! the place of a value that it has read, so it cannot report two valid values that contradict each other. This reader
//! walks the spanned tree of the `toml` crate and notes which keys were read. It reports every other key, with the most
//! similar known key.

use super::diagnostic::Diagnostics;
use super::document::{Document, Text, syntax_help};
use super::plain::{kind, to_i64};
use super::value::{self, Refusal};
use super::words::{list, nearest, shown};
use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

impl<'i> Document<'i> {
    /// Reads `text`, the contents of `file`, and passes its top table to `read`.
    ///
    /// # Errors
    /// Every problem of the file, in the order of the lines. A file with a problem is refused as a whole.
    pub(crate) fn read<T>(
        file: &str,
        text: &str,
        what: &str,
        read: impl FnOnce(Table<'_, '_>) -> Option<T>,
    ) -> Result<T, Diagnostics> {
        let (tree, errors) = DeTable::parse_recoverable(text);
        let document = Document { file, text, problems: RefCell::default() };
        if !errors.is_empty() {
            // Only the first syntax error is reported, because the others usually follow from it.
            if let Some(error) = errors.iter().min_by_key(|error| error.span().map(|s| s.start)) {
                let message = value::lower_first(error.message());
                let span = error.span().unwrap_or(0..0);
                let help = syntax_help(error.message(), text, &span);
                document.problem(span, message, help);
            }
            return document.problems.into_inner().into_result(None);
        }
        let table = Table::new(&document, what.to_owned(), 0..0, tree.get_ref());
        let value = read(table);
        document.problems.into_inner().into_result(value)
    }
}

/// A table of a document. It notes which of its keys were read.
pub(crate) struct Table<'d, 'i> {
    pub(super) document: &'d Document<'d>,
    /// The name of the table in messages: "input `source`".
    pub(super) what: String,
    /// The place of the table's header.
    pub(super) span: Range<usize>,
    pub(super) entries: &'d DeTable<'i>,
    pub(super) asked: RefCell<Vec<&'static str>>,
}

impl<'d, 'i> Table<'d, 'i> {
    pub(super) fn new(
        document: &'d Document<'d>,
        what: String,
        span: Range<usize>,
        entries: &'d DeTable<'i>,
    ) -> Self {
        Self { document, what, span, entries, asked: RefCell::default() }
    }

    /// Adds a problem at `span`.
    pub(super) fn problem(
        &self,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.document.problem(span, message, help);
    }

    pub(super) fn get(
        &self,
        key: &'static str,
    ) -> Option<(Range<usize>, &'d Spanned<DeValue<'i>>)> {
        if !self.asked.borrow().contains(&key) {
            self.asked.borrow_mut().push(key);
        }
        self.entries
            .iter()
            .find(|(name, _)| name.get_ref() == key)
            .map(|(name, value)| (name.span(), value))
    }

    /// The place of `key` itself; `None`: the key is missing.
    pub(crate) fn key_span(&self, key: &'static str) -> Option<Range<usize>> {
        self.get(key).map(|(span, _)| span)
    }

    /// Adds a problem: `value` of `key` has the wrong kind.
    pub(super) fn mismatch(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        wanted: &str,
        help: &str,
    ) {
        let found = kind(value.get_ref());
        self.problem(
            value.span(),
            format!("`{key}` of {} must be {wanted}, not {found}", self.what),
            help,
        );
    }

    /// Adds a problem: `key` is missing. `help` shows an example.
    pub(crate) fn missing(&self, key: &'static str, help: &str) {
        // If the key is there in a misspelt form, `finish` reports it, and this problem is not added.
        let misspelt = self.entries.keys().any(|name| {
            nearest(name.get_ref(), &[key]).is_some() && !self.asked_for(name.get_ref())
        });
        if !misspelt {
            self.problem(self.span.clone(), format!("{} has no `{key}`", self.what), help);
        }
    }

    fn asked_for(&self, key: &str) -> bool {
        self.asked.borrow().contains(&key)
    }

    /// The text at `key`; `None`: the key is missing or has another kind.
    pub(crate) fn text(&self, key: &'static str, example: &str) -> Option<Text> {
        let (_, value) = self.get(key)?;
        self.as_text(key, value, &format!("for example `{key} = \"{example}\"`"))
    }

    pub(super) fn as_text(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        help: &str,
    ) -> Option<Text> {
        match value.get_ref() {
            DeValue::String(text) if text.contains('\0') => {
                self.problem(
                    value.span(),
                    format!("`{key}` of {} holds a NUL character", self.what),
                    "remove the `\\u0000`",
                );
                None
            }
            DeValue::String(text) => {
                Some(Text { value: text.clone().into_owned(), span: value.span() })
            }
            _ => {
                self.mismatch(key, value, "text", help);
                None
            }
        }
    }

    /// The text at `key`. Adds a problem if the key is missing.
    pub(crate) fn required_text(&self, key: &'static str, example: &str) -> Option<Text> {
        if self.get(key).is_none() {
            self.missing(key, &format!("add `{key} = \"{example}\"`"));
        }
        self.text(key, example)
    }

    /// The text at `key`; `None`: the key is missing, or `check` refuses the text.
    pub(crate) fn checked(
        &self,
        key: &'static str,
        example: &str,
        check: impl FnOnce(&str) -> Result<(), Refusal>,
    ) -> Option<Text> {
        let text = self.text(key, example)?;
        self.accept(text, check)
    }

    /// `text`; `None`: `check` refuses it, and a problem was added.
    pub(crate) fn accept(
        &self,
        text: Text,
        check: impl FnOnce(&str) -> Result<(), Refusal>,
    ) -> Option<Text> {
        let Err((message, help)) = check(&text.value) else { return Some(text) };
        self.problem(text.span, message, help);
        None
    }

    /// The value in `choices` whose name is the text at `key`.
    pub(crate) fn choice<T: Copy>(
        &self,
        key: &'static str,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        let text = self.text(key, choices.first().map_or("", |choice| choice.0))?;
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text.value) {
            return Some(*value);
        }
        let names: Vec<_> = choices.iter().map(|choice| choice.0).collect();
        let listed = list(&names, '"');
        let help = match nearest(&text.value, &names) {
            Some(name) => format!("did you mean \"{name}\"? it may be {listed}"),
            None => format!("it may be {listed}"),
        };
        let message = format!("`{key}` of {} cannot be \"{}\"", self.what, shown(&text.value));
        self.problem(text.span, message, help);
        None
    }

    /// Whether the value at `key` is a table.
    pub(crate) fn is_table(&self, key: &'static str) -> bool {
        self.get(key).is_some_and(|(_, value)| matches!(value.get_ref(), DeValue::Table(_)))
    }

    /// The texts of the list at `key`; `None`: the key is missing.
    pub(crate) fn texts(&self, key: &'static str, example: &str) -> Option<Vec<Text>> {
        let (_, value) = self.get(key)?;
        let help = format!("a list of texts, for example `{key} = [\"{example}\"]`");
        let DeValue::Array(items) = value.get_ref() else {
            self.mismatch(key, value, "a list of texts", &help);
            return Some(Vec::new());
        };
        let text = |item| self.as_text(&format!("{key}[]"), item, &help);
        Some(items.iter().filter_map(text).collect())
    }

    /// The texts of the list at `key` that `check` accepts. More than `most` texts are a problem, with `help` as the
    /// remedy.
    pub(crate) fn checked_texts(
        &self,
        key: &'static str,
        example: &str,
        (most, help): (usize, &str),
        check: impl Fn(&str) -> Result<(), Refusal>,
    ) -> Vec<String> {
        let texts = self.texts(key, example).unwrap_or_default();
        self.bound(key, texts.iter().map(|text| &text.span), (most, help));
        let accepted = texts.into_iter().filter_map(|text| self.accept(text, &check));
        accepted.map(|text| text.value).collect()
    }

    /// Adds a problem if the list at `key` has more than `most` entries.
    pub(crate) fn bound<'a>(
        &self,
        key: &str,
        mut entries: impl ExactSizeIterator<Item = &'a Range<usize>>,
        (most, help): (usize, &str),
    ) {
        let count = entries.len();
        if let Some(first_too_many) = entries.nth(most) {
            let message = format!("`{key}` of {} has {count} entries", self.what);
            self.problem(first_too_many.clone(), message, format!("at most {most}; {help}"));
        }
    }

    /// All texts of this table, whatever their keys.
    pub(crate) fn all_texts(&self) -> Vec<String> {
        let texts = self.entries.iter().filter_map(|(_, value)| match value.get_ref() {
            DeValue::String(text) => Some(text.clone().into_owned()),
            _ => None,
        });
        texts.collect()
    }

    /// Whether the value at `key` is an empty list.
    pub(crate) fn is_empty_list(&self, key: &'static str) -> bool {
        matches!(self.get(key), Some((_, value)) if
            matches!(value.get_ref(), DeValue::Array(items) if items.is_empty()))
    }

    /// A command: a list of a program and its arguments, or one text, which is a shell script.
    pub(crate) fn command(&self, key: &'static str, example: &str) -> Option<Vec<String>> {
        let Some((_, value)) = self.get(key) else {
            self.missing(key, &format!("add `{key} = \"{example}\"`"));
            return None;
        };
        let command = match value.get_ref() {
            DeValue::String(_) => vec![self.as_text(key, value, "")?.value],
            DeValue::Array(_) => {
                self.texts(key, example)?.into_iter().map(|text| text.value).collect::<Vec<_>>()
            }
            _ => {
                let help = format!("for example `{key} = \"{example}\"`");
                self.mismatch(key, value, "a shell script or a list of arguments", &help);
                return None;
            }
        };
        if command.first().is_none_or(|program| program.trim().is_empty()) {
            self.problem(
                value.span(),
                format!("`{key}` of {} is empty", self.what),
                format!("write what to run, for example `{key} = \"{example}\"`"),
            );
            return None;
        }
        Some(command)
    }

    /// The whole number at `key`, which must be in `range`.
    pub(crate) fn integer(
        &self,
        key: &'static str,
        range: RangeInclusive<i64>,
        example: i64,
    ) -> Option<i64> {
        let (_, value) = self.get(key)?;
        let DeValue::Integer(number) = value.get_ref() else {
            let help = format!("for example `{key} = {example}`");
            self.mismatch(key, value, "a whole number", &help);
            return None;
        };
        let number = to_i64(number).filter(|number| range.contains(number));
        if number.is_none() {
            self.problem(
                value.span(),
                format!("`{key}` of {} is out of range", self.what),
                format!("a number from {} to {}", range.start(), range.end()),
            );
        }
        number
    }

    /// The boolean at `key`.
    pub(crate) fn boolean(&self, key: &'static str) -> Option<bool> {
        let (_, value) = self.get(key)?;
        if let DeValue::Boolean(yes) = value.get_ref() {
            return Some(*yes);
        }
        self.mismatch(key, value, "true or false", &format!("write `{key} = true` without quotes"));
        None
    }

    /// The duration at `key`, which must be in `range`: a number of seconds, or a text such as "1h30m".
    pub(crate) fn duration(
        &self,
        key: &'static str,
        range: RangeInclusive<Duration>,
        example: &str,
    ) -> Option<Duration> {
        let [least, most] = [range.start(), range.end()].map(|end| value::show_duration(*end));
        let help = format!(
            "seconds or text with units, for example `{key} = \"{example}\"` (from {least} to {most})"
        );
        let parse = value::parse_duration;
        self.quantity(key, &range, "length of time", &help, Duration::from_secs, parse)
    }

    /// The number of bytes at `key`, which must be in `range`: a number, or a text such as "64 MiB".
    pub(crate) fn bytes(
        &self,
        key: &'static str,
        range: RangeInclusive<u64>,
        example: &str,
    ) -> Option<u64> {
        let help = format!(
            "bytes or text with a unit (KiB, MiB, GiB, TiB), for example `{key} = \"{example}\"`"
        );
        self.quantity(key, &range, "size", &help, u64::from, value::parse_bytes)
    }

    /// The quantity at `key`, which must be in `range`: a number, or a text that `parse` reads.
    fn quantity<T: PartialOrd>(
        &self,
        key: &'static str,
        range: &RangeInclusive<T>,
        kind: &str,
        help: &str,
        from_number: impl FnOnce(u64) -> T,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let (_, value) = self.get(key)?;
        let quantity = match value.get_ref() {
            DeValue::Integer(number) => {
                to_i64(number).and_then(|number| u64::try_from(number).ok()).map(from_number)
            }
            DeValue::String(text) => parse(text),
            _ => {
                self.mismatch(key, value, &format!("a {kind}"), help);
                return None;
            }
        };
        let problem = match quantity {
            Some(quantity) if range.contains(&quantity) => return Some(quantity),
            Some(_) => "is out of range".to_owned(),
            None => format!("is no {kind}"),
        };
        self.problem(value.span(), format!("`{key}` of {} {problem}", self.what), help);
        None
    }

    /// The table at `key`.
    pub(crate) fn table(&self, key: &'static str, what: String) -> Option<Table<'d, 'i>> {
        let (_, value) = self.get(key)?;
        if let DeValue::Table(entries) = value.get_ref() {
            return Some(Table::new(self.document, what, value.span(), entries));
        }
        let help = format!("a table starts with a header line, `[{key}]`");
        self.mismatch(key, value, "a table", &help);
        None
    }

    /// Adds a problem for every key that was not read, with the most similar known key.
    pub(crate) fn finish(self) {
        let known = self.asked.borrow();
        for name in self.entries.keys().filter(|name| !self.asked_for(name.get_ref())) {
            let key: &DeString<'_> = name.get_ref();
            let list = list(&known, '`');
            let help = match nearest(key, &known) {
                Some(near) => format!("did you mean `{near}`? known here: {list}"),
                None => format!("known here: {list}"),
            };
            let message = format!("unknown key `{}` in {}", shown(key), self.what);
            self.problem(name.span(), message, help);
        }
    }
}
