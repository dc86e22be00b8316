//! Two processes with many writers each, on one file.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use lockkeeper::Database;

use crate::Promises;
use crate::harness::Place;
use crate::steady::{Steady, write_for};

const WRITERS: usize = 32;
const INSERT: &str = "INSERT INTO load (x) VALUES (1)";

/// Another process of this program that writes. The drop kills it if it still runs.
struct Writer {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        // If the process has ended, there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Writer {
    fn start(file: &Path, time: Duration) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .arg("--child")
            .arg(file)
            .args(["--process-seconds", &time.as_secs().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let lines = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        line.trim().to_owned()
    }

    fn go(&mut self) {
        // The child begins when its input ends.
        drop(self.child.stdin.take());
    }
}

/// The work of the child: opens the file, waits for the end of its input, writes, and prints the results.
pub(crate) fn child(file: &Path, time: Duration) {
    let db = Database::builder(file).blocking_open().expect("open");
    println!("ready");
    std::io::stdout().flush().expect("the parent listens");
    std::io::stdin().lines().for_each(drop);
    let Steady { writes, failed, p99_us, worst_us } = write_for(&db, INSERT, WRITERS, time);
    db.blocking_close().expect("close");
    println!("{writes} {failed} {p99_us} {worst_us}");
}

pub(crate) fn processes(time: Duration, promises: &mut Promises) {
    let place = Place::new();
    let file = place.file("bench.db");
    let db = Database::blocking_open(&file).expect("open");
    db.blocking_write(|tx| tx.execute_batch("CREATE TABLE load (x INTEGER)")).expect("a table");
    db.blocking_close().expect("close");
    let mut writers = [(); 2].map(|()| Writer::start(&file, time));
    for writer in &mut writers {
        assert_eq!(writer.line(), "ready", "it could not open the file");
    }
    writers.iter_mut().for_each(Writer::go);
    let (mut stored, mut errors) = (0, 0);
    for (n, writer) in writers.iter_mut().enumerate() {
        let line = writer.line();
        let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [writes, failed, p99_us, worst_us] = numbers[..] else {
            panic!("the process ended early; it said {line:?}")
        };
        let ms = |us: u64| us as f64 / 1e3;
        println!(
            "{:<44} {writes:>12} writes in {} s, {failed} errors, p99 {:.1} ms, slowest {:.1} ms",
            format!("processes/{}-of-2-with-{WRITERS}-writers", n + 1),
            time.as_secs(),
            ms(p99_us),
            ms(worst_us)
        );
        stored += writes;
        errors += failed;
    }
    let db = Database::blocking_open(&file).expect("open");
    let rows = db.blocking_read(|s| s.query_row("SELECT count(*) FROM load", [], |row| row.get(0)));
    let rows: i64 = rows.expect("a row");
    db.blocking_close().expect("close");
    promises.check(
        format!("two processes with {WRITERS} writers each meet no error and lose no write"),
        errors == 0 && stored > 0 && u64::try_from(rows) == Ok(stored),
    );
}
