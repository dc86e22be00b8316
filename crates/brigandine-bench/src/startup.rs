//! `brigandine-bench site --startup`: from the start of `brigandine serve` to its first page.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::output::{Failure, failed, print_json, say};

/// A server that is killed when it is dropped before its end.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the server `count` times on an empty state directory, and on `state` if there is one.
///
/// # Errors
/// The server does not start, does not answer with 200, or does not end well.
pub(crate) fn run(state: Option<&Path>, count: u32, as_json: bool) -> Result<(), Failure> {
    let empty = tempfile::tempdir().map_err(failed)?;
    let empty = empty.path().join("state");
    let mut all = Vec::new();
    for (name, state) in
        [Some(("empty", &*empty)), state.map(|state| ("given", state))].into_iter().flatten()
    {
        // An older file is migrated by the first start, which is not what is asked for; and
        // what the first reads from the disk, the kernel has for the rest.
        once(state)?;
        let mut times = (0..count).map(|_| once(state)).collect::<Result<Vec<_>, _>>()?;
        times.sort_unstable_by(f64::total_cmp);
        let (middle, most) = (times[times.len() / 2], times[times.len() - 1]);
        if as_json {
            all.push(json!({"state": name, "starts": count, "median_ms": middle, "max_ms": most}));
        } else {
            say(&format!(
                "{name} state, {count} starts to the first page: median {middle:.1} ms, max {most:.1} ms"
            ));
        }
    }
    if as_json {
        print_json(&all);
    }
    Ok(())
}

/// One start, in milliseconds.
fn once(state: &Path) -> Result<f64, Failure> {
    let program = std::env::current_exe().map_err(failed)?;
    let began = Instant::now();
    let mut command = Command::new(program);
    command.args([crate::PRODUCT, "serve", "--listen", "127.0.0.1:0", "--state"]).arg(state);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).env("RUST_LOG", "error");
    let mut served = Served(command.spawn().map_err(failed)?);
    let Some(output) = served.0.stdout.take() else { return Err(failed("no output")) };
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).map_err(failed)?;
    let address = line.trim().strip_prefix("listening at http://");
    let address =
        address.ok_or_else(|| failed("the server did not start; its message stands above"))?;
    let mut socket = TcpStream::connect(address).map_err(failed)?;
    socket
        .write_all(
            b"GET / HTTP/1.1\r\nhost: bench\r\nconnection: close\r\naccept: text/html\r\n\r\n",
        )
        .map_err(failed)?;
    let mut page = String::new();
    socket.read_to_string(&mut page).map_err(failed)?;
    let took = began.elapsed().as_secs_f64() * 1000.0;
    if !page.starts_with("HTTP/1.1 200") {
        return Err(failed("the first page is no page"));
    }
    kill_process(Pid::from_child(&served.0), Signal::TERM).map_err(failed)?;
    let ended = served.0.wait().map_err(failed)?;
    if ended.success() { Ok(took) } else { Err(failed("the server did not end well")) }
}
