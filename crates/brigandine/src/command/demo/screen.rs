//! Prints the demo's progress. On a terminal, a summary overwrites itself and never exceeds the terminal's size;
//! otherwise plain lines are printed. A table is printed at the end.

use std::collections::BTreeMap;
use std::io::Write;

use super::summary::{Job, Outcome, Summary};
use crate::command::{say, table, terminal};
use crate::model::BuildStatus;

const PLAIN: &str = "0";
const BOLD: &str = "1";
const FAINT: &str = "2";

/// The most older evaluations that the summary shows.
const OLDER: usize = 3;

/// A line of the summary: texts, each with the code of its style.
type Line = Vec<(&'static str, String)>;

/// The standard output of the demo.
pub(super) struct Screen {
    /// Whether standard output is a terminal.
    live: bool,
    silent: bool,
    /// The width of each line of the last drawing.
    drawn: Vec<usize>,
    /// The status that was last printed for each job, by evaluation and name, so that plain lines report only changes.
    said: BTreeMap<(i64, String), &'static str>,
}

impl Screen {
    pub(super) fn new(silent: bool) -> Self {
        let live = terminal::size(&std::io::stdout()).is_some();
        Self { live, silent, drawn: Vec::new(), said: BTreeMap::new() }
    }

    pub(super) fn line(&mut self, text: &str) {
        if !self.silent {
            say(text);
        }
    }

    pub(super) fn draw(&mut self, evaluations: &[Summary]) {
        if self.silent {
            return;
        }
        if self.live {
            self.draw_over(evaluations);
            return;
        }
        for evaluation in evaluations {
            for (name, job) in &evaluation.jobs {
                let status = if job.reused { "re-used" } else { job.status };
                let key = (evaluation.id, name.clone());
                if self.said.get(&key) != Some(&status) {
                    self.said.insert(key, status);
                    // Every job begins as scheduled, so this status is not reported.
                    if status != BuildStatus::Scheduled.as_str() {
                        let (id, build) = (evaluation.id, job.build);
                        let why = if job.reused { String::new() } else { job.why() };
                        self.line(&format!("#{id} {name}: {status} (build {build}){why}"));
                    }
                }
            }
        }
    }

    fn draw_over(&mut self, evaluations: &[Summary]) {
        let Some((width, height)) = terminal::size(&std::io::stdout()) else { return };
        // The last column and the last row stay free: some terminals begin a new line after the last column, and all
        // terminals scroll after the last row.
        let lines = drawing(evaluations, width.saturating_sub(1), height.saturating_sub(2));
        let mut text = String::new();
        // If the terminal was made narrower, it has wrapped the longer lines.
        let rows: usize = self.drawn.iter().map(|columns| columns.div_ceil(width).max(1)).sum();
        if rows > 0 {
            text.push_str(&format!("\x1b[{rows}A\x1b[J"));
        }
        self.drawn.clear();
        for line in lines {
            let mut columns = 0;
            for (code, part) in line {
                columns += terminal::columns(&part);
                if code == PLAIN {
                    text.push_str(&part);
                } else {
                    text.push_str(&format!("\x1b[{code}m{part}\x1b[0m"));
                }
            }
            text.push('\n');
            self.drawn.push(columns);
        }
        let mut out = std::io::stdout();
        let _ = out.write_all(text.as_bytes());
        let _ = out.flush();
    }
}

/// The lines of the summary, cut to `width` columns and `height` rows.
fn drawing(evaluations: &[Summary], width: usize, height: usize) -> Vec<Line> {
    // Jobs are listed only for the newest evaluation.
    let Some((newest, older)) = evaluations.split_last() else { return Vec::new() };
    let mut jobs: Vec<Line> = newest.jobs.iter().map(|(name, job)| job_line(name, job)).collect();
    let head = heading(newest, width);
    let room = height.saturating_sub(head.len());
    if jobs.len() > room {
        let left = jobs.len() - room.saturating_sub(1);
        jobs.truncate(room.saturating_sub(1));
        jobs.push(vec![(FAINT, format!("  and {left} more"))]);
    }
    let mut above: Vec<Vec<Line>> = Vec::new();
    let mut room = room.saturating_sub(jobs.len());
    for evaluation in older.iter().rev().take(OLDER) {
        let heading = heading(evaluation, width);
        let Some(left) = room.checked_sub(heading.len()) else { break };
        room = left;
        above.push(heading);
    }
    let blank = (room > 0).then(Vec::new);
    let above = above.into_iter().rev().flatten();
    let lines = blank.into_iter().chain(above).chain(head).chain(jobs);
    lines.map(|line| cut(line, width)).collect()
}

/// An evaluation's number, subject and counts, wrapped at `width` columns.
fn heading(evaluation: &Summary, width: usize) -> Vec<Line> {
    let (number, words) = (format!("#{}", evaluation.id), evaluation.words());
    let subject = &evaluation.subject;
    let one = format!(" {subject}: {words}");
    if terminal::columns(&number) + terminal::columns(&one) <= width {
        return vec![vec![(BOLD, number), (PLAIN, one)]];
    }
    let mut lines = vec![vec![(BOLD, number), (PLAIN, format!(" {subject}:"))]];
    let mut line = String::from("  ");
    for part in words.split_inclusive(", ") {
        if line.len() > 2 && terminal::columns(&line) + terminal::columns(part.trim_end()) > width {
            lines.push(vec![(PLAIN, std::mem::replace(&mut line, String::from("  ")))]);
        }
        line.push_str(part);
    }
    lines.push(vec![(PLAIN, line)]);
    lines
}

fn job_line(name: &str, job: &Job) -> Line {
    let (mark, colour) = mark(job.status);
    let note = if job.reused {
        format!("{}, re-used", job.status)
    } else if job.seconds > 0 {
        format!("{} {} s{}", job.status, job.seconds, job.why())
    } else {
        format!("{}{}", job.status, job.why())
    };
    let paint = if job.reused { FAINT } else { PLAIN };
    vec![(PLAIN, "  ".to_owned()), (colour, mark.to_owned()), (paint, format!(" {name:12} {note}"))]
}

/// The beginning of a line, at most `width` columns wide.
fn cut(line: Line, width: usize) -> Line {
    let mut room = width;
    let mut kept = Vec::new();
    for (code, part) in line {
        let fits = terminal::columns(&part) <= room;
        let part = terminal::fit(&part, room);
        room -= terminal::columns(&part).min(room);
        kept.push((code, part));
        if !fits {
            break;
        }
    }
    kept
}

/// The sign for a status, and the code of the sign's colour.
fn mark(status: &str) -> (&'static str, &'static str) {
    match status {
        "succeeded" => ("✓", "32"),
        "failed" => ("✗", "31"),
        "failed-dependency" => ("↳", "33"),
        "failed-other" => ("!", "31"),
        "canceled" => ("–", "35"),
        "started" => ("▸", "34"),
        _ => ("·", "90"),
    }
}

/// Prints how each job ended in the two evaluations, and why jobs did not succeed.
pub(super) fn print_table(outcome: &Outcome) {
    let empty = BTreeMap::new();
    let jobs_of =
        |at: usize| outcome.evaluations.get(at).map_or(&empty, |evaluation| &evaluation.jobs);
    let (first, second) = (jobs_of(0), jobs_of(1));
    let mut rows = vec![["JOB", "FIRST REVISION", "SECOND REVISION"].map(str::to_owned)];
    let cell = |job: Option<&Job>| match job {
        None => "-".to_owned(),
        Some(job) if job.reused => "re-used".to_owned(),
        Some(job) if job.seconds == 0 => job.status.to_owned(),
        Some(job) => format!("{} ({} s)", job.status, job.seconds),
    };
    let mut why = vec![["JOB", "WHY"].map(str::to_owned)];
    for name in first.keys().chain(second.keys().filter(|name| !first.contains_key(*name))) {
        let jobs = [first.get(name), second.get(name)];
        rows.push([name.clone(), cell(jobs[0]), cell(jobs[1])]);
        for job in jobs.into_iter().flatten().filter(|job| !job.reused && !job.reason.is_empty()) {
            why.push([name.clone(), job.reason.clone()]);
            if !job.last_words.is_empty() {
                why.push([String::new(), job.last_words.clone()]);
            }
        }
    }
    say("");
    table(&rows);
    if why.len() > 1 {
        say("");
        table(&why);
    }
    let word = if outcome.expected { "as expected" } else { "NOT as expected" };
    say(&format!("\n{word}, in {:.1} s", outcome.seconds));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(status: &'static str, reused: bool, reason: &str) -> Job {
        let (reason, last_words) = (reason.to_owned(), String::new());
        Job { build: 1, status, reused, seconds: 3, reason, last_words }
    }

    fn summary(id: i64, jobs: usize) -> Summary {
        let name = |at: usize| format!("group.job-{at}-日本語");
        let job = |at: usize| {
            job(
                ["succeeded", "failed", "failed-dependency", "started"][at % 4],
                at.is_multiple_of(5),
                "exit status 3",
            )
        };
        Summary {
            id,
            status: "succeeded",
            message: String::new(),
            subject: "Weave sheets of mail, and count their rings in the manual".to_owned(),
            finished: false,
            jobs: (0..jobs).map(|at| (name(at), job(at))).collect(),
        }
    }

    #[test]
    fn no_drawing_is_wider_or_higher_than_its_terminal() {
        for evaluations in
            [vec![summary(1, 9)], (1..=6).map(|id| summary(id, 9)).collect(), vec![summary(1, 60)]]
        {
            for width in [10, 20, 39, 79, 200] {
                for height in [4, 10, 22, 50] {
                    let lines = drawing(&evaluations, width, height);
                    let head = heading(evaluations.last().expect("one"), width).len();
                    assert!(lines.len() <= height.max(head + 1), "{} in {height}", lines.len());
                    for line in &lines {
                        let columns: usize =
                            line.iter().map(|(_, part)| terminal::columns(part)).sum();
                        assert!(columns <= width, "{line:?} in {width}");
                    }
                }
            }
        }
    }
}
