//! Plain values of the domain, which all other parts use.
//!
//! This module does no I/O. A **specification** has **inputs**; an input at a revision is a **checkout**; an
//! **evaluation** of checkouts yields **jobs**, each with a **derivation**; a **build** realises a derivation.

mod account;
mod actions;
mod actor;
mod address;
mod audit;
mod blame;
mod build;
mod change;
mod comparison;
mod configuration;
mod difference;
mod evaluation;
mod event;
mod forge;
mod ids;
mod job;
mod job_list;
mod live;
mod log_name;
mod login_provider;
mod output_path;
mod search;
mod specification;
mod status;
mod tasks;
mod text;
mod time;
mod unused;
mod version;

pub use account::{AccessToken, Grant, Role, Scope, Session, Sight, User, check_account_name};
pub use actions::{Action, Actions, Cancel, History, Loaded, Replace, Restart, Specified, Specify};
pub use actor::Actor;
pub use address::redact;
pub use audit::{AuditFilter, Audited};
pub use blame::{Blame, Surroundings};
pub use build::{
    ARGUMENT_BYTES_MAX, Attempt, BUMPED, Build, BuildDetails, BuildFilter, BuildLogFile,
    Definition, JobBuild, NewProduct, Output, Product, QueueCounts, Source, script,
};
pub use change::{Asked, Change, Counts, Outcome, TARGETS_MAX, Target};
pub use comparison::{ComparedJob, JobChange};
pub use configuration::{Configuration, Reload, Setting};
pub use evaluation::{Checkout, Counters, Evaluation, EvaluationDetails, JobState};
pub use event::{Changed, Event, publish};
pub use forge::{commit_page, range_page};
pub use ids::{BuildId, EvaluationId, ProductId, SpecificationId};
pub use job::{JobPast, JobRates};
pub use job_list::{JobEntry, Needs};
pub use live::Live;
pub use log_name::LogName;
pub use login_provider::{ClaimedGrant, LoginProvider};
pub use output_path::{output_digest, output_path, product_file, product_path};
pub use search::Search;
pub use specification::{
    Evaluator, Input, Keep, Look, MAIN_PROJECT, RESERVED_NAMES, RESERVED_WHY, Reference,
    Specification, SpecificationState, Supersede,
};
pub use status::{BuildStatus, EvaluationStatus, Weather};
pub use tasks::Tasks;
pub use text::{MESSAGE_BYTES_MAX, is_steering, lines, one_line, size, with_causes};
pub use time::{STOP_DELAY, Timestamp, duration, iso, now};
pub use unused::{Unused, UnusedPart};
pub use version::{COMMIT, PACKAGE_VERSION, version};
