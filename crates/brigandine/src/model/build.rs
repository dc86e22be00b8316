//! Builds, what belongs to them, and their definitions.

use super::{BuildId, BuildStatus, EvaluationId, ProductId, SpecificationId, Timestamp, Weather};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Priorities of builds that somebody has put in front of all others begin here. A later one is higher. The priorities
/// that files name are lower by far.
pub const BUMPED: i64 = 1_000_000_000;

/// A build of a derivation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// The row number.
    pub id: BuildId,
    /// The derivation: a store path, or `DIGEST-NAME.drv` of the `command` backend.
    pub derivation: String,
    /// The first specification that needed the build.
    pub specification_id: SpecificationId,
    /// The name of that specification.
    pub specification: String,
    /// The project of that specification.
    pub project: String,
    /// The first evaluation that needed the build.
    pub evaluation: EvaluationId,
    /// The job's name in that evaluation.
    pub job: String,
    /// The system, such as `x86_64-linux`.
    pub system: String,
    /// The package's name and version, or the job's name.
    pub nix_name: String,
    /// Builds with a higher priority start earlier.
    pub priority: i64,
    /// The status.
    pub status: BuildStatus,
    /// The result compared with that of the job's previous build; `Unknown` until the build has finished.
    pub weather: Weather,
    /// How many times the build was started.
    pub attempt: i64,
    /// How many dependencies of the build have not succeeded yet.
    pub waiting: i64,
    /// Why the build ended, for people: `exit status 2`, `no output for 60 s`; may be empty.
    pub message: String,
    /// When the build was registered.
    pub submitted_at: Timestamp,
    /// When the last attempt started; 0: no attempt has started.
    pub started_at: Timestamp,
    /// When the build finished; 0: it has not finished.
    pub stopped_at: Timestamp,
    /// The build log of the last attempt.
    pub log: BuildLogFile,
    /// Whether the build was imported from another server. This server neither runs it nor has its log.
    pub imported: bool,
}

impl Build {
    /// Whether the build's status is that of its last attempt. `false`: the build never ran, or was rescheduled.
    pub fn has_run(&self) -> bool {
        let ran = self.status == BuildStatus::Started
            || (self.status.is_finished() && self.started_at > 0);
        self.attempt > 0 && ran
    }

    /// A sentence that says why there is no log. `None`: the build is running or has run.
    pub fn no_log(&self) -> Option<&'static str> {
        use BuildStatus::{
            Canceled, Failed, FailedDependency, FailedOther, Scheduled, Started, Succeeded,
        };
        if self.has_run() {
            return None;
        }
        // An earlier attempt was lost, was cut when the server ended, or ended before the build was restarted.
        let again = self.attempt > 0;
        Some(match self.status {
            Scheduled | Started if self.imported => {
                "It was imported, and this server does not build it."
            }
            _ if self.imported => "It was imported; its log stayed on the server that built it.",
            Scheduled | Started if again => "It waits to be started again.",
            Scheduled | Started => "The log begins when the build starts.",
            Canceled if again => "It was canceled while it waited to be started again.",
            Canceled => "It was canceled before it started.",
            FailedDependency if again => {
                "It was not started again, because a build that it needs did not succeed."
            }
            FailedDependency => {
                "It was never started, because a build that it needs did not succeed."
            }
            FailedOther if again => "It could not be started again.",
            FailedOther => "It could not be started.",
            Succeeded | Failed if again => {
                "It was not started again: another build of the same derivation ran for it."
            }
            Succeeded | Failed => {
                "It was never started itself: another build of the same derivation ran for it."
            }
        })
    }
}

/// The file of a build log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildLogFile {
    /// Relative to the state directory, with `.zst` at the end if the file is compressed; empty: there is no log.
    pub path: String,
    /// Bytes before compression; 0 until the build has finished.
    pub bytes: i64,
    /// SHA-256 of the stored file, in hexadecimal; empty until the build has finished.
    pub digest: String,
}

/// What the page of a build shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildDetails {
    /// The build.
    pub build: Build,
    /// The build's outputs, sorted by name.
    pub outputs: Vec<Output>,
    /// The build's products.
    pub products: Vec<Product>,
    /// The build's attempts, the first attempt first.
    pub attempts: Vec<Attempt>,
    /// At most 10,000 of the builds that it needs.
    pub needs: Vec<Build>,
    /// At most 100 of the builds that need it.
    pub needed_by: Vec<Build>,
    /// The build's definition; `None`: another backend than `command` builds it.
    pub definition: Option<Definition>,
}

/// An output of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Output {
    /// `out`, unless the backend has several.
    pub name: String,
    /// An absolute path, or a path relative to the state directory.
    pub path: String,
}

/// A file that a build offers for download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Product {
    /// The row number.
    pub id: ProductId,
    /// The build that made it.
    pub build: BuildId,
    /// `file`, or the kind that the job states.
    pub kind: String,
    /// Relative to the state directory.
    pub path: String,
    /// The path in the build directory, for people.
    pub name: String,
    /// The size in bytes.
    pub bytes: i64,
    /// SHA-256 in hexadecimal.
    pub checksum: String,
}

