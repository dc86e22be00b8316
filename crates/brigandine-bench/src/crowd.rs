//! `brigandine-bench crowd`: whether the server stays quick while everybody uses it.
//!
//! The server is the real one, in a process of its own, on many sample builds and as many waiting ones as there are
//! writers. Each writer cancels and restarts a build of its own over HTTP; each reader requests pages and lists. At the
//! same time `brigandine backup` copies the database again and again, and another process holds a read transaction on
//! the database's file from the beginning to the end.
//!
//! Each client has a schedule: if a request has to wait for the previous answer, its time counts from its scheduled
//! time, so a stall cannot hide by lowering the rate. How late the server's tasks are woken is what the server says of
//! itself in `/metrics`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use brigandine::{StateDir, model, store};
use rusqlite::{Connection as File, OpenFlags};
use serde::Serialize;
use serde_json::Value;

use crate::builds::{commit_files, git};
use crate::cli::Crowd;
use crate::client::{Connection, request};
use crate::output::{Failure, failed, print_json, say};
use crate::process::{PRODUCT, Server, program};
use crate::statistics::{milliseconds, percentile, sorted};

/// The limit for the 99th percentile of the readers' requests, in milliseconds.
const P99_MAX_MS: f64 = 30.0;
/// How late a task of the server may be woken, as a bound of the histogram in `/metrics`, in seconds.
const LATE: &str = "0.01";
/// How many requests each reader sends per second, and how many changes each writer makes.
const READS_PER_S: f64 = 1.0;
const CHANGES_PER_S: f64 = 1.0;
/// How many builds run at the same time.
const RUNNING: u16 = 2;
/// The longest time until the builds of the writers are registered.
const START_MAX: Duration = Duration::from_secs(60);
/// The addresses of the clients. Each address gets a bounded number of connections.
const WRITERS: Ipv4Addr = Ipv4Addr::new(127, 0, 2, 1);
const READERS: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 2, 2), Ipv4Addr::new(127, 0, 2, 3)];
/// The name of the specification whose builds the writers change.
const NAME: &str = "crowd";
/// A constant is safe enough: no other program knows the address, which exists only on this machine and for minutes.
const TOKEN: &str = "the-token-of-a-measurement";

#[derive(Debug, Serialize)]
struct Figures {
    seconds: f64,
    readers: Row,
    writers: Row,
    /// How many copies of the database were completed.
    copies: usize,
    /// How often the server measured how late a task is woken, and how often it was later than [`LATE`].
    lag_looks: u64,
    lag_late: u64,
    /// The lines of the server's log, and those that say that something is locked.
    log_lines: usize,
    locked: Vec<String>,
}

/// What the clients of one kind got.
#[derive(Debug, Default, Serialize)]
struct Row {
    clients: u16,
    requests: usize,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    statuses: BTreeMap<u16, usize>,
}

impl Figures {
    /// A message for each promise that was not kept.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, row, expected) in
            [("readers", &self.readers, &[200][..]), ("writers", &self.writers, &[200, 202, 409])]
        {
            for (status, count) in row.statuses.iter().filter(|(it, _)| !expected.contains(it)) {
                problems.push(format!("{count} answers to {name} were {status}"));
            }
        }
        if self.readers.p99_ms > P99_MAX_MS {
            problems.push(format!("p99 of {:.1} ms, above {P99_MAX_MS}", self.readers.p99_ms));
        }
        if self.lag_late > 0 {
            problems.push(format!("{} times a task was woken later than {LATE} s", self.lag_late));
        }
        if self.copies == 0 {
            problems.push("no copy of the database was completed".to_owned());
        }
        problems.extend(self.locked.iter().map(|line| format!("the log says: {line}")));
        problems
    }

    fn print(&self) {
        say(&format!(
            "{:.0} s; {} copies of the database; a task was woken late {} of {} times; {} lines of log, {} of locks",
            self.seconds,
            self.copies,
            self.lag_late,
            self.lag_looks,
            self.log_lines,
            self.locked.len()
        ));
        say(&format!(
            "{:<10} {:>8} {:>9} {:>8} {:>8} {:>8}  statuses",
            "", "clients", "requests", "p50 ms", "p99 ms", "max ms"
        ));
        for (name, row) in [("readers", &self.readers), ("writers", &self.writers)] {
            let mut statuses = String::new();
            for (status, count) in &row.statuses {
                let _ = write!(statuses, " {status}: {count}");
            }
            say(&format!(
                "{name:<10} {:>8} {:>9} {:>8.2} {:>8.2} {:>8.2} {statuses}",
                row.clients, row.requests, row.p50_ms, row.p99_ms, row.max_ms
            ));
        }
    }
}

