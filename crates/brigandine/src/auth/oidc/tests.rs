//! What needs no provider. `tests/oidc.rs` has the rest, with a real one.

use super::*;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

fn secret(text: &str, mode: u32) -> std::result::Result<String, String> {
    let directory = tempfile::tempdir().expect("a directory");
    let path: PathBuf = directory.path().join("secret");
    std::fs::write(&path, text).expect("a file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("a mode");
    read_secret(&path)
}

#[test]
fn a_secret_is_one_line_that_others_cannot_read() {
    assert_eq!(
        secret("a secret of the provider\n", 0o600).as_deref(),
        Ok("a secret of the provider")
    );
    assert!(secret("x", 0o640).expect_err("readable").contains("chmod 600"));
    for wrong in ["", "\n", "two\nlines", &"x".repeat(2000)] {
        assert!(secret(wrong, 0o600).expect_err(wrong).contains("holds no secret"), "{wrong}");
    }
    let missing = read_secret(Path::new("/nonexistent/secret")).expect_err("missing");
    assert!(missing.contains("/nonexistent/secret"), "{missing}");
}

#[cfg(not(feature = "oidc"))]
#[test]
fn a_program_without_openid_connect_says_how_to_get_it() {
    let settings = LoginProvider {
        issuer: "https://sso.example.org".to_owned(),
        client_id: "brigandine".to_owned(),
        secret_file: None,
        name: "Example".to_owned(),
        scopes: Vec::new(),
        user_claim: "name".to_owned(),
        role_claim: "groups".to_owned(),
        grants: Vec::new(),
    };
    let refused = Provider::new(settings, "").expect_err("it cannot");
    assert!(refused.contains("--features oidc"), "{refused}");
}
