//! Measures peers in turn, each in a process of its own, and keeps what they say.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use measure::{Answer, Figures, Job, Synchronous, Workload, person, sql};
use rusqlite::Connection;

use crate::data::{Measurement, Run, name};
use crate::machine::{self, Machine};
use crate::place::Place;
use crate::{Result, report};

/// After this a peer's process is ended; the longest workload takes half of it.
const PROCESS_MAX: Duration = Duration::from_secs(60);

/// Where a peer's code lives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Binary {
    /// In the lab itself.
    Lab,
    /// In a workspace of its own below `peers/`, and the name of the program.
    Own(&'static str, &'static str),
}

struct Known {
    name: &'static str,
    /// The crate whose version is told, if it is not the lab's own code on rusqlite.
    krate: &'static str,
    binary: Binary,
}

const POOLS: Binary = Binary::Own("pools", "pools");
const SQLX: Binary = Binary::Own("sqlx", "sqlx-peer");

const KNOWN: [Known; 12] = [
    Known { name: "lockkeeper", krate: "lockkeeper", binary: Binary::Lab },
    Known { name: "lockkeeper-short", krate: "lockkeeper", binary: Binary::Lab },
    Known { name: "raw", krate: "rusqlite", binary: Binary::Lab },
    Known { name: "naive", krate: "rusqlite", binary: Binary::Lab },
    Known { name: "mutex", krate: "rusqlite", binary: Binary::Lab },
    Known { name: "tokio-rusqlite", krate: "tokio-rusqlite", binary: POOLS },
    Known { name: "async-sqlite", krate: "async-sqlite", binary: Binary::Lab },
    Known { name: "async-sqlite-1", krate: "async-sqlite", binary: Binary::Lab },
    Known { name: "deadpool", krate: "deadpool-sqlite", binary: POOLS },
    Known { name: "r2d2", krate: "r2d2_sqlite", binary: POOLS },
    Known { name: "retry", krate: "rusqlite", binary: Binary::Lab },
    Known { name: "sqlx", krate: "sqlx", binary: SQLX },
];

/// Command line of `lab bench`.
#[derive(Args)]
pub(crate) struct Options {
    /// tiny-writes, point-reads, mixed, stall, fairness, long-scan, cancel, bulk, read-page; or `build`, which only builds the peers.
    workload: String,
    /// Who: lockkeeper, lockkeeper-short (point reads), raw, naive, mutex, tokio-rusqlite, async-sqlite, async-sqlite-1, deadpool, r2d2, retry, sqlx. Default: all that the workload means something for.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// How many tasks, or dropped queries.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    tasks: Option<u32>,
    /// full or normal.
    #[arg(long, default_value = "full", value_parser = synchronous)]
    synchronous: Synchronous,
    /// How long each measurement lasts, after a warm-up of a quarter of it (0.75 s at least where rows
    /// are looked up).
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,
    /// How often each peer is measured, in turn with the others.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// Keeps everything for `plot` and `compare`.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn synchronous(text: &str) -> Result<Synchronous, String> {
    match text.to_ascii_lowercase().as_str() {
        "full" => Ok(Synchronous::Full),
        "normal" => Ok(Synchronous::Normal),
        _ => Err("full or normal".to_owned()),
    }
}

/// A time that a measurement may last.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.05..=20.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0.05 to 20".to_owned()),
    }
}

