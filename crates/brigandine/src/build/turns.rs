//! The builder: takes what is ready from the database, hands it to a dispatcher, writes what comes
//! back.
//!
//! One task, one loop. Each turn collects the ends that have come in, frees their room, and makes
//! one write that stores the ends and claims new builds for the room there is; then it publishes
//! and dispatches what is committed. While the write is under way more ends come in, so the busier
//! it is, the more a turn does.
//!
//! B1: a build runs only after its claim is committed, so a killed server knows all it started.
//! B2: room is freed when the end is in hand, never before; so at most `max_jobs` run.
//! B3: an end that cannot be written is kept and tried again; its room stays taken meanwhile.
//! B4: events are published after the commit that they tell of.
//! B5: a claimed build has its log before its event is published, and who reads the row in between waits for the
//! log (`log`, L4): so a build that runs never has an empty log that has ended.
//!
//! B6: a build whose worker vanished is not started again at once: what made it vanish may pass. A restarted
//! server knows of no pause.
//!
//! B7: nothing is claimed while a disk has no room.
//!
//! Woken by: [`Builder::wake`] (something was registered), an event of the dispatcher, a request to
//! stop, the retry of B3, the end of a pause (B6), room on the disk (B7).

use super::builder::{Builder, BuilderSettings, Stop};
use super::dispatch::{BuildJob, DispatchEvent, Dispatcher, Outcome};
use super::end::{End, Running};
use super::state::{Happening, State};
use crate::health::{self, Health};
use crate::log::Logs;
use crate::model::{self, BuildId, BuildLogFile, BuildStatus, Changed, Definition, Event, LogName};
use crate::store::{self, Claim, Claimed, Database, DatabaseError, Finish};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc};

/// How many ends one write stores at most.
const BATCH: usize = 256;
/// How often ends are tried again when the server stops.
const LAST_TRIES: usize = 3;
/// Before an end that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);

impl Builder {
    /// Runs until it is asked to stop and everything that ran has ended and is written.
    ///
    /// # Errors
    /// The database is closed; what ran is still recorded as started.
    #[expect(clippy::too_many_arguments, reason = "the parts that it works with")]
    pub(crate) async fn run<D: Dispatcher>(
        self,
        settings: BuilderSettings,
        database: Database,
        logs: Logs,
        health: Health,
        dispatcher: D,
        events: mpsc::Receiver<DispatchEvent>,
        publish: broadcast::Sender<Event>,
    ) -> Result<(), DatabaseError> {
        let turn = Loop {
            builder: self,
            settings,
            database,
            logs,
            health,
            dispatcher,
            publish,
            running: HashMap::new(),
            ends: Vec::new(),
            hungry: true,
            resting: HashMap::new(),
        };
        turn.run(events).await
    }
}

struct Loop<D> {
    builder: Builder,
    settings: BuilderSettings,
    database: Database,
    logs: Logs,
    health: Health,
    dispatcher: D,
    publish: broadcast::Sender<Event>,
    /// What was dispatched and has not ended.
    running: HashMap<BuildId, Running>,
    /// Ends that are not written yet.
    ends: Vec<End>,
    /// Whether the queue may hold something that can be started.
    hungry: bool,
    /// Builds that are not started before then (B6). Bounded by the builds whose workers vanished within the
    /// longest pause.
    resting: HashMap<BuildId, Instant>,
}

