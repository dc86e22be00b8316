//! Giving freed memory back to the system. The only `unsafe` of the crate.

#![cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "an entry of the C library; the block says why it is sound")
)]

/// Gives back what is free, on a thread that may take its time. For when something large was dropped.
///
/// The C library returns only what is free at the end of its heap (malloc_trim(3)). The hundred
/// thousand jobs of an evaluation leave holes below pages that SQLite keeps, so their memory stayed
/// with the process. Does nothing with a C library that has no such call.
pub(crate) async fn give_back() {
    #[cfg(target_env = "gnu")]
    let _ = tokio::task::spawn_blocking(|| {
        // SAFETY: it takes the allocator's own locks and touches nothing that is allocated; the
        // argument is a number of bytes.
        unsafe { libc::malloc_trim(0) }
    })
    .await;
}
