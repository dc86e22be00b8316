//! Evaluations: an evaluator runs as a child process, and its lines become jobs.
//!
//! The built-in evaluator only parses a text. So the server itself reads a job list of ordinary size, with the same
//! function ([`jobs::lines`]) and the same checks of every line as a child process. A large list is read by a child
//! process, because the memory and time of a process can be limited.
//!
//! If anything fails (the evaluator does not start, prints nonsense or too much, takes too long, ends with an error),
//! the result is an [`EvaluateError`] with a message for people, and nothing is registered.

mod check;
mod error;
pub(crate) mod jobs;
mod names;
mod protocol;
#[cfg(test)]
mod tests;

pub(crate) use check::{Checked, Context};

use crate::log::LogWriter;
use crate::model::{self, Evaluator, Specification};
use crate::os::file::blocking;
use crate::os::process::{self, Bounds, Limits, Program, STATE_VARIABLE, Streams, Supervisors};
use crate::os::sandbox::{Sandbox, View};
use crate::store::NewJob;
use check::Jobs;
use error::EvaluateError;
use protocol::{Request, RequestCheckout, VERSION};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

/// The settings of evaluators.
#[derive(Debug, Clone)]
pub(crate) struct EvaluatorSettings {
    /// Brigandine's own program, which is the evaluator of job lists.
    pub(crate) program: PathBuf,
    /// Starts evaluators.
    pub(crate) supervisors: Arc<Supervisors>,
    /// The sandbox in which they run.
    pub(crate) sandbox: Sandbox,
    /// The id of the state directory, for the environment.
    pub(crate) state_id: String,
    /// The time limit, unless the specification names one.
    pub(crate) timeout: Duration,
    /// The most bytes of standard output.
    pub(crate) output_bytes_max: u64,
    /// The most jobs of one evaluation.
    pub(crate) jobs_max: usize,
    /// The limits of an evaluator and its descendants, which are those of a build.
    pub(crate) limits: Limits,
}

/// The jobs of an evaluation.
#[derive(Debug)]
pub(crate) struct Evaluated {
    /// A job comes after the jobs that it needs.
    pub(crate) jobs: Vec<NewJob>,
    /// What could not be evaluated, for people; empty when everything could.
    pub(crate) message: String,
}

/// The most bytes of one line.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// Runs the specification's evaluator over the checkouts. Its standard error goes to `log`.
///
/// `scratch` is a directory that does not exist yet. An evaluator command gets a copy of the main checkout there and
/// may write to it. A child process that reads a large list gets the list there and nothing else.
///
/// # Cancel safety
/// If the future is dropped, the evaluator is killed with its descendants.
pub(crate) async fn evaluate(
    specification: &Specification,
    context: Context,
    settings: &EvaluatorSettings,
    scratch: &Path,
    log: &mut LogWriter,
) -> Result<Evaluated, EvaluateError> {
    let checkouts: Vec<RequestCheckout> = context
        .checkouts
        .iter()
        .map(|checkout| RequestCheckout {
            input: checkout.input.name.clone(),
            url: model::redact(&checkout.input.url),
            directory: checkout.tree.directory().unwrap_or(Path::new("")).display().to_string(),
            revision: checkout.revision.clone(),
        })
        .collect();
    let timeout = match &specification.evaluator {
        Evaluator::Command { timeout_s: Some(own), .. } => Duration::from_secs(*own),
        _ => settings.timeout,
    };
    let deadline = Instant::now() + timeout;
    let mut request = Request {
        protocol: VERSION,
        specification: specification.clone(),
        checkouts,
        arguments: serde_json::Map::new(),
        systems: context.systems.clone(),
    };
    let jobs = match &specification.evaluator {
        Evaluator::Jobs { file, jobs, .. } => match small_list(&context, file, jobs.len()).await? {
            Some(list) => read_list(request, list, settings).await?,
            None => {
                if jobs.is_empty() {
                    put_list(&context, file, scratch).await?;
                    move_main(&context, scratch, &mut request.checkouts);
                }
                let mut command = Command::new(&settings.program);
                command.arg(jobs::EVALUATE);
                run(command, &request, settings, timeout, scratch, log).await?
            }
        },
        Evaluator::Command { command: words, arguments, .. } => {
            copy_main(&context, scratch).await?;
            move_main(&context, scratch, &mut request.checkouts);
            let Some((program, rest)) = words.split_first() else {
                return Err(EvaluateError::Refused(
                    "the specification names no program".to_owned(),
                ));
            };
            let program =
                if program.contains('/') { scratch.join(program) } else { PathBuf::from(program) };
            let mut command = Command::new(program);
            command.args(rest).current_dir(scratch);
            request.arguments = arguments.clone();
            run(command, &request, settings, timeout, scratch, log).await?
        }
    };
    let message = jobs.message();
    let jobs = tokio::task::spawn_blocking(move || jobs.finish(&context, deadline))
        .await
        .map_err(|error| EvaluateError::Refused(format!("could not be checked: {error}")))??;
    Ok(Evaluated { jobs, message })
}

