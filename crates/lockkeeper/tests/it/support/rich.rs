//! A schema with features of SQLite beyond plain tables, and statements for it: full-text search over external content,
//! an R-Tree, generated columns, views that can be written to, cascades, deferred keys, `WITHOUT ROWID`, `STRICT`,
//! upserts, `RETURNING`, temporary objects.
//!
//! A statement takes up to two small numbers. To add a statement, add a line to one of the lists.

/// The tables.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE doc (
        id INTEGER PRIMARY KEY,
        title TEXT NOT NULL,
        body TEXT NOT NULL DEFAULT 'none',
        size INTEGER GENERATED ALWAYS AS (length(title) + length(body)) STORED,
        label TEXT GENERATED ALWAYS AS (upper(title)) VIRTUAL
    ) STRICT;
    CREATE INDEX doc_label ON doc (label);
    CREATE VIRTUAL TABLE doc_text USING fts5 (
        title, body, content = 'doc', content_rowid = 'id'
    );
    CREATE TRIGGER doc_inserted AFTER INSERT ON doc BEGIN
        INSERT INTO doc_text (rowid, title, body) VALUES (NEW.id, NEW.title, NEW.body);
    END;
    CREATE TRIGGER doc_deleted AFTER DELETE ON doc BEGIN
        INSERT INTO doc_text (doc_text, rowid, title, body)
        VALUES ('delete', OLD.id, OLD.title, OLD.body);
    END;
    CREATE TRIGGER doc_updated AFTER UPDATE ON doc BEGIN
        INSERT INTO doc_text (doc_text, rowid, title, body)
        VALUES ('delete', OLD.id, OLD.title, OLD.body);
        INSERT INTO doc_text (rowid, title, body) VALUES (NEW.id, NEW.title, NEW.body);
    END;
    CREATE VIRTUAL TABLE place USING rtree (id, x0, x1, y0, y1, +note);
    CREATE TABLE owner (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE thing (
        id INTEGER PRIMARY KEY,
        owner INTEGER NOT NULL REFERENCES owner ON DELETE CASCADE ON UPDATE CASCADE,
        doc INTEGER REFERENCES doc DEFERRABLE INITIALLY DEFERRED
    ) STRICT;
    CREATE TABLE part (
        thing INTEGER NOT NULL REFERENCES thing ON DELETE CASCADE,
        n INTEGER NOT NULL,
        v ANY,
        PRIMARY KEY (thing, n)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE tally (
        k TEXT PRIMARY KEY, n INTEGER NOT NULL CONSTRAINT small CHECK (n < 20)
    ) STRICT, WITHOUT ROWID;
    CREATE VIEW card (id, owner, title, size) AS
        SELECT thing.id, owner.name, doc.title, doc.size
        FROM thing JOIN owner ON owner.id = thing.owner LEFT JOIN doc ON doc.id = thing.doc;
    CREATE TRIGGER card_inserted INSTEAD OF INSERT ON card BEGIN
        INSERT INTO owner (name) VALUES (NEW.owner) ON CONFLICT (name) DO NOTHING;
        INSERT INTO doc (id, title) VALUES (NEW.id, NEW.title);
        INSERT INTO thing (id, owner, doc)
        SELECT NEW.id, owner.id, NEW.id FROM owner WHERE name = NEW.owner;
    END;
    CREATE TRIGGER card_updated INSTEAD OF UPDATE ON card BEGIN
        UPDATE doc SET title = NEW.title WHERE id = (SELECT doc FROM thing WHERE id = OLD.id);
    END;
    CREATE TRIGGER card_deleted INSTEAD OF DELETE ON card BEGIN
        DELETE FROM thing WHERE id = OLD.id;
    END;
";

/// Every row, in an order that depends only on the content.
pub(crate) const DUMP: &str = "
    SELECT 'doc', id, title, body, size, label FROM doc
    UNION ALL SELECT 'place', id, x0, x1, y0 + y1, note FROM place
    UNION ALL SELECT 'owner', id, name, NULL, NULL, NULL FROM owner
    UNION ALL SELECT 'thing', id, owner, doc, NULL, NULL FROM thing
    UNION ALL SELECT 'part', thing, n, v, typeof(v), NULL FROM part
    UNION ALL SELECT 'tally', k, n, NULL, NULL, NULL FROM tally
    UNION ALL SELECT 'card', id, owner, title, size, NULL FROM card
    UNION ALL SELECT 'match 1', rowid, NULL, NULL, NULL, NULL FROM doc_text ('word1')
    UNION ALL SELECT 'match 2', rowid, NULL, NULL, NULL, NULL FROM doc_text ('word2 OR word3')
    UNION ALL SELECT 'match n', rowid, NULL, NULL, NULL, NULL FROM doc_text ('body : none')
    UNION ALL SELECT 'schema', type, name, tbl_name, sql, NULL FROM sqlite_schema
    ORDER BY 1, 2, 3, 4, 5, 6";

/// Each statement can run in every state of the schema, so any of them may follow any other.
pub(crate) const STATEMENTS: &[&str] = &[
    // Full-text search.
    "INSERT INTO doc (title, body) VALUES ('word' || ?1, 'word' || ?2 || ' and more')",
    "INSERT INTO doc (id, title) VALUES (?1, 'word' || ?2)",
    "INSERT OR ROLLBACK INTO doc (id, title) VALUES (?1, 'word' || ?2)",
    "INSERT INTO doc (id, title) VALUES (?1 + 20, 'word1'), (?2, 'word2')",
    "UPDATE doc SET body = 'word' || ?2 WHERE id >= ?1",
    "UPDATE doc SET id = id + ?2 WHERE id = ?1",
    "UPDATE OR FAIL doc SET id = id + 1, title = 'word3' WHERE id > ?1",
    "DELETE FROM doc WHERE id = ?1 RETURNING title, size, label",
    "DELETE FROM doc WHERE id IN (SELECT rowid FROM doc_text (?1 || ' OR word' || ?1))",
    "INSERT INTO doc (id, title) VALUES (?1, 'word' || ?2)
     ON CONFLICT (id) DO UPDATE SET title = excluded.title, body = body || ' word' || ?2
     RETURNING id, size, label",
    "SELECT rowid, title, snippet(doc_text, 1, '[', ']', '', 3) FROM doc_text ('word' || ?1) ORDER BY rowid",
    "SELECT count(*), total(rank < 0) FROM doc_text WHERE doc_text MATCH 'word' || ?1 || ' OR word' || ?2",
    "INSERT INTO doc_text (doc_text) VALUES ('optimize')",
    "INSERT INTO doc_text (doc_text, rank) VALUES ('merge', 16)",
    "INSERT INTO doc_text (doc_text) VALUES ('rebuild')",
    "INSERT INTO doc_text (doc_text, rank) VALUES ('integrity-check', 1)",
    "CREATE VIRTUAL TABLE note USING fts5 (body, tokenize = 'trigram')",
    "INSERT INTO note (rowid, body) VALUES (?1, 'a note about ' || ?2)",
    "SELECT rowid, highlight(note, 0, '[', ']') FROM note ('about') ORDER BY rowid",
    "DELETE FROM note WHERE rowid = ?1",
    "DROP TABLE note",
    // The R-Tree.
    "INSERT INTO place VALUES (?1, ?2, ?2 + 3, ?1, ?1 + 1, 'note ' || ?2)",
    "INSERT OR REPLACE INTO place (id, x0, x1, y0, y1) VALUES (?1, ?2, ?2 + 1, 0, 9)",
    "INSERT OR ROLLBACK INTO place (id, x0, x1, y0, y1) VALUES (?1, ?2, ?2 + 1, 0, 9)",
    "INSERT INTO place (id, x0, x1, y0, y1) VALUES (NULL, ?1, ?2, ?1, ?2)",
    "UPDATE place SET x1 = x1 + ?2, note = 'moved' WHERE id = ?1",
    "DELETE FROM place WHERE x0 > ?1 AND y1 < ?2",
    "SELECT id, note FROM place WHERE x0 <= ?1 AND x1 >= ?1 AND y0 <= ?2 ORDER BY id",
    "SELECT rtreecheck('place')",
    // Foreign keys: some are checked immediately, others at the commit.
    "INSERT INTO owner (name) VALUES ('owner ' || ?1) RETURNING id, name",
    "INSERT INTO owner (id, name) VALUES (?1, 'owner ' || ?2)",
    "INSERT OR REPLACE INTO owner (id, name) VALUES (?1, 'owner ' || ?2)",
    "INSERT OR IGNORE INTO owner (id, name) VALUES (?1, 'owner ' || ?2)",
    "INSERT INTO owner (id, name) VALUES (?1, 'owner ' || ?2)
     ON CONFLICT (id) DO UPDATE SET name = excluded.name WHERE id < 6
     ON CONFLICT (name) DO NOTHING RETURNING *",
    "UPDATE owner SET id = ?2 WHERE id = ?1",
    "DELETE FROM owner WHERE id = ?1 RETURNING name",
    "INSERT INTO thing (owner, doc) VALUES (?1, ?2)",
    "INSERT INTO thing (id, owner) SELECT ?1 + id, id FROM owner RETURNING id",
    "UPDATE thing SET doc = ?2 WHERE owner = ?1 RETURNING id, doc",
    "DELETE FROM thing WHERE id % 3 = ?1 % 3",
    "SELECT thing.id, name, title FROM thing JOIN owner ON owner.id = owner LEFT JOIN doc ON doc.id = doc
     ORDER BY thing.id",
    // Tables `WITHOUT ROWID` and `STRICT` tables.
    "INSERT INTO part (thing, n, v) VALUES (?1, ?2, 'text'), (?1, ?2 + 1, 1.5)",
    "INSERT INTO part (thing, n, v) SELECT id, ?1, x'0102' FROM thing WHERE true
     ON CONFLICT (thing, n) DO UPDATE SET v = ?2",
    "INSERT INTO part (thing, n) VALUES (?1, 'no number')",
    "REPLACE INTO part (thing, n, v) VALUES (?1, ?2, NULL) RETURNING thing, n, v",
    "UPDATE OR IGNORE part SET n = ?2 WHERE n = ?1",
    "DELETE FROM part",
    "INSERT INTO tally (k, n) VALUES ('k' || ?1, ?2)
     ON CONFLICT (k) DO UPDATE SET n = n + excluded.n RETURNING *",
    "UPDATE OR ROLLBACK tally SET n = n + ?1",
    "SELECT * FROM tally ORDER BY k",
    // The view.
    "INSERT INTO card (id, owner, title) VALUES (?1, 'owner ' || ?2, 'word' || ?2)",
    "UPDATE card SET title = title || ' word' || ?2 WHERE id >= ?1",
    "DELETE FROM card WHERE owner = 'owner ' || ?1",
    "SELECT * FROM card ORDER BY id",
    // Changes of the schema: columns and indexes.
    "ALTER TABLE tally ADD COLUMN extra TEXT DEFAULT 'more'",
    "ALTER TABLE tally DROP COLUMN extra",
    "ALTER TABLE owner ADD COLUMN length INTEGER AS (length(name))",
    "CREATE INDEX thing_owner ON thing (owner)",
    "DROP INDEX thing_owner",
];

/// Temporary objects, which exist until their call ends. Some hide a table of the same name.
pub(crate) const TEMPORARY: &[&str] = &[
    "CREATE TEMP TABLE owner AS SELECT * FROM main.owner",
    "CREATE TEMP TABLE scratch (a INTEGER PRIMARY KEY, b)",
    "INSERT INTO scratch (a, b) VALUES (?1, ?2) RETURNING *",
    "INSERT INTO main.tally (k, n) SELECT 'scratch ' || a, b FROM scratch WHERE true
     ON CONFLICT DO NOTHING",
    "SELECT * FROM scratch ORDER BY a",
    "DROP TABLE temp.owner",
    "DROP TABLE scratch",
    "CREATE TEMP VIEW doc AS SELECT 1 AS id, 'temporary' AS title",
    "CREATE TEMP TRIGGER counted AFTER INSERT ON main.owner BEGIN
         INSERT INTO tally (k, n) VALUES ('counted', 1) ON CONFLICT (k) DO UPDATE SET n = n + 1;
     END",
    "CREATE VIRTUAL TABLE temp.index_of USING fts5 (body)",
    "INSERT INTO index_of (body) SELECT name FROM main.owner",
    "SELECT rowid FROM index_of ('owner') ORDER BY rowid",
];

/// What a statement returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gives {
    Rows,
    Changes,
    /// Neither rows nor a number: the number of changes afterwards is that of an earlier statement.
    Nothing,
}

pub(crate) fn gives(sql: &str) -> Gives {
    let starts = |words: &[&str]| words.iter().any(|word| sql.trim_start().starts_with(word));
    match sql {
        _ if starts(&["SELECT"]) || sql.contains("RETURNING") => Gives::Rows,
        _ if starts(&["INSERT", "UPDATE", "DELETE", "REPLACE"]) => Gives::Changes,
        _ => Gives::Nothing,
    }
}

/// The numbers that the statement takes.
pub(crate) fn taken<'n>(sql: &str, numbers: &'n [i64; 2]) -> &'n [i64] {
    let count = ["?1", "?2"].iter().rposition(|name| sql.contains(name)).map_or(0, |at| at + 1);
    &numbers[..count]
}

