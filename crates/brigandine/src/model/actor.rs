//! Who asks for a change.

use super::text::one_line;
use serde::Serialize;

/// The name of somebody who asks for a change, as the audit shows it: `alice`, `token deploy`, `local root`. One line
/// of at most [`Actor::BYTES_MAX`] bytes, without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Actor(String);

impl Actor {
    /// The most bytes of a name. A longer name is cut.
    pub const BYTES_MAX: usize = 200;

    /// An actor of this name; without a name, `somebody`.
    pub fn new(name: &str) -> Self {
        let name = one_line(name, Self::BYTES_MAX);
        Self(if name.is_empty() { "somebody".to_owned() } else { name })
    }

    /// A user of the server's machine who runs a command.
    pub fn local(user: &str) -> Self {
        Self::new(&format!("local {user}"))
    }

    /// Whoever has the token of the server's token file, which names nobody.
    pub fn token() -> Self {
        Self::new("token")
    }

    /// The server itself, by a rule that a specification has.
    pub fn server() -> Self {
        Self::new("the server")
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