impl<D: Dispatcher> Loop<D> {
    async fn run(mut self, mut events: mpsc::Receiver<DispatchEvent>) -> Result<(), DatabaseError> {
        let shared = Arc::clone(&self.builder.shared);
        let mut stop = shared.stop.subscribe();
        let (mut seen, mut told, mut unstored) = (0, false, 0);
        loop {
            while self.ends.len() < BATCH
                && let Ok(event) = events.try_recv()
            {
                self.take(event);
            }
            self.pass_on_cancels(*stop.borrow_and_update());
            let stopping = *stop.borrow() != Stop::No;
            if stopping && !std::mem::replace(&mut told, true) {
                let running = self.running.len();
                tracing::info!(running, "no build is started any more");
            }
            // Read before the queue is asked: see `wake`.
            let wanted = shared.wanted.load(Ordering::SeqCst);
            self.hungry |= wanted != seen;
            seen = wanted;
            self.hungry |= self.wake_rested();
            // B2, B3: an end in hand frees its room only in the write that stores it.
            let taken = self.running.len().saturating_sub(self.ends.len());
            let has_room = self.health.has_room(); // B7
            let room = match stopping || !has_room {
                true => 0,
                false => self.settings.max_jobs.saturating_sub(taken),
            };
            let asks = self.hungry && room > 0;
            let mut failed = false;
            if asks || !self.ends.is_empty() {
                failed = !self.turn(if asks { room } else { 0 }).await?;
            }
            if self.running.is_empty() {
                if stopping {
                    return Ok(());
                }
                if !self.hungry && self.resting.is_empty() {
                    shared.idle.send_if_modified(|idle| std::mem::replace(idle, seen) != seen);
                }
            }
            unstored = if failed { unstored + 1 } else { 0 };
            if stopping && unstored >= LAST_TRIES {
                tracing::warn!(
                    ends = self.ends.len(),
                    "ends of builds cannot be stored: the next server builds these again"
                );
                return Ok(());
            }
            if failed {
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => {}
                    _ = stop.changed() => {}
                }
                continue;
            }
            if self.hungry && has_room && !stopping && self.running.len() < self.settings.max_jobs {
                continue;
            }
            tokio::select! {
                biased;
                event = events.recv() => {
                    // The dispatcher in `self` holds a sender, so the channel is never closed.
                    if let Some(event) = event {
                        self.take(event);
                    }
                }
                () = shared.wake.notified() => {}
                () = self.health.room(), if !has_room => {}
                _ = stop.changed() => {}
                () = until(self.resting.values().min().copied()) => {}
            }
        }
    }

    /// Forgets which builds rested long enough; whether there were any.
    fn wake_rested(&mut self) -> bool {
        let (now, before) = (Instant::now(), self.resting.len());
        self.resting.retain(|_, until| *until > now);
        self.resting.len() < before
    }

    /// How long a build rests after so many losses.
    fn rest(&self, losses: i64) -> Duration {
        let times = u32::try_from(losses - 1).unwrap_or(0).min(8);
        self.settings.loss_pause.saturating_mul(4_u32.saturating_pow(times))
    }

    /// Notes an event of the dispatcher. One for an unknown start is ignored.
    fn take(&mut self, event: DispatchEvent) {
        let (id, attempt) = match &event {
            DispatchEvent::Started { id, attempt, .. }
            | DispatchEvent::Ended { id, attempt, .. }
            | DispatchEvent::Lost { id, attempt, .. } => (*id, *attempt),
        };
        let Some(running) = self.running.get(&id).cloned() else {
            tracing::warn!(build = %id, attempt, "an event for a build that does not run");
            return;
        };
        let happening = match &event {
            DispatchEvent::Started { at, .. } => {
                let _ = self.builder.shared.started.send((id, *at));
                return;
            }
            DispatchEvent::Lost { .. } => Happening::Lost(attempt),
            // Cut by the server's own end: not the build's fault.
            DispatchEvent::Ended { outcome, .. }
                if outcome.status == BuildStatus::Canceled
                    && running.cut
                    && !self.builder.cancel_set().contains(&(id, attempt)) =>
            {
                Happening::Stopped(attempt)
            }
            DispatchEvent::Ended { outcome, .. } if !outcome.gone.is_empty() => {
                Happening::Lost(attempt)
            }
            DispatchEvent::Ended { outcome, .. } => Happening::Ended(attempt, outcome.status),
        };
        let Some(next) = running.state.after(happening) else {
            tracing::warn!(build = %id, attempt, "an event of another attempt");
            return;
        };
        let end = match event {
            DispatchEvent::Started { .. } => return,
            DispatchEvent::Lost { mut message, log, .. } => {
                let Running { specification, job, .. } = &running;
                tracing::warn!(
                    build = %id, attempt, specification, job, why = message, "a build was lost"
                );
                if next.status == BuildStatus::Scheduled {
                    let pause = self.rest(next.losses);
                    self.resting.insert(id, Instant::now() + pause);
                    message.push_str(&format!("; tried again after {} s", pause.as_secs()));
                }
                End::Lost { id, attempt, message, next, log, keep_log: true }
            }
            DispatchEvent::Ended { outcome: Outcome { message, gone, .. }, .. }
                if !gone.is_empty() =>
            {
                let Running { specification, job, .. } = &running;
                tracing::warn!(
                    build = %id, attempt, specification, job, why = message, "outputs are made again"
                );
                End::Gone { id, attempt, message, next, outputs: gone }
            }
            DispatchEvent::Ended { log, .. } if next.status == BuildStatus::Scheduled => {
                let message = "the server was stopped".to_owned();
                End::Lost { id, attempt, message, next, log, keep_log: false }
            }
            DispatchEvent::Ended { outcome, log, .. } => {
                let Outcome { status, message, outputs, products, hold, gone: _, notes: _ } =
                    outcome;
                let finish = Finish {
                    id,
                    attempt,
                    status,
                    message,
                    stopped_at: running.end(),
                    log,
                    outputs: outputs
                        .into_iter()
                        .map(|(name, digest)| (name, model::output_path(&digest)))
                        .collect(),
                    products,
                };
                End::Finished(finish, hold)
            }
        };
        if !self.ends.iter().any(|known| known.key() == end.key()) {
            self.ends.push(end);
        }
        self.hungry = true;
    }

    fn pass_on_cancels(&mut self, stop: Stop) {
        if stop == Stop::Now {
            for (id, running) in &mut self.running {
                if !std::mem::replace(&mut running.cut, true) {
                    self.dispatcher.cancel(*id, running.state.attempt);
                }
            }
        }
        let wanted: Vec<_> = self.builder.cancel_set().iter().copied().collect();
        for (id, attempt) in wanted {
            if self.running.get(&id).is_some_and(|running| running.state.attempt == attempt) {
                self.dispatcher.cancel(id, attempt);
            } else {
                self.builder.cancel_set().remove(&(id, attempt));
            }
        }
    }

    /// Stores the ends in hand and claims up to `room` builds. `false`: not all could be stored.
    async fn turn(&mut self, room: usize) -> Result<bool, DatabaseError> {
        let now = model::now();
        let ends: Arc<[End]> = self.ends.as_slice().into();
        let (systems, worker) = (self.settings.systems.clone(), self.settings.worker.clone());
        let stored = Arc::clone(&ends);
        let resting: Vec<BuildId> = self.resting.keys().copied().collect();
        // B5: dropped when each claimed build has its log.
        let coming = self.logs.announce();
        let written = self
            .database
            .write(move |tx| {
                let mut changed = Vec::new();
                for end in stored.iter() {
                    changed.push(end.write(tx, now)?);
                }
                let (systems, resting, worker) = (&*systems, &*resting, &*worker);
                let wanted = Claim { systems, limit: room, resting, worker, now };
                let claimed = if room > 0 { store::claim(tx, &wanted)? } else { Vec::new() };
                Ok((changed, claimed))
            })
            .await;
        match written {
            Ok((changed, claimed)) => {
                self.health.note_good();
                self.ends.clear();
                for (end, changed) in ends.iter().zip(changed) {
                    self.settle(end, &changed);
                }
                if room > 0 {
                    self.hungry = claimed.len() == room;
                }
                for claimed in claimed {
                    self.dispatch(&claimed, now);
                }
                drop(coming);
                Ok(true)
            }
            Err(error) if health::passes(&error) => {
                self.health.note(&error);
                Ok(false) // B3
            }
            Err(error) if is_last(&error) => Err(error),
            Err(error) => {
                tracing::error!(%error, "cannot store the ends of builds together");
                self.one_by_one(&ends, now).await
            }
        }
    }

    /// After a turn that failed as a whole: each end by itself, so that one bad one does not keep
    /// the others back.
    async fn one_by_one(&mut self, ends: &[End], now: i64) -> Result<bool, DatabaseError> {
        self.ends.clear();
        for end in ends {
            let stored = end.clone();
            match self.database.write(move |tx| stored.write(tx, now)).await {
                Ok(changed) => self.settle(end, &changed),
                Err(error) if is_last(&error) => return Err(error),
                Err(error) => {
                    let (id, attempt) = end.key();
                    tracing::error!(%error, build = %id, attempt, "cannot store the end of a build");
                    self.ends.push(end.clone()); // B3
                }
            }
        }
        // Also when no end is left: whatever failed was then the claim, and wants a pause.
        Ok(false)
    }

    /// An end is committed.
    fn settle(&mut self, end: &End, changed: &[Changed]) {
        let (id, attempt) = end.key();
        let ended = self.running.remove(&id);
        self.builder.cancel_set().remove(&(id, attempt));
        let name = LogName::Build(id, attempt);
        self.logs.forget(name);
        if changed.is_empty() {
            tracing::warn!(build = %id, attempt, "a late result was ignored");
        }
        match end {
            End::Finished(finish, _) => tracing::info!(
                build = %id,
                attempt,
                specification = ended.as_ref().map(|ended| &*ended.specification),
                job = ended.as_ref().map(|ended| &*ended.job),
                status = %finish.status,
                why = finish.message,
                "build ended"
            ),
            // Says what the worker did before it vanished.
            End::Lost { keep_log: true, .. } => {}
            // The next attempt has a log of its own.
            End::Lost { .. } | End::Gone { .. } => self.remove_log(name),
        }
        model::publish(&self.publish, changed); // B4
    }

    fn remove_log(&self, name: LogName) {
        let logs = self.logs.clone();
        drop(tokio::task::spawn_blocking(move || logs.remove(name)));
    }

    /// A claim is committed (B1).
    fn dispatch(&mut self, claimed: &Claimed, now: i64) {
        let id = claimed.changed.id;
        let log = self.logs.create(LogName::Build(id, claimed.attempt));
        model::publish(&self.publish, std::slice::from_ref(&claimed.changed)); // B5
        let state = State {
            status: BuildStatus::Started,
            attempt: claimed.attempt,
            losses: claimed.losses,
            waiting: 0,
        };
        let (specification, job) = (claimed.specification.clone(), claimed.changed.job.clone());
        let started = (now, Instant::now());
        self.running.insert(id, Running { state, started, cut: false, specification, job });
        let definition =
            claimed.definition.as_deref().map(serde_json::from_str::<Definition>).transpose();
        let definition = match definition {
            Ok(Some(definition)) => definition,
            Ok(None) => return self.refuse(claimed, "its derivation is gone".to_owned()),
            Err(error) => {
                return self.refuse(claimed, format!("its derivation cannot be read: {error}"));
            }
        };
        // One output may have several names.
        let output = |derivation: &String| {
            let (_, path) = claimed.needs.iter().find(|(needed, _)| needed == derivation)?;
            Some(model::output_digest(path).unwrap_or(path).to_owned())
        };
        let needs: Option<Vec<(String, String)>> = definition
            .needs
            .iter()
            .map(|(alias, derivation)| Some((alias.clone(), output(derivation)?)))
            .collect();
        let Some(needs) = needs else {
            return self.refuse(claimed, "what it needs has no output".to_owned());
        };
        let limit = |own: u64, general: Duration| match own {
            0 => general,
            own => Duration::from_secs(own),
        };
        let job = BuildJob {
            id,
            attempt: claimed.attempt,
            definition,
            needs,
            timeout: limit(claimed.timeout_s, self.settings.timeout),
            max_silent: limit(claimed.max_silent_s, self.settings.max_silent),
        };
        tracing::info!(
            build = %id,
            attempt = job.attempt,
            specification = claimed.specification,
            job = claimed.changed.job,
            "build started"
        );
        self.dispatcher.offer(job, log);
    }

    /// Ends a start that never reached the dispatcher.
    fn refuse(&mut self, claimed: &Claimed, message: String) {
        let canceled = Finish {
            id: claimed.changed.id,
            attempt: claimed.attempt,
            status: BuildStatus::Canceled,
            message,
            stopped_at: model::now(),
            log: BuildLogFile::default(),
            outputs: Vec::new(),
            products: Vec::new(),
        };
        self.ends.push(End::Finished(canceled, None));
        self.hungry = true;
    }
}

/// Resolves then; never without a time.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// Whether no call will ever succeed again.
fn is_last(error: &DatabaseError) -> bool {
    error.is_closed() || error.is_replaced() || error.is_corrupt()
}
