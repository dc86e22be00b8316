//! What the change of one target did.

use super::rest::{Effects, Rest};
use crate::model::{BuildId, Changed, Outcome};

#[derive(Debug)]
pub(super) struct Made {
    pub(super) outcome: Outcome,
    pub(super) effects: Effects,
    /// What is still to be done; `None`: nothing.
    pub(super) rest: Option<Rest>,
}

impl Made {
    /// Builds have a new status.
    pub(super) fn with(outcome: Outcome, changed: Vec<Changed>) -> Self {
        Self { outcome, effects: Effects { changed, running: Vec::new() }, rest: None }
    }

    /// A running build is asked to end.
    pub(super) fn ending(id: BuildId, attempt: i64) -> Self {
        let effects = Effects { changed: Vec::new(), running: vec![(id, attempt)] };
        Self { outcome: Outcome::Ending(attempt), effects, rest: None }
    }
}

/// No build has a new status.
pub(super) fn nothing(outcome: Outcome) -> Made {
    Made::with(outcome, Vec::new())
}

pub(super) fn refused(why: String) -> Made {
    nothing(Outcome::Refused(why))
}