/// One line of the plan: what, and by whom.
pub(crate) struct Item {
    pub(crate) workload: Workload,
    pub(crate) tasks: usize,
    pub(crate) synchronous: Synchronous,
    pub(crate) peers: Vec<String>,
    /// Rounds at most, where fewer are enough.
    pub(crate) rounds_max: u32,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.workload == "build" {
        for known in &KNOWN {
            program(known.binary)?;
        }
        return Ok(());
    }
    let workload = Workload::ALL
        .into_iter()
        .find(|workload| workload.name() == options.workload)
        .ok_or_else(|| {
        let names = Workload::ALL.map(Workload::name).join(", ");
        format!("there is no workload `{}`; there are: {names}", options.workload)
    })?;
    let peers = if options.peers.is_empty() { peers_of(workload) } else { options.peers.clone() };
    let item = Item {
        workload,
        tasks: options.tasks.map_or(workload.default_tasks(), |tasks| tasks as usize),
        synchronous: options.synchronous,
        peers,
        rounds_max: u32::MAX,
    };
    let words: Vec<String> = std::env::args().skip(1).collect();
    let run = measure(&[item], options.seconds, options.repeat, &words.join(" "))?;
    println!("{}", report::tables(&run));
    if let Some(file) = &options.json {
        run.save(file)?;
    }
    Ok(())
}

/// All peers that a workload means something for.
pub(crate) fn peers_of(workload: Workload) -> Vec<String> {
    let means = |name: &str| match name {
        "naive" => workload == Workload::Stall,
        "lockkeeper-short" => workload == Workload::PointReads,
        "raw" => !matches!(workload, Workload::Stall | Workload::Fairness | Workload::Cancel),
        _ => true,
    };
    KNOWN.iter().map(|known| known.name).filter(|n| means(n)).map(str::to_owned).collect()
}

/// Measures a plan: round by round, so that a slow minute of the machine meets everybody alike.
pub(crate) fn measure(plan: &[Item], seconds: f64, repeat: u32, command: &str) -> Result<Run> {
    let mut programs = BTreeMap::new();
    let mut peers = BTreeMap::new();
    for peer in plan.iter().flat_map(|item| &item.peers) {
        let known = KNOWN.iter().find(|known| known.name == peer).ok_or_else(|| {
            let names = KNOWN.each_ref().map(|known| known.name).join(", ");
            format!("there is no peer `{peer}`; there are: {names}")
        })?;
        if !programs.contains_key(peer) {
            programs.insert(peer.clone(), program(known.binary)?);
            peers.insert(peer.clone(), version(known));
        }
    }
    let files = Files::make(plan)?;
    let mut run = Run {
        date: machine::date(),
        commit: machine::commit(),
        command: command.to_owned(),
        machine: Machine::look(files.place.file("").as_path())?,
        peers,
        measurements: Vec::new(),
    };
    for item in plan {
        for peer in &item.peers {
            run.measurements.push(Measurement {
                workload: item.workload,
                tasks: item.tasks,
                synchronous: item.synchronous,
                seconds,
                peer: peer.clone(),
                rounds: Vec::new(),
                failed: Vec::new(),
            });
        }
    }
    let began = Instant::now();
    for round in 0..repeat as usize {
        let mut next = 0;
        for item in plan {
            let count = item.peers.len();
            let first = next;
            next += count;
            if round >= item.rounds_max as usize {
                continue;
            }
            eprintln!(
                "{:>4} s: round {} of {repeat}: {}",
                began.elapsed().as_secs(),
                round + 1,
                name((item.workload, item.synchronous, item.tasks))
            );
            // Each round begins with another peer.
            for n in (0..count).map(|n| (n + round) % count) {
                let measurement = &mut run.measurements[first + n];
                let program = &programs[&measurement.peer];
                match one(program, &files, measurement) {
                    Ok(figures) => measurement.rounds.push(figures),
                    Err(error) => {
                        eprintln!("        {}: {error}", measurement.peer);
                        measurement.failed.push(error.to_string());
                    }
                }
            }
        }
    }
    for m in &run.measurements {
        if let (Some(figures), Some(version)) = (m.rounds.first(), run.peers.get_mut(&m.peer))
            && !version.contains("SQLite")
        {
            version.push_str(&format!(", SQLite {}", figures.sqlite));
        }
    }
    Ok(run)
}

