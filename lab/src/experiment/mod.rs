//! The experiments: each shows a failure with the usual approach, and shows that Lockkeeper does not have it. Each
//! checks its own outcome and draws a plot.

mod busy_handler_freezes_scheduler;
mod close_loses_queue;
mod dropped_future;
mod kill_unlocks;
mod mutex_migrates;
mod pool_busy;
mod retry_starvation;
mod shared_connection;
mod slow_query_blocks_queue;
mod torn_page;

use std::path::{Path, PathBuf};
use std::time::Instant;

use lockkeeper::Database;
use rusqlite::Connection;

use crate::Result;
use crate::place::Place;

pub(crate) use busy_handler_freezes_scheduler::seconds as seconds_axis;
pub(crate) use retry_starvation::{distribution, nines};

type Experiment = fn(&mut Story) -> Result<()>;

const ALL: [(&str, Experiment); 10] = [
    ("shared-connection", shared_connection::run),
    ("pool-busy", pool_busy::run),
    ("retry-starvation", retry_starvation::run),
    ("busy-handler-freezes-scheduler", busy_handler_freezes_scheduler::run),
    ("slow-query-blocks-queue", slow_query_blocks_queue::run),
    ("torn-page", torn_page::run),
    ("mutex-migrates", mutex_migrates::run),
    ("kill-unlocks", kill_unlocks::run),
    ("close-loses-queue", close_loses_queue::run),
    ("dropped-future", dropped_future::run),
];

/// Runs one experiment or all. Fails if a failure or a cure was not observed.
pub(crate) fn run(name: &str, out: &Path) -> Result<()> {
    let chosen: Vec<_> = ALL.into_iter().filter(|(n, _)| name == "all" || *n == name).collect();
    let names = || ALL.map(|(name, _)| name).join(", ");
    if name == "list" {
        println!("{}", ALL.map(|(name, _)| name).join("\n"));
        return Ok(());
    }
    if chosen.is_empty() {
        return Err(format!("there is no experiment `{name}`; there are: {}, all", names()).into());
    }
    std::fs::create_dir_all(out).map_err(|e| format!("cannot make {}: {e}", out.display()))?;
    let mut failed = Vec::new();
    for (name, experiment) in chosen {
        println!("\n## {name}\n");
        let began = Instant::now();
        let mut story = Story { name, place: Place::new()?, out, checks: 0, failed: 0 };
        let outcome = experiment(&mut story);
        if let Err(error) = &outcome {
            println!("  FAILED: {error}");
        }
        if story.checks < 2 {
            println!("  FAILED: a failure and a cure must be checked");
        }
        println!("  ({:.1} s)", began.elapsed().as_secs_f64());
        if outcome.is_err() || story.failed > 0 || story.checks < 2 {
            failed.push(name);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(format!("not shown: {}", failed.join(", ")).into())
}

/// Runs a process that an experiment kills.
pub(crate) fn victim(way: &str, file: &Path) -> Result<()> {
    kill_unlocks::victim(way, file)
}

/// The text, the checks and the plot of an experiment.
pub(crate) struct Story<'a> {
    name: &'static str,
    place: Place,
    out: &'a Path,
    checks: u32,
    failed: u32,
}

impl Story<'_> {
    fn say(&self, text: &str) {
        println!("  {text}");
    }

    /// Checks that the failure occurs with the usual approach.
    fn failure(&mut self, shows: bool, what: &str) {
        self.check("the failure", shows, what);
    }

    /// Checks that the failure does not occur with Lockkeeper.
    fn cure(&mut self, shows: bool, what: &str) {
        self.check("the cure", shows, what);
    }

    fn check(&mut self, kind: &str, shows: bool, what: &str) {
        self.checks += 1;
        self.failed += u32::from(!shows);
        println!("  {} {kind}: {what}", if shows { "ok," } else { "NOT SHOWN," });
    }

    fn plot(&self, svg: &str) -> Result<()> {
        let file = self.out.join(format!("{}.svg", self.name));
        std::fs::write(&file, svg).map_err(|e| format!("cannot write {}: {e}", file.display()))?;
        self.say(&format!("plot: {}", file.display()));
        Ok(())
    }

    /// A new database file with a table.
    fn file(&self, name: &str, schema: &str) -> Result<PathBuf> {
        let file = self.place.file(name);
        let conn = Connection::open(&file)?;
        conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        conn.execute_batch(schema)?;
        Ok(file)
    }

    /// Like `file`, opened by Lockkeeper.
    fn database(&self, name: &str, schema: &str) -> Result<Database> {
        Ok(Database::blocking_open(self.file(name, schema)?)?)
    }
}

/// A runtime like that of most programs.
fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// A runtime with one thread, so that a blocked thread blocks all tasks.
fn one_thread() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
