//! `brigandine token`: access tokens, with or without a running server.

use std::path::Path;

use serde_json::json;

use super::user::warn_of_scope;
use super::{Failure, existing, print_json, say, table, unknown};
use crate::auth;
use crate::cli;
use crate::model::{self, AccessToken, Grant, Scope};
use crate::store::{self, NewToken};

/// Runs one of the subcommands.
///
/// # Errors
/// The state directory cannot be used, the name is taken, or there is no such token.
pub(crate) async fn run(command: cli::Token) -> Result<(), Failure> {
    match command {
        cli::Token::Create(arguments) => create(arguments).await,
        cli::Token::List { state, json } => list(&state.state, json).await,
        cli::Token::Revoke { state, name } => revoke(&state.state, &name).await,
    }
}

async fn create(arguments: cli::CreateToken) -> Result<(), Failure> {
    let database = existing(&arguments.state.state).await?;
    let text = auth::new_token()
        .map_err(|error| Failure::failed(format!("the kernel has no random bytes: {error}")))?;
    let now = model::now();
    let lifetime = arguments.expires.map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or(0));
    let token = NewToken {
        name: arguments.name,
        digest: auth::digest(&text),
        grant: Grant { scope: arguments.scope.unwrap_or(Scope::EVERYWHERE), role: arguments.role },
        expires_at: if lifetime > 0 { now + lifetime } else { 0 },
    };
    let (name, grant, expires_at) = (token.name.clone(), token.grant.clone(), token.expires_at);
    if !database.write(move |tx| store::put_token(tx, &token, now)).await? {
        return Err(Failure::failed(format!(
            "there is a token called `{name}` already; `brigandine token revoke {name}` removes it"
        )));
    }
    warn_of_scope(&database, &grant.scope).await?;
    if arguments.json {
        print_json(&json!({
            "name": name, "token": text, "role": grant.role.name(), "scope": grant.scope.as_str(),
            "expires": expires_at,
        }));
        return Ok(());
    }
    // The token alone is on standard output, so that a script can store it.
    eprintln!("brigandine: token `{name}`, {grant}, {}; it is shown only now:", ends(expires_at));
    say(&text);
    Ok(())
}

fn ends(expires_at: i64) -> String {
    if expires_at == 0 {
        "without an end".to_owned()
    } else {
        format!("until {}", model::iso(expires_at))
    }
}

async fn list(state: &Path, as_json: bool) -> Result<(), Failure> {
    let tokens = existing(state).await?.read(store::tokens).await?;
    let now = model::now();
    if as_json {
        let describe = |token: &AccessToken| {
            json!({
                "name": token.name, "role": token.grant.role.name(),
                "scope": token.grant.scope.as_str(), "created": token.created_at,
                "expires": token.expires_at, "used": token.used_at, "ended": token.has_ended(now),
            })
        };
        print_json(&tokens.iter().map(describe).collect::<Vec<_>>());
        return Ok(());
    }
    if tokens.is_empty() {
        eprintln!("there is no token; `brigandine token create NAME` makes one");
        return Ok(());
    }
    let mut rows = vec![["NAME", "ROLE", "WHERE", "CREATED", "ENDS", "USED"].map(str::to_owned)];
    let time = |at: i64| if at == 0 { "never".to_owned() } else { model::iso(at) };
    for token in &tokens {
        let ended = if token.has_ended(now) { " (ended)" } else { "" };
        rows.push([
            token.name.clone(),
            token.grant.role.to_string(),
            token.grant.scope.to_string(),
            time(token.created_at),
            format!("{}{ended}", time(token.expires_at)),
            time(token.used_at),
        ]);
    }
    table(&rows);
    Ok(())
}

async fn revoke(state: &Path, name: &str) -> Result<(), Failure> {
    let database = existing(state).await?;
    let wanted = name.to_owned();
    if database.write(move |tx| store::remove_token(tx, &wanted)).await? {
        say(&format!("token {name}: revoked"));
        return Ok(());
    }
    let names = database.read(store::tokens).await?.into_iter().map(|token| token.name);
    Err(unknown("token called", name, &names.collect::<Vec<_>>()))
}
