//! The local executor: runs one job in a clean directory and a process group of its own.
//!
//! ```text
//! work/BUILD-ATTEMPT/   build/    where the command runs: the sources of the main input
//!                       inputs/   NAME/: the sources of other inputs
//!                       needs/    NAME: the outputs of dependencies
//!                       out/      what the command leaves here is kept
//!                       tmp/      TMPDIR and HOME
//! ```
//!
//! The process ends by itself, or it is ended: by a cancel, by the limit on its time, by the limit on its silence, or
//! by a limit of `os/process/limits.rs`. Such a limit kills the process and all its descendants immediately. In the
//! other three cases they get SIGTERM, and after a grace period SIGKILL. No descendant is alive when the outputs are
//! taken over (`os/process/`, PROC2).

use super::directory::Directory;
use super::kept::kept_or_not;
use super::watch::{Watch, drain, keep_last};
use crate::build::dispatch::{BuildJob, EndRequest, Executor, Lost, Outcome};
use crate::health::{Health, Run};
use crate::input::{Checkouts, ExportedTree, FetchError, Form, WantedRevision};
use crate::log::LogWriter;
use crate::model::{self, BuildStatus, Live};
use crate::os::file::is_full;
use crate::os::process::{
    self, Bounds, End, Limits, Program, Running, STATE_VARIABLE, Streams, Supervisors,
};
use crate::os::sandbox::{Sandbox, View};
use crate::os::state_dir::StateDir;
use crate::outputs::Outputs;
use std::io;
use std::io::ErrorKind::FileTooLarge;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::time::Instant;

/// The search path of builds, the same on every machine, with the sandbox or without.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";
const CHUNK: usize = 64 * 1024;

/// Runs jobs on this machine.
#[derive(Debug)]
pub(crate) struct LocalExecutor {
    work: PathBuf,
    outputs: Arc<Outputs>,
    checkouts: Arc<Checkouts>,
    supervisors: Arc<Supervisors>,
    state_id: String,
    path: String,
    allowed: Allowed,
    health: Health,
}

/// What a build may do.
#[derive(Debug)]
pub(crate) struct Allowed {
    pub(crate) sandbox: Sandbox,
    /// The time between asking a build to end and killing it.
    pub(crate) grace: Live<Duration>,
    pub(crate) limits: Live<Limits>,
    /// The most bytes of a build's output.
    pub(crate) output_bytes_max: u64,
}

impl LocalExecutor {
    /// Runs jobs below the state directory. Blocks.
    pub(crate) fn new(
        state: &Path,
        checkouts: Arc<Checkouts>,
        supervisors: Arc<Supervisors>,
        state_id: &str,
        allowed: Allowed,
        health: Health,
    ) -> io::Result<Self> {
        let work = StateDir::new(state).work();
        std::fs::create_dir_all(&work)?;
        Ok(Self {
            work,
            outputs: Arc::new(Outputs::new(
                StateDir::new(state).outputs(),
                allowed.output_bytes_max,
            )?),
            checkouts,
            supervisors,
            state_id: state_id.to_owned(),
            path: std::env::var("BRIGANDINE_BUILD_PATH").unwrap_or_else(|_| PATH.to_owned()),
            allowed,
            health,
        })
    }

    /// The outputs of builds.
    pub(crate) fn outputs(&self) -> Arc<Outputs> {
        Arc::clone(&self.outputs)
    }

    /// Exports the sources of a job.
    async fn sources(
        &self,
        job: &BuildJob,
        form: Form,
    ) -> Result<Vec<Arc<ExportedTree>>, FetchError> {
        let mut trees = Vec::with_capacity(job.definition.sources.len());
        for source in &job.definition.sources {
            let wanted = WantedRevision {
                url: &source.url,
                revision: &source.revision,
                submodules: source.submodules,
                submodules_from: &source.submodules_from,
            };
            trees.push(self.checkouts.export(wanted, form, false).await?);
        }
        Ok(trees)
    }

