//! The measured process: this program again, as `server.rs` has it.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use crate::output::{Failure, failed};

/// The measured process. Killed when it is dropped before its end.
pub(crate) struct Server {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pub(crate) address: String,
    /// From its start to its first page.
    pub(crate) start_ms: f64,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    pub(crate) fn start(state: &Path) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(failed)?;
        let began = Instant::now();
        let mut child = Command::new(program)
            .arg("server")
            .arg("--state")
            .arg(state)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .env_remove("RUST_LOG")
            .spawn()
            .map_err(failed)?;
        let input = child.stdin.take();
        let Some(output) = child.stdout.take() else { return Err(failed("no output")) };
        let mut server = Self {
            child,
            input,
            output: BufReader::new(output),
            address: String::new(),
            start_ms: 0.0,
        };
        let line = server.line()?;
        let address = line.strip_prefix("listening at http://");
        server.address = address.ok_or_else(|| failed("the server did not start"))?.to_owned();
        // To the first page.
        let mut socket = std::net::TcpStream::connect(&server.address).map_err(failed)?;
        socket
            .write_all(
                b"GET / HTTP/1.1\r\nhost: bench\r\nconnection: close\r\naccept: text/html\r\n\r\n",
            )
            .map_err(failed)?;
        let mut page = String::new();
        std::io::Read::read_to_string(&mut socket, &mut page).map_err(failed)?;
        server.start_ms = began.elapsed().as_secs_f64() * 1000.0;
        if !page.starts_with("HTTP/1.1 200") {
            return Err(failed("the first page is no page"));
        }
        Ok(server)
    }

    pub(crate) fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        if self.output.read_line(&mut line).map_err(failed)? == 0 {
            return Err(failed("the measured server ended; its message stands above"));
        }
        Ok(line.trim().to_owned())
    }

    pub(crate) fn send(&mut self, line: &str) -> Result<(), Failure> {
        let Some(input) = &mut self.input else { return Err(failed("the server is told to end")) };
        writeln!(input, "{line}").and_then(|()| input.flush()).map_err(failed)
    }

    /// Says a line and waits for the answer.
    pub(crate) fn tell(&mut self, line: &str) -> Result<String, Failure> {
        self.send(line)?;
        self.line()
    }

    pub(crate) fn number(&mut self, line: &str) -> Result<f64, Failure> {
        self.tell(line)?.parse().map_err(failed)
    }

    /// Processor time so far, in seconds.
    pub(crate) fn processor_s(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.unwrap_or_default();
        let fields: Vec<&str> =
            stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
        // In hundredths of a second on every Linux.
        (ticks(11) + ticks(12)) / 100.0
    }

    /// `VmRSS` or `VmHWM`.
    pub(crate) fn memory_mib(&self, name: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| {
            line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<f64>().ok()
        });
        kib.unwrap_or(0.0) / 1024.0
    }

    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        drop(self.input.take());
        let ended = self.child.wait().map_err(failed)?;
        if ended.success() { Ok(()) } else { Err(failed("the measured server failed")) }
    }
}
