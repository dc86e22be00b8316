//! The properties of the public types (A59): which can be sent, shared, compared, kept in a struct, or used after a
//! panic.

use std::future::Future;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::Duration;

use futures_lite::future::block_on;
use lockkeeper::closure::Many;
use lockkeeper::{
    AcquireLease, AcquireSnapshot, Backup, BackupProgress, BackupReport, Builder, CallChanges,
    CallStats, Change, Changes, Client, ClientStats, Close, Closed, Commit, Database, Distribution,
    Error, ErrorKind, Exclusive, HeldSnapshot, Holder, HolderKind, LaneStats, Lease, LeaseCall,
    Live, Migrations, NetworkFiles, Open, Phase, Priority, Read, Refused, RefusedReason, Restore,
    RowChange, RowKind, Slow, Stats, SubmittedRead, SubmittedWrite, Synchronous, TableChange,
    Transaction, Watch, Work, Write, WriteAndSnapshot, queue, rusqlite,
};

use crate::support::on_each_place;

type Body = Many<fn(&Transaction) -> rusqlite::Result<()>>;
type OnConnection = fn(&mut rusqlite::Connection) -> rusqlite::Result<()>;
type OwnError = std::cell::Cell<u8>;

fn sent<T: Send>() {}
fn shared<T: Send + Sync>() {}
fn handle<T: Clone + Send + Sync + UnwindSafe + RefUnwindSafe + std::fmt::Debug>() {}
fn value<T: Clone + PartialEq + Send + Sync + UnwindSafe + RefUnwindSafe + std::fmt::Debug>() {}
fn future<T: Future + Send + Unpin + std::fmt::Debug>() {}
fn kept<T: Send + Sync + UnwindSafe + RefUnwindSafe>() {}

#[test]
fn a59_what_is_public_can_be_sent_shared_compared_and_used_after_a_panic() {
    // Handles have the same properties whatever the error type of their closures is.
    handle::<Database>();
    handle::<Client>();
    handle::<Client<OwnError>>();
    handle::<HeldSnapshot>();
    handle::<Builder>();
    handle::<Migrations>();
    shared::<Lease>();
    shared::<Error>();
    // These futures hold neither a result nor an error of the closure, so its types do not matter.
    kept::<AcquireLease<OwnError>>();
    kept::<AcquireSnapshot<OwnError>>();
    kept::<Exclusive<OnConnection, OwnError, OwnError>>();
    shared::<Write<Body, OwnError, rusqlite::Error>>();
    shared::<SubmittedWrite<OwnError>>();
    sent::<Error<OwnError>>();
    for_each_value();
    future::<Open>();
    future::<Close>();
    future::<queue::Close>();
    future::<Write<Body, (), rusqlite::Error>>();
    future::<WriteAndSnapshot<Body, (), rusqlite::Error>>();
    future::<Read<Many<fn(&lockkeeper::Snapshot) -> rusqlite::Result<()>>, (), rusqlite::Error>>();
    future::<SubmittedWrite<(), OwnError>>();
    future::<SubmittedRead<(), OwnError>>();
    future::<Exclusive<OnConnection, (), rusqlite::Error>>();
    future::<AcquireLease<OwnError>>();
    future::<AcquireSnapshot<OwnError>>();
    future::<LeaseCall<'static, (), OwnError>>();
    sent::<Backup<rusqlite::Error>>();
    sent::<Restore>();
    sent::<Live<(), OwnError>>();
    shared::<Changes>();
    shared::<Watch>();
}

fn for_each_value() {
    value::<BackupProgress>();
    value::<BackupReport>();
    value::<CallChanges>();
    value::<CallStats>();
    value::<Change>();
    value::<ClientStats>();
    value::<Closed>();
    value::<Commit>();
    value::<Distribution>();
    value::<ErrorKind>();
    value::<Holder>();
    value::<HolderKind>();
    value::<LaneStats>();
    value::<NetworkFiles>();
    value::<Phase>();
    value::<Priority>();
    value::<Refused<u8>>();
    value::<RefusedReason>();
    value::<RowChange>();
    value::<RowKind>();
    value::<Slow>();
    value::<Stats>();
    value::<Synchronous>();
    value::<TableChange>();
    value::<Work>();
    value::<queue::CallError>();
    value::<queue::Interrupt>();
    value::<queue::Verdict>();
}

#[test]
fn a59_calls_that_were_submitted_stand_in_a_struct_and_keep_their_order() {
    struct Pending {
        writes: Vec<SubmittedWrite<i64>>,
        read: Option<SubmittedRead<i64>>,
    }

    let insert = "INSERT INTO t VALUES (?1, (SELECT count(*) FROM t)) RETURNING v";
    let count = "SELECT count(*) FROM t";
    on_each_place(|db, _| {
        let writes = (0..20)
            .map(|id| db.write(move |tx| tx.query_row(insert, [id], |row| row.get(0))).submit());
        let mut pending = Pending { writes: writes.collect(), read: None };
        // The last write was submitted last, so it found the rows of all others.
        let last = pending.writes.pop().expect("twenty of them");
        assert_eq!(block_on(last).expect("a write"), 19);
        // The writes between the first and the last are never awaited. They are stored all the same.
        let first = pending.writes.swap_remove(0);
        assert_eq!(block_on(first).expect("a write"), 0);
        pending.read = Some(db.read(move |s| s.query_row(count, [], |row| row.get(0))).submit());
        assert_eq!(block_on(pending.read.take().expect("submitted")).expect("a read"), 20);
        drop(pending);
        // Inside a write, a read runs immediately.
        let inside = db.blocking_write(|_| {
            Ok(block_on(
                db.read(move |s| s.query_row(count, [], |row| row.get::<_, i64>(0))).submit(),
            ))
        });
        assert_eq!(inside.expect("a write").expect("a read"), 20);
        let nested = db.blocking_write(|_| Ok(block_on(db.write(|_| Ok(())).submit())));
        assert_eq!(nested.expect("a write").expect_err("nested").kind(), ErrorKind::Nested);
        let late = db.write(|_| Ok(())).deadline(Duration::ZERO).submit();
        assert!(matches!(
            block_on(late).map_err(|e| e.kind()),
            Ok(()) | Err(ErrorKind::Timeout(_))
        ));
    });
}
