//! Reading TOML with the place of every value at hand.
//!
//! Why not derive it: a derived reader stops at the first problem, cannot tell `brnach` from
//! `branch`, and knows the place of a value only while it reads it, not when two values that each
//! make sense do not fit together. This reader walks the spanned tree of the `toml` crate, notes
//! which keys were asked for, and turns every other key into a message with the nearest known one.

use super::diagnostic::Diagnostics;
use super::document::{Document, Text, syntax_help};
use super::plain::{kind, to_i64};
use super::value;
use super::words::{nearest, shown};
use std::cell::RefCell;
use std::ops::Range;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

impl<'i> Document<'i> {
    /// Reads `text` as the contents of `file` and hands its top table to `read`.
    ///
    /// # Errors
    /// Every problem of the file, in the order of its lines. Nothing is half accepted.
    pub(crate) fn read<T>(
        file: &str,
        text: &str,
        what: &str,
        read: impl FnOnce(&Document<'_>, Table<'_, '_>) -> Option<T>,
    ) -> Result<T, Diagnostics> {
        let (tree, errors) = DeTable::parse_recoverable(text);
        let document = Document { file, text, problems: RefCell::default() };
        if !errors.is_empty() {
            // A file that is no TOML is not read further, and only its first mistake is told: what
            // comes after it is mostly its echo.
            if let Some(error) = errors.iter().min_by_key(|error| error.span().map(|s| s.start)) {
                let message = value::lower_first(error.message());
                let span = error.span().unwrap_or(0..0);
                let help = syntax_help(error.message(), text, &span);
                document.problem(span, message, help);
            }
            return document.problems.into_inner().into_result(None);
        }
        let table = Table::new(&document, what.to_owned(), 0..0, tree.get_ref());
        let value = read(&document, table);
        document.problems.into_inner().into_result(value)
    }
}

/// A table of a document; knows which of its keys were asked for.
pub(crate) struct Table<'d, 'i> {
    pub(super) document: &'d Document<'d>,
    /// How messages name it: "input `source`".
    pub(super) what: String,
    /// Its header.
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

    /// Where the table's header stands.
    pub(crate) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// How messages name the table, from now on.
    pub(crate) fn name_it(&mut self, what: String) {
        self.what = what;
    }

