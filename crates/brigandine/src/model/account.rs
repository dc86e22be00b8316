//! Users, access tokens and sessions, and what each may do.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::Timestamp;

/// The most bytes of the name of a user or a token.
const NAME_BYTES_MAX: usize = 64;

/// What somebody may do. Each role may do what the roles before it may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads everything.
    Reader,
    /// Restarts and cancels builds, and requests evaluations.
    Builder,
    /// Changes what is built, and who may do what.
    Admin,
}

impl Role {
    /// All roles, the smallest first.
    pub const ALL: [Self; 3] = [Self::Reader, Self::Builder, Self::Admin];

    /// The name of the role.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Builder => "builder",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|role| role.name() == text);
        found.ok_or_else(|| "a role is reader, builder or admin".to_owned())
    }
}

/// Where a role is valid: everywhere, in a project, or in one specification.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(String);

impl Scope {
    /// All projects.
    pub const EVERYWHERE: Self = Self(String::new());

    /// Whether a role with this scope is valid in the specification.
    pub fn holds(&self, project: &str, specification: &str) -> bool {
        match self.0.split_once('/') {
            None => self.0.is_empty() || self.0 == project,
            Some((of, name)) => of == project && name == specification,
        }
    }

    /// Whether this is [`Scope::EVERYWHERE`].
    pub fn is_everywhere(&self) -> bool {
        self.0.is_empty()
    }

    /// The text that is stored: empty, `PROJECT` or `PROJECT/SPECIFICATION`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let right = text.is_empty() || text.split('/').all(is_name) && text.split('/').count() <= 2;
        let help =
            || "a scope is PROJECT, or PROJECT/SPECIFICATION for one specification".to_owned();
        if right { Ok(Self(text.to_owned())) } else { Err(help()) }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(if self.0.is_empty() { "everywhere" } else { &self.0 })
    }
}

/// A role, and where it is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Where the role is valid.
    pub scope: Scope,
    /// The role.
    pub role: Role,
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.scope.is_everywhere() {
            return self.role.fmt(f);
        }
        write!(f, "{} in {}", self.role, self.scope)
    }
}

/// What somebody may see of what is built. Specifications that are not private are for everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// Everything: a role is valid everywhere.
    Everything,
    /// Of private specifications, those in which one of these roles is valid.
    With(Arc<[Grant]>),
}

impl Sight {
    /// Whether a private specification may be seen.
    pub fn holds(&self, project: &str, specification: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::With(grants) => {
                grants.iter().any(|grant| grant.scope.holds(project, specification))
            }
        }
    }
}

impl Default for Sight {
    /// That of somebody without a role.
    fn default() -> Self {
        Self::With(Arc::default())
    }
}

/// A token by which a program shows whose it is. Its text is known to its owner alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessToken {
    /// The row number.
    pub id: i64,
    /// The name.
    pub name: String,
    /// What its owner may do.
    pub grant: Grant,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; 0: never.
    pub expires_at: Timestamp,
    /// When it was last used, to the hour; 0: never.
    pub used_at: Timestamp,
}

impl AccessToken {
    /// Whether the token has ended.
    pub const fn has_ended(&self, now: Timestamp) -> bool {
        self.expires_at != 0 && self.expires_at <= now
    }
}

/// Somebody who may log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The row number.
    pub id: i64,
    /// The name.
    pub name: String,
    /// What the user may do, by scope.
    pub grants: Vec<Grant>,
    /// When the user was added.
    pub created_at: Timestamp,
    /// When the user was disabled; 0: the user may log in.
    pub disabled_at: Timestamp,
}

/// A login that has not been ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The row number.
    pub id: i64,
    /// The address from which the user logged in.
    pub client: String,
    /// When it began.
    pub created_at: Timestamp,
    /// When it was last used, to some minutes.
    pub used_at: Timestamp,
}

impl Session {
    /// The longest time without a request, in seconds.
    pub const IDLE_S: Timestamp = 7 * 86_400;
    /// The longest time after the login, in seconds.
    pub const AGE_S: Timestamp = 30 * 86_400;

    /// Whether the session has ended by itself.
    pub const fn has_ended(&self, now: Timestamp) -> bool {
        self.used_at + Self::IDLE_S <= now || self.created_at + Self::AGE_S <= now
    }
}

fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._+".contains(&byte);
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.bytes().all(plain)
}

/// Checks the name of a user or a token.
///
/// # Errors
/// What a name is.
pub fn check_account_name(name: &str) -> Result<(), String> {
    // The names that some providers of OpenID Connect know are addresses of e-mail.
    if is_name(&name.replace('@', ".")) && !name.starts_with('-') {
        return Ok(());
    }
    Err(format!(
        "a name has 1 to {NAME_BYTES_MAX} letters, digits, and `-`, `.`, `_`, `+` or `@`, and begins with no `-`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_ordered_and_have_names() {
        assert!(Role::ALL.is_sorted());
        for role in Role::ALL {
            assert_eq!(role.name().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().is_err());
    }

    #[test]
    fn a_scope_holds_its_own_specifications_and_no_others() {
        for (scope, holds, other) in [
            ("", true, true),
            ("main", true, true),
            ("main/hello", true, false),
            ("tools", false, false),
            ("tools/hello", false, false),
            ("hello", false, false),
        ] {
            let scope: Scope = scope.parse().expect("a scope");
            assert_eq!(scope.holds("main", "hello"), holds, "{scope}");
            assert_eq!(scope.holds("main", "hello2"), other, "{scope}");
        }
        for wrong in ["/", "a/", "/a", "a/b/c", "a b", "ä"] {
            assert!(wrong.parse::<Scope>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_role_sees_the_private_specifications_where_it_is_valid() {
        for role in Role::ALL {
            for (scope, sees) in
                [("", true), ("main", true), ("main/hello", true), ("tools", false)]
            {
                let scope = scope.parse().expect("a scope");
                let sight = Sight::With(Arc::from([Grant { scope, role }]));
                assert_eq!(sight.holds("main", "hello"), sees, "{sight:?}");
            }
        }
        assert!(Sight::Everything.holds("main", "hello"));
        assert!(!Sight::default().holds("main", "hello"));
    }

    #[test]
    fn a_session_ends_after_a_week_without_a_request_and_after_a_month() {
        let (day, client) = (86_400, String::new());
        let session = Session { id: 1, client, created_at: 100 * day, used_at: 100 * day };
        assert!(!session.has_ended(107 * day - 1) && session.has_ended(107 * day));
        let used = Session { used_at: 129 * day, ..session };
        assert!(!used.has_ended(130 * day - 1) && used.has_ended(130 * day));
    }

    #[test]
    fn names_fit_into_one_line_and_one_argument() {
        for right in ["alice", "deploy-1", "a.b_c+d"] {
            assert_eq!(check_account_name(right), Ok(()));
        }
        for wrong in ["", "-a", "a b", "a\n", "a/b", "ä", &"x".repeat(65)] {
            assert!(check_account_name(wrong).is_err(), "{wrong}");
        }
    }
}
