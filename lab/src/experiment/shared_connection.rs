//! A transaction within a transaction: tasks that share a connection also share its transaction.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use super::{Story, one_thread};
use crate::Result;
use crate::plot::{Bar, bars};

const TABLE: &str = "CREATE TABLE note (id INTEGER PRIMARY KEY) STRICT";
const TASKS: i64 = 4;
const ROUNDS: i64 = 25;

pub(crate) fn run(story: &mut Story) -> Result<()> {
    story.say("Four tasks share one connection. Each begins a transaction, inserts a row, lets the others");
    story.say(
        "have a turn, as any await does, and commits; every fifth transaction is rolled back.",
    );
    let file = story.file("shared.db", TABLE)?;
    let (refused, wrong) = one_thread()?.block_on(shared(&file))?;
    story.failure(
        refused > 0,
        &format!("{refused} of 100 were refused: cannot start a transaction within a transaction"),
    );
    story.failure(
        wrong > 0,
        &format!(
            "{wrong} rows were rolled back with a neighbour's transaction, or stored by its commit"
        ),
    );

    story
        .say("With Lockkeeper each is a closure; the closures of all of them even share a commit.");
    let db = story.database("ours.db", TABLE)?;
    let (our_refused, our_wrong) = one_thread()?.block_on(ours(&db))?;
    db.blocking_close()?;
    story.cure(
        our_refused == 0 && our_wrong == 0,
        &format!("{our_refused} refused, {our_wrong} rows not as their own task was told"),
    );
    story.plot(&bars(
        "Four tasks on one connection",
        "100 transactions; none of these should happen",
        &[
            Bar::new("shared: refused", refused as f64, 1),
            Bar::new("shared: wrong rows", wrong as f64, 1),
            Bar::new("Lockkeeper: refused", our_refused as f64, 0),
            Bar::new("Lockkeeper: wrong rows", our_wrong as f64, 0),
        ],
    ))
}

fn is_kept(id: i64) -> bool {
    id % 5 != 0
}

async fn shared(file: &std::path::Path) -> Result<(u64, usize)> {
    let conn = Arc::new(Mutex::new(Connection::open(file)?));
    let refused = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (conn, refused) = (Arc::clone(&conn), Arc::clone(&refused));
            tokio::spawn(async move {
                // The mutex is held only for one statement, so nothing blocks, and the code looks right.
                let run = |sql: &str| {
                    conn.lock().unwrap_or_else(PoisonError::into_inner).execute_batch(sql)
                };
                let mut told = Vec::new();
                for round in 0..ROUNDS {
                    let id = task * ROUNDS + round;
                    if run("BEGIN").is_err() {
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                    let inserted = run(&format!("INSERT INTO note VALUES ({id})"));
                    tokio::task::yield_now().await;
                    let ended = run(if is_kept(id) { "COMMIT" } else { "ROLLBACK" });
                    if inserted.is_ok() && (ended.is_ok() || !is_kept(id)) {
                        told.push((id, is_kept(id)));
                    }
                }
                told
            })
        })
        .collect();
    let mut told = Vec::new();
    for task in tasks {
        told.extend(task.await?);
    }
    let stored = stored(&Connection::open(file)?)?;
    let wrong = told.iter().filter(|(id, kept)| stored.contains(id) != *kept).count();
    Ok((refused.load(Ordering::Relaxed), wrong))
}

async fn ours(db: &lockkeeper::Database) -> Result<(u64, usize)> {
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let db = db.clone();
            tokio::spawn(async move {
                let (mut told, mut refused) = (Vec::new(), 0);
                for round in 0..ROUNDS {
                    let id = task * ROUNDS + round;
                    let outcome = db
                        .write(move |tx| {
                            tx.execute("INSERT INTO note VALUES (?1)", [id])?;
                            // An error undoes only this call.
                            if is_kept(id) { Ok(()) } else { Err(rusqlite::Error::InvalidQuery) }
                        })
                        .await;
                    refused += u64::from(outcome.is_ok() != is_kept(id));
                    told.push((id, outcome.is_ok()));
                }
                (told, refused)
            })
        })
        .collect();
    let (mut told, mut refused) = (Vec::new(), 0);
    for task in tasks {
        let (more, not) = task.await?;
        told.extend(more);
        refused += not;
    }
    let stored: Vec<i64> = db
        .read(|s| s.prepare("SELECT id FROM note")?.query_map([], |row| row.get(0))?.collect())
        .await?;
    Ok((refused, told.iter().filter(|(id, kept)| stored.contains(id) != *kept).count()))
}

fn stored(conn: &Connection) -> Result<Vec<i64>> {
    let mut all = conn.prepare("SELECT id FROM note")?;
    Ok(all.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}
