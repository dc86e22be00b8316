//! Which process this is, without a system call each time.

#[cfg(target_os = "linux")]
use std::ptr::{self, NonNull};
#[cfg(target_os = "linux")]
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

/// The id of this process; in a forked child, the id of the child.
///
/// It is kept in a page that a forked child finds filled with zeros (`MADV_WIPEONFORK`, madvise(2), since
/// Linux 4.14). Where there is no such page, the kernel is asked each time.
#[cfg(target_os = "linux")]
pub(crate) fn process_id() -> u32 {
    /// Used if the kernel does not offer such a page.
    static NONE: AtomicU32 = AtomicU32::new(0);
    /// Null: the page was not made yet. No lock guards it, because a child that is forked while the parent holds the
    /// lock could never take the lock.
    static PAGE: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());
    let mut page = PAGE.load(Ordering::Acquire);
    if page.is_null() {
        page = wiped_page().map_or(ptr::from_ref(&NONE).cast_mut(), NonNull::as_ptr);
        // If two threads get here at the same time, one of their pages is leaked.
        PAGE.store(page, Ordering::Release);
    }
    // SAFETY: `page` is `NONE` or what `wiped_page` returned: aligned, valid for as long as the process lives,
    // zero at first, and only ever used as this atomic.
    let kept = unsafe { &*page };
    match kept.load(Ordering::Relaxed) {
        0 => {
            let id = std::process::id();
            if !ptr::eq(page, &NONE) {
                kept.store(id, Ordering::Relaxed);
            }
            id
        }
        id => id,
    }
}

/// A new page, never unmapped.
#[cfg(target_os = "linux")]
fn wiped_page() -> Option<NonNull<AtomicU32>> {
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
    let length = rustix::param::page_size();
    // SAFETY: a new mapping at a place of the kernel's choice changes no memory that is in use; advice and unmapping
    // are for this mapping alone, which no other code knows yet.
    unsafe {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let page = mmap_anonymous(ptr::null_mut(), length, access, MapFlags::PRIVATE).ok()?;
        if madvise(page, length, Advice::LinuxWipeOnFork).is_err() {
            let _ = munmap(page, length);
            return None;
        }
        NonNull::new(page.cast())
    }
}

/// The id of this process, by a system call.
#[cfg(not(target_os = "linux"))]
pub(crate) use std::process::id as process_id;

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_known_without_asking_for_it_each_time() {
        for _ in 0..3 {
            assert_eq!(process_id(), std::process::id());
        }
    }
}
