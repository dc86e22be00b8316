//! Runs programs to their end and captures what they print.

use super::launch::End;
use super::running::{LEFTOVER, output_pipe};
use super::spawn::{Program, Streams, Supervisors};
use rustix::process::Signal;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// The result of a process that ran to its end.
#[derive(Debug)]
pub(crate) struct Captured {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// All it wrote to standard output.
    pub(crate) stdout: Vec<u8>,
    /// The end of what it wrote to standard error.
    pub(crate) stderr: String,
}

/// Why a process gave no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaptureError {
    /// It could not be started, or its pipes failed.
    #[error("cannot run: {0}")]
    Io(#[from] io::Error),
    /// It took too long and was killed.
    #[error("did not end within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    /// It wrote more bytes than allowed and was killed.
    #[error("wrote more than {0} bytes")]
    Output(usize),
}

/// The most bytes of standard error that are kept.
const STDERR_KEPT: usize = 16 * 1024;

/// Runs a process without standard input to its end, and keeps what it writes.
///
/// # Cancel safety
/// If the future is dropped, the process is killed with its descendants.
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
            // One byte beyond the limit shows that there is more.
            let most = (stdout_max as u64).saturating_add(1);
            (&mut out).take(most).read_to_end(&mut stdout).await?;
            if stdout.len() > stdout_max { Err(CaptureError::Output(stdout_max)) } else { Ok(()) }
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
                // No descendant is alive (PROC2), so the pipes hold the rest of the output, unless a process elsewhere
                // has their writing end.
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

/// Whether TERM or KILL has ended a process, or a process below it whose end a shell or bubblewrap passes on as its exit
/// status. Whoever ends the server may send these signals to the server's children as well.
pub(crate) fn was_killed(status: ExitStatus) -> bool {
    let passed_on = status.code().map(|code| code - 128);
    let signals = [Signal::TERM, Signal::KILL].map(|signal| Some(signal.as_raw()));
    signals.contains(&status.signal().or(passed_on))
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
