//! Child processes, each below a supervisor of its own.
//!
//! Every process that the server starts (git, evaluators, builds) goes through [`Supervisors::spawn`], so
//! that there is one answer to "who ends it": whoever holds the [`Running`]. Dropping it kills the program
//! and all that came of it. How, is said in `os/process/supervisor.rs`.
//!
//! A program gets the variables that its [`Command`] names and no other, and its three standard descriptors
//! and no other.
//!
//! | state | what may be trusted | left by |
//! |---|---|---|
//! | runs | it or something that it started may be alive | [`Running::ended`] |
//! | ended | nothing that came of it is alive | – |
//!
//! P1: nothing of the server's is a process's parent but a supervisor, so nothing of the server's is read
//! through `/proc` by asking for one's parent.
//! P2: `ended` says so when the kernel knows no process any more that came of the program.

mod capture;
mod cgroup;
mod launch;
mod limits;
mod namespace;
mod order;
mod supervisor;
mod tree;
mod user;

pub(crate) use capture::{CaptureError, Captured, capture, describe};
pub(crate) use cgroup::Cgroups;
pub(crate) use launch::End;
pub(crate) use limits::{Bounds, Limits};
pub(crate) use user::{Shown, User};

use cgroup::Wanted;
use launch::{ASK, KILL, Launch, REPORT_BYTES, Report};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair,
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, set_child_subreaper};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

/// How long the pipes of a process that has ended may stay open before they are given up.
pub(crate) const LEFTOVER: Duration = Duration::from_millis(500);
/// How long the end of what was killed is waited for; only the kernel can delay it.
const KILLED: Duration = Duration::from_secs(10);
/// The first argument by which this program is told to supervise.
const SUPERVISE: &str = "supervise-processes";

/// Whether this process was started to supervise others. Asked before anything else is done.
pub(crate) fn is_supervisor() -> bool {
    std::env::args_os().nth(1).is_some_and(|word| word == SUPERVISE)
}

/// Supervises until the server is gone.
pub(crate) fn supervise() {
    // There is nobody to tell of an error but the server, which sees that the socket is closed.
    let _ = supervisor::serve();
}

/// Starts programs.
#[derive(Debug)]
pub(crate) struct Supervisors {
    /// Guard: the mutex. `None` until it is needed, and after the process behind it has ended.
    fork_server: Mutex<Option<Arc<ForkServer>>>,
    /// A lock that lasts until everything that was started has ended.
    lock: Option<File>,
    /// What bounds and ends what strangers wrote, beside the supervisors.
    cgroups: Option<Cgroups>,
}

/// The process that forks supervisors.
#[derive(Debug)]
struct ForkServer {
    control: AsyncFd<OwnedFd>,
    /// `None` while it is dropped.
    child: Option<Child>,
}

/// The fork servers of this process. Guard: the mutex. One, but for tests.
static FORK_SERVERS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

impl ForkServer {
    fn start(lock: Option<&File>) -> io::Result<Self> {
        // What a killed fork server leaves behind comes to this process.
        set_child_subreaper(Pid::from_raw(1))?;
        let (control, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("brigandine: supervisor").arg(SUPERVISE).env_clear();
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn()?;
        drop(command);
        let mut servers = FORK_SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
        servers.insert(child.id().cast_signed());
        drop(servers);
        let locks: Vec<_> = lock.iter().map(|lock| lock.as_fd()).collect();
        send(&control, false, &locks)?;
        rustix::io::ioctl_fionbio(&control, true)?;
        Ok(Self { control: register(control)?, child: Some(child) })
    }

    async fn send(&self, contained: bool, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let send = |control: &OwnedFd| send(control, contained, descriptors);
        self.control.async_io(Interest::WRITABLE, send).await
    }
}

impl Drop for ForkServer {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let forget = move || {
            let _ = child.wait();
            let mut servers = FORK_SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
            servers.remove(&child.id().cast_signed());
        };
        // It ends when the socket is closed, which is after this, and when its supervisors have.
        drop(std::thread::Builder::new().name("reaper".to_owned()).spawn(forget));
    }
}

