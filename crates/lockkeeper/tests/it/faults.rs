//! Disks that fail, fill up or lose their power, at every operation of a batch.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use lockkeeper::{Database, ErrorKind, Transaction};
use rusqlite::{Connection, ffi};

use crate::support::fault_vfs::{self, Fault, Plan};
use crate::support::{Dir, HANG, block_on, count, long, poll_once, within};

const SCHEMA: &str = "CREATE TABLE part (
        call INTEGER NOT NULL, n INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (call, n)
    ) STRICT";

/// The rows of each call, which two statements insert.
const PARTS: i64 = 4;
const BATCH: i64 = 20;
/// The call with this number fails by itself after it has written.
const FAILS: i64 = 7;
/// The call with this number only reads. It returns the numbers of the calls whose rows it sees.
const READS: i64 = 13;

fn write_parts(tx: &Transaction, call: i64) -> rusqlite::Result<Vec<i64>> {
    let sql = "INSERT INTO part (call, n, body) VALUES (?1, ?2, zeroblob(1500)), (?1, ?3, x'')";
    tx.execute(sql, [call, 0, 1])?;
    if call % 100 == FAILS {
        tx.execute(sql, [call, 0, 1])?;
    }
    tx.execute(sql, [call, 2, 3])?;
    Ok(Vec::new())
}

fn calls_seen(tx: &lockkeeper::Snapshot) -> rusqlite::Result<Vec<i64>> {
    let mut statement = tx.prepare_cached("SELECT DISTINCT call FROM part ORDER BY call")?;
    statement.query_map([], |row| row.get(0))?.collect()
}

type Answer = Result<Vec<i64>, ErrorKind>;

/// Runs 20 calls in one batch, numbered from `first`. Returns the answers.
fn run_batch(db: &Database, first: i64, before_release: impl FnOnce()) -> Vec<Answer> {
    let (begun, has_begun) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let mut gate = db.write_once(move |_| {
        let _ = begun.send(());
        let _ = released.recv_timeout(HANG);
        Ok(())
    });
    assert!(poll_once(&mut gate).is_pending());
    has_begun.recv_timeout(HANG).expect("the gate begins");
    enum Flying<A, B> {
        Many(A),
        Once(B),
    }
    let mut flying: Vec<_> = (first..first + BATCH)
        .map(|call| {
            let run = move |tx: &Transaction| match call % 100 {
                READS => calls_seen(tx),
                _ => write_parts(tx, call),
            };
            match call % 3 {
                0 => Flying::Once(db.write_once(run)),
                _ => Flying::Many(db.write(run)),
            }
        })
        .collect();
    for call in &mut flying {
        let pending = match call {
            Flying::Many(call) => poll_once(call).is_pending(),
            Flying::Once(call) => poll_once(call).is_pending(),
        };
        assert!(pending, "the gate is closed");
    }
    before_release();
    release.send(()).expect("the gate waits");
    let answers = flying
        .into_iter()
        .map(|call| match call {
            Flying::Many(call) => block_on(call).map_err(|error| error.kind()),
            Flying::Once(call) => block_on(call).map_err(|error| error.kind()),
        })
        .collect();
    let _ = block_on(gate);
    answers
}

/// Opens the file in `dir` as another program would. Returns the number of rows of each call.
fn stored(dir: &Path) -> BTreeMap<i64, i64> {
    let conn = Connection::open(dir.join("test.db")).expect("the file opens");
    let check: String =
        conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a check");
    assert_eq!(check, "ok");
    let mut statement =
        conn.prepare("SELECT call, count(*) FROM part GROUP BY call").expect("the table is there");
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
    rows.collect::<rusqlite::Result<_>>().expect("rows")
}

