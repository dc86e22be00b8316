//! Measures peers in turn, each in a process of its own, and keeps their figures.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Args;
use measure::{Answer, Figures, Job, Synchronous, Workload};

use crate::data::{Measurement, Run, name};
use crate::durability::{self, Syncs};
use crate::files::Files;
use crate::machine::{self, Machine};
use crate::progress::Progress;
use crate::{Result, report, stored};

/// A peer's process is killed when it takes longer than its workload by this time.
const PROCESS_SPARE: Duration = Duration::from_secs(12);
/// The length in seconds of a measurement that only counts syncs.
const COUNTED_FOR: f64 = 0.2;

/// Where the code of a peer is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Binary {
    /// In the lab's own program.
    Lab,
    /// In a workspace of its own below `peers/`: the name of the workspace, and the name of the program.
    Own(&'static str, &'static str),
    /// Like `Own`, with its own target directory, because it builds SQLite with other flags.
    OwnFlags(&'static str, &'static str),
}

struct Known {
    name: &'static str,
    /// The crate whose version is reported; empty: the peer is the lab's own code on rusqlite.
    krate: &'static str,
    binary: Binary,
    /// The format of a file that the peer has opened, even if it only read the file.
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    /// SQLite's format.
    Sqlite,
    /// SQLite's format, but the peer adds marks to the file and makes further files beside it.
    Marked,
    /// The peer's own format. `PROGRAM to-sqlite FILE` converts it to SQLite's.
    Own,
}

const POOLS: Binary = Binary::Own("pools", "pools");
const SQLX: Binary = Binary::Own("sqlx", "sqlx-peer");
const TURSO: Binary = Binary::Own("turso", "turso-peer");
const TINYSTORE: Binary = Binary::OwnFlags("tinystore", "tinystore-peer");

const fn known(name: &'static str, krate: &'static str, binary: Binary) -> Known {
    Known { name, krate, binary, format: Format::Sqlite }
}

const KNOWN: [Known; 15] = [
    known("lockkeeper", "lockkeeper", Binary::Lab),
    known("lockkeeper-short", "lockkeeper", Binary::Lab),
    known("raw", "rusqlite", Binary::Lab),
    known("naive", "rusqlite", Binary::Lab),
    known("mutex", "rusqlite", Binary::Lab),
    known("tokio-rusqlite", "tokio-rusqlite", POOLS),
    known("async-sqlite", "async-sqlite", Binary::Lab),
    known("async-sqlite-1", "async-sqlite", Binary::Lab),
    known("deadpool", "deadpool-sqlite", POOLS),
    known("r2d2", "r2d2_sqlite", POOLS),
    known("retry", "rusqlite", Binary::Lab),
    known("sqlx", "sqlx", SQLX),
    Known { format: Format::Marked, ..known("tinystore", "tinystore", TINYSTORE) },
    known("turso", "turso", TURSO),
    Known { format: Format::Own, ..known("turso-mvcc", "turso", TURSO) },
];

/// Why a peer cannot run a workload at all.
pub(crate) fn cannot(peer: &str, workload: Workload) -> Option<&'static str> {
    match (peer, workload) {
        ("turso" | "turso-mvcc", Workload::Stall) => {
            Some("it locks the file for its process, so no other can hold the write lock")
        }
        ("turso" | "turso-mvcc", Workload::Cancel) => Some(
            "its future runs the query up to the next row in one poll, so it cannot be dropped meanwhile",
        ),
        _ => None,
    }
}

/// Command line of `lab bench`.
#[derive(Args)]
pub(crate) struct Options {
    /// tiny-writes, point-reads, mixed, stall, fairness, long-scan, cancel, bulk, read-page; or `build`, which only builds the peers.
    workload: String,
    /// Who: lockkeeper, lockkeeper-short (point reads), raw, naive, mutex, tokio-rusqlite, async-sqlite, async-sqlite-1, deadpool, r2d2, retry, sqlx, tinystore, turso, turso-mvcc. Default: all that the workload means something for.
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

/// Parses the time of a measurement in seconds.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.05..=20.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0.05 to 20".to_owned()),
    }
}

/// One line of the plan: a workload and its peers.
pub(crate) struct Item {
    pub(crate) workload: Workload,
    pub(crate) tasks: usize,
    pub(crate) synchronous: Synchronous,
    pub(crate) peers: Vec<String>,
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
    for peer in &peers {
        if let Some(why) = cannot(peer, workload) {
            return Err(format!("{peer} cannot do {}: {why}", workload.name()).into());
        }
    }
    let item = Item {
        workload,
        tasks: options.tasks.map_or(workload.default_tasks(), |tasks| tasks as usize),
        synchronous: options.synchronous,
        peers,
    };
    let words: Vec<String> = std::env::args().skip(1).collect();
    let run = measure(&[item], options.seconds, options.repeat, &words.join(" "), false)?;
    println!("{}", report::tables(&run));
    if let Some(file) = &options.json {
        run.save(file)?;
    }
    Ok(())
}