    /// How messages name the table.
    pub(crate) fn what(&self) -> &str {
        &self.what
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

    /// Where `key` itself stands, if it is there.
    pub(crate) fn key_span(&self, key: &'static str) -> Option<Range<usize>> {
        self.get(key).map(|(span, _)| span)
    }

    /// Notes that `value` of `key` is of the wrong kind.
    pub(super) fn mismatch(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        wanted: &str,
        help: &str,
    ) {
        let found = kind(value.get_ref());
        self.document.problem(
            value.span(),
            format!("`{key}` of {} must be {wanted}, not {found}", self.what),
            help,
        );
    }

    /// Notes that `key` is missing; `help` shows it as it could be.
    pub(crate) fn missing(&self, key: &'static str, help: &str) {
        // A misspelt key says it better.
        let misspelt = self.entries.keys().any(|name| {
            nearest(name.get_ref(), &[key]).is_some() && !self.asked_for(name.get_ref())
        });
        if !misspelt {
            self.document.problem(self.span(), format!("{} has no `{key}`", self.what), help);
        }
    }

    fn asked_for(&self, key: &str) -> bool {
        self.asked.borrow().contains(&key)
    }

    /// The text at `key`.
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
                self.document.problem(
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

    /// The text at `key`, which must be there.
    pub(crate) fn required_text(&self, key: &'static str, example: &str) -> Option<Text> {
        if self.get(key).is_none() {
            self.missing(key, &format!("add `{key} = \"{example}\"`"));
        }
        self.text(key, example)
    }

    /// The text at `key` after `check`, whose error is a message and a help.
    pub(crate) fn checked(
        &self,
        key: &'static str,
        example: &str,
        check: impl FnOnce(&str) -> Result<(), (String, String)>,
    ) -> Option<Text> {
        let text = self.text(key, example)?;
        self.accept(text, check)
    }

    /// `text` if `check` finds nothing wrong with it.
    pub(crate) fn accept(
        &self,
        text: Text,
        check: impl FnOnce(&str) -> Result<(), (String, String)>,
    ) -> Option<Text> {
        match check(&text.value) {
            Ok(()) => Some(text),
            Err((message, help)) => {
                self.document.problem(text.span, message, help);
                None
            }
        }
    }

    /// One of `choices` at `key`.
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
        let listed = names.iter().map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(", ");
        let help = match nearest(&text.value, &names) {
            Some(name) => format!("did you mean \"{name}\"? it may be {listed}"),
            None => format!("it may be {listed}"),
        };
        let message = format!("`{key}` of {} cannot be \"{}\"", self.what, shown(&text.value));
        self.document.problem(text.span, message, help);
        None
    }

    /// Whether the key is there and has a table.
    pub(crate) fn is_table(&self, key: &'static str) -> bool {
        self.get(key).is_some_and(|(_, value)| matches!(value.get_ref(), DeValue::Table(_)))
    }

    /// The texts of the list at `key`; `None` when the key is absent.
    pub(crate) fn texts(&self, key: &'static str, example: &str) -> Option<Vec<Text>> {
        let (_, value) = self.get(key)?;
        let help = format!("a list of texts, for example `{key} = [\"{example}\"]`");
        let DeValue::Array(items) = value.get_ref() else {
            self.mismatch(key, value, "a list of texts", &help);
            return Some(Vec::new());
        };
        Some(
            items
                .iter()
                .filter_map(|item| self.as_text(&format!("{key}[]"), item, &help))
                .collect(),
        )
    }

    /// All texts that stand in this table, whatever their keys: one of them may be what was meant.
    pub(crate) fn all_texts(&self) -> Vec<String> {
        let texts = self.entries.iter().filter_map(|(_, value)| match value.get_ref() {
            DeValue::String(text) => Some(text.clone().into_owned()),
            _ => None,
        });
        texts.collect()
    }

    /// Whether an empty list stands at `key`.
    pub(crate) fn is_empty_list(&self, key: &'static str) -> bool {
        matches!(self.get(key), Some((_, value)) if
            matches!(value.get_ref(), DeValue::Array(items) if items.is_empty()))
    }

    /// A command: a list of program and arguments, or one text, which is a shell script.
    pub(crate) fn command(&self, key: &'static str, example: &str) -> Option<Vec<String>> {
        let Some((_, value)) = self.get(key) else {
            self.missing(key, &format!("add `{key} = \"{example}\"`"));
            return None;
        };
        let command = match value.get_ref() {
            DeValue::String(_) => {
                let script = self.as_text(key, value, "")?.value;
                vec![script]
            }
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
            self.document.problem(
                value.span(),
                format!("`{key}` of {} is empty", self.what),
                format!("write what to run, for example `{key} = \"{example}\"`"),
            );
            return None;
        }
        Some(command)
    }

    /// The whole number at `key`, within `range`.
    pub(crate) fn integer(
        &self,
        key: &'static str,
        range: std::ops::RangeInclusive<i64>,
        example: i64,
    ) -> Option<i64> {
        let (_, value) = self.get(key)?;
        let DeValue::Integer(number) = value.get_ref() else {
            self.mismatch(
                key,
                value,
                "a whole number",
                &format!("for example `{key} = {example}`"),
            );
            return None;
        };
        match to_i64(number) {
            Some(number) if range.contains(&number) => Some(number),
            _ => {
                self.document.problem(
                    value.span(),
                    format!("`{key}` of {} is out of range", self.what),
                    format!("a number from {} to {}", range.start(), range.end()),
                );
                None
            }
        }
    }

    /// Yes or no at `key`.
    pub(crate) fn boolean(&self, key: &'static str) -> Option<bool> {
        let (_, value) = self.get(key)?;
        if let DeValue::Boolean(yes) = value.get_ref() {
            return Some(*yes);
        }
        self.mismatch(key, value, "true or false", &format!("write `{key} = true` without quotes"));
        None
    }

    /// A length of time at `key`: seconds, or text such as "1h30m", within `range`.
    pub(crate) fn duration(
        &self,
        key: &'static str,
        range: std::ops::RangeInclusive<Duration>,
        example: &str,
    ) -> Option<Duration> {
        let (_, value) = self.get(key)?;
        let help = format!(
            "seconds or text with units, for example `{key} = \"{example}\"` (from {} to {})",
            value::show_duration(*range.start()),
            value::show_duration(*range.end()),
        );
        let duration = match value.get_ref() {
            DeValue::Integer(number) => {
                to_i64(number).and_then(|n| u64::try_from(n).ok()).map(Duration::from_secs)
            }
            DeValue::String(text) => value::parse_duration(text),
            _ => {
                self.mismatch(key, value, "a length of time", &help);
                return None;
            }
        };
        let problem = match duration {
            Some(duration) if range.contains(&duration) => return Some(duration),
            Some(_) => "is out of range",
            None => "is no length of time",
        };
        self.document.problem(value.span(), format!("`{key}` of {} {problem}", self.what), help);
        None
    }

    /// A number of bytes at `key`: a number, or text such as "64 MiB", within `range`.
    pub(crate) fn bytes(
        &self,
        key: &'static str,
        range: std::ops::RangeInclusive<u64>,
        example: &str,
    ) -> Option<u64> {
        let (_, value) = self.get(key)?;
        let help = format!(
            "bytes or text with a unit (KiB, MiB, GiB), for example `{key} = \"{example}\"`"
        );
        let bytes = match value.get_ref() {
            DeValue::Integer(number) => to_i64(number).and_then(|n| u64::try_from(n).ok()),
            DeValue::String(text) => value::parse_bytes(text),
            _ => {
                self.mismatch(key, value, "a size", &help);
                return None;
            }
        };
        let problem = match bytes {
            Some(bytes) if range.contains(&bytes) => return Some(bytes),
            Some(_) => "is out of range",
            None => "is no size",
        };
        self.document.problem(value.span(), format!("`{key}` of {} {problem}", self.what), help);
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

    /// Notes every key that nobody asked for, with the nearest that could have been meant.
    pub(crate) fn finish(self) {
        let asked = self.asked.borrow();
        let known = asked.iter().copied().collect::<Vec<_>>();
        for name in self.entries.keys() {
            let key: &DeString<'_> = name.get_ref();
            if known.contains(&key.as_ref()) {
                continue;
            }
            let list = known.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ");
            let help = match nearest(key, &known) {
                Some(near) => format!("did you mean `{near}`? known here: {list}"),
                None => format!("known here: {list}"),
            };
            let message = format!("unknown key `{}` in {}", shown(key), self.what);
            self.document.problem(name.span(), message, help);
        }
    }
}