/// Measures, and prints the figures.
///
/// # Errors
/// The server cannot be started, or a promise was not kept.
pub(crate) fn run(arguments: &Crowd) -> Result<(), Failure> {
    let temporary = tempfile::tempdir()?;
    let directory = temporary.path();
    let state = directory.join("state");
    eprintln!("making {} sample builds", arguments.builds);
    store::make_sample(i64::from(arguments.builds), &state, model::now(), &|_| ())?;
    prepare(directory, arguments.writers)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let samples = runtime.block_on(crate::samples::choose(&state))?;
    let pages = Arc::new(crate::strangers::pages(&samples));
    let log = directory.join("log");
    let server = start(directory, &log)?;
    let holder = hold(&state)?;
    let mut figures = runtime.block_on(measure(arguments, &server, directory, &pages))?;
    holder.stop()?;
    server.terminate()?;
    let log = std::fs::read_to_string(&log)?;
    figures.log_lines = log.lines().count();
    figures.locked =
        log.lines().filter(|line| is_of_locks(line)).take(10).map(str::to_owned).collect();
    if arguments.json {
        print_json(&figures);
    } else {
        figures.print();
    }
    let problems = figures.problems();
    if problems.is_empty() { Ok(()) } else { Err(failed(problems.join("; "))) }
}

fn is_of_locks(line: &str) -> bool {
    line.to_ascii_lowercase().contains("locked")
}

/// Makes the server's files, and a repository with a job for each writer.
fn prepare(directory: &Path, writers: u16) -> Result<(), Failure> {
    let repository = directory.join("repository");
    git(directory, &["init", "--quiet", "--initial-branch=main", "repository"])?;
    let mut jobs = String::new();
    for number in 0..writers {
        let _ = write!(jobs, "[[job]]\nname = \"job-{number}\"\ncommand = \"exec sleep 3600\"\n");
    }
    commit_files(&repository, &[("brigandine.toml", &jobs)])?;
    let specification = format!(
        "[[specification]]\nname = \"{NAME}\"\ninterval = \"1h\"\n\
         [[specification.input]]\nname = \"source\"\nurl = \"{}\"\nbranch = \"main\"\n",
        repository.display()
    );
    std::fs::write(directory.join("specifications.toml"), specification)?;
    let token = directory.join("token");
    std::fs::write(&token, TOKEN)?;
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600))?;
    let config = "[limits]\nbuild-grace = \"1s\"\n[web]\ntoken-file = \"token\"\n";
    Ok(std::fs::write(directory.join("config.toml"), config)?)
}

/// Starts the measured server, whose log goes to a file.
fn start(directory: &Path, log: &Path) -> Result<Server, Failure> {
    let path = |name: &str| directory.join(name);
    // The server's log has all that an operator would see.
    let mut command = Command::new("env");
    command.arg("RUST_LOG=info").arg(std::env::current_exe()?);
    command.args([PRODUCT, "serve", "--listen", "127.0.0.1:0", "--sandbox=off"]);
    command.args(["--max-jobs", &RUNNING.to_string(), "--config"]);
    command.arg(path("config.toml")).arg("--specifications").arg(path("specifications.toml"));
    command.arg("--state").arg(path("state"));
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    command.stderr(std::fs::File::create(log)?);
    Server::start(command).map_err(|_| {
        let said = std::fs::read_to_string(log).unwrap_or_default();
        failed(format!("the measured server did not start: {}", said.trim()))
    })
}

/// Starts the process that holds a read transaction.
fn hold(state: &Path) -> Result<Holder, Failure> {
    let mut command = program(&["hold", "--state"])?;
    let child = command.arg(state).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    Ok(Holder { child })
}

