//! `brigandine user`: the people who may log in, with or without a running server.

use std::path::Path;

use serde_json::json;

use super::password::new_password;
use super::{Failure, existing, near, print_json, say, table, unknown};
use crate::auth;
use crate::cli::{self, OneUser};
use crate::model::{self, Grant, Role, Scope, Session, Timestamp, User};
use crate::store::{self, Database, Transaction, UserChange};

/// Runs one of the subcommands.
///
/// # Errors
/// The state directory cannot be used, there is no such user, the name is taken, the password may not be one, or the
/// change would leave no administrator.
pub(crate) async fn run(command: cli::User) -> Result<(), Failure> {
    match command {
        cli::User::Add { of, role, scope } => add(of, role, scope).await,
        cli::User::List { state, json } => list(&state.state, json).await,
        cli::User::Passwd(of) => passwd(&of).await,
        cli::User::Role { of, role, scope } => {
            let scope = scope.unwrap_or(Scope::EVERYWHERE);
            let done = role.0.map_or_else(
                || format!("no role, {scope}"),
                |role| Grant { scope: scope.clone(), role }.to_string(),
            );
            let (name, of_role) = (of.name.clone(), scope.clone());
            change(&of, &done, move |tx| store::set_role(tx, &name, &of_role, role.0)).await?;
            match role.0 {
                None => Ok(()),
                Some(_) => warn_of_scope(&existing(&of.state.state).await?, &scope).await,
            }
        }
        cli::User::Disable(of) => {
            let (name, now) = (of.name.clone(), model::now());
            change(&of, "disabled", move |tx| store::set_disabled(tx, &name, now)).await
        }
        cli::User::Enable(of) => {
            let name = of.name.clone();
            change(&of, "enabled", move |tx| store::set_disabled(tx, &name, 0)).await
        }
        cli::User::Remove(of) => {
            let name = of.name.clone();
            change(&of, "removed", move |tx| store::remove_user(tx, &name)).await
        }
        cli::User::Sessions { of, json } => sessions(&of, json).await,
        cli::User::Revoke { of, session } => revoke(&of, session).await,
    }
}

async fn add(of: OneUser, role: Role, scope: Option<Scope>) -> Result<(), Failure> {
    let database = existing(&of.state.state).await?;
    let name = of.name;
    let taken = || Failure::failed(format!("there is a user called `{name}` already"));
    let wanted = name.clone();
    if database.read(move |s| store::user(s, &wanted)).await?.is_some() {
        return Err(taken());
    }
    let digest = auth::password_digest(&new_password(&name)?).map_err(Failure::failed)?;
    let grant = Grant { scope: scope.unwrap_or(Scope::EVERYWHERE), role };
    let (wanted, given, now) = (name.clone(), grant.clone(), model::now());
    let added = database.write(move |tx| store::add_user(tx, &wanted, &digest, &given, now));
    if !added.await? {
        return Err(taken());
    }
    say(&format!("user {name}: {grant}"));
    warn_of_scope(&database, &grant.scope).await?;
    let is_admin = |user: &User| {
        let everywhere = Grant { scope: Scope::EVERYWHERE, role: Role::Admin };
        user.disabled_at == 0 && user.grants.contains(&everywhere)
    };
    if !database.read(store::users).await?.iter().any(is_admin) {
        eprintln!(
            "brigandine: there is no administrator yet; `brigandine user role {name} admin` makes one"
        );
    }
    Ok(())
}

/// Says on standard error that a role is valid in nothing that there is now: usually the scope has a typing error, or lacks
/// its project.
pub(super) async fn warn_of_scope(database: &Database, scope: &Scope) -> Result<(), Failure> {
    let all = database.read(store::specifications).await?;
    let all = all.iter().map(|state| &state.specification);
    if scope.is_everywhere() || all.clone().any(|it| scope.holds(&it.project, &it.name)) {
        return Ok(());
    }
    let mut names: Vec<String> =
        all.clone().map(|it| format!("{}/{}", it.project, it.name)).collect();
    names.extend(all.map(|it| it.project.clone()));
    names.sort_unstable();
    names.dedup();
    let what =
        if scope.as_str().contains('/') { "specification" } else { "project with specifications" };
    let help = near(scope.as_str(), &names)
        .first()
        .map_or_else(String::new, |name| format!("; did you mean `--in {name}`?"));
    eprintln!("brigandine: there is no {what} `{scope}` yet, so the role allows nothing now{help}");
    Ok(())
}

async fn passwd(of: &OneUser) -> Result<(), Failure> {
    let database = existing(&of.state.state).await?;
    find(&database, &of.name).await?;
    let digest = auth::password_digest(&new_password(&of.name)?).map_err(Failure::failed)?;
    let name = of.name.clone();
    let done = "another password; all sessions have ended";
    change_in(&database, &of.name, done, move |tx| store::set_password(tx, &name, &digest)).await
}

