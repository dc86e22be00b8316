//! Inputs: git repositories, fetched into bare clones and exported as plain directories.
//!
//! git's own program does what has to do with others: credentials, ssh, proxies, protocol versions,
//! attributes and filters such as LFS then behave as they do for the person who set the machine
//! up. What only reads the server's own clones, or follows a branch on the same machine, is asked of
//! processes that stay (`reader.rs`): one for each question costs more than what it does.
//!
//! Nothing of a repository is executed: clones are made without templates, hooks are switched off,
//! filters run only if the server's configuration names them, no address makes git run a helper of its
//! choice (`address.rs` says which may be named by whom), and nobody is asked anything (`GIT_TERMINAL_PROMPT=0`, ssh in batch mode, so an unknown host
//! key is an error). Every process has a time limit.

mod address;
mod by_git;
mod checkout;
mod exported;
mod git;
mod manner;
mod mend;
mod objects;
mod pattern;
mod reader;
mod tree;

pub(crate) use checkout::{Checkouts, Form, Wanted};
pub(crate) use exported::{ExportedTree, Found};
pub(crate) use git::{FetchError, Repositories, Resolved, redact};
pub(crate) use pattern::Pattern;
pub(crate) use reader::{is_reader, read};
pub(crate) use tree::SelectError;
