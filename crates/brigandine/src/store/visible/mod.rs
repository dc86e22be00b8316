//! What the sender of a request may see. Pages and the API read here alone: they are given a [`Visible`], from which the
//! other functions of the store, which take a `Snapshot`, cannot be called.
//!
//! - SEEN1: what belongs to a hidden specification is not there: each function answers as if its rows did not exist.
//! - SEEN2: a list, a count or a history leaves out the builds that a hidden specification needed first. A build that is
//!   named by its number, or that is reached from a visible evaluation or build, is there if a job of a visible
//!   evaluation has it, and is then shown as that job's build: nothing of the hidden specification that is not a part of
//!   the derivation itself is shown (`shown.rs`).
//! - SEEN3: what is hidden is read from the snapshot of the answer, so that an answer is whole before or after a
//!   specification became private.

mod builds;
mod evaluations;
mod shown;
mod snapshot;
mod specifications;

pub(crate) use builds::{
    ahead, build, build_details, build_named, builds_of_output, ended_per_period,
    evaluations_of_build, is_lent, job_history, job_past, job_rates, latest_builds, needs, outputs,
    pending_builds, predecessor, product, products, queue, queue_counts, running_twin,
    search_builds, surroundings, whole_queue,
};
pub(crate) use evaluations::{
    build_ids, checkouts, compare, evaluation, evaluation_details, evaluation_ids, evaluation_page,
    evaluation_states, evaluations, evaluations_of_project, grid, job_builds, job_page,
    latest_finished_evaluation, latest_of_job, other_evaluation, search_evaluations,
};
pub(crate) use snapshot::Visible;
pub(crate) use specifications::{
    active_names, audit, figures, project_of, specification, specification_by_id, specifications,
};
