//! Reads of which one is always open. A file of its own, because the bench `day_two` uses them too.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use futures_lite::future::block_on;
use lockkeeper::{Database, ErrorKind};

/// Two threads whose reads overlap: each holds its read open until the other's has begun.
pub(crate) fn overlapping(
    db: &Database,
    sql: &'static str,
    stop: &Arc<AtomicBool>,
) -> Vec<std::thread::JoinHandle<u64>> {
    let (mine, theirs): (Vec<_>, Vec<_>) = (0..2).map(|_| mpsc::sync_channel::<()>(1)).unzip();
    let mut theirs = theirs.into_iter();
    let (first, second) = (theirs.next().expect("two"), theirs.next().expect("two"));
    let mut mine = mine.into_iter();
    let (to_first, to_second) = (mine.next().expect("two"), mine.next().expect("two"));
    // (tells the other that its read has begun, hears that the other's has)
    [(to_second, first), (to_first, second)]
        .into_iter()
        .map(|(tell, hear)| {
            let hear = Arc::new(std::sync::Mutex::new(hear));
            let (db, stop) = (db.clone(), Arc::clone(stop));
            std::thread::spawn(move || {
                let mut reads = 0;
                while !stop.load(Ordering::SeqCst) {
                    let (tell, hear) = (tell.clone(), Arc::clone(&hear));
                    let read = db.read_once(move |s| {
                        let n = s.query_row(sql, [], |row| row.get(0))?;
                        // Full: the other has not looked yet, and will find it.
                        let _ = tell.try_send(());
                        let hear = hear.lock().expect("no panic");
                        // Bounded, for the case that the other has just stopped.
                        let _ = hear.recv_timeout(Duration::from_millis(20));
                        Ok::<i64, rusqlite::Error>(n)
                    });
                    match block_on(read) {
                        Ok(_) => reads += 1,
                        // A read that took 100 ms on a crowded machine may be cut.
                        Err(error) => assert_eq!(error.kind(), ErrorKind::SnapshotExpired),
                    }
                }
                reads
            })
        })
        .collect()
}
