//! The workloads, written once for all peers.
//!
//! A measurement has three phases: warm-up, measured, over. For workloads that look up rows, the warm-up lasts at least
//! [`FILLING`]. `tally.rs` decides which calls are counted. Calls without an answer [`PATIENCE`] after the end are
//! counted as unanswered.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::{
    Figures, Holder, Job, Latencies, Outcome, Peer, Phase, Phases, Random, Tally, Workload,
    Written, cpu_ms, jain, sql,
};

/// How long calls may take to end after the measured phase.
const PATIENCE: Duration = Duration::from_secs(3);
/// The time in seconds that it takes to read a million rows into the page caches of several connections.
const FILLING: f64 = 0.75;
/// How long the lock is held in the stall.
const HELD: Duration = Duration::from_secs(1);
/// After this time the future of an endless query is dropped.
const DROPPED_AFTER: Duration = Duration::from_millis(100);
/// How long the measurement waits for an answer after the queries were dropped.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// How long the use of the processors is measured afterwards.
const BURNING: Duration = Duration::from_millis(300);
/// After this time a bulk write commits the rows that it has inserted.
pub const BULK_MAX: Duration = Duration::from_secs(4);
/// How long the ticker runs before the lock is taken.
const IDLE: Duration = Duration::from_millis(500);
/// How long the ticker runs after the lock was released.
const RELEASED: Duration = Duration::from_millis(300);
/// The least time for scans in seconds: one scan takes up to a quarter of a second.
const SCANS: f64 = 1.0;
/// The number of writers in the mixed workload.
const WRITERS: usize = 8;
/// The number of writers beside the page.
const BUILDERS: usize = 4;
/// The number of calls in flight of the greedy client.
const GREEDY: usize = 256;

