//! Processes that write to one file at the same time.

use std::path::Path;
use std::time::Duration;

use lockkeeper::Database;

use crate::crash::{Process, say};
use crate::steady::{Steady, write_for};
use crate::support::{Dir, HANG, TABLE, long, within};

const WRITERS: usize = 32;

fn run_time() -> Duration {
    if long() { Duration::from_secs(60) } else { Duration::from_secs(2) }
}

/// The work of a child process (`crash.rs`). Writes for some time. Then reports how many writes were answered, how many
/// failed, and the 99th percentile and the maximum of their times in microseconds.
pub(crate) fn child(file: &Path) {
    let db = Database::builder(file).readers(1).blocking_open().expect("opens");
    say("ready\n");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("the parent speaks");
    let Steady { writes, failed, p99_us, worst_us } =
        write_for(&db, "INSERT INTO t (v) VALUES (1)", WRITERS, run_time());
    db.blocking_close().expect("closes");
    say(&format!("steady {writes} {failed} {p99_us} {worst_us}\n"));
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
        // Both processes got their turns, and no answered write is missing.
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
