//! `/metrics`: the server's figures, in the text format of Prometheus.
//!
//! Most figures are counters in memory. The database is asked for a few kept counts, so the answer costs the same however
//! many builds there are. It is given [`LIMIT`] for these, and so is the file system; figures that are not there by then
//! are left out (PROBE1), and `brigandine_database_up` and `brigandine_file_system_up` say so.

mod database;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use tokio::time::{Instant, timeout_at};

use crate::context::{Context, Reading};
use crate::http;
use crate::measure::{Kind, Text};
use crate::model::{BuildStatus, COMMIT, PACKAGE_VERSION};
use crate::os::state_dir::StateDir;
use crate::os::usage::Usage;
use crate::store::{Figures, visible};

use super::ready;

/// How long an answer waits for figures.
const LIMIT: Duration = Duration::from_secs(1);

/// The help of the figure `brigandine_ready`.
const READY: &str = "Whether the server is ready, as /readyz says: 1 or 0";

/// How many systems have a label of their own; all others share [`OTHERS`]. The names of systems come from repositories.
const SYSTEMS_MAX: usize = 32;
const OTHERS: &str = "(other)";

/// What the database counts, with the sizes of its files, for which the file system is asked.
struct Gathered {
    database: lockkeeper::Stats,
    database_bytes: Option<u64>,
}

/// All figures.
pub(super) async fn answer(context: Reading) -> Response {
    let limit = Instant::now() + LIMIT;
    let (stored, gathered) = tokio::join!(
        timeout_at(limit, context.read(visible::figures)),
        timeout_at(limit, gather(&context)),
    );
    let (stored, gathered) = (stored.ok().and_then(Result::ok), gathered.ok().flatten());
    let mut text = Text::default();
    server(&mut text, &context);
    let up = u8::from(stored.is_some());
    let help = "Whether the database answered in time: 1, or 0 and some figures are missing";
    text.one("brigandine_database_up", Kind::Gauge, help, up);
    if let Some(figures) = &stored {
        work(&mut text, figures);
    }
    ended(&mut text, &context);
    let help =
        "Whether the file system answered in time: 1, or 0 and figures of the database are missing";
    text.one("brigandine_file_system_up", Kind::Gauge, help, u8::from(gathered.is_some()));
    if let Some(Gathered { database, database_bytes }) = &gathered {
        database::write(&mut text, database, *database_bytes);
    }
    // No disk delays `/proc`.
    if let Ok(usage) = Usage::read() {
        process(&mut text, &usage);
    }
    disks(&mut text, &context);
    context.http_meters().write(&mut text);
    exposition(text)
}

/// The figures of a server that waits to start.
pub(super) async fn waiting() -> Response {
    let mut text = Text::default();
    build_info(&mut text);
    text.one("brigandine_ready", Kind::Gauge, READY, 0);
    if let Ok(usage) = Usage::read() {
        process(&mut text, &usage);
    }
    exposition(text)
}

fn exposition(text: Text) -> Response {
    let mut response = http::text(StatusCode::OK, text.end());
    let kind = HeaderValue::from_static(Text::CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    http::not_kept(response)
}

/// Waits while an earlier request waits for the file system. `None`: the thread that asks has panicked.
async fn gather(context: &Context) -> Option<Gathered> {
    let permit = Arc::clone(&context.meters().gathering).acquire_owned().await.ok()?;
    let stats = context.database_stats();
    let file = StateDir::new(context.state()).database();
    let gathered = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        Gathered { database: stats(), database_bytes: file.metadata().ok().map(|file| file.len()) }
    });
    gathered.await.ok()
}

fn build_info(text: &mut Text) {
    let name = "brigandine_build_info";
    let help = "The version of the server, and the commit that it is built from; always 1";
    let labels = [("version", PACKAGE_VERSION), ("commit", COMMIT)];
    text.family(name, Kind::Gauge, help).sample(&labels, 1);
}

fn server(text: &mut Text, context: &Context) {
    build_info(text);
    let name = "brigandine_start_time_seconds";
    let help = "When the server started, in seconds since 1970";
    text.one(name, Kind::Gauge, help, context.meters().started_at);
    let tasks = context.tasks();
    let help = "Required tasks of the server that run";
    text.one("brigandine_tasks_running", Kind::Gauge, help, tasks.running.len());
    let ready = ready::reasons(context, tasks.faults).is_empty();
    text.one("brigandine_ready", Kind::Gauge, READY, u8::from(ready));
    let help = "Whether builds and evaluations may start: 0 while a disk has too little room";
    let has_room = u8::from(context.health().has_room());
    text.one("brigandine_disk_has_room", Kind::Gauge, help, has_room);
    let help =
        "How late a task is woken, measured once a second; the timer itself adds up to 0.001";
    let mut family = text.family("brigandine_scheduler_lag_seconds", Kind::Histogram, help);
    family.histogram(&[], &context.meters().lag);
}

