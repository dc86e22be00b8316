//! `brigandine-bench pushes`: whether anything of a server grows with the pushes that it builds.
//!
//! Two repositories on this machine are pushed to in turn: one named by its path, which the server reads, and one by a
//! `file://` URL that only git can read, so that it is fetched as one of another machine. Each push is evaluated
//! and has jobs that succeed, fail and print much. Followers of logs and pages come with each push, and go with the
//! next one, read or not. Old evaluations are deleted (`keep`), and the server may have few descriptors open.
//!
//! Every few pushes, while nothing runs, it is counted what there is: descriptors and private memory of the server and
//! of every process that it keeps, files and folders of its state directory, and the time that its pages take. What
//! is packed or collected now and then rises and falls, so the highest values of the two halves of the measurement
//! are compared, the first fifth left out, in which caches fill. The slopes are those of lines through all points.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::builds::{commit_files, git, milliseconds};
use crate::cli::Pushes;
use crate::client::{Connection, connect_from, request};
use crate::output::{Failure, failed, print_json, say};

/// No push takes longer.
const PATIENCE: Duration = Duration::from_secs(120);
/// Requests of each page at a measurement.
const REQUESTS: usize = 15;
/// Followers that come with a push.
const FOLLOWERS: usize = 8;
/// Nobody else knows the address, which is one of this machine alone and of these minutes.
const TOKEN: &str = "the-token-of-a-measurement";
/// Lines that the chatty job prints, of 64 bytes.
const LINES: u32 = 20_000;
/// Specifications, by the name of their repository.
const REPOSITORIES: [&str; 2] = ["path", "url"];

/// What was counted after so many pushes.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Point {
    pushes: f64,
    descriptors: f64,
    memory_mib: f64,
    files: f64,
    page_ms: f64,
}

/// A kind of figure.
struct Kind {
    name: &'static str,
    of: fn(&Point) -> f64,
    /// How much more the second half may have than the first: a share, and so much besides.
    share: f64,
    besides: f64,
}

const KINDS: [Kind; 4] = [
    Kind { name: "descriptors", of: |point| point.descriptors, share: 0.0, besides: 2.0 },
    Kind { name: "memory (MiB)", of: |point| point.memory_mib, share: 0.03, besides: 1.5 },
    Kind { name: "files and folders", of: |point| point.files, share: 0.05, besides: 32.0 },
    Kind { name: "page (ms)", of: |point| point.page_ms, share: 0.5, besides: 1.0 },
];

/// A figure over the measurement.
#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    first_half_max: f64,
    second_half_max: f64,
    slope_per_1000_pushes: f64,
    grows: bool,
}

/// Pushes, counts and prints.
///
/// # Errors
/// A push is not built, or something grows.
pub(crate) fn run(arguments: &Pushes) -> Result<(), Failure> {
    let temporary = tempfile::tempdir().map_err(failed)?;
    let runtime = crate::runtime()?;
    let points = runtime.block_on(measure(arguments, temporary.path()))?;
    let lines = KINDS.map(|kind| line(&kind, &points));
    if arguments.json {
        print_json(&serde_json::json!({ "points": points, "lines": lines }));
    } else {
        say(&table(&lines, arguments));
    }
    let growing: Vec<&str> = lines.iter().filter(|line| line.grows).map(|line| line.name).collect();
    if growing.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("grows with the pushes: {}", growing.join(", "))))
}

fn line(kind: &Kind, points: &[Point]) -> Line {
    let (first, second) = points.split_at(points.len() / 2);
    let max = |half: &[Point]| half.iter().map(kind.of).fold(0.0, f64::max);
    let (first, second) = (max(first), max(second));
    Line {
        name: kind.name,
        first_half_max: first,
        second_half_max: second,
        slope_per_1000_pushes: slope(points, kind.of) * 1000.0,
        grows: second > first * (1.0 + kind.share) + kind.besides,
    }
}

/// Of the line that is nearest to all points.
fn slope(points: &[Point], of: fn(&Point) -> f64) -> f64 {
    let count = points.len().max(1) as f64;
    let mean = |f: &dyn Fn(&Point) -> f64| points.iter().map(f).sum::<f64>() / count;
    let (x, y) = (mean(&|point| point.pushes), mean(&of));
    let above: f64 = points.iter().map(|point| (point.pushes - x) * (of(point) - y)).sum();
    let below: f64 = points.iter().map(|point| (point.pushes - x).powi(2)).sum();
    if below > 0.0 { above / below } else { 0.0 }
}

