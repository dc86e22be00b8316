//! Blobs that calls read and write piece by piece (A56). As for statements, a blob ends with its call.

use std::io::{Read, Seek, SeekFrom, Write};
use std::time::Duration;

use lockkeeper::rusqlite::{self, ErrorCode};
use lockkeeper::{Blob, Change, Database, ErrorKind, Snapshot, Transaction};

use crate::support::{PLACES, db_at};

const SCHEMA: &str = "CREATE TABLE File (id INTEGER PRIMARY KEY, data BLOB);
    INSERT INTO File VALUES (1, zeroblob(8)), (2, x'0102030405060708')";

/// A database with two blobs and one reader, so that each read uses the connection that the last read left.
fn each(check: impl Fn(&Database)) {
    for place in PLACES {
        let (_dir, db) = db_at(place, |builder| builder.readers(1));
        db.blocking_write(|tx| tx.execute_batch(SCHEMA)).expect("a write");
        check(&db);
        db.blocking_close().expect("the database closes");
    }
}

fn writable(tx: &Transaction, id: i64) -> rusqlite::Result<Blob<'_>> {
    tx.blob_open("main", "file", "DATA", id, false)
}

fn content(db: &Database, id: i64) -> Vec<u8> {
    let sql = "SELECT data FROM file WHERE id = ?1";
    db.blocking_read(|s| s.query_row(sql, [id], |row| row.get(0))).expect("a read")
}

#[test]
fn a56_blobs_are_read_and_written_in_pieces() {
    each(|db| {
        db.blocking_write(|tx| {
            let mut blob = writable(tx, 1)?;
            assert_eq!((blob.len(), blob.size(), blob.is_empty()), (8, 8, false));
            blob.seek(SeekFrom::End(-2)).expect("inside");
            assert_eq!(blob.write(&[1, 2, 3]).expect("what fits"), 2);
            blob.write_at(&[9; 2], 1)?;
            blob.write_at(&[9; 2], 7).expect_err("it does not fit");
            blob.reopen(2)?;
            blob.write_all(&[7]).expect("a write");
            let mut rest = Vec::new();
            blob.read_to_end(&mut rest).expect("a read");
            assert_eq!(rest, [2, 3, 4, 5, 6, 7, 8]);
            blob.close()
        })
        .expect("a write");
        assert_eq!(content(db, 1), [0, 9, 9, 0, 0, 0, 1, 2]);
        assert_eq!(content(db, 2), [7, 2, 3, 4, 5, 6, 7, 8]);
        let read = |snapshot: &Snapshot| {
            let mut blob = snapshot.blob_open("main", "file", "data", 2, true)?;
            let mut bytes = [0; 4];
            assert_eq!(blob.read_at(&mut bytes, 6)?, 2);
            Ok(bytes)
        };
        assert_eq!(db.blocking_read(read).expect("a read"), [7, 8, 0, 0]);
        let refused = |id, column| {
            db.blocking_read(move |s| s.blob_open("main", "file", column, id, true).map(drop))
        };
        assert!(refused(9, "data").is_err() && refused(1, "no").is_err());
    });
}

#[test]
fn a56_a_read_writes_into_no_blob() {
    each(|db| {
        let open = |s: &Snapshot| s.blob_open("main", "file", "data", 1, false).map(drop);
        assert_eq!(db.blocking_read(open).expect_err("it writes").kind(), ErrorKind::ReadOnly);
        let nested = db.blocking_write(|_| Ok(db.blocking_read(open).map_err(|e| e.kind())));
        assert_eq!(nested.expect("a write"), Err(ErrorKind::ReadOnly));
        assert_eq!(content(db, 1), [0; 8]);
    });
}

#[test]
fn a56_a_blob_that_is_left_open_stops_no_commit_and_pins_no_snapshot() {
    each(|db| {
        for round in 1..=3_u8 {
            db.blocking_write(|tx| {
                let mut blob = writable(tx, 1)?;
                blob.write_at(&[round], 0)?;
                std::mem::forget(blob);
                std::mem::forget(tx.blob_open("main", "file", "data", 2, true)?);
                Ok(())
            })
            .expect("its COMMIT is not stopped");
            // A read that forgets a blob does not keep the snapshot for the next read: each round reads the newest
            // state.
            let forgetful = db.blocking_read(|s| {
                let mut blob = s.blob_open("main", "file", "data", 1, true)?;
                let mut first = [0];
                blob.read_at_exact(&mut first, 0)?;
                std::mem::forget(blob);
                Ok(first[0])
            });
            assert_eq!(forgetful.expect("a read"), round);
        }
        let undone = db.blocking_write(|tx| {
            let mut blob = writable(tx, 1)?;
            blob.write_at(&[99], 0)?;
            std::mem::forget(blob);
            Err::<(), _>(rusqlite::Error::InvalidQuery)
        });
        undone.expect_err("it fails");
        assert_eq!(content(db, 1)[0], 3);
        db.blocking_exclusive(|conn| conn.execute_batch("VACUUM")).expect("nothing is open");
    });
}

