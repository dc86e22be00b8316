//! `brigandine-bench comparison`: measures the comparison of two large evaluations, as JSON and as a page.

use std::time::Instant;

use serde_json::json;

use crate::cli::Comparison;
use crate::client::{Connection, request};
use crate::output::{Failure, failed, print_json, say};
use crate::site::start;
use crate::statistics::{milliseconds, percentile, sorted};
use brigandine::{model, store};

/// The builds of the sample to which the evaluations are added.
const SAMPLE: i64 = 2000;

/// Registers two evaluations, asks for their comparison again and again, and prints the figures.
///
/// # Errors
/// The server does not start, or an answer is wrong.
pub(crate) fn run(arguments: &Comparison) -> Result<(), Failure> {
    let temporary = tempfile::tempdir()?;
    let state = temporary.path().join("state");
    store::make_sample(SAMPLE, &state, model::now(), &|_: store::Step| ())?;
    let mut server = start(&state)?;
    server.send(&format!("pair {}", arguments.jobs))?;
    let line = server.line()?;
    let Some((first, second)) = line.trim().split_once(' ') else {
        return Err(failed(format!("the server does not name two evaluations: {line}")));
    };
    let kinds = [
        (
            "api/v1/eval/ID/compare",
            format!("/api/v1/eval/{second}/compare?with={first}&change=new"),
            false,
        ),
        ("eval/ID?compare=", format!("/eval/{second}?compare={first}"), true),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut rows = Vec::new();
    for (name, path, page) in kinds {
        let request = request(&path, page);
        let asked = ask(&server.address, &request, arguments.requests);
        let times = runtime.block_on(asked)?;
        let (median, max) = (percentile(&times, 50), percentile(&times, 100));
        rows.push(
            json!({"request": name, "jobs": arguments.jobs, "p50_ms": median, "max_ms": max}),
        );
        if !arguments.json {
            let jobs = arguments.jobs;
            say(&format!("{name:<24} {jobs} jobs: median {median:.1} ms, max {max:.1} ms"));
        }
    }
    server.stop()?;
    if arguments.json {
        print_json(&rows);
    }
    Ok(())
}

/// Sends a request again and again. Returns the sorted times in milliseconds.
async fn ask(address: &str, request: &[u8], count: u32) -> Result<Vec<f64>, Failure> {
    let mut connection = Connection::open(address).await?;
    // The first answer fills the caches, and is not measured.
    connection.ask(request).await?;
    let mut times = Vec::new();
    for _ in 0..count {
        let began = Instant::now();
        connection.ask(request).await?;
        times.push(milliseconds(began.elapsed()));
    }
    Ok(sorted(times))
}
