//! Child processes, each the leader of a process group of its own.
//!
//! Every process that the server starts (git, evaluators, builds) goes through [`Running`], so that
//! there is one answer to "who ends it": whoever holds the `Running`. Dropping it kills the group.
//!
//! | state | what may be trusted | left by |
//! |---|---|---|
//! | runs | the group's id is the leader's process id | the leader's exit, seen by [`Running::exited`] |
//! | exited, not reaped | the leader is a zombie: its id cannot be given to anybody else | [`Running::reap`] |
//! | reaped | nothing: no signal may be sent any more | – |
//!
//! P1: a group is signalled only before its leader is reaped, so no stranger is ever hit.
//! P2: when the leader ends, the rest of its group is killed before the leader is reaped.

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;

/// How long the pipes of a process that has ended may stay open before they are given up.
pub(crate) const LEFTOVER: Duration = Duration::from_millis(500);

/// A child process and its group.
#[derive(Debug)]
pub(crate) struct Running {
    /// `None` once reaped.
    child: Option<Child>,
    exit: AsyncFd<OwnedFd>,
    group: Pid,
}

impl Running {
    /// Starts `command` in a new process group.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        let mut child = command.process_group(0).spawn()?;
        let watched = (|| {
            let group = i32::try_from(child.id())
                .ok()
                .and_then(Pid::from_raw)
                .ok_or_else(|| io::Error::other("the kernel gave a process the id 0"))?;
            let exit = register(pidfd_open(group, PidfdFlags::NONBLOCK)?)?;
            Ok((group, exit))
        })();
        match watched {
            Ok((group, exit)) => Ok(Self { child: Some(child), exit, group }),
            Err(error) => {
                // Nobody could watch it, so it must not run.
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Takes the pipe to the leader's standard input, if there is one.
    pub(crate) fn stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child.as_mut()?.stdin.take()
    }

    /// Waits until the leader has ended. It stays a zombie until [`Running::reap`].
    ///
    /// Cancel safe.
    pub(crate) async fn exited(&self) -> io::Result<()> {
        // A pidfd becomes readable when the process ends, and stays so.
        let _ready = self.exit.readable().await?;
        Ok(())
    }

    /// Sends a signal to the whole group.
    pub(crate) fn signal(&self, signal: Signal) {
        // P1: `child` is there, so the leader is not reaped.
        if self.child.is_some() {
            let _ = kill_process_group(self.group, signal);
        }
    }

    /// Kills what is left of the group and takes the leader's status. Call it after
    /// [`Running::exited`], otherwise it kills the leader as well.
    pub(crate) fn reap(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::KILL); // P2
        match self.child.take() {
            Some(mut child) => child.wait(),
            None => Err(io::Error::other("the process was reaped before")),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let Some(mut child) = self.child.take() else { return };
        if !matches!(child.try_wait(), Ok(Some(_))) {
            // A killed process ends at once unless the kernel holds it; that wait is not ours.
            let waiting = std::thread::Builder::new()
                .name("reaper".to_owned())
                .spawn(move || child.wait().map(drop));
            drop(waiting);
        }
    }
}

/// Watches a descriptor that this process owns.
#[expect(
    deprecated,
    reason = "tokio's safe constructor is deprecated for types whose descriptor can change; an \
              OwnedFd cannot, and the successor is unsafe"
)]
fn register(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(descriptor)
}

/// A pipe whose reading end is asynchronous; the writing end is for a child process.
pub(crate) fn output_pipe() -> io::Result<(pipe::Receiver, io::PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    Ok((pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?, writer))
}

/// What a process that ran to its end left behind.
#[derive(Debug)]
pub(crate) struct Captured {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// All it wrote to standard output.
    pub(crate) stdout: Vec<u8>,
    /// The last part of what it wrote to standard error.
    pub(crate) stderr: String,
}

/// Why a process gave no result.
#[derive(Debug)]
pub(crate) enum CaptureError {
    /// It could not be started, or its pipes failed.
    Io(io::Error),
    /// It took too long and was ended.
    Timeout(Duration),
    /// It wrote more than allowed and was ended.
    Output(usize),
}

