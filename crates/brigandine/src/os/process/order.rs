//! The messages to the fork server: which program to start, and with which descriptors.

use super::launch::{Launch, Report};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// The most descriptors that come with one message: a socket, the three standard ones, and a file.
pub(super) const DESCRIPTORS: usize = 5;

/// Receives the next message: `true` if the program is contained, and the descriptors. `None`: the server is gone.
///
/// This process may be unable to take all descriptors of a message. Then the program is refused, and no descriptor is
/// returned.
pub(super) fn receive(control: &OwnedFd) -> io::Result<Option<(bool, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let received = loop {
        let parts = &mut [IoSliceMut::new(&mut byte)];
        match recvmsg(control, parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            done => break done?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut found = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            found.extend(descriptors);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        // Without a socket to refuse on, the server still learns of it: the kernel has closed the other end.
        if let Some(server) = found.drain(..).next() {
            let _ = Report::refused(&Errno::MFILE.into()).send(&mut UnixStream::from(server));
        }
    }
    Ok(Some((byte[0] == 1, found)))
}

/// A program to start.
pub(super) struct Order {
    pub(super) server: UnixStream,
    pub(super) launch: Launch,
    pub(super) streams: [OwnedFd; 3],
    pub(super) file: Option<OwnedFd>,
}

impl Order {
    /// Reads the launch from the socket that came with the message. `None`: it is incomplete, because the server has
    /// ended.
    pub(super) fn read(descriptors: Vec<OwnedFd>) -> Option<Self> {
        let mut descriptors = descriptors.into_iter();
        let mut server = UnixStream::from(descriptors.next()?);
        let streams = [descriptors.next()?, descriptors.next()?, descriptors.next()?];
        let launch = Launch::read(&mut server).ok()?;
        Some(Self { server, launch, streams, file: descriptors.next() })
    }

    pub(super) fn refuse(mut self, error: &io::Error) {
        let _ = Report::refused(error).send(&mut self.server);
    }
}
