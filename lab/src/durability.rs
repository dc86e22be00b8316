//! How often a peer syncs: counted from outside, because what a peer says about itself proves nothing.
//!
//! `strace` counts the system calls of a measurement of its own, which is not timed. With one task and FULL a peer that
//! syncs less often than it answers has answered before the row was durable.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::Result;

/// What makes a file durable. Whether an `io_uring` syncs cannot be seen; no peer here uses one by default.
const SYNCS: &str = "trace=fsync,fdatasync,msync,sync_file_range,syncfs,sync";

/// What was counted with one number of tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Syncs {
    pub(crate) peer: String,
    pub(crate) tasks: usize,
    /// Writes that were answered with success, in the whole life of the process.
    pub(crate) answered: u64,
    /// Syncs that succeeded, those of opening and of checkpoints included.
    pub(crate) syncs: u64,
}

impl Syncs {
    pub(crate) fn per_write(&self) -> f64 {
        self.syncs as f64 / self.answered.max(1) as f64
    }
}

/// Whether syncs can be counted on this machine.
pub(crate) fn can_count() -> bool {
    let tried = Command::new("strace")
        .args(["-f", "--seccomp-bpf", "-qq", "-e", SYNCS, "-o", "/dev/null", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

/// The same program with its syncs written to a file.
pub(crate) fn traced(program: &Path, log: &Path) -> Command {
    let mut command = Command::new("strace");
    // With the filter in the kernel other system calls do not stop at all. `-D` makes the program our child and `strace`
    // its attendant, which ends with it: whoever ends the child ends the program.
    command.args(["-D", "-f", "--seccomp-bpf", "-qq", "-e", SYNCS, "-o"]).arg(log).arg(program);
    command
}

/// Reads such a file and removes it.
pub(crate) fn read(log: &PathBuf) -> Result<u64> {
    let text = std::fs::read_to_string(log)?;
    std::fs::remove_file(log)?;
    Ok(count(&text))
}

/// A call that others interrupt has two lines, of which the second has the result.
fn count(text: &str) -> u64 {
    text.lines().filter(|line| line.trim_end().ends_with("= 0")).count() as u64
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_traced_program_that_hangs_ends_when_its_child_is_ended() {
        if !can_count() {
            eprintln!("strace is missing or may not trace: nothing to see");
            return;
        }
        let log = std::env::temp_dir().join(format!("lab-traced-{}", std::process::id()));
        let mut child = traced(Path::new("cat"), &log)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Held open, so that the program waits for ever.
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdin.write_all(b"!").unwrap();
        stdout.read_exact(&mut [0]).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let (ended, hears) = std::sync::mpsc::sync_channel(1);
        let reader = std::thread::Builder::new().name("output".to_owned());
        // It ends when no process holds it any more.
        let read = move || ended.send(stdout.read_to_end(&mut Vec::new())).unwrap();
        reader.spawn(read).unwrap();
        assert!(
            hears.recv_timeout(Duration::from_secs(20)).is_ok(),
            "the program is still running"
        );
        drop(stdin);
        std::fs::remove_file(&log).unwrap();
    }

    #[test]
    fn each_successful_sync_counts_once_also_when_threads_interleave() {
        let text = "7 fdatasync(4)                      = 0\n\
                    8 fdatasync(5 <unfinished ...>\n\
                    7 fsync(3)                          = -1 EIO (Input/output error)\n\
                    8 <... fdatasync resumed>)          = 0\n";
        assert_eq!(count(text), 2);
    }
}
