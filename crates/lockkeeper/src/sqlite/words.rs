//! Recognizes, by their first words, kinds of statements that SQLite does not tell apart.
//!
//! SQLite reports whether a prepared statement may write. It reports the same for `VACUUM`, which must run outside any
//! transaction, and for some PRAGMAs that only report a setting.

/// A statement that must be treated differently from what `sqlite3_stmt_readonly` suggests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    Vacuum,
    /// A PRAGMA without an argument that only reports something.
    Report,
}

/// PRAGMAs that change something without an argument.
const DOING: [&str; 4] = ["incremental_vacuum", "optimize", "shrink_memory", "wal_checkpoint"];

/// The kind of the single statement `sql`; `None`: an ordinary one.
pub(crate) fn special(sql: &str) -> Option<Special> {
    let mut words = Words(without_separators(sql));
    let first = words.next()?;
    if first.eq_ignore_ascii_case("VACUUM") {
        return Some(Special::Vacuum);
    }
    if !first.eq_ignore_ascii_case("PRAGMA") {
        return None;
    }
    let mut name = words.next()?;
    let mut after = words.next();
    if after == Some(".") {
        name = words.next()?;
        after = words.next();
    }
    let bare = name.trim_matches(['"', '\'', '`', '[', ']']);
    let does = DOING.iter().any(|doing| doing.eq_ignore_ascii_case(bare));
    (after.is_none_or(|word| word == ";") && !does).then_some(Special::Report)
}

/// Whether SQLite has a query plan for the statement `sql`, and preparing `sql` changes nothing. (Some PRAGMAs take
/// effect when they are prepared, even below `EXPLAIN`.)
pub(crate) fn has_plan(sql: &str) -> bool {
    const PLANNED: [&str; 7] =
        ["DELETE", "INSERT", "REPLACE", "SELECT", "UPDATE", "VALUES", "WITH"];
    let first = Words(without_separators(sql)).next();
    first.is_some_and(|first| PLANNED.iter().any(|word| word.eq_ignore_ascii_case(first)))
}

/// `sql` without the semicolons before its first word. SQLite keeps those of empty statements in the text of the next
/// statement.
pub(crate) fn without_separators(sql: &str) -> &str {
    let mut words = Words(sql);
    loop {
        let rest = words.0;
        if words.next() != Some(";") {
            return rest;
        }
    }
}

/// Whether `text` may hold a special statement. The test is cheap, and also `true` for some texts that hold none.
pub(crate) fn may_be_special(text: &str) -> bool {
    text.as_bytes().windows(b"VACUUM".len()).any(|word| {
        matches!(word[0], b'V' | b'v' | b'P' | b'p')
            && (word.eq_ignore_ascii_case(b"VACUUM") || word.eq_ignore_ascii_case(b"PRAGMA"))
    })
}

/// The tokens of an SQL text; white space and comments are skipped. They are split only as exactly as [`special`]
/// needs.
struct Words<'s>(&'s str);

impl<'s> Iterator for Words<'s> {
    type Item = &'s str;

    fn next(&mut self) -> Option<&'s str> {
        loop {
            self.0 = self.0.trim_start();
            let end = match self.0.get(..2) {
                Some("--") => self.0.find('\n'),
                Some("/*") => self.0.get(2..).and_then(|rest| rest.find("*/")).map(|at| at + 4),
                _ => break,
            };
            self.0 = &self.0[end.unwrap_or(self.0.len())..];
        }
        let first = self.0.chars().next()?;
        let is_word = |char: char| char.is_alphanumeric() || char == '_' || char == '$';
        let closing = match first {
            '[' => Some(']'),
            '"' | '\'' | '`' => Some(first),
            _ => None,
        };
        let length = match closing {
            Some(closing) => self.0[1..].find(closing).map(|at| at + 2),
            None if is_word(first) => self.0.find(|char| !is_word(char)),
            None => Some(first.len_utf8()),
        };
        let (word, rest) = self.0.split_at(length.unwrap_or(self.0.len()));
        self.0 = rest;
        Some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_statements_are_known_in_every_spelling() {
        for (sql, expected) in [
            ("VACUUM", Some(Special::Vacuum)),
            (" -- first\n/* second */vacuum main INTO 'x'", Some(Special::Vacuum)),
            ("/* VACUUM */ SELECT 1", None),
            ("/* never closed", None),
            (";; ; VACUUM", Some(Special::Vacuum)),
            (";PRAGMA journal_mode", Some(Special::Report)),
            (";", None),
            ("EXPLAIN VACUUM", None),
            ("INSERT INTO t VALUES ('VACUUM')", None),
            ("PRAGMA journal_mode", Some(Special::Report)),
            ("pragma/**/main . journal_mode ;", Some(Special::Report)),
            ("PRAGMA \"main\".[journal_mode]", Some(Special::Report)),
            ("PRAGMA journal_mode = WAL", None),
            ("PRAGMA journal_mode(WAL)", None),
            ("PRAGMA Optimize", None),
            ("PRAGMA main.\"wal_checkpoint\"", None),
            ("PRAGMA", None),
            ("PRAGMA main.", None),
            ("", None),
            ("é", None),
            ("-", None),
            ("'", None),
        ] {
            assert_eq!(special(sql), expected, "{sql}");
            assert!(expected.is_none() || may_be_special(sql), "{sql}");
        }
        for sql in [
            ";; /* ; */ ; SELECT 1",
            "SELECT 1",
            "/* x */ with t AS (SELECT 1) SELECT 1",
            "--\nDelete FROM t",
        ] {
            assert!(has_plan(sql), "{sql}");
        }
        for sql in
            ["", "PRAGMA optimize", "--", "EXPLAIN SELECT 1", "CREATE TABLE t (x)", "selected"]
        {
            assert!(!has_plan(sql), "{sql}");
        }
        for sql in ["", "PRAGM", "INSERT INTO t VALUES (?1, ?2)", "UPDATE provider SET v = ?1"] {
            assert!(!may_be_special(sql), "{sql}");
        }
    }
}
