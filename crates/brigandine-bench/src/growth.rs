//! `brigandine-bench site --compare`: compares figures of databases of several sizes, and reports those that grow
//! faster than the logarithm of the number of builds.
//!
//! Medians are compared with those of the smallest database. They may grow with the logarithm. A further quarter is
//! allowed for the noise of two measurements, and a tenth of a millisecond for waking a thread. From 100,000 to
//! 5,000,000 builds the logarithm grows 1.34 times, and the time to read every row grows 50 times. So these allowances
//! do not hide that every row is read.
//!
//! For each size, answers must list the same number of entries, because longer lists take longer. They must also come
//! from the same number of different requests, because the pages for few requests stay in SQLite's cache. Both numbers
//! may differ by a tenth between the sizes. The length of an answer with many entries may differ by a fifth: larger
//! evaluations have larger numbers and more kinds of results on a page, but builds without outputs are a quarter
//! shorter. A row that differs more is reported as an error of the measurement.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::output::{Failure, failed, print_json, say};

/// The greatest ratio between two measurements of the same request that noise may explain.
const NOISE: f64 = 1.25;
/// The time for waking a thread, in milliseconds.
const WAKING_MS: f64 = 0.1;

/// The greatest allowed ratio between two sizes of the number of entries in an answer, and of the number of different
/// requests.
const ALIKE: f64 = 1.1;
/// The greatest allowed ratio between two sizes of the length of an answer.
const ALIKE_BYTES: f64 = 1.2;
/// The lengths of answers with fewer entries are not compared, because they depend on these few builds.
const MANY: f64 = 10.0;

/// A figure at one size of the database.
#[derive(Debug, Clone, Copy)]
struct Figure {
    /// Milliseconds, so a larger number is worse.
    ms: f64,
    /// `None`: the figure is not about requests.
    answer: Option<Answer>,
}

#[derive(Debug, Clone, Copy)]
struct Answer {
    /// The number of entries in the answer.
    listed: f64,
    bytes: f64,
    /// How many different requests were sent, one after the other.
    different: f64,
}

/// A figure at all sizes of the database.
struct Line {
    name: String,
    /// One entry per size; `None`: the figure was not measured at this size.
    of: Vec<Option<Figure>>,
}

impl Line {
    /// Whether the figure grows more than is allowed.
    fn is_too_much(&self, builds: &[f64]) -> bool {
        let measured = self.measured(builds);
        let Some((&(least, base), rest)) = measured.split_first() else { return false };
        rest.iter().any(|(builds, ms)| *ms > base * (builds.ln() / least.ln()) * NOISE + WAKING_MS)
    }

    fn measured(&self, builds: &[f64]) -> Vec<(f64, f64)> {
        let pairs = builds.iter().zip(&self.of);
        pairs.filter_map(|(builds, figure)| figure.map(|it| (*builds, it.ms))).collect()
    }

    fn answers(&self) -> Vec<Answer> {
        self.of.iter().flatten().filter_map(|figure| figure.answer).collect()
    }

    /// How many entries the answers list. The text has one number if all sizes have the same.
    fn listed(&self) -> String {
        let mut listed: Vec<_> =
            self.answers().iter().map(|answer| answer.listed.to_string()).collect();
        listed.dedup();
        listed.join("/")
    }

    /// Why the sizes cannot be compared; `None`: they can be compared.
    fn is_unlike(&self) -> Option<String> {
        let answers = self.answers();
        let differ = |alike: f64, of: fn(&Answer) -> f64| {
            let least = answers.iter().map(of).fold(f64::INFINITY, f64::min);
            let most = answers.iter().map(of).fold(0.0, f64::max);
            (most > least * alike).then_some((least, most))
        };
        let name = &self.name;
        if let Some((least, most)) = differ(ALIKE, |answer| answer.listed) {
            return Some(format!("{name} lists {least} to {most}"));
        }
        if let Some((least, most)) = differ(ALIKE, |answer| answer.different) {
            return Some(format!("{name} is one of {least} to {most} different requests"));
        }
        let many = answers.iter().all(|answer| answer.listed >= MANY);
        let (least, most) = differ(ALIKE_BYTES, |answer| answer.bytes).filter(|_| many)?;
        Some(format!("{name} has answers of {least} to {most} bytes"))
    }

    /// The line as JSON. `bad` has the names of the figures that grow too fast.
    fn json(&self, bad: &[&str]) -> Value {
        let of = |value: fn(&Figure) -> Option<f64>| -> Vec<Option<f64>> {
            self.of.iter().map(|figure| figure.as_ref().and_then(value)).collect()
        };
        json!({
            "name": self.name,
            "ms": of(|figure| Some(figure.ms)),
            "listed": of(|figure| figure.answer.map(|answer| answer.listed)),
            "different": of(|figure| figure.answer.map(|answer| answer.different)),
            "answer_bytes": of(|figure| figure.answer.map(|answer| answer.bytes)),
            "faster": bad.contains(&&*self.name),
            "unlike": self.is_unlike().is_some(),
        })
    }
}

