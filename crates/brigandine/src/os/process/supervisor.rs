//! The supervisors: the processes between the server and the programs that it starts.
//!
//! ```text
//! server ── fork server ─┬─ supervisor ── program ── …
//!                        └─ supervisor ── program ── …
//! ```
//!
//! The *fork server* is a second process of this program. It gets no variable of the server's, and no descriptor but a
//! socket and a lock. It forks a *supervisor* for each program. A supervisor adopts the processes that its program
//! leaves behind (PR_SET_CHILD_SUBREAPER), so they cannot escape by a double fork, a new session or a changed
//! environment. When the supervisor has no child left, it reports the end of the program. The fork server adopts the
//! processes that a killed supervisor leaves, and the server adopts those that a killed fork server leaves.
//!
//! The supervisor of a contained program is the first process of a namespace (`namespace.rs`). If the server is root,
//! the fork server forks the supervisor into the namespace. Otherwise the fork server forks a process that makes a user
//! namespace, forks the supervisor, and waits for it.
//!
//! | a supervisor is told | it does |
//! |---|---|
//! | to ask | sends TERM to every process, except those of bubblewrap itself |
//! | to kill | kills every process |
//! | nothing more: the server is gone, or has dropped its end | kills every process |
//!
//! - SUP1: a supervisor reports the end only after the kernel has said that it has no child.
//! - SUP2: a supervisor writes only to its socket. The only file of the server that it holds is the lock by which the
//!   next server waits for it.
//! - SUP3: a program cannot read its supervisor's memory and variables (PR_SET_DUMPABLE). The exception is a program
//!   that is root without a sandbox: root may trace the supervisor.
//! - SUP4: the fork server kills a supervisor that is stopped or traced, and with it the program, within one or two
//!   seconds. Otherwise neither limits nor a cancel would reach the program.
//! - SUP5: the fork server knows each of its supervisors from the fork until it has reaped it. It kills as orphans only
//!   processes that it does not know, and repeats that until none is left. The kernel may refuse a descriptor (pidfd) of a child at any time; neither
//!   the fork server nor a supervisor depends on one.

