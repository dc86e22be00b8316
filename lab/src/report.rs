//! Measures everything in one run, and writes a report with tables and plots.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use measure::{Synchronous, Workload};

use crate::Result;
use crate::bench::{self, Item};
use crate::data::{Key, Run, more_is_better, name};
use crate::durability::Syncs;
use crate::plot::figure;
use crate::targets::{self, is_peer};

use workloads::{columns, sorted, stem, what};

pub(crate) use plots::plots;

mod plots;
mod workloads;

/// Command line of `lab report`.
#[derive(Args)]
pub(crate) struct Options {
    /// One short round, to try: some four minutes instead of thirteen.
    #[arg(long)]
    quick: bool,
    /// How long each measurement lasts.
    #[arg(long, value_parser = bench::seconds)]
    seconds: Option<f64>,
    /// Rounds.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: Option<u32>,
    /// Only workloads whose name contains one of these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where measurements.md and plots/ go; `--quick` writes to lab/out unless this is said.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Writes the report from a file of an earlier run, without measuring.
    #[arg(long)]
    from: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = match &options.out {
        Some(out) => out.clone(),
        None if options.quick || !options.only.is_empty() => lab.join("out"),
        None => lab.join("../docs"),
    };
    let file = lab.join("out/report.json");
    let run = match &options.from {
        Some(file) => Run::load(file)?,
        None => {
            let seconds = options.seconds.unwrap_or(if options.quick { 0.4 } else { 0.6 });
            let repeat = options.repeat.unwrap_or(if options.quick { 1 } else { 3 });
            let plan: Vec<Item> = plan()
                .into_iter()
                .filter(|item| {
                    let name = item.workload.name();
                    options.only.is_empty()
                        || options.only.iter().any(|o| name.contains(o.as_str()))
                })
                .collect();
            if plan.is_empty() {
                return Err("no workload has such a name; see `lab bench --help`".into());
            }
            let command = format!("report --seconds {seconds} --repeat {repeat}");
            let run = bench::measure(&plan, seconds, repeat, &command, true)?;
            run.save(&file)?;
            eprintln!("{} is for `lab plot` and `lab compare`", file.display());
            run
        }
    };
    let plotted = plots(&run, &out.join("plots"))?;
    let text = write(&run, &plotted);
    let page = out.join("measurements.md");
    std::fs::write(&page, text).map_err(|e| format!("cannot write {}: {e}", page.display()))?;
    println!("{}", page.display());
    for finding in targets::check(&run) {
        let holds = if finding.holds { "holds " } else { "MISSED" };
        println!("{holds} {}: {}", finding.aim, finding.found);
    }
    Ok(())
}

/// What the report measures. A peer is left out of a workload in which it would show the same as a similar peer.
fn plan() -> Vec<Item> {
    use Synchronous::{Full, Normal};
    use Workload as W;
    let item = |workload: Workload, synchronous, tasks| {
        let peers = bench::peers_of(workload)
            .into_iter()
            .filter(|peer| {
                peer != "async-sqlite-1"
                    || matches!(workload, W::TinyWrites | W::PointReads | W::Mixed)
            })
            .collect();
        Item { workload, tasks, synchronous, peers }
    };
    let usual = |workload: Workload| item(workload, Full, workload.default_tasks());
    vec![
        item(W::TinyWrites, Full, 1),
        item(W::TinyWrites, Full, 64),
        item(W::TinyWrites, Full, 512),
        item(W::TinyWrites, Normal, 1),
        item(W::TinyWrites, Normal, 64),
        item(W::TinyWrites, Normal, 512),
        item(W::PointReads, Full, 1),
        item(W::PointReads, Full, 64),
        usual(W::Mixed),
        usual(W::ReadPage),
        usual(W::LongScan),
        usual(W::Fairness),
        usual(W::Bulk),
        usual(W::Stall),
        item(W::Cancel, Full, 1),
        item(W::Cancel, Full, 16),
    ]
}

/// All tables of a run.
pub(crate) fn tables(run: &Run) -> String {
    let mut text = String::new();
    for key in run.keys() {
        let _ = writeln!(text, "### {}\n\n{}", name(key), table(run, key));
    }
    text
}

