//! A queue is closed while requests wait in it. They must still be answered.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use lockkeeper::Database;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{Story, runtime};
use crate::Result;
use crate::plot::{Bar, bars};

const TABLE: &str = "CREATE TABLE note (id INTEGER PRIMARY KEY) STRICT";
const INSERT: &str = "INSERT INTO note VALUES (?1)";
const REQUESTS: i64 = 200;
/// How long the experiment waits for an answer that never comes.
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) fn run(story: &mut Story) -> Result<()> {
    story.say("A database thread takes requests from a queue until it is told to close. 200 requests wait");
    story.say("behind one that is running when it is told so.");
    let runtime = runtime()?;
    let file = story.file("queue.db", TABLE)?;
    let answered = runtime.block_on(by_hand(Connection::open(&file)?))?;
    let silent = REQUESTS - answered;
    story.failure(silent > 0, &format!("{silent} of {REQUESTS} callers were never told anything"));

    story.say(
        "Lockkeeper serves what it has accepted, then closes; what comes later is refused at once.",
    );
    let db = story.database("ours.db", TABLE)?;
    let (ours, late) = runtime.block_on(ours(&db))?;
    let rows: i64 = Connection::open(story.place.file("ours.db"))?.query_row(
        "SELECT count(*) FROM note",
        [],
        |row| row.get(0),
    )?;
    story.cure(
        ours == REQUESTS && rows == REQUESTS,
        &format!("{ours} of {REQUESTS} callers were answered, {rows} rows are stored"),
    );
    story.cure(late, "a write after the close is told that the database is closed");
    story.plot(&bars(
        "Callers that were never told anything",
        "of 200 that waited when the queue was closed",
        &[
            Bar::new("queue by hand", silent as f64, 1),
            Bar::new("Lockkeeper", (REQUESTS - ours) as f64, 0),
        ],
    ))
}

/// A common way to write such a queue. The worker checks the flag first, so waiting requests are forgotten.
#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// At most 201 requests in this experiment.
    waiting: VecDeque<Request>,
    closed: bool,
}

type Request = (i64, Option<std::sync::mpsc::Receiver<()>>, oneshot::Sender<bool>);

impl Queue {
    fn push(&self, request: Request) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).waiting.push_back(request);
        self.changed.notify_one();
    }

    fn serve(&self, conn: &Connection) {
        loop {
            let (id, hold, answer) = {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                loop {
                    if state.closed {
                        return;
                    }
                    if let Some(request) = state.waiting.pop_front() {
                        break request;
                    }
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            };
            if let Some(hold) = hold {
                let _ = hold.recv();
            }
            let _ = answer.send(conn.execute(INSERT, [id]).is_ok());
        }
    }

    fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.changed.notify_all();
    }
}

async fn by_hand(conn: Connection) -> Result<i64> {
    let queue = Arc::new(Queue::default());
    let (release, hold) = std::sync::mpsc::sync_channel(1);
    let (sender, running) = oneshot::channel();
    queue.push((-1, Some(hold), sender));
    let mut answers = Vec::new();
    for id in 0..REQUESTS {
        let (sender, answer) = oneshot::channel();
        queue.push((id, None, sender));
        answers.push(answer);
    }
    let worker = std::thread::Builder::new().name("queue".to_owned()).spawn({
        let queue = Arc::clone(&queue);
        move || queue.serve(&conn)
    })?;
    // The worker has taken the first request and waits in it, so `closed` is set while that request runs.
    while queue.state.lock().unwrap_or_else(PoisonError::into_inner).waiting.len() > 200 {
        tokio::task::yield_now().await;
    }
    queue.close();
    release.send(())?;
    if !running.await? {
        return Err("the request that was running must be answered".into());
    }
    worker.join().map_err(|_| "the worker panicked")?;
    let until = tokio::time::Instant::now() + PATIENCE;
    let mut answered = 0;
    for answer in answers {
        answered += i64::from(tokio::time::timeout_at(until, answer).await.is_ok());
    }
    Ok(answered)
}

async fn ours(db: &Database) -> Result<(i64, bool)> {
    let (release, hold) = std::sync::mpsc::sync_channel::<()>(1);
    let (entered, inside) = oneshot::channel();
    let first = tokio::spawn({
        let db = db.clone();
        async move {
            db.write_once(move |_| {
                let _ = entered.send(());
                let _ = hold.recv();
                Ok(())
            })
            .await
        }
    });
    inside.await?;
    let mut writes = Vec::new();
    for id in 0..REQUESTS {
        // Each write is submitted immediately, because the queue has room for 1,024.
        let write = db.try_write(move |tx| tx.execute(INSERT, [id]));
        writes.push(write.map_err(|_| "there is room for 200 writes")?);
    }
    let close = tokio::spawn(db.close());
    // Once a new write is refused, closing has begun.
    let late = loop {
        match db.try_write(|tx| tx.execute(INSERT, [-1])) {
            Err(refused) => break refused.reason == lockkeeper::RefusedReason::Closed,
            // The write was accepted before closing began. Dropping its future withdraws the write.
            Ok(accepted) => drop(accepted),
        }
        tokio::task::yield_now().await;
    };
    release.send(())?;
    first.await??;
    let mut answered = 0;
    for write in writes {
        answered += i64::from(write.await.is_ok());
    }
    close.await??;
    Ok((answered, late))
}
