//! `brigandine-bench pushes`: measures whether a resource of the server grows with the pushes that it builds.
//!
//! Two repositories on this machine are pushed to in turn. The specification of one has the repository's path, so the
//! server reads that repository itself. The other has a `file://` URL that only git can read, so that git fetches from
//! it as from another machine. Each push is evaluated, and has jobs that succeed, fail and print much. Followers of
//! build logs and pages connect during each push and disconnect at the next, whether they have read anything or not.
//! Old evaluations are deleted (`keep`), and the server may get a low limit of file descriptors.
//!
//! After every few pushes, while nothing runs, these are counted: the file descriptors and the private memory of the
//! server and all its processes, the files and folders of its state directory, and the time that its pages take.
//! Packing and pruning make the figures rise and fall, so the highest values of the two halves of the measurement are
//! compared. The first fifth is left out, because caches fill during it. The slopes are those of the lines through all
//! points.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::builds::{commit_files, git};
use crate::cli::Pushes;
use crate::client::{Connection, connect_from, request};
use crate::output::{Failure, failed, print_json, say};
use crate::process::{PRODUCT, Server, memory_mib, program};
use crate::statistics::{median, milliseconds};

/// The time limit of a push.
const PUSH_TIME_MAX: Duration = Duration::from_secs(120);
/// The number of points in a measurement, including the first fifth.
const POINTS: u32 = 40;
/// The least number of pushes between two runs of `prune`.
const PRUNE_PUSHES: u32 = 10;
/// The least and the most looks at the processes for one point.
const LOOKS: (u32, u32) = (3, 20);
/// The pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// How many requests are sent for each page at a point.
const REQUESTS: usize = 5;
/// The number of followers of each push.
const FOLLOWERS: usize = 8;
/// A constant is safe enough: no other program knows the address, which exists only on this machine and for minutes.
const TOKEN: &str = "the-token-of-a-measurement";
/// How many lines of 61 bytes the chatty job prints.
const LINES: u32 = 4_000;
/// The names of the repositories, which are also those of the specifications.
const REPOSITORIES: [&str; 2] = ["path", "url"];

/// The figures that were counted at one time.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Point {
    /// The number of pushes to each repository before this point.
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
    /// By how much the second half may exceed the first: a share of the first half's value, plus an amount.
    share: f64,
    amount: f64,
}

const KINDS: [Kind; 4] = [
    Kind { name: "descriptors", of: |point| point.descriptors, share: 0.0, amount: 2.0 },
    Kind { name: "memory (MiB)", of: |point| point.memory_mib, share: 0.03, amount: 1.5 },
    Kind { name: "files and folders", of: |point| point.files, share: 0.05, amount: 32.0 },
    Kind { name: "page (ms)", of: |point| point.page_ms, share: 0.5, amount: 1.0 },
];

/// The results for one kind of figure.
#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    first_half_max: f64,
    second_half_max: f64,
    slope_per_1000_pushes: f64,
    grows: bool,
}

/// Pushes, counts, and prints the results.
///
/// # Errors
/// A push is not built, or a figure grows.
pub(crate) fn run(arguments: &Pushes) -> Result<(), Failure> {
    let temporary = tempfile::tempdir()?;
    let points = brigandine::runtime()?.block_on(measure(arguments, temporary.path()))?;
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
    Err(failed(format!("grows with the pushes: {}", growing.join(", "))))
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
        grows: second > first * (1.0 + kind.share) + kind.amount,
    }
}

/// The slope of the least-squares line through the points.
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

/// The measured server. Its files are below `directory`.
struct Served<'path> {
    server: Server,
    directory: &'path Path,
}

