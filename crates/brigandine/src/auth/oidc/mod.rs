//! Logging in through a provider of OpenID Connect, by its authorization code flow with PKCE.
//!
//! The browser is sent to the provider, and comes back with a code. The server exchanges the code for what the provider
//! says of the user, over a connection of its own, and gives the user a session. What belongs to an attempt between
//! these two requests is in a cookie of the browser, and nowhere else.
//!
//! - OIDC1: a code counts only in the browser that began the attempt: its cookie has the state that comes back with the
//!   code, the nonce that the provider's token repeats, and the verifier without which the code is worth nothing.
//! - OIDC2: a user is who the provider says, by issuer and subject. Nobody takes over a user of the same name.
//! - OIDC3: at most [`AT_ONCE`] requests to the provider run at the same time; each has a time limit.

mod attempt;
#[cfg(not(feature = "oidc"))]
#[path = "absent.rs"]
mod client;
#[cfg(feature = "oidc")]
mod client;
mod identity;

pub(super) use attempt::Attempt;

use std::path::Path;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::http::{Arrived, HttpError, Result};
use crate::model::{Grant, LoginProvider};
use crate::os::file;
use client::Client;
use identity::Identity;

/// The most requests to the provider at the same time (OIDC3).
const AT_ONCE: usize = 4;

/// The provider through which people log in. Clones share the same parts.
#[derive(Debug, Clone)]
pub struct Provider(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    settings: LoginProvider,
    /// The path below which a proxy serves this server; usually empty.
    base: String,
    client: Client,
    at_once: Arc<Semaphore>,
}

impl Provider {
    /// Reads the secret. The provider itself is asked at the first login, so that a server starts without it.
    ///
    /// `base`: the path below which a proxy serves this server.
    ///
    /// # Errors
    /// A message that says what is wrong with the file, or that this program was built without OpenID Connect.
    pub(crate) fn new(settings: LoginProvider, base: &str) -> std::result::Result<Self, String> {
        let secret = settings.secret_file.as_deref().map(read_secret).transpose()?;
        let client = Client::new(&settings, secret)?;
        let at_once = Arc::new(Semaphore::new(AT_ONCE));
        Ok(Self(Arc::new(Parts { settings, base: base.to_owned(), client, at_once })))
    }

    /// The name on the button of the login page.
    pub(crate) fn name(&self) -> &str {
        &self.0.settings.name
    }

    /// What a user may do whose claim has these values.
    pub(super) fn grants(&self, values: &[String]) -> Vec<Grant> {
        self.0.settings.grants(values)
    }

    /// The address at the provider to which a browser is sent.
    ///
    /// # Errors
    /// 503: the provider does not answer, or too many log in at once.
    pub(super) async fn address(&self, attempt: Attempt, arrived: &Arrived) -> Result<String> {
        let redirect = self.redirect(arrived);
        self.asks(move |parts| parts.client.address(&parts.settings, &redirect, &attempt)).await
    }

    /// Who the user is whose login gave this code.
    ///
    /// # Errors
    /// 503: the provider does not answer, its answer fails a check, or too many log in at once.
    pub(super) async fn identity(
        &self,
        code: String,
        attempt: Attempt,
        arrived: &Arrived,
    ) -> Result<Identity> {
        let redirect = self.redirect(arrived);
        let ask =
            move |parts: &Parts| parts.client.identity(&parts.settings, &redirect, code, &attempt);
        self.asks(ask).await
    }

    /// The address to which the provider sends browsers back.
    fn redirect(&self, arrived: &Arrived) -> String {
        let scheme = if arrived.secure { "https" } else { "http" };
        format!("{scheme}://{}{}/login/oidc/callback", arrived.host, self.0.base)
    }

    /// Runs a request to the provider on a thread for blocking work (OIDC3).
    async fn asks<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Parts) -> std::result::Result<T, String> + Send + 'static,
    ) -> Result<T> {
        let Ok(permit) = Arc::clone(&self.0.at_once).try_acquire_owned() else {
            return Err(HttpError::Waiting(
                "too many log in through the provider at once, try again later".to_owned(),
            ));
        };
        let parts = Arc::clone(&self.0);
        let asked = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            ask(&parts)
        });
        match asked.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(why)) => {
                tracing::error!(
                    issuer = self.0.settings.issuer,
                    why,
                    "a login through the provider has failed"
                );
                let name = self.name();
                Err(HttpError::Waiting(format!(
                    "the login through {name} has failed; the server's log says why. Try again later, or log in with a \
                     password"
                )))
            }
            Err(error) => {
                tracing::error!(%error, "a login through the provider has failed");
                Err(HttpError::Internal)
            }
        }
    }
}

/// Reads the secret from a file, which only its owner may be able to read.
fn read_secret(path: &Path) -> std::result::Result<String, String> {
    const WHAT: &str = "the file of the client's secret,";
    let secret = file::read_secret(path, WHAT)?.unwrap_or_default();
    if secret.is_empty() || secret.contains(char::is_control) {
        return Err(format!(
            "{WHAT} {} holds no secret: one line of at most {} bytes, as the provider shows it",
            path.display(),
            file::SECRET_BYTES_MAX
        ));
    }
    Ok(secret)
}

#[cfg(test)]
mod tests;
