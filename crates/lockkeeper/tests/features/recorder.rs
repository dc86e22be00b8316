//! What the exporter gives to a recorder of the crate `metrics`.

use std::collections::BTreeMap;

use lockkeeper::{Client, Exporter};
use metrics::Unit;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

use crate::file_db;

/// A recorder that only this test uses.
struct Scrape(DebuggingRecorder);

/// The metrics in a recorder, by name and labels, each with its unit and its value.
type Held = BTreeMap<String, (Option<Unit>, DebugValue)>;

impl Scrape {
    fn new() -> Self {
        Self(DebuggingRecorder::new())
    }

    /// Exports the statistics, then takes all metrics out of the recorder. `false`: the database is closed.
    fn take(&self, exporter: &mut Exporter) -> (bool, Held) {
        let there = metrics::with_local_recorder(&self.0, || exporter.export());
        let held = self.0.snapshotter().snapshot().into_vec().into_iter();
        let held = held.map(|(key, unit, what, value)| {
            assert!(what.is_some_and(|what| what.len() > 5), "{key:?} is not described");
            let mut name = key.key().name().to_owned();
            for label in key.key().labels() {
                name += &format!(" {}={}", label.key(), label.value());
            }
            (name, (unit, value))
        });
        (there, held.collect())
    }
}

fn count(held: &Held, name: &str) -> u64 {
    match &held.get(name).unwrap_or_else(|| panic!("no {name} in {held:#?}")).1 {
        DebugValue::Counter(count) => *count,
        DebugValue::Gauge(value) => value.into_inner() as u64,
        DebugValue::Histogram(values) => values.len() as u64,
    }
}