    /// Makes the directory of a job, with its sources. `Ok(Err(…))`: the job ends without a directory.
    async fn prepare(
        &self,
        job: &Arc<BuildJob>,
        needs: &Arc<[PathBuf]>,
        run: &Arc<Run>,
        cancel: &mut watch::Receiver<Option<EndRequest>>,
    ) -> Result<Result<Directory, Outcome>, Lost> {
        let end = |message: String| Ok(Err(Outcome::ended(BuildStatus::Canceled, message)));
        let mut form = Form::Any;
        loop {
            let trees = tokio::select! {
                trees = self.sources(job, form) => trees,
                why = end_request(cancel) => return end(why.message().to_owned()),
            };
            let trees = match trees {
                Ok(trees) => trees,
                Err(error @ FetchError::NoReference { .. }) => {
                    return end(format!("its sources are gone: {error}"));
                }
                Err(error) => {
                    // This notes whether the disk was full. The build is lost in any case.
                    let run = Arc::clone(run);
                    let _ = blocking(move || run.met_full_disk()).await?;
                    return Err(Lost(error.to_string()));
                }
            };
            let root = self.work.join(format!("{}-{}", job.id, job.attempt));
            let directory = Directory { root, limits: self.allowed.limits.get() };
            let (wanted, seen) = (Arc::clone(job), Arc::clone(needs));
            let sandbox = self.allowed.sandbox.clone();
            let prepare = move || {
                let directory = directory.prepare(&wanted, &trees, &seen)?;
                sandbox.give(&directory.root)?;
                Ok::<_, io::Error>(directory)
            };
            match blocking(prepare).await? {
                Ok(directory) => return Ok(Ok(directory)),
                // A file is too large to be read from the clone. In a directory files may have any size, so one more
                // try asks for a directory.
                Err(error) if error.kind() == FileTooLarge && form == Form::Any => {
                    form = Form::Directory;
                }
                Err(error) => {
                    if is_full(&error) {
                        run.note_full();
                    }
                    return Err(Lost(format!("cannot prepare the build directory: {error}")));
                }
            }
        }
    }

    /// A text for people: the search path of a job's commands, and how to change it.
    fn searched(&self, job: &BuildJob) -> String {
        let own = job.definition.environment.get("PATH");
        let path = model::one_line(own.unwrap_or(&self.path), 500);
        let how = match own {
            Some(_) => "as the job's `env` says",
            None => "PATH in the job's `env`, or BRIGANDINE_BUILD_PATH of the server, changes it",
        };
        format!("the search path is `{path}`; {how}")
    }

    /// The program that runs the job.
    fn program(
        &self,
        job: &BuildJob,
        directory: &Directory,
        needs: &[PathBuf],
    ) -> io::Result<Program> {
        let (program, arguments) = job
            .definition
            .command
            .split_first()
            .map_or(("/bin/true", &[][..]), |(program, rest)| (program.as_str(), rest));
        let build = directory.at("build");
        let mut command = match &self.allowed.sandbox.bubblewrap {
            None => Command::new(self.find(program, &build)),
            // bubblewrap searches for the program inside the sandbox.
            Some(_) => Command::new(program),
        };
        match model::script(&job.definition.command) {
            Some(_) => command.arg("-e").arg(directory.at("script")),
            None => command.args(arguments),
        };
        command.current_dir(&build);
        // The variables after `envs` are the server's. They come last, so that the job cannot change them.
        command
            .env("PATH", &self.path)
            .env("LANG", "C.UTF-8")
            .env("TZ", "UTC")
            .envs(&job.definition.environment)
            .env("CI", "true")
            .env("HOME", directory.at("tmp"))
            .env("TMPDIR", directory.at("tmp"))
            .env("BRIGANDINE", "1")
            .env("BRIGANDINE_BUILD", job.id.to_string())
            .env("BRIGANDINE_ATTEMPT", job.attempt.to_string())
            .env("BRIGANDINE_NAME", &job.definition.name)
            .env("BRIGANDINE_SYSTEM", &job.definition.system)
            .env("BRIGANDINE_OUT", directory.at("out"))
            .env("BRIGANDINE_NEEDS", directory.at("needs"))
            .env("BRIGANDINE_INPUTS", directory.at("inputs"))
            .env("BRIGANDINE_RUN", format!("{}/{}/{}", self.state_id, job.id, job.attempt))
            .env(STATE_VARIABLE, &self.state_id);
        let (writable, readable) = (&[directory.root.as_path()], needs);
        let network = job.definition.network;
        let mut program =
            self.allowed.sandbox.wrap(command, &View { writable, readable, network })?;
        let Directory { root, limits } = directory;
        program.bounds = Some(Bounds { limits: *limits, directory: root.clone() });
        Ok(program)
    }

