//! The resources that this process has used.

/// User and system time of this process so far, in milliseconds (Linux: `proc_pid_stat(5)`); 0 where there is no `/proc`.
#[must_use]
pub fn cpu_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    // Fields 14 and 15 of the line, in clock ticks of 10 ms.
    (ticks(11) + ticks(12)) * 10.0
}
