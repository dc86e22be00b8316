//! The server's side of the fork server: how the server starts it and sends it messages.

use super::tree::{self, Pauses};
use super::{order, serve};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair,
};
use rustix::process::{Pid, WaitId, WaitIdOptions, set_child_subreaper, waitid};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The first argument by which this program is told to supervise.
const SUPERVISE: &str = "supervise-processes";

/// Whether this process was started to supervise others. The program checks this before it does anything else.
pub(crate) fn is_supervisor() -> bool {
    std::env::args_os().nth(1).is_some_and(|word| word == SUPERVISE)
}

/// Supervises until the server is gone.
pub(crate) fn supervise() {
    // On an error this process ends and its socket is closed, which tells the server.
    let _ = serve::serve();
}

/// The fork servers of this process: usually one; tests have several.
struct ForkServers {
    ids: BTreeSet<i32>,
    /// Whether a thread kills orphans; there is at most one.
    ending: bool,
}

/// Guard: the mutex, which is held while a fork server is started, while one is reaped, and while orphans are killed.
/// So no fork server is taken for an orphan.
static FORK_SERVERS: Mutex<ForkServers> =
    Mutex::new(ForkServers { ids: BTreeSet::new(), ending: false });

fn fork_servers() -> MutexGuard<'static, ForkServers> {
    FORK_SERVERS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ForkServers {
    /// Kills and reaps every descendant of this process, except for the fork servers and their descendants. Returns
    /// whether another one may be alive.
    fn kill_orphans(&self) -> bool {
        let known: Vec<i32> = self.ids.iter().copied().collect();
        tree::kill_and_reap(&known)
    }
}

/// Kills what a killed fork server left behind. A thread kills what cannot be killed at once.
pub(super) fn end_orphans() {
    let mut servers = fork_servers();
    if !servers.kill_orphans() || servers.ending {
        return;
    }
    let repeat = || {
        let mut pauses = Pauses::new();
        loop {
            std::thread::sleep(pauses.take());
            let mut servers = fork_servers();
            if !servers.kill_orphans() {
                servers.ending = false;
                return;
            }
        }
    };
    match std::thread::Builder::new().name("orphans".to_owned()).spawn(repeat) {
        Ok(_) => servers.ending = true,
        Err(error) => tracing::error!(
            %error,
            "no thread can be started to kill what a killed fork server left, so processes of builds may be alive: end \
             the children of this process that are no `brigandine: supervisor`, or restart the server"
        ),
    }
}

/// The process that forks supervisors.
#[derive(Debug)]
pub(super) struct ForkServer {
    control: AsyncFd<OwnedFd>,
    /// `None` only while this is dropped.
    pub(super) child: Option<Child>,
}

impl ForkServer {
    pub(super) fn start(lock: Option<&File>) -> io::Result<Self> {
        // This process adopts the processes that a killed fork server leaves behind.
        set_child_subreaper(Pid::from_raw(1))?;
        let (control, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("brigandine: supervisor").arg(SUPERVISE).env_clear();
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
        let mut servers = fork_servers();
        let child = command.spawn()?;
        servers.ids.insert(child.id().cast_signed());
        drop((servers, command));
        let locks: Vec<_> = lock.iter().map(|lock| lock.as_fd()).collect();
        let connected = send(&control, false, &locks)
            .and_then(|()| rustix::io::ioctl_fionbio(&control, true).map_err(io::Error::from))
            .and_then(|()| register(control));
        match connected {
            Ok(control) => Ok(Self { control, child: Some(child) }),
            Err(error) => {
                forget(child);
                Err(error)
            }
        }
    }

    /// Asks the fork server for a supervisor, in a namespace of its own if the program is `contained`.
    pub(super) async fn send(
        &self,
        contained: bool,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let send = |control: &OwnedFd| send(control, contained, descriptors);
        self.control.async_io(Interest::WRITABLE, send).await
    }
}

impl Drop for ForkServer {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            forget(child);
        }
    }
}

/// Reaps and forgets a fork server once it has ended. A thread waits for that, because the fork server ends only after
/// its supervisors have ended and the socket is closed.
fn forget(mut child: Child) {
    let forget = move || {
        let id = child.id().cast_signed();
        if let Some(pid) = Pid::from_raw(id) {
            // The id stays the fork server's until it is reaped below, so that no new fork server gets it meanwhile.
            let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while matches!(waitid(WaitId::Pid(pid), look), Err(Errno::INTR)) {}
        }
        let mut servers = fork_servers();
        let _ = child.wait();
        servers.ids.remove(&id);
    };
    drop(std::thread::Builder::new().name("reaper".to_owned()).spawn(forget));
}

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

/// Registers a descriptor that this process owns with tokio.
#[expect(
    deprecated,
    reason = "tokio's safe constructor is deprecated for types whose descriptor can change; an \
              OwnedFd cannot, and the successor is unsafe"
)]
fn register(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, Interest::WRITABLE)
}
