//! The measured server: another process of this program.

use std::fmt::Display;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::output::{Failure, failed};
use crate::statistics::milliseconds;

/// If this is the first argument, the program runs as `brigandine` with the arguments that follow.
pub(crate) const PRODUCT: &str = "brigandine";

/// A command that runs this program.
pub(crate) fn program(arguments: &[&str]) -> Result<Command, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments);
    Ok(command)
}

/// A server in a process of its own. The process is killed when this is dropped before the server has ended.
pub(crate) struct Server {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    began: Instant,
    pub(crate) address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts `command` and waits until it prints its address.
    pub(crate) fn start(mut command: Command) -> Result<Self, Failure> {
        let began = Instant::now();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).env("RUST_LOG", "error");
        let mut child = command.spawn()?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().ok_or_else(|| failed("no output"))?);
        let mut server = Self { child, input, output, began, address: String::new() };
        let line = server.line()?;
        let address = line.strip_prefix("listening at http://");
        server.address = address.ok_or_else(|| failed("the server did not start"))?.to_owned();
        Ok(server)
    }

    /// Requests a page. Returns the milliseconds from the start of the process to the end of the answer.
    pub(crate) fn first_page_ms(&self) -> Result<f64, Failure> {
        let mut socket = TcpStream::connect(&self.address)?;
        socket.write_all(
            b"GET / HTTP/1.1\r\nhost: bench\r\nconnection: close\r\naccept: text/html\r\n\r\n",
        )?;
        let mut page = String::new();
        socket.read_to_string(&mut page)?;
        let time = milliseconds(self.began.elapsed());
        if page.starts_with("HTTP/1.1 200") {
            Ok(time)
        } else {
            Err(failed("the first page is no page"))
        }
    }

    /// Reads the next line of the server's output.
    pub(crate) fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err(failed("the measured server ended; its message stands above"));
        }
        Ok(line.trim().to_owned())
    }

    pub(crate) fn send(&mut self, line: &str) -> Result<(), Failure> {
        let input = self.input.as_mut().ok_or_else(|| failed("the server has no input"))?;
        writeln!(input, "{line}")?;
        Ok(input.flush()?)
    }

    /// Sends a line, and waits for the line that answers it.
    pub(crate) fn tell(&mut self, line: &str) -> Result<String, Failure> {
        self.send(line)?;
        self.line()
    }

    pub(crate) fn number(&mut self, line: &str) -> Result<f64, Failure> {
        Ok(self.tell(line)?.parse()?)
    }

    /// The processor time that the server has used so far, in seconds.
    pub(crate) fn processor_s(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        let fields: Vec<&str> =
            stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
        // A tick of these counters is a hundredth of a second on every Linux.
        (ticks(11) + ticks(12)) / 100.0
    }

    pub(crate) fn memory_mib(&self, name: &str) -> f64 {
        memory_mib(self.id(), name)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Closes the server's standard input, which makes the server end, and waits for its end.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        drop(self.input.take());
        self.wait()
    }

    /// Sends SIGTERM to the server, and waits for its end.
    pub(crate) fn terminate(mut self) -> Result<(), Failure> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        self.wait()
    }

    fn wait(&mut self) -> Result<(), Failure> {
        if self.child.wait()?.success() {
            Ok(())
        } else {
            Err(failed("the measured server failed"))
        }
    }
}

/// A line of a process's `status` file, such as `VmRSS`, in MiB; 0: the process has ended.
pub(crate) fn memory_mib(process: impl Display, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}
