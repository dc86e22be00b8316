//! What a program and its descendants may take, and how the supervisor measures it.
//!
//! The kernel bounds the size of a file (RLIMIT_FSIZE). The supervisor measures memory, processes and disk, because the
//! kernel has no count of these for a build, only for a process or a user. A limit on the processes of a user does not
//! bind root, and for another user it would count the server's own processes. The supervisor measures five times a
//! second, so a program may exceed its limit for that long.
//!
//! | limit | what is counted |
//! |---|---|
//! | memory | private and shared memory without mapped files; memory that processes share is counted once |
//! | processes | processes and threads, without those of bubblewrap |
//! | disk | blocks of the files in the program's directory, and of removed files that are still open |

use super::namespace::Scope;
use super::user::User;
use crate::os::folder::walk;
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The least time between two measurements of the disk. If a measurement takes long, the pause is ten times as long.
const DISK_PAUSE: Duration = Duration::from_millis(500);

/// The most that a build may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Bytes of memory.
    pub(crate) memory: u64,
    /// Processes and threads.
    pub(crate) processes: u64,
    /// Bytes of one file.
    pub(crate) file: u64,
    /// Bytes of all files.
    pub(crate) disk: u64,
}

/// A limit that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Limit {
    Memory,
    Processes,
    File,
    Disk,
}

impl Limit {
    /// Says why a build failed, and which setting holds the limit.
    pub(crate) fn message(self, limits: &Limits) -> String {
        let Limits { memory, processes, file, disk } = limits;
        let (what, setting) = match self {
            Self::Memory => (format!("used more than {memory} bytes of memory"), "memory"),
            Self::Processes => {
                (format!("had more than {processes} processes and threads"), "processes")
            }
            Self::File => (format!("wrote a file of {file} bytes and was to write more"), "file"),
            Self::Disk => (format!("used more than {disk} bytes of disk"), "disk"),
        };
        format!("{what} (`build-{setting}` under `[limits]`)")
    }
}

/// Limits, and the directory whose size is measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bounds {
    pub(crate) limits: Limits,
    #[serde(with = "super::path")]
    pub(crate) directory: PathBuf,
}

/// The measurements of one program.
#[derive(Debug)]
pub(super) struct Meter {
    bounds: Bounds,
    scope: Scope,
    /// The number of bubblewrap's processes, which are not counted.
    own: u64,
    /// Bytes of disk, written by the thread that measures them. `None`: the first call of [`Meter::look`] will start
    /// the thread.
    disk: Option<Arc<AtomicU64>>,
}

impl Meter {
    /// Sets the limits that the kernel enforces, for this process and the processes that it starts. `own` is the number
    /// of bubblewrap's processes.
    pub(super) fn begin(
        bounds: Bounds,
        scope: Scope,
        user: Option<User>,
        own: u64,
    ) -> std::io::Result<Self> {
        let file = Some(bounds.limits.file);
        setrlimit(Resource::Fsize, Rlimit { current: file, maximum: file })?;
        // A core dump is large, and it is no output of the build.
        setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
        scope.bound(bounds.limits.processes, user);
        Ok(Self { bounds, scope, own, disk: None })
    }

    /// The limit that is exceeded now; `None`: none is.
    pub(super) fn look(&mut self) -> Option<Limit> {
        if let Some(limit) = self.look_at_processes() {
            return Some(limit);
        }
        let disk = self
            .disk
            .get_or_insert_with(|| measure_disk(self.bounds.directory.clone(), self.scope));
        (disk.load(Ordering::Relaxed) > self.bounds.limits.disk).then_some(Limit::Disk)
    }

    /// Like [`look`](Self::look), but without the disk. Called once more when a program has failed, because the kernel
    /// may have refused a new process before the first measurement.
    pub(super) fn look_at_processes(&self) -> Option<Limit> {
        let limits = self.bounds.limits;
        let processes_max = limits.processes.saturating_add(self.own);
        let ids = self.scope.ids();
        // The ids are counted before any process is read, because there may be very many.
        if ids.len() as u64 > processes_max {
            return Some(Limit::Processes);
        }
        let statuses: Vec<Status> = ids.iter().filter_map(|id| Status::read(*id)).collect();
        if statuses.iter().map(|status| status.threads).sum::<u64>() > processes_max {
            return Some(Limit::Processes);
        }
        // The cheap sum counts shared memory once per process. The exact sum is read only if the cheap one exceeds the
        // limit.
        if statuses.iter().map(|status| status.memory).sum::<u64>() > limits.memory
            && ids.iter().map(|id| proportional_memory(*id)).sum::<u64>() > limits.memory
        {
            return Some(Limit::Memory);
        }
        None
    }

