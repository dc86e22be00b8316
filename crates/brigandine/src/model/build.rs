//! Builds, what they left behind, and what defines them.

use super::{BuildId, BuildStatus, EvaluationId, ProductId, SpecificationId, Timestamp, Weather};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The row that remembers a derivation's fate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// Its row.
    pub id: BuildId,
    /// What is built: a store path, or `DIGEST-NAME.drv` of the `command` backend.
    pub derivation: String,
    /// The specification that asked first.
    pub specification_id: SpecificationId,
    /// Its name.
    pub specification: String,
    /// The evaluation that asked first.
    pub evaluation: EvaluationId,
    /// The job's name in that evaluation.
    pub job: String,
    /// What it is built for, such as `x86_64-linux`.
    pub system: String,
    /// The package's name and version, or the job's name.
    pub nix_name: String,
    /// Higher is built earlier.
    pub priority: i64,
    /// Its fate.
    pub status: BuildStatus,
    /// Compared with the job's build before; `Unknown` until finished.
    pub weather: Weather,
    /// How many times it was started.
    pub attempt: i64,
    /// How many of its dependencies have not succeeded yet.
    pub waiting: i64,
    /// Why it ended, for people: `exit status 2`, `no output for 60 s`; may be empty.
    pub message: String,
    /// When it was registered.
    pub submitted_at: Timestamp,
    /// When the last attempt started; 0 when not yet.
    pub started_at: Timestamp,
    /// When it finished; 0 when not yet.
    pub stopped_at: Timestamp,
    /// Its build log.
    pub log: BuildLogFile,
    /// Whether it came from another server: nothing of ours builds it, or has its log.
    pub imported: bool,
}

impl Build {
    /// Whether its last attempt is what became of it, or will be: one that was scheduled again has not run.
    pub fn has_run(&self) -> bool {
        let ran = self.status == BuildStatus::Started
            || (self.status.is_finished() && self.started_at > 0);
        self.attempt > 0 && ran
    }

    /// Why there is no log, in a sentence. `None`: it runs or has run.
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

/// Where a build log is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildLogFile {
    /// Relative to the state directory; empty when there is none; ends with `.zst` when compressed.
    pub path: String,
    /// Bytes before compression, known when finished.
    pub bytes: i64,
    /// SHA-256 of the file as it is stored, in hexadecimal; empty until finished.
    pub digest: String,
}

/// What a page about one build shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildDetails {
    /// The build.
    pub build: Build,
    /// By name.
    pub outputs: Vec<Output>,
    /// Files to download.
    pub products: Vec<Product>,
    /// First to last.
    pub attempts: Vec<Attempt>,
    /// The builds it needs.
    pub needs: Vec<Build>,
    /// The builds that need it, at most 100.
    pub needed_by: Vec<Build>,
    /// What defines it, when the `command` backend builds it.
    pub definition: Option<Definition>,
}

/// A result of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Output {
    /// `out` unless the backend has others.
    pub name: String,
    /// Absolute, or relative to the state directory.
    pub path: String,
}

/// A file to download.
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

/// A file to download that has no row yet.
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

/// One start of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// 1 for the first.
    pub number: i64,
    /// Who ran it.
    pub worker: String,
    /// How it ended; `Started` while it runs, `Canceled` if its end was asked for; `Scheduled` when it was
    /// lost and counts for nothing.
    pub status: BuildStatus,
    /// Why, for people.
    pub message: String,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended; 0 when not yet.
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

/// Of one argument or variable of a command: the kernel's bound (`MAX_ARG_STRLEN`) without its zero byte.
pub const ARGUMENT_BYTES_MAX: usize = 128 * 1024 - 1;

/// The script of a command that hands a longer one to the shell than an argument may be: it is run from a file.
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

/// Everything that defines a derivation of the `command` backend. Its digest is its identity, so
/// field order and spelling are part of the format: `version` changes when they do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// Of this format.
    pub version: u32,
    /// The package's name and version, or the job's name.
    pub name: String,
    /// Program and arguments; a shell command is `/bin/sh -e -c TEXT`.
    pub command: Vec<String>,
    /// Added to the clean environment.
    pub environment: BTreeMap<String, String>,
    /// What it is built for.
    pub system: String,
    /// What lies in the build directory.
    pub sources: Vec<Source>,
    /// Derivations whose outputs it sees, by the name it knows them by.
    pub needs: BTreeMap<String, String>,
    /// Path patterns of files to keep.
    pub products: Vec<String>,
    /// What it sees of the machine that builds it: `none` outside a sandbox, `sandbox`, or
    /// `sandbox-network` with the network in it; with `-user` as a user that is not the server's. Empty in the first version of this format.
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
    /// Of the format. 2: digests of sources cover git's attributes, and [`Definition::isolation`].
    pub const VERSION: u32 = 2;

    /// The text whose digest is the identity: everything but where the sources come from and words for people.
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

/// The files of one checkout that a build sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The input's name.
    pub input: String,
    /// Whether the files lie in the directory where the command runs. Those of other inputs lie
    /// in a directory of the input's name below `BRIGANDINE_INPUTS`.
    pub main: bool,
    /// Where the repository is. Not part of the identity.
    pub url: String,
    /// The revision the files are taken from. Not part of the identity.
    pub revision: String,
    /// Whether submodules are exported as well. Not part of the identity.
    pub submodules: bool,
    /// What submodules are fetched from with the server's credentials. Not part of the identity.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub submodules_from: Vec<String>,
    /// Path patterns; empty means the whole tree.
    pub patterns: Vec<String>,
    /// Digest of paths, modes and git objects of the files: this is the identity.
    pub digest: String,
}

/// Which builds a list holds. Absent fields do not restrict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildFilter {
    /// The name of the specification that asked first.
    pub specification: Option<String>,
    /// The job's name.
    pub job: Option<String>,
    /// What it is built for.
    pub system: Option<String>,
    /// The evaluation that asked first, as in Cuirass; an evaluation's jobs are another list.
    pub evaluation: Option<EvaluationId>,
    /// Its derivation.
    pub derivation: Option<String>,
    /// Its fate.
    pub status: Option<BuildStatus>,
}

/// How many builds wait and run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct QueueCounts {
    /// Wait for room or for dependencies.
    pub scheduled: i64,
    /// Run.
    pub started: i64,
}
