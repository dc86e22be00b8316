//! The server's own configuration: where its state is, at which address it listens, how many resources it may use.
//!
//! Every key has a default, so the file may be empty or missing. Options of the command line take precedence.
//!
//! ```toml
//! state = "/var/lib/brigandine"      # relative paths start at this file's folder
//! listen = "127.0.0.1:8080"
//! interval = "5m"                    # between two looks at a specification's inputs
//! max-jobs = 2                       # builds at once; the number of processors when absent
//! specifications = ["hello.toml"]    # loaded at every start
//! replace = false                    # whether these replace stored ones of the same name
//! sandbox = "auto"                   # "off", "auto" (bubblewrap where it works), "require"
//! build-user = "brigandine-build"    # the user that runs builds and evaluators, if the server is root
//! git-filters = ["lfs"]              # filters of git's configuration that may run; [] for none
//! drain = false                      # whether the first SIGTERM lets running builds end
//!
//! [tracing]
//! format = "text"                    # or "json"
//!
//! [limits]
//! fetch-time = "10m"                 # one git fetch
//! evaluation-time = "30m"
//! evaluation-output = "64 MiB"
//! build-time = "1h"                  # unless the job has a limit of its own
//! build-silence = "30m"
//! build-log = "64 MiB"
//! build-grace = "10s"                # between asking a build to end and killing it
//! build-memory = "8 GiB"             # three quarters of the machine's when absent
//! build-processes = 4096             # processes and threads
//! build-file = "16 GiB"              # one file
//! build-disk = "64 GiB"              # all files in the build's directory
//! disk-reserve = "512 MiB"           # nothing is started while less is free; 0 for no reserve
//!
//! [keep]                             # for specifications without `keep`; everything is kept when absent
//! evaluations = 100                  # the newest evaluations of each specification
//! days = 90                          # and evaluations that began in the last 90 days
//!
//! [web]
//! connections = 1024                 # at once; fewer when the limit of open files is low
//! connections-per-client = 256       # at once, of one client; a quarter of all when absent
//! client-time = "30s"                # to send a request, or to take the next byte of an answer
//! hosts = ["ci.example.org"]         # the hosts that requests may name
//! trusted-proxies = ["127.0.0.1"]    # whose `X-Forwarded-For` names the client
//! token-file = "token"               # of an administrator; STATE/token when absent
//! base = "/ci"                       # the path below which a proxy serves it; the root when absent
//! private = false                    # whether only those who have a role may read
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::diagnostic::Diagnostics;
use super::document::Document;
use super::reader::Table;
use super::shared::{INTERVAL_RANGE, TIME_RANGE, count, keep, path, set};
use super::web::Web;
use crate::model::Keep;
use crate::os::process;

/// The server's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file from which the configuration was read; `None`: there is none.
    pub(crate) file: Option<PathBuf>,
    /// The state directory.
    pub state: PathBuf,
    /// The address of the web server.
    pub(crate) listen: SocketAddr,
    /// The time between two looks at a specification's inputs.
    pub interval: Duration,
    /// The most builds that run at the same time.
    pub max_jobs: usize,
    /// The specification files that are loaded at every start.
    pub(crate) specifications: Vec<PathBuf>,
    /// Whether the loaded specifications replace stored ones of the same name.
    pub(crate) replace: bool,
    /// How builds are isolated.
    pub sandbox: Sandbox,
    /// The user that runs builds and evaluators. `None`: if the server runs as root and [`BUILD_USER`] exists, that
    /// user.
    pub(crate) build_user: Option<String>,
    /// The filters of git's configuration that may run when git writes files.
    pub(crate) git_filters: Vec<String>,
    /// Whether SIGTERM lets running builds end.
    pub(crate) drain: bool,
    /// The format of the trace lines.
    pub(crate) format: LogFormat,
    /// The limits of a fetch, an evaluation and a build.
    pub(crate) limits: Limits,
    /// Which evaluations are kept, for specifications without `keep`.
    pub(crate) keep: Keep,
    /// Limits of the web server.
    pub(crate) web: Web,
}