fn table(lines: &[Line], arguments: &Pushes) -> String {
    let mut text = format!(
        "{} pushes to each of 2 repositories, {} descriptors\n{:<20}{:>14}{:>14}{:>18}",
        arguments.pushes,
        arguments.descriptors,
        "",
        "1st half max",
        "2nd half max",
        "slope per 1,000"
    );
    for line in lines {
        let verdict = if line.grows { "  GROWS" } else { "" };
        let _ = write!(
            text,
            "\n{:<20}{:>14.2}{:>14.2}{:>18.2}{verdict}",
            line.name, line.first_half_max, line.second_half_max, line.slope_per_1000_pushes
        );
    }
    text
}

/// The measured server. Killed when it is dropped before its end.
struct Served {
    child: Child,
    address: String,
    state: PathBuf,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Served {
    fn start(directory: &Path, descriptors: u32) -> Result<Self, Failure> {
        let state = directory.join("state");
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("ulimit -n {descriptors}; exec \"$@\""), "sh"]);
        command.arg(program).args([
            crate::PRODUCT,
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--sandbox=off",
            "--config",
        ]);
        command.arg(directory.join("config.toml")).arg("--specifications");
        command.arg(directory.join("specifications.toml")).arg("--state").arg(&state);
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).env("RUST_LOG", "error");
        let mut child = command.spawn().map_err(failed)?;
        let output = child.stdout.take();
        let mut served = Self { child, address: String::new(), state };
        let mut first = String::new();
        let output = output.ok_or_else(|| failed("no output"))?;
        BufReader::new(output).read_line(&mut first).map_err(failed)?;
        let address = first.trim().strip_prefix("listening at http://");
        served.address = address
            .ok_or_else(|| failed("the server did not start; its message stands above"))?
            .to_owned();
        Ok(served)
    }

    /// Asks for a look.
    async fn evaluate(&self, name: &str) -> Result<(), Failure> {
        let mut socket = TcpStream::connect(&self.address).await.map_err(failed)?;
        let text = format!(
            "POST /api/v1/jobset/{name}/evaluate HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
             content-length: 0\r\nconnection: close\r\n\r\n",
            self.address, TOKEN
        );
        socket.write_all(text.as_bytes()).await.map_err(failed)?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.map_err(failed)?;
        if answer.starts_with("HTTP/1.1 2") {
            return Ok(());
        }
        Err(failed(answer.lines().next().unwrap_or("no answer to a request for a look")))
    }

    /// Deletes what need not be kept.
    fn prune(&self, config: &Path) -> Result<(), Failure> {
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command
            .args([crate::PRODUCT, "prune"])
            .arg("--state")
            .arg(&self.state)
            .arg("--config")
            .arg(config);
        let done = command.stdin(Stdio::null()).output().map_err(failed)?;
        if done.status.success() {
            return Ok(());
        }
        Err(failed(format!("prune: {}", String::from_utf8_lossy(&done.stderr).trim())))
    }

    fn stop(mut self) -> Result<(), Failure> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).map_err(failed)?;
        let ended = self.child.wait().map_err(failed)?;
        if ended.success() { Ok(()) } else { Err(failed("the server did not end well")) }
    }
}