/// Makes a change of a user, and prints what was done.
async fn change(
    of: &OneUser,
    done: &str,
    change: impl FnMut(&Transaction) -> rusqlite::Result<UserChange> + Send + 'static,
) -> Result<(), Failure> {
    let database = existing(&of.state.state).await?;
    change_in(&database, &of.name, done, change).await
}

async fn change_in(
    database: &Database,
    name: &str,
    done: &str,
    change: impl FnMut(&Transaction) -> rusqlite::Result<UserChange> + Send + 'static,
) -> Result<(), Failure> {
    match database.write(change).await? {
        UserChange::Done => {
            say(&format!("user {name}: {done}"));
            Ok(())
        }
        UserChange::Missing => Err(missing(database, name).await?),
        UserChange::LastAdmin => Err(Failure::failed(format!(
            "`{name}` is the last administrator who may log in; make another one before: \
             `brigandine user role NAME admin`"
        ))),
    }
}

/// The failure for a name that no user has.
async fn missing(database: &Database, name: &str) -> Result<Failure, Failure> {
    let names: Vec<_> =
        database.read(store::users).await?.into_iter().map(|user| user.name).collect();
    Ok(unknown("user called", name, &names))
}

async fn find(database: &Database, name: &str) -> Result<User, Failure> {
    let wanted = name.to_owned();
    match database.read(move |s| store::user(s, &wanted)).await? {
        Some(user) => Ok(user),
        None => Err(missing(database, name).await?),
    }
}

async fn list(state: &Path, as_json: bool) -> Result<(), Failure> {
    let users = existing(state).await?.read(store::users).await?;
    if as_json {
        let grants = |user: &User| {
            let grant =
                |grant: &Grant| json!({"scope": grant.scope.as_str(), "role": grant.role.name()});
            user.grants.iter().map(grant).collect::<Vec<_>>()
        };
        let describe = |user: &User| {
            json!({
                "name": user.name, "roles": grants(user), "created": user.created_at,
                "disabled": user.disabled_at,
            })
        };
        print_json(&users.iter().map(describe).collect::<Vec<_>>());
        return Ok(());
    }
    if users.is_empty() {
        eprintln!("there is no user; `brigandine user add NAME --role admin` adds one");
        return Ok(());
    }
    let mut rows = vec![["NAME", "ROLES", "ADDED", "STATE"].map(str::to_owned)];
    for user in &users {
        let roles: Vec<_> = user.grants.iter().map(Grant::to_string).collect();
        let state = if user.disabled_at == 0 { "may log in" } else { "disabled" };
        rows.push([
            user.name.clone(),
            roles.join(", "),
            model::iso(user.created_at),
            state.to_owned(),
        ]);
    }
    table(&rows);
    Ok(())
}

/// When a session ends if it is not used any more.
fn ends(session: &Session) -> Timestamp {
    (session.used_at + Session::IDLE_S).min(session.created_at + Session::AGE_S)
}

async fn sessions(of: &OneUser, as_json: bool) -> Result<(), Failure> {
    let database = existing(&of.state.state).await?;
    let user = find(&database, &of.name).await?;
    let (id, now) = (user.id, model::now());
    let mut sessions = database.read(move |s| store::sessions(s, id)).await?;
    sessions.retain(|session| !session.has_ended(now));
    if as_json {
        let describe = |session: &Session| {
            json!({
                "id": session.id, "client": session.client, "created": session.created_at,
                "used": session.used_at, "ends": ends(session),
            })
        };
        print_json(&sessions.iter().map(describe).collect::<Vec<_>>());
        return Ok(());
    }
    if sessions.is_empty() {
        eprintln!("{} has no session", user.name);
        return Ok(());
    }
    let mut rows = vec![["ID", "FROM", "LOGGED IN", "USED", "ENDS"].map(str::to_owned)];
    for session in &sessions {
        rows.push([
            session.id.to_string(),
            session.client.clone(),
            model::iso(session.created_at),
            model::iso(session.used_at),
            model::iso(ends(session)),
        ]);
    }
    table(&rows);
    Ok(())
}

async fn revoke(of: &OneUser, session: Option<i64>) -> Result<(), Failure> {
    let database = existing(&of.state.state).await?;
    let user = find(&database, &of.name).await?;
    let id = user.id;
    let ended = database.write(move |tx| store::end_sessions(tx, id, session)).await?;
    if let Some(number) = session.filter(|_| ended == 0) {
        return Err(Failure::not_found(format!("{} has no session {number}", user.name)));
    }
    say(&format!("user {}: {ended} session{} ended", user.name, if ended == 1 { "" } else { "s" }));
    Ok(())
}
