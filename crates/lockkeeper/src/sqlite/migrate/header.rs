//! What the header of a file says: whose it is, and how many steps it has seen.

use rusqlite::Connection;

use crate::error::Error;

/// What the header says of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) application_id: i32,
    pub(super) version: i32,
    /// It has no table yet.
    pub(super) empty: bool,
}

impl Header {
    /// It holds data, and nothing that says whose.
    pub(super) fn is_unmarked(self) -> bool {
        self.application_id == 0 && (!self.empty || self.version != 0)
    }

    pub(super) fn read(conn: &Connection) -> rusqlite::Result<Self> {
        // One statement, so that all three are of one state.
        let sql = "SELECT (SELECT application_id FROM pragma_application_id),
                          (SELECT user_version FROM pragma_user_version),
                          NOT EXISTS (SELECT 1 FROM sqlite_schema)";
        conn.query_row(sql, [], |row| {
            Ok(Self { application_id: row.get(0)?, version: row.get(1)?, empty: row.get(2)? })
        })
    }
}

/// What was found out about a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) steps: usize,
    /// The header does not say so yet.
    pub(super) adopt: bool,
}

impl Seen {
    /// Of a header that was checked.
    pub(super) fn marked(header: Header) -> Self {
        Self { steps: header.version as usize, adopt: false }
    }
}

/// An application id as people chose it: letters where it is made of some.
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