/// Another process that holds a read transaction until its standard input ends.
struct Holder {
    child: std::process::Child,
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Holder {
    /// Ends the transaction and the process.
    fn stop(mut self) -> Result<(), Failure> {
        drop(self.child.stdin.take());
        if self.child.wait()?.success() {
            Ok(())
        } else {
            Err(failed("the process that holds a read transaction failed"))
        }
    }
}

/// Holds a read transaction on the database below `state` until standard input ends.
pub(crate) fn hold_until_told(state: &Path) -> Result<(), Failure> {
    let file = StateDir::new(state).database();
    let file = File::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    file.execute_batch("BEGIN")?;
    // A transaction has its snapshot from its first read on.
    let builds = "SELECT ifnull(max(id), 0) FROM build";
    let before: i64 = file.query_row(builds, [], |row| row.get(0))?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    let after: i64 = file.query_row(builds, [], |row| row.get(0))?;
    if before == after { Ok(()) } else { Err(failed("the snapshot has changed")) }
}

async fn measure(
    arguments: &Crowd,
    server: &Server,
    directory: &Path,
    pages: &Arc<Vec<Vec<u8>>>,
) -> Result<Figures, Failure> {
    let address: SocketAddr = server.address.parse()?;
    let builds = waiting(address, usize::from(arguments.writers)).await?;
    let time = Duration::from_secs_f64(arguments.seconds);
    let before = lag(address).await?;
    let began = Instant::now();
    let copying = tokio::task::spawn_blocking({
        let directory = directory.to_owned();
        move || copy_until(&directory, began + time)
    });
    let mut readers = tokio::task::JoinSet::new();
    for number in 0..arguments.readers {
        let pages = Arc::clone(pages);
        let from = READERS[usize::from(number) % READERS.len()];
        let schedule = Schedule::new(began, time, READS_PER_S, number, arguments.readers);
        let next = move |turn: usize| {
            let at = usize::from(number) * 7 + turn;
            pages[at % pages.len()].clone()
        };
        readers.spawn(ask(from, address, schedule, next));
    }
    let mut writers = tokio::task::JoinSet::new();
    for (number, build) in (0..arguments.writers).zip(builds) {
        let schedule = Schedule::new(began, time, CHANGES_PER_S, number, arguments.writers);
        let next = move |turn: usize| {
            let change = if turn.is_multiple_of(2) { "cancel" } else { "restart" };
            change_of(address, build, change)
        };
        writers.spawn(ask(WRITERS, address, schedule, next));
    }
    let readers = row(arguments.readers, readers).await?;
    let writers = row(arguments.writers, writers).await?;
    let seconds = began.elapsed().as_secs_f64();
    let after = lag(address).await?;
    let copies = copying.await??;
    Ok(Figures {
        seconds,
        readers,
        writers,
        copies,
        lag_looks: after.looks.saturating_sub(before.looks),
        lag_late: after.late().saturating_sub(before.late()),
        log_lines: 0,
        locked: Vec::new(),
    })
}

/// Waits until so many builds are in the queue, and returns their ids.
async fn waiting(address: SocketAddr, count: usize) -> Result<Vec<i64>, Failure> {
    let began = Instant::now();
    let mut client = Connection::open(&address.to_string()).await?;
    loop {
        let path = format!("/api/queue?nr=1000&jobset={NAME}");
        let queue: Value = serde_json::from_slice(client.ask(&request(&path, false)).await?)?;
        let builds = queue.as_array().map_or(&[][..], Vec::as_slice);
        let ids: Vec<i64> = builds.iter().filter_map(|build| build["id"].as_i64()).collect();
        if ids.len() >= count {
            return Ok(ids);
        }
        if began.elapsed() > START_MAX {
            return Err(failed(format!("{} builds wait instead of {count}", ids.len())));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Copies the database again and again. Returns the number of copies that were completed.
fn copy_until(directory: &Path, end: Instant) -> Result<usize, Failure> {
    let mut copies = 0;
    while Instant::now() < end {
        let target: PathBuf = directory.join(format!("copy-{copies}"));
        let mut command = program(&[PRODUCT, "backup", "--state"])?;
        command.arg(directory.join("state")).arg(&target).stdin(Stdio::null());
        let done = command.env("RUST_LOG", "error").output()?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
            return Err(failed(format!("backup: {said}")));
        }
        std::fs::remove_dir_all(&target)?;
        copies += 1;
    }
    Ok(copies)
}

/// When a client sends its requests.
struct Schedule {
    first: Instant,
    end: Instant,
    pause: Duration,
}

impl Schedule {
    /// The clients of one kind begin one after the other within the first pause.
    fn new(began: Instant, time: Duration, per_s: f64, number: u16, clients: u16) -> Self {
        let pause = Duration::from_secs_f64(1.0 / per_s);
        let share = f64::from(number) / f64::from(clients.max(1));
        Self { first: began + pause.mul_f64(share), end: began + time, pause }
    }
}

/// What a client got: the milliseconds and the status of each answer.
type Answers = Vec<(f64, u16)>;

/// Sends the requests that `next` makes for each turn.
async fn ask(
    from: Ipv4Addr,
    address: SocketAddr,
    schedule: Schedule,
    next: impl Fn(usize) -> Vec<u8>,
) -> Result<Answers, std::io::Error> {
    let mut connection = Connection::open_from(from, address).await?;
    let (mut answers, mut due) = (Vec::new(), schedule.first);
    while due < schedule.end {
        tokio::time::sleep_until(due.into()).await;
        let status = connection.answer(&next(answers.len())).await?.status;
        answers.push((milliseconds(due.elapsed()), status));
        due += schedule.pause;
    }
    Ok(answers)
}

async fn row(
    clients: u16,
    mut tasks: tokio::task::JoinSet<Result<Answers, std::io::Error>>,
) -> Result<Row, Failure> {
    let (mut times, mut statuses) = (Vec::new(), BTreeMap::new());
    while let Some(answers) = tasks.join_next().await {
        for (time, status) in answers?? {
            times.push(time);
            *statuses.entry(status).or_default() += 1;
        }
    }
    let times = sorted(times);
    Ok(Row {
        clients,
        requests: times.len(),
        p50_ms: percentile(&times, 50),
        p99_ms: percentile(&times, 99),
        max_ms: percentile(&times, 100),
        statuses,
    })
}

/// A request for a change of a build.
fn change_of(address: SocketAddr, build: i64, change: &str) -> Vec<u8> {
    format!(
        "POST /api/v1/build/{build}/{change} HTTP/1.1\r\nhost: {address}\r\n\
         authorization: Bearer {TOKEN}\r\ncontent-length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// What `/metrics` says of how late tasks are woken.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lag {
    looks: u64,
    in_time: u64,
}

impl Lag {
    fn late(&self) -> u64 {
        self.looks.saturating_sub(self.in_time)
    }
}

async fn lag(address: SocketAddr) -> Result<Lag, Failure> {
    let mut client = Connection::open(&address.to_string()).await?;
    let text = client.ask(&request("/metrics", false)).await?;
    lag_in(&String::from_utf8_lossy(text)).ok_or_else(|| failed("/metrics does not tell the lag"))
}

fn lag_in(metrics: &str) -> Option<Lag> {
    let number = |name: String| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name))?;
        line.trim().parse().ok()
    };
    let name = "brigandine_scheduler_lag_seconds";
    Some(Lag {
        looks: number(format!("{name}_count "))?,
        in_time: number(format!("{name}_bucket{{le=\"{LATE}\"}} "))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_is_read_from_the_metrics() {
        let text = "# TYPE brigandine_scheduler_lag_seconds histogram\n\
            brigandine_scheduler_lag_seconds_bucket{le=\"0.005\"} 7\n\
            brigandine_scheduler_lag_seconds_bucket{le=\"0.01\"} 8\n\
            brigandine_scheduler_lag_seconds_bucket{le=\"+Inf\"} 10\n\
            brigandine_scheduler_lag_seconds_sum 0.5\n\
            brigandine_scheduler_lag_seconds_count 10\n";
        let lag = lag_in(text).expect("a lag");
        assert_eq!((lag.looks, lag.late()), (10, 2));
        assert_eq!(lag_in("brigandine_up 1\n"), None);
    }

    #[test]
    fn every_promise_that_is_not_kept_is_told() {
        let row = |statuses: &[(u16, usize)], p99_ms| Row {
            statuses: statuses.iter().copied().collect(),
            p99_ms,
            ..Row::default()
        };
        let good = Figures {
            seconds: 1.0,
            readers: row(&[(200, 9)], 3.0),
            writers: row(&[(200, 4), (202, 1), (409, 2)], 90.0),
            copies: 1,
            lag_looks: 1,
            lag_late: 0,
            log_lines: 3,
            locked: Vec::new(),
        };
        assert!(good.problems().is_empty(), "{:?}", good.problems());
        let bad = Figures {
            readers: row(&[(200, 9), (503, 1)], 31.0),
            writers: row(&[(500, 1)], 3.0),
            copies: 0,
            lag_late: 1,
            locked: vec!["database is locked".to_owned()],
            ..good
        };
        let told = bad.problems().join("; ");
        for part in ["readers were 503", "writers were 500", "p99", "woken later", "copy", "locked"]
        {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert!(is_of_locks("Error: Database is Locked") && !is_of_locks("the block ended"));
    }
}
