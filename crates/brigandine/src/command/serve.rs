//! `brigandine serve`: configuration, traces, signals, the server.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

use super::Failure;
use crate::app::{App, AppError, Settings};
use crate::cli;
use crate::config::{self, Config, LogFormat};
use crate::http::{self, Token};
use crate::model::{self, Specification};
use crate::os::state_dir::StateDir;
use crate::site::{self, Web};
use crate::store::Loaded;

/// Serves until it is told to end, or handles everything once.
///
/// # Errors
/// The configuration is wrong, the server cannot start, an essential part died, or (with
/// `--one-shot`) a fetch, an evaluation or a build failed.
pub(crate) fn run(arguments: &cli::Serve) -> Result<(), Failure> {
    let config = configuration(arguments)?;
    trace(config.format, "info");
    let specifications = specifications(&config.specifications)?;
    let runtime = super::runtime()?;
    let done = runtime.block_on(async {
        if arguments.one_shot {
            one_shot(&config, arguments, specifications).await
        } else {
            serve(&config, arguments, specifications).await
        }
    });
    // Everything that matters has ended. A thread that a dead disk or network file system holds in a
    // read of some repository must not keep the server from ending.
    runtime.shutdown_timeout(STUCK);
    done
}

/// How long threads that block may keep the server from ending.
const STUCK: Duration = Duration::from_secs(5);

/// The file's configuration under what the command line says.
fn configuration(arguments: &cli::Serve) -> Result<Config, Failure> {
    let mut config = match &arguments.config {
        None => Config::default(),
        Some(path) => {
            let text =
                config::load(path).map_err(|problems| Failure::failed(problems.to_string()))?;
            config::server::parse(&path.display().to_string(), &text)
                .map_err(|problems| Failure::failed(problems.to_string()))?
        }
    };
    if let Some(state) = &arguments.state {
        config.state.clone_from(state);
    }
    config.listen = arguments.listen.unwrap_or(config.listen);
    config.interval = arguments.interval.unwrap_or(config.interval);
    config.max_jobs = arguments.max_jobs.map_or(config.max_jobs, usize::from);
    config.sandbox = arguments.sandbox.unwrap_or(config.sandbox);
    config.format = arguments.log_format.unwrap_or(config.format);
    config.replace |= arguments.replace;
    config.drain |= arguments.drain;
    config.specifications.extend(arguments.specifications.iter().cloned());
    Ok(config)
}

/// What the server's parts are told.
fn settings(config: &Config, file: Option<&Path>) -> Settings {
    Settings {
        configuration: file.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.into())),
        specification_files: config.specifications.clone(),
        max_jobs: config.max_jobs,
        interval: config.interval,
        sandbox: config.sandbox,
        build_user: config.build_user.clone(),
        git_filters: config.git_filters.clone(),
        fetch_timeout: config.limits.fetch_time,
        evaluation_timeout: config.limits.evaluation_time,
        evaluation_output_bytes_max: config.limits.evaluation_output,
        build_timeout: config.limits.build_time,
        build_silence: config.limits.build_silence,
        build_grace: config.limits.build_grace,
        build_limits: config.limits.build,
        keep: config.keep,
        log_bytes_max: config.limits.build_log,
        disk_reserve: config.limits.disk_reserve,
        ..Settings::new(config.state.clone())
    }
}

/// The specifications of all files, with the file of each, or everything that is wrong in them.
pub(super) fn specifications(files: &[PathBuf]) -> Result<Vec<(PathBuf, Specification)>, Failure> {
    let mut all: Vec<(PathBuf, Specification)> = Vec::new();
    let mut problems = config::Diagnostics::default();
    for path in files {
        let file = path.display().to_string();
        let parsed = config::load(path).and_then(|text| config::specification::parse(&file, &text));
        match parsed {
            Ok(placed) => {
                all.extend(placed.into_iter().map(|placed| (path.clone(), placed.specification)));
            }
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() { Ok(all) } else { Err(Failure::failed(problems.to_string())) }
}

/// Traces go to standard error; `RUST_LOG` chooses which.
pub(super) fn trace(format: LogFormat, usual: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A second call (there is none) would leave the first in place.
    let _ = match format {
        LogFormat::Text => builder.fmt_fields(debug_fn(field).delimited(" ")).compact().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Writes a field of a trace line. Values come from repositories and evaluators as well: none begins a
/// line of its own or steers a terminal.
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

/// Listens, with a message that says what to do when it cannot.
pub(super) async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        let help = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "; another program listens there, choose another \
                                              address with --listen"
            }
            std::io::ErrorKind::PermissionDenied => "; ports below 1024 need a right to them",
            std::io::ErrorKind::AddrNotAvailable => "; this machine does not have that address",
            _ => "",
        };
        Failure::failed(format!("cannot listen at {address}: {error}{help}"))
    })
}

