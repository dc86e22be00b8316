//! The server's own configuration: where its state is, where it listens, how much it may do.
//!
//! Every key has a default, so the file may be empty or absent. What the command line says wins.
//!
//! ```toml
//! state = "/var/lib/brigandine"      # relative paths start at this file's folder
//! listen = "127.0.0.1:8080"
//! interval = "5m"                    # between two looks at a specification's inputs
//! max-jobs = 2                       # builds at once; the number of processors when absent
//! specifications = ["hello.toml"]    # loaded at every start
//! replace = false                    # whether these replace stored ones of the same name
//! sandbox = "auto"                   # "off", "auto" (bubblewrap where it works), "require"
//! build-user = "brigandine-build"    # who builds and evaluators run as, if the server is root
//! git-filters = ["lfs"]              # filters of git's configuration that may run; [] for none
//! drain = false                      # whether SIGTERM lets running builds end
//!
//! [tracing]
//! format = "text"                    # or "json"
//!
//! [limits]
//! fetch-time = "10m"                 # one git fetch
//! evaluation-time = "30m"
//! evaluation-output = "64 MiB"
//! build-time = "1h"                  # unless the job says otherwise
//! build-silence = "30m"
//! build-log = "64 MiB"
//! build-grace = "10s"                # between asking a build to end and killing it
//! build-memory = "8 GiB"             # three quarters of the machine's when absent
//! build-processes = 4096             # and threads
//! build-file = "16 GiB"              # one file
//! build-disk = "64 GiB"              # all files of its directory
//! disk-reserve = "512 MiB"           # nothing is started while less is free; 0 for no reserve
//!
//! [keep]                             # of specifications that do not say it; everything when absent
//! evaluations = 100                  # the newest of each specification
//! days = 90                          # and those that began since
//!
//! [web]
//! connections = 1024                 # at once; fewer when the limit of open files is low
//! connections-per-client = 256       # of one address; a quarter of all when absent
//! client-time = "30s"                # to send a request, or to take something of an answer
//! hosts = ["ci.example.org"]         # names that requests may be addressed to
//! trusted-proxies = ["127.0.0.1"]    # whose `X-Forwarded-For` names the client
//! token-file = "token"               # allows changes over HTTP; STATE/token when absent
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::diagnostic::Diagnostics;
use super::document::Document;
use super::reader::Table;
use super::shared::{INTERVAL_RANGE, count, keep, path};
use super::web::Web;
use crate::model::Keep;

/// What the server was told, defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// Database, build logs, outputs and clones.
    pub(crate) state: PathBuf,
    /// Where HTTP is answered.
    pub(crate) listen: SocketAddr,
    /// Between two looks at a specification's inputs.
    pub(crate) interval: Duration,
    /// Builds at once.
    pub(crate) max_jobs: usize,
    /// Specification files loaded at every start.
    pub(crate) specifications: Vec<PathBuf>,
    /// Whether these replace stored specifications of the same name.
    pub(crate) replace: bool,
    /// How builds are isolated.
    pub(crate) sandbox: Sandbox,
    /// Who builds and evaluators run as; [`BUILD_USER`] when absent, if the server is root and there is one.
    pub(crate) build_user: Option<String>,
    /// Filters of git's configuration that may run when files are written.
    pub(crate) git_filters: Vec<String>,
    /// Whether SIGTERM lets running builds end.
    pub(crate) drain: bool,
    /// How trace lines are written.
    pub(crate) format: LogFormat,
    /// How much one thing may take.
    pub(crate) limits: Limits,
    /// Which evaluations are kept where the specification does not say it.
    pub(crate) keep: Keep,
    /// How HTTP is answered.
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

/// How much one thing may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    /// One git fetch.
    pub(crate) fetch_time: Duration,
    /// One run of an evaluator.
    pub(crate) evaluation_time: Duration,
    /// Bytes an evaluator may print, standard output and error each.
    pub(crate) evaluation_output: u64,
    /// One attempt at a build, unless its job says otherwise.
    pub(crate) build_time: Duration,
    /// A build without a line of output, unless its job says otherwise.
    pub(crate) build_silence: Duration,
    /// Bytes of one build log before compression.
    pub(crate) build_log: u64,
    /// Between asking a build to end and killing it.
    pub(crate) build_grace: Duration,
    /// What one build may take of the machine.
    pub(crate) build: crate::os::process::Limits,
    /// Nothing is started while less is free; `None`: what suits the disk, 0: no reserve.
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
            build: crate::os::process::Limits {
                memory: memory_bytes() / 4 * 3,
                processes: 4096,
                file: 16 << 30,
                disk: 64 << 30,
            },
            disk_reserve: None,
        }
    }
}

/// The machine's memory.
fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    // Unknown: no limit that anything reaches.
    kib.map_or(1 << 50, |kib| kib * 1024)
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state: PathBuf::from("brigandine-state"),
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            interval: Duration::from_secs(300),
            max_jobs: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            specifications: Vec::new(),
            replace: false,
            sandbox: Sandbox::Auto,
            build_user: None,
            git_filters: git_filters(),
            drain: false,
            format: LogFormat::Text,
            limits: Limits::default(),
            keep: Keep::default(),
            web: Web::default(),
        }
    }
}

