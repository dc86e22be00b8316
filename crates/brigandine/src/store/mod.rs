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
mod measuring;
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

pub(crate) use building::{
    Claim, Claimed, Finish, Recovered, cancel, claim, finish, lose, recover, start,
};
pub(crate) use builds::{
    JobFilter, build, build_details, build_named, job_builds, job_history, job_page, latest_builds,
    outputs, product, products, queue, queue_counts, specification_names, systems,
};
pub(crate) use database::{Database, DatabaseError, Snapshot, Transaction};
pub(crate) use derivations::{definition, derivation_key, outputs_of, revisions_in_use};
pub(crate) use evaluations::{
    changes, checkouts, evaluation, evaluation_details, evaluation_page, evaluation_states,
    evaluations,
};
pub(crate) use importing::{Step, import_cuirass, make_sample};
pub(crate) use measuring::{Size, builds_above, evaluations_with, highest_build, jobs_with, sizes};
pub(crate) use pruning::{
    Budget, Due, due, forget_leftovers, has_output, jobs_after, leftovers, mark, prune_builds,
    remove_evaluations, strays,
};
pub(crate) use queue::{Pending, WholeQueue, whole_queue};
pub(crate) use registering::{
    Begun, NewJob, begin_evaluation, end_evaluation, note_checkouts, register,
};
pub(crate) use restarting::{rebuild, restart};
pub(crate) use sample::mix;
pub(crate) use schema::SchemaError;
pub(crate) use server::{OpenError, note_start, note_stop, open, open_as_it_is, optimize};
pub(crate) use specifications::{
    Loaded, Looked, note_look, put_specification, remove_specification, specification,
    specification_by_id, specifications, want_look,
};
