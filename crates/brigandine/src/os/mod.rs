//! What is asked of the operating system: processes, folders, files, and the C library where no crate does it.

pub(crate) mod digest;
pub(crate) mod ffi;
pub(crate) mod file;
pub(crate) mod folder;
pub(crate) mod process;
pub(crate) mod sandbox;
pub(crate) mod state_dir;
