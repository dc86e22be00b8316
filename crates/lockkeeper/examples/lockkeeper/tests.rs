//! What the tool prints, and which files it leaves.
#![expect(clippy::disallowed_methods, reason = "other programs open files in their own way")]

use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Parser;
use lockkeeper::rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::stop::Stop;
use crate::{Answer, Arguments, execute, file};

const CHILD: &str = "LOCKKEEPER_TOOL_ARGUMENTS";

/// Does nothing as a test. In a process of its own it runs the tool.
#[test]
fn child() {
    let Ok(words) = std::env::var(CHILD) else { return };
    let arguments = Arguments::parse_from(["lockkeeper"].into_iter().chain(words.split('\n')));
    let stop = Stop::default();
    stop.listen();
    let status = crate::run(&arguments, &stop);
    std::process::exit(i32::from(status != std::process::ExitCode::SUCCESS));
}

/// The tool, ready to run in a process of its own.
fn tool(words: &[&str]) -> Process {
    let mut process = Process::new(std::env::current_exe().expect("this test"));
    process.args(["--exact", "tests::child", "--nocapture", "--quiet"]);
    process.env(CHILD, words.join("\n")).stdout(Stdio::piped()).stderr(Stdio::piped());
    process
}

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.0.path())
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// A database in WAL mode with some rows. No connection has it open.
    fn database(&self, name: &str) -> PathBuf {
        let file = self.file(name);
        let conn = Connection::open(&file).expect("opens");
        fill(&conn);
        file
    }
}

fn fill(conn: &Connection) {
    conn.execute_batch(
        "PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB);
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100)
         INSERT INTO t SELECT i, randomblob(1000) FROM n",
    )
    .expect("rows");
}

fn ask(words: &[&str], path: &Path) -> Result<Answer, String> {
    ask_until(words, path, &Stop::default())
}

fn ask_until(words: &[&str], path: &Path, stop: &Stop) -> Result<Answer, String> {
    let path = path.to_str().expect("a path in UTF-8");
    let words =
        ["lockkeeper"].iter().chain(words).map(|word| if *word == "@" { path } else { word });
    let arguments = Arguments::try_parse_from(words).expect("right arguments");
    execute(&arguments.command, stop).map_err(|error| error.to_string())
}

#[test]
fn inspecting_and_copying_leave_nothing_beside_a_file() {
    let dir = Dir::new();
    let file = dir.database("app.db");
    let before = std::fs::read(&file).expect("bytes");
    let Answer { facts, good } = ask(&["inspect", "@"], &file).expect("facts");
    assert!(good && facts["integrity_check"] == serde_json::json!(["ok"]), "{facts:?}");
    assert_eq!((&facts["journal_mode"], &facts["tables"]), (&"wal".into(), &1.into()));
    assert_eq!(dir.names(), ["app.db"]);
    assert!(std::fs::read(&file).expect("bytes") == before);
    let copy = dir.file("copy.db");
    ask(&["backup", "@", copy.to_str().expect("a path")], &file).expect("a backup");
    ask(&["inspect", "@", "--quick"], &copy).expect("facts");
    // The restore would be refused if a command had left a WAL, because the file would seem to be in use.
    ask(&["restore", copy.to_str().expect("a path"), "@"], &file).expect("restored");
    ask(&["checkpoint", "@"], &dir.database("other.db")).expect("folded back");
    assert_eq!(dir.names(), ["app.db", "copy.db", "other.db"]);
}

#[test]
fn a_file_that_is_wrong_is_told_with_its_name_and_a_remedy() {
    let dir = Dir::new();
    std::fs::write(dir.file("text.txt"), "hello\n".repeat(1000)).expect("a file");
    std::fs::write(dir.file("empty.db"), "").expect("a file");
    std::fs::create_dir(dir.file("dir")).expect("a directory");
    let whole = std::fs::read(dir.database("app.db")).expect("bytes");
    std::fs::write(dir.file("cut.db"), &whole[..5000]).expect("a file");
    let copy = dir.file("copy.db");
    let copy = copy.to_str().expect("a path");
    for (name, remedy, in_copies) in [
        ("text.txt", "no SQLite database", "not a database"),
        ("empty.db", "was it cut off?", "was it cut off?"),
        ("dir", "name a file", "name a file"),
        ("cut.db", "restore a backup", "malformed"),
        ("none.db", "No such file", "No such file"),
    ] {
        let file = dir.file(name);
        for words in [&["inspect", "@"][..], &["checkpoint", "@"], &["backup", "@", copy]] {
            let Err(text) = ask(words, &file) else { panic!("{words:?} of {name} is well") };
            let remedy = if words[0] == "backup" { in_copies } else { remedy };
            assert!(text.contains(remedy) && text.contains(name), "{words:?}: {text}");
        }
    }
    let Err(text) = ask(&["backup", "@", "/no/such/copy.db"], &dir.file("app.db")) else {
        panic!("there is no such directory")
    };
    assert!(text.contains("there is no such directory"), "{text}");
    let Err(text) = ask(&["bench", "@"], &dir.file("none")) else { panic!("no directory") };
    assert!(text.contains("there is no such directory"), "{text}");
    assert_eq!(dir.names(), ["app.db", "cut.db", "dir", "empty.db", "text.txt"]);
}

