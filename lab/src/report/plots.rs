//! The plots of a report.

use std::path::Path;

use measure::Workload;

use super::workloads::{columns, sorted, stem};
use crate::Result;
use crate::data::{Run, name};
use crate::experiment::{distribution, nines, seconds_axis};
use crate::plot::{Bar, Line, bars, lines};

/// Draws the plots of a run, and returns the names of their files.
pub(crate) fn plots(run: &Run, out: &Path) -> Result<Vec<String>> {
    std::fs::create_dir_all(out).map_err(|e| format!("cannot make {}: {e}", out.display()))?;
    let mut files = Vec::new();
    let mut keep = |file: String, svg: String| -> Result<()> {
        std::fs::write(out.join(&file), svg).map_err(|e| format!("cannot write {file}: {e}"))?;
        files.push(file);
        Ok(())
    };
    for key in run.keys() {
        let all = sorted(run, key);
        let by_rate = match key.0 {
            Workload::Stall => ("late_locked_ms", "worst lateness of the ticker, ms"),
            Workload::Cancel => ("answer_ms", "ms until the next answer"),
            Workload::LongScan => ("read_p99_ms", "p99 of the point reads, ms"),
            Workload::Fairness => ("polite_per_s", "writes/s of the seven polite clients together"),
            workload => columns(workload)[0],
        };
        let rows: Vec<Bar> = all
            .iter()
            .filter_map(|m| Some(Bar::new(&m.peer, m.value(by_rate.0)?, colour(&m.peer))))
            .collect();
        if !rows.is_empty() {
            keep(format!("{}-rate.svg", stem(key)), bars(&name(key), by_rate.1, &rows))?;
        }
        for side in ["write", "read", "page", "polite"] {
            let drawn: Vec<Line> = all
                .iter()
                .map(|m| (m, m.latencies(side)))
                .filter(|(_, latencies)| latencies.count() > 0)
                .map(|(m, latencies)| Line {
                    name: m.peer.clone(),
                    points: distribution(&latencies),
                    colour: colour(&m.peer),
                    bold: m.peer == "lockkeeper",
                })
                .collect();
            let few = matches!(key.0, Workload::Stall);
            if drawn.len() > 1 && !few {
                let title = format!("{}: how long one {side} takes", name(key));
                let note = "milliseconds, logarithmic; lower is better";
                keep(
                    format!("{}-{side}-latency.svg", stem(key)),
                    lines(&title, note, &nines(), &drawn),
                )?;
            }
        }
        if key.0 == Workload::Stall {
            let drawn: Vec<Line> = all
                .iter()
                .filter_map(|m| {
                    let series = &m.rounds.first()?.lateness;
                    (!series.is_empty()).then(|| Line {
                        name: m.peer.clone(),
                        points: series.clone(),
                        colour: colour(&m.peer),
                        bold: m.peer == "lockkeeper",
                    })
                })
                .collect();
            if !drawn.is_empty() {
                let title = "Scheduler lateness while another process holds the lock";
                let note = "milliseconds late, logarithmic; the lock is held for a second";
                keep(
                    format!("{}-lateness.svg", stem(key)),
                    lines(title, note, &seconds_axis(1.3), &drawn),
                )?;
            }
        }
        if key.0 == Workload::Fairness {
            let mut rows = Vec::new();
            for m in &all {
                let Some(clients) = m.rounds.first().map(|f| &f.clients) else { continue };
                let Some((greedy, polite)) = clients.split_last() else { continue };
                let least = polite.iter().copied().fold(f64::INFINITY, f64::min);
                rows.push(Bar::new(format!("{}, polite", m.peer), least, colour(&m.peer)));
                rows.push(Bar::new(format!("{}, greedy", m.peer), *greedy, 8));
            }
            if !rows.is_empty() {
                let note =
                    "writes/s of the slowest client with one call in flight, and of that with 256";
                keep(
                    format!("{}-clients.svg", stem(key)),
                    bars("Fairness per client", note, &rows),
                )?;
            }
        }
    }
    Ok(files)
}

/// The colour of a peer, which is the same in all plots. The lab's own loops are grey.
fn colour(peer: &str) -> usize {
    match peer {
        "lockkeeper" => 0,
        "lockkeeper-short" | "async-sqlite-1" => 5,
        "mutex" => 1,
        "tokio-rusqlite" => 2,
        "async-sqlite" => 3,
        "deadpool" => 4,
        "r2d2" => 6,
        "retry" => 7,
        "sqlx" => 9,
        "tinystore" => 10,
        "turso" => 11,
        "turso-mvcc" => 12,
        _ => 8,
    }
}
