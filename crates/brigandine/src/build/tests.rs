//! The builder's loop with a dispatcher that the test controls.

use super::builder::{Builder, BuilderSettings, Stop};
use super::dispatch::{BuildJob, DispatchEvent, Dispatcher, EndRequest, Lost, Outcome, Progress};
use crate::health::Health;
use crate::log::Logs;
use crate::model::{self, BuildId, BuildLogFile, BuildStatus, Definition, Event, Live};
use crate::store::{self, Begun, Database, DatabaseError, NewJob};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc};

mod stops;

/// A dispatcher that tells the test what it was offered and asked to cancel.
#[derive(Debug)]
struct Hands {
    offered: mpsc::Sender<(BuildId, i64)>,
    canceled: mpsc::Sender<(BuildId, i64)>,
    /// The logs of the jobs that were offered.
    held: mpsc::Sender<crate::log::LogWriter>,
}

impl Dispatcher for Hands {
    fn offer(&self, job: BuildJob, log: crate::log::LogWriter) {
        self.held.try_send(log).expect("room for a log");
        self.offered.try_send((job.id, job.attempt)).expect("room for an offer");
    }

    fn cancel(&self, id: BuildId, attempt: i64, _: EndRequest) {
        self.canceled.try_send((id, attempt)).expect("room for a cancel");
    }
}

struct Bench {
    database: Database,
    builder: Builder,
    offered: mpsc::Receiver<(BuildId, i64)>,
    canceled: mpsc::Receiver<(BuildId, i64)>,
    held: mpsc::Receiver<crate::log::LogWriter>,
    logs: Logs,
    report: mpsc::Sender<DispatchEvent>,
    published: broadcast::Receiver<Event>,
    task: tokio::task::JoinHandle<Result<(), DatabaseError>>,
    _directory: tempfile::TempDir,
}

/// The pause after a first loss.
const PAUSE: Duration = Duration::from_millis(150);

const TIME_LIMIT: Duration = Duration::from_secs(20);

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(TIME_LIMIT, future).await.expect("in time")
}

async fn bench(jobs: usize, max_jobs: usize) -> Bench {
    bench_with(jobs, max_jobs, "").await
}

/// A builder over a database in which the statements `more` have run.
#[expect(
    clippy::too_many_lines,
    reason = "the parts of a builder, in the order in which they are made"
)]
async fn bench_with(jobs: usize, max_jobs: usize, more: &'static str) -> Bench {
    let directory = tempfile::tempdir().expect("a directory");
    let database =
        Database::open(Path::new(":memory:"), true, Duration::from_secs(30)).await.expect("opens");
    database
        .exclusive(|connection| connection.execute_batch(include_str!("../../schema.sql")))
        .await
        .expect("the schema");
    let definition = Definition {
        version: Definition::VERSION,
        name: "n".to_owned(),
        command: vec!["true".to_owned()],
        environment: std::collections::BTreeMap::new(),
        system: "s".to_owned(),
        sources: Vec::new(),
        needs: std::collections::BTreeMap::new(),
        products: Vec::new(),
        isolation: String::new(),
        network: false,
        description: String::new(),
    };
    let text = serde_json::to_string(&definition).expect("JSON");
    let jobs: Vec<NewJob> = (0..jobs)
        .map(|number| NewJob {
            name: format!("j{number}"),
            derivation: format!("{number:04}.drv"),
            system: "s".to_owned(),
            nix_name: "n".to_owned(),
            priority: 0,
            timeout_s: 0,
            max_silent_s: 0,
            definition: Some(text.clone()),
            needs: Vec::new(),
        })
        .collect();
    let registered = database.write(move |tx| {
        tx.execute(
            "INSERT INTO specification (id, name, definition, created_at, removed_at, looked_at,
             look_error, look_failures, next_look_at, look_wanted_at, look_answered_at)
             VALUES (1, 'x', '{}', 0, 0, 0, '', 0, 0, 0, 0)",
            [],
        )?;
        let begun = store::begin_evaluation(tx, model::SpecificationId::new(1), "s", &[], "", 1)?;
        let Begun::New(id) = begun else { return Ok(false) };
        Ok(store::register(tx, id, &jobs, "", "", 1)?.is_some())
    });
    assert!(registered.await.expect("registers"));
    database.exclusive(move |connection| connection.execute_batch(more)).await.expect("runs");
    let (offered, offers) = mpsc::channel(100);
    let (canceled, cancels) = mpsc::channel(100);
    let (held, logs_held) = mpsc::channel(100);
    let (report, events) = mpsc::channel(100);
    let publish = broadcast::Sender::new(100);
    let published = publish.subscribe();
    let builder = Builder::new(std::sync::Arc::default());
    let settings = BuilderSettings {
        max_jobs: Live::new(max_jobs),
        systems: vec!["s".to_owned()],
        worker: "w".to_owned(),
        timeout: Live::new(TIME_LIMIT),
        max_silent: Live::new(TIME_LIMIT),
        loss_pause: PAUSE,
    };
    let logs = Logs::new(directory.path(), 1000);
    let work = builder.clone().run(
        settings,
        database.clone(),
        logs.clone(),
        Health::unwatched(),
        Hands { offered, canceled, held },
        events,
        publish,
    );
    let task = tokio::spawn(work);
    Bench {
        database,
        builder,
        offered: offers,
        canceled: cancels,
        held: logs_held,
        logs,
        report,
        published,
        task,
        _directory: directory,
    }
}

