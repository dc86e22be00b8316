//! Whose credentials a request has.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, Method, header};
use tokio::sync::Semaphore;

use super::cookie::cookie;
use super::failures::Failures;
use super::oidc::Provider;
use super::password::Passwords;
use super::principal::{Login, Place, Principal};
use super::same_origin::{Origin, origin};
use super::secret::{form_token, is_same, new_token, secret_digest, token_digest};
use super::token_file::Token;
use crate::http::{Arrived, HttpError, Result};
use crate::model::{self, AccessToken, Actor, Grant, Role, Scope, Sight, Timestamp};
use crate::store::{self, Database, SessionOwner, Snapshot};

/// How exactly the last use of a token is stored. More often, each request would be a write.
const TOKEN_NOTED_S: Timestamp = 3600;

/// How exactly the last use of a session is stored.
const SESSION_NOTED_S: Timestamp = 300;

/// How long a request waits until the use of its credentials is stored.
const NOTE_TIME: Duration = Duration::from_millis(200);

/// How long a request waits for the database to say whose its credentials are.
const LIMIT: Duration = Duration::from_secs(1);

/// Checks credentials. Clones share the same parts.
#[derive(Debug, Clone)]
pub(crate) struct Auth(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    database: Database,
    /// The token in a file; `None`: there is no such file.
    token: Option<Token>,
    /// The secret of the commands of this machine, new with each server; empty: there is none.
    secret: String,
    /// Whether only those who have a role may read.
    private: bool,
    /// The provider through which people log in, beside passwords.
    provider: Option<Provider>,
    passwords: Passwords,
    failures: Failures,
    /// One permit: a single request at a time stores that credentials were used. Others do not wait for it.
    noting: Semaphore,
}

/// What the credentials of a request say about its sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Visitor {
    /// The request has no credentials.
    Nobody,
    /// The credentials are not valid.
    Refused,
    /// The credentials were valid, and have ended.
    Expired,
    /// The request is a change with the cookie of a session, and may come from a page of another site.
    CrossSite,
    /// The database could not say whose the credentials are.
    Unknown,
    /// The owner of valid credentials.
    Known(Principal),
}

impl Auth {
    /// `private`: whether only those who have a role may read.
    pub(crate) fn new(
        database: Database,
        token: Option<Token>,
        private: bool,
        provider: Option<Provider>,
    ) -> Self {
        Self(Arc::new(Parts {
            database,
            token,
            // Without random bytes commands are told what everybody is told.
            secret: new_token().unwrap_or_default(),
            private,
            provider,
            passwords: Passwords::new(),
            failures: Failures::new(),
            noting: Semaphore::new(1),
        }))
    }

    /// What commands show that may read the state directory: their requests may read (AUTH4). Empty: nothing.
    pub(crate) fn secret(&self) -> &str {
        &self.0.secret
    }

    /// Whether only those who have a role may read.
    pub(crate) fn is_private(&self) -> bool {
        self.0.private
    }

    /// Whether somebody may read everything.
    pub(crate) fn may_read(&self, visitor: &Visitor) -> bool {
        !self.0.private || visitor.needs(Role::Reader, None).is_ok()
    }

    /// The provider through which people log in; `None`: they have passwords.
    pub(crate) fn provider(&self) -> Option<&Provider> {
        self.0.provider.as_ref()
    }

    pub(super) fn database(&self) -> &Database {
        &self.0.database
    }

    pub(super) fn passwords(&self) -> &Passwords {
        &self.0.passwords
    }

    pub(super) fn failures(&self) -> &Failures {
        &self.0.failures
    }

    /// Finds out whose credentials a request has: a token in `authorization`, or else the secret in a cookie.
    pub(crate) async fn visitor(
        &self,
        method: &Method,
        headers: &HeaderMap,
        arrived: &Arrived,
    ) -> Visitor {
        if let Some(given) = bearer(headers) {
            return self.token(given).await;
        }
        let Some(secret) = cookie(headers) else { return Visitor::Nobody };
        let found = self.session(secret).await;
        let changes = ![Method::GET, Method::HEAD].contains(method);
        if changes && matches!(found, Visitor::Known(_)) && !is_ours(headers, arrived) {
            return Visitor::CrossSite;
        }
        found
    }

