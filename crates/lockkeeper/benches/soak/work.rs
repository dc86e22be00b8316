//! The load: threads, each of which repeats one thing until it is told to stop.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_lite::future::block_on;
use lockkeeper::{Database, ErrorKind};

use crate::place::Place;
use crate::slopes::{Latencies, quantile};

pub(crate) const ON_PURPOSE: &str = "on purpose";

pub(crate) const SCHEMA: &str = "
    CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;
    CREATE VIRTUAL TABLE note_text USING fts5 (body, content = 'note', content_rowid = 'id');
    CREATE TRIGGER note_inserted AFTER INSERT ON note BEGIN
        INSERT INTO note_text (rowid, body) VALUES (NEW.id, NEW.body);
    END;
    CREATE TRIGGER note_deleted AFTER DELETE ON note BEGIN
        INSERT INTO note_text (note_text, rowid, body) VALUES ('delete', OLD.id, OLD.body);
    END;
    CREATE TABLE total (id INTEGER PRIMARY KEY, n INTEGER NOT NULL) STRICT;
    INSERT INTO total VALUES (1, 0), (2, 0);
    CREATE TABLE wide (id INTEGER PRIMARY KEY) STRICT;";

/// The number of rows that is kept, so that the file does not grow.
const ROWS: u64 = 2_000;

/// The result of a step of the load. Expected errors are counted.
type Step = Result<(), lockkeeper::Error>;

pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<(&'static str, JoinHandle<u64>)>,
    probe: Arc<Mutex<[Vec<f64>; 2]>>,
    last: Mutex<Latencies>,
    refused: Arc<Mutex<BTreeMap<String, u64>>>,
}

/// How often each thing was done, and how often each expected error occurred.
pub(crate) struct Did(Vec<(&'static str, u64)>, Vec<(String, u64)>);

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done: Vec<String> = self.0.iter().map(|(name, n)| format!("{n} {name}")).collect();
        write!(f, "{}", done.join(", "))?;
        for (kind, n) in &self.1 {
            write!(f, ", {n} answered {kind}")?;
        }
        Ok(())
    }
}

impl Load {
    pub(crate) fn start(db: &Database, place: &Place) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            threads: Vec::new(),
            probe: Arc::default(),
            last: Mutex::new(Latencies { write: [0.0; 2], read: [0.0; 2] }),
            refused: Arc::default(),
        };
        let probe = Arc::clone(&load.probe);
        load.repeat("probes", 2, db, move |db, n| probe_once(db, n, &probe));
        load.repeat("clients", 1, db, new_client);
        load.repeat("snapshots", 1, db, snapshots);
        load.repeat("leases", 20, db, leases);
        load.repeat("subscriptions", 20, db, subscriptions);
        load.repeat("dropped futures", 1, db, dropped);
        load.repeat("panics", 5, db, panics);
        load.repeat("new texts", 1, db, new_text);
        load.repeat("searches", 2, db, searches);
        load.repeat("VACUUMs", 2_000, db, |db, _| {
            db.blocking_exclusive(|conn| conn.execute_batch("VACUUM"))
        });
        load.repeat("ALTERs", 100, db, alter);
        let copy = place.file("copy.db");
        load.repeat("backups", 3_000, db, move |db, _| db.backup(&copy).blocking_run().map(drop));
        let other = place.file("other.db");
        // A thousand openings in ten minutes.
        load.repeat("openings", 500, db, move |_, _| open_another(&other));
        load
    }

    /// Repeats `step`, with pauses of `pause_ms`, until the load stops.
    fn repeat(
        &mut self,
        name: &'static str,
        pause_ms: u64,
        db: &Database,
        mut step: impl FnMut(&Database, u64) -> Step + Send + 'static,
    ) {
        let (db, stop, refused) = (db.clone(), Arc::clone(&self.stop), Arc::clone(&self.refused));
        let body = move || {
            let mut done = 0;
            while !stop.load(Ordering::Relaxed) {
                done += 1;
                if let Err(error) = step(&db, done) {
                    let kind = error.kind();
                    assert!(is_expected(kind), "{name}: {error:?}");
                    *refused.lock().expect("no panic").entry(format!("{kind:?}")).or_default() += 1;
                }
                std::thread::sleep(Duration::from_millis(pause_ms));
            }
            done
        };
        let thread = std::thread::Builder::new().name(format!("soak: {name}")).spawn(body);
        self.threads.push((name, thread.expect("a thread")));
    }

    /// The latencies since this was last called. If nothing was answered since then, those of the last call.
    pub(crate) fn latencies(&self) -> Latencies {
        let [write, read] = std::mem::take(&mut *self.probe.lock().expect("no panic"));
        let mut last = self.last.lock().expect("no panic");
        let both = |times: Vec<f64>| [quantile(times.clone(), 0.5), quantile(times, 0.99)];
        if !write.is_empty() {
            last.write = both(write);
        }
        if !read.is_empty() {
            last.read = both(read);
        }
        Latencies { write: last.write, read: last.read }
    }

    pub(crate) fn stop(self) -> Did {
        self.stop.store(true, Ordering::Relaxed);
        let done = self
            .threads
            .into_iter()
            .map(|(name, thread)| (name, thread.join().expect("the load met what it expected")))
            .collect();
        let refused = std::mem::take(&mut *self.refused.lock().expect("no panic"));
        Did(done, refused.into_iter().collect())
    }
}

