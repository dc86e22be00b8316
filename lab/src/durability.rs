//! Counts how many times a peer syncs. `strace` counts, because a peer's own statement would prove nothing.
//!
//! The system calls are counted in an extra measurement, whose times are not used. If, with one task and FULL, a peer
//! syncs less often than it answers, then it has answered before rows were durable.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::Result;

/// The system calls that make a file durable. `strace` does not see a sync through `io_uring`; no peer here uses
/// `io_uring` by default.
const SYNCS: &str = "trace=fsync,fdatasync,msync,sync_file_range,syncfs,sync";

/// The counts for one number of tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Syncs {
    pub(crate) peer: String,
    pub(crate) tasks: usize,
    /// The number of successful writes in the whole life of the process.
    pub(crate) answered: u64,
    /// The number of successful syncs, those of opening and of checkpoints included.
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

/// The same program under `strace`, which writes its syncs to the file `log`.
pub(crate) fn traced(program: &Path, log: &Path) -> Command {
    let mut command = Command::new("strace");
    // With the filter in the kernel, other system calls are not slowed down. With `-D` the program is our child, and
    // `strace` ends together with it. So the program can be killed through the child.
    command.args(["-D", "-f", "--seccomp-bpf", "-qq", "-e", SYNCS, "-o"]).arg(log).arg(program);
    command
}

/// Counts the syncs in a file that `strace` has written, and removes the file.
pub(crate) fn read(log: &PathBuf) -> Result<u64> {
    let text = std::fs::read_to_string(log)?;
    std::fs::remove_file(log)?;
    Ok(count(&text))
}

/// The number of successful calls. If other calls interleave with a call, it has two lines, and the second has the
/// result.
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
        // Standard input stays open, so that the program waits for ever.
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdin.write_all(b"!").unwrap();
        stdout.read_exact(&mut [0]).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let (ended, hears) = std::sync::mpsc::sync_channel(1);
        let reader = std::thread::Builder::new().name("output".to_owned());
        // The read ends when no process has the pipe open any more.
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
