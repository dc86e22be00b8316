//! All SQL of the server: one function per statement or short transaction, model values out.
//!
//! Functions take a [`Snapshot`] to read or a [`Transaction`] to write, so the caller decides what
//! belongs together: every answer that takes more than one query is made on one snapshot. Values
//! such as the time and digests are parameters; a change of state is a conditional `UPDATE` whose
//! row count decides. Nothing else in the crate writes SQL.

mod building;
mod builds;
mod cuirass;
mod database;
mod derivations;
mod evaluations;
#[cfg(test)]
mod import_tests;
mod importing;
#[cfg(test)]
mod plans;
mod pruning;
mod queue;
mod registering;
mod restarting;
mod sample;
mod schema;
mod server;
mod specifications;
#[cfg(test)]
mod tests;
mod twins;

pub use building::{Claimed, Finish, finish, start};
pub use builds::{build, job_builds, job_history, outputs};
pub use cuirass::CuirassError;
pub use database::{Database, DatabaseError, Snapshot, Transaction};
pub use derivations::derivation_key;
pub use evaluations::{evaluation, evaluations};
pub use importing::{ImportError, Imported, Step, make_sample};
pub use registering::{Begun, NewJob, Registered, begin_evaluation, register};
pub use sample::mix;
pub use schema::SchemaError;
pub use server::{OpenError, open_as_it_is};
pub use specifications::{Loaded, specifications};

pub(crate) use building::{Claim, Recovered, cancel, claim, lose, recover};
pub(crate) use builds::{
    JobFilter, build_details, build_named, job_page, latest_builds, product, products, queue,
    queue_counts, specification_names, systems,
};
pub(crate) use derivations::{definition, outputs_of, revisions_in_use};
pub(crate) use evaluations::{
    changes, checkouts, evaluation_details, evaluation_page, evaluation_states,
};
pub(crate) use importing::import_cuirass;
pub(crate) use pruning::{
    Budget, Due, due, forget_leftovers, has_output, jobs_after, leftovers, mark, prune_builds,
    remove_evaluations, strays,
};
pub(crate) use queue::{Pending, WholeQueue, whole_queue};
pub(crate) use registering::{end_evaluation, note_checkouts};
pub(crate) use restarting::{rebuild, restart};
pub(crate) use server::{note_start, note_stop, open, optimize};
pub(crate) use specifications::{
    Looked, note_look, put_specification, remove_specification, specification, specification_by_id,
    want_look,
};
