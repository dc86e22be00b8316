//! `backup` and `restore`, beside a server that works.

use super::serve::{address, get, text};
use crate::support::{PATIENCE, PROGRAM, Place, Process, run, until};
use brigandine::model::SpecificationId;
use brigandine::store::{self, Begun, Database, NewJob};
use std::io::BufRead;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A command for another state directory than the place's own.
fn elsewhere(state: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).arg("--state").arg(state).stdin(Stdio::null());
    command
}

fn server_of(state: &Path) -> Command {
    elsewhere(state, &["serve", "--listen", "127.0.0.1:0", "--sandbox=off", "--interval", "1d"])
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path")
}

/// Waits until the log of a running build says that it has begun.
fn until_begun(address: &str, id: &str) {
    let has_begun = || {
        let answer = get(address, &format!("/build/{id}/log/raw"));
        answer.lines().map_while(Result::ok).any(|line| line == "begun")
    };
    until(has_begun, |begun| *begun);
}

#[test]
fn a_backup_of_a_server_is_restored_and_served_and_its_running_build_runs_in_both() {
    let place = Place::new();
    let repository = place.repository("repository");
    let go = place.path("go");
    let wait = format!("timeout 1000 sh -c 'until [ -e {} ]; do sleep 0.1; done'", go.display());
    repository.jobs(&[
        (
            "good",
            "command = \"echo yes > it; echo made; mkdir $BRIGANDINE_OUT/d\"\nproducts = [\"it\"]",
        ),
        ("slow", &format!("command = \"echo begun; {wait}; echo ended\"")),
    ]);
    place.specify(&[("spec", &repository, "")]);
    let server = Process::start(place.command(&["--interval", "1d"]));
    let served = address(&server);
    until(|| text(&served, "/api/latestbuilds?nr=5"), |text| text.contains("\"good\""));
    let id = |job: &str| place.rows(&format!("SELECT id FROM build WHERE job = '{job}'")).join("");
    let (good, slow) = (id("good"), id("slow"));
    until_begun(&served, &slow);
    let (backup, restored) = (place.path("backup"), place.path("restored"));
    let ended = run(place.tool(&["backup", path(&backup)]));
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(ended.stdout.contains("1 specifications, 1 evaluations, 2 builds"), "{}", ended.stdout);
    let again = run(place.tool(&["backup", path(&backup)]));
    assert_eq!(again.status.code(), Some(1));
    assert!(again.stderr.contains("a backup replaces nothing"), "{}", again.stderr);
    let ended = run(elsewhere(&restored, &["restore", path(&backup)]));
    assert!(ended.status.success(), "{}", ended.stderr);
    let busy = run(place.tool(&["restore", path(&backup)]));
    assert!(busy.stderr.contains("is not empty"), "{}", busy.stderr);
    let other = Process::start(server_of(&restored));
    let there = address(&other);
    other.traces(&[
        "what ran when the backup was made is scheduled again",
        "restored from a backup",
    ]);
    until_begun(&there, &slow);
    // The build of the first server was not ended by the second one.
    let running = run(place.tool(&["builds", "--status", "started"]));
    assert!(running.stdout.contains("slow"), "{}", running.stdout);
    assert!(text(&there, &format!("/build/{good}/log/raw")).ends_with("made\n"));
    let same = Command::new("diff")
        .args(["-r", "--no-dereference"])
        .args([place.state().join("outputs"), restored.join("outputs")])
        .status();
    assert!(same.expect("diff").success(), "the outputs differ");
    std::fs::write(&go, "").expect("a file");
    for (state, address) in [(place.state(), &served), (restored.clone(), &there)] {
        let wait = run(elsewhere(&state, &["wait", &slow, "--timeout", "60s"]));
        assert!(wait.status.success(), "{}", wait.stderr);
        assert!(text(address, &format!("/build/{slow}/log/raw")).ends_with("ended\n"));
    }
    other.signal("TERM");
    assert!(other.end().success());
    assert!(!restored.join("restored.json").exists(), "it is told once");
}

