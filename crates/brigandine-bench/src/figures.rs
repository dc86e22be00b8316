//! The figures of `site`, and how they are printed.

use serde::Serialize;

use crate::output::say;

/// The status updates per second under which pages are measured.
pub(crate) const UPDATES: u64 = 2000;

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) request: &'static str,
    pub(crate) load: &'static str,
    pub(crate) requests: usize,
    pub(crate) per_s: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
    pub(crate) server_cpu_ms: f64,
    /// How many different requests were sent, one after the other.
    pub(crate) different: usize,
    /// The median of the number of entries in an answer, such as builds or evaluations.
    pub(crate) listed: usize,
    /// The median of the length of an answer.
    pub(crate) answer_bytes: usize,
}

#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) builds: i64,
    pub(crate) file_mib: f64,
    /// The jobset that is called "small", and its number of finished builds.
    pub(crate) small_jobset: String,
    pub(crate) small_jobset_builds: i64,
    /// Warnings about what is missing in the database.
    pub(crate) notes: Vec<String>,
    pub(crate) first_page_ms: f64,
    pub(crate) rows: Vec<Row>,
    pub(crate) updates_per_s_under_load: Option<f64>,
    pub(crate) bulk_updates_per_s: Option<f64>,
    pub(crate) registered_jobs: i64,
    pub(crate) registration_s: Option<f64>,
    pub(crate) registrations_per_s: Option<f64>,
    /// Measured after the pages and the updates, and before the bulk updates.
    pub(crate) memory_mib: f64,
    /// Measured at the end.
    pub(crate) memory_end_mib: f64,
    pub(crate) memory_peak_mib: f64,
    pub(crate) repeat: u32,
}

impl Figures {
    pub(crate) fn print(&self) {
        say(&format!(
            "{} builds, file {:.0} MiB; medians of {} runs",
            self.builds, self.file_mib, self.repeat
        ));
        for note in &self.notes {
            say(&format!("note: {note}"));
        }
        say(&format!(
            "the small jobset is {}, {} finished builds",
            self.small_jobset, self.small_jobset_builds
        ));
        let heads = ["per s", "p50 ms", "p99 ms", "max ms", "cpu ms"].map(|it| format!("{it:>10}"));
        let (request, load, heads) = ("request", "meanwhile", heads.concat());
        say(&format!("{request:<36} {load:<13}{heads} {:>7} {:>9}", "listed", "bytes"));
        for row in &self.rows {
            say(&format!(
                "{:<36} {:<13} {:>9.0} {:>9.3} {:>9.3} {:>9.3} {:>9.3} {:>7} {:>9}",
                row.request,
                row.load,
                row.per_s,
                row.p50_ms,
                row.p99_ms,
                row.max_ms,
                row.server_cpu_ms,
                row.listed,
                row.answer_bytes
            ));
        }
        say(&format!("server start to the first page     {:9.1} ms", self.first_page_ms));
        if let Some(rate) = self.updates_per_s_under_load {
            say(&format!(
                "status updates under load          {rate:9.0} per s; {UPDATES} were asked for"
            ));
        }
        if let Some(rate) = self.bulk_updates_per_s {
            say(&format!("status updates in bulk             {rate:9.0} per s"));
        }
        if let (Some(seconds), Some(rate)) = (self.registration_s, self.registrations_per_s) {
            let jobs = self.registered_jobs;
            say(&format!("{jobs} jobs of one evaluation      {seconds:9.2} s, {rate:.0} per s"));
        }
        say(&format!(
            "server's memory                    {:9.1} MiB, {:.1} after the bulk, {:.1} at most",
            self.memory_mib, self.memory_end_mib, self.memory_peak_mib
        ));
    }
}