    async fn token(&self, given: &str) -> Visitor {
        if let Some(token) = &self.0.token
            && token.is(given)
        {
            let grant = Grant { scope: Scope::EVERYWHERE, role: Role::Admin };
            return Visitor::Known(Principal::of_token(Actor::token(), [grant]));
        }
        let Some(digest) = token_digest(given) else { return Visitor::Refused };
        if is_same(given, &self.0.secret) {
            let grant = Grant { scope: Scope::EVERYWHERE, role: Role::Reader };
            return Visitor::Known(Principal::of_token(Actor::new("a command"), [grant]));
        }
        match self.read(move |s| store::token(s, &digest)).await {
            Some(None) => Visitor::Refused,
            Some(Some(token)) => self.owner(token).await,
            None => Visitor::Unknown,
        }
    }

    async fn session(&self, secret: &str) -> Visitor {
        // A cookie of another program on this host, or of another server.
        let Some(digest) = secret_digest(secret) else { return Visitor::Nobody };
        let SessionOwner { session, user, grants } =
            match self.read(move |s| store::session(s, &digest)).await {
                Some(Some(found)) => found,
                Some(None) => return Visitor::Expired,
                None => return Visitor::Unknown,
            };
        let (now, id) = (model::now(), session.id);
        if session.has_ended(now) {
            return Visitor::Expired;
        }
        if now - session.used_at >= SESSION_NOTED_S {
            self.note(move |tx| store::note_session_use(tx, id, now)).await;
        }
        let login = Login { id, form_token: form_token(secret).into() };
        Visitor::Known(Principal::of_session(Actor::new(&user), grants, login))
    }

    /// `None`: the database does not answer.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnMut(&Snapshot) -> rusqlite::Result<T> + Send + 'static,
    ) -> Option<T> {
        let found = self.0.database.read(read).short();
        match tokio::time::timeout(LIMIT, found).await {
            Ok(Ok(found)) => Some(found),
            Ok(Err(error)) => {
                tracing::error!(%error, "the database could not say whose the credentials of a request are");
                None
            }
            Err(_) => None,
        }
    }

    /// Stores that credentials were used, unless that is being stored for another request. An error is ignored: what is
    /// not stored now is stored by a later request.
    async fn note(
        &self,
        note: impl FnMut(&store::Transaction) -> rusqlite::Result<()> + Send + 'static,
    ) {
        if let Ok(_permit) = self.0.noting.try_acquire() {
            let _ = tokio::time::timeout(NOTE_TIME, self.0.database.write(note)).await;
        }
    }

    async fn owner(&self, token: AccessToken) -> Visitor {
        let (now, id) = (model::now(), token.id);
        if token.has_ended(now) {
            return Visitor::Expired;
        }
        if now - token.used_at >= TOKEN_NOTED_S {
            self.note(move |tx| store::note_token_use(tx, id, now)).await;
        }
        let actor = Actor::new(&format!("token {}", token.name));
        Visitor::Known(Principal::of_token(actor, [token.grant]))
    }
}

impl Visitor {
    /// The owner of the credentials, whatever the role.
    pub(crate) fn principal(&self) -> Option<&Principal> {
        if let Self::Known(principal) = self { Some(principal) } else { None }
    }

    /// What the sender may see. That a change comes from a page of another site matters only to changes.
    pub(crate) fn sight(&self) -> Sight {
        self.principal().map(Principal::sight).unwrap_or_default()
    }

