//! A reload of the configuration: the command `brigandine reload`, and what the server does for it and on SIGHUP.

use std::path::Path;
use std::time::{Duration, Instant};

use super::settings::{configuration, specifications};
use super::{Failure, poll, print_json, say};
use crate::app::{self, App, RunningServer, Served};
use crate::cli;
use crate::config::{self, Config};
use crate::model::{self, MESSAGE_BYTES_MAX, Reload, Specification};
use crate::site::Web;

/// How long the command waits for the server.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks the server to reload its configuration, and prints what became of it.
///
/// # Errors
/// Status 1: no server runs, or it keeps the configuration that it has. Status 3: there is no state directory.
pub(crate) async fn run(arguments: &cli::Reload) -> Result<(), Failure> {
    let state = arguments.state.state.as_path();
    let database = super::existing(state).await?;
    database.close().await?;
    if app::served(state) != Served::Yes {
        return Err(Failure::failed(format!(
            "no server runs on {}; the next one reads its configuration when it starts",
            state.display()
        )));
    }
    // Tells this request's result from those of others.
    let id = format!("{}-{}", std::process::id(), model::now());
    app::tell(state, &format!("reload {id}"))
        .map_err(|error| Failure::failed(format!("the server cannot be told: {error}")))?;
    let reload = result(state, &id).await?;
    if arguments.json {
        print_json(&reload);
    } else if reload.error.is_empty() {
        reload.sentences().iter().for_each(|sentence| say(sentence));
    }
    match reload.error.is_empty() {
        true => Ok(()),
        false if arguments.json => Err(Failure::failed("")),
        false => Err(Failure::failed(format!(
            "the server keeps the configuration that it has:\n{}",
            reload.error
        ))),
    }
}

/// Waits until the server has written what became of this request.
async fn result(state: &Path, id: &str) -> Result<Reload, Failure> {
    let began = Instant::now();
    poll(state, async |gone| {
        let reloads = app::running_server(state).map(|RunningServer { reloads, .. }| reloads);
        let own = reloads.into_iter().flatten().find(|reload| reload.id == id);
        if own.is_some() {
            return Ok(own);
        }
        if gone {
            return Err(Failure::failed(format!("the server of {} has gone", state.display())));
        }
        if began.elapsed() > PATIENCE {
            return Err(Failure::failed(
                "the server does not answer; its trace, or that of systemd, says more",
            ));
        }
        Ok(None)
    })
    .await
}

/// The settings that a start of the server would have now, for [`App::set_source`].
pub(super) fn source(
    arguments: &cli::Serve,
) -> impl Fn() -> Result<Config, String> + Send + Sync + 'static {
    let arguments = arguments.clone();
    move || {
        let mut config = configuration(&arguments).map_err(|failure| failure.message)?;
        // As the running server names it.
        config.state = config.state.canonicalize().unwrap_or(config.state);
        Ok(config)
    }
}

/// Reloads the configuration of a running server, on behalf of `id`. On failure everything stays as it was.
pub(super) async fn reload(app: &App, web: &Web, arguments: &cli::Serve, id: &str) {
    let mut done = Reload { id: id.to_owned(), ..Reload::default() };
    match take(app, web, arguments, &mut done).await {
        Ok(()) => {
            let Reload { changed, restart, .. } = &done;
            tracing::info!(by = id, ?changed, ?restart, "the configuration was reloaded");
            for (specification, became) in &done.specifications {
                tracing::info!(%specification, "specification is {became}");
            }
            done.at = model::now();
            app.note_reload(done);
        }
        Err(why) => refuse(app, id, &why),
    }
}

/// Why a server that waits for its last builds reloads nothing.
pub(super) const ENDS: &str =
    "the server ends, and waits for its builds; the next one reads the files when it starts";

/// Answers `id`, who asked for a reload, that nothing is reloaded.
pub(super) fn refuse(app: &App, id: &str, why: &str) {
    tracing::error!(
        by = id,
        "the configuration was not reloaded, and everything stays as it was: {why}"
    );
    let error = model::lines(why, MESSAGE_BYTES_MAX);
    app.note_reload(Reload { id: id.to_owned(), at: model::now(), error, ..Reload::default() });
}

async fn take(
    app: &App,
    web: &Web,
    arguments: &cli::Serve,
    done: &mut Reload,
) -> Result<(), String> {
    let read = {
        let source = source(arguments);
        move || -> Result<_, String> {
            let config = source()?;
            let found = specifications(&config.specifications);
            let found = found.map_err(|failure: Failure| failure.message)?;
            let found: Vec<Specification> = found.into_iter().map(|(_, found)| found).collect();
            Ok((config, found))
        }
    };
    let read = tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())?;
    let (config, specifications) = read?;
    let differing: Vec<_> = config::settings(&app.config(), Some(&config))
        .into_iter()
        .filter(|setting| setting.file.is_some())
        .collect();
    let keys = |restart: bool| {
        let found = differing.iter().filter(|setting| setting.restart == restart);
        found.map(|setting| setting.key.to_owned()).collect()
    };
    (done.changed, done.restart) = (keys(false), keys(true));
    // First what can fail.
    if !specifications.is_empty() {
        let loaded = app.load(specifications, config.replace).await;
        let loaded = loaded.map_err(|error| model::with_causes(&error))?;
        let became = loaded.into_iter().map(|(name, loaded)| (name, loaded.as_str().to_owned()));
        done.specifications = became.collect();
    }
    let config = app.take(config);
    web.reload(config.web.clone());
    Ok(())
}
