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

use super::cgroup::Group;
use super::launch::{ASK, End, KILL, Launch, Report};
use super::limits::{Limit, Meter};
use super::namespace::{self, Namespaces, Scope, Way};
use super::order::{Order, receive};
use super::tree;
use crate::os::ffi::{self, Forked, SingleThread};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, pidfd_open,
    pidfd_send_signal, set_child_subreaper, set_dumpable_behavior, setpriority_process, wait,
    waitpid,
};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
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
/// The time between two searches for orphans.
const SOON: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// The time between two searches for stopped supervisors.
const WATCH: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Forks supervisors until the server is gone and all supervisors have ended.
pub(super) fn serve() -> io::Result<()> {
    let control = io::stdin().as_fd().try_clone_to_owned()?;
    // `control` must be the only descriptor of the socket, so that the socket is closed when this process ends.
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    ffi::close_on_exec()?;
    ffi::heed_signals()?;
    ffi::outlive_requests_to_end()?;
    // In a session of their own, builds get neither the server's terminal nor its Ctrl-C.
    rustix::process::setsid()?;
    std::env::set_current_dir("/")?;
    // Builds get the same umask whatever the server's umask is. The mode of the state directory keeps other users away
    // from their files.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    set_child_subreaper(Pid::from_raw(1))?;
    let Some(thread) = SingleThread::check() else {
        return Err(io::Error::other("the fork server has more than one thread"));
    };
    let namespaces = Namespaces::find(&thread);
    // The first message brings the server's lock. It is held and not used otherwise.
    let _lock = receive(&control)?;
    let mut supervisors: Vec<(i32, OwnedFd)> = Vec::new();
    let mut open = true;
    // `true`: a supervisor was killed, and some of its descendants may be alive.
    let mut orphans = false;
    let mut watched = Instant::now();
    while open || orphans || !supervisors.is_empty() {
        let mut polled: Vec<PollFd<'_>> =
            supervisors.iter().map(|(_, handle)| PollFd::new(handle, PollFlags::IN)).collect();
        if open {
            polled.push(PollFd::new(&control, PollFlags::IN));
        }
        let wait = if orphans { Some(&SOON) } else { (!supervisors.is_empty()).then_some(&WATCH) };
        match poll(&mut polled, wait) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready: Vec<bool> =
            polled.iter().map(|polled| !polled.revents().is_empty()).collect();
        drop(polled);
        if open && ready.pop() == Some(true) {
            match receive(&control) {
                Ok(Some((contained, descriptors))) => {
                    let wanted = namespaces.as_ref().filter(|_| contained);
                    let prepared = wanted.map_or(Ok(()), Namespaces::prepare);
                    match thread.fork() {
                        Ok(Forked::Child) => {
                            let way = wanted.map(Namespaces::way);
                            drop((control, supervisors, namespaces));
                            supervise(&thread, way, prepared, descriptors);
                            return Ok(());
                        }
                        // The descriptors are dropped below. If the fork failed, that tells the server.
                        Ok(Forked::Parent(id)) => {
                            if let Some(pid) = Pid::from_raw(id)
                                && let Ok(handle) = pidfd_open(pid, PidfdFlags::empty())
                            {
                                supervisors.push((id, handle));
                                // `ready` has no entry for this supervisor, so the next round looks at it.
                            }
                        }
                        Err(_) => {}
                    }
                    wanted.map_or(Ok(()), Namespaces::come_back)?;
                }
                _ => open = false,
            }
        }
        orphans |= reap(&mut supervisors, &ready);
        if watched.elapsed() >= Duration::from_secs(1) {
            watched = Instant::now();
            kill_stopped(&supervisors);
        }
        orphans = orphans && end_orphans(&supervisors);
    }
    Ok(())
}

/// Forgets supervisors that have ended. Returns whether one of them was killed.
fn reap(supervisors: &mut Vec<(i32, OwnedFd)>, ready: &[bool]) -> bool {
    let mut killed = false;
    let mut ready = ready.iter().copied();
    supervisors.retain(|(id, _)| {
        // A supervisor that was added in this round has no entry in `ready`.
        if !ready.next().unwrap_or(false) {
            return true;
        }
        match waitpid(Pid::from_raw(*id), WaitOptions::NOHANG) {
            Ok(None) => true,
            Ok(Some((_, status))) => {
                killed |= status.exit_status() != Some(0);
                false
            }
            Err(_) => false,
        }
    });
    killed
}

/// Kills supervisors that were stopped by a signal or by a program that traces them (SUP4).
fn kill_stopped(supervisors: &[(i32, OwnedFd)]) {
    for (id, handle) in supervisors {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{id}/stat")) else { continue };
        // The process's name, which stands before the state, may contain any text. So the state is read after the last
        // `) `.
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        if matches!(state, Some('T' | 't')) {
            let _ = pidfd_send_signal(handle, Signal::KILL);
        }
    }
}

/// Kills what a killed supervisor left behind, without waiting for it. Returns whether some of it may still be alive.
fn end_orphans(supervisors: &[(i32, OwnedFd)]) -> bool {
    let known: Vec<i32> = supervisors.iter().map(|(id, _)| *id).collect();
    tree::kill(&known);
    tree::reap(&known)
}

/// Runs one program until all its descendants have ended. The program runs in a namespace if there is a `way` to make
/// one. `prepared` is the result of [`Namespaces::prepare`].
fn supervise(
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
        limit = program.follow(&handle, &mut server, watch.as_mut(), launch.sandboxed);
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
        handle: &OwnedFd,
        server: &mut UnixStream,
        mut watch: Option<&mut Meter>,
        sandboxed: bool,
    ) -> Option<Limit> {
        let mut limit = None;
        let mut looked = Instant::now();
        while self.status.is_none() {
            let mut polled =
                [PollFd::new(handle, PollFlags::IN), PollFd::new(server, PollFlags::IN)];
            let _ = poll(&mut polled, Some(&TICK));
            if !polled[1].revents().is_empty() {
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
                    left += self.kill();
                    // Wait until a killed process has ended. Its children become children of this process, and the next
                    // round finds them.
                    let _ = self.reap(WaitOptions::empty());
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
                tree::visit(&[], &mut |depth, _, handle| {
                    if depth > own {
                        match handle.try_clone() {
                            Ok(handle) => asked.push(handle),
                            // No more descriptors can be opened: ask this process now, out of order.
                            Err(_) => drop(pidfd_send_signal(handle, Signal::TERM)),
                        }
                    }
                });
                // Parents are asked first: a shell whose child ends before the shell is asked would report a failure.
                for handle in asked.iter().rev() {
                    let _ = pidfd_send_signal(handle, Signal::TERM);
                }
            }
            _ => {}
        }
    }
}

/// Starts the program in a process group of its own.
fn start(
    thread: &SingleThread,
    launch: &Launch,
    [stdin, stdout, stderr]: [OwnedFd; 3],
    file: Option<&OwnedFd>,
    group: Option<&Group>,
) -> io::Result<(i32, OwnedFd)> {
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
    let pid = Pid::from_raw(id).ok_or(Errno::INVAL)?;
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => Ok((id, handle)),
        Err(error) => {
            Supervised { leader: id, status: None, scope: Scope::Tree, group: None }.end();
            Err(error.into())
        }
    }
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