    /// The program's file on the search path of builds. The job's own `PATH` is ignored here.
    fn find(&self, program: &str, directory: &Path) -> PathBuf {
        if program.contains('/') {
            return directory.join(program);
        }
        process::find(program.as_ref(), self.path.as_ref()).into()
    }
}

async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Result<T, Lost> {
    let done = tokio::task::spawn_blocking(f).await;
    done.map_err(|error| Lost(format!("a thread of the executor failed: {error}")))
}

impl Executor for LocalExecutor {
    async fn run(
        &self,
        job: BuildJob,
        log: &mut LogWriter,
        mut cancel: watch::Receiver<Option<EndRequest>>,
        started: impl FnOnce() + Send,
    ) -> Result<Outcome, Lost> {
        let begun = Arc::new(self.health.begin());
        let (mut needs, mut gone) = (Vec::with_capacity(job.needs.len()), Vec::new());
        for (_, digest) in &job.needs {
            match self.outputs.path(digest) {
                Some(path) => needs.push(path),
                None => gone.push(digest.clone()),
            }
        }
        if !gone.is_empty() {
            return Ok(Outcome::without(gone));
        }
        let (job, needs) = (Arc::new(job), needs.into());
        let directory = match self.prepare(&job, &needs, &begun, &mut cancel).await? {
            Ok(directory) => directory,
            Err(outcome) => return Ok(outcome),
        };
        let ended = self.supervise(&job, &directory, &needs, log, &mut cancel, started).await;
        let outputs = Arc::clone(&self.outputs);
        let searched = self.searched(&job);
        let outcome = blocking(move || {
            let status = match ended {
                Ended::Status(status) => status,
                Ended::Otherwise(outcome) => return Ok(outcome),
                Ended::WithoutLog(message) => {
                    begun.note_full();
                    return Err(Lost(message));
                }
            };
            if status.success() {
                let (build, out) = (directory.at("build"), directory.at("out"));
                let kept = outputs.collect(&build, &out, &job.definition.products);
                return kept_or_not(kept).inspect_err(|_| begun.note_full());
            }
            // Checked before the directory is removed, because the files in it may be what fills the disk.
            if begun.met_full_disk() {
                let how = process::describe(status);
                return Err(Lost(format!("the disk was full while it ran ({how})")));
            }
            let hint = match status.code() {
                Some(126) => " (a command could not be executed)".to_owned(),
                Some(127) => format!(" (a command was not found: {searched})"),
                _ => String::new(),
            };
            let message = format!("{}{hint}", process::describe(status));
            let killed = process::was_killed(status);
            Ok(Outcome { killed, ..Outcome::ended(BuildStatus::Failed, message) })
            // `directory` is dropped here, on a thread that may block.
        })
        .await??;
        for text in &outcome.notes {
            note(log, text).await;
        }
        Ok(outcome)
    }
}

