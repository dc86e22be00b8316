//! A page whose two queries disagree, because a writer commits between them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::Connection;

use super::Story;
use crate::Result;
use crate::plot::{Bar, bars};

const TABLE: &str = "CREATE TABLE account (id INTEGER PRIMARY KEY, coins INTEGER NOT NULL) STRICT; \
                     INSERT INTO account VALUES (1, 500), (2, 500)";
const MOVE: &str = "UPDATE account SET coins = coins + CASE id WHEN 1 THEN ?1 ELSE -?1 END";
const ONE: &str = "SELECT coins FROM account WHERE id = ?1";
const PAGES: usize = 20_000;

pub(crate) fn run(story: &mut Story) -> Result<()> {
    story.say("A writer moves coins between two accounts that hold 1,000 together. A page shows both, with a");
    story.say("query for each.");
    let file = story.file("two.db", TABLE)?;
    let torn = two_queries(&file)?;
    story.failure(torn > 0, &format!("{torn} of {PAGES} pages did not add up"));

    story.say("With Lockkeeper both queries are in one read, and a read sees one state.");
    let db = story.database("ours.db", TABLE)?;
    let over = AtomicBool::new(false);
    let ours = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut coins = 1;
            while !over.load(Ordering::Relaxed) {
                coins = -coins;
                db.blocking_write(move |tx| tx.execute(MOVE, [coins]))?;
            }
            Ok::<_, lockkeeper::Error>(())
        });
        let torn = (0..PAGES).try_fold(0, |torn, _| {
            let coins: i64 = db.blocking_read(|s| {
                let one: i64 = s.query_row(ONE, [1], |row| row.get(0))?;
                let two: i64 = s.query_row(ONE, [2], |row| row.get(0))?;
                Ok(one + two)
            })?;
            Ok::<_, lockkeeper::Error>(torn + usize::from(coins != 1000))
        });
        over.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| "the writer panicked")??;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(torn?)
    })?;
    db.blocking_close()?;
    story.cure(ours == 0, &format!("{ours} of {PAGES} pages did not add up"));
    story.plot(&bars(
        "Pages whose queries disagree",
        "of 20,000, beside a busy writer",
        &[Bar::new("two queries", torn as f64, 1), Bar::new("Lockkeeper", ours as f64, 0)],
    ))
}

fn two_queries(file: &std::path::Path) -> Result<usize> {
    let over = AtomicBool::new(false);
    let (reader, writer) = (Connection::open(file)?, Connection::open(file)?);
    writer.busy_timeout(Duration::from_secs(5))?;
    std::thread::scope(|scope| {
        let over = &over;
        let writer = scope.spawn(move || {
            let mut coins = 1;
            while !over.load(Ordering::Relaxed) {
                coins = -coins;
                writer.execute(MOVE, [coins])?;
            }
            Ok::<_, rusqlite::Error>(())
        });
        let torn = (0..PAGES).try_fold(0, |torn, _| {
            let one: i64 = reader.query_row(ONE, [1], |row| row.get(0))?;
            let two: i64 = reader.query_row(ONE, [2], |row| row.get(0))?;
            Ok::<_, rusqlite::Error>(torn + usize::from(one + two != 1000))
        });
        over.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| "the writer panicked")??;
        Ok(torn?)
    })
}