    /// The owner of the credentials, if that is somebody with at least this role: everywhere, or in the specification
    /// that the request is about.
    ///
    /// # Errors
    /// 401: there are no valid credentials. 403: their owner's role is too small. 503: the database does not answer.
    pub(crate) fn needs(&self, role: Role, place: Option<&Place>) -> Result<&Principal> {
        let principal = match self {
            Self::Known(principal) => principal,
            Self::Nobody => return unauthorized(
                "this needs credentials: log in, or send `authorization: Bearer TOKEN`, which `brigandine token create` \
                 makes",
            ),
            Self::Refused => return unauthorized("the token is none of this server, or was revoked"),
            Self::Expired => return unauthorized("the session or token has ended: log in again, or make another token"),
            Self::CrossSite => return Err(HttpError::Forbidden(
                "this change does not come from a page of this server: open the page again and repeat it there; a \
                 program sends a token, or JSON with `content-type: application/json`"
                    .to_owned(),
            )),
            Self::Unknown => {
                let why = "the database does not answer whose the credentials are, try again later";
                return Err(HttpError::Waiting(why.to_owned()));
            }
        };
        if principal.may(role) || place.is_some_and(|place| principal.may_in(role, place)) {
            return Ok(principal);
        }
        let (actor, roles) = (&principal.actor, principal.roles());
        Err(HttpError::Forbidden(format!("this needs the role {role}; {actor} has {roles}")))
    }

    /// Whether the specification decides if the owner has at least this role.
    pub(crate) fn depends_on_place(&self, role: Role) -> bool {
        matches!(self, Self::Known(principal) if !principal.may(role))
    }
}

fn unauthorized<T>(why: &'static str) -> Result<T> {
    Err(HttpError::Unauthorized(why))
}

/// Whether a change with a cookie comes from a page of this server, or from a program that is no browser: pages of other
/// sites cannot send JSON here.
fn is_ours(headers: &HeaderMap, arrived: &Arrived) -> bool {
    match origin(headers, arrived) {
        Origin::Same => true,
        Origin::Other => false,
        Origin::Unsaid => {
            let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
            kind.is_some_and(|kind| kind.starts_with("application/json"))
        }
    }
}

/// The token in the header `authorization`; empty: the header has something else; `None`: there is no such header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let given = headers.get(header::AUTHORIZATION)?.to_str().unwrap_or_default();
    let token = given.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    Some(token.map_or("", |(_, token)| token.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn only_a_bearer_token_is_read() {
        for (value, wanted) in [
            ("Bearer 0123456789abcdef", "0123456789abcdef"),
            ("bearer  0123456789abcdef ", "0123456789abcdef"),
            ("Bearer", ""),
            ("Bearer ", ""),
            ("Basic 0123456789abcdef", ""),
            ("", ""),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
            assert_eq!(bearer(&headers), Some(wanted), "{value}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }

    fn known(scope: &str, role: Role) -> Visitor {
        let grant = Grant { scope: scope.parse().expect("a scope"), role };
        Visitor::Known(Principal::of_token(Actor::new("alice"), [grant]))
    }

    #[test]
    fn a_role_is_enough_for_itself_and_for_smaller_ones() {
        let place = |project: &str, specification: &str| Place {
            project: project.to_owned(),
            specification: specification.to_owned(),
        };
        let (inside, outside) = (place("main", "hello"), place("tools", "hello"));
        for role in Role::ALL {
            for needed in Role::ALL {
                let enough = role >= needed;
                for scope in ["", "main", "main/hello"] {
                    let visitor = known(scope, role);
                    let passes = |place| visitor.needs(needed, place).is_ok();
                    assert_eq!(passes(Some(&inside)), enough, "{role} {needed} {scope}");
                    assert_eq!(
                        passes(Some(&outside)),
                        enough && scope.is_empty(),
                        "{role} {needed} {scope}"
                    );
                    assert_eq!(passes(None), enough && scope.is_empty(), "{role} {needed} {scope}");
                }
            }
        }
        let status = |visitor: &Visitor| {
            visitor
                .needs(Role::Reader, Some(&inside))
                .map_err(|error| error.parts().0.as_u16())
                .err()
        };
        assert_eq!(status(&Visitor::Nobody), Some(401));
        assert_eq!(status(&Visitor::Refused), Some(401));
        assert_eq!(status(&Visitor::Expired), Some(401));
        assert_eq!(status(&Visitor::CrossSite), Some(403));
        assert_eq!(status(&Visitor::Unknown), Some(503));
        assert_eq!(status(&known("tools", Role::Admin)), Some(403));
    }
}
