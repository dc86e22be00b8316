//! What the statistics, the slow log and the errors say about the calls.

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use lockkeeper::{Database, ErrorKind, HolderKind, Phase, Slow, Work};

use crate::support::{
    Dir, HANG, HeldWriter, PLACES, Place, block_on, file_db, insert, lock_of_another,
    on_each_place, poll_once, within,
};

/// Starts a call of the client `import` that runs a statement and then holds its thread until it is released.
fn holding<T: Send + 'static>(
    db: &Database,
    submit: impl FnOnce(
        lockkeeper::Client,
        mpsc::Sender<()>,
        mpsc::Receiver<()>,
    ) -> Result<T, lockkeeper::Error>
    + Send
    + 'static,
) -> (mpsc::Sender<()>, std::thread::JoinHandle<T>) {
    let (begun, has_begun) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let import = db.client("import");
    let thread =
        std::thread::spawn(move || submit(import, begun, released).expect("it is not stopped"));
    has_begun.recv_timeout(HANG).expect("it runs");
    (release, thread)
}

#[test]
fn a30_a_write_that_times_out_names_who_holds_the_writer() {
    on_each_place(|db, _| {
        let (release, thread) = holding(db, |import, begun, released| {
            block_on(import.write_once(move |tx| {
                tx.execute("INSERT INTO t (id, v) VALUES (?1, 4711)", [1])?;
                begun.send(()).expect("somebody waits");
                let _ = released.recv();
                Ok(())
            }))
        });
        let late = db.write(|tx| insert(tx, 2)).deadline(Duration::from_millis(50));
        let error = block_on(late).expect_err("the writer is held");
        assert_eq!(error.kind(), ErrorKind::Timeout(Phase::Queued));
        let text = error.to_string();
        for part in [
            "a write of client `import`",
            "stats.rs:",
            "INSERT INTO t (id, v) VALUES (?1, 4711)",
            "ms, ",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        drop(release);
        thread.join().expect("it ends");
    });
}

#[test]
fn a30_a_lease_or_an_exclusive_call_that_holds_the_writer_is_named_as_such() {
    on_each_place(|db, _| {
        let import = db.client("import");
        let patient = import.lease().hold_max(HANG).idle_max(HANG);
        let (mut lease, line) = (block_on(patient).expect("a lease"), line!() - 1);
        let late = || {
            let late = db.write(|tx| insert(tx, 2)).deadline(Duration::from_millis(50));
            block_on(late).expect_err("the writer is held").to_string()
        };
        // The lease's holder makes no call at this moment.
        let text = late();
        let place = format!("a lease of client `import` made at {}:{line}:", file!());
        assert!(text.contains(&place), "{place} in {text}");
        lease.blocking_run(|tx| insert(tx, 1)).expect("runs");
        let text = late();
        assert!(text.contains(&place) && text.contains("INSERT INTO t (id, v)"), "{text}");
        let holder = db.stats().writing.expect("the lease");
        assert_eq!((holder.kind, holder.client.as_deref()), (HolderKind::Lease, Some("import")));
        lease.blocking_commit().expect("stored");
        let (release, thread) = holding(db, |import, begun, released| {
            block_on(import.exclusive(move |_| {
                begun.send(()).expect("somebody waits");
                let _ = released.recv();
                Ok(())
            }))
        });
        assert!(late().contains("an exclusive call of client `import` made at "));
        drop(release);
        thread.join().expect("it ends");
        db.blocking_write(|tx| insert(tx, 3)).expect("stored");
        assert!(db.stats().writing.is_none_or(|holder| holder.kind == HolderKind::Write));
    });
}

#[test]
fn a30_a_read_that_times_out_names_who_holds_the_reader() {
    within(HANG, || {
        let (_dir, db) = file_db(|builder| builder.readers(1).readers_max(1));
        let (release, thread) = holding(&db, |import, begun, released| {
            block_on(import.read_once(move |s| {
                let n =
                    s.query_row("SELECT count(*) FROM t WHERE v = ?1", [9], |row| row.get(0))?;
                begun.send(()).expect("somebody waits");
                let _ = released.recv();
                Ok::<i64, _>(n)
            }))
        });
        let late = db.read(|_| Ok(())).deadline(Duration::from_millis(50));
        let text = block_on(late).expect_err("the reader is held").to_string();
        for part in ["a read of client `import`", "stats.rs:", "FROM t WHERE v = ?1"] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        drop(release);
        thread.join().expect("it ends");
    });
}

#[test]
fn a30_a_call_that_times_out_while_it_runs_names_its_own_statement() {
    on_each_place(|db, _| {
        let endless = db
            .client("report")
            .write(|tx| tx.query_row(crate::support::ENDLESS, [], |row| row.get::<_, i64>(0)))
            .deadline(Duration::from_millis(50));
        let error = block_on(endless).expect_err("it never ends");
        assert_eq!(error.kind(), ErrorKind::Timeout(Phase::Running));
        let text = error.to_string();
        assert!(text.contains("client `report`") && text.contains("RECURSIVE"), "{text}");
    });
}

#[test]
fn a30_a_lock_of_another_program_is_told_apart_and_counted() {
    within(HANG, || {
        let (dir, db) = file_db(|builder| builder);
        assert_eq!(db.stats().busy_waits, 0);
        let lock = lock_of_another(&dir.file("test.db"));
        let late = db.write(|tx| insert(tx, 1)).deadline(Duration::from_millis(50));
        let error = block_on(late).expect_err("the file is locked");
        assert_eq!(error.kind(), ErrorKind::Timeout(Phase::Locked));
        assert!(error.to_string().contains("another process or connection"), "{error}");
        drop(lock);
        db.blocking_write(|tx| insert(tx, 1)).expect("the lock is free");
        let stats = db.stats();
        assert!(stats.busy_waits > 0);
        assert!(stats.lock_wait.max() >= 25_000_000, "{:?}", stats.lock_wait);
        db.blocking_close().expect("closes");
    });
}

#[test]
fn a29_the_statistics_of_a_scripted_run_are_what_was_done() {
    for place in PLACES {
        within(HANG, move || {
            let dir = Dir::new();
            let db = dir.builder(place).blocking_open().expect("opens");
            db.blocking_write(|tx| tx.execute_batch(crate::support::TABLE)).expect("the table");
            let web = db.client("web");
            let held = HeldWriter::hold(&db);
            let writes: Vec<_> =
                (0..10).map(|id| web.try_write(move |tx| insert(tx, id)).expect("room")).collect();
            let during = db.stats();
            let waiting = |stats: &lockkeeper::Stats, name: Option<&str>| {
                stats.clients.iter().find(|client| client.name.as_deref() == name).cloned()
            };
            assert_eq!(waiting(&during, Some("web")).expect("a client").writes.waiting, 10);
            assert_eq!(during.writing.expect("the holder").kind, HolderKind::Write);
            held.release();
            writes.into_iter().for_each(|write| block_on(write).expect("stored"));
            web.blocking_write(|tx| insert(tx, 10)).expect("stored");
            for _ in 0..5 {
                web.blocking_read(|s| s.query_row("SELECT 1", [], |_| Ok(()))).expect("read");
            }
            // The reader thread counts a read right after it has answered the read.
            let stats = std::iter::repeat_with(|| db.stats())
                .find(|stats| stats.reads.run.count() == 5)
                .expect("within the time limit");
            // The write that made the table, the one that held the writer, ten that waited, and one more.
            assert_eq!(stats.writes.run.count(), 13);
            assert_eq!(stats.writes.wait.count(), 13);
            assert_eq!(stats.reads.run.count(), 5);
            let web = waiting(&stats, Some("web")).expect("a client");
            let taken_by_writer = if place == Place::Memory { 16 } else { 11 };
            assert_eq!((web.writes.waiting, web.writes.taken), (0, taken_by_writer));
            assert!(web.writes.run > Duration::ZERO);
            assert_eq!(web.reads.taken, if place == Place::Memory { 0 } else { 5 });
            // The writes that waited together were committed in few batches. The sum lacks the write that held the
            // writer, because it wrote nothing.
            assert_eq!(stats.batch_calls.sum(), 13 - 1);
            assert!(stats.batch_calls.max() >= 4, "{:?}", stats.batch_calls);
            assert_eq!(stats.batch_calls.count(), stats.commit.count());
            assert!(stats.commit.quantile_time(0.99) > Duration::ZERO);
            assert_eq!(stats.wal_bytes > 0, place == Place::File);
            db.blocking_close().expect("closes");
        });
    }
}

/// The count and the sum of a distribution of times.
fn count_and_sum(times: &lockkeeper::Distribution) -> (u64, Duration) {
    (times.count(), Duration::from_nanos(times.sum()))
}

#[test]
fn a29_leases_and_exclusive_calls_count_as_waiting_until_served_and_running_while_held() {
    on_each_place(|db, _| {
        // The exclusive call waits behind a call that holds the writer. The lease waits behind the exclusive call.
        let held = HeldWriter::hold(db);
        let asked = Instant::now();
        let (begun, has_begun) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let mut exclusive = db.exclusive(move |_| {
            begun.send(()).expect("somebody waits");
            let _ = released.recv();
            Ok(())
        });
        assert!(poll_once(&mut exclusive).is_pending());
        let submitted = Instant::now();
        let mut lease = db.lease().hold_max(HANG).idle_max(HANG);
        assert!(poll_once(&mut lease).is_pending());
        // This lease is dropped before its turn, so it is not counted as served.
        let mut gone = db.lease();
        assert!(poll_once(&mut gone).is_pending());
        drop(gone);
        let waited = submitted.elapsed();
        held.release();
        has_begun.recv_timeout(HANG).expect("it runs");
        let (running, served) = (Instant::now(), asked.elapsed());
        let before = db.stats();
        assert_eq!((before.exclusive.run.count(), before.leases.wait.count()), (0, 0));
        let ran = running.elapsed();
        drop(release);
        block_on(exclusive).expect("it ends");
        let mut lease = block_on(lease).expect("its turn");
        let (holding, turn) = (Instant::now(), asked.elapsed());
        lease.blocking_run(|tx| insert(tx, 1)).expect("runs");
        let holds = holding.elapsed();
        lease.blocking_commit().expect("stored");
        // This write runs after the lease, so the lease has been counted when the write is answered.
        db.blocking_write(|tx| insert(tx, 2)).expect("stored");
        let all = asked.elapsed();
        let stats = db.stats();
        let within = |times, least: Duration, most: Duration| {
            let (count, sum) = count_and_sum(times);
            assert!(count == 1 && least <= sum && sum <= most, "{least:?} {sum:?} {most:?}");
        };
        within(&stats.exclusive.wait, waited, served);
        within(&stats.exclusive.run, ran, all - waited);
        // The lease has waited at least as long as the exclusive call ran.
        within(&stats.leases.wait, ran, turn);
        within(&stats.leases.run, holds, all - waited - ran);
        // Neither the exclusive call nor the lease counts as a write, but the commit of the lease counts as a commit.
        assert_eq!(stats.writes.run.count(), 3);
        assert_eq!(stats.commit.count(), 3);
    });
}

#[test]
fn a29_the_slow_log_tells_of_leases_and_exclusive_calls() {
    within(HANG, || {
        let log: Arc<Mutex<Vec<Slow>>> = Arc::default();
        let into = Arc::clone(&log);
        let (_dir, db) = file_db(move |builder| {
            builder.on_slow(Duration::ZERO, move |slow| {
                into.lock().expect("no panic").push(slow.clone());
            })
        });
        db.blocking_write(|tx| (0..100).try_for_each(|id| insert(tx, id))).expect("rows");
        let web = db.client("web");
        block_on(web.exclusive(|conn| conn.execute_batch("REINDEX"))).expect("runs");
        let mut lease = block_on(web.lease()).expect("its turn");
        lease.blocking_run(|tx| tx.execute("UPDATE t SET v = 1 WHERE v = 2", [])).expect("runs");
        lease.blocking_run(|tx| tx.execute("DELETE FROM t WHERE id = 7", [])).expect("runs");
        lease.blocking_commit().expect("stored");
        db.blocking_write(|_| Ok(())).expect("runs");
        let log = log.lock().expect("no panic");
        let [_table, _rows, exclusive, lease, ..] = &log[..] else { panic!("{log:?}") };
        assert_eq!((exclusive.kind, lease.kind), (HolderKind::Exclusive, HolderKind::Lease));
        for slow in [exclusive, lease] {
            assert_eq!(slow.client.as_deref(), Some("web"));
            assert!(slow.place.file().ends_with("stats.rs") && slow.ran > Duration::ZERO, "{slow}");
        }
        // The exclusive call is not charged with the work of the write before it.
        assert_eq!((exclusive.work, &exclusive.sql), (Work::default(), &None));
        // The lease's work is that of all its calls, not only of the last one.
        assert!(lease.work.full_scan_steps >= 99, "{lease}");
        assert!(lease.sql.as_deref().is_some_and(|sql| sql.starts_with("DELETE")), "{lease}");
    });
}

#[test]
fn a29_nothing_is_kept_when_statistics_are_off() {
    within(HANG, || {
        let (_dir, db) = file_db(|builder| builder.statistics(false));
        db.blocking_write(|tx| insert(tx, 1)).expect("stored");
        db.blocking_read(|_| Ok(())).expect("read");
        db.blocking_exclusive(|_| Ok(())).expect("runs");
        block_on(db.lease()).expect("a lease").rollback();
        db.blocking_write(|tx| insert(tx, 2)).expect("stored");
        let stats = db.stats();
        assert_eq!((stats.writes.run.count(), stats.reads.run.count()), (0, 0));
        assert_eq!((stats.exclusive.run.count(), stats.leases.wait.count()), (0, 0));
        assert_eq!((stats.commit.count(), stats.batch_calls.count()), (0, 0));
    });
}

#[test]
fn a29_the_slow_log_tells_waiting_from_running_and_what_an_index_would_save() {
    within(HANG, || {
        let log: Arc<Mutex<Vec<Slow>>> = Arc::default();
        let into = Arc::clone(&log);
        let (_dir, db) = file_db(move |builder| {
            builder.on_slow(Duration::from_millis(100), move |slow| {
                into.lock().expect("no panic").push(slow.clone());
                // A panic of the callback has no other effect.
                panic!("a broken logger");
            })
        });
        db.blocking_write(|tx| (0..100).try_for_each(|id| insert(tx, id))).expect("rows");
        // A call that waits behind a call that runs for long.
        let (begun, has_begun) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let mut long = db.write_once(move |_| {
            begun.send(()).expect("somebody waits");
            let _ = released.recv();
            Ok(())
        });
        assert!(poll_once(&mut long).is_pending());
        has_begun.recv().expect("it runs");
        let secret = 271_828;
        let mut waits = db.client("web").write(move |tx| {
            let find = "SELECT count(*) FROM (SELECT v FROM t WHERE v < ?1 ORDER BY -v LIMIT 50)";
            tx.query_row(find, [secret], |row| row.get::<_, i64>(0))
        });
        assert!(poll_once(&mut waits).is_pending());
        // The test is about time, so it must wait: the slow log must report this time as the running time of one call
        // and as the waiting time of the other.
        std::thread::sleep(Duration::from_millis(150));
        drop(release);
        block_on(long).expect("it ends");
        assert_eq!(block_on(waits).expect("it runs"), 50);
        // The writer reports a slow call before it takes the next one.
        db.blocking_write(|_| Ok(())).expect("runs");
        let log = log.lock().expect("no panic");
        let [long, waits] = &log[..] else { panic!("two slow calls: {log:?}") };
        assert!(long.ran >= Duration::from_millis(100) && long.client.is_none(), "{long}");
        assert!(waits.waited >= Duration::from_millis(100), "{waits}");
        assert!(waits.ran < Duration::from_millis(100), "{waits}");
        assert_eq!(waits.client.as_deref(), Some("web"));
        assert!(waits.place.file().ends_with("stats.rs"));
        assert!(waits.work.full_scan_steps >= 99 && waits.work.sorts == 1, "{waits}");
        assert!(waits.plan.iter().any(|line| line.contains("SCAN t")), "{waits}");
        let text = waits.to_string();
        assert!(text.contains("FROM t WHERE v < ?1") && !text.contains("271828"), "{text}");
    });
}

/// A database with a few rows that logs every call as slow, and its log.
fn logging_all() -> (Dir, Database, Arc<Mutex<Vec<Slow>>>) {
    let log: Arc<Mutex<Vec<Slow>>> = Arc::default();
    let into = Arc::clone(&log);
    let (dir, db) = file_db(move |builder| {
        builder.on_slow(Duration::ZERO, move |slow| {
            into.lock().expect("no panic").push(slow.clone());
        })
    });
    db.blocking_write(|tx| tx.execute_batch("INSERT INTO t (v) VALUES (3), (1), (2)"))
        .expect("stored");
    (dir, db, log)
}

#[test]
fn a29_the_slow_log_has_the_plan_of_the_whole_last_statement() {
    within(HANG, || {
        let (_dir, db, log) = logging_all();
        let query = "SELECT v FROM t";
        for sql in [
            format!("{query} ORDER BY -v"),
            // Longer than the text in the report. What is left of the text is a statement with another plan.
            format!("{query} /* {} */ ORDER BY -v", "long ".repeat(100)),
            // What is left of the text is no statement.
            format!("{query} WHERE v NOT IN ({}7) ORDER BY -v", "7, ".repeat(500)),
            // Several statements.
            format!("SELECT 1; PRAGMA user_version; {query} ORDER BY -v"),
            format!("SELECT 1;; {query} ORDER BY -v"),
            format!("SELECT 1; ; /* ; */ ;\n{query} ORDER BY -v"),
        ] {
            db.blocking_write(move |tx| tx.execute_batch(&sql)).expect("runs");
            // The writer has told the log before it takes the next call.
            db.blocking_write(|_| Ok(())).expect("runs");
            let log = std::mem::take(&mut *log.lock().expect("no panic"));
            let slow = log.iter().find(|slow| slow.work.sorts > 0).expect("it sorts");
            let has = |part: &str| slow.plan.iter().any(|line| line.contains(part));
            assert!(has("SCAN t") && has("ORDER BY"), "{slow}");
        }
        // Without a plan: longer than what is kept, and a statement that has none.
        let longest = format!("{query} /* {} */ ORDER BY -v", "x".repeat(64 << 10));
        let pragma = format!("{query} ORDER BY -v; PRAGMA user_version");
        for sql in [longest, pragma] {
            db.blocking_write(move |tx| tx.execute_batch(&sql)).expect("runs");
            db.blocking_write(|_| Ok(())).expect("runs");
            let log = std::mem::take(&mut *log.lock().expect("no panic"));
            let slow = log.iter().find(|slow| slow.work.sorts > 0).expect("it sorts");
            assert_eq!(slow.plan, Vec::<String>::new());
        }
    });
}

/// Some PRAGMAs take effect when they are prepared, and the log prepares the last statement again.
#[test]
fn a29_the_slow_log_leaves_nothing_on_the_connection() {
    within(HANG, || {
        let (_dir, db, _log) = logging_all();
        let held = HeldWriter::hold(&db);
        let mut first = db.write(|tx| {
            tx.query_row("SELECT max(v + 0) FROM t", [], |row| row.get::<_, i64>(0))?;
            tx.execute_batch("PRAGMA defer_foreign_keys = ON")
        });
        let mut second = db.write(|tx| {
            tx.pragma_query_value(None, "defer_foreign_keys", |row| row.get::<_, i64>(0))
        });
        assert!(poll_once(&mut first).is_pending() && poll_once(&mut second).is_pending());
        held.release();
        block_on(first).expect("runs");
        assert_eq!(block_on(second).expect("runs"), 0, "what the first call has switched on");
    });
}

#[test]
fn a29_the_time_that_the_slow_log_takes_is_no_calls_running_time() {
    const LOGGER: Duration = Duration::from_millis(300);
    within(HANG, || {
        let log: Arc<Mutex<Vec<Slow>>> = Arc::default();
        let into = Arc::clone(&log);
        let (_dir, db) = file_db(move |builder| {
            builder.on_slow(Duration::from_millis(20), move |slow| {
                into.lock().expect("no panic").push(slow.clone());
                // The callback is slow. The test checks that its time is not counted as running time.
                std::thread::sleep(LOGGER);
            })
        });
        let (begun, has_begun) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let mut first = db.write_once(move |_| {
            begun.send(()).expect("somebody waits");
            let _ = released.recv();
            Ok(())
        });
        assert!(poll_once(&mut first).is_pending());
        let mut others: Vec<_> = (0..3).map(|id| db.write(move |tx| insert(tx, id))).collect();
        assert!(others.iter_mut().all(|other| poll_once(other).is_pending()));
        has_begun.recv().expect("it runs");
        // Waits until the other calls have waited long enough to be reported.
        std::thread::sleep(Duration::from_millis(30));
        drop(release);
        block_on(first).expect("it ends");
        others.into_iter().for_each(|other| block_on(other).expect("stored"));
        db.blocking_close().expect("closes");
        let log = log.lock().expect("no panic");
        assert_eq!(log.len(), 4, "{log:?}");
        assert!(log.iter().all(|slow| slow.ran < LOGGER), "{log:?}");
    });
}
