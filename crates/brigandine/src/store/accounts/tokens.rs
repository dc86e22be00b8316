//! Access tokens.

use rusqlite::{Row, params};

use crate::model::{AccessToken, Grant, Timestamp};
use crate::store::database::{Snapshot, Transaction};
use crate::store::query::{Columns, Query};

/// A token that is to be stored.
#[derive(Debug, Clone)]
pub(crate) struct NewToken {
    /// The name.
    pub(crate) name: String,
    /// The SHA-256 digest of its text.
    pub(crate) digest: [u8; 32],
    /// What its owner may do.
    pub(crate) grant: Grant,
    /// When it ends; 0: never.
    pub(crate) expires_at: Timestamp,
}

const COLUMNS: &str = "SELECT id, name, scope, role, created_at, expires_at, used_at FROM token ";

fn read(row: &Row<'_>) -> rusqlite::Result<AccessToken> {
    let columns = &mut Columns::of(row);
    Ok(AccessToken {
        id: columns.take()?,
        name: columns.take()?,
        grant: Grant { scope: columns.take()?, role: columns.take()? },
        created_at: columns.take()?,
        expires_at: columns.take()?,
        used_at: columns.take()?,
    })
}

/// Stores a token. `false`: there is one of this name.
pub(crate) fn put_token(
    tx: &Transaction,
    token: &NewToken,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let NewToken { name, digest, grant, expires_at } = token;
    let sql = "INSERT INTO token (name, digest, scope, role, created_at, expires_at, used_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0) ON CONFLICT (name) DO NOTHING";
    let values = params![name, digest, grant.scope, grant.role, now, expires_at];
    Ok(tx.execute(sql, values)? > 0)
}

/// All tokens, by name.
pub(crate) fn tokens(s: &Snapshot) -> rusqlite::Result<Vec<AccessToken>> {
    s.all(&format!("{COLUMNS} ORDER BY name"), [], read)
}

/// The token with this digest, ended or not.
pub(crate) fn token(s: &Snapshot, digest: &[u8; 32]) -> rusqlite::Result<Option<AccessToken>> {
    s.first(&format!("{COLUMNS} WHERE digest = ?1"), [digest], read)
}

/// Notes that a token was used.
pub(crate) fn note_token_use(tx: &Transaction, id: i64, now: Timestamp) -> rusqlite::Result<()> {
    tx.execute("UPDATE token SET used_at = ?2 WHERE id = ?1 AND used_at < ?2", [id, now])?;
    Ok(())
}

/// Removes the token of this name. `false`: there is none.
pub(crate) fn remove_token(tx: &Transaction, name: &str) -> rusqlite::Result<bool> {
    Ok(tx.execute("DELETE FROM token WHERE name = ?1", [name])? > 0)
}
