//! `brigandine status`: whether the server does its work, and what it does now.
//!
//! What only the server's process knows, the command asks over HTTP (`/readyz`), at the address that the server noted in
//! the state directory. Everything else is in the database.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::terminal::{columns, fit, size};
use super::{Failure, existing, print_json, say};
use crate::app::{self, RunningServer, Served};
use crate::cli;
use crate::model::{self, BuildFilter, BuildId, BuildStatus, QueueCounts, Timestamp, Unused};
use crate::store::{self, Snapshot};

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most bytes of its answer.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// The most running builds that are listed.
const BUILDS_MAX: u32 = 10;
/// The most inputs that are listed.
const INPUTS_MAX: usize = 10;
/// The width of lines where standard output is no terminal.
const WIDTH: usize = 80;
/// How a task is called that looks at the inputs of a specification.
const MONITOR: &str = "the monitor of ";

/// All that is shown.
#[derive(Debug, Serialize)]
struct Status {
    /// A server runs and is ready.
    healthy: bool,
    /// Why not, in sentences for people.
    reasons: Vec<String>,
    /// What people should know besides; usually empty.
    notice: String,
    /// `null`: no server runs.
    server: Option<Server>,
    /// The required tasks of the server that run.
    tasks: Vec<String>,
    queue: Queue,
    /// Running builds, at most [`BUILDS_MAX`].
    running: Vec<Running>,
    /// Specifications whose inputs could not be looked at.
    inputs: Vec<Input>,
    /// `null`: the file system of the state directory does not say.
    disk: Option<Disk>,
    /// Differences between specification files and what the server uses.
    unused: Vec<Unused>,
    /// The last reload of the configuration, if the server kept what it had; empty otherwise.
    configuration: String,
}

#[derive(Debug, Serialize)]
struct Server {
    pid: u32,
    /// Empty: a server of an older version, which does not say.
    version: String,
    /// `null`: it does not answer over HTTP.
    address: Option<SocketAddr>,
    uptime_seconds: i64,
}

#[derive(Debug, Serialize)]
struct Queue {
    running: i64,
    scheduled: i64,
}

#[derive(Debug, Serialize)]
struct Running {
    id: BuildId,
    specification: String,
    job: String,
    seconds: i64,
}

#[derive(Debug, Serialize)]
struct Input {
    specification: String,
    error: String,
    failures: i64,
    looked_at: Timestamp,
}

#[derive(Debug, Serialize)]
struct Disk {
    free: u64,
    total: u64,
}

/// What the command uses of the answer of `/readyz`.
#[derive(Debug, Default, Deserialize)]
struct Readiness {
    reasons: Vec<String>,
    notice: String,
    tasks: Vec<String>,
}

/// Prints what the server does.
///
/// # Errors
/// Status 1: no server runs, or it is not ready. Status 3: there is no state directory.
pub(crate) async fn run(arguments: &cli::Status) -> Result<(), Failure> {
    let state = &arguments.state.state;
    let database = existing(state).await?;
    let server = app::running_server(state);
    let Readiness { reasons, notice, tasks } = readiness(state, server.as_ref()).await;
    let (queue, running, inputs) = database.read(stored).await?;
    let status = Status {
        healthy: reasons.is_empty(),
        reasons,
        notice,
        tasks,
        queue: Queue { running: queue.started, scheduled: queue.scheduled },
        running,
        inputs,
        disk: disk(state),
        unused: server.as_ref().map(|server| server.unused.clone()).unwrap_or_default(),
        configuration: server.as_ref().map(not_reloaded).unwrap_or_default(),
        server: server.map(described),
    };
    if arguments.json {
        print_json(&status);
    } else {
        let width = size(&std::io::stdout()).map_or(WIDTH, |(columns, _)| columns);
        lines(&status).iter().for_each(|line| say(&fit(line, width)));
    }
    // The reasons are printed already.
    if status.healthy { Ok(()) } else { Err(Failure::failed("")) }
}

/// Why the last reload of the configuration failed; empty: it did not.
fn not_reloaded(server: &RunningServer) -> String {
    let failed = server.reloads.last().filter(|reload| !reload.error.is_empty());
    failed.map(|reload| reload.sentences().join(" ")).unwrap_or_default()
}

fn described(server: RunningServer) -> Server {
    let RunningServer { pid, version, address, started_at, .. } = server;
    Server { pid, version, address, uptime_seconds: (model::now() - started_at).max(0) }
}

