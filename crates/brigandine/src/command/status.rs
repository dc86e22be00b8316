//! `brigandine status`: whether the server does its work, and what it does now.
//!
//! What only the server's process knows, the command asks over HTTP (`readiness.rs`). Everything else is in the database.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::readiness::{PATIENCE, Readiness, readiness};
use super::terminal::{fit, width, wrapped};
use super::{Failure, existing, print_json, say};
use crate::app::{self, MONITOR, RunningServer};
use crate::cli;
use crate::health::{self, Disk};
use crate::model::{self, BuildFilter, BuildId, BuildStatus, QueueCounts, Timestamp, Unused};
use crate::os::state_dir::StateDir;
use crate::store::{self, Snapshot};

/// The most running builds that are listed.
const BUILDS_MAX: u32 = 10;
/// The most inputs that are listed.
const INPUTS_MAX: usize = 10;
/// How far details are indented.
const INDENT: usize = 9;

/// All that is shown. `docs/operation.md` describes the JSON.
#[derive(Debug, Serialize)]
struct Status {
    /// A server runs and is ready.
    ready: bool,
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
    unreachable: Vec<Input>,
    /// The file systems of the state directory. Empty: they do not answer.
    disks: Vec<Disk>,
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

/// Prints what the server does.
///
/// # Errors
/// Status 1: no server runs, or it is not ready. Status 3: there is no state directory.
pub(crate) async fn run(arguments: &cli::Status) -> Result<(), Failure> {
    let state = &arguments.state.state;
    let database = existing(state).await?;
    let server = app::running_server(state);
    let Readiness { reasons, notice, tasks } = readiness(state, server.as_ref()).await;
    let (queue, running, unreachable) = database.read(stored).await?;
    let status = Status {
        ready: reasons.is_empty(),
        reasons,
        notice,
        tasks,
        queue: Queue { running: queue.started, scheduled: queue.scheduled },
        running,
        unreachable,
        disks: disks(StateDir::new(state).disks()).await,
        unused: server.as_ref().map(|server| server.unused.clone()).unwrap_or_default(),
        configuration: server.as_ref().map(not_reloaded).unwrap_or_default(),
        server: server.map(described),
    };
    if arguments.json {
        print_json(&status);
    } else {
        let width = width();
        for line in lines(&status, state, width) {
            say(&width.map_or_else(|| line.clone(), |width| fit(&line, width)));
        }
    }
    // The reasons are printed already.
    if status.ready { Ok(()) } else { Err(Failure::failed("")) }
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

/// The file systems of these folders, as far as they answer in [`PATIENCE`].
async fn disks(folders: Vec<PathBuf>) -> Vec<Disk> {
    // On a thread of its own, because a file system may never answer.
    let found = tokio::task::spawn_blocking(move || health::disks_of(&folders));
    let found = tokio::time::timeout(PATIENCE, found).await;
    found.ok().and_then(Result::ok).unwrap_or_default()
}

/// The lines for people. Texts are wrapped for a terminal of `width` columns; other lines may be longer.
fn lines(status: &Status, state: &Path, width: Option<usize>) -> Vec<String> {
    let mut all = Vec::new();
    let wrapped = |text: &str| wrapped(text, INDENT, width);
    if let Some(Server { pid, version, address, uptime_seconds }) = &status.server {
        let address = address.map_or_else(String::new, |it| format!(", http://{it}"));
        let up = model::duration(*uptime_seconds);
        all.push(format!("server   {version}"));
        all.push(format!("         process {pid}, up {up}{address}"));
    }
    all.push(format!("state    {}", if status.ready { "ready" } else { "not ready" }));
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
            Some(_) => format!(", for {}", model::duration(*seconds)),
            None => String::new(),
        };
        all.push(format!("         #{id} {specification}:{job}{time}"));
    }
    let unlisted = running - status.running.len() as i64;
    if unlisted > 0 {
        all.push(format!("         and {unlisted} more"));
    }
    all.push(match status.unreachable.len() {
        0 => format!("inputs   all can be reached{seen}"),
        1 => format!("inputs   those of 1 specification cannot be reached{seen}"),
        many => format!("inputs   those of {many} specifications cannot be reached{seen}"),
    });
    for Input { specification, error, failures, .. } in status.unreachable.iter().take(INPUTS_MAX) {
        let times = if *failures == 1 { "time" } else { "times" };
        all.push(format!("         {specification} ({failures} {times}):"));
        all.extend(wrapped(error));
    }
    if status.disks.is_empty() {
        all.push("disk     does not answer".to_owned());
    }
    for (at, disk) in status.disks.iter().enumerate() {
        let head = if at == 0 { "disk" } else { "" };
        let folder = Some(disk.name(state)).filter(|name| name != ".");
        let folder = folder.map_or_else(String::new, |name| format!("{name}: "));
        let (free, all_of_it) = (model::size(disk.free), model::size(disk.free + disk.used));
        all.push(format!("{head:INDENT$}{folder}{free} of {all_of_it} free"));
    }
    if !status.unused.is_empty() {
        all.push("files    not used as they are:".to_owned());
    }
    for unused in &status.unused {
        all.extend(wrapped(&unused.sentences()));
    }
    if !status.configuration.is_empty() {
        all.push("files    not in use:".to_owned());
        all.extend(wrapped(&status.configuration));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::terminal::columns;
    use crate::model::UnusedPart;

    fn status() -> Status {
        Status {
            ready: false,
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
            unreachable: vec![Input {
                specification: "odd".to_owned(),
                error: "ssh: connect to host example.org port 22: ".repeat(3),
                failures: 3,
                looked_at: 1,
            }],
            disks: vec![
                Disk { folder: "/srv/state".into(), free: 3 << 30, used: 7 << 30 },
                Disk { folder: "/srv/state/outputs".into(), free: 0, used: 1 << 30 },
            ],
            unused: ["one", "two"]
                .map(|name| Unused {
                    file: format!("/etc/brigandine/{name}.toml"),
                    what: UnusedPart::New(vec![name.to_owned()]),
                })
                .to_vec(),
            configuration: String::new(),
        }
    }

    #[test]
    fn the_lines_fit_into_80_columns_and_say_all() {
        let lines = lines(&status(), Path::new("/srv/state"), None);
        for line in &lines {
            assert!(columns(line) <= 80, "{line:?} has {}", columns(line));
        }
        let text = lines.join("\n");
        assert_eq!(text.matches("files    not used as they are:").count(), 1, "{text}");
        for said in [
            "process 4194303, up 1 d 1 h, http://[2001:db8::1234]:8080",
            "state    not ready\n         The database has accepted no write",
            "tasks    1 run, and 1 that look at inputs",
            "builds   12 running, 3 waiting\n         #7 hello:compile, for 1 min 1 s\n         and 11 more",
            "inputs   those of 1 specification cannot be reached\n         odd (3 times):\n         ssh: connect",
            "disk     3.0 GiB of 10.0 GiB free\n         outputs: 0 B of 1.0 GiB free\nfiles ",
            "/etc/brigandine/two.toml",
        ] {
            assert!(text.contains(said), "{said:?} is not in\n{text}");
        }
    }

    #[test]
    fn without_a_server_the_lines_say_that_they_are_of_the_past() {
        let status = Status { server: None, ..status() };
        let text = lines(&status, Path::new("/srv/state"), None).join("\n");
        for said in [
            "builds   12 running, 3 waiting, when a server last ran\n         #7 hello:compile\n",
            "cannot be reached, when a server last ran\n",
        ] {
            assert!(text.contains(said), "{said:?} is not in\n{text}");
        }
    }

    #[test]
    fn the_error_of_an_input_is_whole_however_narrow_the_terminal_is() {
        let path = format!("/srv/{}/it", "a-very-long-name".repeat(8));
        let mut status = status();
        status.unreachable[0].error = format!("input `source`: fatal: '{path}' is gone");
        let without = |text: &str| text.split_whitespace().collect::<String>();
        for width in [40, 80] {
            let lines = lines(&status, Path::new("/srv/state"), Some(width));
            let text = without(&lines.iter().map(|line| fit(line, width)).collect::<String>());
            assert!(text.contains(&without(&status.unreachable[0].error)), "{lines:?}");
        }
        let lines = lines(&status, Path::new("/srv/state"), None);
        assert!(lines.iter().any(|line| line.contains(&path)), "words are whole: {lines:?}");
    }
}
