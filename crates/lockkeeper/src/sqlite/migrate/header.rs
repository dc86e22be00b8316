//! What a file's header says: which program it belongs to, and how many steps were run on it.

use rusqlite::Connection;

use crate::error::Error;

/// What the header of a file says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) application_id: i32,
    pub(super) version: i32,
    /// The file has no tables.
    pub(super) empty: bool,
}

impl Header {
    /// Whether the file holds data, but no application id.
    pub(super) fn is_unmarked(self) -> bool {
        self.application_id == 0 && (!self.empty || self.version != 0)
    }

    pub(super) fn read(conn: &Connection) -> rusqlite::Result<Self> {
        // One statement, so that all three values are of one state.
        let sql = "SELECT (SELECT application_id FROM pragma_application_id),
                          (SELECT user_version FROM pragma_user_version),
                          NOT EXISTS (SELECT 1 FROM sqlite_schema)";
        conn.query_row(sql, [], |row| {
            Ok(Self { application_id: row.get(0)?, version: row.get(1)?, empty: row.get(2)? })
        })
    }
}

/// How far a file was migrated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) steps: usize,
    /// The header does not hold this number yet and must be written.
    pub(super) adopt: bool,
}

/// An application id for messages: in hexadecimal, and also as letters if all four bytes are printable.
pub(super) fn shown(id: i32) -> String {
    let bytes = id.to_be_bytes();
    match bytes.iter().all(|byte| byte.is_ascii_graphic()) {
        true => format!("{:?} ({id:#010x})", String::from_utf8_lossy(&bytes)),
        false => format!("{id:#010x}"),
    }
}

pub(super) fn own(error: rusqlite::Error) -> Error {
    Error::of_own(error).detail("while looking at the schema's version")
}
