//! The project's aims in comparison with the best peer, and whether a run reaches them.

use measure::{Synchronous, Workload};

use crate::data::{Key, Run, more_is_better};
use crate::plot::figure;

/// One aim, and what the run shows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finding {
    pub(crate) aim: String,
    pub(crate) found: String,
    pub(crate) holds: bool,
}

/// Whether `name` is a peer to compare with. The upper limit, the loop that blocks the runtime and Lockkeeper itself
/// are no such peers.
pub(crate) fn is_peer(name: &str) -> bool {
    !matches!(name, "raw" | "naive" | "lockkeeper" | "lockkeeper-short")
}

/// The best median of all peers for a figure, whatever the peers' other results are.
pub(crate) fn best<'a>(run: &'a Run, key: Key, name: &str) -> Option<(&'a str, f64)> {
    let more = more_is_better(name)?;
    run.of(key)
        .filter(|m| is_peer(&m.peer))
        .filter_map(|m| Some((m.peer.as_str(), m.value(name)?)))
        .max_by(|a, b| if more { a.1.total_cmp(&b.1) } else { b.1.total_cmp(&a.1) })
}

/// Checks every aim whose workload is in the run.
pub(crate) fn check(run: &Run) -> Vec<Finding> {
    use Synchronous::{Full, Normal};
    use Workload as W;
    let mut all = Vec::new();
    let mut times = |key: Key, ours: &str, name: &str, least: f64, what: &str| {
        let ours = run.find(key, ours).and_then(|m| m.value(name));
        if let (Some(ours), Some((peer, theirs))) = (ours, best(run, key, name)) {
            all.push(Finding {
                aim: format!("{what}: ≥ {least} × the best peer"),
                found: format!(
                    "{} × ({} beside {} of {peer})",
                    figure(ours / theirs),
                    figure(ours),
                    figure(theirs)
                ),
                holds: ours >= least * theirs,
            });
        }
    };
    let writes = "writes_per_s";
    let us = "lockkeeper";
    times((W::TinyWrites, Full, 1), us, writes, 1.0, "tiny writes, FULL, 1 task");
    times((W::TinyWrites, Full, 64), us, writes, 7.0, "tiny writes, FULL, 64 tasks");
    times((W::TinyWrites, Full, 512), us, writes, 12.0, "tiny writes, FULL, 512 tasks");
    times((W::TinyWrites, Normal, 1), us, writes, 1.0, "tiny writes, NORMAL, 1 task");
    times((W::TinyWrites, Normal, 64), us, writes, 2.0, "tiny writes, NORMAL, 64 tasks");
    times((W::TinyWrites, Normal, 512), us, writes, 2.0, "tiny writes, NORMAL, 512 tasks");
    times((W::PointReads, Full, 64), us, "reads_per_s", 2.0, "point reads, 64 tasks");
    let short = "lockkeeper-short";
    times((W::PointReads, Full, 1), short, "reads_per_s", 5.0, "point reads, 1 task, `.short()`");
    let mixed = (W::Mixed, Full, W::Mixed.default_tasks());
    times(mixed, us, writes, 2.5, "mixed, writes");
    times(mixed, us, "reads_per_s", 1.1, "mixed, reads");

    for side in ["write", "read"] {
        let name = format!("{side}_p99_ms");
        let ours = run.find(mixed, us).and_then(|m| m.value(&name));
        if let (Some(ours), Some((peer, theirs))) = (ours, best(run, mixed, &name)) {
            all.push(Finding {
                aim: format!("mixed, {side}s: p99 better than any peer's"),
                found: format!("{} ms beside {} ms of {peer}", figure(ours), figure(theirs)),
                holds: ours < theirs,
            });
        }
    }
    let stall = (W::Stall, Full, W::Stall.default_tasks());
    let late = |peer: &str, name: &str| run.find(stall, peer).and_then(|m| m.value(name));
    if let (Some(idle), Some(locked)) = (late(us, "late_idle_ms"), late(us, "late_locked_ms")) {
        let naive = late("naive", "late_locked_ms")
            .map_or_else(String::new, |naive| format!("; naive {} ms", figure(naive)));
        all.push(Finding {
            aim: "stall: worst lateness ≤ idle + 5 ms".to_owned(),
            found: format!("{} ms, idle {} ms{naive}", figure(locked), figure(idle)),
            holds: locked <= idle + 5.0,
        });
    }
    let fairness = (W::Fairness, Full, W::Fairness.default_tasks());
    if let Some(m) = run.find(fairness, us) {
        let raw = run
            .measurements
            .iter()
            .filter(|m| m.peer == "raw" && m.workload == W::TinyWrites && m.synchronous == Full)
            .find_map(|m| m.value(writes));
        if let Some(keeps) = m.value("least_polite_keeps") {
            all.push(Finding {
                aim: "fairness: each polite client keeps ≥ 55 %".to_owned(),
                found: format!("{} %", figure(keeps * 100.0)),
                holds: keeps >= 0.55,
            });
        }
        if let (Some(together), Some(raw)) = (m.value(writes), raw) {
            all.push(Finding {
                aim: "fairness: all together ≥ 4 × the raw loop".to_owned(),
                found: format!("{} ×", figure(together / raw)),
                holds: together >= 4.0 * raw,
            });
        }
        if let Some(jain) = m.value("jain_all_busy") {
            all.push(Finding {
                aim: "fairness: Jain's index of eight busy clients ≥ 0.99".to_owned(),
                found: format!("{jain:.4}"),
                holds: jain >= 0.99,
            });
        }
    }
    let scan = (W::LongScan, Full, W::LongScan.default_tasks());
    if let Some(p99) = run.find(scan, us).and_then(|m| m.value("read_p99_ms")) {
        let peer = best(run, scan, "read_p99_ms").map_or_else(String::new, |(peer, p99)| {
            format!("; the best peer, {peer}: {} ms", figure(p99))
        });
        all.push(Finding {
            aim: "long scan: p99 of point reads ≤ 1 ms".to_owned(),
            found: format!("{} ms{peer}", figure(p99)),
            holds: p99 <= 1.0,
        });
    }
    for queries in [1, 16] {
        if let Some(m) = run.find((W::Cancel, Full, queries), us)
            && let Some(answer) = m.value("answer_ms")
        {
            all.push(Finding {
                aim: format!("cancel of {queries}: the next answer in ≤ 10 ms"),
                found: format!("{} ms", figure(answer)),
                holds: answer <= 10.0 && m.troubles().1 == 0,
            });
        }
    }
    let bulk = (W::Bulk, Full, W::Bulk.default_tasks());
    let rows = |peer: &str| run.find(bulk, peer).and_then(|m| m.value("rows_per_s"));
    if let (Some(ours), Some(raw)) = (rows(us), rows("raw")) {
        all.push(Finding {
            aim: "bulk: ≥ 0.95 × the raw loop".to_owned(),
            found: format!("{} ×", figure(ours / raw)),
            holds: ours >= 0.95 * raw,
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::tests::{measurement, run_of};

    const KEY: Key = (Workload::TinyWrites, Synchronous::Full, 64);

    #[test]
    fn the_best_peer_is_not_the_limit() {
        let run = run_of(vec![
            measurement(KEY, "raw", "writes_per_s", &[10_000.0]),
            measurement(KEY, "mutex", "writes_per_s", &[5000.0, 7000.0, 6000.0]),
            measurement(KEY, "sqlx", "writes_per_s", &[4000.0]),
        ]);
        assert_eq!(best(&run, KEY, "writes_per_s"), Some(("mutex", 6000.0)));
        assert_eq!(best(&run, KEY, "rows"), None);
    }

    #[test]
    fn an_aim_holds_from_its_number_on() {
        for (ours, holds) in [(42_000.0, true), (41_000.0, false)] {
            let run = run_of(vec![
                measurement(KEY, "lockkeeper", "writes_per_s", &[ours]),
                measurement(KEY, "mutex", "writes_per_s", &[6000.0]),
            ]);
            let found = check(&run);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].holds, holds, "{found:?}");
        }
    }
}