/// The signals that ask the server to end.
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

    /// The name of the next one.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "Ctrl-C",
        }
    }
}

fn report(files: &[PathBuf], loaded: &[(String, Loaded)]) {
    for ((name, outcome), file) in loaded.iter().zip(files) {
        let what = match outcome {
            Loaded::New => "new",
            Loaded::Changed => "changed",
            Loaded::Unchanged => "unchanged",
            Loaded::Kept(keys) => {
                let (file, differs) = (file.display(), keys.join(", "));
                tracing::warn!(
                    specification = %name, %file, differs,
                    "the file says otherwise than what is stored, and is not used: start with --replace \
                     (or `replace = true`), or run `brigandine spec add --replace` with it"
                );
                continue;
            }
        };
        tracing::info!(specification = %name, "specification is {what}");
    }
}

/// Between two tries of what waits for a disk or a lock.
const RETRY: Duration = Duration::from_secs(1);

/// What a server answers that cannot start yet.
struct Waiting {
    /// Another descriptor of the listener, until something is to be answered.
    listener: Option<std::net::TcpListener>,
    address: Option<SocketAddr>,
    web: config::Web,
    why: Arc<Mutex<String>>,
    site: Option<(watch::Sender<bool>, JoinHandle<()>)>,
}

impl Waiting {
    /// Answers nothing yet.
    fn new(listener: Option<&TcpListener>, web: config::Web) -> Result<Self, Failure> {
        let failed = |error| Failure::failed(format!("cannot listen: {error}"));
        let again = listener.map(|listener| listener.as_fd().try_clone_to_owned()).transpose();
        Ok(Self {
            listener: again.map_err(failed)?.map(std::net::TcpListener::from),
            address: listener.and_then(|listener| listener.local_addr().ok()),
            web,
            why: Arc::default(),
            site: None,
        })
    }

