//! `[web.oidc]`: the provider of OpenID Connect through which people log in.

use std::path::Path;

use super::reader::Table;
use super::shared;
use super::value::Refusal;
use crate::model::{ClaimedGrant, Grant, LoginProvider, Role, Scope};

/// The most bytes of a text of the table.
const TEXT_BYTES_MAX: usize = 500;
/// The most scopes, and the most grants.
const SCOPES_MAX: usize = 20;
const GRANTS_MAX: usize = 200;

const ISSUER: &str = "https://sso.example.org";

/// Reads the table `oidc` of `[web]`.
pub(super) fn table(web: &Table<'_, '_>, folder: &Path) -> Option<LoginProvider> {
    let table = web.table("oidc", "`[web.oidc]`".to_owned())?;
    let issuer = table.required_text("issuer", ISSUER);
    let issuer = issuer.and_then(|issuer| table.accept(issuer, check_issuer));
    let client_id = table.required_text("client-id", "brigandine");
    let client_id = client_id.and_then(|id| table.accept(id, |id| check_text("client-id", id)));
    let text = |key, example| {
        table.checked(key, example, |text| check_text(key, text)).map(|text| text.value)
    };
    let name = text("name", "Example");
    let user_claim = text("user-claim", "preferred_username");
    let role_claim = text("role-claim", "groups");
    let most = (SCOPES_MAX, "ask for what the claims need");
    let scopes = table.checked_texts("scopes", "profile", most, check_scope);
    let scopes = if table.key_span("scopes").is_some() { scopes } else { vec!["profile".into()] };
    let secret_file =
        shared::path(&table, folder, "client-secret-file", "/etc/brigandine/client-secret");
    let grants = table.tables("grant", "[[web.oidc.grant]]", grant);
    if grants.is_none() {
        let help = "add `[[web.oidc.grant]]` with `role = \"reader\"`: without, nobody has a role";
        table.missing("grant", help);
    }
    let grants = grants.unwrap_or_default();
    if grants.len() > GRANTS_MAX {
        let message = format!("`[web.oidc]` has {} grants", grants.len());
        table.problem(table.span.clone(), message, format!("at most {GRANTS_MAX}"));
    }
    table.finish();
    let (issuer, client_id) = (issuer?.value, client_id?.value);
    let host = issuer.split("://").nth(1).unwrap_or_default().split(['/', ':']).next();
    Some(LoginProvider {
        name: name.unwrap_or_else(|| host.unwrap_or_default().to_owned()),
        client_id,
        secret_file,
        scopes,
        user_claim: user_claim.unwrap_or_else(|| "preferred_username".to_owned()),
        role_claim: role_claim.unwrap_or_else(|| "groups".to_owned()),
        grants,
        issuer,
    })
}

/// Reads a table `[[web.oidc.grant]]`.
fn grant(table: Table<'_, '_>) -> Option<ClaimedGrant> {
    let value = table.checked("value", "developers", |text| check_text("value", text));
    if table.key_span("role").is_none() {
        table.missing("role", "add `role = \"reader\"`, `\"builder\"` or `\"admin\"`");
    }
    let role = table.choice("role", &Role::ALL.map(|role| (role.name(), role)));
    let scope = table.checked("in", "main/hello", |text| {
        let parsed = text.parse::<Scope>();
        parsed.map(drop).map_err(|help| (format!("`in` names no scope: {text:?}"), help))
    });
    // A refused value must not become a grant for everybody.
    let complete = value.is_some() == table.key_span("value").is_some();
    table.finish();
    let scope = scope.map_or(Ok(Scope::EVERYWHERE), |text| text.value.parse()).ok()?;
    let grant = Grant { scope, role: role? };
    complete.then(|| ClaimedGrant { value: value.map(|text| text.value), grant })
}

/// Refuses what is no address of a provider.
fn check_issuer(issuer: &str) -> Result<(), Refusal> {
    let help =
        || format!("the address that the provider calls its issuer, for example \"{ISSUER}\"");
    let rest = issuer.strip_prefix("https://").or_else(|| {
        // Secrets must not travel in the clear, except on this machine.
        let rest = issuer.strip_prefix("http://")?;
        let host = rest.split(['/', ':']).next().unwrap_or_default();
        ["localhost", "127.0.0.1"].contains(&host).then_some(rest)
    });
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}@?#".contains(&byte);
    let right = rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(plain));
    if !right || issuer.len() > TEXT_BYTES_MAX {
        return Err((format!("`issuer` is no https address: {issuer:?}"), help()));
    }
    Ok(())
}

/// Refuses texts that are empty, long, or have control characters.
fn check_text(key: &str, text: &str) -> Result<(), Refusal> {
    if text.trim().is_empty() || text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
        let help = format!("1 to {TEXT_BYTES_MAX} bytes without control characters");
        return Err((format!("`{key}` cannot be {text:?}"), help));
    }
    Ok(())
}

/// Refuses what is no scope of OAuth 2.0 (RFC 6749, section 3.3).
fn check_scope(scope: &str) -> Result<(), Refusal> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"\"\\".contains(&byte);
    if scope.is_empty() || scope.len() > 100 || !scope.bytes().all(plain) {
        let message = format!("`scopes` has what is no scope: {scope:?}");
        return Err((message, "for example \"profile\" or \"email\"".to_owned()));
    }
    Ok(())
}