/// A product that is not stored yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewProduct {
    /// `file`, or the kind that the job states.
    pub kind: String,
    /// The path in the build directory.
    pub name: String,
    /// Relative to the state directory.
    pub path: String,
    /// The size in bytes.
    pub bytes: i64,
    /// SHA-256 in hexadecimal.
    pub checksum: String,
}

/// An attempt at a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// The number of the attempt; the first is 1.
    pub number: i64,
    /// The worker that ran it.
    pub worker: String,
    /// How the attempt ended. `Started`: it is running. `Canceled`: a cancel was requested. `Scheduled`: the worker was
    /// lost, and the build was rescheduled.
    pub status: BuildStatus,
    /// Why the attempt ended with this status, for people.
    pub message: String,
    /// When the attempt started.
    pub started_at: Timestamp,
    /// When the attempt ended; 0: it has not ended.
    pub stopped_at: Timestamp,
}

/// A job name with its build, for `/api/jobs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobBuild {
    /// The build.
    pub build: BuildId,
    /// The build's status.
    pub status: BuildStatus,
    /// The job's name.
    pub name: String,
}

/// The most bytes of one argument or variable of a command: the kernel's `MAX_ARG_STRLEN` without the zero byte.
pub const ARGUMENT_BYTES_MAX: usize = 128 * 1024 - 1;

/// The script of a shell command if it is too long for an argument, so that it must be run from a file. `None`: the
/// command can be run as it is.
pub fn script(command: &[String]) -> Option<&str> {
    match command {
        [shell, e, c, script]
            if shell == "/bin/sh"
                && e == "-e"
                && c == "-c"
                && script.len() > ARGUMENT_BYTES_MAX =>
        {
            Some(script)
        }
        _ => None,
    }
}

/// Everything that defines a derivation of the `command` backend. The digest of its JSON is the derivation's identity,
/// so the order and the spelling of the fields belong to the format: a change of them requires a new `version`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// The version of this format.
    pub version: u32,
    /// The package's name and version, or the job's name.
    pub name: String,
    /// The program and its arguments. A shell command is `/bin/sh -e -c TEXT`.
    pub command: Vec<String>,
    /// Variables that are added to the clean environment.
    pub environment: BTreeMap<String, String>,
    /// The system to build for.
    pub system: String,
    /// The files in the build directory.
    pub sources: Vec<Source>,
    /// The derivations whose outputs the build sees, by the names under which it sees them.
    pub needs: BTreeMap<String, String>,
    /// Patterns for the paths of the products.
    pub products: Vec<String>,
    /// How the build is isolated: `none` without a sandbox, `sandbox`, or `sandbox-network` if it may use the network;
    /// each with the suffix `-user` if another user than the server's runs it. Empty in version 1 of this format.
    #[serde(default)]
    pub isolation: String,
    /// Whether the build may use the network from the sandbox.
    #[serde(default, skip_serializing_if = "super::text::is_no")]
    pub network: bool,
    /// One line for people, which is not part of the identity.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

impl Definition {
    /// The current version of the format. In version 2, the digests of sources cover git's attributes, and
    /// [`Definition::isolation`] exists.
    pub const VERSION: u32 = 2;

    /// The text whose digest is the identity: everything except the origin of the sources and the description.
    pub fn identity(&self) -> String {
        let mut copy = self.clone();
        copy.description.clear();
        for source in &mut copy.sources {
            source.url.clear();
            source.revision.clear();
            source.submodules = false;
            source.submodules_from.clear();
        }
        // Maps are ordered, and each field is a text, a number or a boolean, so this cannot fail.
        serde_json::to_string(&copy).unwrap_or_default()
    }
}

/// The files of a checkout that a build sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The input's name.
    pub input: String,
    /// Whether the files are in the directory in which the command runs. The files of other inputs are in a directory
    /// below `BRIGANDINE_INPUTS` that has the input's name.
    pub main: bool,
    /// The address of the repository. Not part of the identity.
    pub url: String,
    /// The revision. Not part of the identity.
    pub revision: String,
    /// Whether submodules are exported too. Not part of the identity.
    pub submodules: bool,
    /// Beginnings of addresses from which submodules are fetched with the server's credentials. Not part of the identity.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub submodules_from: Vec<String>,
    /// Path patterns; empty: the whole tree.
    pub patterns: Vec<String>,
    /// The digest of the paths, modes and git objects of the files, which is their identity.
    pub digest: String,
}

/// Which builds a list has. A field that is `None` allows all values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildFilter {
    /// The project of the first specification that needed the build.
    pub project: Option<String>,
    /// The name of the first specification that needed the build.
    pub specification: Option<String>,
    /// The job's name.
    pub job: Option<String>,
    /// The system.
    pub system: Option<String>,
    /// The first evaluation that needed the build, as in Cuirass. `store::job_page` lists all jobs of an evaluation.
    pub evaluation: Option<EvaluationId>,
    /// The derivation.
    pub derivation: Option<String>,
    /// The status.
    pub status: Option<BuildStatus>,
}

/// How many builds are pending.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct QueueCounts {
    /// Builds that wait for a free place or for dependencies.
    pub scheduled: i64,
    /// Builds that are running.
    pub started: i64,
}
