//! Backups beside writes, and what is restored from them.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use lockkeeper::{Database, ErrorKind, Restore, blocking_restore};
use rusqlite::Connection;

use crate::support::{
    Dir, HANG, PLACES, block_on, file_db, ids, insert, kind, on_each_place, poll_once, within,
};

/// Fills the table `blob` with `mib` MiB.
fn fill(db: &Database, mib: usize) {
    db.blocking_write(|tx| tx.execute_batch("CREATE TABLE IF NOT EXISTS blob (data BLOB)"))
        .expect("a table");
    for _ in 0..mib {
        db.blocking_write(|tx| {
            let sql = "INSERT INTO blob SELECT randomblob(4000)
                       FROM (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 256)
                             SELECT i FROM n)";
            tx.execute(sql, []).map(drop)
        })
        .expect("rows");
    }
}

/// Opens the copy as another program would. The copy must be whole and hold the first ids without a gap. Returns how
/// many.
fn check_copy(path: &Path) -> i64 {
    let conn = Connection::open(path).expect("opens");
    let whole: String =
        conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a check");
    assert_eq!(whole, "ok");
    let sql = "SELECT count(*), coalesce(max(id), 0) FROM t";
    let (count, max): (i64, i64) =
        conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).expect("a row");
    assert_eq!(count, max, "not the state of one commit");
    count
}

/// The files in a directory other than the database and its WAL.
fn others(dir: &Dir) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir.path())
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with("test.db"))
        .collect();
    names.sort();
    names
}

#[test]
fn b01_a_backup_ends_under_steady_writes_and_is_one_state() {
    within(HANG, || {
        let (dir, db) = file_db(|builder| builder.checkpoint_wal_bytes(1 << 20));
        fill(&db, 13);
        let copy = dir.file("copy.db");
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (wrote, has_written) = mpsc::sync_channel(1);
            let (writer, over) = (&db, &over);
            scope.spawn(move || {
                let mut id = 0;
                while !over.load(Ordering::Relaxed) {
                    id += 1;
                    writer.blocking_write(move |tx| insert(tx, id)).expect("a write");
                    let _ = wrote.try_send(());
                }
            });
            let mut before = 0;
            for _ in 0..3 {
                has_written.recv().expect("the writer writes");
                let (tell, told) = mpsc::channel();
                let report = db.backup(&copy).progress(move |progress| {
                    let _ = tell.send(progress);
                });
                let report = report.blocking_run().expect("a backup");
                let progress: Vec<_> = told.iter().collect();
                assert!(progress.is_sorted_by_key(|step| step.pages), "{progress:?}");
                assert!(progress.len() > 3 && progress.iter().all(|step| step.pages <= step.of));
                let last = progress.last().expect("some progress");
                assert_eq!(last.pages, last.of);
                assert_eq!(report.bytes, std::fs::metadata(&copy).expect("a file").len());
                // The second and the third copy replaced an older one.
                let rows = check_copy(&copy);
                assert!(rows > before, "{rows} rows after {before}: nothing was written meanwhile");
                before = rows;
            }
            over.store(true, Ordering::Relaxed);
        });
        assert_eq!(others(&dir), ["copy.db"]);
        db.blocking_close().expect("closes");
    });
}

#[test]
fn b01_a_backup_that_is_dropped_or_fails_leaves_the_old_one() {
    within(HANG, || {
        let (dir, db) = file_db(|builder| builder.checkpoint_wal_bytes(1 << 20));
        fill(&db, 8);
        let copy = dir.file("copy.db");
        db.backup(&copy).blocking_run().expect("a backup");
        let before = std::fs::read(&copy).expect("bytes");
        db.blocking_write(|tx| insert(tx, 1)).expect("a write");
        // The backup is dropped while it copies.
        let (begun, has_begun) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let mut backup = db
            .backup(&copy)
            .progress(move |_| {
                let _ = begun.send(());
                let _ = released.recv();
            })
            .into_future();
        assert!(poll_once(&mut backup).is_pending());
        has_begun.recv().expect("it copies");
        drop(backup);
        drop(release);
        // Targets that are refused: in a directory that does not exist, a directory, an open database, the root.
        let (nowhere, itself) = (dir.file("no/such.db"), dir.file("test.db"));
        for path in [nowhere.as_path(), dir.path(), &itself, Path::new("/")] {
            assert_eq!(kind(db.backup(path).blocking_run()), ErrorKind::Backup, "{path:?}");
        }
        // This target is in use by another program.
        let other = Connection::open(dir.file("used.db")).expect("opens");
        other.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE x (y)").expect("a table");
        assert_eq!(kind(db.backup(dir.file("used.db")).blocking_run()), ErrorKind::Backup);
        drop(other);
        // The close waits for the reader thread whose backup was dropped.
        db.blocking_close().expect("closes");
        assert!(std::fs::read(&copy).expect("bytes") == before, "the old backup was touched");
        assert_eq!(others(&dir), ["copy.db", "used.db"]);
    });
}

#[test]
fn b01_a_restored_file_is_the_state_of_the_backup() {
    within(HANG, || {
        on_each_place(|db, place| {
            let dir = Dir::new();
            let (copy, restored) = (dir.file("copy.db"), dir.file("restored.db"));
            for id in 1..=50 {
                db.blocking_write(move |tx| insert(tx, id)).expect("a write");
            }
            block_on(db.backup(&copy).into_future()).expect("a backup");
            db.blocking_write(|tx| tx.execute("DELETE FROM t", [])).expect("a write");
            blocking_restore(&copy, &restored).expect("restored");
            let again = Database::blocking_open(&restored).expect("opens");
            assert_eq!(ids(&again), (1..=50).collect::<Vec<_>>(), "{place:?}");
            // A restore does not replace a database that is open.
            assert_eq!(kind(blocking_restore(&copy, &restored)), ErrorKind::Backup);
            again.blocking_write(|tx| tx.execute("DELETE FROM t", [])).expect("a write");
            again.blocking_close().expect("closes");
            blocking_restore(&copy, &restored).expect("restored over it");
            assert_eq!(check_copy(&restored), 50);
        });
        assert_eq!(PLACES.len(), 2);
    });
}