#[test]
fn root_makes_no_files_in_the_directory_of_another_user() {
    let place = Place::new();
    let repository = place.repository("repository");
    repository.jobs(&[("job", "command = \"true\"")]);
    place.specify(&[("spec", &repository, "")]);
    place.good_one_shot();
    let (backup, history) = (place.path("backup"), place.path("history"));
    assert!(run(place.tool(&["backup", path(&backup)])).status.success());
    assert!(run(place.tool(&["export", "--output", path(&history)])).status.success());
    let file = place.path("specifications.toml");
    for (number, arguments) in
        [["restore", path(&backup)], ["import", path(&history)]].into_iter().enumerate()
    {
        let to = place.path(&format!("to-{number}"));
        std::fs::create_dir(&to).expect("a directory");
        // Only root may give a directory away. Whoever else runs this gives the commands for a directory of their own.
        let is_foreign = std::os::unix::fs::chown(&to, Some(1), None).is_ok();
        for arguments in [&arguments[..], &["spec", "add", path(&file)]] {
            let ended = run(elsewhere(&to, arguments));
            if !is_foreign {
                assert!(ended.status.success(), "{arguments:?}: {}", ended.stderr);
                continue;
            }
            assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {}", ended.stdout);
            let remedy = "give the command as its user: `sudo --user=";
            assert!(ended.stderr.contains(remedy), "{arguments:?}: {}", ended.stderr);
            assert_eq!(std::fs::read_dir(&to).expect("a directory").count(), 0, "{arguments:?}");
        }
    }
}

#[test]
fn an_interrupted_restore_is_no_state_directory() {
    let place = Place::new();
    let repository = place.repository("repository");
    repository.jobs(&[("job", "command = \"true\"")]);
    place.specify(&[("spec", &repository, "")]);
    place.good_one_shot();
    let (backup, restored) = (place.path("backup"), place.path("restored"));
    assert!(run(place.tool(&["backup", path(&backup)])).status.success());
    for left in ["brigandine.db.restore", "brigandine.db.restore.7-0.partial"] {
        std::fs::create_dir(&restored).expect("a directory");
        std::fs::write(restored.join(left), "half").expect("a file");
        let server = run(server_of(&restored));
        assert!(server.stderr.contains("a restore has not ended"), "{left}: {}", server.stderr);
        let ended = run(elsewhere(&restored, &["restore", path(&backup)]));
        assert_eq!(ended.status.code(), Some(1), "{left}");
        assert!(
            ended.stderr.contains("was interrupted: empty the directory"),
            "{left}: {}",
            ended.stderr
        );
        std::fs::remove_dir_all(&restored).expect("emptied");
    }
    let ended = run(elsewhere(&restored, &["restore", path(&backup), "--json"]));
    let manifest: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!((&manifest["rows"]["build"], &manifest["format"]), (&1.into(), &1.into()));
}

/// Jobs of one evaluation that a writer registers.
const JOBS: usize = 3;

async fn register(database: &Database, number: u64) -> Result<(), store::DatabaseError> {
    let jobs: Vec<NewJob> = (0..JOBS)
        .map(|job| NewJob {
            name: format!("beside-{job}"),
            derivation: format!("{number}-{job}.drv"),
            system: "none".to_owned(),
            nix_name: "beside".to_owned(),
            priority: 0,
            timeout_s: 0,
            max_silent_s: 0,
            definition: Some("{}".to_owned()),
            needs: (1..=job).map(|need| (format!("n{need}"), need - 1)).collect(),
        })
        .collect();
    let stamp = format!("beside {number}");
    let write = database.write(move |tx| {
        let begun = store::begin_evaluation(tx, SpecificationId::new(1), &stamp, &[], "", 5)?;
        if let Begun::New(id) = begun {
            store::register(tx, id, &jobs, "", "", 5)?;
        }
        Ok(())
    });
    write.await
}

