//! Makes a failing program as short as possible.
//!
//! Whether a program fails depends on how its threads run. So each attempt runs several times, and a program that
//! seldom fails may stay longer than necessary.

use std::time::{Duration, Instant};

use super::child::{Ended, Job, run_in_a_child};
use super::program::{Command, Item, Program};
use crate::support::Dir;

const PATIENCE: Duration = Duration::from_secs(180);

/// The shortest failing program that was found, and its failure. `None`: the program did not fail again.
pub(crate) fn shorten(program: &Program) -> Option<(Program, String)> {
    let said = failure_of(program, 100)?;
    let mut best = (program.clone(), said);
    let began = Instant::now();
    loop {
        let before = best.0.text().len();
        let mut chunk = best.0.items.len();
        while chunk > 0 {
            let mut from = 0;
            while from < best.0.items.len() {
                let mut fewer = best.0.clone();
                let to = (from + chunk).min(fewer.items.len());
                fewer.items.drain(from..to);
                if began.elapsed() > PATIENCE {
                    return Some(best);
                }
                match failure_of(&fewer, 15) {
                    Some(said) => best = (fewer, said),
                    None => from += chunk,
                }
            }
            chunk /= 2;
        }
        for item in 0..best.0.items.len() {
            let mut part = 0;
            while let Some(fewer) = without(&best.0, item, part) {
                if began.elapsed() > PATIENCE {
                    return Some(best);
                }
                match failure_of(&fewer, 15) {
                    Some(said) => best = (fewer, said),
                    None => part += 1,
                }
            }
        }
        if best.0.text().len() == before {
            return Some(best);
        }
    }
}

/// The program without one part of an item; `None`: there is no such part.
fn without(program: &Program, item: usize, part: usize) -> Option<Program> {
    fn remove<T>(parts: &mut Vec<T>, part: usize) -> Option<()> {
        (part < parts.len()).then(|| drop(parts.remove(part)))
    }
    let mut fewer = program.clone();
    let Item::Do { command, .. } = &mut fewer.items[item] else { return None };
    match command {
        Command::Write { call, .. } => remove(&mut call.steps, part)?,
        Command::Read { queries, .. } | Command::ReadSnapshot { queries } => {
            remove(queries, part)?;
        }
        Command::Lease { calls, .. } => remove(calls, part)?,
        _ => return None,
    }
    Some(fewer)
}

fn failure_of(program: &Program, times: u64) -> Option<String> {
    let dir = Dir::new();
    let path = dir.file("program.ron");
    std::fs::write(&path, program.text()).expect("the program is written");
    match run_in_a_child(&Job::Play(path, times)) {
        Ended::Well => None,
        Ended::Badly { said, .. } => Some(said),
    }
}