/// The most bytes of a job list that the server reads itself: some hundred jobs.
const SMALL_LIST_BYTES: usize = 128 * 1024;
/// The most jobs of a list in the specification that the server reads itself.
const SMALL_LIST_JOBS: usize = 1000;

/// The text of the job list, if it is small; empty if the list is in the specification. `None`: the list is large, so a
/// child process must read it.
async fn small_list(
    context: &Context,
    file: &str,
    jobs: usize,
) -> Result<Option<Vec<u8>>, EvaluateError> {
    if jobs > 0 {
        return Ok((jobs <= SMALL_LIST_JOBS).then(Vec::new));
    }
    list(context, file, SMALL_LIST_BYTES).await
}

/// The text of the job list in the main checkout; `None`: it has more than `bytes_max` bytes. No other file is read, so
/// none can make the evaluation fail.
async fn list(
    context: &Context,
    file: &str,
    bytes_max: usize,
) -> Result<Option<Vec<u8>>, EvaluateError> {
    let Some(checkout) = context.main_checkout() else {
        return Err(EvaluateError::Reported("the specification has no such input".to_owned()));
    };
    let (tree, path) = (Arc::clone(&checkout.tree), file.to_owned());
    let read = blocking(move || tree.read(&path, bytes_max)).await;
    read.map_err(|error| EvaluateError::Reported(format!("{file}: {error}")))
}

/// Writes a large job list for a child process to `scratch`, at its path in the repository.
async fn put_list(context: &Context, file: &str, scratch: &Path) -> Result<(), EvaluateError> {
    let most = usize::try_from(jobs::LIST_BYTES_MAX).unwrap_or(usize::MAX);
    let Some(text) = list(context, file, most).await? else {
        return Err(EvaluateError::Reported(format!("{file}: {}", jobs::too_large())));
    };
    let target = scratch.join(file);
    let put = move || {
        std::fs::create_dir_all(target.parent().unwrap_or(&target))?;
        std::fs::write(&target, text)
    };
    blocking(put).await.map_err(|error| {
        EvaluateError::Checkout("copy the job list for the evaluator".to_owned(), error)
    })
}

/// The jobs of a small list.
async fn read_list(
    request: Request,
    list: Vec<u8>,
    settings: &EvaluatorSettings,
) -> Result<Jobs, EvaluateError> {
    let settings = settings.clone();
    let read = tokio::task::spawn_blocking(move || {
        let mut intake = Intake::new(&settings);
        for line in jobs::lines(&request, Some(&list)).map_err(EvaluateError::Reported)? {
            let line = line.to_string();
            intake.count(line.len() + 1)?;
            intake.line(line.as_bytes())?;
        }
        Ok(intake.jobs)
    });
    read.await.unwrap_or_else(|error| {
        Err(EvaluateError::Refused(format!("the job list cannot be read: {error}")))
    })
}

/// Copies the main checkout for an evaluator, because the evaluator may write there and exports are shared.
async fn copy_main(context: &Context, scratch: &Path) -> Result<(), EvaluateError> {
    let Some(checkout) = context.main_checkout() else { return Ok(()) };
    let (tree, target) = (Arc::clone(&checkout.tree), scratch.to_owned());
    let copy = move || {
        std::fs::create_dir_all(&target)?;
        tree.copy(&[], &target)
    };
    blocking(copy).await.map_err(|error| {
        EvaluateError::Checkout("copy the checkout for the evaluator".to_owned(), error)
    })
}