fn table(run: &Run, key: Key) -> String {
    let columns = columns(key.0);
    let mut text = String::from("| peer |");
    for (_, heading) in columns {
        let _ = write!(text, " {heading} |");
    }
    text.push_str("\n|---|");
    text.push_str(&"--:|".repeat(columns.len()));
    text.push('\n');
    for m in sorted(run, key) {
        let ours = m.peer.starts_with("lockkeeper");
        let bold = if ours { "**" } else { "" };
        let _ = write!(text, "| {bold}{}{bold} |", m.peer);
        for (column, (name, _)) in columns.iter().enumerate() {
            let shown = m.value(name).map_or_else(|| "–".to_owned(), |value| shown(name, value));
            let noise = m.noise(name);
            let noise = if column == 0 && noise >= 0.005 {
                format!(" ±{:.0} %", noise * 100.0)
            } else {
                String::new()
            };
            let _ = write!(text, " {shown}{noise} |");
        }
        text.push('\n');
    }
    for peer in run.peers.keys() {
        if let Some(why) = bench::cannot(peer, key.0) {
            let _ = writeln!(text, "| {peer} | cannot: {why} |{}", " |".repeat(columns.len() - 1));
        }
    }
    let mut troubles = Vec::new();
    for m in run.of(key) {
        let (errors, unanswered, failed, said) = m.troubles();
        if errors + unanswered > 0 || failed > 0 {
            troubles.push(format!(
                "{}: {} failed, {} unanswered, {} rounds without figures{}",
                m.peer,
                figure(errors as f64),
                figure(unanswered as f64),
                failed,
                said.map_or_else(String::new, |said| format!(" (“{said}”)"))
            ));
        }
    }
    if troubles.is_empty() {
        text.push_str("\nNo call failed.\n");
    } else {
        let _ = writeln!(text, "\nCalls that failed: {}.", troubles.join("; "));
    }
    text
}

fn shown(name: &str, value: f64) -> String {
    match name {
        "least_polite_keeps" => format!("{} %", figure(value * 100.0)),
        "jain_beside_greedy" | "jain_all_busy" => format!("{value:.3}"),
        "cores_burning" => format!("{value:.1}"),
        _ => figure(value),
    }
}

/// The figures for which a peer's median is better than Lockkeeper's by more than both spreads: a line each, with both
/// values.
fn better_peers(run: &Run) -> Vec<String> {
    let mut all = Vec::new();
    for key in run.keys() {
        for (figure_name, heading) in columns(key.0) {
            let Some(more) = more_is_better(figure_name) else { continue };
            // The best of Lockkeeper's own ways to do the workload, because a reader would choose that one.
            let ours = run
                .of(key)
                .filter(|m| m.peer.starts_with("lockkeeper"))
                .filter_map(|m| Some((m.value(figure_name)?, m.noise(figure_name))))
                .max_by(|a, b| if more { a.0.total_cmp(&b.0) } else { b.0.total_cmp(&a.0) });
            let Some((ours, our_noise)) = ours else { continue };
            let mut better: Vec<(f64, &str)> = run
                .of(key)
                .filter(|m| is_peer(&m.peer) || m.peer == "naive")
                .filter_map(|m| {
                    let theirs = m.value(figure_name)?;
                    let noise = our_noise.hypot(m.noise(figure_name)).max(0.03);
                    let apart = (theirs / ours).max(ours / theirs) - 1.0;
                    let is = (theirs > ours) == more && apart > noise && theirs != ours;
                    // A difference of a few hundredths of a millisecond or of a core comes from the clock.
                    let matters = match *figure_name {
                        "late_idle_ms" | "cores_burning" => false,
                        "late_locked_ms" | "answer_ms" => (theirs - ours).abs() > 1.0,
                        "future_back_ms" => (theirs - ours).abs() > 5.0,
                        _ => true,
                    };
                    (is && matters && theirs.is_finite()).then_some((theirs, m.peer.as_str()))
                })
                .collect();
            better.sort_by(|a, b| if more { b.0.total_cmp(&a.0) } else { a.0.total_cmp(&b.0) });
            if better.is_empty() {
                continue;
            }
            let theirs: Vec<String> = better
                .iter()
                .map(|(value, peer)| format!("{peer} {}", shown(figure_name, *value)))
                .collect();
            all.push(format!(
                "{}, {heading}: {} (Lockkeeper {})",
                name(key),
                theirs.join(", "),
                shown(figure_name, ours)
            ));
        }
    }
    all
}

