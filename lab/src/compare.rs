//! Compares two runs, one before a change and one after it.

use std::path::Path;

use crate::Result;
use crate::data::{Run, more_is_better, name};
use crate::plot::figure;

/// A figure in both runs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    pub(crate) what: String,
    pub(crate) figure: String,
    pub(crate) old: f64,
    pub(crate) new: f64,
    /// The greatest difference of the ratio from 1 that may be noise, from the spread of both runs' rounds.
    pub(crate) noise: f64,
    /// The ratio of the raw loop, which changes with the machine.
    pub(crate) raw: Option<f64>,
    pub(crate) verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Noise,
    Better,
    Worse,
}

pub(crate) fn run(old: &Path, new: &Path, peer: &str) -> Result<()> {
    let (old, new) = (Run::load(old)?, Run::load(new)?);
    let changes = changes(&old, &new, peer);
    if changes.is_empty() {
        return Err(format!("the files have no figure of `{peer}` in common").into());
    }
    println!("{peer}: {} of {} before, {} of {} after", old.commit, old.date, new.commit, new.date);
    println!(
        "{:<34} {:<20} {:>11} {:>11} {:>7} {:>8} {:>7}",
        "workload", "figure", "old", "new", "ratio", "noise", "raw"
    );
    for c in &changes {
        println!(
            "{:<34} {:<20} {:>11} {:>11} {:>7.2} {:>7.0}% {:>7} {}",
            c.what,
            c.figure,
            figure(c.old),
            figure(c.new),
            c.new / c.old,
            c.noise * 100.0,
            c.raw.map_or_else(|| "–".to_owned(), |raw| format!("{raw:.2}")),
            match c.verdict {
                Verdict::Noise => "",
                Verdict::Better => "better",
                Verdict::Worse => "WORSE",
            }
        );
    }
    println!(
        "noise: the widest distance of a round from its median, in both runs together, and 3 % at \
         least; raw: what the raw loop's ratio was, which is taken out of rates"
    );
    Ok(())
}

pub(crate) fn changes(old: &Run, new: &Run, peer: &str) -> Vec<Change> {
    let mut all = Vec::new();
    for key in new.keys() {
        let (Some(before), Some(after)) = (old.find(key, peer), new.find(key, peer)) else {
            continue;
        };
        for figure in after.figures() {
            let Some(more) = more_is_better(figure) else { continue };
            let (Some(was), Some(is)) = (before.value(figure), after.value(figure)) else {
                continue;
            };
            if was == 0.0 || is == 0.0 {
                continue;
            }
            let (a, b) = (before.noise(figure), after.noise(figure));
            let noise = a.hypot(b).max(0.03);
            let raws = old.find(key, "raw").zip(new.find(key, "raw"));
            let raw = raws
                .and_then(|(was, is)| was.value(figure).zip(is.value(figure)))
                .filter(|(was, is)| *was != 0.0 && *is != 0.0)
                .map(|(was, is)| is / was);
            // The machine affects the rates of the raw loop and of the peer in the same way. So the peer's ratio is
            // divided by the raw loop's, and the noise of both is added.
            let (drift, noise) = match (raw, raws) {
                (Some(raw), Some((was, is))) if figure.ends_with("_per_s") => {
                    (raw, noise.hypot(was.noise(figure)).hypot(is.noise(figure)))
                }
                _ => (1.0, noise),
            };
            let is_fairly = is / drift;
            // The ratio is taken in the direction in which it is above 1, so that half and twice differ from 1 equally.
            let apart = (is_fairly / was).max(was / is_fairly) - 1.0;
            let verdict = match (apart > noise, (is_fairly > was) == more) {
                (false, _) => Verdict::Noise,
                (true, true) => Verdict::Better,
                (true, false) => Verdict::Worse,
            };
            all.push(Change {
                what: name(key),
                figure: figure.to_owned(),
                old: was,
                new: is,
                noise,
                raw,
                verdict,
            });
        }
    }
    all
}

