//! Users, their passwords and roles.

use rusqlite::{Row, params};

use crate::model::{Grant, Role, Scope, Timestamp, User};
use crate::store::database::{Snapshot, Transaction};
use crate::store::query::{Columns, Query};

const COLUMNS: &str = "SELECT id, name, created_at, disabled_at FROM user ";

fn read(row: &Row<'_>) -> rusqlite::Result<User> {
    let columns = &mut Columns::of(row);
    Ok(User {
        id: columns.take()?,
        name: columns.take()?,
        grants: Vec::new(),
        created_at: columns.take()?,
        disabled_at: columns.take()?,
    })
}

/// The roles of a user, by scope.
pub(super) fn grants(s: &Snapshot, user: i64) -> rusqlite::Result<Vec<Grant>> {
    let sql = "SELECT scope, role FROM user_role WHERE user_id = ?1 ORDER BY scope";
    s.all(sql, [user], |row| Ok(Grant { scope: row.get(0)?, role: row.get(1)? }))
}

/// All users, by name.
pub(crate) fn users(s: &Snapshot) -> rusqlite::Result<Vec<User>> {
    let mut users: Vec<User> = s.all(&format!("{COLUMNS} ORDER BY name"), [], read)?;
    for user in &mut users {
        user.grants = grants(s, user.id)?;
    }
    Ok(users)
}

/// The user of this name.
pub(crate) fn user(s: &Snapshot, name: &str) -> rusqlite::Result<Option<User>> {
    let Some(mut user) = s.first(&format!("{COLUMNS} WHERE name = ?1"), [name], read)? else {
        return Ok(None);
    };
    user.grants = grants(s, user.id)?;
    Ok(Some(user))
}

/// What a password is compared with.
#[derive(Debug, Clone)]
pub(crate) struct Password {
    /// The user's row.
    pub(crate) user: i64,
    /// The digest, with its salt and parameters.
    pub(crate) digest: String,
}

/// The password of a user who may log in with one.
pub(crate) fn password(s: &Snapshot, name: &str) -> rusqlite::Result<Option<Password>> {
    let sql =
        "SELECT id, password FROM user WHERE name = ?1 AND disabled_at = 0 AND password <> ''";
    s.first(sql, [name], |row| Ok(Password { user: row.get(0)?, digest: row.get(1)? }))
}

/// Adds a user with one role. `false`: there is one of this name.
pub(crate) fn add_user(
    tx: &Transaction,
    name: &str,
    password: &str,
    grant: &Grant,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let sql = "INSERT INTO user (name, password, created_at, disabled_at) VALUES (?1, ?2, ?3, 0)
         ON CONFLICT (name) DO NOTHING RETURNING id";
    let id: Option<i64> = tx.value(sql, params![name, password, now])?;
    let Some(id) = id else { return Ok(false) };
    put_role(tx, id, &grant.scope, grant.role)?;
    Ok(true)
}

fn put_role(tx: &Transaction, user: i64, scope: &Scope, role: Role) -> rusqlite::Result<()> {
    let sql = "INSERT INTO user_role (user_id, scope, role) VALUES (?1, ?2, ?3)
         ON CONFLICT (user_id, scope) DO UPDATE SET role = excluded.role";
    tx.execute(sql, params![user, scope, role])?;
    Ok(())
}

/// What became of a change of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UserChange {
    /// It was made.
    Done,
    /// There is no such user.
    Missing,
    /// The user is the last administrator who may log in. Nothing was changed.
    LastAdmin,
}

/// Finds the user, and makes a change that takes the role of an administrator away, unless it is the last one's.
fn weaken(
    tx: &Transaction,
    name: &str,
    change: impl FnOnce(i64) -> rusqlite::Result<()>,
) -> rusqlite::Result<UserChange> {
    let Some(id) = id_of(tx, name)? else { return Ok(UserChange::Missing) };
    let sql = "SELECT user.id FROM user_role JOIN user ON user.id = user_role.user_id
         WHERE user_role.scope = '' AND user_role.role = 'admin' AND user.disabled_at = 0 LIMIT 2";
    let admins: Vec<i64> = tx.values(sql, [])?;
    if admins == [id] {
        return Ok(UserChange::LastAdmin);
    }
    change(id)?;
    Ok(UserChange::Done)
}

fn id_of(tx: &Transaction, name: &str) -> rusqlite::Result<Option<i64>> {
    tx.value("SELECT id FROM user WHERE name = ?1", [name])
}

/// Gives a user a role in a scope; `None` takes it away.
pub(crate) fn set_role(
    tx: &Transaction,
    name: &str,
    scope: &Scope,
    role: Option<Role>,
) -> rusqlite::Result<UserChange> {
    let change = |id: i64| match role {
        Some(role) => put_role(tx, id, scope, role),
        None => {
            let sql = "DELETE FROM user_role WHERE user_id = ?1 AND scope = ?2";
            tx.execute(sql, params![id, scope]).map(drop)
        }
    };
    if scope.is_everywhere() && role != Some(Role::Admin) {
        return weaken(tx, name, change);
    }
    let Some(id) = id_of(tx, name)? else { return Ok(UserChange::Missing) };
    change(id)?;
    Ok(UserChange::Done)
}

/// Stores another password, and ends the sessions of the user.
pub(crate) fn set_password(
    tx: &Transaction,
    name: &str,
    digest: &str,
) -> rusqlite::Result<UserChange> {
    let Some(id) = id_of(tx, name)? else { return Ok(UserChange::Missing) };
    tx.execute("UPDATE user SET password = ?2 WHERE id = ?1", params![id, digest])?;
    tx.execute("DELETE FROM session WHERE user_id = ?1", [id])?;
    Ok(UserChange::Done)
}

/// Lets a user no longer log in, and ends the sessions; or, with 0, lets the user log in again.
pub(crate) fn set_disabled(
    tx: &Transaction,
    name: &str,
    at: Timestamp,
) -> rusqlite::Result<UserChange> {
    let change = |id: i64| {
        tx.execute("UPDATE user SET disabled_at = ?2 WHERE id = ?1", [id, at])?;
        tx.execute("DELETE FROM session WHERE user_id = ?1", [id]).map(drop)
    };
    if at != 0 {
        return weaken(tx, name, change);
    }
    let Some(id) = id_of(tx, name)? else { return Ok(UserChange::Missing) };
    change(id)?;
    Ok(UserChange::Done)
}

/// Removes a user with roles and sessions.
pub(crate) fn remove_user(tx: &Transaction, name: &str) -> rusqlite::Result<UserChange> {
    weaken(tx, name, |id| {
        tx.execute("DELETE FROM session WHERE user_id = ?1", [id])?;
        tx.execute("DELETE FROM user_role WHERE user_id = ?1", [id])?;
        tx.execute("DELETE FROM subject WHERE user_id = ?1", [id])?;
        tx.execute("DELETE FROM user WHERE id = ?1", [id]).map(drop)
    })
}