/// How builds are isolated from the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Sandbox {
    /// Not beyond a clean directory and environment
    Off,
    /// By bubblewrap where it works; where it does not is said at start
    Auto,
    /// By bubblewrap; the server does not start without it
    Require,
}

/// How trace lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object per line
    Json,
}

/// The limits of a fetch, an evaluation and a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The time limit of one git fetch.
    pub(crate) fetch_time: Duration,
    /// The time limit of one run of an evaluator.
    pub(crate) evaluation_time: Duration,
    /// The most bytes that an evaluator may print, for standard output and standard error each.
    pub(crate) evaluation_output: u64,
    /// The time limit of one attempt at a build, for jobs that state none.
    pub(crate) build_time: Duration,
    /// The limit on the time without output, for jobs that state none.
    pub(crate) build_silence: Duration,
    /// The most bytes of one build log, before compression.
    pub(crate) build_log: u64,
    /// The time between asking a build to end and killing it.
    pub(crate) build_grace: Duration,
    /// How much of the machine one build may use.
    pub(crate) build: process::Limits,
    /// Bytes of the disk that stay free: while fewer are free, nothing is started. `None`: a default that depends on
    /// the size of the disk; 0: no reserve.
    pub(crate) disk_reserve: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fetch_time: Duration::from_secs(600),
            evaluation_time: Duration::from_secs(1800),
            evaluation_output: 64 << 20,
            build_time: Duration::from_secs(3600),
            build_silence: Duration::from_secs(1800),
            build_log: 64 << 20,
            build_grace: Duration::from_secs(10),
            build: process::Limits {
                memory: memory_bytes() / 4 * 3,
                processes: 4096,
                file: 16 << 30,
                disk: 64 << 30,
            },
            disk_reserve: None,
        }
    }
}

/// The largest limit in bytes that can be configured. No build reaches it.
const BYTES_MAX: u64 = 1 << 50;

/// The size of the machine's memory in bytes.
fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    // Without /proc the size is unknown. This value is so large that the limits derived from it limit nothing.
    kib.map_or(BYTES_MAX, |kib| kib * 1024)
}

impl Default for Config {
    fn default() -> Self {
        Self {
            file: None,
            state: PathBuf::from("brigandine-state"),
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            interval: Duration::from_secs(300),
            max_jobs: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            specifications: Vec::new(),
            replace: false,
            sandbox: Sandbox::Auto,
            build_user: None,
            git_filters: vec!["lfs".to_owned()],
            drain: false,
            format: LogFormat::Text,
            limits: Limits::default(),
            keep: Keep::default(),
            web: Web::default(),
        }
    }
}

/// The most builds at once that can be configured.
pub(crate) const MAX_JOBS: u16 = 4096;

/// The default of `build-user`.
pub(crate) const BUILD_USER: &str = "brigandine-build";

/// Reads `text`, the contents of `file`. Relative paths start at the folder of the file.
///
/// # Errors
/// Every problem in the file, in the order of the lines.
pub(crate) fn parse(file: &str, text: &str) -> Result<Config, Diagnostics> {
    let folder = Path::new(file).parent().unwrap_or(Path::new(""));
    Document::read(file, text, "the configuration", |top| {
        let mut config = Config::default();
        set(&mut config.state, path(&top, folder, "state", "/var/lib/brigandine"));
        set(&mut config.listen, listen(&top));
        set(&mut config.interval, top.duration("interval", INTERVAL_RANGE, "5m"));
        set(&mut config.max_jobs, count(&top, "max-jobs", 1..=i64::from(MAX_JOBS), 4));
        let files = top.texts("specifications", "hello.toml").unwrap_or_default();
        config.specifications = files.into_iter().map(|file| folder.join(file.value)).collect();
        set(&mut config.replace, top.boolean("replace"));
        let sandboxes =
            [("off", Sandbox::Off), ("auto", Sandbox::Auto), ("require", Sandbox::Require)];
        set(&mut config.sandbox, top.choice("sandbox", &sandboxes));
        config.build_user = build_user(&top);
        let filters = top.texts("git-filters", "lfs");
        let filters = filters.map(|names| names.into_iter().map(|name| name.value).collect());
        set(&mut config.git_filters, filters);
        set(&mut config.drain, top.boolean("drain"));
        set(&mut config.format, tracing_table(&top));
        set(&mut config.limits, limits(&top));
        set(&mut config.keep, keep(&top, "`[keep]`".to_owned()));
        set(&mut config.web, super::web::table(&top, folder));
        top.finish();
        Some(config)
    })
}

