//! One database thread with one connection: a slow query delays all queries behind it.

use std::future::Future;
use std::time::{Duration, Instant};

use async_sqlite::{Pool, PoolBuilder};

use super::{Story, runtime};
use crate::Result;
use crate::plot::{Axis, Line, figure, lines};

const TABLE: &str = "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT) STRICT; \
                     INSERT INTO note VALUES (1, 'x')";
/// A query that takes one or two seconds.
const SLOW: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 6000000) \
                    SELECT count(*) FROM n";
const QUICK: &str = "SELECT text FROM note WHERE id = 1";

pub(crate) fn run(story: &mut Story) -> Result<()> {
    story.say("A database thread with one connection and a queue. Somebody asks for a slow report; all the");
    story.say("while others look up single rows.");
    let runtime = runtime()?;
    let file = story.file("one.db", TABLE)?;
    let (one, slow) = runtime.block_on(async {
        let pool = PoolBuilder::new().path(&file).num_conns(1).open().await?;
        let (slow, quick) = (pool.clone(), pool.clone());
        let slow = async move { ask(&slow, SLOW).await.map(drop) };
        let series = beside(slow, move || {
            let quick = quick.clone();
            async move { ask(&quick, QUICK).await.map(drop) }
        })
        .await?;
        pool.close().await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(series)
    })?;
    let longest = longest(&one);
    story.failure(
        longest > 0.5 * slow && slow > 200.0,
        &format!(
            "a lookup took {} ms, because the report took {} ms",
            figure(longest),
            figure(slow)
        ),
    );

    story.say("With Lockkeeper a slow read takes one reader thread, and the others go on.");
    let db = story.database("ours.db", TABLE)?;
    let (ours, our_slow) = runtime.block_on(async {
        let (slow, quick) = (db.clone(), db.clone());
        let slow = async move {
            slow.read(|s| s.query_row(SLOW, [], |row| row.get::<_, i64>(0))).await?;
            Ok(())
        };
        beside(slow, move || {
            let quick = quick.clone();
            async move {
                quick.read(|s| s.query_row(QUICK, [], |row| row.get::<_, String>(0))).await?;
                Ok(())
            }
        })
        .await
    })?;
    db.blocking_close()?;
    let our_longest = self::longest(&ours);
    story.cure(
        our_longest < our_slow / 4.0,
        &format!(
            "the slowest of {} lookups took {} ms beside a report of {} ms",
            ours.len(),
            figure(our_longest),
            figure(our_slow)
        ),
    );
    let until = slow.max(our_slow) / 1e3;
    let axis = Axis {
        name: "seconds since the report was asked for".to_owned(),
        marks: (0..=5)
            .map(|n| f64::from(n) * until / 5.0)
            .map(|s| (s * 1e3, format!("{s:.1}")))
            .collect(),
    };
    story.plot(&lines(
        "Lookups beside a slow report",
        "milliseconds each, logarithmic",
        &axis,
        &[
            Line { name: "one thread".into(), points: one, colour: 1, bold: false },
            Line { name: "Lockkeeper".into(), points: ours, colour: 0, bold: true },
        ],
    ))
}

async fn ask(pool: &Pool, sql: &'static str) -> Result<String> {
    Ok(pool
        .conn(move |conn| {
            conn.query_row(sql, [], |row| {
                row.get::<_, rusqlite::types::Value>(0).map(|value| format!("{value:?}"))
            })
        })
        .await?)
}

/// The duration of the slow query, and, for each quick query beside it, when it was sent and how long it took.
async fn beside<Q>(
    slow: impl Future<Output = Result<()>> + Send + 'static,
    mut quick: impl FnMut() -> Q + Send + 'static,
) -> Result<(Vec<(f64, f64)>, f64)>
where
    Q: Future<Output = Result<()>> + Send,
{
    let began = Instant::now();
    let slow = tokio::spawn(async move {
        slow.await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(began.elapsed())
    });
    let mut series = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    while !slow.is_finished() {
        ticks.tick().await;
        let asked = Instant::now();
        quick().await?;
        series.push(((asked - began).as_secs_f64() * 1e3, asked.elapsed().as_secs_f64() * 1e3));
    }
    Ok((series, slow.await??.as_secs_f64() * 1e3))
}

fn longest(series: &[(f64, f64)]) -> f64 {
    series.iter().map(|(_, took)| *took).fold(0.0, f64::max)
}
