//! The measured server: the real one, in a process of its own. Lines on its standard input make it change builds while
//! it answers requests.
//!
//! | line | what the server does | what it prints afterwards |
//! |---|---|---|
//! | `history N` | does not touch jobs with N finished builds, because requests ask for them | `ok` |
//! | `stock N` | registers builds until N builds wait for updates to start them | `ok` |
//! | `updates R` | makes R status updates per second from now on; 0: none | `ok` |
//! | `bulk N` | makes N status updates as fast as it can | seconds |
//! | `register N` | registers one evaluation with N new jobs | seconds |
//! | `pair N` | registers two evaluations with N jobs each, of which nine of ten share their builds | their numbers |
//! | `updated` | nothing | the number of status updates since the last such line |
//!
//! An update writes what the builder stores: a start, or an end with attempt, counters, weather and outputs.
//!
//! Updates change builds that this process has registered. A small database would not have enough waiting builds, and
//! its lists would then differ from those of a large one. The registered builds belong to jobs that the largest
//! specification has, with similar names, paths and outputs, so updates change all parts of the indexes. At any time
//! [`RUNNING`] of them run, so that the queue lists only these.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use brigandine::{App, Config, Sandbox, Web, WebConfig};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::measuring;
use crate::output::{Failure, failed, say};
use brigandine::model::{self, BuildId, BuildLogFile, BuildStatus, EvaluationId, SpecificationId};
use brigandine::store::{self, Database, DatabaseError, Finish, NewJob};

/// The number of updates in one write of `bulk`.
const BULK: usize = 500;
/// The pause between two portions of a steady load.
const TICK: Duration = Duration::from_millis(5);
/// How many builds run while updates are made: more than the queue lists (200), and more than one write ends
/// ([`BULK`]).
const RUNNING: usize = 1000;
/// The most jobs in an evaluation whose builds the updates change.
const JOBS: usize = 4000;
/// The number of builds in one read of the search for such jobs.
const RUN: u32 = 500;
/// The most reads of the search.
const RUNS_MAX: i64 = 400;

/// Serves until standard input ends.
pub(crate) fn run(state: &Path) -> Result<(), Failure> {
    brigandine::runtime()?.block_on(serve(state))
}

async fn serve(state: &Path) -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut config = Config::default();
    config.state = state.to_owned();
    config.interval = Duration::from_secs(3600);
    config.max_jobs = 1;
    config.sandbox = Sandbox::Off;
    let app = App::start(config).await?;
    app.run().await?;
    let web = Web::start(listener, &app, WebConfig::default(), None, None);
    say(&format!("listening at http://{address}"));
    let load = Load {
        database: app.database().client("bench"),
        specification: SpecificationId::new(1),
        history: 0,
        templates: Arc::new([]),
        registered: 0,
        waiting: VecDeque::new(),
        running: VecDeque::new(),
        done: Arc::new(AtomicU64::new(0)),
    };
    let outcome = obey(load).await;
    web.close().await;
    app.shutdown(false).await?;
    outcome
}

async fn obey(mut load: Load) -> Result<(), Failure> {
    let (sender, mut lines) = mpsc::channel(4);
    std::thread::Builder::new().name("brigandine-orders".to_owned()).spawn(move || {
        // The thread ends when the input ends; the process does not wait for the thread.
        for line in std::io::stdin().lines() {
            let over = line.is_err();
            if sender.blocking_send(line).is_err() || over {
                break;
            }
        }
    })?;
    let mut rate = Rate::default();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    loop {
        let line = tokio::select! {
            line = lines.recv() => line.transpose()?,
            _ = tick.tick(), if rate.per_s > 0 => {
                load.steadily(rate.portion()).await?;
                continue;
            }
        };
        let Some(line) = line else { return Ok(()) };
        let (word, number) = line.split_once(' ').unwrap_or((&line, "0"));
        let number: usize = number.parse()?;
        let began = Instant::now();
        match word {
            "history" => {
                load.history = u32::try_from(number)?;
                say("ok");
            }
            "stock" => {
                load.stock(number).await?;
                say("ok");
            }
            "updates" => {
                rate = Rate { per_s: number, owed: 0 };
                tick.reset();
                say("ok");
            }
            "bulk" => {
                load.stock(number / 2 + RUNNING).await?;
                let began = Instant::now();
                load.bulk(number).await?;
                say(&began.elapsed().as_secs_f64().to_string());
            }
            "pair" => {
                let (one, other) = load.register_pair(number).await?;
                say(&format!("{one} {other}"));
            }
            "register" => {
                load.register_new(number).await?;
                say(&began.elapsed().as_secs_f64().to_string());
            }
            "updated" => say(&load.done.swap(0, Ordering::Relaxed).to_string()),
            other => return Err(failed(format!("what is `{other}`?"))),
        }
    }
}

