//! The fork server's loop: it forks supervisors, reaps them, and kills what killed ones leave behind.

use super::namespace::Namespaces;
use super::order::receive;
use super::supervisor::supervise;
use super::tree::{self, Pauses};
use crate::os::ffi::{self, Forked, SingleThread};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open,
    set_child_subreaper, set_dumpable_behavior, waitpid,
};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// The time between two searches for stopped supervisors.
const WATCH: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// A supervisor from its fork until it is reaped (SUP5). It keeps its id for that time.
struct Supervisor {
    id: i32,
    /// Readable once the supervisor has ended. `None`: the kernel gave no descriptor, and the end is noticed when the
    /// loop next wakes, at most a second later.
    ended: Option<OwnedFd>,
}

impl Supervisor {
    fn new(id: i32) -> Self {
        let ended = Pid::from_raw(id).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        Self { id, ended }
    }
}

/// Forks supervisors until the server is gone and all supervisors have ended.
pub(super) fn serve() -> io::Result<()> {
    let control = begin()?;
    let Some(thread) = SingleThread::check() else {
        return Err(io::Error::other("the fork server has more than one thread"));
    };
    let namespaces = Namespaces::find(&thread);
    // The first message brings the server's lock. It is held and not used otherwise.
    let _lock = receive(&control)?;
    // `None`: nothing more is forked. The server notices, because the socket is closed.
    let mut control = Some(control);
    let mut supervisors: Vec<Supervisor> = Vec::new();
    // `Some`: a supervisor was killed, and some of its descendants may be alive.
    let mut orphans: Option<Pauses> = None;
    let mut watched = Instant::now();
    while control.is_some() || orphans.is_some() || !supervisors.is_empty() {
        if wait(control.as_ref(), &supervisors, orphans.as_mut())? {
            match control.as_ref().map(receive) {
                // The message has refused its program.
                Some(Ok(Some((_, descriptors)))) if descriptors.is_empty() => {}
                Some(Ok(Some((contained, descriptors)))) => {
                    let wanted = namespaces.as_ref().filter(|_| contained);
                    let prepared = wanted.map_or(Ok(()), Namespaces::prepare);
                    match thread.fork() {
                        Ok(Forked::Child) => {
                            let way = wanted.map(Namespaces::way);
                            drop((control, supervisors, namespaces));
                            supervise(&thread, way, prepared, descriptors);
                            return Ok(());
                        }
                        Ok(Forked::Parent(id)) => supervisors.push(Supervisor::new(id)),
                        // The descriptors are dropped below, which tells the server.
                        Err(_) => {}
                    }
                    if wanted.is_some_and(|wanted| wanted.come_back().is_err()) {
                        // The next supervisor would be forked into a namespace that is not its own.
                        control = None;
                    }
                }
                _ => control = None,
            }
        }
        if reap(&mut supervisors) {
            orphans = Some(Pauses::new());
        }
        if watched.elapsed() >= Duration::from_secs(1) {
            watched = Instant::now();
            kill_stopped(&supervisors);
        }
        if orphans.is_some() {
            let known: Vec<i32> = supervisors.iter().map(|supervisor| supervisor.id).collect();
            orphans = orphans.filter(|_| tree::kill_and_reap(&known));
        }
    }
    Ok(())
}

/// Leaves the server's surroundings. Returns the socket to the server.
fn begin() -> io::Result<OwnedFd> {
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
    Ok(control)
}

/// Waits until there is a message, or a supervisor may have ended. Returns whether there is a message.
fn wait(
    control: Option<&OwnedFd>,
    supervisors: &[Supervisor],
    orphans: Option<&mut Pauses>,
) -> io::Result<bool> {
    let ends = supervisors.iter().filter_map(|supervisor| supervisor.ended.as_ref());
    let mut polled: Vec<PollFd<'_>> =
        control.into_iter().chain(ends).map(|it| PollFd::new(it, PollFlags::IN)).collect();
    let most = match orphans {
        Some(pauses) => {
            let pause = pauses.take();
            let tv_sec = pause.as_secs().cast_signed();
            Some(Timespec { tv_sec, tv_nsec: pause.subsec_nanos().into() })
        }
        None => (!supervisors.is_empty()).then_some(WATCH),
    };
    match poll(&mut polled, most.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(control.is_some() && !polled[0].revents().is_empty())
}

/// Reaps and forgets supervisors that have ended. Returns whether one of them was killed.
fn reap(supervisors: &mut Vec<Supervisor>) -> bool {
    let mut killed = false;
    supervisors.retain(|supervisor| {
        match waitpid(Pid::from_raw(supervisor.id), WaitOptions::NOHANG) {
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
fn kill_stopped(supervisors: &[Supervisor]) {
    for Supervisor { id, .. } in supervisors {
        if matches!(tree::state_of(*id), Some('T' | 't'))
            && let Some(pid) = Pid::from_raw(*id)
        {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}
