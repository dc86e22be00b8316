//! Another process that holds the write lock.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A child process, `lab hold FILE`, which takes and releases the write lock on request.
///
/// Dropping it ends the process and waits for the end.
#[derive(Debug)]
pub struct Holder {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Holder {
    /// Starts the process, which does not hold the lock yet.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start(lab: &Path, file: &Path) -> Result<Self, String> {
        let mut child = Command::new(lab)
            .arg("hold")
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {} to hold a lock: {error}", lab.display()))?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("the lock's holder has no pipes".to_owned());
        };
        Ok(Self { child, to: Some(to), from: BufReader::new(from) })
    }

    /// Takes the lock. Returns when the process holds it.
    ///
    /// # Errors
    /// The process printed something else.
    pub fn take(&mut self) -> Result<(), String> {
        self.ask("take", "held")
    }

    /// Releases the lock. Returns when it is released.
    ///
    /// # Errors
    /// The process printed something else.
    pub fn release(&mut self) -> Result<(), String> {
        self.ask("release", "released")
    }

    fn ask(&mut self, order: &str, expected: &str) -> Result<(), String> {
        let to = self.to.as_mut().ok_or("the lock's holder is gone")?;
        writeln!(to, "{order}").map_err(|error| format!("the lock's holder is gone: {error}"))?;
        let mut line = String::new();
        self.from.read_line(&mut line).map_err(|error| error.to_string())?;
        if line.trim_end() == expected {
            return Ok(());
        }
        Err(format!("the lock's holder was told `{order}` and said `{}`", line.trim_end()))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // The process ends at the end of its input.
        drop(self.to.take());
        let _ = self.child.wait();
    }
}