/// All peers for which a workload makes sense.
pub(crate) fn peers_of(workload: Workload) -> Vec<String> {
    let means = |name: &str| match name {
        "naive" => workload == Workload::Stall,
        "lockkeeper-short" => workload == Workload::PointReads,
        "raw" => !matches!(workload, Workload::Stall | Workload::Fairness | Workload::Cancel),
        _ => cannot(name, workload).is_none(),
    };
    KNOWN.iter().map(|known| known.name).filter(|n| means(n)).map(str::to_owned).collect()
}

/// Measures a plan in rounds, so that a slow minute of the machine affects all peers alike.
///
/// `count_syncs`: afterwards also counts how many times each peer of the plan syncs.
pub(crate) fn measure(
    plan: &[Item],
    seconds: f64,
    repeat: u32,
    command: &str,
    count_syncs: bool,
) -> Result<Run> {
    let mut programs = BTreeMap::new();
    let mut peers = BTreeMap::new();
    for peer in plan.iter().flat_map(|item| &item.peers) {
        let known = find(peer)?;
        if !programs.contains_key(peer) {
            eprintln!("building {peer} if need be");
            programs.insert(peer.clone(), program(known.binary)?);
            peers.insert(peer.clone(), version(known));
        }
    }
    let workloads = plan.iter().map(|item| item.workload);
    let files = Files::make(workloads.chain(count_syncs.then_some(Workload::TinyWrites)))?;
    let mut run = Run {
        date: machine::date(),
        commit: machine::commit(),
        command: command.to_owned(),
        machine: Machine::look(&files.dir())?,
        peers,
        measurements: Vec::new(),
        syncs: Vec::new(),
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
    let counted = if count_syncs { run.peers.len() } else { 0 };
    let mut progress = Progress::new(plan, counted, seconds, repeat);
    for round in 0..repeat as usize {
        let mut next = 0;
        for item in plan {
            let count = item.peers.len();
            let first = next;
            next += count;
            let what = name((item.workload, item.synchronous, item.tasks));
            eprintln!("{}", progress.line(&format!("round {} of {repeat}: {what}", round + 1)));
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
            progress.measured(item, seconds);
        }
    }
    if count_syncs {
        eprintln!("{}", progress.line("counting syncs"));
        run.syncs = syncs(&programs, &files)?;
    }
    eprintln!("{}", progress.line("measured"));
    for m in &run.measurements {
        if let (Some(figures), Some(version)) = (m.rounds.first(), run.peers.get_mut(&m.peer))
            && !version.contains("SQLite")
        {
            version.push_str(&format!(", SQLite {}", figures.sqlite));
        }
    }
    Ok(run)
}

fn find(peer: &str) -> Result<&'static Known> {
    KNOWN.iter().find(|known| known.name == peer).ok_or_else(|| {
        let names = KNOWN.each_ref().map(|known| known.name).join(", ");
        format!("there is no peer `{peer}`; there are: {names}").into()
    })
}

/// One measurement: takes a database, runs the peer's process, and checks the file.
fn one(program: &Path, files: &Files, what: &Measurement) -> Result<Figures> {
    let format = find(&what.peer)?.format;
    let file = files.get(what.workload, format != Format::Sqlite)?;
    let figures = look(program, &file, what, format);
    files.done(&file)?;
    figures
}

fn look(program: &Path, file: &Path, what: &Measurement, format: Format) -> Result<Figures> {
    let job = job(what, file)?;
    let mut figures = ask(command(program), &job)?;
    let (answered, bulk) = (figures.answered_writes(), figures.bulk_rows);
    if answered + bulk > 0 {
        if format == Format::Own {
            to_sqlite(program, file)?;
        }
        let missing = stored::missing(file, what.workload, &figures)?;
        if missing > 0 {
            let answered = answered + bulk;
            figures.failed(format!("{missing} of {answered} answered writes are not stored"));
        }
    }
    // The writes have been checked, and would make the file of the run large.
    figures.written = Vec::new();
    Ok(figures)
}

fn job(what: &Measurement, file: &Path) -> Result<Job> {
    Ok(Job {
        workload: what.workload,
        peer: what.peer.clone(),
        tasks: what.tasks,
        synchronous: what.synchronous,
        seconds: what.seconds,
        file: file.to_owned(),
        lab: std::env::current_exe()?,
    })
}

