//! The socket of a connection, as hyper reads and writes it, with time limits.
//!
//! - SOCK1: the connection is cut if its client takes nothing of an answer for `client-time`, or takes less than
//!   [`RATE`] on average. The deadline is `client-time` after the kernel first takes no more bytes. Every [`RATE`]
//!   bytes that the client then takes move the deadline by a second, but at most to `client-time` from now.
//! - SOCK2: the socket notes two things that hyper does not report: that a first line is too long (status 414, not
//!   431), and that bytes came after the last request. These bytes are read before the socket is closed. Otherwise the
//!   kernel would reset the connection, and the client might lose the answer.

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

/// The least bytes per second that a client must take, on average.
const RATE: u64 = 1024;
/// The most bytes of the first line of a connection.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// How many unsent bytes the kernel holds for a client before it takes no more. Bytes that were sent and not
/// acknowledged are not counted.
const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// What the socket and the service report to the task of the connection. The task reads the flags after hyper has
/// finished, so the order of the stores does not matter.
#[derive(Debug, Default)]
pub(super) struct Flags {
    /// Bytes came that belong to no request.
    pub(super) unread: AtomicBool,
    /// The first line is too long.
    pub(super) endless_line: AtomicBool,
    /// The client took nothing for too long.
    pub(super) stalled: AtomicBool,
}

pub(super) struct Socket {
    stream: Arc<TcpStream>,
    permit: Arc<Permit>,
    flags: Arc<Flags>,
    client_time: Duration,
    /// Bytes of the first line so far; `None`: the line has ended.
    first_line: Option<usize>,
    /// The time at which the connection is cut unless the client takes more (SOCK1). `None`: no bytes wait for the
    /// client.
    deadline: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    /// Whether the kernel took no bytes at the last try.
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

    /// Moves the deadline, because the client took `bytes` bytes.
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

    /// hyper calls this when it has nothing left to write.
    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.deadline = None;
        self.set_stalled(false);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(end_of_answers(&self.stream))
    }
}

/// Ends the sending side, so the client reads the end of the stream.
pub(super) fn end_of_answers(stream: &TcpStream) -> io::Result<()> {
    Ok(rustix::net::shutdown(stream, rustix::net::Shutdown::Write)?)
}