    /// Whether a failed program may have reached the limit on the size of a file. The status does not always tell,
    /// because a program may handle the signal.
    pub(super) fn met_file_limit(&self) -> bool {
        let mut found = false;
        walk(&self.bounds.directory, |metadata| {
            found |= metadata.is_file() && metadata.len() >= self.bounds.limits.file;
        });
        found
    }
}

/// Values of `/proc/ID/status`, with memory in bytes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Status {
    memory: u64,
    threads: u64,
}

impl Status {
    fn read(id: i32) -> Option<Self> {
        fs::read_to_string(format!("/proc/{id}/status")).ok().map(|text| Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let kib = |name| field(text, name).unwrap_or(0) * 1024;
        Self {
            memory: kib("RssAnon:") + kib("RssShmem:"),
            threads: field(text, "Threads:").unwrap_or(0),
        }
    }
}

/// The number after a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The memory of a process in bytes: without mapped files, and with its share of shared memory.
fn proportional_memory(id: i32) -> u64 {
    match fs::read_to_string(format!("/proc/{id}/smaps_rollup")) {
        Ok(text) => {
            let kib = |name| field(&text, name).unwrap_or(0) * 1024;
            kib("Pss_Anon:") + kib("Pss_Shmem:")
        }
        // The process has ended, or the kernel has no such file.
        Err(_) => Status::read(id).map_or(0, |status| status.memory),
    }
}

/// Starts a thread that measures the disk until this process ends. Returns where the thread writes the number of bytes.
fn measure_disk(directory: PathBuf, scope: Scope) -> Arc<AtomicU64> {
    let measured = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&measured);
    let measure = move || {
        loop {
            let began = Instant::now();
            told.store(used(&directory, scope), Ordering::Relaxed);
            std::thread::sleep(DISK_PAUSE.max(began.elapsed() * 10));
        }
    };
    // If the thread cannot start, the disk is not limited.
    drop(std::thread::Builder::new().name("disk".to_owned()).spawn(measure));
    measured
}

/// Bytes on disk of the files in a directory, and of removed files that a process still has open.
fn used(directory: &Path, scope: Scope) -> u64 {
    let Ok(device) = directory.symlink_metadata().map(|metadata| metadata.dev()) else { return 0 };
    let mut seen = HashSet::new();
    let mut bytes = 0;
    let mut count = |metadata: &Metadata| {
        // A file with several hard links is counted once.
        if metadata.dev() == device && (metadata.nlink() == 1 || seen.insert(metadata.ino())) {
            bytes += metadata.blocks() * 512;
        }
    };
    walk(directory, &mut count);
    for id in scope.ids() {
        let Ok(open) = fs::read_dir(format!("/proc/{id}/fd")) else { continue };
        for descriptor in open.flatten() {
            if let Ok(metadata) = fs::metadata(descriptor.path())
                && metadata.is_file()
                && metadata.nlink() == 0
            {
                count(&metadata);
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_threads_are_read_from_a_status() {
        let text = "Name:\tx\nVmRSS:\t  900 kB\nRssAnon:\t  10 kB\nRssFile:\t 800 kB\nRssShmem:\t 5 kB\nThreads:\t3\n";
        assert_eq!(Status::parse(text), Status { memory: 15 * 1024, threads: 3 });
        assert_eq!(Status::parse("Name:\tzombie\n"), Status::default());
        let own = Status::read(std::process::id().cast_signed()).expect("own");
        assert!(own.memory > 0 && own.threads > 0);
        assert!(proportional_memory(std::process::id().cast_signed()) > 0);
    }

    #[test]
    fn disk_is_counted_by_blocks_and_each_file_once() {
        let directory = tempfile::tempdir().expect("directory");
        let path = |name: &str| directory.path().join(name);
        let empty = used(directory.path(), Scope::Tree);
        fs::create_dir(path("a")).expect("directory");
        fs::write(path("a/file"), vec![1; 1 << 20]).expect("file");
        let one = used(directory.path(), Scope::Tree);
        assert!(one >= empty + (1 << 20), "{empty} {one}");
        fs::hard_link(path("a/file"), path("a/other")).expect("link");
        std::os::unix::fs::symlink("/", path("root")).expect("link");
        let sparse = fs::File::create(path("sparse")).expect("file");
        sparse.set_len(1 << 40).expect("length");
        assert!(
            used(directory.path(), Scope::Tree) < one + (1 << 19),
            "a link, a second name or a hole was counted"
        );
    }

    #[test]
    fn each_limit_has_its_own_message() {
        let limits = Limits { memory: 1, processes: 2, file: 3, disk: 4 };
        let all = [Limit::Memory, Limit::Processes, Limit::File, Limit::Disk];
        let messages: HashSet<String> = all.iter().map(|it| it.message(&limits)).collect();
        assert_eq!(messages.len(), 4);
    }
}
