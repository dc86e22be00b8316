//! All SQL of the server: one function per statement or short transaction, model values out.
//!
//! Functions take a [`Snapshot`] to read or a [`Transaction`] to write, so the caller decides what
//! belongs together: every answer that takes more than one query is made on one snapshot. Values
//! such as the time and digests are parameters; a change of state is a conditional `UPDATE` whose
//! row count decides. Nothing else in the crate writes SQL.

mod builds;
mod derivations;
mod evaluations;
mod shim;
mod specifications;

pub(crate) use builds::{
    JobFilter, JobPage, attempts, build, build_by_basename, build_details, job_builds, job_history,
    job_page, latest_builds, outputs, product, products, queue, queue_counts,
};
pub(crate) use derivations::definition;
pub(crate) use evaluations::{
    changes, checkouts, evaluation, evaluation_details, evaluation_page, evaluations,
};
pub(crate) use shim::{Database, Snapshot, Transaction};
pub(crate) use specifications::{specification, specification_by_id, specifications};
