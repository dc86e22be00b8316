//! Reads that overlap, so that one of them is always open. This is a file of its own, because the bench `day_two` uses
//! it too.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use futures_lite::future::block_on;
use lockkeeper::{Database, ErrorKind};

/// Starts two threads whose reads overlap: each read stays open until the other thread's next read has begun.
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
    // For each thread: the channel by which it tells the other that its read has begun, and the one by which it hears
    // that.
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
                        // If the channel is full, the other thread has not received the last message yet, and will.
                        let _ = tell.try_send(());
                        let hear = hear.lock().expect("no panic");
                        // The wait has a limit, because the other thread may have stopped.
                        let _ = hear.recv_timeout(Duration::from_millis(20));
                        Ok::<i64, rusqlite::Error>(n)
                    });
                    match block_on(read) {
                        Ok(_) => reads += 1,
                        // On a busy machine a read may take 100 ms. Then the library may end it.
                        Err(error) => assert_eq!(error.kind(), ErrorKind::SnapshotExpired),
                    }
                }
                reads
            })
        })
        .collect()
}
