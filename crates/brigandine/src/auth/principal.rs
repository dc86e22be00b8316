//! Somebody who may do something.

use std::sync::Arc;

use crate::model::{Actor, Grant, Role, Sight};

/// The owner of valid credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principal {
    /// The name under which changes are noted.
    pub(crate) actor: Actor,
    /// What the owner may do, and where.
    grants: Arc<[Grant]>,
    /// The session; `None`: the credentials are a token.
    session: Option<Login>,
}

/// The session of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Login {
    /// The row number.
    pub(super) id: i64,
    /// The text that forms must have ([`Principal::form_token`]).
    pub(super) form_token: Arc<str>,
}

impl Principal {
    /// The owner of a token.
    pub(super) fn of_token(actor: Actor, grants: impl Into<Arc<[Grant]>>) -> Self {
        Self { actor, grants: grants.into(), session: None }
    }

    /// A user who has logged in.
    pub(super) fn of_session(actor: Actor, grants: impl Into<Arc<[Grant]>>, login: Login) -> Self {
        Self { actor, grants: grants.into(), session: Some(login) }
    }

    /// The session; `None`: the credentials are a token.
    pub(super) fn session(&self) -> Option<&Login> {
        self.session.as_ref()
    }

    /// The text that each form of a page must send as `form-token`; empty: the credentials are a token, and forms need
    /// none. Another site cannot read it.
    pub(crate) fn form_token(&self) -> &str {
        self.session.as_ref().map_or("", |login| &login.form_token)
    }

    /// Whether the owner has at least this role everywhere.
    pub(crate) fn may(&self, role: Role) -> bool {
        self.grants.iter().any(|grant| grant.scope.is_everywhere() && grant.role >= role)
    }

    /// Whether the owner has at least this role in a specification.
    pub(crate) fn may_in(&self, role: Role, place: &Place) -> bool {
        let Place { project, specification } = place;
        self.grants
            .iter()
            .any(|grant| grant.role >= role && grant.scope.holds(project, specification))
    }

    /// What the owner may see.
    pub(crate) fn sight(&self) -> Sight {
        if self.may(Role::Reader) {
            return Sight::Everything;
        }
        Sight::With(Arc::clone(&self.grants))
    }

    /// The roles, as text.
    pub(crate) fn roles(&self) -> String {
        let roles: Vec<String> = self.grants.iter().map(Grant::to_string).collect();
        if roles.is_empty() { "no role".to_owned() } else { roles.join(", ") }
    }
}

/// The specification that a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its project.
    pub(crate) project: String,
    /// Its name.
    pub(crate) specification: String,
}