async fn measure(arguments: &Pushes, directory: &Path) -> Result<Vec<Point>, Failure> {
    let mut specifications = String::new();
    for name in REPOSITORIES {
        git(directory, &["init", "--quiet", "--initial-branch=main", name])?;
        push(directory, name, 0)?;
        let path = directory.join(name).display().to_string();
        // With its last letter (`l`) spelt otherwise.
        let url = match path.strip_suffix('l') {
            Some(path) => format!("file://{path}%6c"),
            None => path,
        };
        let _ = write!(
            specifications,
            "[[specification]]\nname = \"{name}\"\ninterval = \"1h\"\n\
             [[specification.input]]\nname = \"source\"\nurl = \"{url}\"\nbranch = \"main\"\n"
        );
    }
    let config = directory.join("config.toml");
    let token = directory.join("token");
    std::fs::write(
        &config,
        format!("[keep]\nevaluations = 20\n[web]\ntoken-file = \"{}\"\n", token.display()),
    )
    .map_err(failed)?;
    std::fs::write(&token, TOKEN).map_err(failed)?;
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    std::fs::write(directory.join("specifications.toml"), specifications).map_err(failed)?;
    let server = Served::start(directory, arguments.descriptors)?;
    let mut client = Connection::open(&server.address).await.map_err(failed)?;
    let mut followers = Vec::new();
    let mut points = Vec::new();
    let step = (arguments.pushes / 40).max(1);
    for number in 1..=arguments.pushes {
        for name in REPOSITORIES {
            let revision = push(directory, name, number)?;
            server.evaluate(name).await?;
            built(&mut client, name, &revision, &server.address, &mut followers).await?;
        }
        if number % step == 0 {
            server.prune(&config)?;
            followers.clear();
            let point = count(&server, &mut client, number).await?;
            if number * 5 > arguments.pushes {
                points.push(point);
            }
        }
    }
    drop(client);
    server.stop()?;
    Ok(points)
}

/// Commits what the server then has to evaluate and to build; gives the revision.
fn push(directory: &Path, name: &str, number: u32) -> Result<String, Failure> {
    let jobs = format!(
        "[[job]]\nname = \"fine\"\ncommand = \"cat note > $BRIGANDINE_OUT/note\"\n\
         [[job]]\nname = \"failing\"\ncommand = \"cat note; exit 3\"\n\
         [[job]]\nname = \"chatty\"\n\
         command = \"cat note; yes {} | head -n {LINES}\"\n",
        "0123456789".repeat(6)
    );
    let repository = directory.join(name);
    let note = format!("{name} {number}\n");
    commit_files(&repository, &[("brigandine.toml", &jobs), ("note", &note)])?;
    let head = Command::new("git").arg("-C").arg(&repository).args(["rev-parse", "HEAD"]).output();
    Ok(String::from_utf8_lossy(&head.map_err(failed)?.stdout).trim().to_owned())
}

async fn json(client: &mut Connection, path: &str) -> Result<Value, Failure> {
    let answer = client.ask(&request(path, false)).await.map_err(failed)?;
    serde_json::from_slice(answer).map_err(failed)
}