/// The runtime for a workload: two threads, as on the machine of the published figures; but one thread for the stall,
/// so that a blocked thread is noticed.
///
/// # Errors
/// The runtime cannot be started.
pub fn runtime(workload: Workload) -> Outcome<Runtime> {
    let mut builder = match workload {
        Workload::Stall => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if workload != Workload::Stall {
        builder.worker_threads(2);
    }
    builder.enable_all().build().map_err(|error| format!("no runtime: {error}"))
}

/// Opens a peer and measures it.
///
/// Afterwards neither the runtime nor the peer is waited for, because some peers leave queries running that never end.
///
/// # Errors
/// The peer cannot be opened, or the workload cannot be run at all. A failed call is no error: it is counted.
pub fn run<P: Peer, O: Future<Output = Outcome<P>>>(
    job: &Job,
    open: impl FnOnce() -> O,
) -> Outcome<Figures> {
    let runtime = runtime(job.workload)?;
    let figures = runtime.block_on(async {
        let peer = open().await?;
        // This clone is never dropped, because some destructors wait for their threads.
        std::mem::forget(peer.clone());
        match job.workload {
            Workload::TinyWrites => tiny_writes(job, peer).await,
            Workload::PointReads => point_reads(job, peer).await,
            Workload::Mixed => mixed(job, peer).await,
            Workload::Stall => stall(job, peer).await,
            Workload::Fairness => fairness(job, peer).await,
            Workload::LongScan => long_scan(job, peer).await,
            Workload::Cancel => cancel(job, peer).await,
            Workload::Bulk => bulk(peer).await,
            Workload::ReadPage => read_page(job, peer).await,
        }
    });
    runtime.shutdown_background();
    figures
}

impl Workload {
    /// The length of the warm-up, if `seconds` seconds are to be measured.
    #[must_use]
    pub fn warm_up(self, seconds: f64) -> Duration {
        let least = match self {
            Self::PointReads | Self::Mixed | Self::LongScan => FILLING,
            _ => 0.0,
        };
        Duration::from_secs_f64((seconds / 4.0).max(least))
    }

    /// The length of the measured phase, if `seconds` seconds are to be measured.
    #[must_use]
    pub fn measured(self, seconds: f64) -> Duration {
        let least = if self == Self::LongScan { SCANS } else { 0.0 };
        Duration::from_secs_f64(seconds.max(least))
    }

    /// How long a measurement takes if every call gets an answer. Used to estimate the length of a run, and to end a
    /// process that takes too long.
    #[must_use]
    pub fn takes(self, seconds: f64) -> Duration {
        match self {
            Self::Bulk => BULK_MAX / 2,
            Self::Stall => IDLE + HELD + RELEASED,
            Self::Cancel => DROPPED_AFTER + ANSWER_MAX + BURNING,
            Self::Fairness => 3 * (self.warm_up(seconds) + self.measured(seconds)),
            _ => self.warm_up(seconds) + self.measured(seconds),
        }
    }
}

// The workloads.

async fn tiny_writes<P: Peer>(job: &Job, peer: P) -> Outcome<Figures> {
    let mut bench = Bench::new();
    for task in 0..job.tasks {
        let (peer, mut random) = (peer.clone(), Random::of_task(task));
        bench.spawn(WRITE, task, task, move || {
            let (peer, key) = (peer.clone(), random.key());
            async move { peer.insert(key).await }
        });
    }
    Ok(bench.finish(job).await.figures)
}

async fn point_reads<P: Peer>(job: &Job, peer: P) -> Outcome<Figures> {
    let mut bench = Bench::new();
    bench.readers(&peer, job.tasks);
    Ok(bench.finish(job).await.figures)
}

async fn mixed<P: Peer>(job: &Job, peer: P) -> Outcome<Figures> {
    let mut bench = Bench::new();
    for task in 0..WRITERS {
        let (peer, mut random) = (peer.clone(), Random::of_task(task));
        bench.spawn(WRITE, task, task, move || {
            let (peer, key) = (peer.clone(), random.key());
            async move { peer.insert(key).await }
        });
    }
    bench.readers(&peer, job.tasks);
    Ok(bench.finish(job).await.figures)
}

async fn long_scan<P: Peer>(job: &Job, peer: P) -> Outcome<Figures> {
    let mut bench = Bench::new();
    {
        let peer = peer.clone();
        bench.spawn("scan", 0, 0, move || {
            let peer = peer.clone();
            async move { peer.scan().await.map(drop) }
        });
    }
    bench.readers(&peer, job.tasks);
    Ok(bench.finish(job).await.figures)
}

async fn read_page<P: Peer>(job: &Job, peer: P) -> Outcome<Figures> {
    let mut bench = Bench::new();
    for task in 0..BUILDERS {
        let (peer, mut random) = (peer.clone(), Random::of_task(task));
        bench.spawn(WRITE, task, task, move || {
            let (peer, n) = (peer.clone(), random.next());
            let project = (n % sql::PROJECTS + 1).cast_signed();
            async move { peer.add_build(project, (n >> 32).cast_signed() % 4).await }
        });
    }
    for task in 0..job.tasks {
        let (peer, mut random) = (peer.clone(), Random::of_task(1000 + task));
        bench.spawn("page", task, 0, move || {
            let (peer, name) = (peer.clone(), sql::project(random.next() % sql::PROJECTS));
            async move {
                let page = peer.page(name).await?;
                if page.is_torn() {
                    return Err(format!(
                        "torn page: {} builds, {} counted",
                        page.builds, page.counted
                    ));
                }
                if page.latest != 20 || page.mean <= 0.0 {
                    return Err(format!("half a page: {page:?}"));
                }
                Ok(())
            }
        });
    }
    Ok(bench.finish(job).await.figures)
}

async fn bulk<P: Peer>(peer: P) -> Outcome<Figures> {
    let mut figures = Figures::default();
    let (began, cpu) = (Instant::now(), cpu_ms());
    match peer.bulk(sql::PEOPLE, BULK_MAX).await {
        Ok(rows) => {
            figures.value("rows_per_s", rows as f64 / began.elapsed().as_secs_f64());
            figures.value("rows", rows as f64);
            figures.value("cpu_us_per_row", (cpu_ms() - cpu) * 1e3 / rows.max(1) as f64);
            figures.bulk_rows = rows;
        }
        Err(error) => figures.failed(error),
    }
    Ok(figures)
}

/// Eight clients in three parts: all polite, one greedy, all busy.
async fn fairness<P: Peer>(job: &Job, peer: P) -> Outcome<Figures> {
    const CLIENTS: usize = 8;
    let clients: Vec<P> = (0..CLIENTS).map(|n| peer.client(&format!("client-{n}"))).collect();
    let mut parts = Vec::new();
    for (part, in_flight) in
        [[1; CLIENTS], [1, 1, 1, 1, 1, 1, 1, GREEDY], [32; CLIENTS]].into_iter().enumerate()
    {
        let mut bench = Bench::new();
        for (n, client) in clients.iter().enumerate() {
            for call in 0..in_flight[n] {
                let peer = client.clone();
                let seed = part * 100_000 + n * 1000 + call;
                let mut random = Random::of_task(seed);
                let name = if n + 1 == CLIENTS { "greedy" } else { "polite" };
                bench.spawn(name, n, seed, move || {
                    let (peer, key) = (peer.clone(), random.key());
                    async move { peer.insert(key).await }
                });
            }
        }
        parts.push(bench.finish(job).await);
    }
    let [alone, greedy, busy] = &parts[..] else { return Err("three parts".to_owned()) };
    let mut figures = greedy.figures.clone();
    let least = |rates: &[f64]| rates[..CLIENTS - 1].iter().copied().fold(f64::INFINITY, f64::min);
    let mean = alone.clients.iter().sum::<f64>() / CLIENTS as f64;
    let polite = greedy.clients[..CLIENTS - 1].iter().sum::<f64>();
    figures.value("writes_per_s", polite + greedy.clients[CLIENTS - 1]);
    figures.value("polite_per_s", polite);
    figures.value("jain_beside_greedy", jain(&greedy.clients));
    figures.value("jain_all_busy", jain(&busy.clients));
    figures
        .value("least_polite_keeps", if mean > 0.0 { least(&greedy.clients) / mean } else { 0.0 });
    figures.clients.clone_from(&greedy.clients);
    for part in [alone, busy] {
        figures.written.extend_from_slice(&part.figures.written);
        figures.errors += part.figures.errors;
        figures.unanswered += part.figures.unanswered;
        if figures.first_error.is_none() {
            figures.first_error.clone_from(&part.figures.first_error);
        }
    }
    Ok(figures)
}

/// A ticker on a runtime with one thread: first idle, then while another process holds the lock.
async fn stall<P: Peer>(job: &Job, peer: P) -> Outcome<Figures> {
    let mut holder = Holder::start(&job.lab, &job.file)?;
    // The first call opens connections and prepares statements, which is not to be measured.
    peer.insert("before".to_owned()).await?;
    let idle = Ticker::run(IDLE).await;
    holder.take()?;
    let began = Instant::now();
    let released = tokio::task::spawn_blocking(move || {
        // The lock is held for this time on purpose. This is no wait for an event.
        std::thread::sleep(HELD);
        holder.release().map(|()| Instant::now())
    });
    let tallies: Vec<_> = (0..job.tasks)
        .map(|task| {
            let (peer, key) = (peer.clone(), Random::of_task(task).key());
            tokio::spawn(async move {
                let answer = peer.insert(key).await;
                (answer, Instant::now())
            })
        })
        .collect();
    let locked = Ticker::run(HELD + RELEASED).await;
    let released = released.await.map_err(|error| error.to_string())??;
    let mut figures = Figures::default();
    let mut latencies = Latencies::default();
    let mut first: Option<Instant> = None;
    let until = Instant::now() + PATIENCE;
    for (task, tally) in tallies.into_iter().enumerate() {
        match tokio::time::timeout_at(until.into(), tally).await {
            Ok(Ok((Ok(()), at))) => {
                figures.written.push(Written { seed: task, calls: 1, failed: Vec::new() });
                latencies.add(at - began);
                if at > released {
                    first = Some(first.map_or(at, |first| first.min(at)));
                }
            }
            Ok(Ok((Err(error), _))) => figures.failed(error),
            Ok(Err(error)) => figures.failed(error.to_string()),
            Err(_) => figures.unanswered += 1,
        }
    }
    figures.value("late_idle_ms", idle.worst_ms);
    figures.value("late_locked_ms", locked.worst_ms);
    figures.value("longest_write_ms", latencies.summary().max);
    if let Some(first) = first {
        figures.value("first_after_release_ms", (first - released).as_secs_f64() * 1e3);
    }
    figures.lateness = locked.series;
    figures.latencies.insert(WRITE.to_owned(), latencies);
    Ok(figures)
}

/// Drops the futures of queries that never end, and then runs the smallest query.
async fn cancel<P: Peer>(job: &Job, peer: P) -> Outcome<Figures> {
    let mut figures = Figures::default();
    peer.one().await?;
    let began = Instant::now();
    let dropped: Vec<_> = (0..job.tasks)
        .map(|_| {
            let peer = peer.clone();
            tokio::spawn(async move {
                match tokio::time::timeout(DROPPED_AFTER, peer.endless()).await {
                    Err(_) => Ok(()),
                    Ok(Ok(rows)) => Err(format!("the endless query counted {rows} rows")),
                    Ok(Err(error)) => Err(error),
                }
            })
        })
        .collect();
    for query in dropped {
        if let Err(error) = query.await.map_err(|error| error.to_string())? {
            figures.failed(error);
        }
    }
    figures.value("future_back_ms", began.elapsed().as_secs_f64() * 1e3);
    let began = Instant::now();
    match tokio::time::timeout(ANSWER_MAX, peer.one()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => figures.failed(error),
        Err(_) => figures.unanswered += 1,
    }
    // If no answer came, this is how long the measurement waited for it.
    figures.value("answer_ms", began.elapsed().as_secs_f64() * 1e3);
    let (began, cpu) = (Instant::now(), cpu_ms());
    tokio::time::sleep(BURNING).await;
    let seconds = began.elapsed().as_secs_f64();
    figures.value("cores_burning", (cpu_ms() - cpu) / 1e3 / seconds);
    Ok(figures)
}

const WRITE: &str = "write";
const READ: &str = "read";

// The measurement itself.

struct Task {
    name: &'static str,
    client: usize,
    tally: Arc<Mutex<Tally>>,
    handle: JoinHandle<()>,
}

struct Bench {
    phases: Arc<Phases>,
    tasks: Vec<Task>,
}

struct Measured {
    figures: Figures,
    /// The rate of each client, in calls per second.
    clients: Vec<f64>,
}

impl Bench {
    fn new() -> Self {
        Self { phases: Arc::default(), tasks: Vec::new() }
    }

    fn readers<P: Peer>(&mut self, peer: &P, tasks: usize) {
        for task in 0..tasks {
            let (peer, mut random) = (peer.clone(), Random::of_task(2000 + task));
            self.spawn(READ, task, 0, move || {
                let (peer, key) = (peer.clone(), random.known());
                async move {
                    match peer.lookup(key).await? {
                        1 => Ok(()),
                        age => Err(format!("everybody is 1 year old, this one is {age}")),
                    }
                }
            });
        }
    }

    /// Starts a task that makes one call after the other until the measurement is over. `seed` is the seed of its keys.
    fn spawn<C, F>(&mut self, name: &'static str, client: usize, seed: usize, mut call: C)
    where
        C: FnMut() -> F + Send + 'static,
        F: Future<Output = Outcome<()>> + Send,
    {
        let phases = Arc::clone(&self.phases);
        // Shared with the measurement, so that the tally can be read even if the task's last call never ends.
        let tally = Arc::new(Mutex::new(Tally::new(seed)));
        let handle = tokio::spawn({
            let tally = Arc::clone(&tally);
            async move {
                let mut calls = 0_u64;
                loop {
                    let begun_in = phases.now();
                    if begun_in == Phase::Over {
                        return;
                    }
                    let began = Instant::now();
                    let outcome = call().await;
                    let took = began.elapsed();
                    {
                        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                        tally.note(begun_in, phases.now(), outcome, took);
                    }
                    calls += 1;
                    // Some calls are ready immediately, so the task must let other tasks run from time to time.
                    if calls.is_multiple_of(64) {
                        tokio::task::yield_now().await;
                    }
                }
            }
        });
        self.tasks.push(Task { name, client, tally, handle });
    }

    async fn finish(self, job: &Job) -> Measured {
        self.measure(job.workload.warm_up(job.seconds), job.workload.measured(job.seconds)).await
    }

    async fn measure(self, warm_up: Duration, time: Duration) -> Measured {
        tokio::time::sleep(warm_up).await;
        let (began, cpu) = (Instant::now(), cpu_ms());
        self.phases.begin(Phase::Measured);
        tokio::time::sleep(time).await;
        self.phases.begin(Phase::Over);
        let (elapsed, cpu) = (began.elapsed().as_secs_f64(), cpu_ms() - cpu);

        let mut figures = Figures::default();
        let until = tokio::time::Instant::now() + PATIENCE;
        let mut clients: Vec<f64> = Vec::new();
        let (mut calls, mut all) = (0, std::collections::BTreeMap::<_, (u64, Latencies)>::new());
        for Task { name, client, tally, mut handle } in self.tasks {
            let ended = tokio::time::timeout_at(until, &mut handle).await;
            let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => figures.failed(error.to_string()),
                Err(_) => {
                    handle.abort();
                    tally.give_up();
                    figures.unanswered += 1;
                }
            }
            figures.errors += tally.errors;
            if figures.first_error.is_none() {
                figures.first_error.clone_from(&tally.first_error);
            }
            if name != READ && name != "page" && name != "scan" {
                figures.written.push(tally.written.clone());
            }
            calls += tally.done;
            let (done, latencies) = all.entry(name).or_default();
            *done += tally.done;
            latencies.merge(&tally.latencies);
            if name == "polite" || name == "greedy" {
                clients.resize(clients.len().max(client + 1), 0.0);
                clients[client] += tally.done as f64 / elapsed;
            }
        }
        for (name, (done, latencies)) in all {
            figures.calls(name, done as f64 / elapsed, latencies);
        }
        figures.value("cpu_us_per_call", cpu * 1e3 / calls.max(1) as f64);
        Measured { figures, clients }
    }
}

/// A task that wakes up every millisecond and notes how late it was.
#[derive(Debug)]
pub struct Ticker;

/// The series has one point for this many milliseconds.
const SLOT_MS: f64 = 10.0;

/// How late a [`Ticker`] was.
#[derive(Clone, Debug, Default)]
pub struct Lateness {
    /// The greatest lateness of a tick.
    pub worst_ms: f64,
    /// For each 10 ms: the milliseconds since the start, and the greatest lateness of the ticks that were due in them.
    pub series: Vec<(f64, f64)>,
}

impl Lateness {
    /// Notes a tick that was due at `due_ms` and was `late_ms` late.
    fn note(&mut self, due_ms: f64, late_ms: f64) {
        let slot = (due_ms / SLOT_MS).floor() * SLOT_MS;
        match self.series.last_mut() {
            Some((at, worst)) if *at >= slot => *worst = worst.max(late_ms),
            _ => self.series.push((slot, late_ms)),
        }
    }
}

impl Ticker {
    /// Ticks for `time` on the current runtime.
    pub async fn run(time: Duration) -> Lateness {
        const STEP: Duration = Duration::from_millis(1);
        let began = Instant::now();
        let mut ticks = tokio::time::interval(STEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The first tick is compared with the start, because the thread may be blocked before that tick.
        let mut last = began;
        let mut lateness = Lateness::default();
        while began.elapsed() < time {
            ticks.tick().await;
            let late = last.elapsed().saturating_sub(STEP).as_secs_f64() * 1e3;
            last = Instant::now();
            lateness.worst_ms = lateness.worst_ms.max(late);
            // The ticks that were due since the last one were late too, each by the time from when it was due until
            // now.
            let now = began.elapsed().as_secs_f64() * 1e3;
            let mut due = now - late;
            while due < now {
                lateness.note(due, now - due);
                due += SLOT_MS;
            }
            if late == 0.0 {
                lateness.note(now, 0.0);
            }
        }
        lateness
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_began_in_the_warm_up_counts_when_it_ends_in_the_measured_time() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let figures = runtime.block_on(async {
            let mut bench = Bench::new();
            let phases = Arc::clone(&bench.phases);
            // The first task's first call ends in the measured time, its second call when the measurement is over. The
            // second task's only call lasts from the warm-up to the end.
            for until in [[Phase::Measured, Phase::Over], [Phase::Over, Phase::Over]] {
                let phases = Arc::clone(&phases);
                let mut calls = until.into_iter();
                bench.spawn(WRITE, 0, 0, move || {
                    let (phases, until) = (Arc::clone(&phases), calls.next());
                    async move {
                        let until = until.ok_or("a third call")?;
                        while phases.now() < until {
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                        Ok(())
                    }
                });
            }
            bench.measure(Duration::from_millis(50), Duration::from_millis(600)).await.figures
        });
        assert_eq!(figures.first_error, None);
        assert_eq!(figures.latencies[WRITE].count(), 3);
        // Only the first of the three calls ended in the measured time, which lasts 0.6 s or a little longer.
        let rate = figures.values["writes_per_s"];
        assert!(rate > 0.0 && rate <= 1.0 / 0.6, "{rate}");
        // The call that lasted from the warm-up to the end took at least the measured time.
        assert!(figures.values["write_max_ms"] >= 600.0, "{figures:?}");
        assert_eq!(figures.written.iter().map(Written::answered).sum::<u64>(), 3);
    }

    #[test]
    fn every_tick_that_was_due_while_the_thread_stood_still_is_late() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let lateness = runtime.block_on(async {
            // The task blocks the thread on purpose.
            tokio::spawn(async { std::thread::sleep(Duration::from_millis(100)) });
            Ticker::run(Duration::from_millis(150)).await
        });
        assert!(lateness.worst_ms >= 95.0, "{lateness:?}");
        let late = lateness.series.iter().filter(|(_, late)| *late > 15.0).count();
        assert!((7..=20).contains(&late), "a ramp of some nine points: {lateness:?}");
        assert!(lateness.series.is_sorted_by(|a, b| a.0 < b.0), "{lateness:?}");
    }
}
