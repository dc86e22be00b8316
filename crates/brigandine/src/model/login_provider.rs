//! The settings of a provider of OpenID Connect, through which people log in.

use std::path::PathBuf;

use super::Grant;

/// A provider of OpenID Connect, and what its users may do here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginProvider {
    /// The provider's address, as its tokens name it.
    pub issuer: String,
    /// The name under which the provider knows this server.
    pub client_id: String,
    /// The file with the secret that the provider gave this server; `None`: it gave none.
    pub secret_file: Option<PathBuf>,
    /// The name on the button of the login page.
    pub name: String,
    /// What this server asks for beside `openid`.
    pub scopes: Vec<String>,
    /// The claim with the name of the user.
    pub user_claim: String,
    /// The claim with the values that give roles, such as the user's groups.
    pub role_claim: String,
    /// Which value gives which role.
    pub grants: Vec<ClaimedGrant>,
}

/// A role that a value of a claim gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedGrant {
    /// The value; `None`: everybody whom the provider knows has the role.
    pub value: Option<String>,
    /// The role, and where it is valid.
    pub grant: Grant,
}

impl LoginProvider {
    /// What a user may do whose claim has these values: the largest role of each scope.
    pub fn grants(&self, values: &[String]) -> Vec<Grant> {
        let has = |claimed: &&ClaimedGrant| match &claimed.value {
            Some(value) => values.contains(value),
            None => true,
        };
        let mut largest: Vec<Grant> = Vec::new();
        for ClaimedGrant { grant, .. } in self.grants.iter().filter(has) {
            match largest.iter_mut().find(|known| known.scope == grant.scope) {
                Some(known) => known.role = known.role.max(grant.role),
                None => largest.push(grant.clone()),
            }
        }
        largest
    }
}

/// The grants of a setting as text, for people who compare settings.
impl std::fmt::Display for ClaimedGrant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.value.as_deref().unwrap_or("everybody"), self.grant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Role, Scope};

    #[test]
    fn a_user_has_the_largest_role_of_each_scope_that_a_value_gives() {
        let claimed = |value: Option<&str>, role, scope: &str| ClaimedGrant {
            value: value.map(str::to_owned),
            grant: Grant { scope: scope.parse::<Scope>().expect("a scope"), role },
        };
        let provider = LoginProvider {
            issuer: "https://sso.example.org".to_owned(),
            client_id: "brigandine".to_owned(),
            secret_file: None,
            name: "Example".to_owned(),
            scopes: Vec::new(),
            user_claim: "preferred_username".to_owned(),
            role_claim: "groups".to_owned(),
            grants: vec![
                claimed(None, Role::Reader, ""),
                claimed(Some("ops"), Role::Admin, ""),
                claimed(Some("dev"), Role::Builder, ""),
                claimed(Some("dev"), Role::Admin, "main/hello"),
            ],
        };
        let grants = |values: &[&str]| -> Vec<String> {
            let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
            provider.grants(&values).iter().map(Grant::to_string).collect()
        };
        assert_eq!(grants(&[]), ["reader"]);
        assert_eq!(grants(&["others", "Dev"]), ["reader"], "values are compared as they are");
        assert_eq!(grants(&["dev"]), ["builder", "admin in main/hello"]);
        assert_eq!(grants(&["dev", "ops"]), ["admin", "admin in main/hello"]);
        let nobody = LoginProvider { grants: Vec::new(), ..provider };
        assert!(nobody.grants(&["ops".to_owned()]).is_empty());
    }
}
