//! The size of the WAL is bounded, and the reader that pins the WAL is named.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use lockkeeper::{Database, ErrorKind, HolderKind};

use crate::overlap::overlapping;
use crate::support::{HANG, block_on, file_db, insert, long, within};

#[test]
fn a24_no_connection_checkpoints_inside_a_commit() {
    within(HANG, || {
        let (_dir, db) = file_db(|builder| builder);
        let pragma = "wal_autocheckpoint";
        let get = move |s: &lockkeeper::Snapshot| {
            s.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0))
        };
        assert_eq!(db.blocking_write(move |tx| get(tx)).expect("the writer"), 0);
        assert_eq!(db.blocking_read(get).expect("a reader"), 0);
        let snapshot = block_on(db.snapshot()).expect("a snapshot");
        assert_eq!(snapshot.blocking_read(get).expect("a snapshot's connection"), 0);
    });
}

/// Writes a row of `bytes` bytes. Returns when no copy is under way, because an exclusive call waits for the copy.
fn write_and_settle(db: &Database, bytes: i64) {
    db.blocking_write(move |tx| tx.execute("INSERT INTO load VALUES (zeroblob(?1))", [bytes]))
        .expect("stored");
    db.blocking_exclusive(|_| Ok(())).expect("the writer goes on");
}

#[test]
fn a24_pages_are_copied_beside_the_writer() {
    within(HANG, || {
        let (dir, db) = file_db(|builder| builder.checkpoint_wal_bytes(2 << 20));
        db.blocking_write(|tx| tx.execute_batch("CREATE TABLE load (x BLOB)")).expect("a table");
        write_and_settle(&db, 5 << 19);
        let first = db.stats();
        assert_eq!((first.checkpoint_copy.count(), first.checkpoint.count()), (1, 0), "{first:?}");
        assert_eq!(first.checkpoints_incomplete, 0);
        // The whole WAL has been copied to the file, so each later commit starts the WAL over.
        for _ in 1..5 {
            write_and_settle(&db, 5 << 19);
        }
        let stats = db.stats();
        assert_eq!(stats.checkpoint_copy.count(), 5, "{stats:?}");
        assert!(stats.wal_bytes < first.wal_bytes + (1 << 20), "{first:?} {stats:?}");
        // This write is so small that the writer copies it itself.
        write_and_settle(&db, 1 << 16);
        assert_eq!(db.stats().checkpoint_copy.count(), 5);
        // When an exclusive call runs, the copier is idle, so the call gets the checkpoint lock.
        db.blocking_write(|tx| tx.execute("INSERT INTO load VALUES (zeroblob(4000000))", []))
            .expect("stored");
        let busy = db.blocking_exclusive(|conn| {
            conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
        });
        assert_eq!(busy.expect("it runs"), 0);
        assert_eq!(db.stats().wal_bytes, 0);
        db.blocking_close().expect("closes");
        // The files are deleted, so the copier's connection either was not the last one or could delete them too.
        assert!(!dir.file("test.db-wal").exists() && !dir.file("test.db-shm").exists());
    });
}

#[test]
fn a24_a_wal_that_starts_over_is_noticed_however_many_frames_it_has() {
    within(HANG, || {
        let (_dir, db) = file_db(|builder| builder.checkpoint_wal_bytes(2 << 20));
        db.blocking_write(|tx| tx.execute_batch("CREATE TABLE load (x BLOB)")).expect("a table");
        // Each write finds everything copied, so it starts the WAL over. Compared with the write before, it has more
        // frames, as many, or fewer.
        let sizes: [i64; 6] = [9, 10, 10, 11, 10, 10];
        for (copies, size) in (1..).zip(sizes) {
            write_and_settle(&db, size << 18);
            let stats = db.stats();
            assert_eq!(stats.checkpoint_copy.count(), copies, "{size}: {stats:?}");
            assert_eq!(stats.checkpoint.count(), 0, "{size}: {stats:?}");
        }
        let wal = db.stats().wal_bytes;
        assert!(wal < 12 << 18, "it was never longer than one write: {wal}");
    });
}

#[test]
fn a24_where_nobody_can_copy_beside_the_writer_it_does_so_itself() {
    for panics in [false, true] {
        within(HANG, move || {
            let (_dir, db) = file_db(|builder| {
                builder.checkpoint_wal_bytes(1 << 20).setup(
                    move |conn| match std::thread::current().name() == Some("lockkeeper-copy") {
                        true if panics => panic!("the copier's connection is refused"),
                        true => conn.execute_batch("no SQL"),
                        false => Ok(()),
                    },
                )
            });
            db.blocking_write(|tx| tx.execute_batch("CREATE TABLE load (x BLOB)"))
                .expect("a table");
            for _ in 0..8 {
                write_and_settle(&db, 2 << 20);
            }
            let stats = db.stats();
            assert_eq!(stats.checkpoint_copy.count(), 0);
            assert!(stats.checkpoint.count() >= 7, "{stats:?}");
            assert!(stats.wal_bytes < 6 << 20, "{stats:?}");
            db.blocking_close().expect("closes");
        });
    }
}

