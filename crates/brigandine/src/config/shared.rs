//! What all three kinds of files have in common.

use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::document::{Document, Text};
use super::reader::Table;
use super::value::check_name;
use super::words::shown;
use crate::model::Keep;

/// The allowed values of `interval`.
pub(crate) const INTERVAL_RANGE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);

/// The allowed values of time limits.
pub(super) const TIME_RANGE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(7 * 86_400);

/// The allowed values of `priority`.
pub(super) const PRIORITY_RANGE: RangeInclusive<i64> = -1_000_000..=1_000_000;

/// Replaces a default by the value from a file; `None`: the file has no value.
pub(super) fn set<T>(default: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *default = given;
    }
}

/// Checks the name of a table; messages then call the table by this name. `what` is the thing that the table describes:
/// "a job".
pub(super) fn named(table: &mut Table<'_, '_>, what: &str, name: Option<Text>) -> Option<Text> {
    let name = table.accept(name?, |name| check_name(what, name))?;
    let noun = what.split_once(' ').map_or(what, |(_article, noun)| noun);
    table.what = format!("{noun} `{}`", name.value);
    Some(name)
}

/// Reads `keep`: which evaluations are kept. An empty table keeps all of them, whatever the server's default is.
pub(super) fn keep(table: &Table<'_, '_>, what: String) -> Option<Keep> {
    let table = table.table("keep", what)?;
    let number = |key, most, example| {
        table.integer(key, 1..=most, example).and_then(|number| u32::try_from(number).ok())
    };
    let keep = Keep {
        evaluations: number("evaluations", 1_000_000_000, 100),
        days: number("days", 36_500, 90),
    };
    table.finish();
    Some(keep)
}

pub(super) fn count(
    table: &Table<'_, '_>,
    key: &'static str,
    range: RangeInclusive<i64>,
    example: i64,
) -> Option<usize> {
    table.integer(key, range, example).and_then(|number| usize::try_from(number).ok())
}

/// The path at `key`. A relative path starts at the configuration's folder.
pub(super) fn path(
    table: &Table<'_, '_>,
    folder: &Path,
    key: &'static str,
    example: &str,
) -> Option<PathBuf> {
    let path = table.text(key, example)?;
    if path.value.is_empty() {
        table.problem(path.span, format!("`{key}` is empty"), "write a path");
        return None;
    }
    Some(folder.join(path.value))
}

/// Adds a problem for every duplicate name.
pub(super) fn unique<'a>(
    document: &Document<'_>,
    what: &str,
    names: impl Iterator<Item = (&'a str, &'a Range<usize>)>,
) {
    let mut seen: HashMap<&str, &Range<usize>> = HashMap::new();
    for (name, span) in names {
        if let Some(first) = seen.insert(name, span) {
            // Finding the line takes a walk through the file, so it is skipped when the problem is only counted.
            let line = if document.is_full() { 0 } else { document.line(first) };
            document.problem(
                span.clone(),
                format!("{what} `{}` stands twice", shown(name)),
                format!("the other one is in line {line}; rename or remove one"),
            );
        }
    }
}
