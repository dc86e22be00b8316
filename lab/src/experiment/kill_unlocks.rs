//! A lock that is a row in a table stays locked when its owner is killed; SQLite's own lock does not.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lockkeeper::Database;
use rusqlite::Connection;

use super::Story;
use crate::Result;
use crate::plot::{Bar, bars, figure};

const TABLE: &str = "CREATE TABLE note (id INTEGER PRIMARY KEY) STRICT; \
                     CREATE TABLE lock (name TEXT PRIMARY KEY) STRICT";
const PATIENCE: Duration = Duration::from_millis(1500);

pub(crate) fn run(story: &mut Story) -> Result<()> {
    story.say("A process takes a lock that is a row in a table, as many programs do across statements, and is");
    story.say("killed before it can delete it.");
    let file = story.file("row.db", TABLE)?;
    let mut victim = start("lock-row", &file)?;
    kill(&mut victim)?;
    let conn = Connection::open(&file)?;
    let began = Instant::now();
    let mut taken = false;
    while !taken && began.elapsed() < PATIENCE {
        taken = conn.execute("INSERT OR IGNORE INTO lock VALUES ('build')", [])? == 1;
        // A lock that is a row in a table can only be polled.
        std::thread::sleep(Duration::from_millis(5));
    }
    let waited = began.elapsed().as_secs_f64() * 1e3;
    story.failure(!taken, &format!("{} ms after the kill it is still locked", figure(waited)));

    story.say("A process that uses Lockkeeper is killed inside a write, after one that was answered, while");
    story.say("this process waits for the lock.");
    let file = story.file("ours.db", TABLE)?;
    let db = Database::blocking_open(&file)?;
    let mut victim = start("write", &file)?;
    let (waits, waiting) = std::sync::mpsc::sync_channel(1);
    let (answered, killed) = std::thread::scope(|scope| {
        let db = &db;
        let other = scope.spawn(move || {
            let _ = waits.send(());
            db.blocking_write(|tx| tx.execute("INSERT INTO note VALUES (3)", []))
                .map(|_| Instant::now())
        });
        waiting.recv()?;
        let killed = kill(&mut victim)?;
        let answered = other.join().map_err(|_| "the writer panicked")??;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((answered, killed))
    })?;
    let ours = answered.saturating_duration_since(killed).as_secs_f64() * 1e3;
    let stored: Vec<i64> = db.blocking_read(|s| {
        s.prepare("SELECT id FROM note ORDER BY id")?.query_map([], |row| row.get(0))?.collect()
    })?;
    db.blocking_close()?;
    story.cure(
        answered > killed && ours < 500.0,
        &format!("the waiting write was answered {} ms after the kill", figure(ours)),
    );
    story.cure(
        stored == [1, 3],
        &format!("stored: {stored:?}; 1 was answered, 2 was half done, 3 is ours"),
    );
    story.plot(&bars(
        "Locked after the kill",
        &format!("milliseconds; after {} nobody waited any longer", figure(waited)),
        &[Bar::new("a row as lock", waited, 1), Bar::new("Lockkeeper", ours, 0)],
    ))
}

/// The process that is killed. It prints `inside` when it holds the lock.
pub(crate) fn victim(way: &str, file: &Path) -> Result<()> {
    match way {
        "lock-row" => {
            Connection::open(file)?.execute("INSERT INTO lock VALUES ('build')", [])?;
            inside();
        }
        "write" => {
            let db = Database::blocking_open(file)?;
            db.blocking_write(|tx| tx.execute("INSERT INTO note VALUES (1)", []))?;
            db.blocking_write(|tx| {
                tx.execute("INSERT INTO note VALUES (2)", [])?;
                inside();
                Ok(())
            })?;
        }
        way => return Err(format!("there is no way `{way}` to be killed").into()),
    }
    Err("still alive".into())
}

fn inside() {
    println!("inside");
    let _ = std::io::stdout().flush();
    // If nobody kills the process, it ends when the parent closes the pipe.
    let _ = std::io::stdin().read_line(&mut String::new());
}

/// Starts the process, and returns when it has printed `inside`.
fn start(way: &str, file: &Path) -> Result<Child> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["victim", way])
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let out = child.stdout.take().ok_or("no pipe")?;
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    if line.trim_end() == "inside" {
        return Ok(child);
    }
    let _ = child.kill();
    let _ = child.wait();
    Err(format!("the victim said `{}`", line.trim_end()).into())
}

fn kill(child: &mut Child) -> Result<Instant> {
    let at = Instant::now();
    child.kill()?;
    child.wait()?;
    Ok(at)
}
