//! Temporary failures: a full disk, and a database that another program has locked. The server waits until they pass.
//! Meanwhile pages show them, and nothing is started that would only fail.
//!
//! | failure | found by | ends when |
//! |---|---|---|
//! | less than the reserve is free | the watching thread, several times a second if something runs | it finds more |
//! | a build or evaluation met a full disk | the caller of [`Run::met_full_disk`] | more is free than before it started, or [`AGAIN`] has passed |
//! | the database cannot be read or written | [`Health::retry`] | a call succeeds; after a failed write, a write |
//! | the database accepts no write | [`Health::watch_writes`], each second | the database accepts one |
//!
//! That the server ends ([`Health::note_end`]) is no failure, but pages say it in the same place.
//!
//! After a failed write a read that succeeds does not end the failure, because reads work while another program has the
//! file locked.
//!
//! - HEAL1: reading the free space blocks if a file system does not answer. So this happens on a thread of its own, or
//!   on a thread that may block. [`Health::stop`] ends every wait for the database.
//!
//! Each mutex here is held only for a moment, and never two at once.

mod disks;
mod errors;
mod writes;

pub(crate) use disks::{Disk, disks_of};
pub(crate) use errors::{is_for_all, is_last, is_refusal, passes, passes_in_sqlite};

use crate::model::{self, Event, Live};
use crate::store::{Database, DatabaseError, Snapshot, Transaction};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, watch};

/// The time between two looks while nothing runs.
const LOOK: Duration = Duration::from_secs(1);
/// The time between two looks while something runs, which may fill a disk and free it again in a moment.
const LOOK_RUNNING: Duration = Duration::from_millis(200);
/// The time between two tries of a call to the database.
const RETRY: Duration = Duration::from_secs(1);
/// How long nothing is started after a full disk, if no more space becomes free.
const AGAIN: Duration = Duration::from_secs(20);
/// The default reserve: this many bytes, or a hundredth of the file system if that is less.
const RESERVE_MAX: u64 = 512 << 20;
/// A file system is full if it has fewer free bytes than this, or, if it is small, fewer than a hundredth of its size.
const FULL: u64 = 8 << 20;

/// Why an empty write may be late.
const WHY_LATE: &str =
    "another program has it locked, one write takes long, or its disk does not answer";

