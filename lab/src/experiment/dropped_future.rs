//! A future is dropped between BEGIN and COMMIT, by a timeout or because its client has left.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lockkeeper::Database;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{Story, one_thread};
use crate::Result;
use crate::plot::{Bar, bars};

const TABLE: &str = "CREATE TABLE note (id INTEGER PRIMARY KEY) STRICT";
const ENDLESS: &str = "INSERT INTO note WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n) \
                       SELECT i FROM n";
const AFTER: i64 = 20;

pub(crate) fn run(story: &mut Story) -> Result<()> {
    story.say("A request begins a transaction, inserts, awaits an answer from elsewhere, and is dropped there.");
    story.say("Then twenty more requests write.");
    let file = story.file("shared.db", TABLE)?;
    let (told, stored) = one_thread()?.block_on(transaction_over_await(&file))?;
    story.failure(
        stored < AFTER,
        &format!("{told} of the twenty were told that all is well, {stored} are stored"),
    );

    story
        .say("With Lockkeeper: one write is dropped while it waits, one while its statement runs.");
    let db = story.database("ours.db", TABLE)?;
    let (our_told, rows, others) = one_thread()?.block_on(ours(&db))?;
    db.blocking_close()?;
    story.cure(others == 0, &format!("{others} rows are there of the writes that were dropped"));
    story.cure(
        our_told == AFTER && rows == AFTER,
        &format!("{our_told} of the twenty after it were told that all is well, {rows} are stored"),
    );
    story.plot(&bars(
        "Twenty writes after a dropped one",
        "stored, of 20",
        &[
            Bar::new("told: connection", told as f64, 1),
            Bar::new("stored: connection", stored as f64, 1),
            Bar::new("told: Lockkeeper", our_told as f64, 0),
            Bar::new("stored: Lockkeeper", rows as f64, 0),
        ],
    ))
}

async fn transaction_over_await(file: &Path) -> Result<(i64, i64)> {
    let conn = Arc::new(Mutex::new(Connection::open(file)?));
    let run = |conn: &Mutex<Connection>, sql: &str| {
        conn.lock().unwrap_or_else(PoisonError::into_inner).execute_batch(sql)
    };
    let (_elsewhere, answer) = oneshot::channel::<()>();
    let request = {
        let conn = Arc::clone(&conn);
        async move {
            run(&conn, "BEGIN")?;
            run(&conn, "INSERT INTO note VALUES (0)")?;
            let _ = answer.await;
            run(&conn, "COMMIT")
        }
    };
    if tokio::time::timeout(Duration::from_millis(50), request).await.is_ok() {
        return Err("the answer from elsewhere never comes".into());
    }
    let told = (1..=AFTER)
        .filter(|id| run(&conn, &format!("INSERT INTO note VALUES ({id})")).is_ok())
        .count();
    // The program ends. Its connection is closed, and the open transaction is rolled back.
    drop(conn);
    let stored =
        Connection::open(file)?
            .query_row("SELECT count(*) FROM note WHERE id > 0", [], |row| row.get(0))?;
    Ok((i64::try_from(told)?, stored))
}

async fn ours(db: &Database) -> Result<(i64, i64, i64)> {
    let running = db.write(|tx| tx.execute(ENDLESS, []));
    let waiting = db.write(|tx| tx.execute("INSERT INTO note VALUES (0)", []));
    let both = async { tokio::join!(running, waiting) };
    // The running statement never ends, so the timeout always drops both futures.
    if tokio::time::timeout(Duration::from_millis(50), both).await.is_ok() {
        return Err("the endless write ended".into());
    }
    let mut told = 0;
    for id in 1..=AFTER {
        told += i64::from(
            db.write(move |tx| tx.execute("INSERT INTO note VALUES (?1)", [id])).await.is_ok(),
        );
    }
    let count = |sql: &'static str| db.read(move |s| s.query_row(sql, [], |row| row.get(0)));
    let rows = count("SELECT count(*) FROM note WHERE id BETWEEN 1 AND 20").await?;
    let others = count("SELECT count(*) FROM note WHERE id NOT BETWEEN 1 AND 20").await?;
    Ok((told, rows, others))
}
