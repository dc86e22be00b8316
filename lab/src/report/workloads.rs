//! What the report says and shows of each workload.

use measure::Workload;

use crate::data::{Key, Measurement, Run, more_is_better};

/// The columns of a workload's table: figures and headings.
pub(super) fn columns(workload: Workload) -> &'static [(&'static str, &'static str)] {
    match workload {
        Workload::TinyWrites => &[
            ("writes_per_s", "writes/s"),
            ("write_p50_ms", "p50 ms"),
            ("write_p99_ms", "p99 ms"),
            ("write_p999_ms", "p99.9 ms"),
            ("write_max_ms", "max ms"),
            ("cpu_us_per_call", "CPU µs each"),
        ],
        Workload::PointReads => &[
            ("reads_per_s", "reads/s"),
            ("read_p50_ms", "p50 ms"),
            ("read_p99_ms", "p99 ms"),
            ("read_p999_ms", "p99.9 ms"),
            ("read_max_ms", "max ms"),
            ("cpu_us_per_call", "CPU µs each"),
        ],
        Workload::Mixed => &[
            ("writes_per_s", "writes/s"),
            ("write_p99_ms", "write p99 ms"),
            ("write_max_ms", "max ms"),
            ("reads_per_s", "reads/s"),
            ("read_p50_ms", "read p50 ms"),
            ("read_p99_ms", "p99 ms"),
            ("read_max_ms", "max ms"),
        ],
        Workload::ReadPage => &[
            ("pages_per_s", "pages/s"),
            ("page_p50_ms", "page p50 ms"),
            ("page_p99_ms", "p99 ms"),
            ("page_max_ms", "max ms"),
            ("writes_per_s", "writes/s"),
            ("write_p99_ms", "write p99 ms"),
            ("write_max_ms", "max ms"),
        ],
        Workload::LongScan => &[
            ("reads_per_s", "point reads/s"),
            ("read_p50_ms", "p50 ms"),
            ("read_p99_ms", "p99 ms"),
            ("read_max_ms", "max ms"),
            ("scan_p50_ms", "one scan ms"),
        ],
        Workload::Fairness => &[
            ("writes_per_s", "writes/s, all"),
            ("polite_per_s", "7 polite together"),
            ("least_polite_keeps", "the slowest polite keeps"),
            ("polite_p50_ms", "polite p50 ms"),
            ("polite_p99_ms", "p99 ms"),
            ("polite_max_ms", "max ms"),
            ("jain_beside_greedy", "Jain beside the greedy"),
            ("jain_all_busy", "Jain, all with 32 in flight"),
        ],
        Workload::Bulk => {
            &[("rows_per_s", "rows/s"), ("rows", "rows stored"), ("cpu_us_per_row", "CPU µs a row")]
        }
        Workload::Stall => &[
            ("late_idle_ms", "ticker late, idle ms"),
            ("late_locked_ms", "while locked ms"),
            ("longest_write_ms", "longest write ms"),
            ("first_after_release_ms", "first write after the release ms"),
        ],
        Workload::Cancel => &[
            ("future_back_ms", "futures back ms"),
            ("answer_ms", "next answer ms"),
            ("cores_burning", "cores busy afterwards"),
        ],
    }
}

/// Describes a workload in a sentence or two.
pub(super) fn what(workload: Workload) -> &'static str {
    match workload {
        Workload::TinyWrites => {
            "Every task inserts one row with a random key, waits for the answer, and goes on. The raw \
             loop is one thread that asks nobody."
        }
        Workload::PointReads => {
            "Every task reads one of a million rows by key. The raw loop is one thread at one task, \
             two threads else. `lockkeeper-short` marks its reads `.short()`."
        }
        Workload::Mixed => {
            "Eight tasks write (FULL) while the others read, over a million rows. The raw loops are \
             one writer and one reader."
        }
        Workload::ReadPage => {
            "A page of five queries (heading, latest twenty, counts of each status, a mean, the last \
             failure) in one read transaction, while four tasks add builds and count them. A page \
             whose counter and counts disagree would be an error. The raw loops are one thread for each side."
        }
        Workload::LongScan => {
            "One task scans a million rows again and again while the others read single rows. The raw \
             loops are one thread for each."
        }
        Workload::Fairness => {
            "Eight clients write (FULL): seven with one call in flight, one with 256. *Keeps* compares \
             the slowest polite client with the mean of eight polite ones in the same run."
        }
        Workload::Bulk => {
            "A million rows with ascending keys in one transaction (FULL), or what fits into four seconds."
        }
        Workload::Stall => {
            "Another process holds the write lock for a second while 64 tasks write, on a runtime of \
             one thread. A ticker wants to wake every millisecond. `naive` calls SQLite in the task."
        }
        Workload::Cancel => {
            "The futures of queries that never end are dropped after 100 ms; then the least is asked \
             for. 1,000 ms means that no answer came in that time."
        }
    }
}

/// The peers' measurements, ordered by the most telling figure of the workload, the best first.
pub(super) fn sorted(run: &Run, key: Key) -> Vec<&Measurement> {
    // For these two workloads the first column tells little, so another one is used.
    let by = match key.0 {
        Workload::Stall => "late_locked_ms",
        Workload::Cancel => "answer_ms",
        _ => columns(key.0)[0].0,
    };
    let mut all: Vec<_> = run.of(key).collect();
    let rank = |m: &Measurement| match (m.value(by), more_is_better(by)) {
        (Some(value), Some(true)) => -value,
        (Some(value), _) => value,
        (None, _) => f64::INFINITY,
    };
    all.sort_by(|a, b| rank(a).total_cmp(&rank(b)));
    all
}

/// The beginning of the names of the files with plots.
pub(super) fn stem((workload, synchronous, tasks): Key) -> String {
    format!("{}-{}-{tasks}", workload.name(), synchronous.sql().to_ascii_lowercase())
}
