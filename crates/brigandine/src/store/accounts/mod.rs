//! Users, their sessions, and access tokens. Secrets are stored as digests.

mod external;
mod sessions;
mod tokens;
mod users;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

use crate::model::{Role, Scope};

pub(crate) use external::{ExternalLogin, ExternalUser, external_login};
pub(crate) use sessions::{
    NewSession, SessionOwner, begin_session, end_session, end_sessions, note_session_use, session,
    sessions,
};
pub(crate) use tokens::{NewToken, note_token_use, put_token, remove_token, token, tokens};
pub(crate) use users::{
    Password, UserChange, add_user, password, remove_user, set_disabled, set_password, set_role,
    user, users,
};

/// Reads a value that is stored as text.
fn parsed<T: std::str::FromStr<Err = String>>(value: ValueRef<'_>) -> FromSqlResult<T> {
    value.as_str()?.parse().map_err(|error: String| FromSqlError::Other(error.into()))
}

impl FromSql for Role {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        parsed(value)
    }
}

impl ToSql for Role {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.name().into())
    }
}

impl FromSql for Scope {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        parsed(value)
    }
}

impl ToSql for Scope {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

#[cfg(test)]
mod tests;
