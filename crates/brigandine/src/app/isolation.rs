//! Decides when the server starts how builds and evaluators are isolated. The configuration and the machine's abilities
//! determine it.

use super::AppError;
use crate::config::{self, BUILD_USER, Config};
use crate::os::process::{Supervisors, User};
use crate::os::sandbox::{self, Sandbox};
use crate::os::state_dir::StateDir;
use rustix::process::geteuid;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The configured isolation if it works on this machine. Otherwise, if the configuration allows it, a weaker isolation
/// with a warning.
pub(super) async fn choose(
    config: &Config,
    supervisors: &Supervisors,
) -> Result<Sandbox, AppError> {
    let user = user(config, supervisors).await?;
    let without = Sandbox { bubblewrap: None, user };
    let reach = match user {
        None => {
            "may read and change whatever the server's user may, its database and token among it"
        }
        Some(_) => {
            "may read what any user of this machine may, and change what others share with all"
        }
    };
    if config.sandbox == config::Sandbox::Off {
        tracing::warn!(
            "builds and evaluators run WITHOUT a sandbox (sandbox = \"off\"): they {reach}, and use the \
             network"
        );
        return Ok(without);
    }
    match sandbox::probe(supervisors, user).await {
        Ok(sandbox) => {
            tracing::info!("builds and evaluators run in a sandbox");
            Ok(sandbox)
        }
        Err(why) if config.sandbox == config::Sandbox::Auto => {
            tracing::warn!(
                why,
                "there is no sandbox here: builds and evaluators run WITHOUT one, and {reach}; install \
                 bubblewrap, or say so (sandbox = \"off\")"
            );
            Ok(without)
        }
        Err(why) => Err(AppError::NoSandbox(why)),
    }
}

/// The user that runs builds; `None`: the server's own user. If the configured user cannot be used, that is an error.
/// If the default user cannot be used, that is only a warning.
async fn user(config: &Config, supervisors: &Supervisors) -> Result<Option<User>, AppError> {
    let named = config.build_user.as_deref();
    let name = named.unwrap_or(BUILD_USER);
    if !geteuid().is_root() {
        let why = "only a server that runs as root can start programs as another user; run the server as a \
                   user that owns nothing else, and remove `build-user`";
        return match named {
            Some(name) => Err(AppError::NoBuildUser(name.to_owned(), why.to_owned())),
            None => Ok(None),
        };
    }
    let why = match find(name, &config.state, supervisors).await {
        Ok(Some(user)) => {
            tracing::info!(user = name, "builds and evaluators run as a user of their own");
            return Ok(Some(user));
        }
        Ok(None) => format!("there is no user `{name}`"),
        Err(why) => why,
    };
    if named.is_some() {
        return Err(AppError::NoBuildUser(name.to_owned(), why));
    }
    tracing::warn!(
        why,
        "builds and evaluators run as root, as the server does: create a user for them (`useradd --system \
         {BUILD_USER}`), or name one (build-user)"
    );
    Ok(None)
}

async fn find(name: &str, state: &Path, supervisors: &Supervisors) -> Result<Option<User>, String> {
    let (looked, at) = (name.to_owned(), state.to_owned());
    let checked = tokio::task::spawn_blocking(move || {
        // Looking the user up may need a request to a directory service, so it is done on a blocking thread.
        let Some(user) = User::find(&looked)? else { return Ok(None) };
        let owned = user.owns(&at).map_err(|error| format!("{}: {error}", at.display()))?;
        match owned {
            None => Ok(Some(user)),
            Some(path) => Err(format!(
                "`{looked}` owns {}, and could reach the state directory: `chown root {}`, and what is in it",
                path.display(),
                path.display()
            )),
        }
    });
    let checked = checked.await.unwrap_or_else(|error| Err(error.to_string()))?;
    let Some(user) = checked else { return Ok(None) };
    let work = StateDir::new(state).work();
    std::fs::create_dir_all(&work).map_err(|error| format!("{}: {error}", work.display()))?;
    // In a sticky directory, only an owner can move what is in it.
    let is_sticky =
        |path: &&Path| path.metadata().is_ok_and(|metadata| metadata.mode() & 0o1000 != 0);
    let above: Vec<&Path> = state.ancestors().filter(|path| !is_sticky(path)).collect();
    match sandbox::probe_user(supervisors, user, &work, &above).await {
        Ok(None) => Ok(Some(user)),
        Ok(Some(path)) => Err(format!(
            "`{name}` may change {path}, by its mode or an ACL, and could put another state directory in the place of \
             this one: take that right away (`chmod o-w`, `setfacl -x`), or move the state directory",
            path = path.display()
        )),
        Err(why) => Err(format!("nothing runs as `{name}`: {why}")),
    }
}
