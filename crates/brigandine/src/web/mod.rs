//! Pages for people. The server renders them; they are complete without JavaScript, follow changes with it, and load
//! nothing from other hosts. The struct of a page is in the file of its handler, and its template has the same name.

mod ansi;
mod audit;
mod build;
mod changing;
mod comparison;
mod configuration;
mod description;
mod evaluation;
mod files;
mod grid;
mod job;
mod jobset;
mod layout;
mod live;
mod log;
mod login;
mod overview;
mod parts;
mod past;
mod plot;
mod queue;
mod revisions;
mod routes;
mod rows;
mod search;
#[cfg(test)]
mod snapshots;
mod tail;
#[cfg(test)]
mod tests;
mod view;
mod why;

pub(crate) use build::show as build;
pub use evaluation::COMPARED;
pub(crate) use evaluation::page as evaluation;
pub(crate) use layout::{refusal, unknown_path, waiting};
pub(crate) use login::{log_in, log_out, page as login_page};
pub(crate) use overview::page as overview;
pub(crate) use parts::{Versions, parts};
pub(crate) use routes::router;
pub(crate) use search::page as search;