#[test]
fn b01_a_damaged_backup_is_refused() {
    within(HANG, || {
        let (dir, db) = file_db(|builder| builder);
        fill(&db, 1);
        db.blocking_write(|tx| {
            tx.execute_batch("CREATE INDEX blob_data ON blob (data)")?;
            insert(tx, 1)
        })
        .expect("a write");
        let copy = dir.file("copy.db");
        db.backup(&copy).blocking_run().expect("a backup");
        db.blocking_close().expect("closes");
        let target = dir.file("test.db");
        let before = std::fs::read(&target).expect("bytes");
        let whole = std::fs::read(&copy).expect("bytes");
        type Harm = fn(&mut Vec<u8>);
        let damage: [(&str, Harm); 4] = [
            ("a page in the middle", |bytes| {
                let middle = bytes.len() / 2 / 4096 * 4096;
                bytes[middle..middle + 4096].fill(0x55);
            }),
            ("cut off", |bytes| bytes.truncate(bytes.len() / 2)),
            ("no database", |bytes| bytes[..16].fill(b'x')),
            ("the root of a table", |bytes| bytes[4096..4096 + 64].fill(0xff)),
        ];
        for (name, harm) in damage {
            let mut bytes = whole.clone();
            harm(&mut bytes);
            let bad = dir.file("bad.db");
            std::fs::write(&bad, &bytes).expect("a file");
            let error = blocking_restore(&bad, &target).expect_err(name);
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error}");
            assert!(std::fs::read(&target).expect("bytes") == before, "{name}: the target changed");
        }
        assert_eq!(kind(blocking_restore(dir.file("none.db"), &target)), ErrorKind::Backup);
        assert_eq!(others(&dir), ["bad.db", "copy.db"]);
        blocking_restore(&copy, &target).expect("the whole one");
        assert_eq!(check_copy(&target), 1);
    });
}

#[test]
fn b01_a_restore_that_is_stopped_leaves_what_was_there() {
    within(HANG, || {
        let (dir, db) = file_db(|builder| builder.checkpoint_wal_bytes(1 << 20));
        fill(&db, 8);
        let (copy, target) = (dir.file("copy.db"), dir.file("test.db"));
        db.backup(&copy).blocking_run().expect("a backup");
        db.blocking_close().expect("closes");
        let before = std::fs::read(&target).expect("bytes");
        // First the restore is stopped while it copies pages, then while it checks the copy.
        for at_the_end in [false, true] {
            let stop = Arc::new(AtomicBool::new(false));
            let raise = Arc::clone(&stop);
            let mut steps = 0;
            let restore = Restore::new(&copy, &target).progress(move |progress| {
                steps += 1;
                raise.store(!at_the_end || progress.pages == progress.of, Ordering::Relaxed);
                assert!(at_the_end || steps == 1, "it goes on");
            });
            let error = restore.stop_when(stop).blocking_run().expect_err("it was stopped");
            assert_eq!(error.kind(), ErrorKind::Backup);
            assert!(error.to_string().contains("stopped"), "{error}");
            assert!(std::fs::read(&target).expect("bytes") == before);
            assert_eq!(others(&dir), ["copy.db"]);
        }
        Restore::new(&copy, &target).blocking_run().expect("nobody stops it");
    });
}

#[test]
fn b01_copying_from_a_file_leaves_nothing_beside_it_and_refuses_what_is_no_database() {
    within(HANG, || {
        let (dir, db) = file_db(|builder| builder);
        db.blocking_write(|tx| insert(tx, 1)).expect("a write");
        db.blocking_close().expect("closes");
        // A file in WAL mode that no connection has open.
        let (file, copy) = (dir.file("test.db"), dir.file("copy.db"));
        blocking_restore(&file, &copy).expect("a copy");
        let beside = ["-wal", "-shm"].map(|end| dir.file(&format!("test.db{end}")).exists());
        assert_eq!(beside, [false, false]);
        // If the first copy had left a WAL, the file would seem to be in use, and this restore would be refused.
        blocking_restore(&copy, &file).expect("and back");
        let before = std::fs::read(&file).expect("bytes");
        std::fs::write(dir.file("empty.db"), []).expect("a file");
        std::fs::create_dir(dir.file("dir")).expect("a directory");
        std::os::unix::fs::symlink(&file, dir.file("link.db")).expect("a link");
        for (from, why, expected) in [
            ("empty.db", "empty", ErrorKind::Corrupt),
            ("dir", "not a directory", ErrorKind::Backup),
            ("link.db", "its own place", ErrorKind::Backup),
            ("none.db", "No such file", ErrorKind::Backup),
        ] {
            let error = blocking_restore(dir.file(from), &file).expect_err(from);
            assert_eq!(error.kind(), expected, "{error}");
            let text = error.to_string();
            assert!(text.contains(why) && text.contains(from), "{text}");
            assert!(std::fs::read(&file).expect("bytes") == before, "{from}");
        }
        let nowhere = blocking_restore(&copy, dir.file("no/such.db")).expect_err("no directory");
        assert!(nowhere.to_string().contains("there is no such directory"), "{nowhere}");
    });
}
