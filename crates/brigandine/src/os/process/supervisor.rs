//! The other side of [`super::Running`]: the processes between the server and what it starts.
//!
//! ```text
//! server ── fork server ─┬─ supervisor ── program ── …
//!                        └─ supervisor ── program ── …
//! ```
//!
//! The *fork server* is this program once more, started before anything else, with no variable and no
//! descriptor of the server's but a socket. It forks a *supervisor* per program. A supervisor adopts
//! whatever its program leaves behind (PR_SET_CHILD_SUBREAPER), so that no double fork, new session or
//! changed environment takes a process away from it; it says that the program has ended when it has no
//! child left. The fork server adopts in turn what a killed supervisor leaves, and the server what a killed
//! fork server leaves.
//!
//! The supervisor of a contained program is the first process of a namespace (`namespace.rs`). With root's rights the
//! fork server forks it into one; in a user namespace it has a process above it, which made the namespace and
//! waits for it.
//!
//! | a supervisor is told | it does |
//! |---|---|
//! | to end | asks every process (TERM); those of the sandbox itself are passed over |
//! | to kill | kills every process |
//! | nothing more: the server is gone, or wants it no longer | kills every process |
//!
//! S1: the report of the end is sent when the kernel says that there is no child.
//! S2: a supervisor writes to nothing but its socket, and holds no file of the server's but a lock, by which
//! the next server waits for it.
//! S3: its memory and variables cannot be read by what it supervises (PR_SET_DUMPABLE), unless that is root
//! without a sandbox, which may trace it.
//! S4: one that does not run, because it was stopped or is traced, is killed within a second or two, and with it its
//! program: no limit and no cancel would reach the program otherwise.

