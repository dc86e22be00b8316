//! Logging in and out.

use std::time::Instant;

use axum::http::HeaderValue;

use super::cookie::set_cookie;
use super::principal::Principal;
use super::secret::{digest, new_secret};
use super::visitor::Auth;
use crate::http::{Arrived, HttpError, Result};
use crate::model::{self, User, check_account_name};
use crate::store::{self, NewSession, Password};

/// The most bytes of a password that is compared. A longer one is none, and would take longer.
const PASSWORD_BYTES_MAX: usize = 1024;

/// Somebody who has logged in.
#[derive(Debug)]
pub(crate) struct LoggedIn {
    /// The user.
    pub(crate) user: User,
    /// The value of `Set-Cookie`.
    pub(crate) cookie: HeaderValue,
}

impl Auth {
    /// Begins a session, if the password is right.
    ///
    /// # Errors
    /// 403: nobody who may log in has this name and password. 429: too many logins of the client or of the name failed.
    /// 503: too many log in at once.
    pub(crate) async fn log_in(
        &self,
        name: &str,
        password: &str,
        arrived: &Arrived,
    ) -> Result<LoggedIn> {
        let wrong = || HttpError::Forbidden("the name or the password is wrong".to_owned());
        // What is no name counts as an attempt of one name, so that the names that are remembered are short.
        let counted = if check_account_name(name).is_ok() { name } else { "" };
        let begun = self.failures().begin(arrived.client, counted, Instant::now());
        begun.map_err(|wait| HttpError::TooManyFailures(wait.as_secs() + 1))?;
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(wrong());
        }
        let wanted = counted.to_owned();
        let found = self.database().read(move |s| {
            let found = store::password(s, &wanted)?;
            Ok(found.zip(store::user(s, &wanted)?))
        });
        let found = found.short().await.map_err(HttpError::database)?;
        let compared = found.as_ref().map(|(password, _)| password.digest.clone());
        let right = self.passwords().is_right(password.to_owned(), compared).await?;
        let Some((password, user)) = found.filter(|_| right) else {
            tracing::warn!(client = %arrived.client, user = counted, "a login has failed");
            return Err(wrong());
        };
        let begun = self.begin_session(&user.name, password, arrived).await?;
        let cookie = begun.ok_or_else(wrong)?;
        self.failures().succeeded(arrived.client, counted);
        Ok(LoggedIn { user, cookie })
    }

    /// Begins a session of a user who has shown who that is. Returns the value of `Set-Cookie`; `None`: meanwhile the
    /// user was disabled or removed, or has another password.
    ///
    /// # Errors
    /// 503: the database cannot be changed.
    pub(super) async fn begin_session(
        &self,
        user: &str,
        password: Password,
        arrived: &Arrived,
    ) -> Result<Option<HeaderValue>> {
        let secret = new_secret().map_err(|error| {
            tracing::error!(%error, "the kernel has no random bytes");
            HttpError::Internal
        })?;
        let (digest, client) = (digest(&secret), arrived.client.to_string());
        let (new, now) = (NewSession { password, digest, client }, model::now());
        let begun = self.database().write(move |tx| store::begin_session(tx, &new, now)).await;
        if !begun.map_err(HttpError::database)? {
            return Ok(None);
        }
        tracing::info!(client = %arrived.client, user, "logged in");
        set_cookie(Some(&secret), arrived).map(Some).ok_or(HttpError::Internal)
    }

    /// Ends the session of a request, if it has one. Returns the value of `Set-Cookie` that takes the cookie away.
    ///
    /// # Errors
    /// 503: the database cannot be changed.
    pub(crate) async fn log_out(
        &self,
        principal: Option<&Principal>,
        arrived: &Arrived,
    ) -> Result<HeaderValue> {
        if let Some(id) = principal.and_then(Principal::session).map(|login| login.id) {
            let ended = self.database().write(move |tx| store::end_session(tx, id)).await;
            ended.map_err(HttpError::database)?;
        }
        set_cookie(None, arrived).ok_or(HttpError::Internal)
    }
}
