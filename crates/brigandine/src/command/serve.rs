//! `brigandine serve`: the server, with its configuration, its traces and its signals.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf, absolute};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

use super::Failure;
use super::reload;
use super::settings::{configuration, specifications};
use crate::app::{App, AppError, Ground};
use crate::auth::{Provider, Token};
use crate::cli;
use crate::config::{self, Config, LogFormat};
use crate::http;
use crate::model::{self, Live, Loaded, Specification};
use crate::os::state_dir::StateDir;
use crate::site::{self, Web};

/// Serves until a signal comes. With `--one-shot`, handles every specification once.
///
/// # Errors
/// The configuration is wrong, the server cannot start, a required task exited, or (with `--one-shot`) a fetch, an
/// evaluation or a build failed.
pub(crate) async fn run(arguments: &cli::Serve) -> Result<(), Failure> {
    let config = configuration(arguments)?;
    trace(config.format, "info");
    let specifications = specifications(&config.specifications)?;
    if arguments.one_shot {
        one_shot(config, arguments.listen, specifications).await
    } else {
        serve(config, specifications, arguments).await
    }
}

/// Writes traces to standard error. `RUST_LOG` selects them; otherwise `usual` does.
pub(super) fn trace(format: LogFormat, usual: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // This fails only if a subscriber is installed already, as in a test.
    let _ = match format {
        LogFormat::Text => builder.fmt_fields(debug_fn(field).delimited(" ")).compact().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Writes a field of a trace line. Values may come from repositories and evaluators, so characters that would begin a
/// line or control a terminal are escaped.
fn field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    if field.name() != "message" {
        write!(writer, "{}=", field.name())?;
    }
    for c in format!("{value:?}").chars() {
        if model::is_steering(c) {
            write!(writer, "{}", c.escape_default())?;
        } else {
            writer.write_char(c)?;
        }
    }
    Ok(())
}

/// Listens at `address`.
///
/// # Errors
/// The address cannot be used; the message says what to do.
pub(super) async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        let help = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "; another program listens there, choose another address with --listen"
            }
            std::io::ErrorKind::PermissionDenied => "; ports below 1024 need a right to them",
            std::io::ErrorKind::AddrNotAvailable => "; this machine does not have that address",
            _ => "",
        };
        Failure::failed(format!("cannot listen at {address}: {error}{help}"))
    })
}

/// Receives SIGTERM and SIGINT.
pub(super) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, Failure> {
        let failed = |error| Failure::failed(format!("signals cannot be handled: {error}"));
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    /// Waits for a signal and returns its name.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "Ctrl-C",
        }
    }
}

/// Receives SIGHUP, which asks for a reload of the configuration. `None`: in a terminal the signal says that the
/// terminal was closed, and ends the server as it ends every program.
fn hangup() -> Result<Option<tokio::signal::unix::Signal>, Failure> {
    if std::io::stderr().is_terminal() {
        return Ok(None);
    }
    let failed = |error| Failure::failed(format!("signals cannot be handled: {error}"));
    signal(SignalKind::hangup()).map(Some).map_err(failed)
}

/// The name of SIGHUP, when it comes.
async fn hung_up(hangup: &mut Option<tokio::signal::unix::Signal>) -> String {
    match hangup {
        Some(hangup) => drop(hangup.recv().await),
        None => std::future::pending().await,
    }
    "SIGHUP".to_owned()
}

/// The next request of a command for a reload. Waits for ever if there can be none.
async fn next(requests: &mut Option<mpsc::Receiver<String>>) -> String {
    let next = match requests {
        Some(requests) => requests.recv().await,
        None => None,
    };
    match next {
        Some(id) => id,
        None => std::future::pending().await,
    }
}

fn report(files: &[PathBuf], loaded: &[(String, Loaded)]) {
    for ((name, loaded), file) in loaded.iter().zip(files) {
        if let Loaded::Kept(keys) = loaded {
            let (file, differs) = (file.display(), keys.join(", "));
            tracing::warn!(
                specification = %name, %file, differs,
                "the file says otherwise than what is stored, and is not used: start with --replace \
                 (or `replace = true`), or run `brigandine spec add --replace` with it"
            );
        } else {
            tracing::info!(specification = %name, "specification is {}", loaded.as_str());
        }
    }
}

