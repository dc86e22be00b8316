//! The socket of a connection, as hyper reads and writes it, with time limits.
//!
//! - SOCK1: the connection ends when its client takes nothing of an answer for `client-time`, or less than [`RATE`] for
//!   long. A client may be behind by `client-time`; every [`RATE`] bytes that it takes give it another second.
//! - SOCK2: the socket notes what hyper does not tell: that a first line is too long (414, not 431), and that bytes came
//!   which belong to no request. These are read before the socket is closed; otherwise the kernel resets the connection,
//!   and the client may lose the answer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::clients::Permit;

/// The least bytes per second that a client takes, on average.
const RATE: u64 = 1024;
/// The most bytes of the first line of a connection.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// Bytes that the kernel holds for a client before it takes no more, those on the wire not counted.
const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// What socket and service tell the connection. Its task reads the flags after hyper is done, so their order does not
/// matter.
#[derive(Debug, Default)]
pub(super) struct Flags {
    /// Bytes came after the last request.
    pub(super) unread: AtomicBool,
    /// The first line has no end.
    pub(super) endless_line: AtomicBool,
    /// The client took nothing for too long.
    pub(super) stalled: AtomicBool,
}

pub(super) struct Socket {
    stream: Arc<TcpStream>,
    permit: Arc<Permit>,
    flags: Arc<Flags>,
    client_time: Duration,
    /// Bytes of the first line so far; `None` when it has ended.
    first_line: Option<usize>,
    /// When the connection ends, while bytes wait for the client (SOCK1).
    deadline: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    /// Whether the kernel took nothing at the last try.
    stalled: bool,
}

impl Socket {
    pub(super) fn new(
        stream: Arc<TcpStream>,
        permit: Arc<Permit>,
        flags: Arc<Flags>,
        client_time: Duration,
    ) -> Self {
        let _ = stream.set_nodelay(true);
        let _ = crate::os::ffi::bound_unsent(&*stream, UNSENT_BYTES_MAX);
        let timer = Box::pin(tokio::time::sleep(client_time));
        let first_line = Some(0);
        Self {
            stream,
            permit,
            flags,
            client_time,
            first_line,
            deadline: None,
            timer,
            stalled: false,
        }
    }

    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        send: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.stream.poll_write_ready(context) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return self.poll_deadline(context),
            }
            match send(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => {
                    if let Ok(bytes) = sent {
                        self.took(bytes as u64);
                    }
                    return Poll::Ready(sent);
                }
            }
        }
    }

    /// Moves the deadline: the client took some bytes.
    fn took(&mut self, bytes: u64) {
        if let Some(deadline) = &mut self.deadline {
            let won = Duration::from_secs(bytes) / u32::try_from(RATE).unwrap_or(u32::MAX);
            *deadline = (*deadline + won).min(Instant::now() + self.client_time);
        }
        self.set_stalled(false);
    }

    fn set_stalled(&mut self, stalled: bool) {
        if self.stalled != stalled {
            self.stalled = stalled;
            self.permit.stalled(stalled);
        }
    }

    fn poll_deadline<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + self.client_time);
        self.set_stalled(true);
        if self.timer.deadline() != deadline {
            self.timer.as_mut().reset(deadline);
        }
        ready!(self.timer.as_mut().poll(context));
        self.flags.stalled.store(true, Ordering::Relaxed);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn note(&mut self, read: &[u8]) -> io::Result<()> {
        if read.is_empty() {
            return Ok(());
        }
        self.flags.unread.store(true, Ordering::Relaxed);
        if let Some(length) = self.first_line {
            let ends = read.contains(&b'\n');
            self.first_line = (!ends).then_some(length + read.len());
            if !ends && length + read.len() > LINE_BYTES_MAX {
                self.flags.endless_line.store(true, Ordering::Relaxed);
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(())
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            match self.stream.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(_) => return Poll::Ready(self.note(&buffer.filled()[before..])),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(context, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(context, |stream| stream.try_write_vectored(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Called when hyper has nothing left to write.
    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.deadline = None;
        self.set_stalled(false);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(end_of_answers(&self.stream))
    }
}

/// Ends the answers: the client reads the end of the stream.
pub(super) fn end_of_answers(stream: &TcpStream) -> io::Result<()> {
    Ok(rustix::net::shutdown(stream, rustix::net::Shutdown::Write)?)
}
