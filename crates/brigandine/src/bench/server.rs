//! The measured server: the real one in a process of its own, told over its standard input to
//! change builds while it answers.
//!
//! | line | what it does | what it answers when it is done |
//! |---|---|---|
//! | `updates R` | R status updates per second from now on; 0: none | `ok` |
//! | `bulk N` | N status updates, as fast as they go | seconds |
//! | `register N` | one evaluation with N new jobs | seconds |
//! | `updated` | nothing | status updates made since the last time |
//!
//! An update is what the builder stores: a start or an end with attempt, counters and weather.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::app::{App, Settings};
use crate::command::Failure;
use crate::command::serve::Web;
use crate::memory;
use crate::model::{self, BuildId, BuildLogFile, BuildStatus, SpecificationId};
use crate::store::{self, Database, DatabaseError, Finish, NewJob};

/// Updates of one write when they go as fast as they can.
const BULK: usize = 500;
/// Between two shares of a steady load.
const TICK: Duration = Duration::from_millis(5);
/// Jobs of an evaluation that is registered when nothing waits any more.
const REFILL: usize = 20_000;

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::failed(error.to_string())
}

/// Serves until standard input ends.
pub(super) async fn run(state: &Path) -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let mut settings = Settings::new(state.to_owned());
    settings.interval = Duration::from_secs(3600);
    settings.max_jobs = 1;
    let app = App::start(settings).await.map_err(failed)?;
    app.run().await.map_err(failed)?;
    let web = Web::start(listener, &app, 1024, None);
    say(&format!("listening at http://{address}"));
    let load = Load {
        database: app.database().client("bench"),
        next: Vec::new(),
        done: Arc::new(AtomicU64::new(0)),
    };
    let outcome = obey(load).await;
    web.close().await;
    app.shutdown(false).await.map_err(failed)?;
    outcome
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

async fn obey(mut load: Load) -> Result<(), Failure> {
    let (sender, mut lines) = mpsc::channel(4);
    std::thread::Builder::new()
        .name("brigandine-orders".to_owned())
        .spawn(move || {
            // Ends with the input; the process does not wait for it.
            for line in std::io::stdin().lines() {
                let over = line.is_err();
                if sender.blocking_send(line).is_err() || over {
                    break;
                }
            }
        })
        .map_err(failed)?;
    let mut rate = 0_u64;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    loop {
        let line = tokio::select! {
            line = lines.recv() => line.transpose().map_err(failed)?,
            _ = tick.tick(), if rate > 0 => {
                let share = rate * TICK.as_millis() as u64 / 1000;
                load.steadily(usize::try_from(share.max(1)).unwrap_or(1)).await?;
                continue;
            }
        };
        let Some(line) = line else { return Ok(()) };
        let (word, number) = line.split_once(' ').unwrap_or((&line, "0"));
        let number: usize = number.parse().map_err(failed)?;
        let began = Instant::now();
        match word {
            "updates" => {
                rate = number as u64;
                tick.reset();
                say("ok");
            }
            "bulk" => {
                load.prepare(number).await?;
                let began = Instant::now();
                load.bulk(number).await?;
                say(&began.elapsed().as_secs_f64().to_string());
            }
            "register" => {
                load.register(number).await?;
                say(&began.elapsed().as_secs_f64().to_string());
            }
            "updated" => say(&load.done.swap(0, Ordering::Relaxed).to_string()),
            other => return Err(Failure::failed(format!("what is `{other}`?"))),
        }
    }
}

/// The next update of a build.
#[derive(Debug, Clone, Copy)]
enum Update {
    Start(BuildId),
    /// With the attempt that it ends, which the builder knows as well.
    End(BuildId, i64),
}

impl Update {
    const fn build(self) -> BuildId {
        match self {
            Self::Start(id) | Self::End(id, _) => id,
        }
    }
}

struct Load {
    database: Database,
    /// Taken from the end.
    next: Vec<Update>,
    done: Arc<AtomicU64>,
}