/// The size of the `-wal` file in bytes.
fn wal(db: &Database) -> u64 {
    db.stats().wal_bytes
}

#[test]
fn a25_the_wal_stays_below_its_maximum_and_one_batch_whatever_readers_do() {
    const CAP: u64 = 8 << 20;
    const BATCH: u64 = 1 << 20;
    let volume: u64 = if long() { 1 << 30 } else { 32 << 20 };
    within(HANG * 10, move || {
        let (_dir, db) = file_db(|builder| {
            builder
                .wal_bytes_max(CAP)
                .batch_max(1024, Duration::from_millis(5), BATCH)
                .snapshot_age_max(Duration::from_secs(3600))
        });
        db.blocking_write(|tx| tx.execute_batch("CREATE TABLE load (x BLOB)")).expect("a table");
        let stop = Arc::new(AtomicBool::new(false));
        let readers = overlapping(&db, "SELECT count(*) FROM t", &stop);
        let written = Arc::new(AtomicU64::new(0));
        let largest = Arc::new(AtomicU64::new(0));
        let writers: Vec<_> = (0..8)
            .map(|_| {
                let (db, written) = (db.clone(), Arc::clone(&written));
                let largest = Arc::clone(&largest);
                std::thread::spawn(move || {
                    while written.fetch_add(8 << 10, Ordering::SeqCst) < volume {
                        db.blocking_write(|tx| {
                            tx.execute("INSERT INTO load VALUES (zeroblob(8192))", [])
                        })
                        .expect("writes go on");
                        largest.fetch_max(wal(&db), Ordering::SeqCst);
                    }
                })
            })
            .collect();
        // A snapshot is always held: when one has been ended by the library, the next is taken.
        let mut cut = 0;
        while written.load(Ordering::SeqCst) < volume {
            let snapshot = block_on(db.snapshot()).expect("a snapshot");
            let count = |s: &lockkeeper::Snapshot| {
                s.query_row("SELECT count(*) FROM load", [], |row| row.get::<_, i64>(0))
            };
            let before = snapshot.blocking_read(count);
            while written.load(Ordering::SeqCst) < volume {
                match (snapshot.blocking_read(count), &before) {
                    (Ok(now), Ok(before)) => assert_eq!(now, *before, "one state until it is cut"),
                    (Ok(_), Err(error)) => panic!("it came back after {error}"),
                    (Err(error), _) => {
                        assert_eq!(error.kind(), ErrorKind::SnapshotExpired);
                        cut += 1;
                        break;
                    }
                }
                std::thread::yield_now();
            }
        }
        writers.into_iter().for_each(|writer| writer.join().expect("a writer"));
        stop.store(true, Ordering::SeqCst);
        let reads: u64 = readers.into_iter().map(|reader| reader.join().expect("a reader")).sum();
        let stats = db.stats();
        let largest = largest.load(Ordering::SeqCst);
        // A batch may exceed its ceiling by one call, and the pages of the tree are added.
        assert!(largest <= CAP + BATCH + (BATCH / 2), "{largest} bytes; {stats:?}");
        assert!(largest >= CAP / 2, "it was put to the test: {largest}");
        assert!(cut >= 2, "snapshots are cut: {cut}");
        assert!(stats.readers_cut >= cut, "and counted: {} of {cut}", stats.readers_cut);
        assert_eq!(stats.wal_over_max, 0, "nothing but these readers pinned it");
        assert!(reads > 10, "readers overlapped all the time: {reads}");
        db.blocking_close().expect("closes");
    });
}

#[test]
fn a25_a_reader_that_cannot_be_moved_is_waited_for_within_reason_and_counted() {
    within(HANG, || {
        let (dir, db) = file_db(|builder| builder.wal_bytes_max(1 << 20));
        db.blocking_write(|tx| tx.execute_batch("CREATE TABLE load (x BLOB)")).expect("a table");
        // A connection outside the library keeps an old state open.
        let other = rusqlite::Connection::open(dir.file("test.db")).expect("another program");
        other.execute_batch("BEGIN; SELECT * FROM t").expect("its snapshot");
        for _ in 0..40 {
            db.blocking_write(|tx| tx.execute("INSERT INTO load VALUES (zeroblob(65536))", []))
                .expect("writes go on");
        }
        let stats = db.stats();
        assert!(stats.wal_over_max > 0 && stats.wal_bytes > 2 << 20, "{stats:?}");
        drop(other);
        for _ in 0..8 {
            db.blocking_write(|tx| tx.execute("INSERT INTO load VALUES (zeroblob(65536))", []))
                .expect("writes go on");
        }
        assert!(db.stats().wal_bytes < 2 << 20, "it starts over once nobody pins it");
        db.blocking_close().expect("closes");
    });
}