impl std::fmt::Display for CaptureError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot run: {error}"),
            Self::Timeout(limit) => write!(f, "did not end within {} s", limit.as_secs_f32()),
            Self::Output(limit) => write!(f, "wrote more than {limit} bytes"),
        }
    }
}

impl std::error::Error for CaptureError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Timeout(_) | Self::Output(_) => None,
        }
    }
}

impl From<io::Error> for CaptureError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

const STDERR_KEPT: usize = 16 * 1024;

/// Runs a short process without standard input and keeps what it writes.
///
/// # Cancel safety
/// Dropped: the process group is killed.
pub(crate) async fn capture(
    mut command: Command,
    timeout: Duration,
    stdout_max: usize,
) -> Result<Captured, CaptureError> {
    let (mut out, out_writer) = output_pipe()?;
    let (mut err, err_writer) = output_pipe()?;
    command.stdin(Stdio::null()).stdout(out_writer).stderr(err_writer);
    let mut running = Running::spawn(&mut command)?;
    // The command holds the writing ends of the pipes: without this there is no end of file.
    drop(command);
    let mut stdout = Vec::new();
    let mut stderr: Vec<u8> = Vec::new();
    let pump = async {
        let read_out = async {
            let mut chunk = vec![0; 64 * 1024];
            loop {
                let count = out.read(&mut chunk).await?;
                if count == 0 {
                    return Ok(());
                }
                if stdout.len() + count > stdout_max {
                    return Err(CaptureError::Output(stdout_max));
                }
                stdout.extend_from_slice(&chunk[..count]);
            }
        };
        let read_err = async {
            let mut chunk = vec![0; 4 * 1024];
            loop {
                let count = err.read(&mut chunk).await?;
                if count == 0 {
                    return Ok::<_, CaptureError>(());
                }
                stderr.extend_from_slice(&chunk[..count]);
                if stderr.len() > 2 * STDERR_KEPT {
                    stderr.drain(..stderr.len() - STDERR_KEPT);
                }
            }
        };
        let pipes = async { tokio::try_join!(read_out, read_err).map(drop) };
        let exited = async {
            running.exited().await?;
            tokio::time::sleep(LEFTOVER).await;
            Ok(())
        };
        tokio::select! {
            biased;
            closed = pipes => {
                closed?;
                running.exited().await?;
            }
            // A daemon that it left behind (ssh's shared connections) holds the pipes.
            ended = exited => ended.map_err(CaptureError::Io)?,
        }
        Ok::<(), CaptureError>(())
    };
    match tokio::time::timeout(timeout, pump).await {
        Ok(done) => done?,
        Err(_) => return Err(CaptureError::Timeout(timeout)),
    }
    let status = running.reap()?;
    let kept = stderr.len().saturating_sub(STDERR_KEPT);
    Ok(Captured { status, stdout, stderr: String::from_utf8_lossy(&stderr[kept..]).into_owned() })
}

/// How a process ended, for people: `exit status 2`, `killed by signal 9`.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}{}", signal_name(signal)),
        (None, None) => "ended without a status".to_owned(),
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        4 => " (illegal instruction)",
        6 => " (abort)",
        7 => " (bus error)",
        8 => " (arithmetic)",
        9 => " (kill)",
        11 => " (segmentation fault)",
        15 => " (termination)",
        _ => "",
    }
}

/// The variable that every child process carries, with the id of the state directory.
pub(crate) const STATE_VARIABLE: &str = "BRIGANDINE_STATE_ID";