impl<'path> Served<'path> {
    fn start(directory: &'path Path, descriptors: u32) -> Result<Self, Failure> {
        let path = |name: &str| directory.join(name);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("ulimit -n {descriptors}; exec \"$@\""), "sh"]);
        command.arg(std::env::current_exe()?);
        command.args([PRODUCT, "serve", "--listen", "127.0.0.1:0", "--sandbox=off", "--config"]);
        command.arg(path("config.toml")).arg("--specifications").arg(path("specifications.toml"));
        command.arg("--state").arg(path("state"));
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        Ok(Self { server: Server::start(command)?, directory })
    }

    /// Requests a look at the inputs of the specification `name`.
    async fn evaluate(&self, name: &str) -> Result<(), Failure> {
        let address = &self.server.address;
        let mut socket = TcpStream::connect(address).await?;
        let text = format!(
            "POST /api/v1/jobset/{name}/evaluate HTTP/1.1\r\nhost: {address}\r\n\
             authorization: Bearer {TOKEN}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        socket.write_all(text.as_bytes()).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        if answer.starts_with("HTTP/1.1 2") {
            return Ok(());
        }
        Err(failed(answer.lines().next().unwrap_or("no answer to a request for a look")))
    }

    /// Runs `brigandine prune`, which deletes what retention does not keep.
    fn prune(&self) -> Result<(), Failure> {
        let mut command = program(&[PRODUCT, "prune", "--config"])?;
        command.arg(self.directory.join("config.toml"));
        command.arg("--state").arg(self.directory.join("state"));
        let done = command.stdin(Stdio::null()).output()?;
        if done.status.success() {
            return Ok(());
        }
        Err(failed(format!("prune: {}", String::from_utf8_lossy(&done.stderr).trim())))
    }
}

async fn measure(arguments: &Pushes, directory: &Path) -> Result<Vec<Point>, Failure> {
    prepare(directory)?;
    let served = Served::start(directory, arguments.descriptors)?;
    let mut client = Connection::open(&served.server.address).await?;
    let mut followers = Vec::new();
    let mut points: Vec<Point> = Vec::new();
    let all = arguments.pushes * 2;
    let step = all / POINTS;
    let (mut done, mut pruned) = (0_u32, 0);
    for number in 1..=arguments.pushes {
        for name in REPOSITORIES {
            let revision = push(directory, name, number)?;
            served.evaluate(name).await?;
            built(&mut client, name, &revision, &served.server.address, &mut followers).await?;
            done += 1;
            if !done.is_multiple_of(step) {
                continue;
            }
            followers.clear();
            if done - pruned >= PRUNE_PUSHES {
                pruned = done;
                served.prune()?;
            }
            if done * 5 > all {
                let last = points.last().map_or(0.0, |point| point.descriptors);
                let pushes = f64::from(done) / 2.0;
                let point = count(&served, &mut client, last).await?;
                points.push(Point { pushes, ..point });
            }
        }
    }
    drop(client);
    served.server.terminate()?;
    Ok(points)
}

/// Makes the repositories and the server's files.
fn prepare(directory: &Path) -> Result<(), Failure> {
    let mut specifications = String::new();
    for name in REPOSITORIES {
        git(directory, &["init", "--quiet", "--initial-branch=main", name])?;
        push(directory, name, 0)?;
        let path = directory.join(name).display().to_string();
        // The last letter (`l`) of the URL is percent-encoded, so that the server does not read the repository by its
        // path.
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
    std::fs::write(directory.join("specifications.toml"), specifications)?;
    let token = directory.join("token");
    std::fs::write(&token, TOKEN)?;
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600))?;
    // Few evaluations are kept, so that even a short measurement deletes some.
    let config = "[keep]\nevaluations = 5\n[web]\ntoken-file = \"token\"\n";
    Ok(std::fs::write(directory.join("config.toml"), config)?)
}

/// Commits a revision with three jobs, and returns the revision.
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
    Ok(String::from_utf8_lossy(&head?.stdout).trim().to_owned())
}

async fn json(client: &mut Connection, path: &str) -> Result<Value, Failure> {
    Ok(serde_json::from_slice(client.ask(&request(path, false)).await?)?)
}

