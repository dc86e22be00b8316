//! A recursive mutex distinguishes threads, not tasks. Two tasks on one thread can both lock it, and a task that has
//! moved to another thread cannot unlock it.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::ThreadId;

use super::{Story, one_thread};
use crate::Result;
use crate::plot::{Bar, bars};

const TABLE: &str = "CREATE TABLE note (id INTEGER PRIMARY KEY) STRICT";
const TASKS: i64 = 8;

pub(crate) fn run(story: &mut Story) -> Result<()> {
    story.say("Eight tasks on one thread guard a connection with a recursive mutex and await something inside.");
    let inside = one_thread()?.block_on(guarded())?;
    story.failure(inside > 1, &format!("{inside} of them were inside at once"));

    story.say(
        "A task takes the mutex, awaits, and is resumed on another thread, as work stealing does.",
    );
    let refused = migrated()?;
    story
        .failure(refused, "on the new thread it may not release what it took; nobody can any more");

    story.say("With Lockkeeper tasks hold nothing; what has to happen together is one closure.");
    let db = story.database("ours.db", TABLE)?;
    let (inside_now, most) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
    one_thread()?.block_on(async {
        let tasks: Vec<_> = (0..TASKS)
            .map(|id| {
                let (db, now, most) = (db.clone(), Arc::clone(&inside_now), Arc::clone(&most));
                tokio::spawn(async move {
                    db.write(move |tx| {
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        let done = tx.execute("INSERT INTO note VALUES (?1)", [id]);
                        now.fetch_sub(1, Ordering::SeqCst);
                        done
                    })
                    .await
                })
            })
            .collect();
        for task in tasks {
            task.await??;
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    })?;
    let most = most.load(Ordering::SeqCst);
    story.cure(most == 1, &format!("{most} closure was inside at once"));
    let moved = moved_write(&db)?;
    let rows: i64 =
        db.blocking_read(|s| s.query_row("SELECT count(*) FROM note", [], |r| r.get(0)))?;
    db.blocking_close()?;
    story.cure(
        moved && rows == TASKS + 1,
        "a write that was begun on one thread was answered on another, and is stored",
    );
    story.plot(&bars(
        "Inside at once",
        "tasks in a section that is for one",
        &[Bar::new("recursive mutex", inside as f64, 1), Bar::new("Lockkeeper", most as f64, 0)],
    ))
}

/// Like a recursive mutex of `pthread`: the owner may lock it again, and only the owner may unlock it.
#[derive(Default)]
struct Recursive {
    holder: Mutex<Option<(ThreadId, u32)>>,
    free: Condvar,
}

impl Recursive {
    fn lock(&self) {
        let me = std::thread::current().id();
        let mut holder = self.holder.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &mut *holder {
                None => {
                    *holder = Some((me, 1));
                    return;
                }
                Some((thread, times)) if *thread == me => {
                    *times += 1;
                    return;
                }
                Some(_) => holder = self.free.wait(holder).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// `false`: the calling thread does not hold the mutex (`EPERM`).
    fn unlock(&self) -> bool {
        let me = std::thread::current().id();
        let mut holder = self.holder.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *holder {
            Some((thread, times)) if *thread == me => {
                *times -= 1;
                if *times == 0 {
                    *holder = None;
                    self.free.notify_one();
                }
                true
            }
            _ => false,
        }
    }
}

async fn guarded() -> Result<i64> {
    let mutex = Arc::new(Recursive::default());
    let (now, most) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (mutex, now, most) = (Arc::clone(&mutex), Arc::clone(&now), Arc::clone(&most));
            tokio::spawn(async move {
                mutex.lock();
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                now.fetch_sub(1, Ordering::SeqCst);
                mutex.unlock()
            })
        })
        .collect();
    for task in tasks {
        if !task.await? {
            return Err("on one thread the mutex is always released".into());
        }
    }
    Ok(most.load(Ordering::SeqCst))
}

/// Whether the release on another thread is refused. The future is polled once on this thread, then on another.
fn migrated() -> Result<bool> {
    let mutex = Arc::new(Recursive::default());
    let held = Arc::clone(&mutex);
    let mut task = Box::pin(async move {
        held.lock();
        tokio::task::yield_now().await;
        held.unlock()
    });
    // Outside of a runtime, `yield_now` is pending once.
    if task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
        return Err("the task must be pending once".into());
    }
    let released = std::thread::Builder::new()
        .name("elsewhere".to_owned())
        .spawn(move || task.as_mut().poll(&mut Context::from_waker(Waker::noop())))?
        .join()
        .map_err(|_| "the other thread panicked")?;
    Ok(released == Poll::Ready(false))
}

/// A write that is submitted by a poll on this thread and awaited on another.
fn moved_write(db: &lockkeeper::Database) -> Result<bool> {
    let write = db.write(|tx| tx.execute("INSERT INTO note VALUES (100)", []));
    let mut write = Box::pin(write);
    if let Poll::Ready(done) = pin!(&mut write).poll(&mut Context::from_waker(Waker::noop())) {
        // The write was finished before this thread polled again, so there is nothing to move.
        return Ok(done? == 1);
    }
    let done = std::thread::Builder::new()
        .name("elsewhere".to_owned())
        .spawn(move || one_thread().map(|runtime| runtime.block_on(write)))?
        .join()
        .map_err(|_| "the other thread panicked")?;
    Ok(done?? == 1)
}
