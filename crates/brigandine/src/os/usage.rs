//! What this process uses of the machine, as `/proc` says.

use super::stat::fields;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};
use std::io;

/// What this process uses. Its child processes, such as builds, are not included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Usage {
    /// The memory that is in use and not swapped out.
    pub(crate) resident_bytes: u64,
    /// The time of the processors.
    pub(crate) cpu_seconds: f64,
    pub(crate) threads: u64,
    pub(crate) open_files: u64,
    /// How many files may be open; `None`: there is no limit.
    pub(crate) open_files_max: Option<u64>,
}

impl Usage {
    /// Reads what the process uses now.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub(crate) fn read() -> io::Result<Self> {
        let text = std::fs::read_to_string("/proc/self/stat")?;
        let fields: Vec<u64> = fields(&text).map(|field| field.parse().unwrap_or(0)).collect();
        // `fields` begins with the third field of proc(5).
        let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
        let ticks = field(14).saturating_add(field(15));
        // The directory itself is open while it is read.
        let open = std::fs::read_dir("/proc/self/fd")?.count().saturating_sub(1);
        Ok(Self {
            resident_bytes: field(24).saturating_mul(page_size() as u64),
            cpu_seconds: ticks as f64 / clock_ticks_per_second() as f64,
            threads: field(20),
            open_files: open as u64,
            open_files_max: getrlimit(Resource::Nofile).current,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Usage;

    #[test]
    fn a_process_sees_what_it_opens() {
        let before = Usage::read().expect("/proc");
        assert!(before.resident_bytes > 1 << 20 && before.threads >= 1, "{before:?}");
        let files: Vec<_> =
            (0..200).map(|_| std::fs::File::open("/proc/self/stat").expect("opens")).collect();
        let after = Usage::read().expect("/proc");
        // Other tests of this process open and close files meanwhile.
        assert!(after.open_files > before.open_files, "{before:?} {after:?}");
        assert!(after.cpu_seconds >= before.cpu_seconds);
        drop(files);
    }
}
