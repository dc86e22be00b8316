//! A program that runs, as the server sees it, and the pipes to it.

use super::cgroup::PlannedGroup;
use super::launch::{ASK, End, KILL, Report};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

/// How long the server goes on reading from the pipes of a program that has ended, if another process holds them open.
pub(crate) const LEFTOVER: Duration = Duration::from_millis(500);
/// How long to wait for the end of killed processes; only the kernel can delay it.
const KILLED: Duration = Duration::from_secs(10);

/// A program that runs, with its descendants.
#[derive(Debug)]
pub(crate) struct Running {
    supervisor: BufReader<UnixStream>,
    /// The bytes of the next report that have been received.
    line: Vec<u8>,
    /// The program's control group, which the server removes if the supervisor is killed.
    group: Option<PlannedGroup>,
}

impl Running {
    /// Sends the launch to a supervisor and waits until the program runs.
    pub(super) async fn begin(
        mut stream: UnixStream,
        launch: &[u8],
        group: Option<PlannedGroup>,
    ) -> io::Result<Self> {
        let sent = stream.write_all(launch).await;
        if sent.is_err() {
            // The supervisor refuses without reading the launch if it cannot run it. So this error does not end the
            // conversation: the supervisor's report is read below.
            let _ = stream.shutdown().await;
        }
        let mut running = Self { supervisor: BufReader::new(stream), line: Vec::new(), group };
        match running.report().await {
            Ok(Report::Started) => Ok(running),
            Ok(Report::Refused(number)) => Err(io::Error::from_raw_os_error(number)),
            Ok(Report::Ended(_)) | Err(_) => Err(lost()),
        }
    }

    /// Waits for the supervisor's next report. After the future was dropped, the method can be called again.
    async fn report(&mut self) -> io::Result<Report> {
        self.supervisor.read_until(b'\n', &mut self.line).await?;
        let report = serde_json::from_slice(&self.line)?;
        self.line.clear();
        Ok(report)
    }

    /// Waits until the program has ended and no descendant of it is alive (PROC2). Must not be called again after
    /// it has returned.
    ///
    /// # Errors
    /// The supervisor was killed. The program's descendants are being killed.
    ///
    /// # Cancel safety
    /// After the future was dropped, the method can be called again.
    pub(crate) async fn ended(&mut self) -> io::Result<End> {
        match self.report().await {
            Ok(Report::Ended(end)) => Ok(end),
            Ok(Report::Started | Report::Refused(_)) => Err(lost()),
            Err(_) => {
                if let Some(group) = self.group.take() {
                    let _ = tokio::task::spawn_blocking(move || group.end()).await;
                }
                Err(lost())
            }
        }
    }

    /// Asks every process to end (TERM).
    pub(crate) fn ask(&self) {
        self.tell(ASK);
    }

    /// Kills every process.
    pub(crate) fn kill(&self) {
        self.tell(KILL);
    }

    fn tell(&self, wish: u8) {
        // The socket always has room for a byte. This fails only if the supervisor has ended.
        let _ = self.supervisor.get_ref().try_write(&[wish]);
    }

    /// Kills every process and waits until they are gone.
    pub(crate) async fn end(mut self) {
        self.kill();
        let _ = tokio::time::timeout(KILLED, self.ended()).await;
    }
}

fn lost() -> io::Error {
    io::Error::other("its supervisor was killed")
}

impl End {
    /// How the program itself ended.
    pub(crate) fn status(self) -> ExitStatus {
        ExitStatus::from_raw(self.status)
    }
}

/// A pipe whose reading end is asynchronous; the writing end is for a child process.
pub(crate) fn output_pipe() -> io::Result<(pipe::Receiver, io::PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    Ok((pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?, writer))
}

/// A pipe whose writing end is asynchronous; the reading end is for a child process.
pub(crate) fn input_pipe() -> io::Result<(io::PipeReader, pipe::Sender)> {
    let (reader, writer) = io::pipe()?;
    Ok((reader, pipe::Sender::from_owned_fd(OwnedFd::from(writer))?))
}
