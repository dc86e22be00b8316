//! What the builder's loop remembers of builds whose rows the database refuses to change (`turns/refused.rs`).

use super::end::End;
use crate::model::BuildId;
use std::collections::{HashMap, HashSet};
use std::time::Instant;

/// An end that could not be written by itself.
///
/// The number of these is bounded: an end that the database refuses is given up after a few pauses, and the room of
/// the others stays taken.
#[derive(Debug)]
pub(super) struct RefusedEnd {
    pub(super) end: End,
    /// How many times the database has refused it.
    pub(super) times: u32,
    pub(super) due: Instant,
}

/// Builds that the database refuses to start.
#[derive(Debug, Default)]
pub(super) struct Unstartable {
    /// How many times a start was refused. A build that is canceled or deleted before it is tried again stays here until
    /// the server ends; its number takes less room than its row did.
    pub(super) times: HashMap<BuildId, i64>,
    /// Builds that are not tried again, because the database refuses to let them fail as well. They must not
    /// be claimed any more.
    pub(super) given_up: HashSet<BuildId>,
}
