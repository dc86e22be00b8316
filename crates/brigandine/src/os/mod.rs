//! The operating system: processes, folders, files, and calls of the C library that no crate offers.

pub(crate) mod account;
pub(crate) mod digest;
pub(crate) mod ffi;
pub(crate) mod file;
pub(crate) mod folder;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod sandbox;
mod stat;
pub(crate) mod state_dir;
pub(crate) mod usage;
