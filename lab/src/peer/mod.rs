//! The peers in the lab's own program: those that link the same SQLite as Lockkeeper.

mod async_sqlite;
mod lockkeeper;
mod mutex;
mod raw;
mod retry;
#[path = "../../peers/statements.rs"]
mod statements;

use measure::{Figures, Job, Outcome};

/// Measures a peer in this process.
pub(crate) fn measure(job: &Job) -> Outcome<Figures> {
    let mut figures = match job.peer.as_str() {
        "raw" => raw::run(job),
        "lockkeeper" => measure::run(job, || lockkeeper::open(job, false)),
        "lockkeeper-short" => measure::run(job, || lockkeeper::open(job, true)),
        "mutex" => measure::run(job, async || mutex::open(job)),
        "naive" => measure::run(job, async || mutex::open_naive(job)),
        "async-sqlite" => measure::run(job, || async_sqlite::open(job, None)),
        "async-sqlite-1" => measure::run(job, || async_sqlite::open(job, Some(1))),
        "retry" => measure::run(job, async || retry::open(job)),
        peer => Err(format!("there is no peer `{peer}` in this binary")),
    }?;
    figures.sqlite = rusqlite::version().to_owned();
    Ok(figures)
}