/// Asks for a supervisor, in a namespace of its own if the program is `contained`.
fn send(control: &OwnedFd, contained: bool, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(order::DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let byte = [u8::from(contained)];
    sendmsg(control, &[IoSlice::new(&byte)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// A program to start: a command, which names all its variables, and what bubblewrap reads its arguments
/// from if that is the program.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) command: Command,
    pub(crate) sandbox: Option<OwnedFd>,
    /// Whether strangers wrote it: it then has a namespace of its own, where there is one to be had.
    pub(crate) contained: bool,
    /// What it may take; without it, whatever there is.
    pub(crate) bounds: Option<Bounds>,
    /// Who it runs as, who then reaches what is [`shown`](Self::shown); without it, as the server does. Asks
    /// for [`contained`](Self::contained).
    pub(crate) user: Option<User>,
    /// What its user needs where only the server may go.
    pub(crate) shown: Vec<Shown>,
}

impl From<Command> for Program {
    fn from(command: Command) -> Self {
        Self {
            command,
            sandbox: None,
            contained: false,
            bounds: None,
            user: None,
            shown: Vec::new(),
        }
    }
}

/// The standard descriptors of a program.
#[derive(Debug)]
pub(crate) struct Streams {
    /// `None`: there is nothing to read.
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

impl Supervisors {
    /// Without control groups.
    #[cfg(test)]
    pub(crate) fn new(lock: Option<File>) -> Arc<Self> {
        Self::with_groups(lock, None)
    }

    /// `lock` is held until everything that is started has ended, even when this process is killed. What is
    /// contained has a control group, where that adds to what it has.
    pub(crate) fn with_groups(lock: Option<File>, cgroups: Option<Cgroups>) -> Arc<Self> {
        Arc::new(Self { fork_server: Mutex::new(None), lock, cgroups })
    }

    fn fork_server(&self) -> io::Result<Arc<ForkServer>> {
        let mut fork_server = self.fork_server.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*fork_server {
            return Ok(Arc::clone(known));
        }
        let new = Arc::new(ForkServer::start(self.lock.as_ref())?);
        *fork_server = Some(Arc::clone(&new));
        Ok(new)
    }

    /// Starts a program.
    ///
    /// # Errors
    /// It could not be started. Nothing runs.
    ///
    /// # Cancel safety
    /// Dropped: nothing runs, or is killed.
    pub(crate) async fn spawn(&self, program: Program, streams: Streams) -> io::Result<Running> {
        let Program { command, sandbox, contained, bounds, user, shown } = program;
        let sandboxed = sandbox.is_some();
        let group = self.cgroups.as_ref().filter(|_| contained).map(Cgroups::next);
        let mut launch = Launch { sandboxed, bounds, user, shown, ..launch(&command) };
        launch.group.clone_from(&group);
        if let Some(user) = user {
            for pipe in streams.stdin.iter().chain([&streams.stdout, &streams.stderr]) {
                user.give_pipe(pipe)?;
            }
        }
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let stdin = match streams.stdin {
            Some(stdin) => stdin,
            None => File::open("/dev/null")?.into(),
        };
        let mut descriptors =
            vec![theirs.as_fd(), stdin.as_fd(), streams.stdout.as_fd(), streams.stderr.as_fd()];
        descriptors.extend(sandbox.iter().map(|file| file.as_fd()));
        let mut stream = UnixStream::from_std(ours)?;
        let sent = self.fork_server()?;
        if sent.send(contained, &descriptors).await.is_err() {
            self.replace(&sent);
            self.fork_server()?.send(contained, &descriptors).await?;
        }
        drop(descriptors);
        // Only the supervisor has them now: its end closes them.
        drop((theirs, stdin, streams.stdout, streams.stderr, sandbox));
        stream.write_all(&launch.to_bytes()).await?;
        let mut report = [0; REPORT_BYTES];
        stream.read_exact(&mut report).await.map_err(|_| lost())?;
        match Report::from_bytes(report) {
            Report::Started => Ok(Running { stream, received: [0; REPORT_BYTES], count: 0, group }),
            Report::Refused(number) => Err(io::Error::from_raw_os_error(number)),
            Report::Ended(_) => Err(lost()),
        }
    }

    /// Forgets a fork server that has ended, and ends what it left behind.
    fn replace(&self, dead: &Arc<ForkServer>) {
        let mut fork_server = self.fork_server.lock().unwrap_or_else(PoisonError::into_inner);
        if fork_server.as_ref().is_some_and(|known| Arc::ptr_eq(known, dead)) {
            *fork_server = None;
        }
        drop(fork_server);
        tracing::error!("the process that supervises builds was killed: another one is started");
        let known = FORK_SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
        let known: Vec<i32> = known.iter().copied().collect();
        tree::kill(&known);
        tree::reap(&known);
    }
}

fn lost() -> io::Error {
    io::Error::other("its supervisor was killed")
}

/// What a command says, for a supervisor.
fn launch(command: &Command) -> Launch {
    let environment: Vec<(OsString, OsString)> = command
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect();
    let path = environment.iter().find(|(name, _)| name == "PATH");
    let path = path.map_or(OsStr::new("/usr/bin:/bin"), |(_, path)| path.as_os_str());
    Launch {
        program: launch::find(command.get_program(), path),
        arguments: command.get_args().map(OsStr::to_owned).collect(),
        directory: command.get_current_dir().map_or_else(|| "/".into(), Into::into),
        environment,
        ..Launch::default()
    }
}

/// The variables of the server's own that `wanted` names, for a program that needs them.
pub(crate) fn passed_on(
    wanted: impl Fn(&str) -> bool,
) -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(move |(name, _)| name.to_str().is_some_and(&wanted))
}

/// A program that runs, and all that comes of it.
#[derive(Debug)]
pub(crate) struct Running {
    stream: UnixStream,
    /// The report of the end, as far as it has come.
    received: [u8; REPORT_BYTES],
    count: usize,
    /// That of its supervisor's, which may be lost.
    group: Option<Wanted>,
}

impl Running {
    /// Waits until the program has ended and nothing that came of it is alive (P2). To be called until it
    /// says so, and not after.
    ///
    /// # Errors
    /// Its supervisor was killed, and what came of it is being killed.
    ///
    /// # Cancel safety
    /// Dropped: it can be called again.
    pub(crate) async fn ended(&mut self) -> io::Result<End> {
        while self.count < REPORT_BYTES {
            match self.stream.read(&mut self.received[self.count..]).await {
                Ok(0) | Err(_) => {
                    if let Some(group) = self.group.take() {
                        let _ = tokio::task::spawn_blocking(move || group.end()).await;
                    }
                    return Err(lost());
                }
                Ok(count) => self.count += count,
            }
        }
        match Report::from_bytes(self.received) {
            Report::Ended(end) => Ok(end),
            Report::Started | Report::Refused(_) => Err(lost()),
        }
    }

    /// Asks every process to end (TERM).
    pub(crate) fn ask(&self) {
        // There is room for a byte, or nobody to read it.
        let _ = self.stream.try_write(&[ASK]);
    }

    /// Kills every process.
    pub(crate) fn kill(&self) {
        let _ = self.stream.try_write(&[KILL]);
    }

    /// Kills every process and waits until they are gone.
    pub(crate) async fn end(mut self) {
        self.kill();
        let _ = tokio::time::timeout(KILLED, self.ended()).await;
    }
}

impl End {
    /// How the program itself ended.
    pub(crate) fn status(self) -> ExitStatus {
        ExitStatus::from_raw(self.status)
    }
}

/// Watches a descriptor that this process owns.
#[expect(
    deprecated,
    reason = "tokio's safe constructor is deprecated for types whose descriptor can change; an \
              OwnedFd cannot, and the successor is unsafe"
)]
fn register(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, Interest::WRITABLE)
}

/// A pipe whose reading end is asynchronous; the writing end is for a child process.
pub(crate) fn output_pipe() -> io::Result<(pipe::Receiver, io::PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    Ok((pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?, writer))
}

/// A pipe whose writing end is asynchronous; the reading end is for a child process.
pub(crate) fn input_pipe() -> io::Result<(io::PipeReader, pipe::Sender)> {
    let (reader, writer) = io::pipe()?;
    Ok((reader, pipe::Sender::from_owned_fd(OwnedFd::from(writer))?))
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
    let mut killed = BTreeSet::new();
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
mod tests;