/// Asks the server. If it does not answer, that is the reason for which it is not ready.
async fn readiness(state: &Path, server: Option<&RunningServer>) -> Readiness {
    let not = |reason: String| Readiness { reasons: vec![reason], ..Readiness::default() };
    let Some(server) = server else {
        let served = app::served(state);
        let state = state.display();
        return not(match served {
            Served::No => format!("No server runs on {state}."),
            Served::Yes | Served::Locked => {
                format!("A server starts or ends on {state}, or `brigandine prune` runs.")
            }
        });
    };
    let Some(address) = server.address else {
        return not("The server does not answer over HTTP: it runs with --one-shot.".to_owned());
    };
    let answer = tokio::time::timeout(PATIENCE, ask(address)).await;
    let answer = answer.unwrap_or_else(|_| {
        Err(std::io::Error::other(format!("no answer in {} s", PATIENCE.as_secs())))
    });
    match answer {
        Ok(readiness) => readiness,
        Err(error) => not(format!("The server does not answer at http://{address}: {error}.")),
    }
}

/// Asks for `/readyz`.
async fn ask(mut address: SocketAddr) -> std::io::Result<Readiness> {
    match address.ip() {
        IpAddr::V4(any) if any.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(any) if any.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let mut socket = TcpStream::connect(address).await?;
    // Every server answers for this host, whatever `hosts` says.
    let request = "GET /readyz HTTP/1.0\r\nhost: localhost\r\naccept: application/json\r\n\r\n";
    socket.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    socket.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    serde_json::from_str(body).map_err(|_| {
        let first = head.lines().next().unwrap_or_default();
        std::io::Error::other(format!("it says {}", model::one_line(first, 100)))
    })
}

/// What the database says: how many builds are pending, those that run, and the inputs that cannot be looked at.
fn stored(s: &Snapshot) -> rusqlite::Result<(QueueCounts, Vec<Running>, Vec<Input>)> {
    let started = BuildFilter { status: Some(BuildStatus::Started), ..BuildFilter::default() };
    let mut builds = store::queue(s, &started, BUILDS_MAX)?;
    builds.sort_by_key(|build| (build.started_at, build.id));
    let running = builds.into_iter().map(|build| Running {
        seconds: super::builds::seconds(&build).unwrap_or(0),
        id: build.id,
        specification: build.specification,
        job: build.job,
    });
    let failing = store::specifications(s)?.into_iter();
    let failing = failing.filter(|it| it.specification.enabled && !it.look.error.is_empty());
    let inputs = failing.map(|it| Input {
        specification: it.specification.name,
        error: it.look.error,
        failures: it.look.failures,
        looked_at: it.look.looked_at,
    });
    Ok((store::queue_counts(s)?, running.collect(), inputs.collect()))
}

fn disk(state: &Path) -> Option<Disk> {
    let found = rustix::fs::statvfs(state).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Some(Disk { free: bytes(found.f_bavail), total: bytes(found.f_blocks) })
}

/// The lines for people. They are cut to the terminal's width afterwards.
fn lines(status: &Status) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(Server { pid, version, address, uptime_seconds }) = &status.server {
        let address = address.map_or_else(String::new, |it| format!(", http://{it}"));
        let up = span(*uptime_seconds);
        all.push(format!("server   {version}"));
        all.push(format!("         process {pid}, up {up}{address}"));
    }
    all.push(format!("state    {}", if status.healthy { "ready" } else { "not ready" }));
    let sentences = status.reasons.iter().chain(Some(&status.notice).filter(|it| !it.is_empty()));
    all.extend(sentences.flat_map(|sentence| wrapped(sentence)));
    if !status.tasks.is_empty() {
        let monitors = status.tasks.iter().filter(|task| task.starts_with(MONITOR)).count();
        let rest = status.tasks.len() - monitors;
        all.push(format!("tasks    {rest} run, and {monitors} that look at inputs"));
    }
    let Queue { running, scheduled } = status.queue;
    // Without a server this is what the last one has stored.
    let seen = if status.server.is_some() { "" } else { ", when a server last ran" };
    all.push(format!("builds   {running} running, {scheduled} waiting{seen}"));
    for Running { id, specification, job, seconds } in &status.running {
        let time = match &status.server {
            Some(_) => format!(", for {}", span(*seconds)),
            None => String::new(),
        };
        all.push(format!("         #{id} {specification}:{job}{time}"));
    }
    let unlisted = running - status.running.len() as i64;
    if unlisted > 0 {
        all.push(format!("         and {unlisted} more"));
    }
    all.push(match status.inputs.len() {
        0 => format!("inputs   all can be reached{seen}"),
        1 => format!("inputs   of 1 specification cannot be reached{seen}"),
        many => format!("inputs   of {many} specifications cannot be reached{seen}"),
    });
    for Input { specification, error, failures, .. } in status.inputs.iter().take(INPUTS_MAX) {
        let times = if *failures == 1 { "time" } else { "times" };
        all.push(format!("         {specification} ({failures} {times}):"));
        all.extend(wrapped(error));
    }
    if let Some(Disk { free, total }) = status.disk {
        let (free, total) = (model::size(free), model::size(total));
        all.push(format!("disk     {free} of {total} free"));
    }
    for unused in &status.unused {
        all.push("files    not used as they are:".to_owned());
        all.extend(wrapped(&unused.sentences()));
    }
    if !status.configuration.is_empty() {
        all.push("files    not in use:".to_owned());
        all.extend(wrapped(&status.configuration));
    }
    all
}

