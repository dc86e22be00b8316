//! The text of a PRAGMA statement, whose names and values cannot be bound.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Result, ToSql, ffi};

use super::failure::sqlite;

/// `PRAGMA schema.name`, followed by `rest`.
pub(crate) fn text(schema: Option<&str>, name: &str, rest: &str) -> Result<String> {
    let mut chars = name.chars();
    let is_name = chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && chars.all(|char| char.is_ascii_alphanumeric() || char == '_');
    if !is_name {
        return Err(misuse(&format!("\"{name}\" is not the name of a PRAGMA")));
    }
    Ok(match schema {
        None => format!("PRAGMA {name}{rest}"),
        Some(schema) => format!("PRAGMA {}.{name}{rest}", quoted(schema, '"')),
    })
}

/// `value` as an SQL literal.
pub(crate) fn literal(value: &dyn ToSql) -> Result<String> {
    let value = value.to_sql()?;
    let value = match &value {
        ToSqlOutput::Borrowed(value) => *value,
        ToSqlOutput::Owned(value) => ValueRef::from(value),
        _ => ValueRef::Null,
    };
    match value {
        ValueRef::Integer(number) => Ok(number.to_string()),
        ValueRef::Real(number) if number.is_finite() => Ok(format!("{number:?}")),
        ValueRef::Text(text) => Ok(quoted(std::str::from_utf8(text)?, '\'')),
        ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => {
            Err(misuse("a PRAGMA takes numbers and text only"))
        }
    }
}

/// `text` in quotes; quotes inside `text` are doubled.
pub(super) fn quoted(text: &str, quote: char) -> String {
    let doubled = text.replace(quote, &format!("{quote}{quote}"));
    format!("{quote}{doubled}{quote}")
}

fn misuse(message: &str) -> rusqlite::Error {
    sqlite(ffi::SQLITE_MISUSE, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_of_a_pragma_cannot_end_it() {
        assert_eq!(text(None, "user_version", "").unwrap(), "PRAGMA user_version");
        assert_eq!(text(Some("a\"b"), "t", " = 1").unwrap(), "PRAGMA \"a\"\"b\".t = 1");
        for name in ["", "1", "a b", "a;b", "a=1", "é", "main.user_version", "\"a\""] {
            assert!(text(None, name, "").is_err(), "{name}");
        }
        let values: [(&dyn ToSql, &str); 5] = [
            (&-7_i64, "-7"),
            (&1.0_f64, "1.0"),
            (&"it's; x", "'it''s; x'"),
            (&true, "1"),
            (&String::from("WAL"), "'WAL'"),
        ];
        for (value, expected) in values {
            assert_eq!(literal(value).unwrap(), expected);
        }
        let refused: [&dyn ToSql; 4] = [&None::<i64>, &vec![1_u8], &f64::INFINITY, &f64::NAN];
        for value in refused {
            assert!(literal(value).is_err());
        }
    }
}