/// Checks that every answer agrees with what is stored.
fn check(first: i64, answers: &[Answer], stored: &BTreeMap<i64, i64>, what: &str) {
    let mut unknown = false;
    for (index, answer) in answers.iter().enumerate() {
        let call = first + index as i64;
        let parts = stored.get(&call).copied();
        match answer {
            Ok(seen) if call % 100 == READS => {
                let before: Vec<i64> = stored.range(..call).map(|(&call, _)| call).collect();
                if !unknown {
                    assert_eq!(seen, &before, "{what}: call {call} saw what is not stored");
                }
            }
            Ok(_) => assert_eq!(parts, Some(PARTS), "{what}: call {call} was acked"),
            Err(ErrorKind::Unknown) => {
                unknown = true;
                let whole = parts.is_none() || parts == Some(PARTS);
                assert!(whole, "{what}: call {call} is stored in part");
            }
            Err(kind) => assert_eq!(parts, None, "{what}: call {call} was told {kind:?}"),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Mode {
    code: i32,
    goes_on: bool,
    torn: bool,
}

const MODES: [Mode; 6] = [
    Mode { code: ffi::SQLITE_IOERR, goes_on: false, torn: false },
    Mode { code: ffi::SQLITE_IOERR, goes_on: false, torn: true },
    Mode { code: ffi::SQLITE_IOERR, goes_on: true, torn: false },
    Mode { code: ffi::SQLITE_FULL, goes_on: false, torn: false },
    Mode { code: ffi::SQLITE_FULL, goes_on: false, torn: true },
    Mode { code: ffi::SQLITE_FULL, goes_on: true, torn: false },
];

/// Runs one batch whose `nth` disk operation fails. `false`: the batch has fewer operations.
fn one_fault(mode: Mode, nth: u64, told: &mut BTreeMap<String, usize>) -> bool {
    let dir = Dir::new();
    let plan = Plan::of(dir.path());
    let db = Database::builder(dir.file("test.db"))
        .vfs(fault_vfs::NAME)
        .readers(1)
        // The cache is so small that SQLite writes pages to the WAL before the COMMIT, too.
        .page_cache_bytes(16 << 10)
        .checkpoint_wal_bytes(64 << 10)
        .batch_max(1024, Duration::from_secs(60), u64::MAX)
        .busy_timeout(Duration::from_secs(20))
        .blocking_open()
        .expect("the database opens");
    db.blocking_write(|tx| tx.execute_batch(SCHEMA)).expect("the table is made");
    let what = |when| format!("{mode:?}, operation {nth}, {when}");

    let Mode { code, goes_on, torn } = mode;
    let fault = Fault { nth, goes_on, torn, code };
    let answers = run_batch(&db, 100, || plan.arm(Some(fault)));
    let reached = plan.disarm() >= nth;
    for answer in &answers {
        let kind = match answer {
            Ok(_) => String::from("Ok"),
            Err(kind) => format!("{kind:?}"),
        };
        *told.entry(kind).or_default() += 1;
    }
    // Compares the answers with what a kill at this moment would leave.
    let killed = Dir::new();
    plan.restore_after_kill(killed.path());
    check(100, &answers, &stored(killed.path()), &what("after a kill"));

    // The disk works again, so the database must work again.
    let later = run_batch(&db, 200, || ());
    for (index, answer) in later.iter().enumerate() {
        match index as i64 {
            FAILS => assert!(answer.is_err()),
            _ => assert!(answer.is_ok(), "{}: {answer:?}", what("afterwards")),
        }
    }
    db.blocking_close().expect("the database closes");
    let stored = stored(dir.path());
    check(100, &answers, &stored, &what("after closing"));
    check(200, &later, &stored, &what("after closing"));
    reached
}

#[test]
fn a07_whichever_disk_operation_of_a_batch_fails_every_answer_is_true() {
    within(HANG * 4, || {
        let mut told = BTreeMap::new();
        let mut programs = 0;
        for mode in MODES {
            let mut nth = 1;
            while one_fault(mode, nth, &mut told) {
                programs += 1;
                nth += 1;
            }
            assert!(nth > 20, "the batch has only {nth} disk operations");
        }
        println!("{programs} batches of {BATCH} calls with a failing operation; told: {told:?}");
        for kind in ["Ok", "Unknown", "NotApplied", "DiskFull"] {
            assert!(told.contains_key(kind), "nobody was told {kind}: {told:?}");
        }
    });
}

/// Checks after a fault that a kill would leave the answered writes, that the writes `later` succeed, and that after a
/// close everything is stored.
fn check_afterwards(
    (mode, nth): (Mode, u64),
    dir: &Dir,
    plan: &Plan,
    db: &Database,
    answers: &[Answer],
    later: impl Iterator<Item = Answer>,
) {
    let what = |when| format!("{mode:?}, operation {nth}, {when}");
    let killed = Dir::new();
    plan.restore_after_kill(killed.path());
    check(0, answers, &stored(killed.path()), &what("after a kill"));
    let later: Vec<_> = later.collect();
    assert!(later.iter().all(Result::is_ok), "{}: {later:?}", what("afterwards"));
    db.blocking_close().expect("the database closes");
    let stored = stored(dir.path());
    check(0, answers, &stored, &what("after closing"));
    check(200, &later, &stored, &what("after closing"));
}

/// Makes four writes, each followed by a checkpoint, while the `nth` disk operation fails. `false`: there are fewer
/// operations.
fn one_checkpoint_fault(mode: Mode, nth: u64) -> bool {
    let dir = Dir::new();
    let plan = Plan::of(dir.path());
    let db = Database::builder(dir.file("test.db"))
        .vfs(fault_vfs::NAME)
        .readers(1)
        .checkpoint_wal_bytes(1)
        .blocking_open()
        .expect("the database opens");
    db.blocking_write(|tx| tx.execute_batch(SCHEMA)).expect("the table is made");
    // This write begins after the checkpoint that follows the write before.
    db.blocking_write(|_| Ok(())).expect("the writer goes on");
    let Mode { code, goes_on, torn } = mode;
    plan.arm(Some(Fault { nth, goes_on, torn, code }));
    let write = |call| {
        let answer = db.blocking_write(move |tx| write_parts(tx, call));
        answer.map_err(|error| error.kind())
    };
    let answers: Vec<_> = (0..4).map(write).collect();
    let _ = db.blocking_write(|_| Ok(()));
    let reached = plan.disarm() >= nth;
    check_afterwards((mode, nth), &dir, &plan, &db, &answers, (200..204).map(write));
    reached
}

#[test]
fn a07_a_checkpoint_that_fails_at_any_operation_loses_nothing() {
    within(HANG * 4, || {
        let mut programs = 0;
        for mode in MODES {
            let mut nth = 1;
            while one_checkpoint_fault(mode, nth) {
                programs += 1;
                nth += 1;
            }
            assert!(nth > 8, "four writes and checkpoints have only {nth} disk operations");
        }
        println!("{programs} sequences of writes and checkpoints with a failing operation");
    });
}

/// Writes so much that the copier copies the WAL beside the writer, while the `nth` disk operation fails. `false`:
/// there are fewer operations.
fn one_copy_fault(mode: Mode, nth: u64) -> bool {
    let dir = Dir::new();
    let plan = Plan::of(dir.path());
    let db = Database::builder(dir.file("test.db"))
        .vfs(fault_vfs::NAME)
        .readers(1)
        .checkpoint_wal_bytes(64 << 10)
        .blocking_open()
        .expect("the database opens");
    db.blocking_write(|tx| tx.execute_batch(SCHEMA)).expect("the table is made");
    // An exclusive call waits until no copy is under way.
    let settle = || db.blocking_exclusive(|_| Ok(()));
    let write = |call: i64| {
        let answer = db.blocking_write(move |tx| {
            let sql = "INSERT INTO part (call, n, body) VALUES (?1, ?2, zeroblob(80000))";
            (0..PARTS).try_for_each(|n| tx.execute(sql, [call, n]).map(drop)).map(|()| Vec::new())
        });
        answer.map_err(|error| error.kind())
    };
    let Mode { code, goes_on, torn } = mode;
    plan.arm(Some(Fault { nth, goes_on, torn, code }));
    let answers: Vec<_> = (0..2)
        .map(|call| {
            let answer = write(call);
            let _ = settle();
            answer
        })
        .collect();
    let reached = plan.disarm() >= nth;
    assert!(reached || db.stats().checkpoint_copy.count() > 0, "nothing was copied");
    check_afterwards((mode, nth), &dir, &plan, &db, &answers, (200..202).map(write));
    reached
}

#[test]
fn a07_a_copy_beside_the_writer_that_fails_at_any_operation_loses_nothing() {
    let step = if long() { 1 } else { 17 };
    within(HANG * 8, move || {
        let mut programs = 0;
        for (mode, first) in MODES.into_iter().zip(1..) {
            let mut nth = first;
            while one_copy_fault(mode, nth) {
                programs += 1;
                nth += step;
            }
            assert!(nth > 400, "two writes and their copies have only {nth} disk operations");
        }
        println!("{programs} sequences of writes and copies with a failing operation");
    });
}

/// Several clients write until the power fails at the `nth` disk operation. Adds the number of copies beside the writer
/// to `copies`.
fn one_power_failure(nth: u64, seed: u64, copies: &mut u64) -> usize {
    let dir = Dir::new();
    let plan = Plan::of(dir.path());
    let db = Database::builder(dir.file("test.db"))
        .vfs(fault_vfs::NAME)
        .readers(1)
        .page_cache_bytes(32 << 10)
        // With the larger size, the copier copies the WAL back beside the writer.
        .checkpoint_wal_bytes(if seed.is_multiple_of(2) { 64 << 10 } else { 300 << 10 })
        .blocking_open()
        .expect("the database opens");
    db.blocking_write(|tx| tx.execute_batch(SCHEMA)).expect("the table is made");
    plan.cut_power_at(nth, seed);
    let acked: Vec<i64> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4_i64)
            .map(|client| {
                let (db, plan) = (&db, &plan);
                scope.spawn(move || {
                    let mut acked = Vec::new();
                    // The numbers end in 00, so that no call is one that fails or only reads.
                    let mut call = client * 1_000_000;
                    while !plan.is_cut() {
                        call += 100;
                        db.blocking_write(move |tx| write_parts(tx, call)).expect("it is stored");
                        if !plan.is_cut() {
                            acked.push(call);
                        }
                    }
                    acked
                })
            })
            .collect();
        clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
    });
    *copies += db.stats().checkpoint_copy.count();
    db.blocking_close().expect("the database closes");
    let left = Dir::new();
    plan.restore_after_power_failure(left.path());
    let stored = stored(left.path());
    for &call in &acked {
        assert_eq!(stored.get(&call), Some(&PARTS), "cut at {nth}, seed {seed}: {call} was acked");
    }
    for (call, &parts) in &stored {
        assert_eq!(parts, PARTS, "cut at {nth}, seed {seed}: {call} is stored in part");
    }
    acked.len()
}

