//! The machine and the tools with which a run was made.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::Result;

/// What a reader must know about the machine to compare figures, without its name and paths.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: f64,
    pub(crate) system: String,
    pub(crate) file_system: String,
    pub(crate) compiler: String,
    /// How many pages per second can be appended and synced one by one. A commit costs at least one such sync.
    pub(crate) syncs_per_s: f64,
}

impl Machine {
    /// Examines this machine. `dir` is the directory of the databases.
    pub(crate) fn look(dir: &Path) -> Result<Self> {
        let cpus = read("/proc/cpuinfo");
        let memory = read("/proc/meminfo");
        let kib: f64 = field(&memory, "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0.0);
        Ok(Self {
            processor: field(&cpus, "model name").to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: (kib / f64::from(1 << 20)).round(),
            system: format!(
                "{} {}",
                std::env::consts::OS,
                read("/proc/sys/kernel/osrelease").trim()
            ),
            file_system: file_system(dir),
            compiler: said("rustc", &["--version"]),
            syncs_per_s: syncs(dir)?,
        })
    }
}

/// Today's date in UTC.
pub(crate) fn date() -> String {
    said("date", &["-u", "+%Y-%m-%d"])
}

/// The commit of the sources, with a mark if they have been changed since.
pub(crate) fn commit() -> String {
    let here = env!("CARGO_MANIFEST_DIR");
    let commit = said("git", &["-C", here, "rev-parse", "--short=12", "HEAD"]);
    let changed = said("git", &["-C", here, "status", "--porcelain", "--untracked-files=no"]);
    if changed.is_empty() { commit } else { format!("{commit} and changes") }
}

fn said(program: &str, arguments: &[&str]) -> String {
    Command::new(program)
        .args(arguments)
        .output()
        .ok()
        .filter(|output| output.status.success())
        .map_or_else(String::new, |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
}

fn read(file: &str) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

fn field<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map_or("unknown", |(_, value)| value.trim())
}

fn file_system(dir: &Path) -> String {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let mounts = read("/proc/mounts");
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?))
        })
        .filter(|(mount, _)| dir.starts_with(mount))
        .max_by_key(|(mount, _)| mount.len())
        .map_or_else(|| "unknown".to_owned(), |(_, kind)| kind.to_owned())
}

fn syncs(dir: &Path) -> Result<f64> {
    let path = dir.join("syncs");
    let mut file = std::fs::File::create(&path)?;
    let (page, began) = ([7_u8; 4096], Instant::now());
    let mut done = 0;
    while began.elapsed() < Duration::from_millis(300) {
        file.write_all(&page)?;
        file.sync_data()?;
        done += 1;
    }
    let rate = f64::from(done) / began.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "model name\t: A: fast one\nmodel\t: 7\n";
        assert_eq!(field(text, "model name"), "A: fast one");
        assert_eq!(field(text, "model"), "7");
        assert_eq!(field(text, "name"), "unknown");
    }
}
