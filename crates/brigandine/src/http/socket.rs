//! The socket of a connection, as hyper reads and writes it: what it takes too long over ends it.
//!
//! - W1: a client that takes nothing of an answer for `client-time`, or less than [`RATE`] for long, is given
//!   up. It may be behind by `client-time` at most; every [`RATE`] bytes that it takes win it a second.
//! - W2: what hyper cannot tell apart is noted here: a first line that is too long (414, not 431), and whether
//!   bytes came that no request accounts for (they are read before the socket is closed; otherwise the kernel
//!   resets the connection, and the client may lose the answer).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::clients::Seat;

/// Bytes per second that a client takes at least, on average.
const RATE: u64 = 1024;
/// Bytes of the first line of a connection.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// Bytes that the kernel holds for a client before it takes no more; those on the wire come on top.
const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// What socket, service and connection tell each other. Each flag is set by one side and read by the
/// connection's task after hyper is done, so no order between them matters.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Bytes came after the last request.
    pub(super) unread: AtomicBool,
    /// The first line has no end.
    pub(super) endless_line: AtomicBool,
    /// The client took nothing for too long.
    pub(super) stalled: AtomicBool,
}

pub(super) struct Socket {
    stream: Arc<TcpStream>,
    seat: Arc<Seat>,
    notes: Arc<Notes>,
    client_time: Duration,
    /// Bytes of the first line so far, until it ends.
    first_line: Option<usize>,
    /// When the client is given up; while bytes wait for it (W1).
    deadline: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    /// Whether the kernel took nothing at the last try.
    stalled: bool,
}

impl Socket {
    pub(super) fn new(
        stream: Arc<TcpStream>,
        seat: Arc<Seat>,
        notes: Arc<Notes>,
        client_time: Duration,
    ) -> Self {
        let _ = stream.set_nodelay(true);
        let _ = crate::os::ffi::bound_unsent(&*stream, UNSENT_BYTES_MAX);
        let timer = Box::pin(tokio::time::sleep(client_time));
        let first_line = Some(0);
        Self { stream, seat, notes, client_time, first_line, deadline: None, timer, stalled: false }
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

    /// The client took some bytes.
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
            self.seat.stalled(stalled);
        }
    }

    fn poll_deadline<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + self.client_time);
        self.set_stalled(true);
        if self.timer.deadline() != deadline {
            self.timer.as_mut().reset(deadline);
        }
        ready!(self.timer.as_mut().poll(context));
        self.notes.stalled.store(true, Ordering::Relaxed);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn note(&mut self, read: &[u8]) -> io::Result<()> {
        if read.is_empty() {
            return Ok(());
        }
        self.notes.unread.store(true, Ordering::Relaxed);
        if let Some(length) = self.first_line {
            let ends = read.contains(&b'\n');
            self.first_line = (!ends).then_some(length + read.len());
            if !ends && length + read.len() > LINE_BYTES_MAX {
                self.notes.endless_line.store(true, Ordering::Relaxed);
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

/// Tells the client that nothing more comes.
pub(super) fn end_of_answers(stream: &TcpStream) -> io::Result<()> {
    Ok(rustix::net::shutdown(stream, rustix::net::Shutdown::Write)?)
}
