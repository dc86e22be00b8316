//! Processes that are killed, and processes that share a file.
//!
//! A child is this test binary, started with an environment variable that makes it run only [`child`].

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use lockkeeper::{Database, ErrorKind, Phase, Transaction};

use crate::support::{Dir, HANG, count, within};

const ROLE: &str = "LOCKKEEPER_TEST_CHILD";
const FILE: &str = "LOCKKEEPER_TEST_FILE";

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS part (
        client INTEGER NOT NULL, call INTEGER NOT NULL, n INTEGER NOT NULL,
        PRIMARY KEY (client, call, n)
    ) STRICT;
    CREATE TABLE IF NOT EXISTS total (client INTEGER PRIMARY KEY, calls INTEGER NOT NULL) STRICT;";

/// The rows that each call writes.
const PARTS: i64 = 3;
const CLIENTS: i64 = 4;

/// Inserts a row per part and raises a counter, all in one call.
fn write_parts(tx: &Transaction, client: i64, call: i64) -> rusqlite::Result<()> {
    for n in 0..PARTS {
        tx.execute("INSERT INTO part (client, call, n) VALUES (?1, ?2, ?3)", [client, call, n])?;
    }
    tx.execute(
        "INSERT INTO total (client, calls) VALUES (?1, 1)
         ON CONFLICT (client) DO UPDATE SET calls = calls + 1",
        [client],
    )
    .map(drop)
}

/// What a child process does. In the ordinary test run this test does nothing.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let file = PathBuf::from(std::env::var_os(FILE).expect("the parent names the file"));
    match role.as_str() {
        "writer" => write_until_killed(&file),
        "some" => write_some(&file),
        "lock" => hold_the_lock(&file),
        "recover" => recover(&file),
        "steady" => crate::processes::child(&file),
        "migrate" => crate::migrations::child(&file),
        "descriptors" => crate::messages::child(&file),
        other => panic!("no such role: {other}"),
    }
}

/// Writes a line to the parent and flushes it.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // If the parent has ended, nothing reads the line, and this process is about to be killed.
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

fn open(file: &Path) -> Database {
    // With the larger size, the copier copies the WAL back beside the writer.
    let bytes = if std::process::id().is_multiple_of(2) { 128 << 10 } else { 512 << 10 };
    let db = Database::builder(file)
        .readers(1)
        .checkpoint_wal_bytes(bytes)
        .blocking_open()
        .expect("the database opens");
    db.blocking_write(|tx| tx.execute_batch(SCHEMA)).expect("the tables are made");
    db
}

fn next_call(db: &Database, client: i64) -> i64 {
    db.blocking_read(move |s| {
        let sql = "SELECT coalesce(max(call), 0) + 1 FROM part WHERE client = ?1";
        s.query_row(sql, [client], |row| row.get(0))
    })
    .expect("the rows can be read")
}

/// Four clients write as fast as they can, and report each answered write.
fn write_until_killed(file: &Path) {
    let db = open(file);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let db = &db;
            scope.spawn(move || {
                for call in next_call(db, client).. {
                    db.blocking_write(move |tx| write_parts(tx, client, call))
                        .expect("it is stored");
                    say(&format!("acked {client} {call}\n"));
                }
            });
        }
    });
}

/// Writes 200 calls as the client 100, beside the parent, and closes the database.
fn write_some(file: &Path) {
    let db = open(file);
    say("open\n");
    for call in 1..=200 {
        db.blocking_write(move |tx| write_parts(tx, 100, call)).expect("it is stored");
    }
    db.blocking_close().expect("the database closes");
    say("done\n");
}

/// When the parent writes a line, opens the file and checks it.
fn recover(file: &Path) {
    say("ready\n");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("the parent speaks");
    let db = open(file);
    verify(&db);
    db.blocking_close().expect("the database closes");
    say("recovered\n");
}

/// Holds the write lock until the parent writes a line or kills this process.
fn hold_the_lock(file: &Path) {
    let conn = rusqlite::Connection::open(file).expect("the file opens");
    conn.execute_batch("BEGIN IMMEDIATE; INSERT INTO part (client, call, n) VALUES (99, 1, 0)")
        .expect("the lock is free");
    say("locked\n");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("the parent speaks");
    conn.execute_batch("ROLLBACK").expect("a rollback");
    say("released\n");
}

