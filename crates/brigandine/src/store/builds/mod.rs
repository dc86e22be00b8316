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
pub(crate) use change::CANCELED;
pub(crate) use claim::{Claim, REFUSED_MAX, RefusedStart, claim};
pub(crate) use finish::lose;
pub(crate) use jobs::{Border, JobFilter, Latest, job_page};
pub(crate) use list::{latest_builds, queue, queue_counts, specification_names, systems};
pub(crate) use queue::{Pending, WholeQueue};
pub(crate) use recover::{KILLED, Recovered, recover};
pub(crate) use restart::{rebuild, restart};
pub(crate) use search::{SearchBorder, SearchStep};

pub(super) use bump::bump;
pub(super) use cancel::{Unwanted, cancel_unwanted};
pub(super) use find::{
    NEEDED_BY_MAX, NEEDS_MAX, build_details, builds_named, builds_of_output, evaluations_of_build,
    needed_by, needs, product, products,
};
pub(super) use jobs::{JobPage, build_ids, latest_of_job};
pub(super) use list::{List, listed, pending_builds, queue_counts_without};
pub(super) use past::{job_past, job_rates};
pub(super) use periods::ended_per_period;
pub(super) use queue::{running_twin, whole_queue};
pub(super) use search::{FoundBuilds, search_builds, search_evaluations};

#[cfg(test)]
pub(super) use claim::claim_for;
#[cfg(test)]
pub(super) use list::{By, shape};
