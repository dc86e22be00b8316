//! Runs one read on a connection: inside a shared read transaction, on a held snapshot, or in a transaction of its own.

use std::time::{Duration, Instant};

use super::call::{ReadCall, kind_of_stop};
use super::core::Core;
use crate::error::{Error, ErrorKind};
use crate::ffi::Sql;
use crate::queue::Phase;
use crate::sqlite::{slow, snapshot::Snapshot};
use crate::stats::CallMeter;
use crate::sync::now;

/// Runs a read inside the transaction that is open on `conn` and puts its caller's waker into the batch. `behind`: how
/// many reads wait in the queue. Returns the time that the read and its report in the slow log took.
pub(crate) fn run(
    conn: &Snapshot,
    core: &Core,
    meter: &CallMeter,
    call: Box<dyn ReadCall>,
    at: Instant,
    behind: usize,
) -> Duration {
    if let Some(why) = call.interrupt() {
        call.refuse(Error::new(kind_of_stop(why, Phase::Queued)));
        return now() - at;
    }
    let link = &conn.link;
    let waited = at.saturating_duration_since(call.meta().submitted);
    // Noted even without statistics: when the WAL reaches its maximum, the reads that pin it must be found.
    link.callbacks.slot.begin_call(call.meta().origin.clone(), at, call.interruptible());
    link.begin_call(true, false);
    let waker = call.run(core.domain, conn);
    link.end_call();
    let run = now() - at;
    if let Some(waker) = waker {
        link.callbacks.wakeups.push(waker, at + run, behind);
    }
    if link.noted {
        meter.record(waited, run);
        if slow::report(&core.config, link, waited, run) {
            return now() - at;
        }
    }
    run
}

/// Runs a read on a held snapshot, whose transaction stays open.
pub(crate) fn run_held(conn: &Snapshot, core: &Core, call: Box<dyn ReadCall>) {
    if !core.opener.file.is_in_place(now()) {
        call.refuse(Error::new(ErrorKind::Replaced));
        return;
    }
    run(conn, core, core.meters.reads(0), call, now(), 0);
    conn.link.callbacks.wakeups.wake_all();
    conn.link.callbacks.slot.end_call();
}

/// Runs a read in a transaction of its own, on the writer's connection.
pub(crate) fn run_alone(conn: &Snapshot, core: &Core, meter: &CallMeter, call: Box<dyn ReadCall>) {
    match conn.link.session.run(Sql::Begin) {
        Ok(()) => {
            conn.link.begin_own();
            run(conn, core, meter, call, now(), 0);
            conn.link.callbacks.wakeups.wake_all();
        }
        Err(error) => call.refuse(Error::of_own(error)),
    }
    conn.link.clean();
    conn.link.callbacks.slot.rest();
}
