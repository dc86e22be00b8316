//! The step `oidc`: logins through a real provider, the npm package `oidc-provider`.

use crate::command::Failed;
use crate::steps::of_all;
use crate::{install, root};

/// The provider and its version. What it needs itself is chosen by npm.
const PROVIDER: &str = "oidc-provider@9.13.3";

/// Installs the provider below `target/`, and runs the tests of logins through it.
pub(crate) fn test() -> Result<Vec<String>, Failed> {
    install::programs(&[("node", "nodejs")])?;
    install::npm("oidc-provider", PROVIDER)?;
    let modules = root().join("target/oidc-provider/node_modules").display().to_string();
    of_all(&["test"], &["--test", "oidc"]).with("OIDC_PROVIDER_MODULES", &modules).run_tests()
}
