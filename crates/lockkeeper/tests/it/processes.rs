//! Processes that write to one file at once.

use std::path::Path;
use std::time::{Duration, Instant};

use lockkeeper::Database;

use crate::crash::{Process, say};
use crate::support::{Dir, HANG, TABLE, long, within};

const WRITERS: usize = 32;

fn run_time() -> Duration {
    if long() { Duration::from_secs(60) } else { Duration::from_secs(2) }
}

/// What a child process does: see `crash.rs`. Writes for a time; says how many writes were acked, how
/// many failed, and the 99th percentile and the longest of their waits in microseconds.
pub(crate) fn child(file: &Path) {
    let db = Database::builder(file).readers(1).blocking_open().expect("opens");
    say("ready\n");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("the parent speaks");
    let until = Instant::now() + run_time();
    let results: Vec<(Vec<u64>, usize)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..WRITERS)
            .map(|_| {
                scope.spawn(|| {
                    let (mut waits, mut failed) = (Vec::new(), 0);
                    while Instant::now() < until {
                        let began = Instant::now();
                        match db.blocking_write(|tx| tx.execute("INSERT INTO t (v) VALUES (1)", []))
                        {
                            Ok(_) => waits.push(began.elapsed().as_micros() as u64),
                            Err(error) => {
                                eprintln!("a write failed: {error}");
                                failed += 1;
                            }
                        }
                    }
                    (waits, failed)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    db.blocking_close().expect("closes");
    let failed: usize = results.iter().map(|(_, failed)| failed).sum();
    let mut waits: Vec<u64> = results.into_iter().flat_map(|(waits, _)| waits).collect();
    waits.sort_unstable();
    let p99 = waits.get(waits.len() * 99 / 100).copied().unwrap_or(0);
    let worst = waits.last().copied().unwrap_or(0);
    say(&format!("steady {} {failed} {p99} {worst}\n", waits.len()));
}

#[test]
fn b03_two_processes_with_many_writers_meet_no_error() {
    within(HANG + run_time(), || {
        let dir = Dir::new();
        let file = dir.file("test.db");
        let conn = rusqlite::Connection::open(&file).expect("opens");
        conn.execute_batch(TABLE).expect("a table");
        drop(conn);
        let mut children = [(); 2].map(|()| Process::start("steady", &file));
        children.iter_mut().for_each(|child| child.wait_for("ready"));
        children.iter_mut().for_each(Process::go);
        let mut acked = Vec::new();
        for child in &mut children {
            let line = std::iter::from_fn(|| child.line())
                .find_map(|line| Some(line.split_once("steady ")?.1.to_owned()))
                .expect("the child reports");
            let numbers: Vec<u64> =
                line.split(' ').map(|word| word.parse().expect("a number")).collect();
            let [writes, failed, p99, worst] = numbers[..] else { panic!("{line}") };
            println!("{writes} writes, p99 wait {p99} us, worst {worst} us");
            assert_eq!(failed, 0, "writes failed");
            acked.push(writes);
        }
        // Both got their turn, and nothing was lost.
        let all: u64 = acked.iter().sum();
        assert!(acked.iter().all(|&writes| writes * 20 >= all), "one of them starved: {acked:?}");
        let conn = rusqlite::Connection::open(&file).expect("opens");
        let (rows, whole): (u64, String) = conn
            .query_row(
                "SELECT (SELECT count(*) FROM t), (SELECT * FROM pragma_integrity_check)",
                [],
                |row| Ok((row.get::<_, i64>(0)? as u64, row.get(1)?)),
            )
            .expect("a row");
        assert_eq!((rows, whole.as_str()), (all, "ok"));
    });
}
