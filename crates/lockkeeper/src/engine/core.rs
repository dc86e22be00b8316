//! [`Core`]: the data that the threads and the handles of one database share.
//!
//! Each part has its own methods: the held snapshots (`held.rs`), the lease that the writer serves (`lease_state.rs`),
//! stops of writes (`stops.rs`), the checks for wakers (`wakeup_watch.rs`) and for commits of other processes
//! (`foreign_commits.rs`).
//!
//! Lock order: a held snapshot's state, then the connections (`short.rs`). Each other lock is taken alone.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::item::{ReaderItem, WriterItem};
use super::{
    foreign_commits::ForeignCommits, held::HeldSnapshots, lease_state::LeaseSlot,
    short::ShortReads, stops::Stops, wakeup_watch::WakeupWatch,
};
use crate::changes::feed::Feed;
use crate::config::Config;
use crate::error::{Error, ErrorKind};
use crate::queue::{Clock, Domain, Queue, block_on};
use crate::sqlite::{instance, migrate::Migrations, opener::Opener, preflight::Machine};
use crate::stats::{ClientStats, Meters, Stats};
use crate::sync::Mutex;

/// After each batch of the writer, this many read transactions end with a yield of the processor.
pub(crate) const YIELDS: u8 = 16;

/// Makes the readers' pool check whether it needs another thread.
pub(crate) type CheckForStall = Box<dyn Fn() + Send + Sync>;

/// The data that the threads and the handles of one database share.
pub(crate) struct Core {
    pub(crate) config: Arc<Config>,
    pub(crate) opener: Arc<Opener>,
    pub(crate) migrations: Option<Migrations>,
    pub(crate) domain: Domain,
    pub(crate) writer: Arc<Queue<WriterItem>>,
    pub(crate) readers: Arc<Queue<ReaderItem>>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) short: Arc<ShortReads>,
    pub(crate) held: HeldSnapshots,
    pub(crate) lease: LeaseSlot,
    pub(crate) stops: Stops,
    pub(crate) feed: Arc<Feed>,
    pub(crate) meters: Meters,
    pub(crate) wakeup_watch: Arc<WakeupWatch>,
    pub(crate) foreign_commits: Arc<ForeignCommits>,
    /// How many of the next read transactions end with a yield of the processor. Each batch of the writer sets the
    /// number to [`YIELDS`], and the readers decrement it. A hint.
    pub(crate) yields_left: AtomicU8,
    /// Set once, when the readers' pool is made.
    pub(crate) check_for_stall: OnceLock<CheckForStall>,
    /// Warnings about the file for the operator. The writer's thread sets them once, before it opens the file.
    pub(crate) warnings: OnceLock<Vec<String>>,
    /// Another instance that has the file open, which `open_shared` uses. Set by the writer's thread.
    pub(crate) other: OnceLock<instance::Handle>,
    /// Why the writer could not checkpoint the WAL when it closed. The first close that comes to its end returns this
    /// error.
    pub(crate) wal_left: Mutex<Option<Error>>,
}

impl Core {
    /// The core of a database whose threads have not been started.
    pub(crate) fn new(
        config: Config,
        migrations: Option<Migrations>,
        machine: Machine,
    ) -> Arc<Self> {
        let (config, domain, clock) = (Arc::new(config), Domain::new(), Arc::new(Clock::new()));
        let opener = Arc::new(Opener::new(Arc::clone(&config), machine));
        let writer = Arc::new(Queue::new(config.queue_capacity, domain, config.shed_after));
        let readers = Arc::new(Queue::new(config.queue_capacity, domain, config.shed_after));
        let feed = Arc::new(Feed::new(config.feed_capacity));
        let for_errands = Arc::clone(&readers);
        let ask = move |errand| for_errands.push_errand(ReaderItem::Errand(errand)).is_ok();
        let max = config.readers.max(2);
        let short = Arc::new(ShortReads::new(Arc::clone(&opener), max, Box::new(ask)));
        // No other process can change a memory database or an immutable file.
        let is_alone = config.is_memory() || config.immutable;
        let interval = config.look_interval.filter(|_| !is_alone);
        Arc::new(Self {
            held: HeldSnapshots::new(Arc::clone(&short), Arc::clone(&clock)),
            wakeup_watch: WakeupWatch::new(Arc::clone(&opener.wakeups), Arc::clone(&clock)),
            foreign_commits: ForeignCommits::new(
                interval,
                Arc::clone(&feed),
                Arc::clone(&writer),
                Arc::clone(&clock),
            ),
            config,
            opener,
            migrations,
            domain,
            writer,
            readers,
            clock,
            short,
            lease: LeaseSlot::default(),
            stops: Stops::default(),
            feed,
            meters: Meters::default(),
            yields_left: AtomicU8::new(0),
            check_for_stall: OnceLock::new(),
            warnings: OnceLock::new(),
            other: OnceLock::new(),
            wal_left: Mutex::new(None),
        })
    }

    /// Fails in a forked child: the child has no threads of the database, and the parent may hold the file's locks.
    pub(crate) fn check_process(&self) -> Result<(), ErrorKind> {
        if self.writer.is_forked() { Err(ErrorKind::Forked) } else { Ok(()) }
    }

    /// The present statistics.
    pub(crate) fn stats(&self) -> Stats {
        let (writer, readers) = (self.writer.lane_figures(), self.readers.lane_figures());
        Stats {
            wal_bytes: self.opener.file.wal_bytes(),
            oldest_reader: self.opener.board.oldest_reader(),
            writing: self.opener.board.writing(),
            snapshots: self.short.held(),
            short_reads: self.short.served(),
            clients: ClientStats::of_lanes(writer, readers),
            ..self.meters.read()
        }
    }

    /// Ends held snapshots and reads older than `age`, so that the WAL can start over.
    pub(crate) fn cut_readers(&self, age: Duration) {
        let cut = self.held.cut(age) + self.opener.board.cut_reads(age);
        self.meters.readers_cut.fetch_add(cut, Ordering::Relaxed);
    }

    /// Refuses the waiting calls and asks the running ones to stop.
    pub(crate) fn abort(&self) {
        self.readers.abort();
        self.writer.abort();
        self.held.abort();
        self.lease.abort();
    }

    /// Blocks until only the connections of the writer and the copier are open.
    pub(crate) fn wait_for_readers(&self) {
        self.readers.close();
        let _ = block_on(self.readers.gone());
        self.held.release();
        self.short.close();
    }
}