/// A text as lines of at most [`WIDTH`] columns, broken at blanks and indented. Longer words stay whole.
fn wrapped(text: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match all.last_mut() {
            Some(line) if columns(line) + 1 + columns(word) <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => all.push(format!("         {word}")),
        }
    }
    all
}

/// A time in its two largest units, such as `3 d 4 h`.
fn span(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        ..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min {} s", seconds % 60),
        3600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        Status {
            healthy: false,
            reasons: vec!["The database has accepted no write for 12 s: another program has it locked, or one \
                           write takes that long.".to_owned()],
            notice: String::new(),
            server: Some(Server {
                pid: 4_194_303,
                version: "0.1.0 (commit 0123456789ab, with changes)".to_owned(),
                address: "[2001:db8::1234]:8080".parse().ok(),
                uptime_seconds: 90_061,
            }),
            tasks: vec!["the builder".to_owned(), format!("{MONITOR}`hello`")],
            queue: Queue { running: 12, scheduled: 3 },
            running: vec![Running {
                id: BuildId::new(7),
                specification: "hello".to_owned(),
                job: "compile".to_owned(),
                seconds: 61,
            }],
            inputs: vec![Input {
                specification: "odd".to_owned(),
                error: "ssh: connect to host example.org port 22: ".repeat(3),
                failures: 3,
                looked_at: 1,
            }],
            disk: Some(Disk { free: 3 << 30, total: 10 << 30 }),
            unused: Vec::new(),
            configuration: String::new(),
        }
    }

    #[test]
    fn the_lines_fit_into_80_columns_and_say_all() {
        let lines = lines(&status());
        for line in &lines {
            assert!(columns(line) <= 80, "{line:?} has {}", columns(line));
        }
        let text = lines.join("\n");
        for said in [
            "process 4194303, up 1 d 1 h, http://[2001:db8::1234]:8080",
            "state    not ready\n         The database has accepted no write",
            "tasks    1 run, and 1 that look at inputs",
            "builds   12 running, 3 waiting\n         #7 hello:compile, for 1 min 1 s\n         and 11 more",
            "inputs   of 1 specification cannot be reached\n         odd (3 times):\n         ssh: connect",
            "disk     3.0 GiB of 10",
        ] {
            assert!(text.contains(said), "{said:?} is not in\n{text}");
        }
    }

    #[test]
    fn without_a_server_the_lines_say_that_they_are_of_the_past() {
        let text = lines(&Status { server: None, ..status() }).join("\n");
        for said in [
            "builds   12 running, 3 waiting, when a server last ran\n         #7 hello:compile\n",
            "cannot be reached, when a server last ran\n",
        ] {
            assert!(text.contains(said), "{said:?} is not in\n{text}");
        }
    }

    #[test]
    fn times_are_said_in_their_two_largest_units() {
        for (seconds, said) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min 0 s"),
            (3599, "59 min 59 s"),
            (3600, "1 h 0 min"),
            (176_400, "2 d 1 h"),
        ] {
            assert_eq!(span(seconds), said);
        }
    }
}