/// Waits until the attempt is asked to end, and returns why.
async fn end_request(cancel: &mut watch::Receiver<Option<EndRequest>>) -> EndRequest {
    let asked = cancel.wait_for(Option::is_some).await.map(|why| *why);
    match asked {
        Ok(Some(why)) => why,
        // The sender is gone, so the attempt will not be asked.
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

/// How a process ended.
enum Ended {
    /// The process ended by itself.
    Status(ExitStatus),
    /// The process was told to end, or exceeded a limit, or did not start.
    Otherwise(Outcome),
    /// The process was told to end, because a full disk kept its log from being written.
    WithoutLog(String),
}

fn program_of(job: &BuildJob) -> &str {
    job.definition.command.first().map_or("", String::as_str)
}

fn trouble(message: String) -> Ended {
    Ended::Otherwise(Outcome::ended(BuildStatus::FailedOther, message))
}

impl LocalExecutor {
    /// Starts the process, copies its output to the log, and enforces its limits until it ends.
    async fn supervise(
        &self,
        job: &BuildJob,
        directory: &Directory,
        needs: &[PathBuf],
        log: &mut LogWriter,
        cancel: &mut watch::Receiver<Option<EndRequest>>,
        started: impl FnOnce() + Send,
    ) -> Ended {
        let (mut running, mut out) = match self.spawn(job, directory, needs).await {
            Ok(spawned) => spawned,
            Err(error) => return self.cannot_run(job, &error),
        };
        started();
        let mut watch = Watch {
            end: None,
            kill_at: None,
            killed: false,
            grace: self.allowed.grace.get(),
            deadline: Instant::now() + job.timeout,
            silent_at: Instant::now() + job.max_silent,
            without_log: None,
        };
        let mut open = true;
        let mut chunk = vec![0; CHUNK];
        let mut last = Vec::new();
        let ended = loop {
            tokio::select! {
                biased;
                why = end_request(cancel), if watch.end.is_none() => {
                    watch.stop(&running, BuildStatus::Canceled, why.message().to_owned());
                }
                read = out.read(&mut chunk), if open => match read {
                    Ok(0) => open = false,
                    Ok(count) => {
                        watch.silent_at = Instant::now() + job.max_silent;
                        keep_last(&mut last, &chunk[..count]);
                        if let Err(error) = log.write(&chunk[..count]).await {
                            let message = format!("cannot write the build log: {error}");
                            if watch.end.is_none() && is_full(&error) {
                                watch.without_log = Some(message.clone());
                            }
                            watch.stop(&running, BuildStatus::FailedOther, message);
                            // Further output is dropped.
                            open = false;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot read the output of a build");
                        open = false;
                    }
                },
                ended = running.ended() => break ended,
                // After the kill, only the kernel can delay the end of the build.
                () = tokio::time::sleep_until(watch.next()), if !watch.killed => {
                    watch.tick(&running, job);
                }
            }
        };
        if open {
            drain(out, log, &mut chunk, &mut last).await;
        }
        if let Some(message) = watch.without_log {
            return Ended::WithoutLog(message);
        }
        match (watch.end, ended) {
            (Some(outcome), _) => {
                note(log, &outcome.message).await;
                Ended::Otherwise(outcome)
            }
            (None, Ok(end)) => self.by_itself(job, directory, log, end, &last).await,
            (None, Err(error)) => {
                let message = format!("cannot learn how the process ended: {error}");
                let outcome = Outcome::ended(BuildStatus::FailedOther, message);
                Ended::Otherwise(Outcome { killed: true, ..outcome })
            }
        }
    }

    /// The end of a job whose process could not be started.
    fn cannot_run(&self, job: &BuildJob, error: &io::Error) -> Ended {
        let program = program_of(job);
        let too_long = Some(rustix::io::Errno::TOOBIG.raw_os_error());
        let hint = if error.raw_os_error() == too_long {
            ": raise the limit of the server's stack, of which they may be a quarter (`ulimit -s`)"
                .to_owned()
        } else if error.kind() == io::ErrorKind::NotFound && !program.contains('/') {
            format!(": {}", self.searched(job))
        } else {
            String::new()
        };
        trouble(format!("cannot run `{program}`: {error}{hint}"))
    }

    /// The end of a job that was not told to end. `last` is its last output.
    async fn by_itself(
        &self,
        job: &BuildJob,
        directory: &Directory,
        log: &mut LogWriter,
        end: End,
        last: &[u8],
    ) -> Ended {
        let code = end.status().code();
        // The text that bubblewrap prints if the program does not exist. Its exit status is then 1.
        let missing = format!("bwrap: execvp {}: No such file or directory\n", program_of(job));
        let sandboxed = self.allowed.sandbox.bubblewrap.is_some();
        let message = if let Some(limit) = end.limit {
            limit.message(&directory.limits)
        } else if sandboxed && code == Some(1) && last.ends_with(missing.as_bytes()) {
            format!("cannot run `{}`: {}", program_of(job), self.searched(job))
        } else {
            if code == Some(127) {
                note(log, &self.searched(job)).await;
            }
            if end.left > 0 {
                let left = end.left;
                note(log, &format!("{left} processes that outlived the build were killed")).await;
            }
            return Ended::Status(end.status());
        };
        note(log, &message).await;
        trouble(message)
    }

    async fn spawn(
        &self,
        job: &BuildJob,
        directory: &Directory,
        needs: &[PathBuf],
    ) -> io::Result<(Running, pipe::Receiver)> {
        let program = self.program(job, directory, needs)?;
        let (out, writer) = process::output_pipe()?;
        let streams =
            Streams { stdin: None, stdout: writer.try_clone()?.into(), stderr: writer.into() };
        Ok((self.supervisors.spawn(program, streams).await?, out))
    }
}

/// Writes a note into the build log.
async fn note(log: &mut LogWriter, text: &str) {
    let _ = log.write(format!("\n[brigandine: {text}]\n").as_bytes()).await;
}