/// One measurement: a database, a process, its answer, and a look into the file.
fn one(program: &Path, files: &Files, what: &Measurement) -> Result<Figures> {
    let file = files.get(what.workload)?;
    let job = Job {
        workload: what.workload,
        peer: what.peer.clone(),
        tasks: what.tasks,
        synchronous: what.synchronous,
        seconds: what.seconds,
        file: file.clone(),
        lab: std::env::current_exe()?,
    };
    let rows = rows(&file, what.workload)?;
    let figures = ask(program, &job);
    let stored = match &figures {
        Ok(_) => self::rows(&file, what.workload).map(|now| now - rows),
        Err(_) => Ok(0),
    };
    files.done(what.workload, &file)?;
    let (mut figures, stored) = (figures?, stored?);
    if stored < figures.answered_writes {
        figures.failed(format!(
            "{} writes were answered, {stored} are stored",
            figures.answered_writes
        ));
    }
    Ok(figures)
}

fn ask(program: &Path, job: &Job) -> Result<Figures> {
    let mut command = Command::new(program);
    if program == job.lab {
        command.arg("measure");
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
    let (Some(mut to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("the peer's process has no pipes".into());
    };
    let (said, hears) = std::sync::mpsc::sync_channel(1);
    let reader = std::thread::Builder::new().name("answer".to_owned()).spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(from).read_line(&mut line);
        let _ = said.send(read.map(|_| line));
    })?;
    let told = writeln!(to, "{}", serde_json::to_string(job)?);
    let answer = hears.recv_timeout(PROCESS_MAX);
    // It ends by itself after its answer; without one it is ended.
    if answer.is_err() {
        child.kill()?;
    }
    let status = child.wait()?;
    reader.join().map_err(|_| "the thread that reads the answer panicked")?;
    told?;
    let line = answer.map_err(|_| format!("no answer in {} s", PROCESS_MAX.as_secs()))??;
    if line.is_empty() {
        return Err(format!("the peer's process ended without an answer: {status}").into());
    }
    match serde_json::from_str(&line)? {
        Answer::Figures(figures) => Ok(*figures),
        Answer::Failed(error) => Err(error.into()),
    }
}

/// The databases: made once, copied where a workload writes to a filled one.
struct Files {
    place: Place,
    next: std::cell::Cell<u32>,
}

impl Files {
    fn make(plan: &[Item]) -> Result<Self> {
        let files = Self { place: Place::new()?, next: std::cell::Cell::new(0) };
        std::fs::create_dir_all(files.place.file(""))?;
        let mut made = Vec::new();
        for name in plan.iter().map(|item| template(item.workload)) {
            if made.contains(&name) {
                continue;
            }
            let mut conn = Connection::open(files.place.file(name))?;
            conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
            let tx = conn.transaction()?;
            match name {
                "page" => fill_page(&tx)?,
                "people" => {
                    tx.execute_batch(sql::PERSON)?;
                    let mut insert = tx.prepare(sql::INSERT)?;
                    for n in 0..sql::PEOPLE {
                        insert.execute((person(n), 1))?;
                    }
                }
                _ => tx.execute_batch(sql::PERSON)?,
            }
            tx.commit()?;
            conn.close().map_err(|(_, error)| error)?;
            made.push(name);
        }
        Ok(files)
    }

    fn get(&self, workload: Workload) -> Result<PathBuf> {
        let from = self.place.file(template(workload));
        if is_only_read(workload) {
            return Ok(from);
        }
        let n = self.next.replace(self.next.get() + 1);
        let to = self.place.file(&format!("{n}.db"));
        std::fs::copy(from, &to)?;
        // What the copy left to the disk would be written while a peer is measured.
        std::fs::File::open(&to)?.sync_all()?;
        Ok(to)
    }

