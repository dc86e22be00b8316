//! Builds, what they left behind, and what defines them.

use super::{BuildId, BuildStatus, EvaluationId, ProductId, SpecificationId, Timestamp, Weather};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A build of a derivation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// Its row.
    pub id: BuildId,
    /// The derivation: a store path, or `DIGEST-NAME.drv` of the `command` backend.
    pub derivation: String,
    /// The first specification that wanted it.
    pub specification_id: SpecificationId,
    /// The name of that specification.
    pub specification: String,
    /// The first evaluation that wanted it.
    pub evaluation: EvaluationId,
    /// The job's name in that evaluation.
    pub job: String,
    /// The system, such as `x86_64-linux`.
    pub system: String,
    /// The package's name and version, or the job's name.
    pub nix_name: String,
    /// Higher is built earlier.
    pub priority: i64,
    /// Its status.
    pub status: BuildStatus,
    /// Its result compared with the job's previous build; `Unknown` until it has finished.
    pub weather: Weather,
    /// How many times it was started.
    pub attempt: i64,
    /// How many of its dependencies have not succeeded yet.
    pub waiting: i64,
    /// Why it ended, for people: `exit status 2`, `no output for 60 s`; may be empty.
    pub message: String,
    /// When it was registered.
    pub submitted_at: Timestamp,
    /// When the last attempt started; 0 before the first.
    pub started_at: Timestamp,
    /// When it finished; 0 until then.
    pub stopped_at: Timestamp,
    /// Its build log.
    pub log: BuildLogFile,
    /// Whether it was imported from another server. This server neither builds it nor has its log.
    pub imported: bool,
}

impl Build {
    /// Whether its last attempt gives its result: false for a build that was scheduled again.
    pub fn has_run(&self) -> bool {
        let ran = self.status == BuildStatus::Started
            || (self.status.is_finished() && self.started_at > 0);
        self.attempt > 0 && ran
    }

    /// Why there is no log, as a sentence. `None`: the build runs or has run.
    pub fn no_log(&self) -> Option<&'static str> {
        if self.has_run() {
            return None;
        }
        Some(match self.status {
            BuildStatus::Scheduled | BuildStatus::Started if self.imported => {
                "It was imported, and this server does not build it."
            }
            BuildStatus::Scheduled | BuildStatus::Started => {
                "The log begins when the build starts."
            }
            _ if self.imported => "It was imported; its log stayed on the server that built it.",
            BuildStatus::Canceled => "It was canceled before it started, so there is no log.",
            BuildStatus::FailedDependency => {
                "It was never started, because a build that it needs did not succeed; so there is no log."
            }
            BuildStatus::Succeeded | BuildStatus::Failed | BuildStatus::FailedOther => {
                "It was never started itself: another build of the same derivation ran for it."
            }
        })
    }
}

/// The file of a build log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildLogFile {
    /// Relative to the state directory; empty without a log; ends with `.zst` if the file is compressed.
    pub path: String,
    /// Bytes before compression, once the build has finished.
    pub bytes: i64,
    /// SHA-256 of the stored file, in hexadecimal; empty until the build has finished.
    pub digest: String,
}

/// What the page of a build shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildDetails {
    /// The build.
    pub build: Build,
    /// Its outputs by name.
    pub outputs: Vec<Output>,
    /// Its products.
    pub products: Vec<Product>,
    /// Its attempts, the first one first.
    pub attempts: Vec<Attempt>,
    /// The builds it needs.
    pub needs: Vec<Build>,
    /// The builds that need it, at most 100.
    pub needed_by: Vec<Build>,
    /// Its definition, if the `command` backend builds it.
    pub definition: Option<Definition>,
}

/// An output of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Output {
    /// `out`, unless the backend has several.
    pub name: String,
    /// Absolute, or relative to the state directory.
    pub path: String,
}

/// A file that a build offers for download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Product {
    /// Its row.
    pub id: ProductId,
    /// The build that made it.
    pub build: BuildId,
    /// `file`, or what the job calls it.
    pub kind: String,
    /// Relative to the state directory.
    pub path: String,
    /// Its path in the build directory, for people.
    pub name: String,
    /// Its size.
    pub bytes: i64,
    /// SHA-256 in hexadecimal.
    pub checksum: String,
}

