//! A user, and a login.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{Role, User};

/// What a client of Hydra sends to log in.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "Login")]
pub(crate) struct LoginJson {
    /// The name.
    pub(crate) username: String,
    /// The password.
    pub(crate) password: String,
}

/// A user, as clients of Hydra know it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "User")]
pub(crate) struct UserJson {
    username: String,
    /// Empty.
    fullname: &'static str,
    /// Empty.
    emailaddress: &'static str,
    /// The roles of Hydra that the user has everywhere.
    userroles: &'static [&'static str],
}

impl UserJson {
    /// The user, with the roles of Hydra that cover what the user may do everywhere.
    pub(crate) fn new(user: &User) -> Self {
        let everywhere = user.grants.iter().filter(|grant| grant.scope.is_everywhere());
        let userroles: &[&str] = match everywhere.map(|grant| grant.role).max() {
            Some(Role::Admin) => &["admin"],
            Some(Role::Builder) => &["restart-jobs", "cancel-build", "eval-jobset"],
            Some(Role::Reader) | None => &[],
        };
        Self { username: user.name.clone(), fullname: "", emailaddress: "", userroles }
    }
}