/// What the database says of builds, evaluations and specifications.
fn work(text: &mut Text, figures: &Figures) {
    let mut systems: BTreeMap<&str, i64> = BTreeMap::new();
    for (_, system, builds) in &figures.builds {
        *systems.entry(system).or_default() += builds;
    }
    let mut largest: Vec<(&str, i64)> = systems.into_iter().collect();
    largest.sort_by_key(|(_, builds)| -builds);
    largest.truncate(SYSTEMS_MAX);
    let mut builds: BTreeMap<(BuildStatus, &str), i64> = BTreeMap::new();
    // The queue is there even if it is empty, so that alerts see a 0.
    for (system, _) in &largest {
        for status in [BuildStatus::Scheduled, BuildStatus::Started] {
            builds.insert((status, system), 0);
        }
    }
    for (status, system, count) in &figures.builds {
        let known = largest.iter().any(|(name, _)| name == system);
        let label = if known { system.as_str() } else { OTHERS };
        *builds.entry((*status, label)).or_default() += count;
    }
    let help = "Builds in the database; those that are scheduled and started are the queue";
    let mut family = text.family("brigandine_builds", Kind::Gauge, help);
    for ((status, system), count) in builds {
        family.sample(&[("status", status.as_str()), ("system", system)], count);
    }
    for (name, help, value) in [
        ("brigandine_evaluations_running", "Evaluations that run", figures.evaluating),
        ("brigandine_specifications", "Specifications of the server", figures.specifications),
        (
            "brigandine_specifications_unreachable",
            "Specifications whose last look at their inputs failed",
            figures.unreachable,
        ),
    ] {
        text.one(name, Kind::Gauge, help, value);
    }
}

/// What the server has counted of builds and evaluations.
fn ended(text: &mut Text, context: &Context) {
    let meters = context.meters();
    let help = "Builds whose end this server stored, or that failed or were canceled with them";
    let mut family = text.family("brigandine_builds_ended_total", Kind::Counter, help);
    for (status, count) in meters.builds_ended() {
        family.sample(&[("status", status.as_str())], count);
    }
    let help = "From the start of a build to the write that stores its end";
    let mut family = text.family("brigandine_build_duration_seconds", Kind::Histogram, help);
    family.histogram(&[], &meters.build_times);
    let help = "Evaluations that have ended";
    let mut family = text.family("brigandine_evaluations_ended_total", Kind::Counter, help);
    for (status, count) in meters.evaluations_ended() {
        family.sample(&[("status", status.as_str())], count);
    }
    let help = "From the start of an evaluation to the write that stores its end";
    let mut family = text.family("brigandine_evaluation_duration_seconds", Kind::Histogram, help);
    family.histogram(&[], &meters.evaluation_times);
}

fn disks(text: &mut Text, context: &Context) {
    let disks = context.health().disks();
    let help = "Bytes that the server may still write to the file system of a folder";
    let mut family = text.family("brigandine_disk_free_bytes", Kind::Gauge, help);
    for disk in &disks {
        family.sample(&[("folder", &disk.name(context.state()))], disk.free);
    }
    let help = "Bytes in use on the file system of a folder, by anything";
    let mut family = text.family("brigandine_disk_used_bytes", Kind::Gauge, help);
    for disk in &disks {
        family.sample(&[("folder", &disk.name(context.state()))], disk.used);
    }
}

fn process(text: &mut Text, usage: &Usage) {
    let help = "Memory of the server in use, without its child processes";
    text.one("process_resident_memory_bytes", Kind::Gauge, help, usage.resident_bytes);
    let help = "Processor time of the server, without its child processes";
    text.one("process_cpu_seconds_total", Kind::Counter, help, usage.cpu_seconds);
    text.one("process_threads", Kind::Gauge, "Threads of the server", usage.threads);
    text.one("process_open_fds", Kind::Gauge, "Open file descriptors", usage.open_files);
    if let Some(most) = usage.open_files_max {
        text.one("process_max_fds", Kind::Gauge, "How many descriptors may be open", most);
    }
}
