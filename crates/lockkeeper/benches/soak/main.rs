//! Everything at the same time, for a long time: whatever grows at first must stop growing.
//!
//! `cargo bench -p lockkeeper --bench soak -- --minutes 10`

#![expect(
    clippy::disallowed_methods,
    reason = "loads with plain threads, and with a second process"
)]

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use lockkeeper::{Database, ErrorKind};

#[path = "../harness/place.rs"]
mod place;
mod slopes;
mod work;

use slopes::{Held, Samples};
use work::Load;

const HELP: &str = "\
At once: clients with ever new names, snapshots, leases that expire, a feed, a watch and a live query,
dropped futures, panics, VACUUM, backups, new SQL texts, ALTER TABLE, other databases opened and closed
(a thousand in ten minutes), a second process that writes. The first quarter is not counted.

Exit status: 0 when nothing grows, 1 when something does.";

/// Does everything at the same time, for long. What grows at first must stop growing.
#[derive(Parser)]
#[command(after_help = HELP)]
struct Arguments {
    /// How long it runs
    #[arg(long, value_name = "M", default_value_t = 0.5)]
    minutes: f64,
    /// Passed by `cargo bench`; has no effect
    #[arg(long, hide = true)]
    bench: bool,
    /// The second process: writes to this file until its input ends
    #[arg(long, hide = true)]
    child: Option<PathBuf>,
}

const SAMPLES: u32 = 240;

/// The reader threads that stay when there is nothing to read. They start with the first reads.
const STAY_THREADS: usize = 4;
/// The descriptors that may stay. While other connections have the file open, SQLite keeps the descriptor of a closed
/// connection for the next one, because closing it would drop their locks. So there is one for each connection that was
/// open at the same time.
const STAY_DESCRIPTORS: usize = 64;

fn main() -> ExitCode {
    if std::env::args().any(|word| word == "--test" || word == "--list") {
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::parse();
    if let Some(file) = &arguments.child {
        child(file);
        return ExitCode::SUCCESS;
    }
    // Some panics are part of the load and are not reported.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&work::ON_PURPOSE) {
            hook(info);
        }
    }));
    let time = match Duration::try_from_secs_f64(arguments.minutes * 60.0) {
        Ok(time) if time >= Duration::from_secs(4) => time,
        _ => {
            eprintln!("soak: `--minutes` must be at least 0.07: slopes need some seconds");
            return ExitCode::from(2);
        }
    };
    match soak(time) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn soak(time: Duration) -> bool {
    let place = place::Place::new();
    let file = place.file("soak.db");
    let db = Database::builder(&file)
        .checkpoint_wal_bytes(1 << 20)
        .wal_bytes_max(16 << 20)
        .busy_timeout(Duration::from_secs(30))
        .blocking_open()
        .expect("the database opens");
    db.blocking_write(|tx| tx.execute_batch(work::SCHEMA)).expect("the tables are made");
    let mut other = start(&file);
    let before = Held::now();
    let load = Load::start(&db, &place);
    let mut samples = Samples::new(&file);
    let (began, step) = (Instant::now(), time / SAMPLES);
    for number in 1..=SAMPLES {
        std::thread::sleep((began + step * number).saturating_duration_since(Instant::now()));
        samples.take(&load.latencies());
    }
    let did = load.stop();
    let left = before.left_when_settled();
    drop(other.stdin.take());
    let other_ended = other.wait().is_ok_and(|status| status.success());
    db.blocking_close().expect("the database closes");
    println!("soak: {did} in {:.1} minutes", time.as_secs_f64() / 60.0);
    let mut right = samples.report();
    let wal = file.with_extension("db-wal").exists();
    println!("soak: {left} are held a while after the load, beyond those before it");
    let (descriptors, threads) = (left.descriptors > STAY_DESCRIPTORS, left.threads > STAY_THREADS);
    for (wrong, what) in [
        (descriptors, "descriptors are left open"),
        (threads, "threads are left"),
        (wal, "the WAL is left behind"),
        (!other_ended, "the second process failed"),
    ] {
        if wrong {
            println!("soak: {what}");
            right = false;
        }
    }
    println!("soak: {}", if right { "nothing grows" } else { "something is wrong" });
    right
}

fn start(file: &PathBuf) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .arg("--child")
        .arg(file)
        .stdin(Stdio::piped())
        .spawn()
        .expect("a second process")
}

/// Writes at a moderate rate until the input ends.
fn child(file: &PathBuf) {
    let db = Database::builder(file)
        .busy_timeout(Duration::from_secs(30))
        .blocking_open()
        .expect("the second process opens the file");
    let (ended, is_over) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        drop(ended);
    });
    while is_over.recv_timeout(Duration::from_millis(5))
        == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
    {
        let wrote =
            db.blocking_write(|tx| tx.execute("UPDATE total SET n = n + 1 WHERE id = 2", []));
        if let Err(error) = wrote {
            assert_eq!(error.kind(), ErrorKind::Busy, "the second process: {error:?}");
        }
    }
    db.blocking_close().expect("the second process closes");
}