fn write(run: &Run, plotted: &[String]) -> String {
    let mut text = String::new();
    let m = &run.machine;
    let _ = write!(
        text,
        "# Measurements\n\nLockkeeper beside its peers: the same work, in turn, in one run. Written by \
         `lab report`; do not edit.\n\n\
         - Date: {}, commit {}.\n\
         - Machine: {}, {} cores, {} GiB, {}, {}; a page appended and made durable {} times a second.\n\
         - {}.\n\
         - Command: `cargo run --release --manifest-path lab/Cargo.toml -- {}`\n\n",
        run.date,
        if run.commit.is_empty() { "unknown" } else { &run.commit },
        m.processor,
        m.cores,
        figure(m.memory_gib),
        m.system,
        m.file_system,
        figure(m.syncs_per_s),
        m.compiler,
        run.command,
    );
    text.push_str(
        "Each figure is the median of the rounds; ± is the widest distance of a round from it. Every \
         measurement has a process and a database of its own, warms up for a quarter of its time (where rows \
         are looked up, 0.75 s at least, which is what it takes to fill the page caches), and is taken in \
         turn with the others, each round in another order. Compare ratios inside one table: numbers of two \
         days or two machines mean little. All use WAL mode, a page cache of 64 MiB per connection, cached \
         statements and the same schema; what else a peer does is its own default (sizes of pools, busy timeouts, checkpoints every 1,000 pages, where \
         Lockkeeper folds back at 4 to 32 MiB). A rate counts the calls that ended in the measured time, whenever they began; latencies are those of all calls that were in \
         flight in it, also in a part of it, and a call that is given up counts with the time that it was waited for. After each \
         measurement the lab looks into the file for the row of every write that was answered; one that is missing counts as \
         failed. A peer that cannot do a workload stands in its table with the reason; `raw` has no tasks, so it is not in \
         those about tasks, `naive` is in `stall` alone, `lockkeeper-short` in `point-reads`, `async-sqlite-1` where one \
         connection instead of several makes a difference.\n\n",
    );
    text.push_str("| peer | version | what it is here |\n|---|---|---|\n");
    for (peer, version) in &run.peers {
        let _ = writeln!(text, "| {peer} | {version} | {} |", who(peer));
    }
    text.push_str(
        "\nSQLite before the version that rusqlite 0.41 links is built with one mutex around all page caches \
         of a process: peers on it lose reads to that, not to their own design.\n",
    );

    let findings = targets::check(run);
    if !findings.is_empty() {
        text.push_str("\n## Against the best peer\n\n| aim | found | |\n|---|---|---|\n");
        for finding in &findings {
            let holds = if finding.holds { "holds" } else { "**missed**" };
            let _ = writeln!(text, "| {} | {} | {holds} |", finding.aim, finding.found);
        }
        text.push_str(
            "\nThe raw loop and `naive`, which blocks the runtime, are not peers here.\n",
        );
    }

    text.push_str(&durability(run));

    text.push_str("\n## Where a peer is better\n\n");
    let better = better_peers(run);
    if better.is_empty() {
        text.push_str("Nowhere in this run by more than the noise.\n");
    } else {
        text.push_str(
            "By more than the spread of the rounds, computed from the figures below:\n\n",
        );
        for line in better {
            let _ = writeln!(text, "- {line}");
        }
    }

    let mut last = None;
    for key in run.keys() {
        if last != Some(key.0) {
            let _ = write!(text, "\n## {}\n\n{}\n", key.0.name(), what(key.0));
            last = Some(key.0);
        }
        let _ = write!(text, "\n### {}\n\n{}", name(key), table(run, key));
        for file in plotted.iter().filter(|file| file.starts_with(&format!("{}-", stem(key)))) {
            let _ = write!(text, "\n![{}](plots/{file})\n", name(key));
        }
    }
    text
}

/// The counted syncs, and what follows from them.
fn durability(run: &Run) -> String {
    let mut text = String::from("\n## Durability\n\n");
    if run.syncs.is_empty() {
        text.push_str("Syncs were not counted: `strace` was missing or may not trace.\n");
        return text;
    }
    text.push_str(
        "Syncs (`fsync`, `fdatasync` and the like) of the whole process, counted by the kernel's side with `strace` in \
         measurements of their own: tiny writes with FULL. With one task there is never more than one write to sync \
         for, so fewer syncs than answers mean that an answer came before the row was durable; with 64 tasks writes may \
         share a sync.\n\n\
         | peer | 1 task: answers | syncs each | 64 tasks: answers | syncs each | each answer is durable |\n\
         |---|--:|--:|--:|--:|---|\n",
    );
    for one in run.syncs.iter().filter(|syncs| syncs.tasks == 1) {
        let many = run.syncs.iter().find(|s| s.peer == one.peer && s.tasks != 1);
        let shown = |syncs: Option<&Syncs>| {
            syncs.map_or_else(
                || "– | –".to_owned(),
                |s| format!("{} | {}", figure(s.answered as f64), figure(s.per_write())),
            )
        };
        let durable = if one.syncs >= one.answered { "yes" } else { "**no**" };
        let _ =
            writeln!(text, "| {} | {} | {} | {durable} |", one.peer, shown(Some(one)), shown(many));
    }
    text
}

