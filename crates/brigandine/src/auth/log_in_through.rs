//! The two requests of a login through a provider (`oidc/`): one sends the browser there, and one brings it back.

use std::time::Instant;

use axum::http::{HeaderMap, HeaderValue};

use super::oidc::{Attempt, Provider};
use super::visitor::Auth;
use crate::http::{Arrived, HttpError, Result};
use crate::model::{self, check_account_name, one_line};
use crate::store::{self, ExternalLogin, ExternalUser};

/// The most bytes of a code. A longer one is none.
const CODE_BYTES_MAX: usize = 4096;
/// The most bytes of a provider's message that is shown.
const MESSAGE_BYTES_MAX: usize = 200;

/// Where a browser is sent, and the value of `Set-Cookie` that it gets.
#[derive(Debug)]
pub(crate) struct Sent {
    /// The address at the provider.
    pub(crate) to: String,
    /// The attempt.
    pub(crate) cookie: HeaderValue,
}

/// A login that has succeeded.
#[derive(Debug)]
pub(crate) struct Back {
    /// The values of `Set-Cookie`: one gives the session, and one takes the attempt away.
    pub(crate) cookies: [HeaderValue; 2],
    /// The address to which the login leads.
    pub(crate) next: String,
}

/// What comes back from the provider in the target of a request.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// The code; empty: the provider gave none.
    pub(crate) code: String,
    /// The state of the attempt.
    pub(crate) state: String,
    /// Why the provider gave no code.
    pub(crate) error: String,
}

impl Provider {
    /// Begins an attempt.
    ///
    /// # Errors
    /// 503: the provider does not answer, or too many log in at once.
    pub(crate) async fn begin(&self, next: &str, arrived: &Arrived) -> Result<Sent> {
        let attempt = Attempt::new(next).map_err(|error| {
            tracing::error!(%error, "the kernel has no random bytes");
            HttpError::Internal
        })?;
        let cookie = attempt.cookie(arrived).ok_or(HttpError::Internal)?;
        Ok(Sent { to: self.address(attempt, arrived).await?, cookie })
    }

    /// Ends an attempt with a session.
    ///
    /// # Errors
    /// 403: the attempt was not begun in this browser, or the user may not log in; the text says why. 429: too many
    /// logins of the client failed. 503: the provider does not answer, or too many log in at once.
    pub(crate) async fn finish(
        &self,
        auth: &Auth,
        answer: Answer,
        headers: &HeaderMap,
        arrived: &Arrived,
    ) -> Result<Back> {
        let refused = |why: String| Err(HttpError::Forbidden(why));
        let provider = self.name().to_owned();
        let Some(attempt) = Attempt::of(headers, &answer.state) else {
            return refused(
                "this login was not begun in this browser, or more than ten minutes ago: begin it again".to_owned(),
            );
        };
        if answer.code.is_empty() || answer.code.len() > CODE_BYTES_MAX {
            let said = one_line(&answer.error, MESSAGE_BYTES_MAX);
            return refused(format!("{provider} has not let you log in: {said}"));
        }
        let begun = auth.failures().begin_unnamed(arrived.client, Instant::now());
        begun.map_err(|wait| HttpError::TooManyFailures(wait.as_secs() + 1))?;
        let next = attempt.next.clone();
        let identity = self.identity(answer.code, attempt, arrived).await?;
        if let Err(what) = check_account_name(&identity.name) {
            let name = one_line(&identity.name, MESSAGE_BYTES_MAX);
            return refused(format!(
                "{provider} calls you \"{name}\", which is no name of a user here: {what}; `user-claim` can name another \
                 claim"
            ));
        }
        let grants = self.grants(&identity.values);
        let user = ExternalUser { name: identity.name, subject: identity.subject, grants };
        let (name, now) = (user.name.clone(), model::now());
        let stored = auth.database().write(move |tx| store::external_login(tx, &user, now)).await;
        let password = match stored.map_err(HttpError::database)? {
            ExternalLogin::Known(password) => password,
            ExternalLogin::NoRole => {
                return refused(format!(
                    "{provider} knows you as {name}, and nothing that it says of you gives a role here: an administrator \
                     may add a grant to `[web.oidc]`"
                ));
            }
            ExternalLogin::NameTaken => {
                return refused(format!(
                    "there is another user {name} here, who does not log in through {provider}: an administrator may \
                     remove that user with `brigandine user remove {name}`"
                ));
            }
            ExternalLogin::Disabled => {
                return refused(format!("the user {name} is disabled here"));
            }
        };
        let Some(cookie) = auth.begin_session(&name, password, arrived).await? else {
            return refused(format!("the user {name} was disabled or removed meanwhile"));
        };
        auth.failures().succeeded_unnamed(arrived.client);
        let taken_away = Attempt::taken_away(arrived).ok_or(HttpError::Internal)?;
        Ok(Back { cookies: [cookie, taken_away], next })
    }
}
