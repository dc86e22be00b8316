//! The builder's loop: claims builds in the database, hands them to a dispatcher, and stores their ends.
//!
//! The loop is one task. Each turn collects the ends of builds that have come in. One write stores them, and claims as
//! many builds as can run now. Then the turn publishes the changes and dispatches the claimed builds. During the write
//! more ends come in, so a turn does more when the builder is busier.
//!
//! - BUILD1: a build runs only after its claim is committed, so after a crash the database knows all builds that ran.
//! - BUILD2: a received end frees the room of its attempt, in the same write that stores the end. So at most `max_jobs`
//!   builds run.
//! - BUILD3: an end that cannot be written is kept and tried again. Its room stays taken meanwhile, unless the database
//!   refuses this end and no other (`turns/refused.rs`).
//! - BUILD4: an event is published after the commit of the change that it reports.
//! - BUILD5: a claimed build has its log before its event is published, and a reader that finds its row earlier waits
//!   for the log (LOG4 in `log`). So a running build never shows an empty log that has ended.
//! - BUILD6: a build whose worker vanished is started again only after a pause, because the cause may be temporary. The
//!   pauses are not stored.
//! - BUILD7: nothing is claimed while a disk has no room.
//! - BUILD8: the rows of one build never delay other builds: see `turns/refused.rs`.
//!
//! The loop is woken by [`Builder::wake`] (something was registered), an event of the dispatcher, a request to stop,
//! the retry of BUILD3, the end of a pause (BUILD6), and room on the disk (BUILD7).

mod refused;
mod stops;

use super::builder::{Builder, BuilderSettings, Stop};
use super::dispatch::{BuildJob, DispatchEvent, Dispatcher, EndRequest, Lost, Outcome};
use super::end::{End, Running};
use super::refusals::{RefusedEnd, Unstartable};
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

/// Once this many ends are waiting, the loop makes a write before it collects more.
const BATCH: usize = 256;
/// How many times in a row a stopping server tries to store ends.
const LAST_TRIES: usize = 3;
/// The pause before an end that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);

