//! The tasks of a running server.

/// Which tasks of the server run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tasks {
    /// The names of those that run.
    pub running: Vec<String>,
    /// Why the server does not do its work, in sentences for people; empty: all required tasks run.
    pub faults: Vec<String>,
    /// The server ends: nothing is looked at, evaluated or started any more. One of `faults` says so.
    pub ending: bool,
}