    fn done(&self, workload: Workload, file: &Path) -> Result<()> {
        if is_only_read(workload) {
            return Ok(());
        }
        for ending in ["", "-wal", "-shm"] {
            let mut name = file.as_os_str().to_owned();
            name.push(ending);
            match std::fs::remove_file(&name) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn template(workload: Workload) -> &'static str {
    match workload {
        Workload::PointReads | Workload::Mixed | Workload::LongScan => "people",
        Workload::ReadPage => "page",
        Workload::TinyWrites
        | Workload::Stall
        | Workload::Fairness
        | Workload::Cancel
        | Workload::Bulk => "empty",
    }
}

fn is_only_read(workload: Workload) -> bool {
    matches!(workload, Workload::PointReads | Workload::LongScan)
}

fn fill_page(tx: &Connection) -> Result<()> {
    tx.execute_batch(sql::PAGE_SCHEMA)?;
    let mut project = tx.prepare("INSERT INTO project (id, name, builds) VALUES (?1, ?2, ?3)")?;
    for n in 0..sql::PROJECTS {
        let builds = sql::BUILDS.cast_signed();
        project.execute(((n + 1).cast_signed(), sql::project(n), builds))?;
    }
    let mut build = tx.prepare(sql::ADD_BUILD)?;
    for n in 0..sql::PROJECTS * sql::BUILDS {
        let n = n.cast_signed();
        let projects = sql::PROJECTS.cast_signed();
        build.execute((n % projects + 1, (n / projects) % 4, 30 + n % 60))?;
    }
    Ok(())
}

/// Rows of the table that the workload writes.
fn rows(file: &Path, workload: Workload) -> Result<u64> {
    if is_only_read(workload) {
        return Ok(0);
    }
    let table = if workload == Workload::ReadPage { "build" } else { "person" };
    let conn = Connection::open(file)?;
    let rows: i64 =
        conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
    Ok(rows.cast_unsigned())
}

/// The program of a peer, built if need be.
fn program(binary: Binary) -> Result<PathBuf> {
    let Binary::Own(workspace, name) = binary else { return Ok(std::env::current_exe()?) };
    let lab = Path::new(env!("CARGO_MANIFEST_DIR"));
    // One target directory for all, so that what they share is compiled once.
    let target = lab.join("target");
    let status = Command::new("cargo")
        .args(["build", "--release", "--locked", "--quiet", "--manifest-path"])
        .arg(lab.join("peers").join(workspace).join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .status()
        .map_err(|error| format!("cannot start cargo to build {name}: {error}"))?;
    if !status.success() {
        return Err(format!("cargo could not build {name}: {status}").into());
    }
    Ok(target.join("release").join(name))
}

/// Name and version of the peer's crate, from the lock file that it was built with.
fn version(known: &Known) -> String {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = match known.binary {
        Binary::Lab => lab.join("Cargo.lock"),
        Binary::Own(workspace, _) => lab.join("peers").join(workspace).join("Cargo.lock"),
    };
    let text = std::fs::read_to_string(file).unwrap_or_default();
    format!("{} {}", known.krate, locked(&text, known.krate).unwrap_or("of unknown version"))
}

fn locked<'a>(text: &'a str, krate: &str) -> Option<&'a str> {
    let mut lines = text.lines();
    lines.find(|line| line.strip_prefix("name = ").map(|n| n.trim_matches('"')) == Some(krate))?;
    lines.next()?.strip_prefix("version = ").map(|version| version.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_lock_file() {
        let text = "[[package]]\nname = \"sqlx-core\"\nversion = \"1.0.0\"\n\n[[package]]\n\
                    name = \"sqlx\"\nversion = \"0.9.0\"\n";
        assert_eq!(locked(text, "sqlx"), Some("0.9.0"));
        assert_eq!(locked(text, "diesel"), None);
    }

    #[test]
    fn every_peer_of_a_workload_is_known_and_raw_has_no_tasks() {
        assert!(peers_of(Workload::Stall).contains(&"naive".to_owned()));
        assert!(!peers_of(Workload::Cancel).contains(&"raw".to_owned()));
        assert!(peers_of(Workload::PointReads).contains(&"lockkeeper-short".to_owned()));
        assert_eq!(peers_of(Workload::TinyWrites).len(), KNOWN.len() - 2);
    }

    #[test]
    fn a_time_is_a_number_in_its_bounds() {
        assert_eq!(seconds("0.5"), Ok(0.5));
        for text in ["0", "-1", "21", "NaN", "soon"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
