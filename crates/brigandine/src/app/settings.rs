//! What the server was told, with defaults.

use crate::config;
use crate::model::Keep;
use crate::os::process::Limits;
use std::path::PathBuf;
use std::time::Duration;

/// What the server was told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Database, build logs, outputs and clones.
    pub(crate) state: PathBuf,
    /// The file that it was told in, if there is one.
    pub(crate) configuration: Option<PathBuf>,
    /// Files of specifications that it was given.
    pub(crate) specification_files: Vec<PathBuf>,
    /// Builds at once.
    pub max_jobs: usize,
    /// Between two looks at a specification's inputs.
    pub interval: Duration,
    /// What can be built here; the first is the default.
    pub(crate) systems: Vec<String>,
    /// How builds are isolated.
    pub sandbox: config::Sandbox,
    /// Who builds and evaluators run as, if the server is root.
    pub(crate) build_user: Option<String>,
    /// Brigandine's own program.
    pub(crate) program: PathBuf,
    /// Filters of git's configuration that may run when files are written.
    pub(crate) git_filters: Vec<String>,
    /// One run of git.
    pub(crate) fetch_timeout: Duration,
    /// One run of an evaluator.
    pub(crate) evaluation_timeout: Duration,
    /// Bytes of an evaluator's standard output.
    pub(crate) evaluation_output_bytes_max: u64,
    /// Jobs of one evaluation.
    pub(crate) evaluation_jobs_max: usize,
    /// One attempt at a build.
    pub(crate) build_timeout: Duration,
    /// A build without output.
    pub(crate) build_silence: Duration,
    /// Between asking a build to end and killing it.
    pub(crate) build_grace: Duration,
    /// What one build may take.
    pub(crate) build_limits: Limits,
    /// Bytes of one build log before compression.
    pub(crate) log_bytes_max: u64,
    /// Bytes of one build's output.
    pub(crate) output_bytes_max: u64,
    /// Bytes that stay free; `None`: what suits the disk.
    pub(crate) disk_reserve: Option<u64>,
    /// Exported revisions kept beyond those in use.
    pub(crate) checkouts_kept: usize,
    /// Which evaluations are kept where the specification does not say it.
    pub(crate) keep: Keep,
}

impl Settings {
    /// The defaults, for a state directory.
    pub fn new(state: PathBuf) -> Self {
        let limits = config::Limits::default();
        Self {
            state,
            configuration: None,
            specification_files: Vec::new(),
            max_jobs: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
            interval: Duration::from_secs(300),
            systems: vec![format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)],
            sandbox: config::Sandbox::Off,
            build_user: None,
            program: std::env::current_exe().unwrap_or_else(|_| PathBuf::from("brigandine")),
            git_filters: config::git_filters(),
            fetch_timeout: limits.fetch_time,
            evaluation_timeout: limits.evaluation_time,
            evaluation_output_bytes_max: limits.evaluation_output,
            evaluation_jobs_max: 1_000_000,
            build_timeout: limits.build_time,
            build_silence: limits.build_silence,
            build_grace: limits.build_grace,
            build_limits: limits.build,
            log_bytes_max: limits.build_log,
            output_bytes_max: 16 << 30,
            disk_reserve: limits.disk_reserve,
            checkouts_kept: 16,
            keep: Keep::default(),
        }
    }
}