/// Whose name it is when the configuration has none.
pub(crate) const BUILD_USER: &str = "brigandine-build";

/// The filters that run where nothing else is said.
pub(crate) fn git_filters() -> Vec<String> {
    vec!["lfs".to_owned()]
}

/// Reads `text`, the contents of `file`; relative paths start at the file's folder.
///
/// # Errors
/// Everything that is wrong in the file, by line.
pub(crate) fn parse(file: &str, text: &str) -> Result<Config, Diagnostics> {
    let folder = Path::new(file).parent().unwrap_or(Path::new(""));
    let default = Config::default();
    Document::read(file, text, "the configuration", |document, top| {
        let config = Config {
            state: path(document, &top, folder, "state", "/var/lib/brigandine")
                .unwrap_or(default.state),
            listen: listen(document, &top).unwrap_or(default.listen),
            interval: top.duration("interval", INTERVAL_RANGE, "5m").unwrap_or(default.interval),
            max_jobs: count(&top, "max-jobs", 1..=4096, 4).unwrap_or(default.max_jobs),
            specifications: top
                .texts("specifications", "hello.toml")
                .unwrap_or_default()
                .into_iter()
                .map(|file| folder.join(file.value))
                .collect(),
            replace: top.boolean("replace").unwrap_or(default.replace),
            sandbox: top
                .choice(
                    "sandbox",
                    &[
                        ("off", Sandbox::Off),
                        ("auto", Sandbox::Auto),
                        ("require", Sandbox::Require),
                    ],
                )
                .unwrap_or(default.sandbox),
            build_user: build_user(document, &top),
            git_filters: top.texts("git-filters", "lfs").map_or(default.git_filters, |names| {
                names.into_iter().map(|name| name.value).collect()
            }),
            drain: top.boolean("drain").unwrap_or(default.drain),
            format: tracing_table(&top).unwrap_or(default.format),
            limits: limits(&top),
            keep: keep(&top, "`[keep]`".to_owned()).unwrap_or(default.keep),
            web: super::web::table(document, &top, folder),
        };
        top.finish();
        Some(config)
    })
}

fn build_user(document: &Document<'_>, top: &Table<'_, '_>) -> Option<String> {
    let name = top.text("build-user", BUILD_USER)?;
    let problem = match name.value.as_str() {
        "" => "`build-user` is empty".to_owned(),
        "root" => "`build-user` is root: builds could do whatever the server may".to_owned(),
        "nobody" => {
            "`build-user` is nobody, whom other programs use as well: builds could change what is \
                     theirs"
                .to_owned()
        }
        _ => return Some(name.value),
    };
    let help = format!("name a user that nothing else uses: `useradd --system {BUILD_USER}`");
    document.problem(name.span, problem, help);
    None
}

fn listen(document: &Document<'_>, top: &Table<'_, '_>) -> Option<SocketAddr> {
    let text = top.text("listen", "127.0.0.1:8080")?;
    match parse_listen(&text.value) {
        Ok(address) => Some(address),
        Err(help) => {
            document.problem(text.span, "`listen` is no address with a port", help);
            None
        }
    }
}

/// An address and a port; the error is a remedy.
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

fn limits(top: &Table<'_, '_>) -> Limits {
    let default = Limits::default();
    let Some(table) = top.table("limits", "`[limits]`".to_owned()) else { return default };
    let range = || Duration::from_secs(1)..=Duration::from_secs(7 * 86_400);
    let sizes = || 1024..=(1 << 40);
    let limits = Limits {
        fetch_time: table.duration("fetch-time", range(), "10m").unwrap_or(default.fetch_time),
        evaluation_time: table
            .duration("evaluation-time", range(), "30m")
            .unwrap_or(default.evaluation_time),
        evaluation_output: table
            .bytes("evaluation-output", sizes(), "64 MiB")
            .unwrap_or(default.evaluation_output),
        build_time: table.duration("build-time", range(), "1h").unwrap_or(default.build_time),
        build_silence: table
            .duration("build-silence", range(), "30m")
            .unwrap_or(default.build_silence),
        build_log: table.bytes("build-log", sizes(), "64 MiB").unwrap_or(default.build_log),
        build_grace: table.duration("build-grace", range(), "10s").unwrap_or(default.build_grace),
        build: crate::os::process::Limits {
            memory: table
                .bytes("build-memory", (16 << 20)..=(1 << 50), "4 GiB")
                .unwrap_or(default.build.memory),
            processes: table
                .integer("build-processes", 1..=4_194_304, 4096)
                .map_or(default.build.processes, i64::cast_unsigned),
            file: table
                .bytes("build-file", (1 << 20)..=(1 << 50), "16 GiB")
                .unwrap_or(default.build.file),
            disk: table
                .bytes("build-disk", (1 << 20)..=(1 << 50), "64 GiB")
                .unwrap_or(default.build.disk),
        },
        disk_reserve: table.bytes("disk-reserve", 0..=(1 << 50), "512 MiB"),
    };
    table.finish();
    limits
}