fn insert(client: &Client) {
    client.blocking_write(|tx| tx.execute("INSERT INTO t (v) VALUES (1)", [])).expect("stored");
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one history, each part of which begins where the last one ended"
)]
fn a29_a_recorder_is_given_what_the_statistics_hold_and_nothing_twice() {
    let (_dir, db) = file_db(|builder| builder);
    let scrape = Scrape::new();
    let mut exporter = db.exporter("app");
    let web = db.client("web");
    (0..10).for_each(|_| insert(&web));
    let snapshot = futures_lite::future::block_on(db.snapshot()).expect("a snapshot");
    snapshot.blocking_read(|s| s.table_exists(None, "t")).expect("a read");
    futures_lite::future::block_on(db.exclusive(|_| Ok(()))).expect("runs");
    let mut lease = futures_lite::future::block_on(db.lease()).expect("a lease");
    lease.blocking_run(|_| Ok(())).expect("runs");
    lease.rollback();
    // This write runs after the lease, so the lease has been counted when the write is answered.
    insert(&web);
    // Makes short reads until two have run on this thread. `reads` counts the ones that ran on a reader thread instead.
    let mut reads = 1;
    while db.stats().short_reads < 2 {
        let before = db.stats().short_reads;
        let short = db.read(|s| s.table_exists(None, "t")).short();
        futures_lite::future::block_on(short).expect("a short read");
        reads += 1 - (db.stats().short_reads - before);
    }
    // The reader thread counts a read right after it has answered the read, so this waits for the count.
    while db.stats().reads.run.count() < reads {
        std::thread::yield_now();
    }
    let stats = db.stats();
    let (there, held) = scrape.take(&mut exporter);
    assert!(there);
    for (name, expected) in [
        ("lockkeeper_write_wait_seconds database=app", 12),
        ("lockkeeper_write_run_seconds database=app", 12),
        ("lockkeeper_exclusive_wait_seconds database=app", 1),
        ("lockkeeper_exclusive_run_seconds database=app", 1),
        ("lockkeeper_lease_wait_seconds database=app", 1),
        ("lockkeeper_lease_run_seconds database=app", 1),
        ("lockkeeper_read_wait_seconds database=app", reads),
        ("lockkeeper_read_run_seconds database=app", reads),
        ("lockkeeper_commit_seconds database=app", 12),
        ("lockkeeper_batch_calls database=app", 12),
        ("lockkeeper_lock_wait_seconds database=app", stats.lock_wait.count()),
        ("lockkeeper_checkpoint_seconds database=app", stats.checkpoint.count()),
        ("lockkeeper_checkpoint_copy_seconds database=app", stats.checkpoint_copy.count()),
        ("lockkeeper_snapshots database=app", 1),
        ("lockkeeper_wal_bytes database=app", stats.wal_bytes),
        ("lockkeeper_client_calls_total database=app client=web queue=write", 11),
        ("lockkeeper_client_calls_total database=app client=web queue=read", 0),
        ("lockkeeper_client_calls_total database=app client=(main) queue=write", 3),
        ("lockkeeper_client_waiting database=app client=web queue=write", 0),
        ("lockkeeper_short_reads_total database=app", 2),
        ("lockkeeper_busy_waits_total database=app", 0),
        ("lockkeeper_checkpoints_incomplete_total database=app", 0),
        ("lockkeeper_readers_cut_total database=app", 0),
        ("lockkeeper_wal_over_max_total database=app", 0),
    ] {
        assert_eq!(count(&held, name), expected, "{name}");
    }
    let (unit, commits) = &held["lockkeeper_commit_seconds database=app"];
    assert_eq!(*unit, Some(Unit::Seconds));
    let DebugValue::Histogram(commits) = commits else { panic!("{commits:?}") };
    let (told, exact) = (commits.iter().map(|s| s.into_inner()).sum::<f64>(), stats.commit.sum());
    let off = (told / (exact as f64 / 1e9) - 1.0).abs();
    assert!(off < 0.07, "{told} s, in truth {exact} ns");
    let (unit, calls) = &held["lockkeeper_batch_calls database=app"];
    assert_eq!(*unit, Some(Unit::Count));
    assert_eq!(*calls, DebugValue::Histogram(vec![1.0.into(); 12]), "small numbers are exact");
    let (_, oldest) = &held["lockkeeper_oldest_reader_seconds database=app"];
    assert!(matches!(oldest, DebugValue::Gauge(age) if age.into_inner() > 0.0), "{oldest:?}");
    let run = "lockkeeper_client_run_microseconds_total database=app client=web queue=write";
    assert!(count(&held, run) > 0);
    assert_eq!(held[run].0, Some(Unit::Microseconds));

    // The second export adds only what happened since the first.
    drop(snapshot);
    (0..3).for_each(|_| insert(&web));
    let (_, held) = scrape.take(&mut exporter);
    for (name, expected) in [
        ("lockkeeper_commit_seconds database=app", 3),
        ("lockkeeper_read_run_seconds database=app", 0),
        ("lockkeeper_snapshots database=app", 0),
        ("lockkeeper_client_calls_total database=app client=web queue=write", 3),
    ] {
        assert_eq!(count(&held, name), expected, "{name}");
    }

    // If a client is dropped and another one with the same name comes, its counters begin at 0 again.
    drop(web);
    let (_, held) = scrape.take(&mut exporter);
    let web = "lockkeeper_client_calls_total database=app client=web queue=write";
    assert_eq!(count(&held, web), 0);
    insert(&db.client("web"));
    insert(&db);
    let again = db.client("web");
    insert(&again);
    let (_, held) = scrape.take(&mut exporter);
    // The first of the two clients called `web` was dropped before the export, so its call is not counted.
    assert_eq!(count(&held, web), 1);
    assert_eq!(count(&held, "lockkeeper_commit_seconds database=app"), 3);

    // The exporter does not keep the database open. Once the database is closed, `export` returns `false`.
    drop(again);
    db.blocking_close().expect("closes");
    drop(db);
    let (there, held) = scrape.take(&mut exporter);
    assert!(!there);
    assert_eq!(count(&held, "lockkeeper_wal_bytes database=app"), 0);
    assert_eq!(count(&held, "lockkeeper_commit_seconds database=app"), 0);
}

#[test]
fn a29_clients_are_told_apart_up_to_a_bound() {
    let (_dir, db) = file_db(|builder| builder);
    let scrape = Scrape::new();
    let mut exporter = db.exporter("app");
    // There are more clients than labels: first all at the same time, later one after another.
    let clients: Vec<_> = (0..100).map(|n| db.client(&format!("at-once-{n}"))).collect();
    clients.iter().for_each(insert);
    let labels = |held: &Held| {
        let calls = held.keys().filter(|name| name.starts_with("lockkeeper_client_calls_total"));
        calls.filter(|name| name.ends_with("queue=write")).count()
    };
    let (_, held) = scrape.take(&mut exporter);
    assert_eq!(labels(&held), 64 + 2, "their own, the main one, all others");
    let others = "lockkeeper_client_calls_total database=app client=(other) queue=write";
    assert_eq!(count(&held, others), 36);
    drop(clients);
    for n in 0..50 {
        let client = db.client(&format!("later-{n}"));
        insert(&client);
        let (_, held) = scrape.take(&mut exporter);
        assert_eq!((labels(&held), count(&held, others)), (64 + 2, 1));
    }
}
