//! Repeating a call after `database is locked` works, but some callers starve: a later caller that tries at the right
//! moment goes first.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use measure::Latencies;
use rusqlite::{Connection, ErrorCode};

use super::{Story, runtime};
use crate::Result;
use crate::plot::{Axis, Line, figure, lines};

const TABLE: &str = "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT) STRICT";
const CALLERS: usize = 32;
const TIME: Duration = Duration::from_secs(3);

pub(crate) fn run(story: &mut Story) -> Result<()> {
    story.say("32 callers write for three seconds. Who meets a lock sleeps 1 ms, then 2, 4, and so on up to");
    story.say("1 s, and tries again: the longer one has waited, the more seldom one asks.");
    let file = story.file("retry.db", TABLE)?;
    let retry = retry(&file)?;
    let (half, longest) = (retry.at(0.5), retry.summary().max);
    story.failure(
        longest > 200.0 && longest > 100.0 * half,
        &format!("half waited at most {} ms, one waited {} ms", figure(half), figure(longest)),
    );

    story.say(
        "With Lockkeeper they stand in a queue and are served in their order, many by one commit.",
    );
    let db = story.database("ours.db", TABLE)?;
    let ours = runtime()?.block_on(ours(&db))?;
    db.blocking_close()?;
    let our_longest = ours.summary().max;
    story.cure(
        our_longest < longest / 4.0 && ours.count() > retry.count(),
        &format!(
            "half waited at most {} ms, the longest wait was {} ms; {} writes instead of {}",
            figure(ours.at(0.5)),
            figure(our_longest),
            figure(ours.count() as f64),
            figure(retry.count() as f64),
        ),
    );
    story.plot(&lines(
        "Waiting for one write among 32 callers",
        "milliseconds, logarithmic",
        &nines(),
        &[
            Line { name: "retry".into(), points: distribution(&retry), colour: 1, bold: false },
            Line { name: "Lockkeeper".into(), points: distribution(&ours), colour: 0, bold: true },
        ],
    ))
}

/// The axis of a distribution. At each mark the slower calls are ten times rarer.
pub(crate) fn nines() -> Axis {
    let marks = [(0.3, "50 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"), (4.0, "slowest")];
    Axis {
        name: "of the calls took no longer".to_owned(),
        marks: marks.map(|(x, text)| (x, text.to_owned())).to_vec(),
    }
}

/// The distribution of latencies along the axis [`nines`].
pub(crate) fn distribution(latencies: &Latencies) -> Vec<(f64, f64)> {
    let mut points: Vec<_> = (0..=20)
        .map(|n| 0.3 + f64::from(n) * 2.7 / 20.0)
        .map(|x| (x, latencies.at(1.0 - 10_f64.powf(-x))))
        .collect();
    points.push((4.0, latencies.summary().max));
    points
}

fn retry(file: &std::path::Path) -> Result<Latencies> {
    let all = Mutex::new(Latencies::default());
    let until = Instant::now() + TIME;
    let outcomes = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CALLERS)
            .map(|_| {
                let all = &all;
                scope.spawn(move || {
                    let conn = Connection::open(file)?;
                    conn.busy_timeout(Duration::ZERO)?;
                    let mut mine = Latencies::default();
                    while Instant::now() < until {
                        let began = Instant::now();
                        let mut nap = Duration::from_millis(1);
                        loop {
                            match conn.execute("INSERT INTO note (text) VALUES ('x')", []) {
                                Ok(_) => break,
                                Err(e)
                                    if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) =>
                                {
                                    // A call that was not served by the end has waited at least this long.
                                    if Instant::now() >= until {
                                        break;
                                    }
                                    std::thread::sleep(nap);
                                    nap = (nap * 2).min(Duration::from_secs(1));
                                }
                                Err(error) => return Err(error),
                            }
                        }
                        mine.add(began.elapsed());
                    }
                    all.lock().unwrap_or_else(PoisonError::into_inner).merge(&mine);
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().map_err(|_| "a thread panicked")).collect::<Vec<_>>()
    });
    for outcome in outcomes {
        outcome??;
    }
    Ok(all.into_inner().unwrap_or_else(PoisonError::into_inner))
}

async fn ours(db: &lockkeeper::Database) -> Result<Latencies> {
    let all = Arc::new(Mutex::new(Latencies::default()));
    let until = Instant::now() + TIME;
    let tasks: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (db, all) = (db.clone(), Arc::clone(&all));
            tokio::spawn(async move {
                let mut mine = Latencies::default();
                while Instant::now() < until {
                    let began = Instant::now();
                    db.write(|tx| tx.execute("INSERT INTO note (text) VALUES ('x')", [])).await?;
                    mine.add(began.elapsed());
                }
                all.lock().unwrap_or_else(PoisonError::into_inner).merge(&mine);
                Ok::<_, lockkeeper::Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    let all = all.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(all)
}