use super::cgroup::Group;
use super::launch::{ASK, End, KILL, Launch, Report};
use super::limits::{Limit, Watch};
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
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Between two looks for children that have ended without the program's own end.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// Between two looks at what the program takes.
const LOOK: Duration = Duration::from_millis(200);
/// The priority of a supervisor: nothing that it supervises has a higher one.
const PRIORITY: i32 = -20;
/// What bubblewrap copies for its program instead of mounting it: it reads the list of all mounts for each mount that
/// it makes.
const COPIED: &[&str] =
    &["/etc/group", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/nsswitch.conf", "/etc/passwd"];
/// Processes of bubblewrap itself: the one that is started, and the first one of its namespace.
const BUBBLEWRAP: usize = 2;
/// Until orphans are looked at again.
const SOON: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// Between two looks for supervisors that do not run.
const WATCH: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Forks supervisors until the server is gone and they are done.
pub(super) fn serve() -> io::Result<()> {
    let control = io::stdin().as_fd().try_clone_to_owned()?;
    // Only this one, so that the server learns when it ends.
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    ffi::close_on_exec()?;
    ffi::heed_signals()?;
    ffi::outlive_requests_to_end()?;
    // Ctrl-C at the server's terminal, and the terminal itself, are not for builds.
    rustix::process::setsid()?;
    std::env::set_current_dir("/")?;
    // Whatever the server was started with: what is made is kept from others by the directory it is made in.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    set_child_subreaper(Pid::from_raw(1))?;
    let Some(thread) = SingleThread::check() else {
        return Err(io::Error::other("the fork server has more than one thread"));
    };
    let namespaces = Namespaces::find(&thread);
    // Held, never used: the first message brings the server's lock.
    let _lock = receive(&control)?;
    let mut supervisors: Vec<(i32, OwnedFd)> = Vec::new();
    let mut open = true;
    // A supervisor was killed, and not all that it had is known to be gone.
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
                        // Dropping the descriptors tells the server when there is no process for them.
                        Ok(Forked::Parent(id)) => {
                            if let Some(pid) = Pid::from_raw(id)
                                && let Ok(handle) = pidfd_open(pid, PidfdFlags::empty())
                            {
                                supervisors.push((id, handle));
                                // No entry of `ready` for it: it is looked at in the next round.
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

/// Forgets supervisors that have ended. Whether one of them was killed.
fn reap(supervisors: &mut Vec<(i32, OwnedFd)>, ready: &[bool]) -> bool {
    let mut killed = false;
    let mut ready = ready.iter().copied();
    supervisors.retain(|(id, _)| {
        // One that was added in this round is not among them.
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

/// Kills supervisors that were stopped (S4): by a signal, or by a program that traces them.
fn kill_stopped(supervisors: &[(i32, OwnedFd)]) {
    for (id, handle) in supervisors {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{id}/stat")) else { continue };
        // The name before it may hold anything.
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        if matches!(state, Some('T' | 't')) {
            let _ = pidfd_send_signal(handle, Signal::KILL);
        }
    }
}

/// Kills what a killed supervisor left behind. Whether some of it may still be there: others must not wait
/// for it.
fn end_orphans(supervisors: &[(i32, OwnedFd)]) -> bool {
    let known: Vec<i32> = supervisors.iter().map(|(id, _)| *id).collect();
    tree::kill(&known);
    tree::reap(&known)
}

/// Runs one program to the end of all that comes of it, in a namespace if there is a way to one; `prepared`
/// says what came of [`Namespaces::prepare`].
fn supervise(
    thread: &SingleThread,
    way: Option<Way>,
    prepared: io::Result<()>,
    descriptors: Vec<OwnedFd>,
) {
    let Some(order) = Order::read(descriptors) else { return };
    if order.launch.user.is_some() && way != Some(Way::Root) {
        // U3
        return order.refuse(&Errno::PERM.into());
    }
    match (prepared, way) {
        (Err(error), _) => order.refuse(&error),
        (Ok(()), None) => run(thread, order, Scope::Tree),
        (Ok(()), Some(Way::Root)) => run_first(thread, order),
        (Ok(()), Some(Way::User)) => run_as_user(thread, order),
    }
}

/// As the first process of a namespace.
fn run_first(thread: &SingleThread, order: Order) {
    match namespace::begin().and_then(|()| order.launch.show()) {
        Ok(()) => run(thread, order, Scope::Namespace),
        Err(error) => order.refuse(&error),
    }
}

/// In a namespace that this process makes for the purpose.
fn run_as_user(thread: &SingleThread, order: Order) {
    match namespace::prepare_as_user().and_then(|()| thread.fork()) {
        Ok(Forked::Child) => run_first(thread, order),
        Ok(Forked::Parent(id)) => {
            // The other one has the socket and the program's streams alone: its end closes them.
            drop(order);
            let _ = waitpid(Pid::from_raw(id), WaitOptions::empty());
        }
        Err(error) => order.refuse(&error),
    }
}

fn run(thread: &SingleThread, order: Order, scope: Scope) {
    let Order { mut server, launch, streams, file } = order;
    let started = set_child_subreaper(Pid::from_raw(1)).map_err(io::Error::from).and_then(|()| {
        let user = launch.user;
        let watch = launch.bounds.clone();
        let own = if launch.sandboxed { BUBBLEWRAP as u64 } else { 0 };
        let watch = watch.map(|bounds| Watch::begin(bounds, scope, user, own)).transpose()?;
        // In a namespace, a group that bounds nothing adds nothing.
        let wanted = launch.group.as_ref().filter(|it| it.bounds() || scope == Scope::Tree);
        let limits = launch.bounds.as_ref().map(|bounds| &bounds.limits);
        let group = wanted.map(|wanted| wanted.make(limits, own)).transpose()?;
        Ok((start(thread, &launch, streams, file.as_ref(), group.as_ref())?, watch, group))
    });
    let ((leader, handle), mut watch, group) = match started {
        Ok(started) => started,
        Err(error) => {
            let number = error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error());
            let _ = server.write_all(&Report::Refused(number).to_bytes());
            return;
        }
    };
    let all = All { scope, group };
    // What it started may keep every processor busy. Only root may; elsewhere the kernel's bounds hold.
    let _ = setpriority_process(None, PRIORITY);
    let mut open = server.write_all(&Report::Started.to_bytes()).is_ok();
    let mut status = None;
    let mut limit = None;
    let mut looked = Instant::now();
    while status.is_none() {
        if !open {
            break;
        }
        let mut polled = [PollFd::new(&handle, PollFlags::IN), PollFd::new(&server, PollFlags::IN)];
        let _ = poll(&mut polled, Some(&TICK));
        let told = !polled[1].revents().is_empty();
        if told {
            let mut wish = [0];
            match server.read(&mut wish) {
                Ok(1) => follow(wish[0], launch.sandboxed, &all),
                _ => open = false,
            }
        }
        // Children that the program left are reaped while it runs: they would add up.
        while let Ok(Some((pid, ended))) = wait(WaitOptions::NOHANG) {
            if pid.as_raw_nonzero().get() == leader {
                status = Some(ended);
            }
        }
        if let Some(watch) = &mut watch
            && status.is_none()
            && looked.elapsed() >= LOOK
        {
            limit = limit.or_else(|| watch.look());
            looked = Instant::now();
            if limit.is_some() {
                all.kill();
            }
        }
    }
    let failed = status.is_some_and(|status| status.exit_status() != Some(0));
    if let Some(watch) = watch.as_ref().filter(|_| failed) {
        // What it left is there until `end`.
        limit = limit.or_else(|| watch.look_at_processes());
    }
    let mut left = end(leader, &mut status, &all);
    if launch.sandboxed {
        // bubblewrap ends a moment before the first process of its namespace, with which all others end.
        left = 0;
    }
    if let Some(group) = all.group.as_ref().filter(|_| failed) {
        limit = limit.or_else(|| group.met());
    }
    if let Some(status) = status {
        if limit.is_none() && watch.is_some_and(|watch| is_file_limit(status, &watch)) {
            limit = Some(Limit::File);
        }
        // What is told of next may begin: this must be gone (G3).
        drop(all);
        let end = End { status: status.as_raw(), left, limit };
        let _ = server.write_all(&Report::Ended(end).to_bytes());
    }
}

/// Whether a program that ended so had met the limit of a file. The signal for it ends what is not prepared,
/// and a shell passes it on as a status.
fn is_file_limit(status: WaitStatus, watch: &Watch) -> bool {
    let signal = Signal::XFSZ.as_raw();
    status.terminating_signal() == Some(signal)
        || status.exit_status() == Some(128 + signal)
        || (status.exit_status() != Some(0) && watch.met_file_limit())
}

/// All that came of a program, and the ways to reach it.
struct All {
    scope: Scope,
    group: Option<Group>,
}

impl All {
    /// Kills it. How many processes there were.
    fn kill(&self) -> u32 {
        let Some(group) = &self.group else { return self.scope.kill() };
        let count = u32::try_from(self.scope.ids().len()).unwrap_or(u32::MAX);
        // In one step, and then what has left the group, as root may.
        group.kill();
        self.scope.kill().max(count)
    }
}

/// S1. How many processes there were beside the program itself.
fn end(leader: i32, status: &mut Option<WaitStatus>, all: &All) -> u32 {
    let mut left = 0;
    loop {
        match wait(WaitOptions::NOHANG) {
            Err(Errno::CHILD) => return left,
            Ok(Some((pid, ended))) => {
                if pid.as_raw_nonzero().get() == leader {
                    *status = Some(ended);
                }
            }
            _ => {
                left += all.kill();
                // Whatever was killed ends; what was below it is a child then, and found in the next round.
                if let Ok(Some((pid, ended))) = wait(WaitOptions::empty())
                    && pid.as_raw_nonzero().get() == leader
                {
                    *status = Some(ended);
                }
            }
        }
    }
}

fn follow(wish: u8, sandboxed: bool, all: &All) {
    match wish {
        KILL => {
            all.kill();
        }
        ASK => {
            // bubblewrap and the first process of its namespace end at once when they are asked, and
            // with them what they contain.
            let own = if sandboxed { BUBBLEWRAP } else { 0 };
            let mut asked = Vec::new();
            tree::visit(&[], &mut |depth, _, handle| {
                if depth > own {
                    match handle.try_clone() {
                        Ok(handle) => asked.push(handle),
                        // Too many to hold: out of order, then.
                        Err(_) => drop(pidfd_send_signal(handle, Signal::TERM)),
                    }
                }
            });
            // Parents first: a shell that sees its child end before it is asked itself takes that for a failure.
            for handle in asked.iter().rev() {
                let _ = pidfd_send_signal(handle, Signal::TERM);
            }
        }
        _ => {}
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
        // It and those above are the only descriptors beside the standard ones, and read, and closed, before the
        // program in the sandbox starts.
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
        // Reaped by `wait` with all others.
        None => command.spawn()?.id().cast_signed(),
    };
    drop(copied);
    let pid = Pid::from_raw(id).ok_or(Errno::INVAL)?;
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => Ok((id, handle)),
        Err(error) => {
            end(id, &mut None, &All { scope: Scope::Tree, group: None });
            Err(error.into())
        }
    }
}

/// Starts a command in a control group (G2): the kernel forks into it, or, where it cannot, the new process
/// enters before it becomes the program.
fn start_in(thread: &SingleThread, mut command: Command, group: &Group) -> io::Result<i32> {
    // Closed by the start of the program; else it brings the number of the error.
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
