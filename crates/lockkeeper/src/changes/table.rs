//! Properties of a table that decide whether SQLite's update hook names all rows that change in it.

use rusqlite::Connection;

/// The properties of a table.
#[derive(Debug)]
pub(super) struct Nature {
    /// The table is a view, which has no rows of its own.
    pub(super) view: bool,
    /// The update hook names the table's rows.
    pub(super) named: bool,
    /// `REPLACE` appears in the table's definition or in that of a trigger on it.
    pub(super) replaces: bool,
    /// The columns of the primary key.
    pub(super) keys: Vec<String>,
}

/// Whether the table is SQLite's own (`sqlite_schema`, `sqlite_sequence`, ...).
pub(super) fn is_own(table: &str) -> bool {
    table.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("sqlite_"))
}

pub(super) fn mentions_replace(sql: &str) -> bool {
    sql.as_bytes().windows(7).any(|word| word.eq_ignore_ascii_case(b"replace"))
}

/// Reads the properties of a table from the schema.
pub(super) fn look_up(conn: &Connection, schema: &str, table: &str) -> rusqlite::Result<Nature> {
    let list = "SELECT type, wr FROM pragma_table_list WHERE schema = ?1 AND name = ?2";
    let (kind, without_rowid): (String, bool) =
        conn.prepare(list)?.query_row([schema, table], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let keys = conn
        .prepare("SELECT name FROM pragma_table_info(?2, ?1) WHERE pk > 0")?
        .query_map([schema, table], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let quoted = schema.replace('"', "\"\"");
    let mut replaces = false;
    for schema in [quoted.as_str(), "temp"] {
        let sql = format!(
            "SELECT EXISTS (SELECT 1 FROM \"{schema}\".sqlite_schema
             WHERE lower(tbl_name) = lower(?1) AND instr(lower(sql), 'replace') > 0)"
        );
        replaces |= conn.prepare(&sql)?.query_row([table], |row| row.get::<_, bool>(0))?;
    }
    let named = matches!(kind.as_str(), "table" | "shadow") && !without_rowid;
    Ok(Nature { view: kind == "view", named, replaces, keys })
}