impl Load {
    /// Sees to it that `number` updates are to be had.
    async fn prepare(&mut self, number: usize) -> Result<(), Failure> {
        while self.next.len() < number {
            // Those that are taken already are still scheduled: more are asked for than needed.
            let taken: std::collections::HashSet<BuildId> =
                self.next.iter().map(|update| update.build()).collect();
            let wanted = u32::try_from(taken.len() + (number / 2).max(1000)).unwrap_or(u32::MAX);
            let found =
                self.database.read(move |s| store::scheduled(s, wanted)).await.map_err(failed)?;
            let new: Vec<_> = found.into_iter().filter(|(id, _)| !taken.contains(id)).collect();
            if new.is_empty() {
                self.register(REFILL.max(number)).await?;
                continue;
            }
            // All start before the first ends, as with many builds at once.
            let ends = new.iter().rev().map(|(id, attempt)| Update::End(*id, attempt + 1));
            let starts = new.iter().rev().map(|(id, _)| Update::Start(*id));
            let mut next: Vec<_> = ends.chain(starts).collect();
            next.append(&mut self.next);
            self.next = next;
        }
        Ok(())
    }

    /// A few updates, each a write of its own, as from as many workers.
    async fn steadily(&mut self, number: usize) -> Result<(), Failure> {
        if self.next.len() < number {
            self.prepare(10_000).await?;
        }
        let mut writes = tokio::task::JoinSet::new();
        for update in self.next.split_off(self.next.len() - number).into_iter().rev() {
            let (database, done) = (self.database.clone(), Arc::clone(&self.done));
            writes.spawn(async move {
                database.write(move |tx| change(tx, update)).await?;
                done.fetch_add(1, Ordering::Relaxed);
                Ok::<(), DatabaseError>(())
            });
        }
        while let Some(written) = writes.join_next().await {
            written.map_err(failed)?.map_err(failed)?;
        }
        Ok(())
    }

    async fn bulk(&mut self, number: usize) -> Result<(), Failure> {
        let mut left = number;
        while left > 0 {
            let share = left.min(BULK);
            let mut updates = self.next.split_off(self.next.len() - share);
            updates.reverse();
            self.database
                .write(move |tx| updates.iter().try_for_each(|update| change(tx, *update)))
                .await
                .map_err(failed)?;
            left -= share;
        }
        self.done.fetch_add(number as u64, Ordering::Relaxed);
        Ok(())
    }

    /// One evaluation with so many new jobs, in one write, as a monitor does it.
    async fn register(&self, number: usize) -> Result<(), Failure> {
        let stamp = std::fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(failed)?;
        let stamp = stamp.trim().to_owned();
        let job = |n: usize| {
            let digest = store::derivation_key(&format!("{stamp} {n}")).unsigned_abs();
            NewJob {
                name: format!("bench-{n:06}-1.0.x86_64-linux"),
                derivation: format!("/gnu/store/{digest:020}{n:012}-bench-{n:06}-1.0.drv"),
                system: "bench-linux".to_owned(),
                nix_name: format!("bench-{n:06}-1.0"),
                priority: 0,
                timeout_s: 0,
                max_silent_s: 0,
                definition: None,
                needs: Vec::new(),
            }
        };
        let jobs: Vec<_> = (0..number).map(job).collect();
        let now = model::now();
        self.database
            .write_once(move |tx| {
                let of = SpecificationId::new(1);
                let begun = store::begin_evaluation(tx, of, &stamp, &[], now)?;
                let store::Begun::New(id) = begun else { return Ok(()) };
                store::register(tx, id, &jobs, "", "", now).map(drop)
            })
            .await
            .map_err(failed)?;
        memory::give_back().await;
        Ok(())
    }
}

fn change(tx: &store::Transaction, update: Update) -> rusqlite::Result<()> {
    let now = model::now();
    match update {
        Update::Start(id) => store::start(tx, id, "bench", now).map(drop),
        Update::End(id, attempt) => {
            let status =
                if id.get() % 20 == 0 { BuildStatus::Failed } else { BuildStatus::Succeeded };
            let end = Finish {
                id,
                attempt,
                status,
                message: String::new(),
                stopped_at: now,
                log: BuildLogFile::default(),
                outputs: Vec::new(),
                products: Vec::new(),
            };
            store::finish(tx, &end).map(drop)
        }
    }
}
