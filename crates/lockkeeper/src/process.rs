//! Which process this is, without asking the kernel before each call; and the priority of a thread.
//!
//! Since glibc 2.25 `getpid` is a system call each time; it was a twentieth of a point read.

#[cfg(all(feature = "sqlite", target_os = "linux"))]
pub(crate) use crate::ffi::process_id as id;
#[cfg(not(all(feature = "sqlite", target_os = "linux")))]
pub(crate) use std::process::id;

/// Raises the nice value of this thread. On Linux it belongs to the thread (`nice(2)`); elsewhere it is the
/// whole process's, and is left alone.
#[cfg(feature = "sqlite")]
pub(crate) fn lower_priority(by: u8) {
    // It can only fail where a sandbox forbids it; then the thread stays as it is.
    #[cfg(target_os = "linux")]
    if by > 0 {
        let _ = rustix::process::nice(i32::from(by));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = by;
}
