//! Inputs: git repositories, fetched into bare clones and exported as plain directories.
//!
//! git itself talks to other machines and writes files, so that credentials, ssh, proxies, protocol versions,
//! attributes and filters such as LFS behave as they do for the person who set the machine up. Long-lived processes
//! (`reader.rs`) read the server's own clones and follow branches of repositories on the same machine, because a git
//! process for each question would cost more than its answer.
//!
//! Nothing in a repository is executed: clones are made without templates, hooks are off, filters run only if the
//! server's configuration names them, and no address makes git run a helper (`address.rs` says who may name which
//! address). git never prompts: with `GIT_TERMINAL_PROMPT=0` and ssh in batch mode, an unknown host key is an error.
//! Every process has a time limit.

mod address;
mod checkout;
mod configuration;
mod exported;
mod git;
mod objects;
mod pattern;
mod reader;
mod revision;
mod tree;

pub(crate) use checkout::{Checkouts, Form, WantedRevision};
pub(crate) use exported::ExportedTree;
pub(crate) use git::{FetchError, Repositories};
pub(crate) use pattern::Pattern;
pub(crate) use reader::{is_reader, read};
pub(crate) use revision::Resolved;
pub(crate) use tree::SelectError;
