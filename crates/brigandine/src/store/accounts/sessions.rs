//! Sessions: logins that have not ended.

use rusqlite::{Row, params};

use super::users::{Password, grants};
use crate::model::{Grant, Session, Timestamp};
use crate::store::database::{Snapshot, Transaction};
use crate::store::query::{Columns, Query};

/// The most sessions of one user. A login ends the one that was not used for the longest time.
const OF_ONE_USER_MAX: i64 = 32;

/// A session that is to begin.
#[derive(Debug, Clone)]
pub(crate) struct NewSession {
    /// The user, and the password that was right.
    pub(crate) password: Password,
    /// The SHA-256 digest of the secret in the cookie.
    pub(crate) digest: [u8; 32],
    /// The address of the client.
    pub(crate) client: String,
}

/// A session and its user.
#[derive(Debug, Clone)]
pub(crate) struct SessionOwner {
    /// The session.
    pub(crate) session: Session,
    /// The name of the user.
    pub(crate) user: String,
    /// What the user may do.
    pub(crate) grants: Vec<Grant>,
}

fn read(row: &Row<'_>) -> rusqlite::Result<Session> {
    let columns = &mut Columns::of(row);
    Ok(Session {
        id: columns.take()?,
        client: columns.take()?,
        created_at: columns.take()?,
        used_at: columns.take()?,
    })
}

/// Begins a session, and removes those that have ended. `false`: meanwhile the user was disabled or removed, or has
/// another password.
pub(crate) fn begin_session(
    tx: &Transaction,
    new: &NewSession,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let NewSession { password, digest, client } = new;
    let sql = "DELETE FROM session WHERE used_at <= ?1 OR created_at <= ?2";
    tx.execute(sql, [now - Session::IDLE_S, now - Session::AGE_S])?;
    let sql = "DELETE FROM session WHERE user_id = ?1 AND id NOT IN
         (SELECT id FROM session WHERE user_id = ?1 ORDER BY used_at DESC LIMIT ?2)";
    tx.execute(sql, [password.user, OF_ONE_USER_MAX - 1])?;
    let sql = "INSERT INTO session (user_id, digest, client, created_at, used_at)
         SELECT id, ?3, ?4, ?5, ?5 FROM user WHERE id = ?1 AND password = ?2 AND disabled_at = 0";
    let values = params![password.user, password.digest, digest, client, now];
    Ok(tx.execute(sql, values)? > 0)
}

/// The session with this digest, ended or not, of a user who may log in.
pub(crate) fn session(s: &Snapshot, digest: &[u8; 32]) -> rusqlite::Result<Option<SessionOwner>> {
    let sql = "SELECT id, client, created_at, used_at, user_id FROM session WHERE digest = ?1";
    let found = s.first(sql, [digest], |row| Ok((read(row)?, row.get::<_, i64>(4)?)))?;
    let Some((session, id)) = found else { return Ok(None) };
    let name = s.value("SELECT name FROM user WHERE id = ?1 AND disabled_at = 0", [id])?;
    let Some(user) = name else { return Ok(None) };
    Ok(Some(SessionOwner { session, user, grants: grants(s, id)? }))
}

/// The sessions of a user, the latest used first.
pub(crate) fn sessions(s: &Snapshot, user: i64) -> rusqlite::Result<Vec<Session>> {
    let sql = "SELECT id, client, created_at, used_at FROM session WHERE user_id = ?1
         ORDER BY used_at DESC, id DESC";
    s.all(sql, [user], read)
}

/// Notes that a session was used.
pub(crate) fn note_session_use(tx: &Transaction, id: i64, now: Timestamp) -> rusqlite::Result<()> {
    tx.execute("UPDATE session SET used_at = ?2 WHERE id = ?1 AND used_at < ?2", [id, now])?;
    Ok(())
}

/// Ends a session. `false`: it had ended.
pub(crate) fn end_session(tx: &Transaction, id: i64) -> rusqlite::Result<bool> {
    Ok(tx.execute("DELETE FROM session WHERE id = ?1", [id])? > 0)
}

/// Ends sessions of a user: the one with this number, or all. Returns how many there were.
pub(crate) fn end_sessions(
    tx: &Transaction,
    user: i64,
    id: Option<i64>,
) -> rusqlite::Result<usize> {
    let sql = "DELETE FROM session WHERE user_id = ?1 AND (?2 IS NULL OR id = ?2)";
    tx.execute(sql, params![user, id])
}