/// Whether a busy database may answer with this error.
fn is_expected(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::LeaseExpired
            | ErrorKind::TooManySnapshots
            | ErrorKind::SnapshotExpired
            | ErrorKind::NotApplied
            | ErrorKind::Busy
            | ErrorKind::Timeout(_)
    )
}

fn insert(tx: &lockkeeper::Transaction, n: u64) -> rusqlite::Result<()> {
    let sql = "INSERT INTO note (body) VALUES ('note ' || ?1 || ' of many')";
    tx.execute(sql, [n as i64])?;
    let old = "DELETE FROM note WHERE id <= (SELECT max(id) FROM note) - ?1";
    tx.execute(old, [ROWS as i64]).map(drop)
}

fn count(s: &lockkeeper::Snapshot) -> rusqlite::Result<i64> {
    s.query_row("SELECT count(*) FROM note", [], |row| row.get(0))
}

fn probe_once(db: &Database, _: u64, probe: &Mutex<[Vec<f64>; 2]>) -> Step {
    let micros = |since: Instant| since.elapsed().as_secs_f64() * 1e6;
    let began = Instant::now();
    db.blocking_write(|tx| tx.execute("UPDATE total SET n = n + 1 WHERE id = 1", []))?;
    let wrote = micros(began);
    let began = Instant::now();
    db.blocking_read(|s| {
        s.query_row("SELECT n FROM total WHERE id = 1", [], |row| row.get::<_, i64>(0))
    })?;
    let mut probe = probe.lock().expect("no panic");
    probe[0].push(wrote);
    probe[1].push(micros(began));
    Ok(())
}

fn new_client(db: &Database, n: u64) -> Step {
    let client = db.client(&format!("client {n}"));
    client.blocking_write(move |tx| insert(tx, n))?;
    block_on(client.read(count).short())?;
    block_on(client.write_once(move |tx| insert(tx, n))).map(drop)
}

fn snapshots(db: &Database, n: u64) -> Step {
    let client = db.client(&format!("reader {}", n % 4));
    let held = block_on(client.snapshot())?;
    let first = held.blocking_read(count)?;
    let ((), after) = block_on(client.write(move |tx| insert(tx, n)).and_snapshot())?;
    assert_eq!(held.blocking_read(count)?, first, "a held snapshot has changed");
    after.blocking_read(count).map(drop)
}