/// Names `scratch` to the evaluator as the directory of the main checkout.
fn move_main(context: &Context, scratch: &Path, checkouts: &mut [RequestCheckout]) {
    for checkout in checkouts.iter_mut().filter(|checkout| checkout.input == context.main) {
        checkout.directory = scratch.to_string_lossy().into_owned();
    }
}

/// Sets the variables of an evaluator. Evaluators call package managers, so they get the variables that those need.
/// They get no others, because the server's environment may hold secrets.
fn clean_environment(command: &mut Command) {
    command.env("CI", "true").env("LANG", "C.UTF-8").envs(process::passed_on(|name| {
        matches!(name, "PATH" | "HOME" | "USER" | "LOGNAME" | "TZ" | "TMPDIR" | "SSL_CERT_FILE")
            || name.starts_with("NIX_")
            || name.starts_with("GUIX_")
            || name.starts_with("XDG_")
    }));
}

async fn run(
    mut command: Command,
    request: &Request,
    settings: &EvaluatorSettings,
    timeout: Duration,
    scratch: &Path,
    log: &mut LogWriter,
) -> Result<Jobs, EvaluateError> {
    clean_environment(&mut command);
    command.env(STATE_VARIABLE, &settings.state_id);
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |error: io::Error| EvaluateError::Run(program.clone(), error);
    let text = serde_json::to_vec(request).map_err(|error| failed(error.into()))?;
    let (stdin, feed) = process::input_pipe().map_err(failed)?;
    let (out, stdout) = process::output_pipe().map_err(failed)?;
    let (err, stderr) = process::output_pipe().map_err(failed)?;
    let streams =
        Streams { stdin: Some(stdin.into()), stdout: stdout.into(), stderr: stderr.into() };
    let mut started = contained(command, request, settings, scratch).await.map_err(failed)?;
    started.bounds = Some(Bounds { limits: settings.limits, directory: scratch.to_owned() });
    let running = settings.supervisors.spawn(started, streams).await;
    let mut running = running.map_err(failed)?;
    let mut last_words = String::new();
    let talk = async {
        let (jobs, (), ()) = tokio::try_join!(
            read_jobs(out, settings, &failed),
            async { follow(err, log, &mut last_words).await.map_err(failed) },
            async {
                let mut feed = feed;
                // An evaluator need not read its request.
                let _ = feed.write_all(&text).await;
                Ok(())
            },
        )?;
        Ok::<_, EvaluateError>(jobs)
    };
    let work = async {
        let mut talk = std::pin::pin!(talk);
        tokio::select! {
            biased;
            jobs = &mut talk => Ok((jobs?, running.ended().await.map_err(failed)?)),
            end = running.ended() => {
                let end = end.map_err(failed)?;
                // No descendant is alive (PROC2), so the pipes hold the rest of the output.
                match tokio::time::timeout(process::LEFTOVER, talk).await {
                    Ok(jobs) => Ok((jobs?, end)),
                    Err(_) => Err(EvaluateError::Refused(
                        "a process that it did not start still holds it open".to_owned(),
                    )),
                }
            }
        }
    };
    let done = tokio::time::timeout(timeout, work).await;
    let (jobs, end) = match done.unwrap_or(Err(EvaluateError::Timeout(timeout))) {
        Ok(done) => done,
        Err(error) => {
            // The evaluator must end first, because its directory is removed next.
            running.end().await;
            return Err(error);
        }
    };
    if let Some(limit) = end.limit {
        return Err(EvaluateError::Limit(limit.message(&settings.limits)));
    }
    if !end.status().success() {
        let how = process::describe(end.status());
        if !last_words.is_empty() {
            last_words.insert_str(0, ": ");
        }
        return Err(EvaluateError::Ended { how, last_words });
    }
    Ok(jobs)
}

