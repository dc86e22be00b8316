//! The tables that calls write to.

pub(crate) const SCHEMA: &str = "
    CREATE TABLE parent (id INTEGER PRIMARY KEY, name TEXT UNIQUE) STRICT;
    CREATE TABLE child (
        id INTEGER PRIMARY KEY,
        late INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED,
        now INTEGER REFERENCES parent (id)
    ) STRICT;
    CREATE TABLE filler (id INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
    CREATE TABLE tree (k TEXT PRIMARY KEY, v INTEGER) STRICT, WITHOUT ROWID;
    CREATE TABLE ledger (call INTEGER PRIMARY KEY) STRICT;
    CREATE TRIGGER refuse BEFORE INSERT ON parent WHEN NEW.id > 12 BEGIN
        SELECT CASE NEW.id
            WHEN 13 THEN RAISE (ROLLBACK, 'all')
            WHEN 14 THEN RAISE (ABORT, 'statement')
            WHEN 15 THEN RAISE (FAIL, 'rest')
            ELSE RAISE (IGNORE)
        END;
    END;
";

/// Every row, in an order that depends only on the content.
pub(crate) const DUMP: &str = "
    SELECT 'parent', id, name, NULL FROM parent
    UNION ALL SELECT 'child', id, late, now FROM child
    UNION ALL SELECT 'filler', id, length(body), NULL FROM filler
    UNION ALL SELECT 'tree', k, v, NULL FROM tree
    UNION ALL SELECT 'schema', name, NULL, NULL FROM sqlite_schema
    UNION ALL SELECT 'version', user_version, NULL, NULL FROM pragma_user_version
    ORDER BY 1, 2, 3, 4";