#[cfg(test)]
pub(crate) mod tests {
    use measure::{Figures, Synchronous, Workload};

    use super::*;
    use crate::data::{Key, Measurement};
    use crate::machine::Machine;

    const KEY: Key = (Workload::TinyWrites, Synchronous::Full, 64);

    pub(crate) fn measurement(key: Key, peer: &str, name: &str, rounds: &[f64]) -> Measurement {
        let rounds = rounds
            .iter()
            .map(|value| {
                let mut figures = Figures::default();
                figures.value(name, *value);
                figures
            })
            .collect();
        Measurement {
            workload: key.0,
            synchronous: key.1,
            tasks: key.2,
            seconds: 1.0,
            peer: peer.to_owned(),
            rounds,
            failed: Vec::new(),
        }
    }

    pub(crate) fn run_of(measurements: Vec<Measurement>) -> Run {
        Run {
            date: String::new(),
            commit: String::new(),
            command: String::new(),
            machine: Machine {
                processor: String::new(),
                cores: 2,
                memory_gib: 1.0,
                system: String::new(),
                file_system: String::new(),
                compiler: String::new(),
                syncs_per_s: 1.0,
            },
            peers: std::collections::BTreeMap::new(),
            measurements,
            syncs: Vec::new(),
        }
    }

    fn verdict(name: &str, old: &[f64], new: &[f64]) -> (Verdict, f64) {
        let old = run_of(vec![measurement(KEY, "lockkeeper", name, old)]);
        let new = run_of(vec![measurement(KEY, "lockkeeper", name, new)]);
        let changes = changes(&old, &new, "lockkeeper");
        assert_eq!(changes.len(), 1, "{changes:?}");
        (changes[0].verdict, changes[0].noise)
    }

    #[test]
    fn a_change_within_the_spread_of_the_rounds_is_noise() {
        let (verdict, noise) =
            verdict("writes_per_s", &[90.0, 100.0, 110.0], &[95.0, 105.0, 115.0]);
        assert_eq!(verdict, Verdict::Noise);
        assert!((noise - 0.1_f64.hypot(10.0 / 105.0)).abs() < 1e-9, "{noise}");
    }

    #[test]
    fn more_writes_are_better_and_longer_waits_are_worse() {
        let steady = [100.0, 100.0, 101.0];
        assert_eq!(verdict("writes_per_s", &steady, &[150.0; 3]).0, Verdict::Better);
        assert_eq!(verdict("writes_per_s", &steady, &[80.0; 3]).0, Verdict::Worse);
        assert_eq!(verdict("write_p99_ms", &steady, &[150.0; 3]).0, Verdict::Worse);
        assert_eq!(verdict("write_p99_ms", &steady, &[80.0; 3]).0, Verdict::Better);
    }

    #[test]
    fn rounds_that_agree_by_chance_still_have_three_per_cent() {
        assert_eq!(verdict("writes_per_s", &[100.0; 3], &[102.0; 3]), (Verdict::Noise, 0.03));
    }

    #[test]
    fn the_raw_loop_says_what_the_machine_did() {
        let run = |ours, raw| {
            run_of(vec![
                measurement(KEY, "lockkeeper", "writes_per_s", &[ours]),
                measurement(KEY, "raw", "writes_per_s", &[raw]),
            ])
        };
        let changes = changes(&run(100.0, 10.0), &run(50.0, 5.0), "lockkeeper");
        assert_eq!((changes[0].raw, changes[0].verdict), (Some(0.5), Verdict::Noise));
        let changes = super::changes(&run(100.0, 10.0), &run(100.0, 5.0), "lockkeeper");
        assert_eq!(changes[0].verdict, Verdict::Better);
        assert_eq!(super::changes(&run(1.0, 1.0), &run(1.0, 1.0), "sqlx"), []);
    }
}
