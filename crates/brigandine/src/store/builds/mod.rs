//! Builds: how they are read, and each change of their state, with everything that belongs to it.

mod abandon;
mod bump;
mod cancel;
mod change;
mod claim;
mod find;
mod finish;
mod jobs;
mod list;
mod past;
mod periods;
mod queue;
mod recover;
mod restart;
mod row;
mod search;
mod twins;

pub use claim::{Claimed, start};
pub use find::{build, outputs};
pub use finish::{Finish, finish};
pub use jobs::job_builds;
pub use list::job_history;

pub(crate) use abandon::{Abandoned, abandon};
pub(crate) use cancel::cancel;
pub(crate) use claim::{Claim, REFUSED_MAX, RefusedStart, claim};
pub(crate) use find::{
    build_details, build_named, builds_of_output, evaluations_of_build, needs, product, products,
};
pub(crate) use finish::lose;
pub(crate) use jobs::{Border, JobFilter, Latest, build_ids, job_page, latest_of_job};
pub(crate) use list::{
    latest_builds, pending_builds, queue, queue_counts, specification_names, systems,
};
pub(crate) use past::{job_past, job_rates};
pub(crate) use periods::ended_per_period;
pub(crate) use queue::{Pending, WholeQueue, running_twin, whole_queue};
pub(crate) use recover::{KILLED, Recovered, recover};
pub(crate) use restart::{rebuild, restart};
pub(crate) use search::{SearchBorder, SearchStep, search_builds, search_evaluations};

pub(super) use bump::bump;
pub(super) use cancel::{Unwanted, cancel_unwanted};
pub(crate) use change::CANCELED;

#[cfg(test)]
pub(super) use claim::claim_for;
#[cfg(test)]
pub(super) use list::{By, List, shape};