/// Waits until a revision is evaluated and no build is pending. Followers connect for its builds; they replace the
/// followers of the previous push.
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
            let jobs = jobs.as_array().into_iter().flatten();
            let end = |job: &Value| (job["name"].to_string(), job["status"].as_i64().unwrap_or(-9));
            let ends: BTreeMap<_, _> = jobs.map(end).collect();
            let ends: Vec<i64> = ends.into_values().collect();
            // The order is that of the names: chatty, failing, fine.
            return if ends == [0, 1, 0] {
                Ok(())
            } else {
                Err(failed(format!("the builds of {revision} of `{name}` ended with {ends:?}")))
            };
        }
        if began.elapsed() > PUSH_TIME_MAX {
            let waiting = queue.len();
            return Err(failed(format!(
                "{revision} of `{name}` is not built: the newest evaluation is {newest}, {waiting} builds wait"
            )));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Connects followers of a build log and of pages. Every second follower reads something.
async fn follow(address: &str, build: i64) -> Result<Vec<TcpStream>, Failure> {
    let mut all = Vec::new();
    for number in 0..FOLLOWERS {
        let path = match number % 3 {
            0 => format!("/build/{build}/log/raw"),
            1 => format!("/build/{build}/log/live"),
            _ => "/live".to_owned(),
        };
        // Each follower has an address of its own, so that it does not use up the connections of the measuring client.
        let client = Ipv4Addr::new(127, 0, 1, u8::try_from(number).unwrap_or(u8::MAX));
        let mut socket = connect_from(client, address.parse()?).await?;
        socket.write_all(&request(&path, true)).await?;
        if number % 2 == 0 {
            let mut some = [0; 1024];
            let read = tokio::time::timeout(Duration::from_millis(20), socket.read(&mut some));
            // The result is ignored, because nothing comes while a page does not change.
            let _ = read.await;
        }
        all.push(socket);
    }
    Ok(all)
}

/// Counts while nothing runs. `last` is the number of file descriptors at the last point.
async fn count(served: &Served<'_>, client: &mut Connection, last: f64) -> Result<Point, Failure> {
    let (mut descriptors, mut memory_mib) = (f64::MAX, f64::MAX);
    for look in 1..=LOOKS.1 {
        let found = processes(served.server.id());
        (descriptors, memory_mib) = (descriptors.min(found.0), memory_mib.min(found.1));
        // The server soon closes its side of connections that clients have closed. If there are more descriptors than
        // before, the count may include such connections, so it is repeated.
        if look >= LOOKS.0 && descriptors <= last {
            break;
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    let newest = json(client, "/api/evaluations?nr=1").await?;
    let mut times = Vec::new();
    let evaluation = format!("/eval/{}", newest[0]["id"]);
    for path in ["/", "/jobset/path", &evaluation, "/queue"] {
        let page = request(path, true);
        for _ in 0..REQUESTS {
            let began = Instant::now();
            client.ask(&page).await?;
            times.push(milliseconds(began.elapsed()));
        }
    }
    let files = f64::from(entries(&served.directory.join("state")));
    Ok(Point { descriptors, memory_mib, files, page_ms: median(times), ..Point::default() })
}

/// The number of files and folders below a folder.
fn entries(folder: &Path) -> u32 {
    let found = std::fs::read_dir(folder).into_iter().flatten().flatten();
    found
        .map(|entry| {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            1 + if is_folder { entries(&entry.path()) } else { 0 }
        })
        .sum()
}

/// The number of file descriptors, and the MiB of private memory, of a process and all its descendants.
fn processes(root: u32) -> (f64, f64) {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let status = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The state and the parent come after the name, which may contain any character.
        let parent = status.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
        if let Some(parent) = parent.and_then(|parent| parent.parse().ok()) {
            children.entry(parent).or_default().push(id);
        }
    }
    let (mut descriptors, mut memory, mut open) = (0_usize, 0.0, vec![root]);
    while let Some(id) = open.pop() {
        open.extend(children.get(&id).into_iter().flatten());
        let folder = PathBuf::from(format!("/proc/{id}/fd"));
        descriptors += std::fs::read_dir(folder).map_or(0, Iterator::count);
        memory += memory_mib(id, "RssAnon");
    }
    (descriptors as f64, memory)
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