/// Registers evaluations until `stop`, `rate` a second or as many as are possible, and counts those that are stored.
async fn write_beside(
    database: Database,
    rate: u64,
    stop: Arc<AtomicBool>,
    stored: Arc<AtomicU64>,
) {
    const TASKS: u64 = 64;
    let next = Arc::new(AtomicU64::new(1));
    let tasks = (0..TASKS).map(|_| {
        let (database, stop) = (database.clone(), Arc::clone(&stop));
        let (next, stored) = (Arc::clone(&next), Arc::clone(&stored));
        tokio::spawn(async move {
            let mut beat = tokio::time::interval(Duration::from_micros(1_000_000 * TASKS / rate));
            while !stop.load(Ordering::SeqCst) {
                beat.tick().await;
                register(&database, next.fetch_add(1, Ordering::SeqCst)).await.expect("stored");
                stored.fetch_add(1, Ordering::SeqCst);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("a writer");
    }
}

/// The long form has 200,000 builds, and 2,000 updates a second (in a build that is optimized).
#[test]
fn a_backup_beside_updates_restores_whole() {
    let is_long = std::env::var_os("LOCKKEEPER_LONG").is_some();
    let (builds, rate) = if is_long { (200_000, 2_000) } else { (3_000, 500) };
    let place = Place::new();
    store::make_sample(builds, &place.state(), 1, &|_| ()).expect("the sample");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let database = runtime.block_on(store::open_as_it_is(&place.state())).expect("opens");
    let (stop, stored) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writing =
        runtime.spawn(write_beside(database, rate, Arc::clone(&stop), Arc::clone(&stored)));
    until(|| stored.load(Ordering::SeqCst), |stored| *stored > 20);
    let (before, began) = (stored.load(Ordering::SeqCst), Instant::now());
    let (backup, restored) = (place.path("backup"), Place::new());
    let ended = run(place.tool(&["backup", path(&backup)]));
    assert!(ended.status.success(), "{}", ended.stderr);
    let (after, seconds) = (stored.load(Ordering::SeqCst), began.elapsed().as_secs_f64());
    stop.store(true, Ordering::SeqCst);
    runtime
        .block_on(async { tokio::time::timeout(PATIENCE, writing).await })
        .expect("in time")
        .expect("the writers");
    println!(
        "{} updates beside the backup, {:.0} a second",
        after - before,
        (after - before) as f64 / seconds
    );
    assert!(after > before, "nothing was written beside the backup");
    let ended = run(restored.tool(&["restore", path(&backup)]));
    assert!(ended.status.success(), "{}", ended.stderr);
    restored.check_consistency();
    let rows = |sql: &str| restored.rows(sql);
    let found: u64 = rows("SELECT count(*) FROM evaluation WHERE stamp LIKE 'beside %'")[0]
        .parse()
        .expect("a number");
    assert!((before..=after + 64).contains(&found), "{before} {found} {after}");
    // Each is there with all of its jobs, or not at all.
    let parts = rows(
        "SELECT DISTINCT (SELECT count(*) FROM job WHERE evaluation_id = e.id),
           (SELECT count(*) FROM build WHERE evaluation_id = e.id),
           (SELECT count(*) FROM definition JOIN build ON build.id = build_id WHERE evaluation_id = e.id),
           (SELECT count(*) FROM dependency JOIN build ON build.id = build_id WHERE evaluation_id = e.id)
         FROM evaluation AS e WHERE stamp LIKE 'beside %'",
    );
    assert_eq!(parts, ["3|3|3|3"]);
    let builds_there = rows("SELECT count(*) FROM build")[0].parse::<u64>().expect("a number");
    assert_eq!(builds_there, builds.cast_unsigned() + found * JOBS as u64);
}