/// The temporary failures of a server. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Folders of the state directory, which may be on several file systems.
    folders: Vec<PathBuf>,
    /// Bytes that must stay free; `None`: the default ([`RESERVE_MAX`]); 0: no reserve.
    reserve: Live<Option<u64>>,
    state: watch::Sender<State>,
    /// When a look last found a full file system. Guard: the mutex.
    full_at: Mutex<Option<Instant>>,
    /// The free bytes that the last look found, on the file system that has the least; `u64::MAX`: none was found.
    free: AtomicU64,
    /// The file systems that the last look found.
    disks: Mutex<Vec<Disk>>,
    /// The number of running builds and evaluations.
    running: AtomicUsize,
    /// Since when the database has not accepted an empty write; `None`: it accepted the last one.
    unwritten: Mutex<Option<Instant>>,
    stop: watch::Sender<bool>,
    events: broadcast::Sender<Event>,
    /// The thread that looks. It is woken when something starts to run. Set once.
    watcher: Mutex<Option<std::thread::Thread>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct State {
    /// `Some`: less than the reserve is free. The text says so, for people.
    low: Option<String>,
    /// `Some`: a build or evaluation met a full disk.
    met: Option<Met>,
    /// The error of the last read; `None`: it succeeded.
    reading: Option<String>,
    /// The error of the last write; `None`: it succeeded.
    writing: Option<String>,
    /// The error of the last empty write; `None`: it succeeded. A field of its own, because an empty write may succeed
    /// where another write fails.
    probing: Option<String>,
    /// An empty write has not ended for some seconds.
    late: bool,
    /// The server ends, and lets what runs end.
    ending: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Met {
    /// The failure ends when somewhat more bytes than these are free.
    free: u64,
    /// The failure ends at this time in any case.
    until: Instant,
}

impl State {
    /// The last error of the database; `None`: there is none, or it has passed.
    fn database(&self) -> Option<&String> {
        self.writing.as_ref().or(self.probing.as_ref()).or(self.reading.as_ref())
    }

    fn has_room(&self) -> bool {
        self.low.is_none() && self.met.is_none()
    }

    /// That a disk has too little room, in a sentence.
    fn disk(&self) -> Option<String> {
        self.low.clone().or_else(|| {
            let met =
                "The disk was full while something ran: nothing is started until more is free.";
            self.met.is_some().then(|| met.to_owned())
        })
    }

    fn notice(&self) -> String {
        let ending = "The server ends: what runs may end, and nothing is started any more.";
        let ending = self.ending.then(|| ending.to_owned());
        let database = match self.database() {
            Some(error) => Some(format!(
                "The database cannot be used for now, and is asked again each second: {error}."
            )),
            None => self.late.then(|| format!("The database accepts no write: {}.", WHY_LATE)),
        };
        let all: Vec<String> = ending.into_iter().chain(self.disk()).chain(database).collect();
        all.join(" ")
    }
}

impl Health {
    /// Watches the file systems of these folders. Nothing is started while fewer than `reserve` bytes are free.
    ///
    /// # Errors
    /// The thread that looks could not be started.
    pub(crate) fn watch(
        folders: Vec<PathBuf>,
        reserve: Option<u64>,
        events: broadcast::Sender<Event>,
    ) -> io::Result<Self> {
        let health = Self::with(folders, reserve, events);
        health.look();
        let shared = Arc::downgrade(&health.shared);
        let thread = std::thread::Builder::new().name("disk-watch".to_owned());
        let thread = thread.spawn(move || watch_disks(&shared))?;
        *lock(&health.shared.watcher) = Some(thread.thread().clone());
        Ok(health)
    }

    /// Watches no file system: there is always room.
    #[cfg(test)]
    pub(crate) fn unwatched() -> Self {
        Self::with(Vec::new(), Some(0), broadcast::Sender::new(1))
    }

    fn with(folders: Vec<PathBuf>, reserve: Option<u64>, events: broadcast::Sender<Event>) -> Self {
        let shared = Shared {
            folders,
            reserve: Live::new(reserve),
            state: watch::Sender::new(State::default()),
            full_at: Mutex::default(),
            free: AtomicU64::new(u64::MAX),
            disks: Mutex::default(),
            running: AtomicUsize::new(0),
            unwritten: Mutex::default(),
            stop: watch::Sender::new(false),
            events,
            watcher: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Changes the bytes that must stay free; `None`: the default. The thread looks again at once.
    pub(crate) fn set_reserve(&self, reserve: Option<u64>) {
        self.shared.reserve.set(reserve);
        if let Some(watcher) = &*lock(&self.shared.watcher) {
            watcher.unpark();
        }
    }

    /// Ends every wait for the database with the database's error.
    pub(crate) fn stop(&self) {
        self.shared.stop.send_replace(true);
    }

    /// Notes that the server ends, so that pages say so.
    pub(crate) fn note_end(&self) {
        self.change(|state| state.ending = true);
    }

    /// Whether builds and evaluations may start.
    pub(crate) fn has_room(&self) -> bool {
        self.shared.state.borrow().has_room()
    }

    /// Waits until builds and evaluations may start.
    pub(crate) async fn room(&self) {
        let mut state = self.shared.state.subscribe();
        // The sender lives in `shared`, so this cannot fail.
        let _ = state.wait_for(State::has_room).await;
    }

    /// The failures, in sentences for people; empty: there are none.
    pub(crate) fn notice(&self) -> String {
        self.shared.state.borrow().notice()
    }

    /// That a disk has too little room, in a sentence; empty: the disks have room.
    pub(crate) fn disk_notice(&self) -> String {
        self.shared.state.borrow().disk().unwrap_or_default()
    }

    /// The reserve and the free space, in a sentence; empty without a reserve.
    pub(crate) fn reserve(&self) -> String {
        let free = self.shared.free.load(Ordering::Relaxed);
        match self.shared.reserve.get() {
            Some(0) => String::new(),
            _ if free == u64::MAX => String::new(),
            reserve => {
                let kept = match reserve {
                    Some(bytes) => model::size(bytes),
                    None => format!("{}, or a hundredth of the disk,", model::size(RESERVE_MAX)),
                };
                format!(
                    "Nothing is started while less than {kept} is free; {} is.",
                    model::size(free)
                )
            }
        }
    }

    /// The file systems of the state directory, as the last look found them.
    pub(crate) fn disks(&self) -> Vec<Disk> {
        lock(&self.shared.disks).clone()
    }

    /// Notes that a build or evaluation starts.
    pub(crate) fn begin(&self) -> Run {
        self.shared.running.fetch_add(1, Ordering::Relaxed);
        if let Some(watcher) = &*lock(&self.shared.watcher) {
            watcher.unpark();
        }
        let free = self.shared.free.load(Ordering::Relaxed);
        Run { health: self.clone(), since: Instant::now(), free }
    }

    /// Reads the free space of all file systems. Blocks (HEAL1).
    fn look(&self) {
        let shared = &self.shared;
        let (mut low, mut full, mut least) = (None, false, u64::MAX);
        let found = disks::spaces(&shared.folders);
        *lock(&shared.disks) = disks::distinct(&found);
        for (folder, space) in found {
            let hundredth = space.total / 100;
            least = least.min(space.free);
            full |= space.out_of_files || space.free < FULL.min(hundredth);
            let reserve = shared.reserve.get().unwrap_or(RESERVE_MAX.min(hundredth));
            let short = space.free < reserve || space.out_of_files;
            if short && reserve > 0 && low.is_none() {
                let what = match space.out_of_files {
                    true => "hardly any file can be made".to_owned(),
                    false => format!(
                        "{} is free, less than {}",
                        model::size(space.free),
                        model::size(reserve)
                    ),
                };
                let folder = folder.display();
                low = Some(format!("{what}, at {folder}: nothing is started until there is room."));
            }
        }
        if full {
            *lock(&shared.full_at) = Some(Instant::now());
        }
        shared.free.store(least, Ordering::Relaxed);
        self.change(|state| {
            let passed = |met: &Met| {
                let more = met.free.saturating_add((met.free / 16).max(1 << 20));
                (least > more && !full) || Instant::now() >= met.until
            };
            state.met.take_if(|met| passed(met));
            // The sizes in the text are rounded for people, so the text seldom changes.
            state.low = low;
        });
    }

    /// Changes the state, and reports what has changed.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut outcome = None;
        self.shared.state.send_if_modified(|state| {
            let before = state.clone();
            change(state);
            if *state == before {
                return false;
            }
            outcome = Some((before, state.clone()));
            true
        });
        let Some((before, after)) = outcome else { return };
        match (before.has_room(), after.has_room()) {
            (true, false) => tracing::warn!("{}", after.disk().unwrap_or_default()),
            (false, true) => tracing::info!("there is room on the disk again: the server goes on"),
            _ => {}
        }
        match (before.database(), after.database()) {
            (None, Some(error)) => tracing::error!(
                error,
                "the database cannot be used for now; it is asked again each second"
            ),
            (Some(_), None) => tracing::info!("the database can be used again"),
            (None, None) if after.late && !before.late => {
                tracing::warn!("the database accepts no write: {}", WHY_LATE);
            }
            (None, None) if before.late && !after.late => {
                tracing::info!("the database accepts writes again");
            }
            _ => {}
        }
        if before.notice().is_empty() != after.notice().is_empty() {
            let _ = self.shared.events.send(Event::Notice);
        }
    }

    /// Repeats a call that writes to the database until it succeeds, or fails with an error that is not temporary.
    ///
    /// # Errors
    /// The error that is not temporary; or the temporary one, if the server stops.
    pub(crate) async fn retry<T, F>(&self, call: impl FnMut() -> F) -> Result<T, DatabaseError>
    where
        F: IntoFuture<Output = Result<T, DatabaseError>>,
    {
        self.retried(writing, call).await
    }

    /// Like [`Health::retry`], for writes and reads. `of` returns the field of the state that stores the call's error.
    async fn retried<T, F>(
        &self,
        of: fn(&mut State) -> &mut Option<String>,
        mut call: impl FnMut() -> F,
    ) -> Result<T, DatabaseError>
    where
        F: IntoFuture<Output = Result<T, DatabaseError>>,
    {
        let mut stop = self.shared.stop.subscribe();
        loop {
            let error = match call().await {
                Ok(done) => {
                    self.succeeded(of);
                    return Ok(done);
                }
                Err(error) if passes(&error) => error,
                Err(error) => return Err(error),
            };
            self.change(|state| *of(state) = Some(errors::words(&error)));
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                _ = stop.wait_for(|stop| *stop) => return Err(error),
            }
        }
    }

    fn succeeded(&self, of: fn(&mut State) -> &mut Option<String>) {
        // Usually there is nothing to change. Then the state's lock is only taken for reading.
        if self.shared.state.borrow().database().is_some() {
            self.change(|state| *of(state) = None);
        }
    }

    /// Notes a temporary error of a write.
    pub(crate) fn note(&self, error: &DatabaseError) {
        self.change(|state| state.writing = Some(errors::words(error)));
    }

    /// Notes that a write has succeeded.
    pub(crate) fn note_good(&self) {
        self.succeeded(writing);
    }

    /// Like [`Health::retry`], for a write that runs `f`.
    pub(crate) async fn write<T, F>(&self, database: &Database, f: F) -> Result<T, DatabaseError>
    where
        T: Send + 'static,
        F: FnMut(&Transaction) -> rusqlite::Result<T> + Send + 'static,
    {
        let f = Arc::new(Mutex::new(f));
        self.retry(|| {
            let f = Arc::clone(&f);
            database.write(move |tx| lock(&f)(tx))
        })
        .await
    }

    /// Like [`Health::retry`], for a read that runs `f`.
    pub(crate) async fn read<T, F>(&self, database: &Database, f: F) -> Result<T, DatabaseError>
    where
        T: Send + 'static,
        F: FnMut(&Snapshot) -> rusqlite::Result<T> + Send + 'static,
    {
        let f = Arc::new(Mutex::new(f));
        self.retried(reading, || {
            let f = Arc::clone(&f);
            database.read(move |s| lock(&f)(s))
        })
        .await
    }
}

fn reading(state: &mut State) -> &mut Option<String> {
    &mut state.reading
}

fn writing(state: &mut State) -> &mut Option<String> {
    &mut state.writing
}

fn watch_disks(shared: &Weak<Shared>) {
    loop {
        let Some(shared) = shared.upgrade() else { return };
        let health = Health { shared };
        health.look();
        let busy = health.shared.running.load(Ordering::Relaxed) > 0;
        drop(health);
        std::thread::park_timeout(if busy { LOOK_RUNNING } else { LOOK });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running build or evaluation.
#[derive(Debug)]
pub(crate) struct Run {
    health: Health,
    since: Instant,
    /// The free bytes when the run started.
    free: u64,
}

impl Run {
    /// Whether a disk was full since this run started. If so, nothing starts until there is more room. Blocks (HEAL1).
    pub(crate) fn met_full_disk(&self) -> bool {
        self.health.look();
        let met = lock(&self.health.shared.full_at).is_some_and(|at| at >= self.since);
        if met {
            self.note_full();
        }
        met
    }

    /// Notes that this run met a full disk, so nothing starts until there is more room.
    pub(crate) fn note_full(&self) {
        let met = Met { free: self.free, until: Instant::now() + AGAIN };
        self.health.change(|state| state.met = Some(met));
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.health.shared.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