/// Counts the syncs of all peers: with one task, where each answer needs its own sync, and with 64 tasks, which may
/// share syncs.
fn syncs(programs: &BTreeMap<String, PathBuf>, files: &Files) -> Result<Vec<Syncs>> {
    let mut all = Vec::new();
    if !durability::can_count() {
        eprintln!("        strace is missing or may not trace: no syncs are counted");
        return Ok(all);
    }
    for (peer, program) in programs {
        if !peers_of(Workload::TinyWrites).contains(peer) {
            continue;
        }
        for tasks in [1, 64] {
            let what = Measurement {
                workload: Workload::TinyWrites,
                tasks,
                synchronous: Synchronous::Full,
                seconds: COUNTED_FOR,
                peer: peer.clone(),
                rounds: Vec::new(),
                failed: Vec::new(),
            };
            let file = files.get(what.workload, true)?;
            let log = files.dir().join("syncs");
            let asked = ask(durability::traced(program, &log), &job(&what, &file)?);
            files.done(&file)?;
            match asked {
                Ok(figures) => all.push(Syncs {
                    peer: peer.clone(),
                    tasks,
                    answered: figures.answered_writes(),
                    syncs: durability::read(&log)?,
                }),
                Err(error) => eprintln!("        {peer}: no syncs are counted: {error}"),
            }
        }
    }
    Ok(all)
}

/// Lets a peer convert its file to SQLite's format, in a new process.
fn to_sqlite(program: &Path, file: &Path) -> Result<()> {
    let output = Command::new(program).arg("to-sqlite").arg(file).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("its file cannot be made SQLite's again: {}", said.trim()).into());
    }
    Ok(())
}

fn command(program: &Path) -> Command {
    Command::new(program)
}

fn ask(mut command: Command, job: &Job) -> Result<Figures> {
    if find(&job.peer)?.binary == Binary::Lab {
        command.arg("measure");
    }
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(|error| {
            format!("cannot start {}: {error}", command.get_program().display())
        })?;
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
    let patience = job.workload.takes(job.seconds) + PROCESS_SPARE;
    let answer = hears.recv_timeout(patience);
    // The process ends by itself after its answer. If there was no answer, it is killed.
    if answer.is_err() {
        child.kill()?;
    }
    let status = child.wait()?;
    reader.join().map_err(|_| "the thread that reads the answer panicked")?;
    told?;
    let line = answer.map_err(|_| format!("no answer in {} s", patience.as_secs()))??;
    if line.is_empty() {
        return Err(format!("the peer's process ended without an answer: {status}").into());
    }
    match serde_json::from_str(&line)? {
        Answer::Figures(figures) => Ok(*figures),
        Answer::Failed(error) => Err(error.into()),
    }
}

/// The program of a peer. Builds it if necessary.
fn program(binary: Binary) -> Result<PathBuf> {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR"));
    // All peers that build SQLite in the same way share a target directory, so that shared crates are compiled only
    // once.
    let (workspace, name, target) = match binary {
        Binary::Lab => return Ok(std::env::current_exe()?),
        Binary::Own(workspace, name) => (workspace, name, lab.join("target")),
        Binary::OwnFlags(workspace, name) => (workspace, name, lab.join("target").join(workspace)),
    };
    let status = Command::new("cargo")
        // In this directory cargo reads the peer's `.cargo/config.toml`.
        .current_dir(lab.join("peers").join(workspace))
        .args(["build", "--release", "--locked", "--quiet", "--target-dir"])
        .arg(&target)
        .status()
        .map_err(|error| format!("cannot start cargo to build {name}: {error}"))?;
    if !status.success() {
        return Err(format!("cargo could not build {name}: {status}").into());
    }
    Ok(target.join("release").join(name))
}

/// The name and version of the peer's crate, from the lock file of its build.
fn version(known: &Known) -> String {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = match known.binary {
        Binary::Lab => lab.join("Cargo.lock"),
        Binary::Own(workspace, _) | Binary::OwnFlags(workspace, _) => {
            lab.join("peers").join(workspace).join("Cargo.lock")
        }
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
        assert!(cannot("turso", Workload::Stall).is_some());
        assert!(!peers_of(Workload::Stall).contains(&"turso".to_owned()));
        assert!(!peers_of(Workload::Cancel).contains(&"turso-mvcc".to_owned()));
    }

    #[test]
    fn a_time_is_a_number_in_its_bounds() {
        assert_eq!(seconds("0.5"), Ok(0.5));
        for text in ["0", "-1", "21", "NaN", "soon"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
