//! The environment of child processes: which of the server's variables they get, and the mark by which they are found.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;

/// The variable that every child process carries, with the id of the state directory.
pub(crate) const STATE_VARIABLE: &str = "BRIGANDINE_STATE_ID";

/// Those of the server's own variables that `wanted` accepts, for a program that needs them.
pub(crate) fn passed_on(
    wanted: impl Fn(&str) -> bool,
) -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(move |(name, _)| name.to_str().is_some_and(&wanted))
}

/// Kills every process of this user that has `mark`, a `NAME=VALUE` pair, in its environment, and returns their number.
/// It also finds processes that left their process group.
///
/// Reads `/proc` in rounds, so that a later round finds a process that was started during an earlier one. The last
/// round is the first that finds no process, or the hundredth. Blocks.
pub(crate) fn kill_marked(mark: &str) -> usize {
    let mut killed = BTreeSet::new();
    for _ in 0..100 {
        let Ok(processes) = fs::read_dir("/proc") else { break };
        let ids = processes.flatten().filter_map(|it| it.file_name().to_str()?.parse().ok());
        let found: Vec<i32> = ids.filter(|id| kill_if_marked(*id, mark).is_some()).collect();
        if found.is_empty() {
            break;
        }
        killed.extend(found);
        // A killed process keeps its environment until it is gone, so let it run.
        std::thread::yield_now();
    }
    killed.len()
}

/// Kills the process `id` if it has the mark. `None`: it has no such mark, is this process, or could not be killed.
fn kill_if_marked(id: i32, mark: &str) -> Option<()> {
    let read = || fs::read(format!("/proc/{id}/environ")).ok();
    let environment = read()?;
    let marked = environment.split(|byte| *byte == 0).any(|pair| pair == mark.as_bytes());
    if !marked || id == std::process::id().cast_signed() {
        return None;
    }
    // The process is opened, then its environment is read again. So the signal goes to the process that was read, even
    // if the kernel reuses the id.
    let handle = pidfd_open(Pid::from_raw(id)?, PidfdFlags::empty()).ok()?;
    (read()? == environment).then_some(())?;
    pidfd_send_signal(&handle, Signal::KILL).ok()
}
