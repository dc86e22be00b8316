//! The mutexes, condition variables and atomics that loom explores, and the clock.
//!
//! Under `--cfg loom` they are loom's, so that the models in `queue/models.rs` explore every interleaving. The clock
//! stands still then, because loom needs each execution to be repeatable.

use std::sync::PoisonError;
use std::time::Instant;

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU8, Ordering},
};

#[cfg(loom)]
pub(crate) use loom::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU8, Ordering},
};

/// Locks `mutex`, even if a thread panicked while holding it.
///
/// No caller's code runs under a lock of this crate, so only an assertion of this crate can have panicked there. The data
/// is whole, and the thread's exit guard reports the panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits on `bell`; the caller re-checks its condition in a loop.
pub(crate) fn wait<'a, T>(bell: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    bell.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// Waits on `bell`, at the latest until `until`; the caller re-checks its condition in a loop.
#[cfg(not(loom))]
pub(crate) fn wait_until<'a, T>(
    bell: &Condvar,
    guard: MutexGuard<'a, T>,
    until: Instant,
) -> MutexGuard<'a, T> {
    let left = until.saturating_duration_since(now());
    bell.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0
}

/// Loom has no time, so this waits without a timeout.
#[cfg(loom)]
pub(crate) fn wait_until<'a, T>(
    bell: &Condvar,
    guard: MutexGuard<'a, T>,
    _until: Instant,
) -> MutexGuard<'a, T> {
    wait(bell, guard)
}

/// The monotonic clock.
#[cfg(not(loom))]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[cfg(loom)]
pub(crate) fn now() -> Instant {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *START.get_or_init(Instant::now)
}