/// Kills every process that carries one of these `NAME=VALUE` pairs in its environment and belongs
/// to this user, however it left its group; says how many there were.
///
/// Reads `/proc`, so it blocks for a moment; a process that is starting right now is found in the
/// next round, and it goes round until nothing is found.
pub(crate) fn kill_marked(mark: &str) -> usize {
    let own = std::process::id();
    let mut killed = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let mut found = false;
        let Ok(processes) = std::fs::read_dir("/proc") else { break };
        for process in processes.flatten() {
            let name = process.file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            if id == own {
                continue;
            }
            let Ok(environment) = std::fs::read(process.path().join("environ")) else { continue };
            if !environment.split(|byte| *byte == 0).any(|pair| pair == mark.as_bytes()) {
                continue;
            }
            let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) else { continue };
            // Opened first, then looked at again: the signal goes to the process that was read.
            let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
            let again = std::fs::read(process.path().join("environ")).unwrap_or_default();
            if again == environment
                && rustix::process::pidfd_send_signal(&handle, Signal::KILL).is_ok()
            {
                found = true;
                killed.insert(id);
            }
        }
        if !found {
            break;
        }
        // A killed process keeps its environment until it is gone: give way to it.
        std::thread::yield_now();
    }
    killed.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(text: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", text]);
        command
    }

    #[tokio::test]
    async fn capture_keeps_output_and_status() {
        let done = capture(shell("echo out; echo err >&2; exit 3"), Duration::from_secs(20), 100)
            .await
            .expect("runs");
        assert_eq!(done.stdout, b"out\n");
        assert_eq!(done.stderr, "err\n");
        assert_eq!(describe(done.status), "exit status 3");
    }

    #[tokio::test]
    async fn capture_ends_what_takes_too_long() {
        let limit = Duration::from_millis(50);
        let error = capture(shell("sleep 1000 & sleep 1000"), limit, 100).await.unwrap_err();
        assert!(matches!(error, CaptureError::Timeout(_)), "{error}");
    }

    #[tokio::test]
    async fn capture_ends_what_writes_too_much() {
        let error = capture(shell("yes"), Duration::from_secs(20), 1000).await.unwrap_err();
        assert!(matches!(error, CaptureError::Output(1000)), "{error}");
    }

    #[tokio::test]
    async fn capture_does_not_wait_for_a_daemon_that_holds_the_pipes() {
        let mark = format!("BRIGANDINE_TEST_DAEMON={}", std::process::id());
        let (name, value) = mark.split_once('=').expect("pair");
        let mut command =
            shell("mkfifo $0; setsid sh -c 'echo > $0; exec sleep 1000' $0 & read x < $0; echo up");
        let directory = tempfile::tempdir().expect("directory");
        command.arg(directory.path().join("gate")).env(name, value);
        let done = capture(command, Duration::from_secs(60), 100).await.expect("ends");
        assert_eq!(done.stdout, b"up\n");
        assert_eq!(kill_marked(&mark), 1, "the daemon lived on");
    }

    #[tokio::test]
    async fn the_rest_of_the_group_ends_with_its_leader() {
        let (mut out, writer) = output_pipe().expect("pipe");
        let mut command = shell("sleep 1000 & echo $!");
        command.stdout(writer).stdin(Stdio::null());
        let mut running = Running::spawn(&mut command).expect("spawn");
        drop(command);
        running.exited().await.expect("exit");
        assert!(running.reap().expect("reap").success());
        // End of file comes only when the sleeping process is gone as well.
        let mut text = String::new();
        let read = out.read_to_string(&mut text);
        tokio::time::timeout(Duration::from_secs(20), read).await.expect("in time").expect("read");
        assert!(text.trim().parse::<u32>().is_ok(), "{text}");
    }

    #[tokio::test]
    async fn a_marked_process_is_found_wherever_it_went() {
        let mark = format!("BRIGANDINE_TEST_MARK={}-{:p}", std::process::id(), &LEFTOVER);
        let (name, value) = mark.split_once('=').expect("pair");
        let (mut out, writer) = output_pipe().expect("pipe");
        let mut command = shell("setsid sleep 1000 & setsid sleep 1000 & echo");
        command.stdout(writer).env(name, value).stdin(Stdio::null());
        let mut running = Running::spawn(&mut command).expect("spawn");
        drop(command);
        running.exited().await.expect("exit");
        running.reap().expect("reap");
        kill_marked(&mark);
        let mut text = String::new();
        let read = out.read_to_string(&mut text);
        tokio::time::timeout(Duration::from_secs(20), read).await.expect("in time").expect("read");
    }
}
