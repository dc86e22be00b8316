//! What handlers of requests may ask the running server to do, and the outcomes of canceling and restarting a build.

use super::{Asked, BuildId, BuildStatus, Change, Changed, Outcome, Specification, Target};
use std::pin::Pin;

/// A running action. It fails only if the database fails.
pub type Action<'a, T> = Pin<Box<dyn Future<Output = Result<T, lockkeeper::Error>> + Send + 'a>>;

/// Makes changes for the API.
pub trait Actions: Send + Sync {
    /// Makes a change of each target, at most [`TARGETS_MAX`](super::TARGETS_MAX), in one transaction, with its rows of
    /// the audit. The result says of each target what became of it.
    fn change(
        &self,
        change: Change,
        targets: Vec<Target>,
        asked: Asked,
    ) -> Action<'_, Vec<(Target, Outcome)>>;

    /// Changes specifications. Unless `even_of_files` is set, those that stand in a specification file of the server
    /// are not changed.
    fn specify(&self, change: Specify, even_of_files: bool, asked: Asked) -> Action<'_, Specified>;
}

/// A change to specifications, which is made whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Specify {
    /// Stores specifications.
    Put {
        /// The definitions.
        specifications: Vec<Specification>,
        /// Which stored specifications that differ may be replaced.
        replace: Replace,
    },
    /// Removes specifications from service.
    Remove {
        /// The names of the specifications.
        names: Vec<String>,
        /// What becomes of their evaluations and builds.
        history: History,
    },
}

impl Specify {
    /// The names of the specifications that the change is about.
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Put { specifications, .. } => {
                specifications.iter().map(|one| one.name.clone()).collect()
            }
            Self::Remove { names, .. } => names.clone(),
        }
    }
}

/// Which stored specifications a change may replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// None.
    Never,
    /// Those that are in the project of the new definition.
    InProject,
    /// All.
    Always,
}

/// What becomes of the evaluations and builds of a removed specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// They stay.
    Kept,
    /// The retention deletes them with their logs and outputs.
    Deleted,
}

/// What happened to a specification that was to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// There was none of this name, or it had been removed.
    New,
    /// Another definition was stored, and was replaced.
    Changed,
    /// The same definition was stored already.
    Unchanged,
    /// Another definition is stored, which differs in these keys, and the caller did not ask to replace it.
    Kept(Vec<String>),
}

impl Loaded {
    /// The outcome as a word.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Kept(_) => "kept",
        }
    }
}

/// The outcome of a change to specifications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Specified {
    /// The specifications are stored so.
    Done(Vec<(String, Loaded)>),
    /// The specifications of these names are removed.
    Removed(Vec<String>),
    /// Specifications of these names are stored and differ in these keys. Nothing was changed.
    Kept(Vec<(String, Vec<String>)>),
    /// The specification of this name is in this other project. Nothing was changed.
    Elsewhere(String, String),
    /// The specification of this name stands in this specification file. Nothing was changed.
    OfFile(String, String),
    /// There is no specification of this name. Nothing was changed.
    Missing(String),
}

/// The outcome of a request to cancel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancel {
    /// The build was waiting and is canceled now. The list has all builds that changed.
    Done(Vec<Changed>),
    /// The build is running: the caller must stop this attempt.
    Running(i64),
    /// The build has finished or does not exist.
    TooLate,
}

/// The outcome of a request to restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restart {
    /// The build is scheduled, and so are the builds that had failed because of it.
    Done(Vec<Changed>),
    /// The build is waiting or running already, or has succeeded. Nothing was changed.
    Not(BuildStatus),
    /// The build needs this build, which ended without success and must be restarted first. Nothing was changed.
    Needs(BuildId),
    /// The build has no derivation any more. Nothing was changed.
    Undefined,
    /// There is no such build.
    Missing,
}
