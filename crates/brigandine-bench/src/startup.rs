//! `brigandine-bench site --startup`: measures the time from the start of `brigandine serve` to its first page.

use std::path::Path;

use serde_json::json;

use crate::output::{Failure, print_json, say};
use crate::process::{PRODUCT, Server, program};
use crate::statistics::{percentile, sorted};

/// Starts the server `count` times on an empty state directory, and on `state` if it is given.
///
/// # Errors
/// The server does not start, does not answer with 200, or fails.
pub(crate) fn run(state: Option<&Path>, count: u32, as_json: bool) -> Result<(), Failure> {
    let empty = tempfile::tempdir()?;
    let empty = empty.path().join("state");
    let mut all = Vec::new();
    for (name, state) in
        [Some(("empty", &*empty)), state.map(|state| ("given", state))].into_iter().flatten()
    {
        // This start is not measured, because it may migrate the database, and reads it from the disk.
        once(state)?;
        let times = sorted((0..count).map(|_| once(state)).collect::<Result<_, _>>()?);
        let (median, max) = (percentile(&times, 50), percentile(&times, 100));
        if as_json {
            all.push(json!({"state": name, "starts": count, "median_ms": median, "max_ms": max}));
        } else {
            say(&format!(
                "{name} state, {count} starts to the first page: median {median:.1} ms, max {max:.1} ms"
            ));
        }
    }
    if as_json {
        print_json(&all);
    }
    Ok(())
}

/// Measures one start, in milliseconds.
fn once(state: &Path) -> Result<f64, Failure> {
    let mut command = program(&[PRODUCT, "serve", "--listen", "127.0.0.1:0", "--state"])?;
    command.arg(state);
    let server = Server::start(command)?;
    let time = server.first_page_ms()?;
    server.terminate()?;
    Ok(time)
}
