//! The limits of a running build (its time and its silence), and its last output.

use crate::build::dispatch::{BuildJob, Outcome};
use crate::log::LogWriter;
use crate::model::BuildStatus;
use crate::os::process::{LEFTOVER, Running};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::Instant;

/// The most bytes of a build's last output that are kept.
pub(super) const LAST_BYTES: usize = 4096;

/// Appends to a build's last output.
pub(super) fn keep_last(last: &mut Vec<u8>, bytes: &[u8]) {
    last.extend_from_slice(&bytes[bytes.len().saturating_sub(LAST_BYTES)..]);
    last.drain(..last.len().saturating_sub(LAST_BYTES));
}

/// Copies what is left in the pipe of a build that has ended. Gives up after [`LEFTOVER`]: a process that is no
/// descendant of the build may hold the pipe open.
pub(super) async fn drain(
    mut out: pipe::Receiver,
    log: &mut LogWriter,
    chunk: &mut [u8],
    last: &mut Vec<u8>,
) {
    let copied = tokio::time::timeout(LEFTOVER, async {
        while let Ok(count @ 1..) = out.read(chunk).await {
            keep_last(last, &chunk[..count]);
            if log.write(&chunk[..count]).await.is_err() {
                return;
            }
        }
    });
    let _ = copied.await;
}

/// The time limits of a running build, and whether it was told to end.
pub(super) struct Watch {
    /// The outcome of a build that was told to end; `None`: the build was not told to end.
    pub(super) end: Option<Outcome>,
    /// When the build is killed if it has not ended; `None`: it was not told to end.
    pub(super) kill_at: Option<Instant>,
    pub(super) killed: bool,
    pub(super) grace: Duration,
    pub(super) deadline: Instant,
    pub(super) silent_at: Instant,
    /// Why the build log could not be written; `None`: the build was not told to end for this reason.
    pub(super) without_log: Option<String>,
}

impl Watch {
    /// When to call [`Watch::tick`] next.
    pub(super) fn next(&self) -> Instant {
        self.kill_at.unwrap_or_else(|| self.deadline.min(self.silent_at))
    }

    /// Asks the build's processes to end, unless this was done before. The first reason is kept.
    pub(super) fn stop(&mut self, running: &Running, status: BuildStatus, message: String) {
        if self.end.is_none() {
            running.ask();
            self.kill_at = Some(Instant::now() + self.grace);
            self.end = Some(Outcome::ended(status, message));
        }
    }

    /// Asks the build to end if it has reached a limit, or kills it if its grace is over.
    pub(super) fn tick(&mut self, running: &Running, job: &BuildJob) {
        let now = Instant::now();
        match self.kill_at {
            Some(kill_at) if now >= kill_at => {
                running.kill();
                self.killed = true;
            }
            Some(_) => {}
            None if now >= self.deadline => {
                let message = format!("took longer than {} s", job.timeout.as_secs());
                self.stop(running, BuildStatus::FailedOther, message);
            }
            None if now >= self.silent_at => {
                let message = format!("printed nothing for {} s", job.max_silent.as_secs());
                self.stop(running, BuildStatus::FailedOther, message);
            }
            None => {}
        }
    }
}