#[test]
fn a41_however_a_file_is_named_its_wal_is_found_and_urls_are_refused() {
    let dir = Dir::new();
    let running = Connection::open(dir.file("file:app.db")).expect("opens");
    fill(&running);
    let wal = std::fs::metadata(dir.file("file:app.db-wal")).expect("a WAL").len();
    std::fs::create_dir(dir.file("sub")).expect("a directory");
    std::os::unix::fs::symlink("../file:app.db", dir.file("sub/link")).expect("a link");
    std::os::unix::fs::symlink(dir.file("sub/link"), dir.file("chain")).expect("a link");
    let here = std::env::current_dir().expect("a directory");
    let up: PathBuf = here.components().skip(1).map(|_| "..").collect();
    let from_here = up.join(dir.file("file:app.db").strip_prefix("/").expect("absolute"));
    for name in ["file:app.db", "./file:app.db", "sub/../file:app.db", "sub//link", "chain"] {
        let Answer { facts, good } = ask(&["inspect", "@"], &dir.file(name)).expect(name);
        assert!(good && facts["wal_bytes"] == serde_json::json!(wal), "{name}: {facts:?}");
    }
    ask(&["inspect", "@"], &from_here).expect("a relative path");
    for url in ["file:app.db", "file:app.db?nolock=1", "sqlite:app.db", "FILE:app.db"] {
        let url = Path::new(url);
        let copy = dir.file("copy.db");
        let copy = copy.to_str().expect("a path");
        for words in [
            &["inspect", "@"][..],
            &["checkpoint", "@"],
            &["backup", "@", copy],
            &["backup", copy, "@"],
            &["restore", "@", copy],
            &["restore", copy, "@"],
        ] {
            let Err(text) = ask(words, url) else { panic!("{words:?} of {url:?} is well") };
            assert!(text.contains("write `app.db`"), "{words:?}: {text}");
        }
    }
    assert_eq!(dir.names(), ["chain", "file:app.db", "file:app.db-shm", "file:app.db-wal", "sub"]);
}

#[test]
fn a43_a_backup_replaces_nothing_that_is_no_database() {
    let dir = Dir::new();
    let file = dir.database("app.db");
    std::fs::write(dir.file("notes.txt"), "mine\n").expect("a file");
    std::os::unix::fs::symlink("notes.txt", dir.file("link")).expect("a link");
    std::os::unix::net::UnixListener::bind(dir.file("socket")).expect("a socket");
    for target in ["notes.txt", "link", "socket", "app.db-wal", "app.db"] {
        let target = dir.file(target);
        for command in ["backup", "restore"] {
            let words = [command, "@", target.to_str().expect("a path")];
            let Err(text) = ask(&words, &file) else { panic!("{target:?} was replaced") };
            assert!(text.contains("app.db") || text.contains("name "), "{text}");
        }
    }
    assert_eq!(std::fs::read(dir.file("notes.txt")).expect("bytes"), b"mine\n");
    assert_eq!(dir.names(), ["app.db", "link", "notes.txt", "socket"]);
}

#[test]
fn a_file_that_is_in_use_is_left_alone_and_its_holder_is_named() {
    let dir = Dir::new();
    let file = dir.file("app.db");
    let conn = Connection::open(&file).expect("opens");
    fill(&conn);
    let wal = std::fs::read(dir.file("app.db-wal")).expect("bytes");
    let Answer { facts, good } = ask(&["inspect", "@"], &file).expect("facts");
    assert!(good && facts["wal_bytes"] == serde_json::json!(wal.len()), "{facts:?}");
    assert!(std::fs::read(dir.file("app.db-wal")).expect("bytes") == wal, "it was touched");
    // Another process sees that this process has the file open.
    let output = tool(&["inspect", file.to_str().expect("a path"), "--json"]).output();
    let facts = json_of(&output.expect("it runs").stdout);
    let me = format!("(pid {})", std::process::id());
    assert!(facts["open_in"].to_string().contains(&me), "{facts}");
    let copy = dir.file("copy.db");
    let copy = copy.to_str().expect("a path");
    ask(&["backup", "@", copy], &file).expect("a backup beside its user");
    let Err(text) = ask(&["restore", copy, "@"], &file) else { panic!("it is in use") };
    assert!(text.contains("app.db-wal"), "{text}");
    // The text for a lock that was not released in time.
    let other = Connection::open(&file).expect("opens");
    other.busy_timeout(Duration::ZERO).expect("no patience");
    conn.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let locked = other.execute_batch("BEGIN IMMEDIATE").expect_err("the other has it");
    assert!(file::explained(&file, &locked).contains("it is locked"), "{locked}");
}

