//! How the server starts a program below a supervisor.

use super::cgroup::Cgroups;
use super::fork_server::{ForkServer, end_orphans};
use super::launch::{self, Launch};
use super::limits::Bounds;
use super::running::Running;
use super::user::{Shown, User};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::UnixStream;

/// A program to start.
#[derive(Debug)]
pub(crate) struct Program {
    /// The command. The program gets only those variables that the command names.
    pub(crate) command: Command,
    /// `Some`: the program is bubblewrap, which reads its arguments from this file.
    pub(crate) sandbox: Option<OwnedFd>,
    /// `true`: the program is untrusted, and gets a namespace of its own if the kernel allows it.
    pub(crate) contained: bool,
    /// The program's limits; `None`: it has none.
    pub(crate) bounds: Option<Bounds>,
    /// The user that the program runs as; `None`: the server's user. With a user, [`contained`](Self::contained) must
    /// be `true`, and the user can reach the paths in [`shown`](Self::shown).
    pub(crate) user: Option<User>,
    /// Paths that the program's user needs and could not reach otherwise.
    pub(crate) shown: Vec<Shown>,
}

impl From<Command> for Program {
    fn from(command: Command) -> Self {
        let (sandbox, bounds, user) = (None, None, None);
        Self { command, sandbox, contained: false, bounds, user, shown: Vec::new() }
    }
}

/// The standard descriptors of a program.
#[derive(Debug)]
pub(crate) struct Streams {
    /// `None`: `/dev/null`.
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// Starts programs.
#[derive(Debug)]
pub(crate) struct Supervisors {
    /// Guard: the mutex. `None`: no program was started yet, or the last fork server was found dead.
    fork_server: Mutex<Option<Arc<ForkServer>>>,
    /// A file lock that supervisors hold until their programs have ended.
    lock: Option<File>,
    /// The control groups of untrusted programs.
    cgroups: Option<Cgroups>,
}

impl Supervisors {
    /// Starts programs without control groups.
    #[cfg(test)]
    pub(crate) fn new(lock: Option<File>) -> Arc<Self> {
        Self::with_groups(lock, None)
    }

    /// `lock` is held until all programs have ended, even if this process is killed. Contained programs get control
    /// groups, except in a namespace in which a group would have no effect.
    pub(crate) fn with_groups(lock: Option<File>, cgroups: Option<Cgroups>) -> Arc<Self> {
        Arc::new(Self { fork_server: Mutex::new(None), lock, cgroups })
    }

    pub(super) fn fork_server(&self) -> io::Result<Arc<ForkServer>> {
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
    /// The program could not be started. Nothing runs.
    ///
    /// # Cancel safety
    /// If the future is dropped, the program does not start, or is killed.
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
        let stream = UnixStream::from_std(ours)?;
        let sent = self.fork_server()?;
        if let Err(error) = sent.send(contained, &descriptors).await {
            // Any other error would come again with another fork server, and the known one lives.
            if !has_ended(&error) {
                return Err(error);
            }
            self.replace(&sent);
            self.fork_server()?.send(contained, &descriptors).await?;
        }
        drop(descriptors);
        // Only the supervisor holds these descriptors now, so they are closed when it ends.
        drop((theirs, stdin, streams.stdout, streams.stderr, sandbox));
        Running::begin(stream, &launch.to_bytes()?, group).await
    }

    /// Forgets a fork server that has ended, and kills what it left behind. Does nothing if another caller has done so.
    fn replace(&self, dead: &Arc<ForkServer>) {
        let mut fork_server = self.fork_server.lock().unwrap_or_else(PoisonError::into_inner);
        if fork_server.take_if(|known| Arc::ptr_eq(known, dead)).is_none() {
            return;
        }
        drop(fork_server);
        tracing::error!("the process that supervises builds was killed: another one is started");
        end_orphans();
    }
}

/// Whether a failed send says that the fork server has ended.
fn has_ended(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::BrokenPipe
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::NotConnected
    )
}

/// The parts of a command that a supervisor must know.
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

#[cfg(test)]
mod tests {
    use super::has_ended;
    use rustix::io::Errno;

    #[test]
    fn a_lack_of_room_is_no_end_of_the_fork_server() {
        for (errno, ended) in [
            (Errno::PIPE, true),
            (Errno::CONNRESET, true),
            (Errno::NOTCONN, true),
            (Errno::TOOMANYREFS, false),
            (Errno::NOBUFS, false),
            (Errno::NOMEM, false),
        ] {
            assert_eq!(has_ended(&errno.into()), ended, "{errno}");
        }
    }
}
