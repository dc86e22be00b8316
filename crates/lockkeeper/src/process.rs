//! The id of this process, without a system call each time.
//!
//! Since glibc 2.25 `getpid` makes a system call each time. That took a twentieth of the time of a point read.

#[cfg(feature = "sqlite")]
pub(crate) use crate::ffi::process_id as id;
#[cfg(not(feature = "sqlite"))]
pub(crate) use std::process::id;
