//! Connections from opening to closing, and the types through which calls use them.

mod authorizer;
pub(crate) mod blob;
mod callbacks;
pub(crate) mod counters;
mod failure;
pub(crate) mod file;
mod flag;
pub(crate) mod instance;
pub(crate) mod interrupt;
pub(crate) mod link;
mod lock_wait;
pub(crate) mod migrate;
pub(crate) mod open;
pub(crate) mod opener;
pub(crate) mod path;
mod pragma;
pub(crate) mod preflight;
pub(crate) mod queryable;
pub(crate) mod setup;
pub(crate) mod slow;
pub(crate) mod snapshot;
pub(crate) mod statement;
mod temporary;
pub(crate) mod transaction;
mod words;