fn who(peer: &str) -> &'static str {
    match peer {
        "lockkeeper" => "defaults",
        "lockkeeper-short" => "reads marked `.short()`",
        "raw" => "plain threads, a connection each, no queue, no runtime: the limit",
        "naive" => "`Arc<Mutex<Connection>>`, called in the task",
        "mutex" => "`Arc<Mutex<Connection>>` in `spawn_blocking`",
        "tokio-rusqlite" => "one thread, one connection",
        "async-sqlite" => "a thread per connection, as many as cores",
        "async-sqlite-1" => "the same with one connection",
        "deadpool" => "default size, `interact`",
        "r2d2" => "default size of ten, in `spawn_blocking`",
        "retry" => "ten connections, no busy handler, naps of 1 ms doubled to 1 s, twenty tries",
        "sqlx" => "default pool of ten",
        "tinystore" => {
            "its async API with the flags for SQLite that it asks for: writes share a commit, each in a savepoint of its own; \
             a page cache of 1 MiB, which it does not let one change; a page and a bulk write in `tx`, its only transaction, \
             which holds the writer"
        }
        "turso" => {
            "SQLite's format written anew in Rust, defaults; a connection for each call in flight, writes one at a time \
             behind a `tokio::sync::Mutex`"
        }
        "turso-mvcc" => {
            "the same with `journal_mode = mvcc`: writes in `BEGIN CONCURRENT`, tried again after a conflict"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::tests::{measurement, run_of};

    const KEY: Key = (Workload::TinyWrites, Synchronous::Full, 64);

    #[test]
    fn a_peer_that_is_better_by_more_than_noise_is_named() {
        let run = |theirs: &[f64]| {
            run_of(vec![
                measurement(KEY, "lockkeeper", "write_p50_ms", &[1.0, 1.0, 1.1]),
                measurement(KEY, "mutex", "write_p50_ms", theirs),
                measurement(KEY, "raw", "write_p50_ms", &[0.1]),
            ])
        };
        let better = better_peers(&run(&[0.5, 0.5, 0.5]));
        assert_eq!(better, ["tiny-writes, FULL, 64 tasks, p50 ms: mutex 0.5 (Lockkeeper 1)"]);
        assert_eq!(better_peers(&run(&[0.95, 0.95, 0.95])), Vec::<String>::new());
        assert_eq!(better_peers(&run(&[2.0])), Vec::<String>::new());
    }

    #[test]
    fn a_peer_that_cannot_do_a_workload_stands_in_its_table_with_the_reason() {
        let key = (Workload::Stall, Synchronous::Full, 64);
        let mut run = run_of(vec![measurement(key, "lockkeeper", "late_locked_ms", &[1.0])]);
        run.peers.insert("turso".to_owned(), "turso 0.8.3".to_owned());
        let text = table(&run, key);
        assert!(text.contains("| turso | cannot: it locks the file"), "{text}");
        let columns: Vec<_> = text.lines().take(4).map(|line| line.matches('|').count()).collect();
        assert_eq!(columns, [6; 4], "{text}");
    }

    #[test]
    fn a_peer_that_answers_more_often_than_it_syncs_is_said_not_to_be_durable() {
        let syncs = |peer: &str, tasks, answered, syncs| Syncs {
            peer: peer.to_owned(),
            tasks,
            answered,
            syncs,
        };
        let mut run = run_of(vec![]);
        assert!(durability(&run).contains("were not counted"));
        run.syncs = vec![
            syncs("lazy", 1, 1000, 999),
            syncs("lazy", 64, 1000, 10),
            syncs("true", 1, 1000, 1003),
        ];
        let text = durability(&run);
        assert!(text.contains("| lazy | 1,000 | 0.999 | 1,000 | 0.01 | **no** |"), "{text}");
        assert!(text.contains("| true | 1,000 | 1 | – | – | yes |"), "{text}");
    }

    #[test]
    fn failures_stand_under_the_table() {
        let mut run = run_of(vec![measurement(KEY, "retry", "writes_per_s", &[5000.0])]);
        assert!(table(&run, KEY).contains("| retry | 5,000 | – |"));
        assert!(table(&run, KEY).ends_with("No call failed.\n"));
        run.measurements[0].rounds[0].failed("database is locked".to_owned());
        let text = table(&run, KEY);
        assert!(text.contains("retry: 1 failed, 0 unanswered"), "{text}");
        assert!(text.contains("“database is locked”"), "{text}");
    }

    #[test]
    fn the_best_stands_first_and_what_has_no_figures_last() {
        let mut silent = measurement(KEY, "sqlx", "writes_per_s", &[]);
        silent.failed.push("no answer".to_owned());
        let run = run_of(vec![
            silent,
            measurement(KEY, "mutex", "writes_per_s", &[6000.0]),
            measurement(KEY, "lockkeeper", "writes_per_s", &[60_000.0]),
        ]);
        let order: Vec<&str> = sorted(&run, KEY).iter().map(|m| m.peer.as_str()).collect();
        assert_eq!(order, ["lockkeeper", "mutex", "sqlx"]);
    }

    #[test]
    fn every_figure_of_the_report_knows_its_better_side() {
        for item in plan() {
            for (figure, _) in columns(item.workload) {
                assert!(*figure == "rows" || more_is_better(figure).is_some(), "{figure}");
            }
        }
    }
}