impl Builder {
    /// Runs until it is asked to stop, everything that ran has ended, and the ends are written.
    ///
    /// # Errors
    /// The database is closed, replaced or corrupt. Builds that ran are still stored as started.
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
        let shared = Arc::clone(&self.shared);
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
            refused: Vec::new(),
            stuck: 0,
            hungry: true,
            resting: HashMap::new(),
            unstartable: Unstartable::default(),
            held_back: Vec::new(),
        };
        turn.run(events).await?;
        shared.ended.send_replace(true);
        Ok(())
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
    /// Builds from their claim to the commit of their end; at most `max_jobs`.
    running: HashMap<BuildId, Running>,
    /// Received ends that are not written yet. Their builds are in `running`.
    ends: Vec<End>,
    /// Ends that could not be written, each by itself (BUILD8). Bounded: see [`RefusedEnd`].
    refused: Vec<RefusedEnd>,
    /// How many times in a row an end in `refused` met an error that is no refusal.
    stuck: usize,
    /// `true`: the queue may have a build that can be started.
    hungry: bool,
    /// Lost builds, and when they may be started again (BUILD6). Bounded by the losses within the longest pause.
    resting: HashMap<BuildId, Instant>,
    /// Builds that the database refuses to start (BUILD8).
    unstartable: Unstartable,
    /// Ends that a stop of the server may have caused (`turns/stops.rs`), and until when each is held back. Their builds
    /// are in `running`.
    held_back: Vec<(Instant, DispatchEvent)>,
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
            self.release();
            self.pass_on_cancels(*stop.borrow_and_update());
            let stopping = *stop.borrow() != Stop::No;
            if stopping && !std::mem::replace(&mut told, true) {
                let running = self.running.len();
                tracing::info!(running, "no build is started any more");
            }
            // This must be read before the loop claims builds; see `wake`.
            let wanted = shared.wanted.load(Ordering::SeqCst);
            self.hungry |= wanted != seen;
            seen = wanted;
            self.hungry |= self.wake_rested();
            let has_room = self.health.has_room(); // BUILD7
            let room = if stopping || !has_room { 0 } else { self.free() };
            let asks = self.hungry && room > 0;
            let mut failed = false;
            if asks || !self.ends.is_empty() {
                failed = !self.turn(if asks { room } else { 0 }).await?;
            }
            self.try_refused().await?;
            if self.running.is_empty() {
                if stopping {
                    return Ok(());
                }
                if !self.hungry && self.resting.is_empty() {
                    shared.idle.send_if_modified(|idle| std::mem::replace(idle, seen) != seen);
                }
            }
            unstored = if failed { unstored + 1 } else { 0 };
            if stopping && unstored.max(self.stuck) >= LAST_TRIES {
                tracing::warn!(
                    ends = self.ends.len() + self.refused.len(),
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
            let may_claim = self.hungry && has_room && !stopping && self.free() > 0;
            if may_claim || !self.ends.is_empty() {
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
                () = until(self.next_due()) => {}
            }
        }
    }

    /// Forgets the pauses that are over. Returns whether there was one.
    fn wake_rested(&mut self) -> bool {
        let (now, before) = (Instant::now(), self.resting.len());
        self.resting.retain(|_, until| *until > now);
        self.resting.len() < before
    }

    /// When the first pause ends: of a lost build, of an end that could not be written, or of one that is held back.
    fn next_due(&self) -> Option<Instant> {
        let resting = self.resting.values().copied();
        let refused = self.refused.iter().map(|refused| refused.due);
        let held_back = self.held_back.iter().map(|(due, _)| *due);
        resting.chain(refused).chain(held_back).min()
    }

    /// The pause of a build after this many losses.
    fn rest(&self, losses: i64) -> Duration {
        let times = u32::try_from(losses - 1).unwrap_or(0).min(8);
        self.settings.loss_pause.saturating_mul(4_u32.saturating_pow(times))
    }

    /// What is stored about an attempt that has ended.
    fn end(
        &mut self,
        id: BuildId,
        running: &Running,
        (happening, next): (Happening, State),
        ended: Result<Outcome, Lost>,
        log: BuildLogFile,
    ) -> End {
        let Running { specification, job, state: State { attempt, .. }, .. } = running;
        let attempt = *attempt;
        let lost = |message, log, gone| End::Lost { id, attempt, message, next, log, gone };
        match ended {
            _ if matches!(happening, Happening::Stopped(_)) => {
                lost(EndRequest::Stopped.message().to_owned(), log, Vec::new())
            }
            Err(Lost(mut message)) => {
                tracing::warn!(
                    build = %id, attempt, specification, job, why = message, "a build was lost"
                );
                if next.status == BuildStatus::Scheduled {
                    let pause = self.rest(next.losses);
                    self.resting.insert(id, Instant::now() + pause);
                    message.push_str(&format!("; tried again after {} s", pause.as_secs()));
                }
                lost(message, log, Vec::new())
            }
            Ok(Outcome { message, gone, .. }) if !gone.is_empty() => {
                tracing::warn!(
                    build = %id, attempt, specification, job, why = message, "outputs are made again"
                );
                lost(message, BuildLogFile::default(), gone)
            }
            Ok(Outcome { status, message, outputs, products, hold, .. }) => {
                let outputs = outputs.into_iter();
                let finish = Finish {
                    id,
                    attempt,
                    status,
                    message,
                    stopped_at: running.end(),
                    log,
                    outputs: outputs.map(|(name, it)| (name, model::output_path(&it))).collect(),
                    products,
                };
                End::Finished(finish, hold)
            }
        }
    }

    /// Stores all of `self.ends` and claims up to `room` builds, in one write. `false`: the loop must pause before it
    /// tries again.
    async fn turn(&mut self, room: usize) -> Result<bool, DatabaseError> {
        let now = model::now();
        let ends: Arc<[End]> = self.ends.as_slice().into();
        let (systems, worker) = (self.settings.systems.clone(), self.settings.worker.clone());
        let stored = Arc::clone(&ends);
        let resting = self.resting.keys().chain(&self.unstartable.given_up);
        let resting: Vec<BuildId> = resting.copied().collect();
        // The announcement is dropped when each claimed build has its log (BUILD5).
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
                let claimed = match room {
                    0 => (Vec::new(), Vec::new()),
                    _ => store::claim(tx, &wanted)?,
                };
                Ok((changed, claimed))
            })
            .await;
        match written {
            Ok((changed, (claimed, unstartable))) => {
                self.health.note_good();
                self.ends.clear();
                for (end, changed) in ends.iter().zip(changed) {
                    self.settle(end, &changed);
                }
                if room > 0 {
                    self.hungry = claimed.len() == room || !unstartable.is_empty();
                }
                // If the database refuses every start, the fault is perhaps not that of the builds.
                let goes_on = !claimed.is_empty() || unstartable.len() < store::REFUSED_MAX;
                for claimed in claimed {
                    self.unstartable.times.remove(&claimed.changed.id);
                    self.dispatch(&claimed, now);
                }
                self.note_unstartable(unstartable, now);
                drop(coming);
                Ok(goes_on)
            }
            Err(error) if health::is_last(&error) => Err(error),
            Err(error) if health::is_for_all(&error) => {
                self.health.note(&error);
                Ok(false) // BUILD3
            }
            Err(error) if ends.is_empty() => {
                tracing::error!(%error, "cannot claim builds");
                self.health.note(&error);
                Ok(false)
            }
            Err(error) => {
                tracing::error!(%error, "cannot store the ends of builds together");
                self.one_by_one(now).await?;
                Ok(true)
            }
        }
    }

    /// Forgets what is known of an attempt that has ended, and of its build.
    fn forget(&mut self, (id, attempt): (BuildId, i64)) -> Option<Running> {
        self.builder.cancel_set().remove(&(id, attempt));
        self.logs.forget(LogName::Build(id, attempt));
        let ended = self.running.remove(&id);
        self.builder.shared.running.store(self.running.len(), Ordering::Relaxed);
        ended
    }

    /// Forgets a build whose end is committed, and reports the end.
    fn settle(&mut self, end: &End, changed: &[Changed]) {
        let (id, attempt) = end.key();
        let ended = self.forget((id, attempt));
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
                why = Some(&*finish.message).filter(|why| !why.is_empty()),
                "build ended"
            ),
            // The log stays, because it shows what was done before the worker vanished or the server was stopped.
            End::Lost { .. } => {}
            End::Abandoned(abandoned) => self.note_abandoned(abandoned),
        }
        let finished = ended.as_ref().filter(|_| matches!(end, End::Finished(..)));
        self.builder.count(changed, finished);
        model::publish(&self.publish, changed); // BUILD4
    }

    /// Hands a build to the dispatcher, after its claim is committed (BUILD1).
    fn dispatch(&mut self, claimed: &Claimed, now: i64) {
        let id = claimed.changed.id;
        let log = self.logs.create(LogName::Build(id, claimed.attempt));
        model::publish(&self.publish, std::slice::from_ref(&claimed.changed)); // BUILD5
        let state = State {
            status: BuildStatus::Started,
            attempt: claimed.attempt,
            losses: claimed.losses,
            waiting: 0,
        };
        let (specification, job) = (claimed.specification.clone(), claimed.changed.job.clone());
        let started = (now, Instant::now());
        self.running.insert(id, Running { state, started, cut: false, specification, job });
        self.builder.shared.running.store(self.running.len(), Ordering::Relaxed);
        let definition =
            claimed.definition.as_deref().map(serde_json::from_str::<Definition>).transpose();
        let definition = match definition {
            Ok(Some(definition)) => definition,
            Ok(None) => return self.refuse(claimed, "its derivation is gone".to_owned()),
            Err(error) => {
                return self.refuse(claimed, format!("its derivation cannot be read: {error}"));
            }
        };
        // Several derivations that the build needs may have the same output.
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
            timeout: limit(claimed.timeout_s, self.settings.timeout.get()),
            max_silent: limit(claimed.max_silent_s, self.settings.max_silent.get()),
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

    /// Ends an attempt that cannot be dispatched.
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

/// Waits until `time`; `None`: forever.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