fn leases(db: &Database, n: u64) -> Step {
    let limit = Duration::from_millis(20);
    let mut lease = block_on(db.lease().hold_max(limit).idle_max(limit / 4))?;
    lease.blocking_run(move |tx| insert(tx, n))?;
    match n % 3 {
        0 => lease.blocking_commit(),
        1 => {
            lease.rollback();
            Ok(())
        }
        // The lease expires during the sleep.
        _ => {
            std::thread::sleep(limit);
            lease.blocking_run(move |tx| insert(tx, n))
        }
    }
}

fn subscriptions(db: &Database, n: u64) -> Step {
    let (mut changes, mut watch) = (db.changes(), db.watch(["note"]));
    let mut live = db.live(["total"], count);
    live.blocking_next().expect("the database is open")?;
    db.blocking_write(move |tx| insert(tx, n))?;
    changes.blocking_next().expect("the database is open");
    watch.blocking_next().expect("the database is open");
    Ok(())
}

fn dropped(db: &Database, n: u64) -> Step {
    let context = &mut Context::from_waker(Waker::noop());
    let _ = pin!(db.write(move |tx| insert(tx, n))).as_mut().poll(context);
    let _ = pin!(db.read(count)).as_mut().poll(context);
    let _ = pin!(db.snapshot()).as_mut().poll(context);
    if n.is_multiple_of(16) {
        let _ = pin!(db.lease()).as_mut().poll(context);
    }
    Ok(())
}

fn panics(db: &Database, n: u64) -> Step {
    let write = catch_unwind(AssertUnwindSafe(|| {
        db.blocking_write(move |tx| -> rusqlite::Result<()> {
            insert(tx, n)?;
            std::panic::panic_any(ON_PURPOSE)
        })
    }));
    let read = catch_unwind(AssertUnwindSafe(|| {
        db.blocking_read(|_| -> rusqlite::Result<()> { std::panic::panic_any(ON_PURPOSE) })
    }));
    // If a call was refused before it ran, there is an error and no panic.
    [write, read].into_iter().filter_map(Result::ok).collect()
}

fn new_text(db: &Database, n: u64) -> Step {
    let sql = format!("SELECT count(*) + {n} FROM note WHERE id > {n}");
    db.blocking_read(move |s| s.query_row(&sql, [], |row| row.get::<_, i64>(0)))?;
    let sql = format!("UPDATE total SET n = n + {n} - {n} WHERE id = 1");
    db.blocking_write(move |tx| tx.execute(&sql, [])).map(drop)
}

fn searches(db: &Database, n: u64) -> Step {
    db.blocking_read(move |s| {
        let sql = "SELECT count(*) FROM note_text (?1 || ' OR many')";
        s.query_row(sql, [n as i64], |row| row.get::<_, i64>(0))
    })
    .map(drop)
}

/// Adds a column and a table, or removes them if they exist.
fn alter(db: &Database, _: u64) -> Step {
    db.blocking_write(|tx| match tx.table_exists(None, "passing")? {
        true => tx.execute_batch("ALTER TABLE wide DROP COLUMN more; DROP TABLE passing"),
        false => tx.execute_batch(
            "ALTER TABLE wide ADD COLUMN more TEXT; CREATE TABLE passing (id INTEGER)",
        ),
    })
}

fn open_another(file: &PathBuf) -> Step {
    static OPENED: AtomicU64 = AtomicU64::new(0);
    let n = OPENED.fetch_add(1, Ordering::Relaxed);
    let db = match n % 4 {
        0 => Database::blocking_open(":memory:")?,
        _ => Database::blocking_open(file)?,
    };
    let schema = SCHEMA.replace("INSERT INTO total", "INSERT OR IGNORE INTO total");
    db.blocking_write(move |tx| match tx.table_exists(None, "note")? {
        true => Ok(()),
        false => tx.execute_batch(&schema),
    })?;
    db.blocking_write(move |tx| insert(tx, n))?;
    searches(&db, n)?;
    block_on(db.read(count).short())?;
    if n.is_multiple_of(3) {
        return db.blocking_close().map(drop);
    }
    let held = block_on(db.snapshot())?;
    let closed = db.blocking_close().map(drop);
    drop(held);
    closed
}
