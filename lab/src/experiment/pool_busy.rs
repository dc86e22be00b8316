//! `database is locked` from a pool, although every connection has a busy timeout.

use std::sync::Barrier;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, Transaction};

use super::{Story, runtime};
use crate::Result;
use crate::plot::{Bar, bars};

const TABLE: &str =
    "CREATE TABLE counter (n INTEGER NOT NULL) STRICT; INSERT INTO counter VALUES (0)";
const CALLERS: usize = 4;
const CALLS: usize = 100;

pub(crate) fn run(story: &mut Story) -> Result<()> {
    story.say(
        "Four connections of a pool, each with a busy timeout of five seconds, read a counter and",
    );
    story.say(
        "write it back, one above. A transaction that has read cannot become a writer once another",
    );
    story.say("has written; SQLite says so at once, because waiting could not help.");
    let file = story.file("pool.db", TABLE)?;
    let locked = pool(&file)?;
    let counted: i64 =
        Connection::open(&file)?.query_row("SELECT n FROM counter", [], |row| row.get(0))?;
    let all = CALLERS * CALLS;
    story.failure(locked > 0, &format!("`database is locked` for {locked} of {all} calls"));
    story.say(&format!("the counter stands at {counted}"));

    story.say("With Lockkeeper there is one writer, and every write begins as one.");
    let db = story.database("ours.db", TABLE)?;
    let (failed, ours) = runtime()?.block_on(async {
        let tasks: Vec<_> = (0..CALLERS)
            .map(|_| {
                let db = db.clone();
                tokio::spawn(async move {
                    let mut failed = 0;
                    for _ in 0..CALLS {
                        let call = db.write(|tx| {
                            let n: i64 = tx.query_row("SELECT n FROM counter", [], |r| r.get(0))?;
                            tx.execute("UPDATE counter SET n = ?1", [n + 1])
                        });
                        failed += usize::from(call.await.is_err());
                    }
                    failed
                })
            })
            .collect();
        let mut failed = 0;
        for task in tasks {
            failed += task.await?;
        }
        let n: i64 = db.read(|s| s.query_row("SELECT n FROM counter", [], |r| r.get(0))).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((failed, n))
    })?;
    db.blocking_close()?;
    story.cure(
        failed == 0 && usize::try_from(ours)? == all,
        &format!("{failed} calls failed, the counter stands at {ours}"),
    );
    story.plot(&bars(
        "`database is locked`",
        "calls that failed, of 400 by four callers",
        &[Bar::new("pool of four", locked as f64, 1), Bar::new("Lockkeeper", failed as f64, 0)],
    ))
}

fn pool(file: &std::path::Path) -> Result<usize> {
    let start = Barrier::new(CALLERS);
    let mut ready = Vec::new();
    for _ in 0..CALLERS {
        let conn = Connection::open(file)?;
        conn.busy_timeout(Duration::from_secs(5))?;
        ready.push(conn);
    }
    let locked = std::thread::scope(|scope| {
        let threads: Vec<_> = ready
            .into_iter()
            .map(|mut conn| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    let mut locked = 0;
                    for _ in 0..CALLS {
                        match conn.transaction().and_then(count) {
                            Ok(()) => {}
                            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                                locked += 1;
                            }
                            Err(error) => return Err(error),
                        }
                    }
                    Ok(locked)
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().map_err(|_| "a thread panicked")).collect::<Vec<_>>()
    });
    let mut sum = 0;
    for thread in locked {
        sum += thread??;
    }
    Ok(sum)
}

fn count(tx: Transaction<'_>) -> rusqlite::Result<()> {
    let n: i64 = tx.query_row("SELECT n FROM counter", [], |row| row.get(0))?;
    tx.execute("UPDATE counter SET n = ?1", [n + 1])?;
    tx.commit()
}
