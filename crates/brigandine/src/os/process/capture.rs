//! Programs that are run to their end for what they print.

use super::launch::End;
use super::{LEFTOVER, Program, Streams, Supervisors, output_pipe};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// What a process that ran to its end left behind.
#[derive(Debug)]
pub(crate) struct Captured {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// All it wrote to standard output.
    pub(crate) stdout: Vec<u8>,
    /// The last part of what it wrote to standard error.
    pub(crate) stderr: String,
}

/// Why a process gave no result.
#[derive(Debug)]
pub(crate) enum CaptureError {
    /// It could not be started, or its pipes failed.
    Io(io::Error),
    /// It took too long and was ended.
    Timeout(Duration),
    /// It wrote more than allowed and was ended.
    Output(usize),
}

impl std::fmt::Display for CaptureError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot run: {error}"),
            Self::Timeout(limit) => write!(f, "did not end within {} s", limit.as_secs_f32()),
            Self::Output(limit) => write!(f, "wrote more than {limit} bytes"),
        }
    }
}

impl std::error::Error for CaptureError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Timeout(_) | Self::Output(_) => None,
        }
    }
}

impl From<io::Error> for CaptureError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

const STDERR_KEPT: usize = 16 * 1024;

/// Runs a short process without standard input and keeps what it writes.
///
/// # Cancel safety
/// Dropped: it is killed with all that came of it.
pub(crate) async fn capture(
    supervisors: &Supervisors,
    program: Program,
    timeout: Duration,
    stdout_max: usize,
) -> Result<Captured, CaptureError> {
    let (mut out, stdout) = output_pipe()?;
    let (mut err, stderr) = output_pipe()?;
    let streams = Streams { stdin: None, stdout: stdout.into(), stderr: stderr.into() };
    let mut running = supervisors.spawn(program, streams).await?;
    let mut stdout = Vec::new();
    let mut stderr: Vec<u8> = Vec::new();
    let pump = async {
        let read_out = async {
            let mut chunk = vec![0; 64 * 1024];
            loop {
                let count = out.read(&mut chunk).await?;
                if count == 0 {
                    return Ok(());
                }
                if stdout.len() + count > stdout_max {
                    return Err(CaptureError::Output(stdout_max));
                }
                stdout.extend_from_slice(&chunk[..count]);
            }
        };
        let read_err = async {
            let mut chunk = vec![0; 4 * 1024];
            loop {
                let count = err.read(&mut chunk).await?;
                if count == 0 {
                    return Ok::<_, CaptureError>(());
                }
                stderr.extend_from_slice(&chunk[..count]);
                if stderr.len() > 2 * STDERR_KEPT {
                    stderr.drain(..stderr.len() - STDERR_KEPT);
                }
            }
        };
        let mut pipes = std::pin::pin!(async { tokio::try_join!(read_out, read_err).map(drop) });
        tokio::select! {
            biased;
            closed = &mut pipes => {
                closed?;
                Ok(running.ended().await?)
            }
            end = running.ended() => {
                // All that came of it is gone (P2): what is in the pipes is the rest, unless they were
                // given to a stranger.
                if let Ok(read) = tokio::time::timeout(LEFTOVER, pipes).await {
                    read?;
                }
                Ok::<End, CaptureError>(end?)
            }
        }
    };
    let ended = match tokio::time::timeout(timeout, pump).await {
        Ok(ended) => ended,
        Err(_) => Err(CaptureError::Timeout(timeout)),
    };
    let end = match ended {
        Ok(end) => end,
        Err(error) => {
            running.end().await;
            return Err(error);
        }
    };
    let kept = stderr.len().saturating_sub(STDERR_KEPT);
    let stderr = String::from_utf8_lossy(&stderr[kept..]).into_owned();
    Ok(Captured { status: end.status(), stdout, stderr })
}

/// How a process ended, for people: `exit status 2`, `killed by signal 9`.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}{}", signal_name(signal)),
        (None, None) => "ended without a status".to_owned(),
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        4 => " (illegal instruction)",
        6 => " (abort)",
        7 => " (bus error)",
        8 => " (arithmetic)",
        9 => " (kill)",
        11 => " (segmentation fault)",
        15 => " (termination)",
        _ => "",
    }
}
