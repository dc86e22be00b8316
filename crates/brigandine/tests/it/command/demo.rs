//! Runs the whole of `brigandine demo --exit`, which a new user runs first.

use crate::support::{PROGRAM, Place, Process, run, until};
use std::os::unix::process::CommandExt;
use std::process::Command;

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["demo", "--exit", "--listen", "127.0.0.1:0"]).args(arguments);
    command
}

#[test]
fn everything_is_built_as_expected_and_only_one_job_is_built_again() {
    let place = Place::new();
    let state = place.path("demo");
    let state = state.to_str().expect("a path");
    // The demo must make and read its repository whatever the visitor's git configuration says.
    let config = place.write("gitconfig", "[commit]\ngpgSign = true\n[init]\ndefaultBranch = x\n");
    let mut command = demo(&["--json", "--state", state]);
    command.env("GIT_CONFIG_GLOBAL", config);
    let ended = run(command);
    assert!(ended.status.success(), "{}\n{}", ended.stdout, ended.stderr);
    let outcome: serde_json::Value = serde_json::from_str(&ended.stdout).expect("only JSON");
    assert_eq!(outcome["expected"], true);
    let evaluations = outcome["evaluations"].as_array().expect("a list");
    assert_eq!(evaluations.len(), 2);
    let reused = |evaluation: &serde_json::Value| {
        let jobs = evaluation["jobs"].as_object().expect("jobs");
        jobs.values().filter(|job| job["reused"] == true).count()
    };
    assert_eq!((reused(&evaluations[0]), reused(&evaluations[1])), (0, 8));
    assert_eq!(evaluations[1]["jobs"]["docs.check"]["status"], "succeeded");
    assert_eq!(evaluations[0]["jobs"]["app.strict"]["status"], "failed");
    assert_eq!(evaluations[0]["jobs"]["app.package"]["status"], "failed-dependency");
    // The state directory that the command line named is not removed.
    assert!(place.path("demo/state/brigandine.db").exists());
}

#[test]
fn the_demo_starts_from_nothing_or_not_at_all() {
    let place = Place::new();
    let file = place.write("file", "mine");
    let ended = run(demo(&["--state", file.parent().and_then(|p| p.to_str()).expect("a path")]));
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("is not empty"), "{}", ended.stderr);
    assert_eq!(std::fs::read_to_string(file).expect("still there"), "mine");
}

#[test]
fn what_the_demo_needs_and_does_not_find_is_named_with_its_package() {
    let mut command = demo(&[]);
    command.env("PATH", "/nonexistent");
    let ended = run(command);
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("finds no `git`"), "{}", ended.stderr);
    assert!(ended.stderr.contains("install it"), "{}", ended.stderr);
}

#[test]
fn an_interrupt_at_any_time_ends_the_demo_in_an_orderly_way() {
    for seen in ["sample/.git", "sample/brigandine.toml", "state/lock", "state/wake.sock"] {
        let place = Place::new();
        let state = place.path("demo");
        let mut command = Command::new(PROGRAM);
        command.args(["demo", "--listen", "127.0.0.1:0", "--state"]).arg(&state);
        // As a terminal does, the test sends the signal to the whole group: to the demo and to all processes that it
        // started.
        command.process_group(0);
        let demo = Process::start(command);
        until(|| state.join(seen).exists(), |there| *there);
        let group = format!("-{}", demo.child.id());
        let sent = Command::new("kill").args(["-s", "INT", "--", &group]).status();
        assert!(sent.expect("kill").success());
        let rest = demo.rest();
        assert!(demo.end().success(), "{seen}: {rest:?}");
        assert_eq!(rest.last().map(String::as_str), Some("The demo has ended."), "{seen}");
    }
}
