//! The server's side of the fork server: how the server starts it and sends it messages.

use super::{order, supervisor};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair,
};
use rustix::process::{Pid, set_child_subreaper};
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
    let _ = supervisor::serve();
}

/// The ids of this process's fork servers: usually one; tests have several. Guard: the mutex.
static FORK_SERVERS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

pub(super) fn fork_servers() -> MutexGuard<'static, BTreeSet<i32>> {
    FORK_SERVERS.lock().unwrap_or_else(PoisonError::into_inner)
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
        let child = command.spawn()?;
        drop(command);
        fork_servers().insert(child.id().cast_signed());
        let locks: Vec<_> = lock.iter().map(|lock| lock.as_fd()).collect();
        send(&control, false, &locks)?;
        rustix::io::ioctl_fionbio(&control, true)?;
        Ok(Self { control: register(control)?, child: Some(child) })
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
        let Some(mut child) = self.child.take() else { return };
        let forget = move || {
            let _ = child.wait();
            fork_servers().remove(&child.id().cast_signed());
        };
        // The fork server ends once its supervisors have ended and the socket is closed, which happens after this
        // function. So a thread waits for it.
        drop(std::thread::Builder::new().name("reaper".to_owned()).spawn(forget));
    }
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
