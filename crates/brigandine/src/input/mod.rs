//! Inputs: git repositories, fetched into bare clones and exported as plain directories.
//!
//! git's own program does the work, not a library: credentials, ssh, proxies, protocol versions,
//! attributes and filters such as LFS then behave as they do for the person who set the machine
//! up. A fetch or an export runs a handful of processes, and both are rare next to builds.
//!
//! Nothing of a repository is executed: clones are made without templates, hooks are switched off,
//! and nobody is asked anything (`GIT_TERMINAL_PROMPT=0`, ssh in batch mode, so an unknown host
//! key is an error). Every process has a time limit.

mod checkout;
mod git;
mod pattern;
mod tree;

pub(crate) use checkout::{Checkouts, ExportedTree};
pub(crate) use git::{FetchError, Repositories, Resolved, hex, redact};
pub(crate) use pattern::Pattern;
use tree::Entry;