fn build_user(top: &Table<'_, '_>) -> Option<String> {
    let name = top.text("build-user", BUILD_USER)?;
    let problem = match name.value.as_str() {
        "" => "`build-user` is empty",
        "root" => "`build-user` is root: builds could do whatever the server may",
        "nobody" => {
            "`build-user` is nobody, whom other programs use as well: builds could change what is \
             theirs"
        }
        _ => return Some(name.value),
    };
    let help = format!("name a user that nothing else uses: `useradd --system {BUILD_USER}`");
    top.problem(name.span, problem, help);
    None
}

fn listen(top: &Table<'_, '_>) -> Option<SocketAddr> {
    let text = top.text("listen", "127.0.0.1:8080")?;
    parse_listen(&text.value)
        .map_err(|help| top.problem(text.span, "`listen` is no address with a port", help))
        .ok()
}

/// Parses an address with a port.
///
/// # Errors
/// The text is no address with a port; the error says what to write instead.
pub(crate) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    if let Some(port) = text.strip_prefix("localhost:") {
        return parse_listen(&format!("127.0.0.1:{port}"));
    }
    text.parse().map_err(|_| match text.trim_start_matches(':').parse::<u16>() {
        Ok(port) => format!("write \"127.0.0.1:{port}\", or \"[::]:{port}\" for all addresses"),
        Err(_) => "for example \"127.0.0.1:8080\" or \"[::]:8080\"".to_owned(),
    })
}

fn tracing_table(top: &Table<'_, '_>) -> Option<LogFormat> {
    let table = top.table("tracing", "`[tracing]`".to_owned())?;
    let format = table.choice("format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]);
    table.finish();
    format
}

fn limits(top: &Table<'_, '_>) -> Option<Limits> {
    let table = top.table("limits", "`[limits]`".to_owned())?;
    let mut limits = Limits::default();
    let sizes = || 1024..=(1 << 40);
    set(&mut limits.fetch_time, table.duration("fetch-time", TIME_RANGE, "10m"));
    set(&mut limits.evaluation_time, table.duration("evaluation-time", TIME_RANGE, "30m"));
    set(&mut limits.evaluation_output, table.bytes("evaluation-output", sizes(), "64 MiB"));
    set(&mut limits.build_time, table.duration("build-time", TIME_RANGE, "1h"));
    set(&mut limits.build_silence, table.duration("build-silence", TIME_RANGE, "30m"));
    set(&mut limits.build_log, table.bytes("build-log", sizes(), "64 MiB"));
    set(&mut limits.build_grace, table.duration("build-grace", TIME_RANGE, "10s"));
    set(&mut limits.build.memory, table.bytes("build-memory", (16 << 20)..=BYTES_MAX, "4 GiB"));
    let processes = table.integer("build-processes", 1..=4_194_304, 4096);
    set(&mut limits.build.processes, processes.map(i64::cast_unsigned));
    set(&mut limits.build.file, table.bytes("build-file", (1 << 20)..=BYTES_MAX, "16 GiB"));
    set(&mut limits.build.disk, table.bytes("build-disk", (1 << 20)..=BYTES_MAX, "64 GiB"));
    limits.disk_reserve = table.bytes("disk-reserve", 0..=BYTES_MAX, "512 MiB");
    table.finish();
    Some(limits)
}
