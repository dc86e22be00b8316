//! The id of this process, without a system call for each call.
//!
//! Since glibc 2.25 `getpid` is a system call each time, which took a twentieth of a point read.

#[cfg(feature = "sqlite")]
pub(crate) use crate::ffi::process_id as id;
#[cfg(not(feature = "sqlite"))]
pub(crate) use std::process::id;