/// Prints figures that `brigandine-bench site --json` has written, one column per file.
///
/// # Errors
/// A file does not have such figures, a figure grows faster than the logarithm, or the answers of the sizes cannot be
/// compared.
pub(crate) fn run(files: &[PathBuf], as_json: bool) -> Result<(), Failure> {
    let mut all = Vec::new();
    for file in files {
        let wrong = |why: &str| {
            failed(format!(
                "{}: {why}; write it with `brigandine-bench site --json`",
                file.display()
            ))
        };
        let text = std::fs::read_to_string(file).map_err(|error| wrong(&error.to_string()))?;
        let figures: Value =
            serde_json::from_str(&text).map_err(|error| wrong(&error.to_string()))?;
        let builds = figures["builds"].as_f64().filter(|builds| *builds > 1.0);
        let builds = builds.ok_or_else(|| wrong("it does not say how many `builds` there were"))?;
        all.push((builds, lines(&figures).map_err(wrong)?));
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    if all.len() < 2 || all.windows(2).any(|two| two[0].0 >= two[1].0) {
        return Err(failed("figures of two different numbers of builds are needed at least"));
    }
    let builds: Vec<f64> = all.iter().map(|(builds, _)| *builds).collect();
    let mut table: Vec<Line> = Vec::new();
    for (column, (_, lines)) in all.iter().enumerate() {
        for (name, figure) in lines {
            let at = table.iter().position(|line| line.name == *name).unwrap_or_else(|| {
                table.push(Line { name: name.clone(), of: vec![None; builds.len()] });
                table.len() - 1
            });
            table[at].of[column] = Some(*figure);
        }
    }
    let compared = table.iter().filter(|line| line.measured(&builds).len() > 1).count();
    if compared == 0 {
        return Err(failed("the files have no request in common"));
    }
    let bad: Vec<&str> = table
        .iter()
        .filter(|line| line.is_too_much(&builds))
        .map(|line| line.name.as_str())
        .collect();
    let unlike: Vec<String> = table.iter().filter_map(Line::is_unlike).collect();
    if as_json {
        let rows: Vec<Value> = table.iter().map(|line| line.json(&bad)).collect();
        print_json(&json!({ "builds": builds, "rows": rows }));
    } else {
        print(&builds, &table, &bad);
    }
    let mut wrong = Vec::new();
    if !unlike.is_empty() {
        wrong.push(format!(
            "not as much is listed in each size, so growth cannot be told: {}; measure databases of the same kind",
            unlike.join("; ")
        ));
    }
    if !bad.is_empty() {
        wrong.push(format!("faster than the logarithm grows: {}", bad.join("; ")));
    }
    if wrong.is_empty() { Ok(()) } else { Err(failed(wrong.join("\n"))) }
}

/// The names and figures of a file; `Err`: what is wrong with the file.
fn lines(figures: &Value) -> Result<Vec<(String, Figure)>, &'static str> {
    const OLD: &str =
        "a row does not say `request`, `load`, `p50_ms`, `listed`, `different` and `answer_bytes`";
    let mut lines = Vec::new();
    for row in figures["rows"].as_array().ok_or("it has no `rows`")? {
        let (Some(request), Some(load)) = (row["request"].as_str(), row["load"].as_str()) else {
            return Err(OLD);
        };
        let figure = |name: &str| row[name].as_f64().ok_or(OLD);
        let answer = Some(Answer {
            listed: figure("listed")?,
            bytes: figure("answer_bytes")?,
            different: figure("different")?,
        });
        lines.push((format!("{request}, {load}"), Figure { ms: figure("p50_ms")?, answer }));
    }
    for (name, what) in [
        ("1,000 status updates in bulk", "bulk_updates_per_s"),
        ("1,000 jobs registered", "registrations_per_s"),
    ] {
        if let Some(rate) = figures[what].as_f64().filter(|rate| *rate > 0.0) {
            lines.push((name.to_owned(), Figure { ms: 1_000_000.0 / rate, answer: None }));
        }
    }
    Ok(lines)
}

fn print(builds: &[f64], table: &[Line], bad: &[&str]) {
    let heads: String = builds.iter().map(|builds| format!("{builds:>12.0}")).collect();
    say(&format!("{:<52}{heads}  growth  listed", "p50 in ms with so many builds"));
    for line in table {
        let cells: String = line
            .of
            .iter()
            .map(|figure| {
                figure.map_or_else(|| format!("{:>12}", "-"), |it| format!("{:>12.3}", it.ms))
            })
            .collect();
        let measured = line.measured(builds);
        let growth = match (measured.first(), measured.last()) {
            (Some((_, first)), Some((_, last))) if measured.len() > 1 => last / first,
            _ => f64::NAN,
        };
        let mut verdict = String::new();
        if line.is_unlike().is_some() {
            verdict.push_str("  NOT ALIKE");
        }
        if bad.contains(&&*line.name) {
            verdict.push_str("  FASTER than the logarithm");
        }
        let listed = line.listed();
        say(format!("{:<52}{cells}  {growth:6.2}  {listed:>6}{verdict}", line.name).trim_end());
    }
    if let (Some(first), Some(last)) = (builds.first(), builds.last()) {
        let log = last.ln() / first.ln();
        say(&format!(
            "the logarithm of the builds grows by {log:.2}; {:.2} and {WAKING_MS} ms are allowed",
            log * NOISE
        ));
    }
}
