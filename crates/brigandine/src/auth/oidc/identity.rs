//! What a provider says of a user.

/// A user of the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The issuer and the subject, which the provider gives to no other user.
    pub(crate) subject: String,
    /// The name of the user.
    pub(crate) name: String,
    /// The values of the claim that gives roles.
    pub(crate) values: Vec<String>,
}