/// The program that runs the evaluator in its sandbox, or as another user. With either, the evaluator gets a home of
/// its own; in the sandbox it sees only its own checkouts.
async fn contained(
    mut command: Command,
    request: &Request,
    settings: &EvaluatorSettings,
    scratch: &Path,
) -> io::Result<Program> {
    let sandbox = &settings.sandbox;
    if *sandbox == Sandbox::default() {
        return Ok(command.into());
    }
    let writable: &[&Path] = if scratch.is_dir() { &[scratch] } else { &[] };
    // Without bubblewrap `/tmp` is shared, and another user could have made a home there.
    let home = match writable {
        [scratch] if sandbox.bubblewrap.is_none() => scratch,
        _ => Path::new("/tmp"),
    };
    command.env("HOME", home).env("TMPDIR", home);
    let checkouts = request.checkouts.iter().map(|checkout| PathBuf::from(&checkout.directory));
    let others = checkouts.filter(|path| !path.as_os_str().is_empty() && path != scratch);
    let mut readable: Vec<PathBuf> = others.collect();
    if command.get_program() == settings.program {
        readable.push(settings.program.clone());
    }
    if !writable.is_empty() {
        let (sandbox, scratch) = (sandbox.clone(), scratch.to_owned());
        blocking(move || sandbox.give(&scratch)).await?;
    }
    let network = request.specification.network;
    sandbox.wrap(command, &View { writable, readable: &readable, network })
}

/// Parses lines into jobs, and bounds what an evaluator may print.
struct Intake<'a> {
    settings: &'a EvaluatorSettings,
    jobs: Jobs,
    number: usize,
    bytes: u64,
}

impl<'a> Intake<'a> {
    fn new(settings: &'a EvaluatorSettings) -> Self {
        Self { settings, jobs: Jobs::default(), number: 0, bytes: 0 }
    }

    /// Adds to the number of printed bytes, before the bytes are parsed. It is an error if the output is now too long.
    fn count(&mut self, bytes: usize) -> Result<(), EvaluateError> {
        self.bytes += bytes as u64;
        if self.bytes > self.settings.output_bytes_max {
            return Err(EvaluateError::Output(format!("{} bytes", self.settings.output_bytes_max)));
        }
        Ok(())
    }

    /// Parses a whole line.
    fn line(&mut self, line: &[u8]) -> Result<(), EvaluateError> {
        self.number += 1;
        self.jobs.take(self.number, line)?;
        if self.jobs.len() > self.settings.jobs_max {
            return Err(EvaluateError::Output(format!("{} jobs", self.settings.jobs_max)));
        }
        Ok(())
    }
}

async fn read_jobs(
    mut out: pipe::Receiver,
    settings: &EvaluatorSettings,
    failed: &impl Fn(io::Error) -> EvaluateError,
) -> Result<Jobs, EvaluateError> {
    let mut intake = Intake::new(settings);
    let mut pending: Vec<u8> = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let count = out.read(&mut chunk).await.map_err(failed)?;
        if count == 0 {
            break;
        }
        intake.count(count)?;
        let mut rest = &chunk[..count];
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            if pending.is_empty() {
                intake.line(&rest[..end])?;
            } else {
                pending.extend_from_slice(&rest[..end]);
                intake.line(&pending)?;
                pending.clear();
            }
            rest = &rest[end + 1..];
        }
        pending.extend_from_slice(rest);
        if pending.len() > LINE_BYTES_MAX {
            return Err(EvaluateError::Output(format!(
                "{LINE_BYTES_MAX} bytes on one line, which is one job: what is as long belongs in a file of the repository"
            )));
        }
    }
    if !pending.is_empty() {
        intake.line(&pending)?;
    }
    Ok(intake.jobs)
}

/// Copies standard error to the log, and keeps its last line in `last_words`.
async fn follow(
    mut err: pipe::Receiver,
    log: &mut LogWriter,
    last_words: &mut String,
) -> io::Result<()> {
    let mut chunk = vec![0; 16 * 1024];
    let mut tail: Vec<u8> = Vec::new();
    loop {
        let count = err.read(&mut chunk).await?;
        if count == 0 {
            break;
        }
        log.write(&chunk[..count]).await?;
        tail.extend_from_slice(&chunk[..count]);
        tail.drain(..tail.len().saturating_sub(2048));
    }
    let text = String::from_utf8_lossy(&tail);
    if let Some(line) = text.lines().rev().find(|line| !line.trim().is_empty()) {
        *last_words = model::one_line(line, 500);
    }
    Ok(())
}