/// The pause between two attempts to start while the disk is full or the database is locked.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A server that cannot start yet. It answers every request with the reason.
struct Waiting {
    /// A duplicate of the listener. `None`: the web server that shows the reason has taken it.
    listener: Option<std::net::TcpListener>,
    address: Option<SocketAddr>,
    web: config::Web,
    why: Arc<Mutex<String>>,
    site: Option<(watch::Sender<bool>, JoinHandle<()>)>,
    /// `None`: the state directory could not be locked yet.
    ground: Option<Arc<Ground>>,
}

#[expect(clippy::needless_pass_by_value, reason = "stands in `map_err`")]
fn cannot_listen(error: std::io::Error) -> Failure {
    Failure::failed(format!("cannot listen: {error}"))
}

impl Waiting {
    /// The first request is answered only after the first attempt to start has failed.
    fn new(listener: Option<&TcpListener>, web: config::Web) -> Result<Self, Failure> {
        let duplicate = listener.map(|listener| listener.as_fd().try_clone_to_owned()).transpose();
        Ok(Self {
            listener: duplicate.map_err(cannot_listen)?.map(std::net::TcpListener::from),
            address: listener.and_then(|listener| listener.local_addr().ok()),
            web,
            why: Arc::default(),
            site: None,
            ground: None,
        })
    }