use super::cgroup::Group;
use super::launch::{ASK, End, KILL, Launch, Report};
use super::limits::{Limit, Meter};
use super::namespace::{self, Scope, Way};
use super::order::Order;
use super::tree;
use crate::os::ffi::{Forked, SingleThread};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, pidfd_open, set_child_subreaper,
    setpriority_process, wait, waitpid,
};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The time between two reaps of children that have ended while the program goes on.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// The time between two measurements of what the program uses.
const LOOK: Duration = Duration::from_millis(200);
/// The nice value of a supervisor, so that no program has a higher priority.
const PRIORITY: i32 = -20;
/// Files that bubblewrap copies. Mounting them would take longer: for each mount, bubblewrap reads the list of all
/// mounts.
const COPIED: &[&str] =
    &["/etc/group", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/nsswitch.conf", "/etc/passwd"];
/// The number of bubblewrap's own processes: the one that is started, and the first one of its namespace.
const BUBBLEWRAP: usize = 2;
/// The time until a supervisor tries again to kill processes of which it has reached none.
const AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// Runs one program until all its descendants have ended. The program runs in a namespace if there is a `way` to make
/// one. `prepared` is the result of [`namespace::Namespaces::prepare`].
pub(super) fn supervise(
    thread: &SingleThread,
    way: Option<Way>,
    prepared: io::Result<()>,
    descriptors: Vec<OwnedFd>,
) {
    let Some(order) = Order::read(descriptors) else { return };
    if order.launch.user.is_some() && way != Some(Way::Root) {
        // USER3
        return order.refuse(&Errno::PERM.into());
    }
    match (prepared, way) {
        (Err(error), _) => order.refuse(&error),
        (Ok(()), None) => run(thread, order, Scope::Tree),
        (Ok(()), Some(Way::Root)) => run_first(thread, order),
        (Ok(()), Some(Way::User)) => run_as_user(thread, order),
    }
}

/// Runs the program; this process is the first of a namespace.
fn run_first(thread: &SingleThread, order: Order) {
    match namespace::begin().and_then(|()| order.launch.show(thread)) {
        Ok(()) => run(thread, order, Scope::Namespace),
        Err(error) => order.refuse(&error),
    }
}

/// Makes a user namespace and runs the program in it.
fn run_as_user(thread: &SingleThread, order: Order) {
    match namespace::prepare_as_user().and_then(|()| thread.fork()) {
        Ok(Forked::Child) => run_first(thread, order),
        Ok(Forked::Parent(id)) => {
            // Only the forked process keeps the socket and the program's streams, so they are closed when it ends.
            drop(order);
            let _ = waitpid(Pid::from_raw(id), WaitOptions::empty());
        }
        Err(error) => order.refuse(&error),
    }
}

fn run(thread: &SingleThread, order: Order, scope: Scope) {
    let Order { mut server, launch, streams, file } = order;
    let started = prepare(&launch, scope).and_then(|(watch, group)| {
        Ok((start(thread, &launch, streams, file.as_ref(), group.as_ref())?, watch, group))
    });
    let ((leader, handle), mut watch, group) = match started {
        Ok(started) => started,
        Err(error) => {
            let _ = Report::refused(&error).send(&mut server);
            return;
        }
    };
    let mut program = Supervised { leader, status: None, scope, group };
    // The program may keep every processor busy, so the supervisor gets a higher priority. Only root may do this. For
    // another user, RLIMIT_NPROC bounds the program instead.
    let _ = setpriority_process(None, PRIORITY);
    let mut limit = None;
    if Report::Started.send(&mut server).is_ok() {
        limit = program.follow(handle.as_ref(), &mut server, watch.as_mut(), launch.sandboxed);
    }
    let failed = program.status.is_some_and(|status| status.exit_status() != Some(0));
    if failed {
        // The processes that the program left exist until `end`, so they can still be measured.
        limit = limit.or_else(|| watch.as_ref()?.look_at_processes());
    }
    let mut left = program.end();
    if launch.sandboxed {
        // bubblewrap ends a moment before the first process of its namespace, and all others end with that process. So
        // those that were found here are not counted as left behind.
        left = 0;
    }
    if failed {
        limit = limit.or_else(|| program.group.as_ref()?.met());
    }
    let Some(status) = program.status else { return };
    if limit.is_none() && watch.is_some_and(|watch| is_file_limit(status, &watch)) {
        limit = Some(Limit::File);
    }
    // The server may start the next program after the report, so the group must be removed first (CGRP3).
    drop(program);
    let _ = Report::Ended(End { status: status.as_raw(), left, limit }).send(&mut server);
}

/// Sets the limits for what this process starts, and makes the control group.
fn prepare(launch: &Launch, scope: Scope) -> io::Result<(Option<Meter>, Option<Group>)> {
    set_child_subreaper(Pid::from_raw(1))?;
    let own = if launch.sandboxed { BUBBLEWRAP as u64 } else { 0 };
    let bounds = launch.bounds.clone();
    let watch = bounds.map(|bounds| Meter::begin(bounds, scope, launch.user, own)).transpose()?;
    // In a namespace, a group without controllers has no effect.
    let wanted = launch.group.as_ref().filter(|it| it.controllers.any() || scope == Scope::Tree);
    let limits = launch.bounds.as_ref().map(|bounds| &bounds.limits);
    Ok((watch, wanted.map(|wanted| wanted.make(limits, own)).transpose()?))
}

/// Whether a program that ended with this status had reached the limit on the size of a file. SIGXFSZ ends a program
/// that does not handle it, and a shell returns it as an exit status.
fn is_file_limit(status: WaitStatus, watch: &Meter) -> bool {
    let signal = Signal::XFSZ.as_raw();
    status.terminating_signal() == Some(signal)
        || status.exit_status() == Some(128 + signal)
        || (status.exit_status() != Some(0) && watch.met_file_limit())
}

/// The program below this supervisor, with its descendants.
struct Supervised {
    /// The id of the process that was started.
    leader: i32,
    /// The status of that process; `None`: it has not ended.
    status: Option<WaitStatus>,
    scope: Scope,
    group: Option<Group>,
}

impl Supervised {
    /// Obeys the server and measures, until the program has ended or the server is gone. A program that exceeds a limit
    /// is killed, and the limit is returned.
    fn follow(
        &mut self,
        handle: Option<&OwnedFd>,
        server: &mut UnixStream,
        mut watch: Option<&mut Meter>,
        sandboxed: bool,
    ) -> Option<Limit> {
        let mut limit = None;
        let mut looked = Instant::now();
        while self.status.is_none() {
            let mut polled = vec![PollFd::new(server, PollFlags::IN)];
            polled.extend(handle.map(|handle| PollFd::new(handle, PollFlags::IN)));
            let _ = poll(&mut polled, Some(&TICK));
            let told = !polled[0].revents().is_empty();
            drop(polled);
            if told {
                let mut wish = [0];
                match server.read(&mut wish) {
                    Ok(1) => self.obey(wish[0], sandboxed),
                    _ => break,
                }
            }
            // Orphans of the program are reaped while it runs. Otherwise the dead ones would accumulate.
            while self.reap(WaitOptions::NOHANG) == Ok(true) {}
            if let Some(watch) = &mut watch
                && self.status.is_none()
                && looked.elapsed() >= LOOK
            {
                limit = limit.or_else(|| watch.look());
                looked = Instant::now();
                if limit.is_some() {
                    self.kill();
                }
            }
        }
        limit
    }

    /// Reaps a child that has ended, and keeps the status if the child is the leader. `false`: no child has ended.
    fn reap(&mut self, options: WaitOptions) -> Result<bool, Errno> {
        let ended = wait(options)?;
        if let Some((pid, status)) = ended
            && pid.as_raw_nonzero().get() == self.leader
        {
            self.status = Some(status);
        }
        Ok(ended.is_some())
    }

    /// Kills every descendant. Returns how many there were.
    fn kill(&self) -> u32 {
        let Some(group) = &self.group else { return self.scope.kill() };
        let count = u32::try_from(self.scope.ids().len()).unwrap_or(u32::MAX);
        // Kills the group in one step, then the processes that have left the group. Only a program that is root can
        // leave it.
        group.kill();
        self.scope.kill().max(count)
    }

    /// Kills processes until no child is left (SUP1). Returns how many there were beside the program itself.
    fn end(&mut self) -> u32 {
        let mut left = 0;
        loop {
            match self.reap(WaitOptions::NOHANG) {
                Err(Errno::CHILD) => return left,
                Ok(true) => {}
                Ok(false) | Err(_) => {
                    let killed = self.kill();
                    left += killed;
                    if killed > 0 {
                        // Wait until a killed process has ended. Its children become children of this process, and the
                        // next round finds them.
                        let _ = self.reap(WaitOptions::empty());
                    } else {
                        // A child is just ending, or the children cannot be listed at the moment.
                        let _ = poll(&mut [], Some(&AGAIN));
                    }
                }
            }
        }
    }

    /// Does what the server asks.
    fn obey(&self, wish: u8, sandboxed: bool) {
        match wish {
            KILL => {
                self.kill();
            }
            ASK => {
                // bubblewrap and the first process of its namespace are not asked. They would end immediately, and
                // everything in the namespace would be killed.
                let own = if sandboxed { BUBBLEWRAP } else { 0 };
                let mut asked = Vec::new();
                tree::visit(&[], &mut |depth, _, process| {
                    if depth > own {
                        match process.try_clone() {
                            Some(process) => asked.push(process),
                            // No more descriptors can be opened: ask this process now, out of order.
                            None => {
                                process.signal(Signal::TERM);
                            }
                        }
                    }
                });
                // Parents are asked first: a shell whose child ends before the shell is asked would report a failure.
                for process in asked.iter().rev() {
                    process.signal(Signal::TERM);
                }
            }
            _ => {}
        }
    }
}

/// Starts the program in a process group of its own. Returns its id, and a descriptor that is readable once the program
/// has ended. Without the descriptor, the end is noticed at the next [`TICK`].
fn start(
    thread: &SingleThread,
    launch: &Launch,
    [stdin, stdout, stderr]: [OwnedFd; 3],
    file: Option<&OwnedFd>,
    group: Option<&Group>,
) -> io::Result<(i32, Option<OwnedFd>)> {
    let mut command = Command::new(&launch.program);
    let mut copied = Vec::new();
    if let Some(file) = file {
        for path in COPIED {
            let Ok(file) = std::fs::File::open(path) else { continue };
            rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty())?;
            command.args(["--perms", "0444", "--file", &file.as_raw_fd().to_string(), path]);
            copied.push(file);
        }
        // bubblewrap reads and closes these descriptors before it starts the program in the sandbox.
        rustix::io::fcntl_setfd(file, rustix::io::FdFlags::empty())?;
        command.arg("--args").arg(file.as_raw_fd().to_string());
    }
    command
        .args(&launch.arguments)
        .env_clear()
        .envs(launch.environment.iter().map(|(n, v)| (n, v)));
    command.current_dir(&launch.directory).process_group(0);
    command.stdin(Stdio::from(stdin)).stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr));
    if let Some(user) = launch.user {
        user.confine(&mut command)?;
    }
    let id = match group {
        Some(group) => start_in(thread, command, group)?,
        // `Supervised::reap` reaps this child together with all others.
        None => command.spawn()?.id().cast_signed(),
    };
    drop(copied);
    let ended = Pid::from_raw(id).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    Ok((id, ended))
}

/// Starts a command in a control group (CGRP2). The kernel forks into the group. If the kernel cannot do that, the new
/// process enters the group before it executes the program.
fn start_in(thread: &SingleThread, mut command: Command, group: &Group) -> io::Result<i32> {
    // Executing the program closes the pipe. If that fails, the new process writes the error's number to the pipe.
    let (mut failed, mut failure) = io::pipe()?;
    let (forked, enters) = match thread.fork_into(&group.open()?) {
        Ok(forked) => (forked, false),
        Err(_) => (thread.fork()?, true),
    };
    match forked {
        Forked::Child => {
            let entered = if enters { group.enter() } else { Ok(()) };
            let error = match entered {
                Ok(()) => command.exec(),
                Err(error) => error,
            };
            let number = error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error());
            let _ = failure.write_all(&number.to_le_bytes());
            std::process::exit(127);
        }
        Forked::Parent(id) => {
            drop((failure, command));
            let mut number = [0; 4];
            match failed.read_exact(&mut number) {
                Err(_) => Ok(id),
                Ok(()) => {
                    let _ = waitpid(Pid::from_raw(id), WaitOptions::empty());
                    Err(io::Error::from_raw_os_error(i32::from_le_bytes(number)))
                }
            }
        }
    }
}
