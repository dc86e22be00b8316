//! Canceling: what a dropped future and a deadline do to a call, and what is stored afterwards.
//!
//! `cargo run -p lockkeeper --example cancellation`
//!
//! No sleeps: a write that waits on a channel keeps the writer busy for as long as each scene needs.
//! (Real closures must never wait for anything; there is only one writer.)

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use futures_lite::future::block_on;
use lockkeeper::{Database, ErrorKind, Phase};

const ENDLESS: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
                       SELECT count(*) FROM n";

/// Polls `future` once, which submits its call.
fn submit<F: Future + Unpin>(future: &mut F) {
    let mut context = Context::from_waker(Waker::noop());
    assert!(std::pin::Pin::new(future).poll(&mut context).is_pending());
}

fn notes(db: &Database) -> Vec<String> {
    db.blocking_read(|snapshot| {
        snapshot
            .prepare_cached("SELECT text FROM note ORDER BY id")?
            .query_map([], |row| row.get(0))?
            .collect()
    })
    .expect("a list")
}

#[expect(clippy::too_many_lines, reason = "an example is read from top to bottom")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::temp_dir().join(format!("lockkeeper-cancel-{}.db", std::process::id()));
    let db = Database::blocking_open(&path)?;
    db.blocking_write(|tx| {
        tx.execute_batch("CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
    })?;
    let insert = |text: &'static str| {
        db.write(move |tx| tx.execute("INSERT INTO note (text) VALUES (?1)", [text]))
    };

    // 1. Dropped while it waits: the closure never runs, and its place is free immediately.
    let (release, held) = mpsc::sync_channel::<()>(0);
    let (begun, beginning) = mpsc::sync_channel::<()>(0);
    let mut busy = db.write_once(move |_| {
        let _ = begun.send(());
        let _ = held.recv();
        Ok(())
    });
    submit(&mut busy);
    beginning.recv()?;
    let ran = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&ran);
    let mut waiting = db.write(move |tx| {
        counter.fetch_add(1, Ordering::Relaxed);
        tx.execute("INSERT INTO note (text) VALUES ('never')", [])
    });
    submit(&mut waiting);
    drop(waiting);

    // 2. If a deadline passes while the call waits, the error says so.
    let late = block_on(insert("late").deadline(Duration::from_millis(20))).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Timeout(Phase::Queued));
    assert!(late.is_retryable(), "nothing of it is stored");
    println!("a write behind a long one: {late}");

    release.send(())?;
    block_on(busy)?;
    assert_eq!(ran.load(Ordering::Relaxed), 0);
    assert!(notes(&db).is_empty());
    println!("dropped while it waited: it never ran");

    // 3. If a deadline passes while the call runs, its statement is stopped and the whole call is undone.
    let began = Instant::now();
    let slow = db
        .write(|tx| {
            tx.execute("INSERT INTO note (text) VALUES ('half')", [])?;
            tx.query_row(ENDLESS, [], |row| row.get::<_, i64>(0))
        })
        .deadline(Duration::from_millis(50));
    let slow = block_on(slow).unwrap_err();
    assert_eq!(slow.kind(), ErrorKind::Timeout(Phase::Running));
    assert!(notes(&db).is_empty(), "the insert before the endless query is undone too");
    println!("an endless write: {slow}, after {} ms", began.elapsed().as_millis());

    // 4. Dropped while it runs: the call is stopped, so the next call does not wait for its end.
    let (begun, beginning) = mpsc::sync_channel::<()>(0);
    let mut endless = db.write_once(move |tx| {
        let _ = begun.send(());
        tx.query_row(ENDLESS, [], |row| row.get::<_, i64>(0))
    });
    submit(&mut endless);
    beginning.recv()?;
    drop(endless);
    block_on(insert("after the dropped one"))?;
    assert_eq!(notes(&db), ["after the dropped one"]);
    println!("dropped while it ran: stopped, and the next write is stored");

    // 5. An answered write is stored. A write that is dropped without an answer is stored as a whole or not at all. A
    //    caller that must know asks the database.
    let mut unknown = insert("perhaps");
    submit(&mut unknown);
    drop(unknown);
    block_on(insert("the last"))?;
    match notes(&db).len() {
        2 => println!("dropped at once: it was taken back"),
        3 => println!("dropped too late: it is stored, as a whole"),
        n => panic!("{n} notes"),
    }

    // 6. Closing with a deadline: calls that have not ended by then are stopped, and their callers get an error.
    let (begun, beginning) = mpsc::sync_channel::<()>(0);
    let mut endless = db.read_once(move |snapshot| {
        let _ = begun.send(());
        snapshot.query_row(ENDLESS, [], |row| row.get::<_, i64>(0))
    });
    submit(&mut endless);
    beginning.recv()?;
    let how = block_on(db.close().deadline(Duration::from_millis(50)))?;
    let told = block_on(endless).unwrap_err();
    assert_eq!(told.kind(), ErrorKind::Canceled);
    println!("closed: {how:?}; the endless read: {told}");
    std::fs::remove_file(&path)?;
    Ok(())
}