impl Bench {
    async fn offer(&mut self) -> (BuildId, i64) {
        within(self.offered.recv()).await.expect("an offer")
    }

    async fn ended(&self, build: (BuildId, i64), status: BuildStatus) {
        self.reports(build, Ok(Outcome::ended(status, ""))).await;
    }

    async fn lost(&self, build: (BuildId, i64)) {
        self.reports(build, Err(Lost("gone".to_owned()))).await;
    }

    async fn killed(&self, build: (BuildId, i64), status: BuildStatus) {
        let outcome = Outcome::ended(status, "killed by signal 15");
        self.reports(build, Ok(Outcome { killed: true, ..outcome })).await;
    }

    async fn reports(&self, (id, attempt): (BuildId, i64), ended: Result<Outcome, Lost>) {
        let progress = Progress::Ended(ended, BuildLogFile::default());
        let event = DispatchEvent { id, attempt, progress };
        self.report.send(event).await.expect("the loop listens");
    }

    async fn state(&self, id: BuildId) -> (BuildStatus, i64) {
        let found = self.database.read(move |s| store::build(s, id)).await.expect("reads");
        found.map(|build| (build.status, build.attempt)).expect("the build")
    }

    /// Waits for the event that reports this status of the build.
    async fn told(&mut self, id: BuildId, status: BuildStatus) {
        loop {
            match within(self.published.recv()).await.expect("an event") {
                Event::Build { id: told, status: now, .. } if (told, now) == (id, status) => return,
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn no_more_run_than_allowed_and_an_end_makes_room() {
    let mut bench = bench(5, 2).await;
    let (first, second) = (bench.offer().await, bench.offer().await);
    assert!(bench.offered.try_recv().is_err());
    bench.ended(second, BuildStatus::Failed).await;
    let third = bench.offer().await;
    assert_eq!(bench.state(second.0).await, (BuildStatus::Failed, 1), "stored before the next");
    assert_eq!(bench.state(first.0).await, (BuildStatus::Started, 1));
    for build in [first, third] {
        bench.ended(build, BuildStatus::Succeeded).await;
    }
    for _ in 0..2 {
        let build = bench.offer().await;
        bench.ended(build, BuildStatus::Succeeded).await;
    }
    within(bench.builder.wait_idle()).await;
    assert!(bench.offered.try_recv().is_err(), "each was offered once");
}

#[tokio::test]
async fn a_lost_build_is_offered_again_and_given_up_after_three_times() {
    let mut bench = bench(1, 1).await;
    for attempt in 1..=3 {
        let offered = bench.offer().await;
        assert_eq!(offered, (BuildId::new(1), attempt));
        // A late result of an earlier attempt changes nothing.
        bench.ended((offered.0, attempt - 1), BuildStatus::Succeeded).await;
        bench.lost(offered).await;
    }
    bench.told(BuildId::new(1), BuildStatus::FailedOther).await;
    assert_eq!(bench.state(BuildId::new(1)).await, (BuildStatus::FailedOther, 3));
    within(bench.builder.wait_idle()).await;
    assert!(bench.offered.try_recv().is_err());
}

#[tokio::test]
async fn a_lost_build_is_offered_again_after_a_pause_that_grows_and_holds_no_place_meanwhile() {
    let mut bench = bench(2, 1).await;
    let first = bench.offer().await;
    let began = Instant::now();
    bench.lost(first).await;
    // The other build can start, and the message names the pause.
    let other = bench.offer().await;
    assert_ne!(other.0, first.0);
    let found = bench.database.read(move |s| store::build(s, first.0)).await.expect("reads");
    let message = found.expect("the build").message;
    assert_eq!(message, "gone; tried again after 0 s");
    bench.ended(other, BuildStatus::Succeeded).await;
    let second = bench.offer().await;
    assert_eq!(second, (first.0, 2));
    assert!(began.elapsed() >= PAUSE, "after {:?}", began.elapsed());
    let began = Instant::now();
    bench.lost(second).await;
    assert_eq!(bench.offer().await, (first.0, 3));
    assert!(began.elapsed() >= 4 * PAUSE, "after {:?}", began.elapsed());
}

#[tokio::test]
async fn a_build_that_rests_is_not_idle_and_can_be_canceled() {
    let mut bench = bench(1, 1).await;
    let offered = bench.offer().await;
    bench.lost(offered).await;
    bench.told(offered.0, BuildStatus::Scheduled).await;
    bench.database.write(move |tx| store::cancel(tx, offered.0, "m", 9)).await.expect("written");
    within(bench.builder.wait_idle()).await;
    assert!(bench.offered.try_recv().is_err(), "nothing is started any more");
    assert_eq!(bench.state(offered.0).await, (BuildStatus::Canceled, 1));
}

#[tokio::test]
async fn whoever_hears_of_a_start_finds_a_log_that_goes_on() {
    let mut bench = bench(1, 1).await;
    let id = BuildId::new(1);
    bench.told(id, BuildStatus::Started).await;
    let found = bench.database.read(move |s| store::build(s, id)).await.expect("reads");
    let mut reader = bench.logs.open(&found.expect("the build"), 0).await.expect("a log");
    let offered = within(bench.held.recv()).await.expect("the log of the offer");
    // reader                       | executor
    // waits                        |
    //                              | writes, ends
    // the text, the end            |
    assert!(reader.is_at_end(), "it is live");
    let mut writer = offered;
    writer.write(b"text").await.expect("written");
    assert_eq!(within(reader.next()).await.expect("read").as_deref(), Some(&b"text"[..]));
    drop(writer);
    assert_eq!(within(reader.next()).await.expect("read"), None);
}

#[tokio::test]
async fn events_for_unknown_builds_are_ignored() {
    let mut bench = bench(1, 1).await;
    let offered = bench.offer().await;
    bench.ended((BuildId::new(99), 1), BuildStatus::Succeeded).await;
    bench.ended(offered, BuildStatus::Succeeded).await;
    bench.ended(offered, BuildStatus::Failed).await;
    bench.told(offered.0, BuildStatus::Succeeded).await;
    within(bench.builder.wait_idle()).await;
    assert_eq!(bench.state(offered.0).await, (BuildStatus::Succeeded, 1));
}

#[tokio::test]
async fn a_cancel_is_passed_on_and_ends_as_canceled() {
    let mut bench = bench(1, 1).await;
    let offered = bench.offer().await;
    bench.builder.cancel_running(offered.0, offered.1);
    assert_eq!(within(bench.canceled.recv()).await, Some(offered));
    bench.ended(offered, BuildStatus::Canceled).await;
    bench.told(offered.0, BuildStatus::Canceled).await;
}

#[tokio::test]
async fn a_stop_cuts_what_runs_and_schedules_it_again() {
    let mut bench = bench(2, 1).await;
    let offered = bench.offer().await;
    bench.builder.stop(Stop::Now);
    assert_eq!(within(bench.canceled.recv()).await, Some(offered));
    bench.ended(offered, BuildStatus::Canceled).await;
    within(&mut bench.task).await.expect("no panic").expect("no error");
    assert_eq!(bench.state(offered.0).await, (BuildStatus::Scheduled, 1));
    assert!(bench.offered.try_recv().is_err(), "nothing more is started");
}

#[tokio::test]
async fn a_drain_lets_what_runs_end() {
    let mut bench = bench(2, 1).await;
    let offered = bench.offer().await;
    bench.builder.stop(Stop::Drain);
    bench.ended(offered, BuildStatus::Succeeded).await;
    within(&mut bench.task).await.expect("no panic").expect("no error");
    assert_eq!(bench.state(offered.0).await, (BuildStatus::Succeeded, 1));
    assert!(bench.canceled.try_recv().is_err() && bench.offered.try_recv().is_err());
}

/// Triggers by which the database refuses something of build 1.
const NO_SUCCESS: &str =
    "CREATE TRIGGER refuse BEFORE UPDATE ON build WHEN old.id = 1 AND new.status = 0
    BEGIN SELECT RAISE(ABORT, 'no success'); END";
const NO_ATTEMPT: &str = "CREATE TRIGGER refuse BEFORE UPDATE ON attempt WHEN old.build_id = 1
    BEGIN SELECT RAISE(ABORT, 'no end of an attempt'); END";
const NO_END: &str =
    "CREATE TRIGGER refuse BEFORE UPDATE ON build WHEN old.id = 1 AND old.status = -1
    BEGIN SELECT RAISE(ABORT, 'no end'); END";
const NO_START: &str =
    "CREATE TRIGGER refuse BEFORE UPDATE ON build WHEN old.id = 1 AND new.status = -1
    BEGIN SELECT RAISE(ABORT, 'no start'); END";
const NO_CHANGE: &str = "CREATE TRIGGER refuse BEFORE UPDATE ON build WHEN old.id = 1
    BEGIN SELECT RAISE(ABORT, 'no change'); END";

#[tokio::test]
async fn an_end_that_the_database_refuses_delays_no_other_build_and_is_given_up() {
    use BuildStatus::{Failed, FailedOther, Started, Succeeded};
    let id = BuildId::new(1);
    for (trouble, ended, expected) in [
        (NO_SUCCESS, Succeeded, FailedOther),
        (NO_ATTEMPT, Succeeded, FailedOther),
        (NO_ATTEMPT, Failed, FailedOther),
        (NO_END, Succeeded, Started),
    ] {
        let mut bench = bench_with(4, 2, trouble).await;
        let (bad, other) = (bench.offer().await, bench.offer().await);
        assert_eq!(bad, (id, 1));
        // Its end comes together with another one.
        bench.ended(bad, ended).await;
        bench.ended(other, Succeeded).await;
        for _ in 0..2 {
            let offered = bench.offer().await;
            bench.ended(offered, Succeeded).await;
        }
        within(bench.builder.wait_idle()).await;
        assert_eq!(bench.state(id).await, (expected, 1), "{trouble}");
        for number in 2..=4 {
            assert_eq!(bench.state(BuildId::new(number)).await, (Succeeded, 1), "{trouble}");
        }
        if expected == FailedOther {
            let found = bench.database.read(move |s| store::build(s, id)).await.expect("reads");
            let message = found.expect("the build").message;
            assert!(message.starts_with("its end could not be stored, because the"), "{message}");
            assert!(message.contains("no "), "{message}");
        }
        bench.builder.stop(Stop::Now);
        within(&mut bench.task).await.expect("no panic").expect("no error");
    }
}

#[tokio::test]
async fn a_lost_build_that_the_database_does_not_reschedule_is_given_up() {
    let mut bench = bench_with(2, 1, NO_ATTEMPT).await;
    let bad = bench.offer().await;
    bench.lost(bad).await;
    let other = bench.offer().await;
    bench.ended(other, BuildStatus::Succeeded).await;
    within(bench.builder.wait_idle()).await;
    assert_eq!(bench.state(bad.0).await, (BuildStatus::FailedOther, 1));
}

#[tokio::test]
async fn a_build_that_the_database_refuses_to_start_delays_no_other_build_and_is_given_up() {
    use BuildStatus::{FailedOther, Scheduled, Succeeded};
    let id = BuildId::new(1);
    for (trouble, expected) in [(NO_START, FailedOther), (NO_CHANGE, Scheduled)] {
        let mut bench = bench_with(3, 1, trouble).await;
        for number in 2..=3 {
            let offered = bench.offer().await;
            assert_eq!(offered, (BuildId::new(number), 1), "{trouble}");
            bench.ended(offered, Succeeded).await;
        }
        within(bench.builder.wait_idle()).await;
        assert_eq!(bench.state(id).await, (expected, 0), "{trouble}");
        assert_eq!(bench.state(BuildId::new(3)).await, (Succeeded, 1), "{trouble}");
    }
}

/// A trigger by which the database refuses the start of build 1 until a time that `refuse_starts` sets.
const NO_START_YET: &str = "CREATE TABLE trouble (ends REAL);
    INSERT INTO trouble VALUES (0);
    CREATE TRIGGER refuse BEFORE UPDATE ON build
      WHEN old.id = 1 AND old.status = -2 AND new.status = -1
      AND unixepoch('subsec') < (SELECT ends FROM trouble)
    BEGIN SELECT RAISE(ABORT, 'no start yet'); END";

async fn refuse_starts(database: &Database, pauses: f64) {
    let time = PAUSE.as_secs_f64() * pauses;
    let set = database
        .write(move |tx| tx.execute("UPDATE trouble SET ends = unixepoch('subsec') + ?1", [time]));
    assert_eq!(set.await.expect("the time is set"), 1);
}

/// A start that succeeds ends a row of refusals. The pauses are those of losses and of refusals: 1, 4, 16 and so on, so
/// there are two refusals after each loss, or fewer on a slow machine.
#[tokio::test]
async fn a_build_fails_only_when_refusals_of_its_start_follow_each_other() {
    let mut bench = bench_with(1, 1, NO_START_YET).await;
    let id = BuildId::new(1);
    assert_eq!(bench.offer().await, (id, 1));
    for (attempt, pauses) in [(2, 1.0 + 2.0), (3, 4.0 + 2.0)] {
        refuse_starts(&bench.database, pauses).await;
        bench.lost((id, attempt - 1)).await;
        assert_eq!(bench.offer().await, (id, attempt));
    }
    bench.ended((id, 3), BuildStatus::Succeeded).await;
    within(bench.builder.wait_idle()).await;
    assert_eq!(bench.state(id).await, (BuildStatus::Succeeded, 3));
}

#[tokio::test]
async fn a_stop_waits_for_no_end_that_the_database_refuses() {
    let mut bench = bench_with(1, 1, NO_END).await;
    let offered = bench.offer().await;
    bench.ended(offered, BuildStatus::Succeeded).await;
    bench.builder.stop(Stop::Drain);
    within(&mut bench.task).await.expect("no panic").expect("no error");
    assert_eq!(bench.state(offered.0).await, (BuildStatus::Started, 1), "as it was");
}
