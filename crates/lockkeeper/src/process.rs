//! Which process this is, without asking the kernel before each call.
//!
//! Since glibc 2.25 `getpid` is a system call each time; it was a twentieth of a point read.

#[cfg(feature = "sqlite")]
pub(crate) use crate::ffi::process_id as id;
#[cfg(not(feature = "sqlite"))]
pub(crate) use std::process::id;
