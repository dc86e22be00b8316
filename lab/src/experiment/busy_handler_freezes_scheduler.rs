//! A busy handler sleeps inside SQLite, and blocks the thread that runs all tasks.

use std::path::Path;
use std::time::Duration;

use measure::{Holder, Lateness, Ticker};
use rusqlite::Connection;

use super::{Story, one_thread};
use crate::Result;
use crate::plot::{Axis, Line, figure, lines};

const TABLE: &str = "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT) STRICT";
const WRITE: &str = "INSERT INTO note (text) VALUES ('x')";
const HELD: Duration = Duration::from_secs(1);

pub(crate) fn run(story: &mut Story) -> Result<()> {
    story.say(
        "Another process holds the write lock for a second. One task writes; another only wants to",
    );
    story.say("wake each millisecond. With SQLite called in the task, the busy handler sleeps in its thread.");
    let file = story.file("naive.db", TABLE)?;
    let naive = one_thread()?.block_on(async {
        let conn = Connection::open(&file)?;
        conn.busy_timeout(Duration::from_secs(30))?;
        beside_a_lock(&file, async move { Ok(conn.execute(WRITE, []).map(drop)?) }).await
    })?;
    story.failure(
        naive.worst_ms > 800.0,
        &format!("the other task was {} ms late", figure(naive.worst_ms)),
    );

    story.say("With Lockkeeper the writer thread waits for the lock, and the task for the writer.");
    let file = story.file("ours.db", TABLE)?;
    let db = lockkeeper::Database::blocking_open(&file)?;
    let ours = one_thread()?.block_on(async {
        let writer = db.clone();
        let write = async move { Ok(writer.write(|tx| tx.execute(WRITE, [])).await.map(drop)?) };
        beside_a_lock(&file, write).await
    })?;
    db.blocking_close()?;
    // The machine itself may cause some lateness. A tenth of the time for which the lock is held is still far from the
    // failure.
    story.cure(
        ours.worst_ms < 100.0,
        &format!("the other task was {} ms late at worst", figure(ours.worst_ms)),
    );
    let line = |name: &str, late: Lateness, colour, bold| Line {
        name: name.to_owned(),
        points: late.series,
        colour,
        bold,
    };
    story.plot(&lines(
        "A 1 ms ticker while another process holds the lock",
        "milliseconds late, logarithmic",
        &seconds(1.3),
        &[line("in the task", naive, 1, false), line("Lockkeeper", ours, 0, true)],
    ))
}

/// An axis of seconds up to `until`. The points on it are in milliseconds.
pub(crate) fn seconds(until: f64) -> Axis {
    let step = if until > 1.5 { 0.5 } else { 0.25 };
    let marks = (0..=8).map(|n| f64::from(n) * step).filter(|s| *s <= until);
    Axis {
        name: "seconds since the lock was taken".to_owned(),
        marks: marks.map(|s| (s * 1e3, format!("{s}"))).collect(),
    }
}

async fn beside_a_lock(
    file: &Path,
    write: impl Future<Output = Result<()>> + Send + 'static,
) -> Result<Lateness> {
    let mut holder = Holder::start(&std::env::current_exe()?, file)?;
    holder.take()?;
    let release = tokio::task::spawn_blocking(move || {
        // The lock is held for this time on purpose.
        std::thread::sleep(HELD);
        holder.release()
    });
    let write = tokio::spawn(write);
    let late = Ticker::run(HELD + Duration::from_millis(300)).await;
    release.await??;
    write.await??;
    Ok(late)
}