/// A steady load.
#[derive(Debug, Default)]
struct Rate {
    /// Updates per second; 0: none.
    per_s: usize,
    /// What the last portion left over, in updates times the ticks of a second: less than one update.
    owed: usize,
}

impl Rate {
    /// The number of updates of the next tick. Over a second, the portions add up to the rate.
    fn portion(&mut self) -> usize {
        let ticks = usize::try_from(1000 / TICK.as_millis()).unwrap_or(1);
        let owed = self.owed + self.per_s;
        self.owed = owed % ticks;
        owed / ticks
    }
}

/// A registered build that updates change, and the index of its template.
#[derive(Debug, Clone, Copy)]
struct Made {
    id: BuildId,
    template: usize,
}

/// The next update of a build.
#[derive(Debug, Clone, Copy)]
enum Update {
    Start(Made),
    End(Made),
}

/// A build of the database, which registered builds resemble.
#[derive(Debug)]
struct Template {
    job: String,
    system: String,
    nix_name: String,
    derivation: String,
    outputs: Vec<(String, String)>,
}

impl Template {
    /// A system for which the server does not build, because its builder must not start such builds.
    fn system(&self) -> String {
        self.system.replace("linux", "bench")
    }

    /// The outputs of the build `id`. Their names, and the lengths of their paths, are those of the template.
    fn outputs(&self, id: BuildId) -> Vec<(String, String)> {
        let outputs = (0_i64..).zip(&self.outputs);
        outputs.map(|(n, (name, path))| (name.clone(), like(path, id.get() * 8 + n))).collect()
    }
}

/// A store path like `path` with another digest. The digest is the part of the last component before its first `-`.
fn like(path: &str, seed: i64) -> String {
    let (folder, base) = path.rsplit_once('/').map_or(("", path), |(folder, base)| (folder, base));
    let (digest, rest) = base.split_once('-').unwrap_or(("", base));
    let mut new = format!("{:016x}{:016x}", store::mix(seed), store::mix(!seed));
    if (16..32).contains(&digest.len()) {
        new.truncate(digest.len());
    }
    if folder.is_empty() { format!("{new}-{rest}") } else { format!("{folder}/{new}-{rest}") }
}

struct Load {
    database: Database,
    /// The largest specification, to which the templates' jobs belong.
    specification: SpecificationId,
    /// The number of finished builds of the jobs for which requests ask. Such jobs get no new builds.
    history: u32,
    /// Empty until they are needed; at most [`JOBS`].
    templates: Arc<[Template]>,
    /// How many builds have been registered.
    registered: i64,
    /// Builds that updates may start; at most as many as the plan of the measurement needs.
    waiting: VecDeque<Made>,
    /// Builds that updates have started; at most one more than [`RUNNING`].
    running: VecDeque<Made>,
    /// The number of updates since the last line `updated`.
    done: Arc<AtomicU64>,
}

impl Load {
    /// Registers evaluations until `number` builds wait.
    async fn stock(&mut self, number: usize) -> Result<(), Failure> {
        if self.templates.is_empty() {
            let history = self.history;
            let found = self.database.read(move |s| templates(s, history)).await;
            (self.specification, self.templates) = found?;
        }
        if self.templates.is_empty() {
            return Err(failed("the database has no finished builds to make others like"));
        }
        while self.waiting.len() < number {
            self.stock_one().await?;
        }
        brigandine::give_back().await;
        Ok(())
    }

    /// Registers one evaluation, with a build for each template.
    async fn stock_one(&mut self) -> Result<(), Failure> {
        let first = self.registered;
        self.registered += i64::try_from(self.templates.len())?;
        // A seed that is different for each process and each build.
        let stamp = stamp()?;
        let seed = store::derivation_key(&stamp).wrapping_add(first);
        let jobs: Vec<_> = (0..)
            .zip(self.templates.iter())
            .map(|(n, template)| NewJob {
                name: template.job.clone(),
                derivation: like(&template.derivation, seed.wrapping_add(n)),
                system: template.system(),
                nix_name: template.nix_name.clone(),
                ..NO_JOB
            })
            .collect();
        let evaluation = self.register(jobs, stamp).await?;
        let limit = u32::try_from(self.templates.len())?;
        let read = self.database.read(move |s| store::job_builds(s, evaluation, &[], None, limit));
        let mut made = read.await?;
        // Builds are numbered in the order of their registration, which is the order of the templates.
        made.sort_unstable_by_key(|job| job.build);
        let (count, wanted) = (made.len(), self.templates.len());
        let new = made.iter().enumerate().map(|(template, job)| Made { id: job.build, template });
        self.waiting.extend(new);
        if count == wanted {
            return Ok(());
        }
        Err(failed(format!("{count} builds were registered instead of {wanted}")))
    }

