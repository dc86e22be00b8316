//! Kills the server many times with `kill -9`.

use crate::support::{Gate, Place, Process, processes_with, run, until};
use std::time::Duration;

/// How many builds the run has.
const BUILDS: usize = 200;
/// How many times the server is killed while it works.
const KILLS: u64 = 50;

/// A small pseudo-random generator that gives the same numbers in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[test]
fn a_server_killed_fifty_times_loses_nothing_and_leaves_nothing() {
    let place = Place::new();
    let repository = place.repository("sample");
    let mark = format!("MARK=crash-{}", std::process::id());
    let (name, value) = mark.split_once('=').expect("a pair");
    // Chains of five builds; a few builds fail. Each writes a log and an output.
    let jobs: Vec<(String, String)> = (0..BUILDS)
        .map(|n| {
            let needs = match n % 5 {
                0 => String::new(),
                _ => format!("needs = [\"j{:03}\"]", n - 1),
            };
            let fails = if n % 50 == 44 { "exit 1" } else { "true" };
            let command = format!(
                "echo begin {n}; sleep 0.0{}; echo {n} > $BRIGANDINE_OUT/it; {fails}; echo end {n}",
                n % 10
            );
            (
                format!("j{n:03}"),
                format!("command = \"{command}\"\n{needs}\nenv = {{ {name} = \"{value}\" }}"),
            )
        })
        .collect();
    let jobs: Vec<(&str, &str)> =
        jobs.iter().map(|(name, more)| (name.as_str(), more.as_str())).collect();
    repository.jobs(&jobs);
    place.specify(&[("sample", &repository, "")]);

    let mut dice = Dice(20_261_120);
    let (mut finished_before, mut hits) = (0, 0);
    for kill in 0..KILLS {
        let mut server = Process::start(place.command(&[]));
        // In every second round the server is killed only after a build has started, however slow the machine is.
        if kill % 2 == 1 && finished_before < BUILDS {
            server.trace("build started");
        }
        // The moment of the kill is random: between the start of the server and the middle of its work.
        std::thread::sleep(Duration::from_millis(dice.roll(150)));
        server.child.kill().expect("kill -9");
        server.child.wait().expect("its status");
        if place.state().join("brigandine.db").exists() && tables(&place) > 0 {
            let finished: usize = place.rows("SELECT count(*) FROM build WHERE status >= 0")[0]
                .parse()
                .expect("a number");
            assert!(finished >= finished_before, "a result was lost");
            finished_before = finished;
            let running = place.rows("SELECT count(*) FROM build WHERE status = -1");
            hits += usize::from(running != ["0"]);
        }
    }
    assert!(hits >= 10, "only {hits} kills hit running builds; make the builds slower");
    place.good_one_shot();

    place.check_consistency();
    assert_eq!(place.rows("SELECT status FROM evaluation"), ["0"]);
    assert_eq!(place.rows("SELECT count(*) FROM build"), [BUILDS.to_string()]);
    assert_eq!(
        place.rows("SELECT status, count(*) FROM build GROUP BY status ORDER BY status"),
        ["0|196", "1|4"],
        "each has the fate it would have had"
    );
    let twice = "SELECT build_id FROM attempt WHERE status >= 0 GROUP BY 1 HAVING count(*) <> 1";
    assert_eq!(place.rows(twice), [""; 0], "each was run to completion once");
    assert_eq!(
        place.rows("SELECT count(*) FROM attempt WHERE status = -1 OR stopped_at = 0"),
        ["0"],
        "none is left started"
    );
    assert_eq!(processes_with(&mark), 0, "no orphan process");
    for n in 0..BUILDS {
        let log = place.build_log(&format!("j{n:03}"));
        let end = if n % 50 == 44 { String::new() } else { format!("end {n}\n") };
        assert_eq!(log, format!("begin {n}\n{end}"));
    }
    let left = std::fs::read_dir(place.state().join("work")).expect("work").count();
    assert_eq!(left, 0, "no build directory is left");
}

fn tables(place: &Place) -> usize {
    place.rows("SELECT count(*) FROM sqlite_schema WHERE name = 'build'")[0]
        .parse()
        .expect("a number")
}

#[test]
fn an_evaluation_that_was_killed_with_its_server_is_evaluated_again() {
    let place = Place::new();
    let repository = place.repository("sample");
    let (running, go) = (Gate::new(place.path("running")), place.path("go"));
    let script = format!(
        "#!/bin/sh\ntest -e {} || {{ echo up > {}; sleep 1000; }}\n\
         echo '{{\"job\": \"one\", \"derivation\": {{\"command\": \"true\"}}}}'\n",
        go.display(),
        running.path().display()
    );
    repository.commit(&[("evaluate", &script)]);
    repository.git(&["update-index", "--chmod=+x", "evaluate"]);
    repository.git(&["commit", "--quiet", "--message=mode"]);
    place.specify(&[(
        "sample",
        &repository,
        "[specification.evaluator]\ncommand = [\"./evaluate\"]",
    )]);
    let mut server = Process::start(place.command(&[]));
    assert_eq!(running.wait(), "up\n");
    assert_eq!(place.rows("SELECT status FROM evaluation"), ["-1"], "stored before it runs");
    server.child.kill().expect("kill -9");
    server.child.wait().expect("its status");
    let state = place.rows("SELECT state_id FROM server").remove(0);
    let mark = format!("BRIGANDINE_STATE_ID={state}");
    std::fs::write(go, "").expect("a file");
    place.good_one_shot();
    assert_eq!(processes_with(&mark), 0, "the evaluator ended with its server");
    assert_eq!(place.rows("SELECT id, status FROM evaluation"), ["1|0"], "under the same stamp");
    assert_eq!(place.jobs(1), ["one|0"]);
    place.check_consistency();
}

#[test]
fn the_log_of_a_build_that_was_killed_with_its_server_is_kept() {
    let place = Place::new();
    let repository = place.repository("sample");
    let (running, go) = (Gate::new(place.path("running")), place.path("go"));
    let command = format!(
        "command = \"test -e {0} || {{ echo it begins; echo up > {1}; sleep 1000; }}\"",
        go.display(),
        running.path().display()
    );
    repository.jobs(&[("one", &command)]);
    place.specify(&[("sample", &repository, "")]);
    let mut server = Process::start(place.command(&[]));
    assert_eq!(running.wait(), "up\n");
    let plain = place.state().join("logs/build/0/1-1.log");
    until(|| std::fs::read_to_string(&plain).unwrap_or_default(), |text| text == "it begins\n");
    server.child.kill().expect("kill -9");
    server.child.wait().expect("its status");
    std::fs::write(go, "").expect("a file");
    place.good_one_shot();
    assert_eq!(
        place.rows("SELECT number, status, message FROM attempt ORDER BY number"),
        ["1|-2|the server was killed", "2|0|"]
    );
    let kept = run(place.tool(&["log", "1", "--attempt", "1"]));
    assert_eq!(
        kept.stdout, "it begins\n\n[brigandine: the server was killed]\n",
        "{}",
        kept.stderr
    );
    assert!(!plain.exists(), "it is compressed as other logs are");
    // Retention removes it with the build.
    let leftovers = "INSERT INTO leftover (path) VALUES ('logs/build/0/1-1.log')";
    assert_eq!(place.rows(leftovers), [""; 0]);
    assert!(run(place.tool(&["prune"])).status.success());
    assert!(!place.state().join("logs/build/0/1-1.log.zst").exists());
}