#[test]
fn a56_what_a_failed_call_wrote_into_a_blob_is_undone_and_its_neighbours_stay() {
    each(|db| {
        let put = |id, byte: u8, good| {
            db.write(move |tx| {
                tx.execute("UPDATE t SET v = v + 1 WHERE id = 0", [])?;
                writable(tx, id)?.write_at(&[byte], 0)?;
                if good { Ok(()) } else { Err(rusqlite::Error::InvalidQuery) }
            })
        };
        let all = futures_lite::future::zip(
            futures_lite::future::zip(put(1, 10, true), put(1, 11, false)),
            futures_lite::future::zip(put(2, 12, true), put(2, 13, false)),
        );
        let ((a, b), (c, d)) = futures_lite::future::block_on(all);
        assert!(a.is_ok() && b.is_err() && c.is_ok() && d.is_err());
        assert_eq!((content(db, 1)[0], content(db, 2)[0]), (10, 12));
    });
}

#[test]
fn a56_the_feed_and_live_queries_are_told_of_blobs() {
    each(|db| {
        let mut live = db.live_query(|s| {
            let mut blob = s.blob_open("main", "FILE", "data", 1, true)?;
            let mut first = [0];
            blob.read_at_exact(&mut first, 0).map(|()| first[0])
        });
        assert_eq!(live.blocking_next().expect("open").expect("a read"), 0);
        let mut changes = db.changes();
        db.blocking_write(|tx| writable(tx, 1)?.write_at(&[5], 0)).expect("a write");
        let Some(Change::Commit(commit)) = changes.blocking_next() else { panic!("a commit") };
        let [table] = commit.calls()[0].tables() else { panic!("one table") };
        // The table's name is spelled as when it was created, and no rows are listed, because SQLite reports none.
        assert_eq!((table.table(), table.rows().is_none()), ("File", true));
        assert_eq!(live.blocking_next().expect("open").expect("a read"), 5);
        db.blocking_write(|tx| tx.blob_open("main", "file", "data", 1, true).map(drop))
            .expect("a write");
        assert!(changes.try_next().is_none(), "nothing was written");
    });
}

#[test]
fn a56_an_open_blob_and_a_savepoint_explain_each_other() {
    each(|db| {
        db.blocking_write(|tx| {
            let mut blob = writable(tx, 1)?;
            let refused = tx.savepoint(|_| Ok::<_, rusqlite::Error>(())).expect_err("one is open");
            assert_eq!(refused.sqlite_error_code(), Some(ErrorCode::ApiMisuse), "{refused}");
            assert!(refused.to_string().contains("blob"), "{refused}");
            blob.write_at(&[1], 0)?;
            drop(blob);
            tx.savepoint(|tx| writable(tx, 1)?.write_at(&[2], 1))
        })
        .expect("the call goes on");
        assert_eq!(content(db, 1)[..3], [1, 2, 0]);
    });
}

#[test]
fn a56_a_blob_ends_with_its_transaction_and_with_its_call() {
    each(|db| {
        let lost = db.blocking_write(|tx| {
            let mut blob = writable(tx, 1)?;
            tx.execute("INSERT OR ROLLBACK INTO file VALUES (1, NULL)", [])
                .expect_err("it is there");
            blob.write_at(&[1], 0).expect_err("its transaction is gone");
            blob.read_at(&mut [0], 0).expect_err("its transaction is gone");
            writable(tx, 1).map(drop).expect_err("there is no transaction");
            Ok(())
        });
        assert_eq!(lost.expect_err("it was lost").kind(), ErrorKind::RolledBack);
        assert_eq!(content(db, 1), [0; 8]);
        let changed = db.blocking_write(|tx| {
            let mut blob = writable(tx, 1)?;
            tx.execute("UPDATE file SET data = x'00' WHERE id = 1", [])?;
            blob.write_at(&[1], 0).expect_err("the row was changed");
            Ok(())
        });
        changed.expect("a write");
    });
}

#[test]
fn a56_a_call_that_only_reads_a_blob_is_stopped_by_its_deadline() {
    each(|db| {
        let read = db.read(|s| {
            let mut blob = s.blob_open("main", "file", "data", 1, true)?;
            loop {
                blob.read_at(&mut [0], 0)?;
            }
            #[expect(unreachable_code, reason = "the type of what is returned")]
            Ok(())
        });
        let stopped = futures_lite::future::block_on(read.deadline(Duration::from_millis(50)));
        assert!(matches!(stopped.expect_err("stopped").kind(), ErrorKind::Timeout(_)));
    });
}