/// A product that is not stored yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewProduct {
    /// `file`, or what the job calls it.
    pub kind: String,
    /// Its path in the build directory.
    pub name: String,
    /// Relative to the state directory.
    pub path: String,
    /// Its size.
    pub bytes: i64,
    /// SHA-256 in hexadecimal.
    pub checksum: String,
}

/// An attempt at a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// 1 for the first.
    pub number: i64,
    /// The worker that ran it.
    pub worker: String,
    /// How it ended; `Started` while it runs, `Canceled` if that was requested, `Scheduled` if the worker was lost and the
    /// attempt does not count.
    pub status: BuildStatus,
    /// Why it ended so, for people.
    pub message: String,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended; 0 until then.
    pub stopped_at: Timestamp,
}

/// A job name with its build, for `/api/jobs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobBuild {
    /// The build.
    pub build: BuildId,
    /// Its status.
    pub status: BuildStatus,
    /// The job's name.
    pub name: String,
}

/// Bytes of one argument or variable of a command: the kernel's `MAX_ARG_STRLEN` without the zero byte.
pub const ARGUMENT_BYTES_MAX: usize = 128 * 1024 - 1;

/// The script of a shell command if it is too long for an argument: it is run from a file.
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

/// Everything that defines a derivation of the `command` backend. The digest of its JSON is its identity, so the order and
/// the spelling of the fields are part of the format: `version` changes when they do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// The version of this format.
    pub version: u32,
    /// The package's name and version, or the job's name.
    pub name: String,
    /// Program and arguments; a shell command is `/bin/sh -e -c TEXT`.
    pub command: Vec<String>,
    /// Added to the clean environment.
    pub environment: BTreeMap<String, String>,
    /// The system.
    pub system: String,
    /// The files in the build directory.
    pub sources: Vec<Source>,
    /// Derivations whose outputs it sees, by their names there.
    pub needs: BTreeMap<String, String>,
    /// Path patterns of its products.
    pub products: Vec<String>,
    /// How it is isolated: `none` without a sandbox, `sandbox`, or `sandbox-network` with the network; each followed by
    /// `-user` if a user other than the server's runs it. Empty in the first version of this format.
    #[serde(default)]
    pub isolation: String,
    /// Whether it may use the network from the sandbox.
    #[serde(default, skip_serializing_if = "super::text::is_no")]
    pub network: bool,
    /// One line for people. Not part of the identity.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

impl Definition {
    /// The version of the format. 2: digests of sources cover git's attributes, and [`Definition::isolation`] exists.
    pub const VERSION: u32 = 2;

    /// The text whose digest is the identity: everything but the origin of the sources and the description.
    pub fn identity(&self) -> String {
        let mut copy = self.clone();
        copy.description.clear();
        for source in &mut copy.sources {
            source.url.clear();
            source.revision.clear();
            source.submodules = false;
            source.submodules_from.clear();
        }
        // Maps are ordered and every field is text, number or yes/no: this cannot fail.
        serde_json::to_string(&copy).unwrap_or_default()
    }
}

/// The files of a checkout that a build sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The input's name.
    pub input: String,
    /// Whether the files are in the directory in which the command runs. The files of other inputs are in a directory of
    /// the input's name below `BRIGANDINE_INPUTS`.
    pub main: bool,
    /// The address of the repository. Not part of the identity.
    pub url: String,
    /// The revision. Not part of the identity.
    pub revision: String,
    /// Whether submodules are exported as well. Not part of the identity.
    pub submodules: bool,
    /// Beginnings of addresses from which submodules are fetched with the server's credentials. Not part of the identity.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub submodules_from: Vec<String>,
    /// Path patterns; empty: the whole tree.
    pub patterns: Vec<String>,
    /// The digest of the paths, modes and git objects of the files, which is their identity.
    pub digest: String,
}

/// Which builds a list has. `None`: all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildFilter {
    /// The name of the first specification that wanted the build.
    pub specification: Option<String>,
    /// The job's name.
    pub job: Option<String>,
    /// The system.
    pub system: Option<String>,
    /// The first evaluation that wanted the build, as in Cuirass. `store::job_page` lists all jobs of an evaluation.
    pub evaluation: Option<EvaluationId>,
    /// The derivation.
    pub derivation: Option<String>,
    /// The status.
    pub status: Option<BuildStatus>,
}

/// How many builds are pending.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct QueueCounts {
    /// Builds that wait for room or for dependencies.
    pub scheduled: i64,
    /// Builds that run.
    pub started: i64,
}
