//! The connections for held snapshots and short reads: how many are open, and that all are closed with the database.

use std::sync::{Barrier, Mutex, mpsc};

use lockkeeper::{ErrorKind, Synchronous};

use crate::support::{
    HANG, block_on, count, file_db, files_open_in, ids, insert, kind, poll_once, within,
};

/// While another connection has a lock on the file, SQLite keeps the descriptor of a closed connection for the next
/// one. In WAL mode every connection has a lock. So the number of descriptors is the largest number of connections that
/// were open at the same time.
#[test]
fn a11_clients_that_take_and_drop_snapshots_have_no_more_connections_than_allowed() {
    within(HANG, || {
        let (dir, db) = file_db(|builder| builder.readers(1).readers_max(2).snapshots_max(2));
        let rounds = count(2_000, 50_000);
        std::thread::scope(|scope| {
            for name in ["one", "other"] {
                let client = db.client(name);
                scope.spawn(move || {
                    for _ in 0..rounds {
                        drop(block_on(client.snapshot()).expect("never more than two are held"));
                    }
                });
            }
        });
        // The writer, the copier, two readers, two connections for short reads, two for snapshots.
        let allowed = 1 + 1 + 2 + 2 + 2;
        let file = dir.file("test.db").canonicalize().expect("the file");
        let open = files_open_in(dir.path()).into_iter().filter(|open| *open == file).count();
        assert!(open <= allowed, "{open} connections, {allowed} allowed");
        db.blocking_close().expect("closes");
        assert_eq!(files_open_in(dir.path()).len(), 0);
    });
}

/// thread that drops the snapshot           | thread that closes
/// ------------------------------------------+--------------------------
/// takes the connection out of the snapshot  | finds the snapshot over
/// gives the connection back                 | waits for the connection
#[test]
fn a22_a_snapshot_dropped_while_another_thread_closes_leaves_nothing_behind() {
    // The time limit is longer, because each round makes a file on a disk that may be busy.
    within(HANG * 5, || {
        for round in 0..count(150, 600) {
            let (dir, db) = file_db(|builder| builder.readers(1).synchronous(Synchronous::Off));
            let snapshot = block_on(db.snapshot()).expect("a snapshot");
            if round % 2 == 0 {
                assert_eq!(snapshot.blocking_read(|s| s.table_exists(None, "t")).ok(), Some(true));
            }
            let both = Barrier::new(2);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    both.wait();
                    drop(snapshot);
                });
                both.wait();
                db.blocking_close().expect("closes");
                let open = files_open_in(dir.path());
                let files = std::fs::read_dir(dir.path()).expect("the directory").count();
                assert!(open.is_empty() && files == 1, "round {round}: {open:?}, {files} files");
            });
        }
    });
}

/// When a snapshot is dropped, its place is free immediately, although a read still uses its connection. So the next
/// snapshot does not wait for that read.
#[test]
fn a11_a_snapshot_may_be_taken_while_a_read_outlasts_the_one_before() {
    within(HANG, || {
        let (dir, db) = file_db(|builder| builder.snapshots_max(1).readers(2).readers_max(2));
        let snapshot = block_on(db.snapshot()).expect("a snapshot");
        let (begun, has_begun) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let mut read = snapshot.read(move |_| {
            begun.send(()).expect("somebody waits");
            let _ = released.lock().expect("no panic").recv();
            Ok(())
        });
        assert!(poll_once(&mut read).is_pending());
        has_begun.recv().expect("it runs");
        drop((read, snapshot));
        let next = block_on(db.snapshot()).expect("the place is free");
        assert_eq!(kind(block_on(db.snapshot())), ErrorKind::TooManySnapshots);
        drop(release);
        drop(next);
        db.blocking_close().expect("closes");
        assert_eq!(files_open_in(dir.path()).len(), 0);
    });
}

/// If rows are forgotten, their statement stands on a row and goes back into the cache.
#[test]
fn a10_a_read_that_forgets_its_rows_does_not_keep_its_snapshot_for_the_next() {
    within(HANG, || {
        let (_dir, db) = file_db(|builder| builder.readers(1).readers_max(1));
        db.blocking_write(|tx| (1..=3).try_for_each(|id| insert(tx, id))).expect("a write");
        for id in 4..10 {
            db.blocking_read(|s| {
                let mut cached = s.prepare_cached("SELECT id FROM t")?;
                let mut rows = cached.query([])?;
                rows.next()?;
                std::mem::forget(rows);
                Ok(())
            })
            .expect("a read");
            db.blocking_write(move |tx| insert(tx, id)).expect("a write");
            assert_eq!(ids(&db), (1..=id).collect::<Vec<_>>());
        }
        db.blocking_close().expect("closes");
    });
}

#[test]
fn a29_reads_on_their_callers_thread_are_counted_as_such() {
    within(HANG, || {
        let (_dir, db) = file_db(|builder| builder.readers(1).readers_max(1));
        let mut reads: u64 = 0;
        while db.stats().short_reads < 20 {
            block_on(db.read(|s| s.table_exists(None, "t")).short()).expect("a read");
            reads += 1;
        }
        // The reader thread counts a read right after it has answered the read.
        while db.stats().reads.run.count() + db.stats().short_reads < reads {
            std::thread::yield_now();
        }
        let stats = db.stats();
        assert_eq!((stats.short_reads, stats.reads.run.count()), (20, reads - 20));
        db.blocking_close().expect("closes");
    });
}

/// Connections are closed by errands, which take no place in a client's lane and are not behind calls that wait for
/// room.
#[test]
fn a13_snapshots_that_are_dropped_take_no_room_from_reads() {
    within(HANG, || {
        let (dir, db) =
            file_db(|builder| builder.queue_capacity(2).readers(1).readers_max(1).snapshots_max(8));
        let held: Vec<_> = (0..8).map(|_| block_on(db.snapshot()).expect("a snapshot")).collect();
        let (begun, has_begun) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let mut holds = db.read_once(move |_| {
            begun.send(()).expect("somebody waits");
            let _ = released.recv();
            Ok(())
        });
        assert!(poll_once(&mut holds).is_pending());
        has_begun.recv().expect("it runs");
        drop(held);
        let mut reads: Vec<_> = (0..50).map(|_| db.read(|_| Ok(()))).collect();
        reads.iter_mut().for_each(|read| assert!(poll_once(read).is_pending()));
        let waiting =
            || db.stats().clients.iter().map(|client| client.reads.waiting).sum::<usize>();
        assert_eq!(waiting(), 50);
        drop(release);
        block_on(holds).expect("the first read");
        reads.into_iter().for_each(|read| block_on(read).expect("a read"));
        db.blocking_close().expect("closes");
        assert_eq!(files_open_in(dir.path()).len(), 0);
    });
}
