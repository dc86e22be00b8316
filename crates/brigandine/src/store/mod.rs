//! All SQL of the server: one function per statement or short transaction, which returns values of the model.
//!
//! Functions take a [`Snapshot`] to read or a [`Transaction`] to write, so the caller decides which calls belong
//! together. Every answer that needs more than one query is read from one snapshot. Values such as the time and digests
//! are parameters. A change of state is a conditional `UPDATE`, and its row count tells whether the change happened.

mod accounts;
mod audit;
mod blame;
mod builds;
mod comparison;
mod copies;
mod database;
mod derivations;
mod evaluations;
mod figures;
mod grid;
mod hidden;
mod history;
mod import;
#[cfg(test)]
mod plans;
mod pruning;
mod query;
mod registering;
mod requests;
mod schema;
mod server;
mod specifications;
mod specify;
#[cfg(test)]
mod tests;
pub(crate) mod visible;
mod why;
mod wishes;

pub use builds::{Claimed, Finish, build, finish, job_builds, job_history, outputs, start};
pub use database::{Database, DatabaseError, Snapshot, Transaction};
pub use derivations::derivation_key;
pub use evaluations::{evaluation, evaluations};
pub use import::{CuirassError, ImportError, Imported, LeftOut, Step, make_sample, mix};
pub use registering::{Begun, NewJob, Registered, begin_evaluation, register};
pub use schema::SchemaError;
pub use server::{OpenError, open_as_it_is};
pub use specifications::specifications;
pub(crate) use specify::specify;

pub(crate) use accounts::{
    ExternalLogin, ExternalUser, NewSession, NewToken, Password, SessionOwner, UserChange,
    add_user, begin_session, end_session, end_sessions, external_login, note_session_use,
    note_token_use, password, put_token, remove_token, remove_user, session, sessions,
    set_disabled, set_password, set_role, token, tokens, user, users,
};
pub(crate) use audit::{audit, prune_audit};
pub(crate) use builds::{
    Abandoned, CANCELED, Claim, JobFilter, KILLED, Latest, Pending, REFUSED_MAX, Recovered,
    RefusedStart, SearchBorder, SearchStep, WholeQueue, abandon, claim, job_page, latest_builds,
    lose, queue, queue_counts, rebuild, recover, specification_names, systems,
};
#[cfg(test)]
use builds::{
    build_details, builds_named, job_past, job_rates, search_builds, search_evaluations,
    whole_queue,
};
#[cfg(test)]
pub(crate) use builds::{cancel, restart};
pub(crate) use comparison::{ComparedList, Comparison, ComparisonFilter};
#[cfg(test)]
use comparison::{compare, other_evaluation};
pub(crate) use copies::{DatabaseCopy, copy_back, copy_database};
pub(crate) use derivations::{outputs_of, revisions_in_use};
pub(crate) use evaluations::checkouts;
#[cfg(test)]
use evaluations::{evaluation_details, latest_finished_evaluation};
pub(crate) use figures::Figures;
#[cfg(test)]
use grid::grid;
pub(crate) use grid::{Grid, GridCell, GridFilter};
pub(crate) use hidden::Hidden;
pub(crate) use history::{ExportError, export};
pub(crate) use import::{ImportedHistory, Kind, import_cuirass, import_history, kind_of};
pub(crate) use pruning::{
    Budget, Due, due, forget_leftovers, has_output, jobs_after, leftovers, mark, prune_builds,
    remove_evaluations, strays,
};
pub(crate) use query::is_refusal;
pub(crate) use registering::{end_evaluation, note_checkouts, note_log};
#[cfg(test)]
use requests::proceed;
pub(crate) use requests::{
    Effects, Rest, asked_to_end, carry_out, finish as finish_rest, request, supersede,
    take_up_again, unfinished,
};
pub(crate) use server::{BUSY_TIMEOUT, note_start, note_stop, open, optimize};
#[cfg(test)]
pub(crate) use specifications::want_look;
pub(crate) use specifications::{
    Looked, note_look, put_specification, specification, specification_by_id,
};
pub(crate) use visible::Visible;
#[cfg(test)]
use why::ahead;
