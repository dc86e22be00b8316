//! Pages for people: rendered by the server, whole without JavaScript, live with it, and without anything from other
//! hosts. A page's struct stands beside its handler, its template has the same name.

mod ansi;
mod build;
mod evaluation;
mod files;
mod jobset;
mod layout;
mod live;
mod overview;
mod queue;
mod routes;
mod rows;
#[cfg(test)]
mod snapshots;
mod tail;
#[cfg(test)]
mod tests;
mod view;

pub(crate) use build::show as build;
pub use evaluation::COMPARED;
pub(crate) use layout::{unknown_path, waiting, wants_page};
pub(crate) use routes::router;
