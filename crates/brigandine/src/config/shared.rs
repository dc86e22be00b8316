//! What the files that people write have in common.

use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::document::Document;
use super::reader::Table;
use super::words::shown;
use crate::model::Keep;

/// How often the inputs of a specification may be looked at.
pub(crate) const INTERVAL_RANGE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);

/// `keep`: which evaluations are kept. An empty table keeps all of them, whatever the server's default.
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

/// A path that starts at the configuration's folder.
pub(super) fn path(
    document: &Document<'_>,
    table: &Table<'_, '_>,
    folder: &Path,
    key: &'static str,
    example: &str,
) -> Option<PathBuf> {
    let path = table.text(key, example)?;
    if path.value.is_empty() {
        document.problem(path.span, format!("`{key}` is empty"), "write a path");
        return None;
    }
    Some(folder.join(path.value))
}

/// Notes every name that stands twice.
pub(super) fn unique<'a>(
    document: &Document<'_>,
    what: &str,
    names: impl Iterator<Item = (&'a str, &'a Range<usize>)>,
) {
    let mut seen: HashMap<&str, &Range<usize>> = HashMap::new();
    for (name, span) in names {
        if let Some(first) = seen.insert(name, span) {
            // Finding the line costs a walk through the file.
            let line = if document.is_full() { 0 } else { document.line(first) };
            document.problem(
                span.clone(),
                format!("{what} `{}` stands twice", shown(name)),
                format!("the other one is in line {line}; rename or remove one"),
            );
        }
    }
}
