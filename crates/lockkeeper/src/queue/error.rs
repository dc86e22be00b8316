//! The errors of the queue: one small type per operation.

use std::fmt;

const FORKED: &str = "the process forked, and the thread that serves the calls is in the parent; fork \
                      before it is started, or `exec`";

/// What a call was doing when it timed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// The call waited for room, because its client's part of the queue was full.
    Room,
    /// The call was accepted and waited for its turn.
    Queued,
    /// The call had its turn and waited for the resource itself (SQLite: for a lock of another process).
    Locked,
    /// The call's code was running.
    Running,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Room => "waiting for room in the queue",
            Self::Queued => "waiting in the queue",
            Self::Locked => "waiting for the lock",
            Self::Running => "running",
        })
    }
}

/// Why a call did not run to its end. Nothing that the call did was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// The queue is closed; the call never began.
    Closed,
    /// The queue was aborted while the call ran.
    Aborted,
    /// The deadline passed.
    Timeout(Phase),
    /// The call was submitted from inside another call and would wait for that call, directly or through calls on
    /// other threads, so the wait would never end.
    Nested,
    /// The worker thread ended without answering.
    Faulted,
    /// The process forked, and only the parent has the worker's thread.
    Forked,
    /// The queue is overloaded and the call had waited longer than the target. The call never began. See `shed_after`
    /// of the builder.
    Overloaded,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the queue is closed"),
            Self::Aborted => f.write_str("the queue was aborted while the call ran"),
            Self::Timeout(phase) => write!(f, "the deadline passed while {phase}"),
            Self::Nested => f.write_str(
                "called from inside a call that would wait for itself, directly or through other calls",
            ),
            Self::Faulted => f.write_str("the worker thread ended without answering"),
            Self::Forked => f.write_str(FORKED),
            Self::Overloaded => f.write_str("the queue is overloaded; the call never began"),
        }
    }
}

impl std::error::Error for CallError {}

/// A refused submission, with the call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Refused<F> {
    /// Why it was refused.
    pub reason: RefusedReason,
    /// The call, unchanged.
    pub call: F,
}

/// Why a `try_` submission was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusedReason {
    /// The client's share of the queue is full.
    Full,
    /// The queue is closed.
    Closed,
    /// See [`CallError::Nested`].
    Nested,
    /// See [`CallError::Forked`].
    Forked,
    /// The call is a write, and the database was opened read-only.
    ReadOnly,
    /// The call is a write, and the database's writes are stopped.
    Stopped,
}

impl<F> fmt::Debug for Refused<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<F> fmt::Display for Refused<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.reason {
            RefusedReason::Full => "the queue is full",
            RefusedReason::Closed => "the queue is closed",
            RefusedReason::Nested => "called from inside a call that would wait for itself",
            RefusedReason::Forked => FORKED,
            RefusedReason::Stopped => "writes are stopped for now",
            RefusedReason::ReadOnly => "a write of a database that was opened for reading alone",
        })
    }
}

impl<F> std::error::Error for Refused<F> {}

/// The worker could not be started.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError<E> {
    /// The capacity is 0, so no call could be accepted.
    ZeroCapacity,
    /// The operating system could not start a thread.
    Thread(std::io::Error),
    /// The build function failed with this error.
    Build(E),
    /// The build function, or the function that runs first on the thread, panicked with this message.
    Panicked(String),
    /// The thread died.
    Faulted,
    /// The worker was started inside a call, and its build function waits for that call, directly or through other
    /// calls.
    Nested,
}

impl<E: fmt::Display> fmt::Display for StartError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroCapacity => f.write_str("capacity is 0; give at least 1"),
            Self::Thread(_) => f.write_str("no thread could be started"),
            Self::Build(_) => f.write_str("the resource could not be built"),
            Self::Panicked(said) => write!(f, "the start of the worker thread panicked: {said}"),
            Self::Faulted => f.write_str("the worker thread died while building the resource"),
            Self::Nested => {
                f.write_str("started inside a call for which the build function waits, for ever")
            }
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for StartError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Thread(error) => Some(error),
            Self::Build(error) => Some(error),
            Self::ZeroCapacity | Self::Panicked(_) | Self::Faulted | Self::Nested => None,
        }
    }
}