#[test]
fn a_wal_that_a_crash_has_left_is_told_and_folded_back() {
    let dir = Dir::new();
    let running = Connection::open(dir.file("running.db")).expect("opens");
    fill(&running);
    // A crash leaves the files as they are.
    let file = dir.file("app.db");
    std::fs::copy(dir.file("running.db"), &file).expect("a file");
    std::fs::copy(dir.file("running.db-wal"), dir.file("app.db-wal")).expect("a file");
    let wal = std::fs::read(dir.file("app.db-wal")).expect("bytes");
    let Answer { facts, good } = ask(&["inspect", "@"], &file).expect("facts");
    assert!(
        good && facts["tables"] == serde_json::json!(1),
        "what is in the WAL counts: {facts:?}"
    );
    assert!(facts["notes"].to_string().contains("left by a crash"), "{facts:?}");
    assert!(std::fs::read(dir.file("app.db-wal")).expect("bytes") == wal, "it was touched");
    let Answer { facts, good } = ask(&["checkpoint", "@"], &file).expect("facts");
    assert!(good && facts["emptied"] == serde_json::json!(true), "{facts:?}");
    assert!(!dir.file("app.db-wal").exists());
    let Answer { facts, .. } = ask(&["inspect", "@"], &file).expect("facts");
    assert_eq!(facts["wal_bytes"], serde_json::json!(0));
}

#[test]
fn what_is_stopped_leaves_what_was_there() {
    let dir = Dir::new();
    let file = dir.database("app.db");
    let copy = dir.file("copy.db");
    ask(&["backup", "@", copy.to_str().expect("a path")], &file).expect("a backup");
    let before = std::fs::read(&copy).expect("bytes");
    let stop = Stop::default();
    stop.0.store(true, Ordering::Relaxed);
    let words = ["backup", "@", copy.to_str().expect("a path")];
    let Err(text) = ask_until(&words, &file, &stop) else { panic!("it went on") };
    assert!(text.contains("stopped"), "{text}");
    assert!(std::fs::read(&copy).expect("bytes") == before);
    assert_eq!(dir.names(), ["app.db", "copy.db"]);
    let Err(text) = ask_until(&["bench", "@"], dir.0.path(), &stop) else { panic!("it went on") };
    assert!(text.contains("stopped"), "{text}");
    assert_eq!(dir.names(), ["app.db", "copy.db"]);
}

#[test]
fn ctrl_c_ends_a_bench_and_cleans_up() {
    let dir = Dir::new();
    let path = dir.0.path().to_str().expect("a path");
    let began = Instant::now();
    let mut bench = tool(&["bench", path, "--mib", "1", "--seconds", "3600", "--writers", "2"])
        .spawn()
        .expect("it runs");
    while dir.names().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60), "it does not begin");
        std::thread::yield_now();
    }
    let pid = Pid::from_raw(bench.id().try_into().expect("a process")).expect("not 0");
    kill_process(pid, Signal::INT).expect("it is there");
    let status = bench.wait().expect("it ends");
    assert_eq!(status.code(), Some(1));
    assert!(began.elapsed() < Duration::from_secs(600));
    assert_eq!(dir.names(), [""; 0], "the directory it measured in");
}

/// The JSON that the tool printed. The test runner prints other text before it.
fn json_of(output: &[u8]) -> Value {
    let text = String::from_utf8_lossy(output);
    let json = text.lines().find_map(|line| line.find('{').map(|at| &line[at..]));
    serde_json::from_str(json.expect("a line of JSON")).expect("JSON")
}

#[test]
fn json_is_one_line_also_for_errors_and_the_status_tells() {
    let dir = Dir::new();
    let (good, bad) = (dir.database("app.db"), dir.file("none.db"));
    for (file, status, key) in [(good, 0, "integrity_check"), (bad, 1, "error")] {
        let words = ["--json", "inspect", file.to_str().expect("a path")];
        let output = tool(&words).output().expect("it runs");
        assert_eq!(output.status.code(), Some(status));
        assert!(json_of(&output.stdout).get(key).is_some());
    }
}
