//! Users whom a provider of logins knows.
//!
//! Such a user has no password here, but what the provider says who that is: issuer and subject. Name and roles are
//! those of the last login.

use rusqlite::params;

use super::users::{Password, grants as grants_of};
use crate::model::{Grant, Timestamp};
use crate::store::database::Transaction;
use crate::store::query::Query;

/// What the provider says of somebody who logs in.
#[derive(Debug, Clone)]
pub(crate) struct ExternalUser {
    /// The name.
    pub(crate) name: String,
    /// The issuer and the subject, which nobody else has.
    pub(crate) subject: String,
    /// What the user may do.
    pub(crate) grants: Vec<Grant>,
}

/// What became of a login through a provider.
#[derive(Debug)]
pub(crate) enum ExternalLogin {
    /// The user may log in.
    Known(Password),
    /// Another user has the name. Nothing was changed.
    NameTaken,
    /// The user is disabled. Nothing was changed.
    Disabled,
    /// The user has no role any more, so all sessions of the user have ended.
    NoRole,
}

/// Stores the name and the roles of a user who logs in. A user who comes for the first time is added.
pub(crate) fn external_login(
    tx: &Transaction,
    user: &ExternalUser,
    now: Timestamp,
) -> rusqlite::Result<ExternalLogin> {
    let ExternalUser { name, subject, grants } = user;
    let sql = "SELECT user.id, user.disabled_at FROM subject
         CROSS JOIN user ON user.id = subject.user_id WHERE subject.subject = ?1";
    let found: Option<(i64, i64)> =
        tx.first(sql, [subject], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let id = match found {
        Some((_, disabled_at)) if disabled_at != 0 => return Ok(ExternalLogin::Disabled),
        Some((id, _)) => {
            let sql = "UPDATE OR IGNORE user SET name = ?2 WHERE id = ?1";
            match tx.execute(sql, params![id, name])? {
                0 => return Ok(ExternalLogin::NameTaken),
                _ => id,
            }
        }
        // Who has no role is not remembered, so strangers cannot fill the table.
        None if grants.is_empty() => return Ok(ExternalLogin::NoRole),
        None => {
            let sql = "INSERT INTO user (name, password, created_at, disabled_at)
                 VALUES (?1, '', ?2, 0) ON CONFLICT (name) DO NOTHING RETURNING id";
            let Some(id) = tx.value(sql, params![name, now])? else {
                return Ok(ExternalLogin::NameTaken);
            };
            let sql = "INSERT INTO subject (subject, user_id) VALUES (?1, ?2)";
            tx.execute(sql, params![subject, id])?;
            id
        }
    };
    for Grant { scope, .. } in grants_of(tx, id)? {
        let sql = "DELETE FROM user_role WHERE user_id = ?1 AND scope = ?2";
        tx.execute(sql, params![id, scope])?;
    }
    for Grant { scope, role } in grants {
        let sql = "INSERT INTO user_role (user_id, scope, role) VALUES (?1, ?2, ?3)";
        tx.execute(sql, params![id, scope, role])?;
    }
    if grants.is_empty() {
        tx.execute("DELETE FROM session WHERE user_id = ?1", [id])?;
        return Ok(ExternalLogin::NoRole);
    }
    let sql = "SELECT password FROM user WHERE id = ?1";
    let digest = tx.value(sql, [id])?.unwrap_or_default();
    Ok(ExternalLogin::Known(Password { user: id, digest }))
}