/// Checks what must be true after any calls: the file is whole, and every index agrees with its content.
pub(crate) fn check_whole(conn: &rusqlite::Connection) {
    let sql = "INSERT INTO doc_text (doc_text, rank) VALUES ('integrity-check', 1)";
    conn.execute_batch(sql).expect("the full-text index is that of its content");
    for (sql, right) in [
        ("SELECT rtreecheck('place')", "ok"),
        ("SELECT group_concat(integrity_check) FROM pragma_integrity_check", "ok"),
        ("SELECT count(*) || '' FROM pragma_foreign_key_check", "0"),
    ] {
        let found: String = conn.query_row(sql, [], |row| row.get(0)).expect("a check");
        assert_eq!(found, right, "{sql}");
    }
}

/// A misspelt statement fails in the same way everywhere, so other tests would not notice it.
#[test]
fn every_statement_of_the_rich_schema_can_be_run() {
    let conn = rusqlite::Connection::open_in_memory().expect("a database");
    conn.execute_batch(SCHEMA).expect("the schema");
    // In the lists, each statement comes after the statements that make what it needs.
    for sql in STATEMENTS.iter().chain(TEMPORARY) {
        let mut statement = conn.prepare(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        let rows = statement.column_count() > 0;
        // Before version 3.54, SQLite counts columns for an ALTER TABLE, which runs queries of its own.
        if !sql.starts_with("ALTER TABLE") {
            assert_eq!(rows, gives(sql) == Gives::Rows, "{sql}");
        }
        let mut rows = statement
            .query(rusqlite::params_from_iter(taken(sql, &[7, 9])))
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        while let Some(row) = rows.next().transpose() {
            // A constraint may refuse the statement.
            let refused = |error: &rusqlite::Error| {
                error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation)
            };
            match row {
                Ok(_) => {}
                Err(error) if refused(&error) => break,
                Err(error) => panic!("{sql}: {error}"),
            }
        }
    }
}