#[test]
fn a26_a_backup_that_pins_the_wal_is_named_and_neither_cut_nor_waited_for() {
    within(HANG, || {
        const LOAD: &str = "INSERT INTO load VALUES (zeroblob(65536))";
        let (dir, db) = file_db(|builder| builder.wal_bytes_max(1 << 20));
        db.blocking_write(|tx| tx.execute_batch("CREATE TABLE load (x BLOB)")).expect("a table");
        for _ in 0..128 {
            db.blocking_write(|tx| tx.execute(LOAD, [])).expect("stored");
        }
        let over_max = db.stats().wal_over_max;
        let (begun, has_begun) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let (nightly, copy) = (db.client("nightly"), dir.file("copy.db"));
        let backup = std::thread::spawn(move || {
            let (backup, line) = (nightly.backup(copy), line!());
            let backup = backup.progress(move |progress| {
                if progress.pages < progress.of && begun.send(()).is_ok() {
                    let _ = released.recv();
                }
            });
            (backup.blocking_run(), line)
        });
        has_begun.recv_timeout(HANG).expect("it copies");
        let began = std::time::Instant::now();
        for _ in 0..64 {
            db.blocking_write(|tx| tx.execute(LOAD, [])).expect("writes go on");
        }
        let took = began.elapsed();
        let stats = db.stats();
        let pins = stats.oldest_reader.expect("the backup pins it");
        // The WAL has passed its maximum, and that is counted.
        assert!(stats.wal_bytes > 3 << 20, "{} bytes", stats.wal_bytes);
        assert!(stats.wal_over_max > over_max && stats.readers_cut == 0);
        // The size comes from `stat`, because closing a descriptor of the file would drop SQLite's locks.
        let file = dir.file("test.db");
        let file_bytes = || std::fs::metadata(&file).expect("the database").len();
        let before_its_end = file_bytes();
        drop(release);
        let (result, line) = backup.join().expect("no panic");
        // Although no write follows, the WAL is copied back now. While the backup ran, that was not possible.
        while file_bytes() < before_its_end + (4 << 20) {
            std::thread::yield_now();
        }
        let place = format!("a backup of client `nightly` made at {}:{line}:", file!());
        assert!(pins.to_string().starts_with(&place), "{place} in {pins}");
        assert_eq!(pins.kind, HolderKind::Backup);
        assert!(result.expect("it ends").bytes >= 128 << 16);
        let copy = rusqlite::Connection::open(dir.file("copy.db")).expect("a file");
        let rows = copy.query_row("SELECT count(*) FROM load", [], |row| row.get::<_, i64>(0));
        assert_eq!(rows.expect("a row"), 128, "the state when it began");
        // The writes passed the cap of 1 MiB four times. If the writer had waited for a reader each time, that would
        // have taken more than a second.
        assert!(took < Duration::from_secs(4), "64 writes took {took:?}");
        for _ in 0..2 {
            db.blocking_write(|tx| tx.execute(LOAD, [])).expect("writes go on");
        }
        assert_eq!(db.stats().oldest_reader.map(|holder| holder.kind), None);
        let before = db.stats().wal_bytes;
        for _ in 0..48 {
            db.blocking_write(|tx| tx.execute(LOAD, [])).expect("writes go on");
        }
        assert!(db.stats().wal_bytes <= before, "it starts over once the backup has ended");
        db.blocking_close().expect("closes");
    });
}

#[test]
fn a26_who_pins_the_wal_is_named_with_client_age_and_place() {
    within(HANG, || {
        let (_dir, db) = file_db(|builder| builder);
        assert!(db.stats().oldest_reader.is_none());
        let report = db.client("report");
        let (snapshot, line) = (block_on(report.snapshot()).expect("a snapshot"), line!());
        snapshot
            .blocking_read(|s| {
                s.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0))
            })
            .expect("a read");
        db.blocking_write(|tx| insert(tx, 1)).expect("stored");
        let pins = db.stats().oldest_reader.expect("the snapshot pins it");
        assert_eq!((pins.kind, pins.client.as_deref()), (HolderKind::Snapshot, Some("report")));
        assert!(pins.place.file().ends_with("wal.rs") && pins.place.line() == line, "{pins}");
        assert_eq!(pins.sql.as_deref(), Some("SELECT count(*) FROM t"));
        let later = db.stats().oldest_reader.expect("it still does");
        assert!(later.age > pins.age, "its age grows");
        // A read that begins now is younger than the snapshot, so the snapshot is named.
        let (begun, has_begun) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let reader = db.clone();
        let thread = std::thread::spawn(move || {
            block_on(reader.read_once(move |s| {
                s.query_row("SELECT 1", [], |_| Ok(()))?;
                begun.send(()).expect("somebody waits");
                let _ = released.recv();
                Ok::<_, rusqlite::Error>(())
            }))
            .expect("the read");
        });
        has_begun.recv().expect("it runs");
        assert_eq!(db.stats().oldest_reader.expect("one").kind, HolderKind::Snapshot);
        drop(snapshot);
        assert_eq!(db.stats().oldest_reader.expect("one").kind, HolderKind::Read);
        drop(release);
        thread.join().expect("it ends");
        db.blocking_close().expect("closes");
    });
}
