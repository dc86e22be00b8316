//! The client of a program that was built without OpenID Connect: none.

use super::attempt::Attempt;
use super::identity::Identity;
use crate::model::LoginProvider;

/// There is none.
#[derive(Debug)]
pub(super) enum Client {}

impl Client {
    /// # Errors
    /// Always: the message says how the program is built with OpenID Connect.
    pub(super) fn new(_: &LoginProvider, _: Option<String>) -> Result<Self, String> {
        Err("this program was built without OpenID Connect, which `[web.oidc]` needs; build it with `cargo build \
             --release -p brigandine --features oidc`, or install the package"
            .to_owned())
    }

    pub(super) fn address(
        &self,
        _: &LoginProvider,
        _: &str,
        _: &Attempt,
    ) -> Result<String, String> {
        match *self {}
    }

    pub(super) fn identity(
        &self,
        _: &LoginProvider,
        _: &str,
        _: String,
        _: &Attempt,
    ) -> Result<Identity, String> {
        match *self {}
    }
}
