//! The environment of child processes: which of the server's variables they get, and the mark by which they are found.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;

/// The variable that every child process carries, with the id of the state directory.
pub(crate) const STATE_VARIABLE: &str = "BRIGANDINE_STATE_ID";

/// Those of the server's own variables that `wanted` accepts, for a program that needs them.
pub(crate) fn passed_on(
    wanted: impl Fn(&str) -> bool,
) -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(move |(name, _)| name.to_str().is_some_and(&wanted))
}

/// The processes with a mark: those that were killed, and those that may be alive.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Marked {
    pub(crate) killed: usize,
    /// The ids of the processes that could not be killed, or have not ended yet.
    pub(crate) left: Vec<i32>,
}

/// Kills every process of this user that has `mark`, a `NAME=VALUE` pair, in its environment. It also finds processes
/// that left their process group.
///
/// Reads `/proc` in rounds, so that a later round finds a process that was started during an earlier one. The last
/// round is the first that finds no process, or the hundredth. Blocks.
///
/// # Errors
/// `/proc` cannot be read.
pub(crate) fn kill_marked(mark: &str) -> io::Result<Marked> {
    let mut killed = BTreeSet::new();
    let mut left = Vec::new();
    for _ in 0..100 {
        let ids =
            fs::read_dir("/proc")?.flatten().filter_map(|it| it.file_name().to_str()?.parse().ok());
        left = ids.filter(|id| has_mark(*id, mark).is_some()).collect();
        if left.is_empty() {
            break;
        }
        killed.extend(left.iter().copied().filter(|id| kill_if_marked(*id, mark).is_some()));
        // A killed process keeps its environment until it is gone, so let it run.
        std::thread::yield_now();
    }
    killed.retain(|id| !left.contains(id));
    Ok(Marked { killed: killed.len(), left })
}

/// The environment of another process with the mark. `None`: the process has no mark, or is this process.
fn has_mark(id: i32, mark: &str) -> Option<Vec<u8>> {
    let environment = fs::read(format!("/proc/{id}/environ")).ok()?;
    let marked = environment.split(|byte| *byte == 0).any(|pair| pair == mark.as_bytes());
    (marked && id != std::process::id().cast_signed()).then_some(environment)
}

/// Kills the process `id` if it has the mark. `None`: the process has no mark, or could not be killed.
fn kill_if_marked(id: i32, mark: &str) -> Option<()> {
    let environment = has_mark(id, mark)?;
    // The process is opened, then its environment is read again. So the signal goes to the process that was read, even
    // if the kernel reuses the id. Without a descriptor there is no such certainty, and no signal.
    let handle = pidfd_open(Pid::from_raw(id)?, PidfdFlags::empty()).ok()?;
    (has_mark(id, mark)? == environment).then_some(())?;
    pidfd_send_signal(&handle, Signal::KILL).ok()
}