    /// Does something until it is done, or fails for a reason that does not pass. Meanwhile whoever asks is told.
    async fn wait_for<T>(
        &mut self,
        mut what: impl AsyncFnMut() -> Result<T, AppError>,
    ) -> Result<T, Failure> {
        loop {
            match what().await {
                Ok(done) => return Ok(done),
                Err(error) if error.passes() => self.tell(&error)?,
                Err(error) => return Err(Failure::failed(model::with_causes(&error))),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn tell(&mut self, error: &AppError) -> Result<(), Failure> {
        let text = format!("the server waits to start: {}", model::with_causes(error));
        let mut why = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        if *why != text {
            tracing::error!("{text}");
            *why = text;
        }
        drop(why);
        if let Some(listener) = self.listener.take() {
            let failed = |error| Failure::failed(format!("cannot listen: {error}"));
            let listener = TcpListener::from_std(listener).map_err(failed)?;
            let (closing, closed) = watch::channel(false);
            let router = site::waiting(Arc::clone(&self.why));
            let task = tokio::spawn(http::serve(listener, router, self.web.clone(), closed));
            self.site = Some((closing, task));
            if let Some(address) = self.address {
                say_address(address);
            }
        }
        Ok(())
    }

    /// Answers nothing any more. Whether the address was said.
    async fn end(self) -> bool {
        let Some((closing, task)) = self.site else { return false };
        closing.send_replace(true);
        let _ = task.await;
        true
    }
}

/// For scripts, which may have asked for port 0.
fn say_address(address: SocketAddr) {
    println!("listening at http://{address}");
    let _ = std::io::stdout().flush();
}

async fn start(
    config: &Config,
    arguments: &cli::Serve,
    specifications: Vec<(PathBuf, Specification)>,
    waiting: &mut Waiting,
) -> Result<App, Failure> {
    let settings = async || App::start(settings(config, arguments.config.as_deref())).await;
    let app = waiting.wait_for(settings).await?;
    if !specifications.is_empty() {
        let (files, specifications): (Vec<_>, Vec<_>) = specifications.into_iter().unzip();
        let load = async || app.load(specifications.clone(), config.replace).await;
        report(&files, &waiting.wait_for(load).await?);
    }
    Ok(app)
}

/// The token that allows changes over HTTP: from the file that is named, or from `token` in the state
/// directory if that is there.
fn token(config: &Config) -> Result<Option<Token>, Failure> {
    let usual = StateDir::new(&config.state).token();
    let path = match &config.web.token_file {
        Some(path) => path,
        None if usual.symlink_metadata().is_ok() => &usual,
        None => {
            tracing::info!("changes over HTTP are switched off: there is no token");
            return Ok(None);
        }
    };
    Token::read(path).map(Some).map_err(Failure::failed)
}

async fn serve(
    config: &Config,
    arguments: &cli::Serve,
    specifications: Vec<(PathBuf, Specification)>,
) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let token = token(config)?;
    let listener = listen(config.listen).await?;
    let address = listener.local_addr().unwrap_or(config.listen);
    // An older or larger file may take its time; what an end by a signal undoes, the next start does.
    let mut waiting = Waiting::new(Some(&listener), config.web.clone())?;
    let started = async {
        let app = start(config, arguments, specifications, &mut waiting).await?;
        waiting.wait_for(async || app.run().await).await?;
        Ok::<_, Failure>(app)
    };
    let app = tokio::select! {
        app = started => app?,
        name = signals.next() => {
            return Err(Failure::failed(format!("{name}: ended before the server had started")));
        }
    };
    let said = waiting.end().await;
    let mut web = Web::start(listener, &app, config.web.clone(), token);
    if !said {
        say_address(address);
    }
    tracing::info!(%address, state = %app.state().display(), "the server runs");
    let why = tokio::select! {
        name = signals.next() => {
            tracing::info!("{name}: the server ends");
            None
        }
        error = app.failed() => Some(error.to_string()),
        why = web.died() => Some(format!("the web server ended: {why}")),
    };
    if let Some(why) = why {
        // The rest is not to be trusted: what was acked is on disk, the next start recovers.
        tracing::error!("{why}");
        return Err(Failure::failed(why));
    }
    if config.drain {
        tracing::info!("running builds may end; a second signal cuts them");
    }
    let cut = async {
        let name = signals.next().await;
        tracing::info!("{name} again: running builds are cut");
        app.cut();
        std::future::pending::<()>().await;
    };
    let end = async {
        web.close().await;
        app.shutdown(config.drain).await
    };
    tokio::select! {
        () = cut => Ok(()),
        ended = end => ended.map_err(|error| Failure::failed(model::with_causes(&error))),
    }?;
    tracing::info!("the server has ended");
    Ok(())
}

async fn one_shot(
    config: &Config,
    arguments: &cli::Serve,
    specifications: Vec<(PathBuf, Specification)>,
) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let listener = match arguments.listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let mut waiting = Waiting::new(listener.as_ref(), config.web.clone())?;
    let app = tokio::select! {
        app = start(config, arguments, specifications, &mut waiting) => app?,
        name = signals.next() => {
            return Err(Failure::failed(format!("{name}: ended before the server had started")));
        }
    };
    waiting.end().await;
    let web = listener.map(|listener| Web::start(listener, &app, config.web.clone(), None));
    let outcome = tokio::select! {
        outcome = app.one_shot() => outcome.map_err(|error| Failure::failed(model::with_causes(&error))),
        error = app.failed() => Err(Failure::failed(error.to_string())),
        name = signals.next() => Err(Failure::failed(format!("{name}: ended before all was done"))),
    };
    if let Some(web) = web {
        web.close().await;
    }
    app.shutdown(false).await.map_err(|error| Failure::failed(model::with_causes(&error)))?;
    let outcome = outcome?;
    for remark in &outcome.remarks {
        eprintln!("brigandine: {remark}");
    }
    outcome.failure().map_or(Ok(()), |why| Err(Failure::failed(why)))
}