/// Waits until a revision is evaluated and nothing waits or runs. Its builds have followers meanwhile, which replace
/// those before.
async fn built(
    client: &mut Connection,
    name: &str,
    revision: &str,
    address: &str,
    followers: &mut Vec<TcpStream>,
) -> Result<(), Failure> {
    let began = Instant::now();
    let mut followed = false;
    loop {
        let evaluations = json(client, &format!("/api/evaluations?nr=1&spec={name}")).await?;
        let newest = &evaluations[0];
        let it = newest["checkouts"][0]["commit"] == revision && newest["in-progress"] == 0;
        let queue = json(client, "/api/queue?nr=10").await?;
        let queue = queue.as_array().map_or(&[][..], Vec::as_slice);
        if let Some(id) = queue.first().and_then(|build| build["id"].as_i64())
            && it
            && !followed
        {
            followed = true;
            *followers = follow(address, id).await?;
        }
        if it && queue.is_empty() {
            let jobs = json(client, &format!("/api/jobs?evaluation={}", newest["id"])).await?;
            let mut ends: Vec<(String, i64)> = jobs
                .as_array()
                .into_iter()
                .flatten()
                .map(|job| (job["name"].to_string(), job["status"].as_i64().unwrap_or(-9)))
                .collect();
            ends.sort();
            let ends: Vec<i64> = ends.into_iter().map(|(_, status)| status).collect();
            // chatty, failing, fine
            return if ends == [0, 1, 0] {
                Ok(())
            } else {
                Err(failed(format!("the builds of {revision} of `{name}` ended with {ends:?}")))
            };
        }
        if began.elapsed() > PATIENCE {
            let waiting = queue.len();
            return Err(failed(format!(
                "{revision} of `{name}` is not built: the newest evaluation is {newest}, {waiting} builds wait"
            )));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Followers of a log and of pages, of which every other one reads something.
async fn follow(address: &str, build: i64) -> Result<Vec<TcpStream>, Failure> {
    let mut all = Vec::new();
    for number in 0..FOLLOWERS {
        let path = match number % 3 {
            0 => format!("/build/{build}/log/raw"),
            1 => format!("/build/{build}/log/live"),
            _ => "/live".to_owned(),
        };
        // As strangers: none of them takes from the share of the one that measures.
        let client = Ipv4Addr::new(127, 0, 1, u8::try_from(number).unwrap_or(u8::MAX));
        let server = address.parse().map_err(failed)?;
        let mut socket = connect_from(client, server).await.map_err(failed)?;
        socket.write_all(&request(&path, true)).await.map_err(failed)?;
        if number % 2 == 0 {
            let mut some = [0; 1024];
            let read = tokio::time::timeout(Duration::from_millis(20), socket.read(&mut some));
            // Of a page that does not change nothing comes.
            let _ = read.await;
        }
        all.push(socket);
    }
    Ok(all)
}

/// What there is while nothing runs.
async fn count(server: &Served, client: &mut Connection, pushes: u32) -> Result<Point, Failure> {
    // Connections that were closed end when the server sees it: the least of some looks counts.
    let mut best: Option<(f64, f64)> = None;
    for _ in 0..20 {
        let (descriptors, memory) = processes(server.child.id());
        let least = best.unwrap_or((f64::MAX, f64::MAX));
        best = Some((least.0.min(descriptors), least.1.min(memory)));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (descriptors, memory_mib) = best.unwrap_or_default();
    let newest = json(client, "/api/evaluations?nr=1").await?;
    let mut times = Vec::new();
    let evaluation = format!("/eval/{}", newest[0]["id"]);
    for path in ["/", "/jobset/path", &evaluation, "/queue"] {
        let page = request(path, true);
        for _ in 0..REQUESTS {
            let began = Instant::now();
            client.ask(&page).await.map_err(failed)?;
            times.push(milliseconds(began.elapsed()));
        }
    }
    times.sort_unstable_by(f64::total_cmp);
    let files = entries(&server.state);
    Ok(Point {
        pushes: f64::from(pushes),
        descriptors,
        memory_mib,
        files: f64::from(files),
        page_ms: times[times.len() / 2],
    })
}

/// Files and folders below a folder.
fn entries(folder: &Path) -> u32 {
    let found = std::fs::read_dir(folder).into_iter().flatten().flatten();
    found
        .map(|entry| {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            1 + if is_folder { entries(&entry.path()) } else { 0 }
        })
        .sum()
}

/// Descriptors and MiB of private memory of a process and of all that came of it.
fn processes(root: u32) -> (f64, f64) {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let status = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // After the name, which may hold anything: state, parent.
        let parent = status.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
        if let Some(parent) = parent.and_then(|parent| parent.parse().ok()) {
            children.entry(parent).or_default().push(id);
        }
    }
    let (mut descriptors, mut kib, mut open) = (0_usize, 0.0, vec![root]);
    while let Some(id) = open.pop() {
        open.extend(children.get(&id).into_iter().flatten());
        let folder = PathBuf::from(format!("/proc/{id}"));
        descriptors += std::fs::read_dir(folder.join("fd")).map_or(0, Iterator::count);
        let status = std::fs::read_to_string(folder.join("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        kib +=
            line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<f64>().ok()).unwrap_or(0.0);
    }
    (descriptors as f64, kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(files: impl Fn(u32) -> f64) -> Vec<Point> {
        let point =
            |pushes| Point { pushes: f64::from(pushes), files: files(pushes), ..Point::default() };
        (1..=40).map(|number| point(number * 25)).collect()
    }

    #[test]
    fn what_rises_and_falls_does_not_grow_and_what_only_rises_does() {
        let [_, _, files, _] = &KINDS;
        let saw = line(files, &points(|pushes| 1000.0 + f64::from(pushes % 300)));
        assert!(!saw.grows, "{saw:?}");
        let leak = line(files, &points(|pushes| 100.0 + f64::from(pushes)));
        assert!(leak.grows, "{leak:?}");
        assert!((leak.slope_per_1000_pushes - 1000.0).abs() < 0.01, "{leak:?}");
        let [descriptors, ..] = &KINDS;
        let few = |pushes| Point { pushes, descriptors: 50.0 + pushes / 200.0, ..Point::default() };
        let few: Vec<Point> = (1..=40).map(|number| few(f64::from(number) * 25.0)).collect();
        assert!(line(descriptors, &few).grows);
    }
}
