//! `brigandine bench --compare`: figures of several sizes side by side, and whether any of them grows faster
//! than the logarithm of the number of builds.
//!
//! Medians are compared with those of the smallest database. What may be: as much more as the logarithm
//! has grown, a quarter of that for the noise of two measurements, and a tenth of a millisecond for that of
//! waking a thread. From 100,000 to 5,000,000 builds the logarithm grows by 1.34, and what reads every
//! row by 50: the allowance hides nothing that counts.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::command::{Failure, print_json, say};

/// Of two measurements of the same.
const NOISE: f64 = 1.25;
/// Waking a thread, in milliseconds.
const WAKING_MS: f64 = 0.1;

/// A figure in all sizes; `None` where it was not measured.
struct Line {
    name: String,
    /// Milliseconds, so that more is worse.
    of: Vec<Option<f64>>,
}

impl Line {
    /// How much more than the smallest is allowed in each size, and whether it is more.
    fn is_too_much(&self, builds: &[f64]) -> bool {
        let measured = self.measured(builds);
        let Some((&(least, base), rest)) = measured.split_first() else { return false };
        rest.iter().any(|(builds, ms)| *ms > base * (builds.ln() / least.ln()) * NOISE + WAKING_MS)
    }

    fn measured(&self, builds: &[f64]) -> Vec<(f64, f64)> {
        let pairs = builds.iter().zip(&self.of);
        pairs.filter_map(|(builds, ms)| ms.map(|ms| (*builds, ms))).collect()
    }
}

/// Prints figures that `bench --json` wrote, one column for each file.
///
/// # Errors
/// A file holds no such figures, or something grows faster than the logarithm; the message says what.
pub(super) fn run(files: &[PathBuf], as_json: bool) -> Result<(), Failure> {
    let mut all = Vec::new();
    for file in files {
        let wrong = |why: &str| {
            Failure::failed(format!(
                "{}: {why}; write it with `brigandine bench --json`",
                file.display()
            ))
        };
        let text = std::fs::read_to_string(file).map_err(|error| wrong(&error.to_string()))?;
        let figures: Value =
            serde_json::from_str(&text).map_err(|error| wrong(&error.to_string()))?;
        let builds = figures["builds"].as_f64().filter(|builds| *builds > 1.0);
        let builds = builds.ok_or_else(|| wrong("it does not say how many `builds` there were"))?;
        all.push((builds, lines(&figures).ok_or_else(|| wrong("it has no `rows`"))?));
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    if all.len() < 2 || all.windows(2).any(|two| two[0].0 >= two[1].0) {
        return Err(Failure::failed(
            "figures of two different numbers of builds are needed at least",
        ));
    }
    let builds: Vec<f64> = all.iter().map(|(builds, _)| *builds).collect();
    let mut table: Vec<Line> = Vec::new();
    for (column, (_, lines)) in all.iter().enumerate() {
        for (name, ms) in lines {
            let at = table.iter().position(|line| line.name == *name).unwrap_or_else(|| {
                table.push(Line { name: name.clone(), of: vec![None; builds.len()] });
                table.len() - 1
            });
            table[at].of[column] = Some(*ms);
        }
    }
    let compared = table.iter().filter(|line| line.measured(&builds).len() > 1).count();
    if compared == 0 {
        return Err(Failure::failed("the files have no request in common"));
    }
    let bad: Vec<&str> = table
        .iter()
        .filter(|line| line.is_too_much(&builds))
        .map(|line| line.name.as_str())
        .collect();
    if as_json {
        let rows: Vec<_> = table
            .iter()
            .map(|line| {
                json!({"name": line.name, "ms": line.of, "faster": bad.contains(&&*line.name)})
            })
            .collect();
        print_json(&json!({ "builds": builds, "rows": rows }));
    } else {
        print(&builds, &table, &bad);
    }
    if bad.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(format!("faster than the logarithm grows: {}", bad.join("; "))))
}

/// Name and milliseconds of everything that is compared.
fn lines(figures: &Value) -> Option<Vec<(String, f64)>> {
    let mut lines = Vec::new();
    for row in figures["rows"].as_array()? {
        let name = format!("{}, {}", row["request"].as_str()?, row["load"].as_str()?);
        lines.push((name, row["p50_ms"].as_f64()?));
    }
    for (name, what) in [
        ("1,000 status updates in bulk", "bulk_updates_per_s"),
        ("1,000 jobs registered", "registrations_per_s"),
    ] {
        if let Some(rate) = figures[what].as_f64().filter(|rate| *rate > 0.0) {
            lines.push((name.to_owned(), 1_000_000.0 / rate));
        }
    }
    Some(lines)
}

fn print(builds: &[f64], table: &[Line], bad: &[&str]) {
    let heads: String = builds.iter().map(|builds| format!("{builds:>12.0}")).collect();
    say(&format!("{:<52}{heads}  growth", "p50 in ms with so many builds"));
    for line in table {
        let cells: String = line
            .of
            .iter()
            .map(|ms| ms.map_or_else(|| format!("{:>12}", "-"), |ms| format!("{ms:>12.3}")))
            .collect();
        let measured = line.measured(builds);
        let growth = match (measured.first(), measured.last()) {
            (Some((_, first)), Some((_, last))) if measured.len() > 1 => last / first,
            _ => f64::NAN,
        };
        let verdict = if bad.contains(&&*line.name) { "  FASTER than the logarithm" } else { "" };
        say(&format!("{:<52}{cells}  {growth:6.2}{verdict}", line.name));
    }
    if let (Some(first), Some(last)) = (builds.first(), builds.last()) {
        let log = last.ln() / first.ln();
        say(&format!(
            "the logarithm of the builds grows by {log:.2}; {:.2} and {WAKING_MS} ms are allowed",
            log * NOISE
        ));
    }
}