/// A child process. The drop kills it.
pub(crate) struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start(role: &str, file: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this test has a file"))
            .args(["--exact", "crash::child", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(FILE, file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the child starts");
        let stdin = child.stdin.take().expect("a pipe");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, stdin, stdout }
    }

    /// The next line from the child; `None`: the child has ended.
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        // A line without a newline was cut off by the end of the child, so it does not count as written.
        match self.stdout.read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => line.ends_with('\n').then(|| line.trim_end().to_owned()),
        }
    }

    pub(crate) fn wait_for(&mut self, wanted: &str) {
        // The test harness writes text of its own in front of the first line.
        while !self
            .line()
            .unwrap_or_else(|| panic!("the child ends before {wanted:?}"))
            .ends_with(wanted)
        {}
    }

    /// Writes a line to the child, which waits for it.
    pub(crate) fn go(&mut self) {
        self.stdin.write_all(b"go\n").expect("the child listens");
    }

    /// SIGKILL: no destructor, no flush.
    fn kill(&mut self) {
        self.child.kill().expect("the child can be killed");
        self.child.wait().expect("the child ends");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Parses `acked CLIENT CALL`. `None`: another line, such as those of the test harness.
fn acked(line: &str) -> Option<(i64, i64)> {
    let mut words = line.split_once("acked ")?.1.split(' ');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// Checks that each call is stored as a whole or not at all. Returns each client's highest stored call.
fn verify(db: &Database) -> BTreeMap<i64, i64> {
    db.blocking_read(|s| {
        let check: String = s.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        assert_eq!(check, "ok");
        let torn: i64 = s.query_row(
            "SELECT count(*) FROM (
                 SELECT count(*) AS parts FROM part GROUP BY client, call HAVING parts <> ?1
             )",
            [PARTS],
            |row| row.get(0),
        )?;
        assert_eq!(torn, 0, "calls are stored in part");
        let mut statement = s.prepare(
            "SELECT client, max(call), count(DISTINCT call), calls
             FROM part JOIN total USING (client) GROUP BY client",
        )?;
        let rows = statement.query_map([], |row| {
            let [client, last, stored, counted] =
                [row.get(0)?, row.get(1)?, row.get(2)?, row.get::<_, i64>(3)?];
            assert_eq!((stored, counted), (last, last), "client {client} has lost calls");
            Ok((client, last))
        })?;
        rows.collect()
    })
    .expect("the rows can be read")
}

#[test]
fn a05_acked_writes_survive_kill() {
    within(HANG * 4, || {
        let kills = count(30, 300);
        let dir = Dir::new();
        let file = dir.file("test.db");
        let mut seed = 0x5DEE_CE66_D1CE_4E5B_u64;
        let mut acks = 0_usize;
        let mut last: BTreeMap<i64, i64> = BTreeMap::new();
        for _ in 0..kills {
            // parent                   | child
            // -------------------------+------------------------------
            // read acks                | write, report each ack
            // after a drawn number     |
            // SIGKILL                  | is killed at any point
            // read the remaining lines |
            // open, recover, compare   |
            let mut child = Process::start("writer", &file);
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let mut wanted = 1 + (seed >> 33) % 120;
            while wanted > 0 {
                let line = child.line().expect("the child writes until it is killed");
                if let Some((client, call)) = acked(&line) {
                    last.insert(client, call);
                    acks += 1;
                    wanted -= 1;
                }
            }
            child.child.kill().expect("the child can be killed");
            while let Some(line) = child.line() {
                if let Some((client, call)) = acked(&line) {
                    last.insert(client, call);
                    acks += 1;
                }
            }
            child.kill();
            let db = open(&file);
            let stored = verify(&db);
            for (client, &call) in &last {
                let stored = stored.get(client).copied().unwrap_or(0);
                assert!(stored >= call, "{call} of client {client} was acked; stored are {stored}");
            }
            db.blocking_close().expect("the database closes");
        }
        println!("{kills} kills, {acks} acked writes, none lost");
    });
}

#[test]
fn a05_a_file_left_by_a_killed_process_is_recovered_by_two_openers_at_once() {
    within(HANG, || {
        for _ in 0..count(5, 50) {
            let dir = Dir::new();
            let file = dir.file("test.db");
            let mut child = Process::start("writer", &file);
            while child.line().as_deref().and_then(acked).is_none() {}
            child.kill();
            // Two processes, because in one process only one instance may have the file open (A36).
            let mut openers = [(); 2].map(|()| Process::start("recover", &file));
            openers.iter_mut().for_each(|opener| opener.wait_for("ready"));
            openers.iter_mut().for_each(Process::go);
            openers.iter_mut().for_each(|opener| opener.wait_for("recovered"));
        }
    });
}

#[test]
fn a16_a_lock_of_another_process_is_waited_for_and_named() {
    within(HANG, || {
        let dir = Dir::new();
        let file = dir.file("test.db");
        let db = open(&file);
        let mut holder = Process::start("lock", &file);
        holder.wait_for("locked");

        let write = db.write(|tx| write_parts(tx, 1, 1)).deadline(Duration::from_secs(1));
        let error = crate::support::block_on(write).expect_err("the lock is held");
        assert_eq!(error.kind(), ErrorKind::Timeout(Phase::Locked));
        // Readers do not wait for the lock, and do not see the holder's uncommitted row.
        assert_eq!(verify(&db), BTreeMap::new());

        let mut write = db.write(|tx| write_parts(tx, 1, 1));
        assert!(crate::support::poll_once(&mut write).is_pending());
        holder.stdin.write_all(b"release\n").expect("the child listens");
        holder.wait_for("released");
        crate::support::block_on(write).expect("the lock is free");
        assert_eq!(verify(&db), BTreeMap::from([(1, 1)]));
        db.blocking_close().expect("the database closes");
    });
}

#[test]
fn a05_a_process_killed_with_the_lock_gives_it_up_and_leaves_nothing() {
    within(HANG, || {
        let dir = Dir::new();
        let file = dir.file("test.db");
        let db = open(&file);
        let mut holder = Process::start("lock", &file);
        holder.wait_for("locked");
        let mut write = db.write(|tx| write_parts(tx, 1, 1));
        assert!(crate::support::poll_once(&mut write).is_pending());
        holder.kill();
        crate::support::block_on(write).expect("the lock is free");
        assert_eq!(verify(&db), BTreeMap::from([(1, 1)]));
        db.blocking_close().expect("the database closes");
    });
}

#[test]
fn a01_two_processes_that_write_at_once_both_get_through() {
    within(HANG, || {
        let dir = Dir::new();
        let file = dir.file("test.db");
        let db = open(&file);
        let mut other = Process::start("some", &file);
        other.wait_for("open");
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let db = &db;
                scope.spawn(move || {
                    for call in 1..=50 {
                        db.blocking_write(move |tx| write_parts(tx, client, call))
                            .expect("it is stored");
                    }
                });
            }
        });
        other.wait_for("done");
        let mut expected: BTreeMap<i64, i64> = (0..CLIENTS).map(|client| (client, 50)).collect();
        expected.insert(100, 200);
        assert_eq!(verify(&db), expected);
        db.blocking_close().expect("the database closes");
    });
}