    /// Repeats `what` until it succeeds, or fails with an error that is not temporary.
    async fn wait_for<T>(
        &mut self,
        mut what: impl AsyncFnMut() -> Result<T, AppError>,
    ) -> Result<T, Failure> {
        loop {
            match what().await {
                Ok(done) => return Ok(done),
                Err(error) if error.passes() => self.tell(&error)?,
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    fn tell(&mut self, error: &AppError) -> Result<(), Failure> {
        let text = format!("the server waits to start: {}", model::with_causes(error));
        let mut why = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        if *why != text {
            tracing::error!("{text}");
            *why = text;
            if let Some(ground) = &self.ground {
                ground.note_waiting(self.address);
            }
        }
        drop(why);
        if let Some(listener) = self.listener.take() {
            let listener = TcpListener::from_std(listener).map_err(cannot_listen)?;
            let (closing, closed) = watch::channel(false);
            let routes = site::waiting(Arc::clone(&self.why), http::Base::new(&self.web.base));
            let web = Live::new(Arc::new(self.web.clone()));
            let task = tokio::spawn(http::serve(listener, routes, web, closed));
            self.site = Some((closing, task));
            if let Some(address) = self.address {
                say_address(address);
            }
        }
        Ok(())
    }

    /// Stops answering. Returns whether the address was printed.
    async fn end(self) -> bool {
        let Some((closing, task)) = self.site else { return false };
        closing.send_replace(true);
        let _ = task.await;
        true
    }
}

/// Prints the address. Scripts use port 0 and read this line.
fn say_address(address: SocketAddr) {
    println!("listening at http://{address}");
    let _ = std::io::stdout().flush();
}

/// Starts the server without HTTP, and loads the specifications.
async fn start(
    config: &Config,
    specifications: Vec<(PathBuf, Specification)>,
    waiting: &mut Waiting,
) -> Result<App, Failure> {
    let ground = Arc::new(waiting.wait_for(async || Ground::take(config.clone()).await).await?);
    waiting.ground = Some(Arc::clone(&ground));
    let app = waiting.wait_for(async || App::open(&ground).await).await?;
    if !specifications.is_empty() {
        let (files, specifications): (Vec<_>, Vec<_>) = specifications.into_iter().unzip();
        let load = async || app.load(specifications.clone(), config.replace).await;
        report(&files, &waiting.wait_for(load).await?);
    }
    Ok(app)
}

/// The token that authorizes changes over HTTP: the one in the configured file, otherwise the one in `token` of the
/// state directory. `None`: neither is there.
fn token(config: &Config) -> Result<Option<Token>, Failure> {
    let usual = StateDir::new(&config.state).token();
    let path = match &config.web.token_file {
        Some(path) => path,
        None if usual.symlink_metadata().is_ok() => &usual,
        None => {
            return Ok(None);
        }
    };
    Token::read(path).map(Some).map_err(Failure::failed)
}

/// The provider through which people log in; `None`: none is configured.
fn provider(web: &config::Web) -> Result<Option<Provider>, Failure> {
    let provider = web.oidc.clone().map(|settings| Provider::new(settings, &web.base));
    provider.transpose().map_err(Failure::failed)
}

async fn serve(
    config: Config,
    specifications: Vec<(PathBuf, Specification)>,
    arguments: &cli::Serve,
) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    // Received from now on, so that it ends no server that starts.
    let mut hangup = hangup()?;
    let token = token(&config)?;
    let provider = provider(&config.web)?;
    let listener = listen(config.listen).await?;
    let address = listener.local_addr().unwrap_or(config.listen);
    // The start takes long if a large database must be migrated, so a signal may interrupt it. The next start
    // continues.
    let mut waiting = Waiting::new(Some(&listener), config.web.clone())?;
    let started = async {
        let app = start(&config, specifications, &mut waiting).await?;
        waiting.wait_for(async || app.run().await).await?;
        Ok::<_, Failure>(app)
    };
    let app = tokio::select! {
        app = started => app?,
        name = signals.next() => {
            return Err(Failure::failed(format!("{name}: ended before the server had started")));
        }
    };
    let printed = waiting.end().await;
    let mut web = Web::start(listener, &app, config.web.clone(), token, provider);
    if !printed {
        say_address(address);
    }
    tracing::info!(%address, state = %app.state().display(), "the server runs");
    app.set_source(reload::source(arguments));
    let mut requests = app.reload_requests();
    let mut why = loop {
        let id = tokio::select! {
            name = signals.next() => {
                app.begin_shutdown(app.config().drain);
                tracing::info!("{name}: the server ends");
                break None;
            }
            why = fault(&app, &mut web) => break Some(why),
            id = hung_up(&mut hangup) => id,
            id = next(&mut requests) => id,
        };
        reload::reload(&app, &web, arguments, &id).await;
    };
    if why.is_none() && app.config().drain {
        let asked = async || {
            tokio::select! {
                id = hung_up(&mut hangup) => id,
                id = next(&mut requests) => id,
            }
        };
        why = drain(&app, &mut web, &mut signals, asked).await;
    }
    if let Some(why) = why {
        // Returns without a shutdown: every acknowledged write is on the disk, and the next start recovers the rest.
        tracing::error!("{why}");
        return Err(Failure::failed(why));
    }
    web.close().await;
    app.shutdown(false).await?;
    tracing::info!("the server has ended");
    Ok(())
}

/// Resolves with the reason when a required task has exited, or the web server has ended.
async fn fault(app: &App, web: &mut Web) -> String {
    tokio::select! {
        error = app.failed() => error.to_string(),
        why = web.died() => format!("the web server ended: {why}"),
    }
}

/// Waits until the running builds have ended, or a second signal cuts them. Meanwhile pages, probes and commands are
/// answered, and `asked`, the requests for a reload, are refused. Returns the fault that ends the wait; `None`: there is
/// none.
async fn drain(
    app: &App,
    web: &mut Web,
    signals: &mut Signals,
    mut asked: impl AsyncFnMut() -> String,
) -> Option<String> {
    tracing::info!("running builds may end; a second signal cuts them");
    loop {
        tokio::select! {
            () = app.drained() => return None,
            name = signals.next() => {
                app.begin_shutdown(false);
                tracing::info!("{name} again: running builds are cut");
                return None;
            }
            why = fault(app, web) => return Some(why),
            id = asked() => reload::refuse(app, &id, reload::ENDS),
        }
    }
}

async fn one_shot(
    config: Config,
    address: Option<SocketAddr>,
    specifications: Vec<(PathBuf, Specification)>,
) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let listener = match address {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let mut waiting = Waiting::new(listener.as_ref(), config.web.clone())?;
    let app = tokio::select! {
        app = start(&config, specifications, &mut waiting) => app?,
        name = signals.next() => {
            return Err(Failure::failed(format!("{name}: ended before the server had started")));
        }
    };
    waiting.end().await;
    let web = listener.map(|listener| Web::start(listener, &app, config.web, None, None));
    let outcome = tokio::select! {
        outcome = app.one_shot() => outcome.map_err(Failure::from),
        error = app.failed() => Err(error.into()),
        name = signals.next() => Err(Failure::failed(format!("{name}: ended before all was done"))),
    };
    if let Some(web) = web {
        web.close().await;
    }
    app.shutdown(false).await?;
    let (outcome, state) = (outcome?, of_state(app.state()));
    for remark in &outcome.remarks {
        eprintln!("brigandine: {remark}");
    }
    outcome.failure().map_or(Ok(()), |why| Err(Failure::failed(format!("{why}{state}"))))
}

/// How commands find the state directory that a message tells to use; empty: by themselves.
fn of_state(state: &Path) -> String {
    let known = std::env::var_os("BRIGANDINE_STATE").map_or_else(cli::usual_state, PathBuf::from);
    match absolute(known).is_ok_and(|known| known == state) {
        true => String::new(),
        false => format!("\n  (commands need `--state {}`)", state.display()),
    }
}