#[test]
fn a05_acked_writes_survive_a_power_failure_at_any_disk_operation() {
    within(HANG * 4, || {
        let cuts = count(150, 1_500) as u64;
        let (mut acked, mut copies) = (0, 0);
        for cut in 0..cuts {
            acked += one_power_failure(1 + cut * 7 % 1_500, cut, &mut copies);
        }
        println!("{cuts} power failures, {copies} copies, {acked} acked writes, none lost");
        assert!(acked > 0 && copies > 0, "{acked} acked, {copies} copies");
    });
}

#[test]
fn a06_a_full_disk_fails_the_call_that_needs_room_and_no_other() {
    within(HANG, || {
        let dir = Dir::new();
        let db = Database::builder(dir.file("test.db"))
            .readers(1)
            .batch_max(1024, Duration::from_secs(60), u64::MAX)
            .setup(|conn| conn.query_row("PRAGMA max_page_count = 64", [], |_| Ok(())))
            .blocking_open()
            .expect("the database opens");
        db.blocking_write(|tx| tx.execute_batch(SCHEMA)).expect("the table is made");
        let held = crate::support::HeldWriter::hold(&db);
        let insert = |call: i64, bytes: i64| {
            let mut write = db.write(move |tx| {
                tx.execute(
                    "INSERT INTO part (call, n, body) VALUES (?1, 0, zeroblob(?2))",
                    [call, bytes],
                )
            });
            assert!(poll_once(&mut write).is_pending());
            write
        };
        // small, too large, small, too large, small
        let calls: Vec<_> = (0..5).map(|n| insert(n, [100, 1 << 20][n as usize % 2])).collect();
        held.release();
        let kinds: Vec<_> =
            calls.into_iter().map(|call| block_on(call).map_err(|error| error.kind())).collect();
        let full = Err(ErrorKind::DiskFull);
        assert_eq!(kinds, [Ok(1), full, Ok(1), full, Ok(1)]);
        db.blocking_close().expect("the database closes");
        assert_eq!(stored(dir.path()).into_keys().collect::<Vec<_>>(), [0, 2, 4]);
    });
}

/// The first page of a new file is written when the database is opened.
#[test]
fn a06_a_disk_that_is_full_when_a_file_is_made_is_told_as_that() {
    within(HANG, || {
        let dir = Dir::new();
        let plan = Plan::of(dir.path());
        let open = || Database::builder(dir.file("test.db")).vfs(fault_vfs::NAME).blocking_open();
        plan.arm(Some(Fault { nth: 1, goes_on: true, torn: false, code: ffi::SQLITE_FULL }));
        let error = open().expect_err("there is no room");
        plan.disarm();
        assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
        assert!(error.to_string().contains("test.db"), "{error}");
        let db = open().expect("there is room again");
        db.blocking_write(|tx| tx.execute_batch(SCHEMA)).expect("a table");
        db.blocking_close().expect("closes");
    });
}
