//! Random programs of calls over the rich schema: several clients on threads of their own make every kind of call.
//! Calls are dropped, time out and panic, and the database is closed, aborted and opened again in between.
//!
//! Every write first puts its number into a log. So the file shows the order of the writes, and each call knows after
//! how many writes it ran. A plain connection runs the same calls one by one in that order (`judge.rs`). Every answer,
//! every read and every row at the end must be the same.
//!
//! Programs run in a child process, because a crash or a hang is a finding too. A finding is shortened as far as
//! possible and printed. Every run begins with the programs in `seeds`, which are earlier findings. `cargo xtask fuzz
//! --minutes 30` looks for more.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::child::{Ended, Job, run_in_a_child};
use self::program::Program;
use self::shorten::shorten;
use crate::differential::Quiet;

mod child;
mod judge;
mod play;
mod program;
mod shorten;

/// For how many minutes to search. If not set, a few programs run.
const MINUTES: &str = "LOCKKEEPER_FUZZ_MINUTES";
/// The number of the first program.
const SEED: &str = "LOCKKEEPER_FUZZ_SEED";
/// The job of a child process. Not set in the parent.
const JOB: &str = "LOCKKEEPER_FUZZ_JOB";
/// The name of this test, with which a child is started.
const NAME: &str = "fuzz::a06_calls_of_many_clients_are_as_if_they_had_run_alone";

/// The number of programs in the default form. The programs are the same each time, but their threads run differently.
const FEW: u64 = 40;
/// The number of programs that one child runs.
const PER_CHILD: u64 = 200;

#[test]
fn a06_calls_of_many_clients_are_as_if_they_had_run_alone() {
    if let Ok(job) = std::env::var(JOB) {
        // Forgotten, so that it lasts as long as the process: a test that panics cannot restore the panic hook.
        std::mem::forget(Quiet::panics_of_calls());
        return child::work(&Job::of_text(&job));
    }
    let mut kept: Vec<PathBuf> = std::fs::read_dir(seeds())
        .expect("the directory of the seeds")
        .map(|entry| entry.expect("a seed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "ron"))
        .collect();
    kept.sort();
    for path in &kept {
        if let Ended::Badly { said, .. } = run_in_a_child(&Job::Play(path.clone(), 20)) {
            panic!("{}: {said}", path.display());
        }
    }

    let number = |name| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name}: `{text}` is no number")))
    };
    let mut seed = number(SEED).unwrap_or(0);
    let first = seed;
    let minutes = number(MINUTES);
    let began = Instant::now();
    let limit = minutes.map_or(Duration::ZERO, |minutes| Duration::from_secs(60 * minutes));
    loop {
        let count = if minutes.is_some() { PER_CHILD } else { FEW };
        if let Ended::Badly { program, said } = run_in_a_child(&Job::Draw(seed, count)) {
            let number = program.expect("a child says which program it runs");
            report(number, &said);
        }
        seed += count;
        println!("fuzz: {} programs in {} s", seed - first, began.elapsed().as_secs());
        if began.elapsed() >= limit {
            break;
        }
    }
    println!("fuzz: {} programs drawn from seed {first}, {} kept ones", seed - first, kept.len());
}

fn seeds() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fuzz/seeds")
}

/// Fails with the program, shortened as far as possible.
fn report(seed: u64, said: &str) -> ! {
    println!("fuzz: program {seed} has failed; it is being shortened\n{said}");
    let (program, said) = match shorten(&Program::of_seed(seed)) {
        Some(short) => short,
        None => {
            println!("fuzz: it did not fail again in a hundred runs; this is the whole program");
            (Program::of_seed(seed), said.to_owned())
        }
    };
    let path = seeds().join(format!("{seed}.ron"));
    let text = program.text();
    std::fs::write(&path, &text).expect("the seed is kept");
    panic!("program {seed}, kept as {}:\n{text}\n{said}", path.display());
}