    /// The next update: starts until more than [`RUNNING`] builds run, then an end of the oldest and a start in turn.
    fn next(&mut self) -> Option<Update> {
        if self.running.len() <= RUNNING
            && let Some(made) = self.waiting.pop_front()
        {
            self.running.push_back(made);
            return Some(Update::Start(made));
        }
        self.running.pop_front().map(Update::End)
    }

    /// Makes `number` updates concurrently, each in a write of its own.
    async fn steadily(&mut self, number: usize) -> Result<(), Failure> {
        if self.waiting.len() < number {
            // Not expected, because the plan registers enough builds.
            self.stock(JOBS).await?;
        }
        let mut writes = tokio::task::JoinSet::new();
        for _ in 0..number {
            let Some(update) = self.next() else { break };
            let (database, done) = (self.database.clone(), Arc::clone(&self.done));
            let templates = Arc::clone(&self.templates);
            writes.spawn(async move {
                database.write(move |tx| change(tx, &templates, update)).await?;
                done.fetch_add(1, Ordering::Relaxed);
                Ok::<(), DatabaseError>(())
            });
        }
        while let Some(written) = writes.join_next().await {
            written??;
        }
        Ok(())
    }

    async fn bulk(&mut self, number: usize) -> Result<(), Failure> {
        let mut left = number;
        while left > 0 {
            let updates: Vec<_> = (0..left.min(BULK)).filter_map(|_| self.next()).collect();
            left -= left.min(BULK);
            let templates = Arc::clone(&self.templates);
            let write = self.database.write(move |tx| {
                updates.iter().try_for_each(|update| change(tx, &templates, *update))
            });
            write.await?;
        }
        self.done.fetch_add(number as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Registers one evaluation with new jobs in one write, like a monitor.
    async fn register_new(&self, number: usize) -> Result<(), Failure> {
        let stamp = stamp()?;
        let jobs: Vec<_> = (0..number).map(|n| new_job(&stamp, n)).collect();
        self.register(jobs, stamp).await?;
        brigandine::give_back().await;
        Ok(())
    }

    /// Registers two evaluations. Every tenth job of the second has a build of its own.
    async fn register_pair(&self, number: usize) -> Result<(EvaluationId, EvaluationId), Failure> {
        let (first, second) = (stamp()?, stamp()?);
        let before: Vec<_> = (0..number).map(|n| new_job(&first, n)).collect();
        let stamp = |n: usize| if n.is_multiple_of(10) { &second } else { &first };
        let after: Vec<_> = (0..number).map(|n| new_job(stamp(n), n)).collect();
        let first = self.register(before, first.clone()).await?;
        Ok((first, self.register(after, second.clone()).await?))
    }

    async fn register(&self, jobs: Vec<NewJob>, stamp: String) -> Result<EvaluationId, Failure> {
        let (of, now) = (self.specification, model::now());
        let registered = self.database.write_once(move |tx| {
            let begun = store::begin_evaluation(tx, of, &stamp, &[], "", now)?;
            let store::Begun::New(id) = begun else { return Ok(None) };
            Ok(store::register(tx, id, &jobs, "", "", now)?.map(|_| id))
        });
        registered.await?.ok_or_else(|| failed("an evaluation was there before it was made"))
    }
}

/// A job with a name of its own, whose derivation is another one for each stamp.
fn new_job(stamp: &str, n: usize) -> NewJob {
    let digest = store::derivation_key(&format!("{stamp} {n}")).unsigned_abs();
    NewJob {
        name: format!("bench-{n:06}-1.0.x86_64-linux"),
        derivation: format!("/gnu/store/{digest:020}{n:012}-bench-{n:06}-1.0.drv"),
        system: "bench-linux".to_owned(),
        nix_name: format!("bench-{n:06}-1.0"),
        ..NO_JOB
    }
}

/// The values that most jobs have in common.
pub(crate) const NO_JOB: NewJob = NewJob {
    name: String::new(),
    derivation: String::new(),
    system: String::new(),
    nix_name: String::new(),
    priority: 0,
    timeout_s: 0,
    max_silent_s: 0,
    definition: None,
    needs: Vec::new(),
};

/// Returns a stamp that no evaluation has.
fn stamp() -> Result<String, Failure> {
    let stamp = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    Ok(stamp.trim().to_owned())
}

/// The largest specification, and builds of at most [`JOBS`] different jobs of it, from all parts of the database. Jobs
/// with `history` finished builds are left out, unless there are no others.
fn templates(
    s: &store::Snapshot,
    history: u32,
) -> rusqlite::Result<(SpecificationId, Arc<[Template]>)> {
    let Some(largest) = measuring::sizes(s)?.pop() else {
        return Ok((SpecificationId::new(1), Arc::new([])));
    };
    let highest = measuring::highest_build(s)?;
    let mut found = BTreeMap::new();
    let mut left_out = BTreeMap::new();
    for draw in 1..=RUNS_MAX {
        let from = store::mix(!draw).cast_signed().rem_euclid(highest.max(1));
        let mut run = measuring::builds_above(s, BuildId::new(from), RUN)?;
        run.retain(|build| build.specification_id == largest.id);
        let ids: Vec<_> = run.iter().map(|build| build.id).collect();
        let mut outputs = store::outputs(s, &ids)?;
        for build in run {
            let list = store::job_history(s, &largest.name, &build.job, history.saturating_add(1))?;
            let kept = if list.len() == history as usize { &mut left_out } else { &mut found };
            if kept.len() == JOBS || kept.contains_key(&build.job) {
                continue;
            }
            let outputs = outputs.remove(&build.id).unwrap_or_default();
            let template = Template {
                job: build.job.clone(),
                system: build.system,
                nix_name: build.nix_name,
                derivation: build.derivation,
                outputs: outputs.into_iter().map(|output| (output.name, output.path)).collect(),
            };
            kept.insert(build.job, template);
        }
        if found.len() == JOBS {
            break;
        }
    }
    let kept = if found.is_empty() { left_out } else { found };
    // Not sorted by name, so that successive ends change different parts of the index of jobs.
    let mut templates: Vec<_> = kept.into_values().collect();
    templates.sort_by_cached_key(|template| store::derivation_key(&template.job));
    Ok((largest.id, templates.into()))
}

fn change(tx: &store::Transaction, templates: &[Template], update: Update) -> rusqlite::Result<()> {
    let now = model::now();
    match update {
        Update::Start(made) => store::start(tx, made.id, "bench", now).map(drop),
        Update::End(made) => {
            let id = made.id;
            let status =
                if id.get() % 20 == 0 { BuildStatus::Failed } else { BuildStatus::Succeeded };
            let end = Finish {
                id,
                // Each build is started only once.
                attempt: 1,
                status,
                message: String::new(),
                stopped_at: now,
                log: BuildLogFile::default(),
                outputs: templates.get(made.template).map_or_else(Vec::new, |t| t.outputs(id)),
                products: Vec::new(),
            };
            store::finish(tx, &end).map(drop)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Rate, TICK, like};

    #[test]
    fn a_second_has_as_many_updates_as_were_asked_for() {
        for per_s in [1, 3, 150, 199, 200, 201, 250, 399, 2000, 12_345] {
            let mut rate = Rate { per_s, owed: 0 };
            let ticks = 1000 / TICK.as_millis();
            for second in 1..=3 {
                let made: usize = (0..ticks).map(|_| rate.portion()).sum();
                assert_eq!(made, per_s, "in second {second}");
            }
        }
    }

    #[test]
    fn a_path_that_is_made_like_another_differs_in_its_digest_alone() {
        let digest = "0123456789abcdfghijklmnpqrsvwxyz";
        let path = format!("/gnu/store/{digest}-hello-2.10.drv");
        let (one, two) = (like(&path, 1), like(&path, -1));
        assert_ne!(one, two);
        for new in [&one, &two] {
            assert_eq!(new.len(), path.len());
            assert!(new.starts_with("/gnu/store/") && new.ends_with("-hello-2.10.drv"), "{new}");
            assert!(!new.contains(digest), "{new}");
        }
        // A path without a digest gets one, so that two builds never have the same derivation.
        for path in ["hello.drv", "/store/a-hello.drv"] {
            assert_ne!(like(path, 1), like(path, 2));
        }
    }
}
