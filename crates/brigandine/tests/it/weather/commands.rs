//! Commands report the truth: exit statuses are results, waiting commands notice that their server has gone, and
//! requests survive the end of the server.

use super::mounts::is_root;
use crate::command::serve::{address, text};
use crate::support::{Ended, Gate, Place, Process, Repository, run, until};
use serde_json::Value;
use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// The time limit for what usually takes less than a second, on a busy machine.
const SOON: Duration = Duration::from_secs(8);

const BAD: (&str, &str) = ("bad", "command = \"echo no; exit 3\"");
const GOOD: (&str, &str) = ("good", "command = \"echo yes\"");
const CHILD: (&str, &str) = ("child", "needs = [\"bad\"]\ncommand = \"true\"");
const SLOW: (&str, &str) = ("slow", "timeout = \"1s\"\ncommand = \"sleep 300\"");

fn place(jobs: &[(&str, &str)]) -> (Place, Repository) {
    let place = Place::new();
    let repository = place.repository("repository");
    repository.jobs(jobs);
    place.specify(&[("spec", &repository, "")]);
    (place, repository)
}

/// Starts a server that looks at the inputs only when it starts and when it is asked to.
fn server(place: &Place) -> Process {
    let server = Process::start(place.command(&["--interval", "1d"]));
    address(&server);
    server
}

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("no JSON: {}", ended.stdout))
}

/// The number of the job's build. Waits until there is one.
fn build_of(place: &Place, job: &str) -> String {
    let ask = || run(place.tool(&["builds", "--json"]));
    let found = |ended: &Ended| {
        let builds: Value = serde_json::from_str(&ended.stdout).ok()?;
        let build = builds.as_array()?.iter().find(|build| build["job"] == job)?["id"].to_string();
        Some(build)
    };
    until(|| found(&ask()), Option::is_some).expect("a build")
}

/// A specification whose only job reports through the gate that it runs, and then runs until it is ended.
fn held() -> (Place, Gate) {
    let place = Place::new();
    let gate = Gate::new(place.path("gate"));
    let repository = place.repository("repository");
    let command = format!("command = \"echo begun > '{}'; sleep 300\"", gate.path().display());
    repository.jobs(&[("held", &command)]);
    place.specify(&[("spec", &repository, "")]);
    (place, gate)
}

#[test]
fn one_shot_ends_with_1_if_a_build_that_was_wanted_did_not_succeed_and_says_which() {
    for (jobs, status, told) in [
        (&[GOOD][..], 0, &[][..]),
        (&[GOOD, BAD], 1, &["spec: build ", " bad: failed: exit status 3", "`brigandine log "]),
        (&[BAD, CHILD], 1, &[" child: failed-dependency: needs `bad`"]),
        (&[GOOD, SLOW], 1, &[" slow: failed"]),
    ] {
        let (place, _repository) = place(jobs);
        // The second run has no new revision, and reports again that the builds have failed.
        for _ in 0..2 {
            let ended = place.one_shot();
            assert_eq!(ended.status.code(), Some(status), "{jobs:?}: {}", ended.stderr);
            for told in told {
                assert!(ended.stderr.contains(told), "{told} is not in {}", ended.stderr);
            }
            assert!(!ended.stderr.contains(" good: "), "{}", ended.stderr);
        }
    }
}

#[test]
fn one_shot_is_well_again_when_the_next_revision_is() {
    let (place, repository) = place(&[BAD]);
    assert_eq!(place.one_shot().status.code(), Some(1));
    repository.jobs(&[GOOD]);
    assert_eq!(place.one_shot().status.code(), Some(0));
}

#[test]
fn one_shot_says_why_a_repository_could_not_be_fetched_or_evaluated() {
    let (place, repository) = place(&[GOOD]);
    repository.commit(&[("brigandine.toml", "[[job]]\nname = 7\n")]);
    let ended = place.one_shot();
    assert_eq!(ended.status.code(), Some(1));
    assert!(
        ended.stderr.contains("spec: evaluation 1 failed (`brigandine log --evaluation 1`): ")
            && ended.stderr.contains(&format!("--state {}", place.state().display())),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("must be text"), "{}", ended.stderr);
    let log = run(place.tool(&["log", "--evaluation", "1"]));
    assert!(log.stdout.contains("must be text"), "{} {}", log.stdout, log.stderr);
    std::fs::rename(&repository.path, place.path("elsewhere")).expect("renamed");
    let ended = place.one_shot();
    assert_eq!(ended.status.code(), Some(1));
    let told = ended.stderr.split_once("not everything went well:").expect(&ended.stderr).1;
    assert!(told.contains("spec: cannot be fetched: input `source`:"), "{told}");
    assert!(!ended.stderr.contains("its log says why"), "{}", ended.stderr);
}

#[test]
fn a_build_that_was_canceled_during_one_shot_is_none_that_succeeded() {
    let (place, gate) = held();
    let server = Process::start(place.command(&["--one-shot"]));
    gate.wait();
    let ended = run(place.tool(&["cancel", "1"]));
    assert!(ended.status.success(), "{}", ended.stderr);
    server.trace("spec: build 1 held: canceled");
    assert_eq!(server.end().code(), Some(1));
}

#[test]
fn waiting_for_builds_gives_their_result_as_the_exit_status() {
    let (place, _repository) = place(&[GOOD, BAD, CHILD]);
    place.good_one_shot();
    let (good, bad, child) =
        (build_of(&place, "good"), build_of(&place, "bad"), build_of(&place, "child"));
    for (arguments, status, result) in [
        (&["wait", &good][..], 0, "succeeded"),
        (&["wait", &bad], 1, "failed"),
        (&["wait", &child], 1, "failed"),
        (&["wait", &good, &bad, &good], 1, "failed"),
        (&["wait", "--eval", "1"], 1, "failed"),
        (&["wait", "--evaluation", "1", "--timeout", "5s"], 1, "failed"),
    ] {
        let ended = run(place.tool(arguments));
        assert_eq!(ended.status.code(), Some(status), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stdout.contains(result), "{arguments:?}: {}", ended.stdout);
        let ended = run(place.tool(&[arguments, &["--json"]].concat()));
        assert_eq!(ended.status.code(), Some(status), "{arguments:?}");
        assert_eq!(json(&ended)["result"], result, "{arguments:?}: {}", ended.stdout);
    }
    let follow = |build: &str| run(place.tool(&["log", build, "--follow"]));
    assert_eq!(follow(&good).status.code(), Some(0));
    let failed = follow(&bad);
    assert_eq!((failed.status.code(), &*failed.stdout), (Some(1), "no\n"));
    assert!(failed.stderr.contains("failed: exit status 3"), "{}", failed.stderr);
    assert_eq!(follow(&child).status.code(), Some(1));
    // Without `--follow`, the exit status does not tell the build's result.
    assert_eq!(run(place.tool(&["log", &bad])).status.code(), Some(0));
    let ended = run(place.tool(&["wait", &good, "99"]));
    assert_eq!(ended.status.code(), Some(3));
    assert!(ended.stderr.contains("there is no build 99"), "{}", ended.stderr);
    assert_eq!(run(place.tool(&["wait", "--eval", "99"])).status.code(), Some(3));
}

#[test]
fn waiting_goes_on_until_the_last_build_has_ended_or_the_time_is_over() {
    let place = Place::new();
    let gate = Gate::new(place.path("gate"));
    let repository = place.repository("repository");
    let command = format!("command = \"cat '{}'\"", gate.path().display());
    repository.jobs(&[
        GOOD,
        ("held", &command),
        ("last", "needs = [\"held\"]\ncommand = \"true\""),
    ]);
    place.specify(&[("spec", &repository, "")]);
    let server = server(&place);
    let held = build_of(&place, "held");
    for (arguments, left) in [
        (&["wait", &held, "--timeout", "0"][..], "0 of 1"),
        (&["wait", "--eval", "1", "--timeout", "300ms"], "of 3"),
    ] {
        let ended = run(place.tool(arguments));
        assert_eq!(ended.status.code(), Some(5), "{arguments:?}: {}", ended.stderr);
        assert!(format!("{}{}", ended.stdout, ended.stderr).contains(left), "{}", ended.stdout);
    }
    let waiting = Process::start(place.tool(&["wait", "--eval", "1", "--json"]));
    let evaluating = Process::start(place.tool(&["evaluate", "spec", "--wait"]));
    assert_eq!(evaluating.line(), "nothing new: the inputs are those of evaluation #1");
    gate.open();
    let rest = waiting.rest().join("\n");
    let result: Value = serde_json::from_str(&rest).expect("JSON");
    assert_eq!((&result["result"], &result["jobs"]["succeeded"]), (&"succeeded".into(), &3.into()));
    assert!(waiting.end().success());
    let rest = evaluating.rest();
    assert!(rest.iter().any(|line| line.contains("spec/last: succeeded")), "{rest:?}");
    assert_eq!(rest.last().map(String::as_str), Some("evaluation 1: 3 of 3 jobs succeeded"));
    assert!(evaluating.end().success());
    repository.jobs(&[BAD]);
    let ended = run(place.tool(&["evaluate", "spec", "--wait"]));
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stdout.contains("spec/bad: failed: exit status 3"), "{}", ended.stdout);
    server.signal("TERM");
    assert!(server.end().success());
}

#[test]
fn what_the_inputs_were_set_back_to_counts_and_not_the_newest_evaluation() {
    let (place, repository) = place(&[BAD]);
    place.write("config.toml", "[keep]\nevaluations = 1\n");
    let server = Process::start(place.command(&["--interval", "1d"]));
    let address = address(&server);
    let evaluate = || run(place.tool(&["evaluate", "spec", "--wait"]));
    assert_eq!(evaluate().status.code(), Some(1));
    repository.jobs(&[GOOD]);
    assert_eq!(evaluate().status.code(), Some(0));
    repository.git(&["reset", "--quiet", "--hard", "HEAD^"]);
    let ended = evaluate();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stdout);
    assert!(ended.stdout.contains("the inputs are those of evaluation #1\n"), "{}", ended.stdout);
    assert!(ended.stdout.contains("spec/bad: failed"), "{}", ended.stdout);
    assert!(run(place.tool(&["spec", "list"])).stdout.contains("failing"));
    for page in ["/", "/jobset/spec"] {
        let page = text(&address, page);
        assert!(page.contains("The inputs were set back to"), "{page}");
    }
    // Retention must keep the evaluation of the revisions that the inputs have now. Otherwise the next look would
    // evaluate them again.
    assert!(run(place.tool(&["prune"])).status.success());
    assert_eq!(place.rows("SELECT id FROM evaluation"), ["1", "2"]);
    repository.git(&["reset", "--quiet", "--hard", "ORIG_HEAD"]);
    assert_eq!(evaluate().status.code(), Some(0));
    assert!(!text(&address, "/jobset/spec").contains("The inputs were set back to"));
    assert!(run(place.tool(&["prune"])).status.success());
    assert_eq!(place.rows("SELECT id FROM evaluation"), ["2"]);
    server.signal("TERM");
    assert!(server.end().success());
    place.check_consistency();
}

#[test]
fn a_canceled_build_has_a_result_of_its_own() {
    let (place, gate) = held();
    let server = server(&place);
    gate.wait();
    let waiting = Process::start(place.tool(&["wait", "1"]));
    let following = Process::start(place.tool(&["log", "1", "--follow"]));
    let evaluation = Process::start(place.tool(&["wait", "--eval", "1"]));
    assert!(run(place.tool(&["cancel", "1"])).status.success());
    for waiting in [waiting, following, evaluation] {
        assert_eq!(waiting.end().code(), Some(4));
    }
    drop(server);
}

#[test]
fn what_waits_notices_that_its_server_was_killed_and_an_interrupt_ends_it_at_once() {
    let place = Place::new();
    let gate = Gate::new(place.path("gate"));
    let repository = place.repository("repository");
    // The build ignores TERM, so that the cancel is still in progress when the server is killed.
    let command =
        format!("command = \"trap '' TERM; echo begun > '{}'; sleep 300\"", gate.path().display());
    repository.jobs(&[("deaf", &command)]);
    // A host that accepts connections and sends nothing.
    let mute = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = mute.local_addr().expect("an address").port();
    place.write("config.toml", "[limits]\nbuild-grace = \"5m\"\n");
    place.specify(&[("spec", &repository, "")]);
    let file = std::fs::read_to_string(place.path("specifications.toml")).expect("a file");
    let asleep = format!(
        "{file}\n[[specification]]\nname = \"asleep\"\n[[specification.input]]\n\
         url = \"git://127.0.0.1:{port}/x\"\n"
    );
    place.write("specifications.toml", &asleep);
    let server = server(&place);
    gate.wait();
    let start = |arguments: &[&str]| Process::start(place.tool(arguments));
    let interrupted = start(&["wait", "1"]);
    let began = Instant::now();
    interrupted.signal("INT");
    let ended = interrupted.end();
    assert_eq!(ended.signal(), Some(2));
    assert!(began.elapsed() < SOON);
    let waiting = [
        start(&["wait", "1"]),
        start(&["wait", "--eval", "1"]),
        start(&["log", "1", "--follow"]),
        start(&["cancel", "1"]),
        start(&["evaluate", "asleep"]),
        start(&["evaluate", "spec", "--wait"]),
    ];
    let asked = || place.rows("SELECT status FROM attempt WHERE build_id = 1");
    until(asked, |rows| *rows == ["4"]);
    let wanted = || place.rows("SELECT look_wanted_at > 0 FROM specification");
    until(wanted, |rows| *rows == ["1", "1"]);
    server.signal("KILL");
    let killed = Instant::now();
    server.end();
    for (number, waiting) in waiting.into_iter().enumerate() {
        waiting.trace("server");
        assert_eq!(waiting.end().code(), Some(1), "command {number}");
    }
    assert!(killed.elapsed() < SOON, "{:?}", killed.elapsed());
    // The request to cancel was stored. The next server cancels the build and starts nothing.
    assert_eq!(place.rows("SELECT status FROM build"), ["-1"]);
    let server = Process::start(place.command(&["--interval", "1d"]));
    address(&server);
    assert_eq!(run(place.tool(&["wait", "1"])).status.code(), Some(4));
    assert_eq!(place.rows("SELECT status, attempt FROM build"), ["4|1"]);
    assert_eq!(place.rows("SELECT number, status, stopped_at > 0 FROM attempt"), ["1|4|1"]);
}

#[test]
fn a_cancel_that_no_server_hears_is_done_by_the_next() {
    let place = Place::new();
    let gate = Gate::new(place.path("gate"));
    let repository = place.repository("repository");
    let command = format!("command = \"echo begun > '{}'; sleep 300\"", gate.path().display());
    repository.jobs(&[("held", &command), ("child", "needs = [\"held\"]\ncommand = \"true\"")]);
    place.specify(&[("spec", &repository, "")]);
    let first = server(&place);
    gate.wait();
    first.signal("KILL");
    first.end();
    let held = build_of(&place, "held");
    let ended = run(place.tool(&["cancel", &held]));
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("the next one cancels it"), "{}", ended.stderr);
    let _second = server(&place);
    assert_eq!(run(place.tool(&["wait", &held])).status.code(), Some(4));
    assert_eq!(place.jobs(1), ["child|2", "held|4"]);
}

#[test]
fn without_a_server_waiting_ends_soon_and_says_so() {
    let (place, gate) = held();
    let first = server(&place);
    gate.wait();
    first.signal("TERM");
    assert!(first.end().success());
    for arguments in [
        &["wait", "1"][..],
        &["wait", "--eval", "1"],
        &["log", "1", "--follow"],
        &["evaluate", "spec"],
    ] {
        let began = Instant::now();
        let ended = run(place.tool(arguments));
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}");
        assert!(ended.stderr.contains("no server runs on"), "{arguments:?}: {}", ended.stderr);
        assert!(began.elapsed() < SOON, "{arguments:?}");
    }
}

/// A place whose specification has `count` evaluations of one job each.
fn evaluated(count: usize) -> (Place, Repository) {
    let (place, repository) = place(&[GOOD]);
    for round in 0..count {
        repository.jobs(&[("job", &format!("command = \"echo {round}\""))]);
        place.good_one_shot();
    }
    (place, repository)
}

#[test]
fn prune_waits_for_what_was_due_when_it_was_asked_beside_a_server_that_goes_on() {
    let (place, repository) = evaluated(3);
    place.write("config.toml", "[keep]\nevaluations = 1\n");
    let server = server(&place);
    // Evaluations become due all the time. `prune` waits only for those that were due when it began.
    std::thread::scope(|scope| {
        let (stop, stopped) = std::sync::mpsc::sync_channel::<()>(1);
        let (place, repository) = (&place, &repository);
        std::thread::Builder::new()
            .name("pushes".to_owned())
            .spawn_scoped(scope, move || {
                let mut round = 0;
                while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                    round += 1;
                    repository.jobs(&[("job", &format!("command = \"echo more {round}\""))]);
                    assert!(run(place.tool(&["evaluate", "spec"])).status.success());
                }
            })
            .expect("a thread");
        let busy = || place.rows("SELECT count(*) FROM evaluation")[0].parse().unwrap_or(0);
        until(busy, |evaluations: &i32| *evaluations > 5);
        let ended = run(place.tool(&["prune"]));
        drop(stop);
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        assert!(ended.stdout.starts_with("the server deleted "), "{}", ended.stdout);
    });
    assert_eq!(place.rows("SELECT id FROM evaluation WHERE id <= 3"), [""; 0]);
    server.signal("TERM");
    assert!(server.end().success());
}

#[test]
fn prune_goes_by_what_the_server_that_runs_was_told_and_says_so() {
    let (place, _repository) = evaluated(3);
    let go = |ended: &Ended| json(ended)[0]["evaluations"].as_i64();
    // Without a server, only the options of the command decide what is deleted.
    let ended = run(place.tool(&["prune", "--dry-run", "--json"]));
    assert_eq!(go(&ended), Some(0));
    assert!(ended.stderr.contains("everything (no server runs on"), "{}", ended.stderr);
    let config = place.write("config.toml", "[keep]\nevaluations = 1\n");
    let all = place.write("all.toml", "");
    let server = server(&place);
    // The server's own run when it starts may still be deleting evaluations, so this run waits until none is due.
    let _ = run(place.tool(&["prune"]));
    let ended = run(place.tool(&["prune", "--dry-run", "--json"]));
    assert_eq!(json(&ended)[0]["keep"]["evaluations"], 1, "{}", ended.stdout);
    let told = format!("1 evaluations (the server that runs, from {})", config.display());
    assert!(ended.stderr.contains(&told), "{}", ended.stderr);
    // If the file is not the server's, the command shows what it would delete, and says that the server's rule is
    // another one.
    let all = all.to_str().expect("a path");
    let ended = run(place.tool(&["prune", "--dry-run", "--config", all]));
    assert!(ended.stderr.contains("the server that runs has: 1 evaluations"), "{}", ended.stderr);
    // The command takes the state directory from the file, as the server does.
    let named = format!("state = {:?}\n[keep]\nevaluations = 2\n", place.state());
    let named = place.write("named.toml", &named);
    let mut command = Command::new(crate::support::PROGRAM);
    command.args(["prune", "--dry-run", "--json", "--config"]).arg(named);
    let ended = run({
        command.env_remove("BRIGANDINE_STATE");
        command
    });
    assert_eq!(json(&ended)[0]["keep"]["evaluations"], 2, "{}", ended.stderr);
    // The server deletes by its own rule, and the command does not wait for deletions that will not happen.
    let began = Instant::now();
    let ended = run(place.tool(&["prune", "--config", all]));
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("the server that runs deletes by its own"), "{}", ended.stderr);
    assert!(began.elapsed() < SOON);
    server.signal("TERM");
    assert!(server.end().success());
    assert!(!place.state().join("server.json").exists());
}

#[test]
fn prune_notices_that_its_server_was_killed() {
    // The server keeps everything. `server.json` is changed, so that the command believes that the server keeps one
    // evaluation, and waits.
    let (place, repository) = evaluated(2);
    place.write("config.toml", "");
    place.specify(&[("spec", &repository, "")]);
    let server = server(&place);
    let told = place.state().join("server.json");
    let text = std::fs::read_to_string(&told).expect("a file");
    std::fs::write(&told, text.replace(r#""keep":{}"#, r#""keep":{"evaluations":1}"#))
        .expect("a file");
    let pruning = Process::start(place.tool(&["prune"]));
    server.trace("a command asks: prune now");
    server.signal("KILL");
    let killed = Instant::now();
    server.end();
    pruning.trace("has gone; 1 evaluations are left");
    assert_eq!(pruning.end().code(), Some(1));
    assert!(killed.elapsed() < SOON);
}

#[test]
fn a_list_of_what_is_not_there_names_what_is_near() {
    let (place, _repository) = place(&[GOOD, BAD]);
    place.good_one_shot();
    for (arguments, told) in [
        (&["builds", "--spec", "spce"][..], "no specification called `spce`; did you mean `spec`?"),
        (&["builds", "--spec", "nope"], "no specification called `nope`; there are `spec`"),
        (&["builds", "--json", "--spec", "nope"], "there are `spec`"),
        (&["builds", "--evaluation", "7"], "there is no evaluation 7"),
        (&["builds", "--system", "x86-linux"], "for the system `x86-linux`"),
        (&["builds", "--job", "god"], "did you mean `good`?"),
        (&["builds", "--spec", "spec", "--job", "bda"], "did you mean `bad`?"),
        (&["evaluate", "spce"], "did you mean `spec`?"),
        (&["spec", "show", "Spec"], "did you mean `spec`?"),
        (&["spec", "remove", "sp"], "there are `spec`"),
        (&["wait", "9"], "there is no build 9"),
        (&["log", "9"], "there is no build 9"),
        (&["log", "--eval", "9"], "there is no evaluation 9"),
    ] {
        let ended = run(place.tool(arguments));
        assert_eq!(ended.status.code(), Some(3), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(told), "{arguments:?}: {}", ended.stderr);
        assert_eq!(ended.stdout, "", "{arguments:?}");
    }
    // The job and the system exist, but no build has this status. That is no mistake.
    let ended = run(place.tool(&["builds", "--job", "good", "--status", "failed"]));
    assert_eq!((ended.status.code(), &*ended.stderr), (Some(0), "no build is like this\n"));
    // The builds of a removed specification are still listed.
    assert!(run(place.tool(&["spec", "remove", "spec"])).status.success());
    assert_eq!(run(place.tool(&["builds", "--spec", "spec"])).stdout.lines().count(), 3);
}

#[test]
fn builds_as_json_have_what_the_table_has() {
    let (place, _repository) = place(&[GOOD, BAD, CHILD]);
    place.good_one_shot();
    let builds = json(&run(place.tool(&["builds", "--json"])));
    for build in builds.as_array().expect("a list") {
        let (status, reason) = match build["job"].as_str() {
            Some("good") => ("succeeded", ""),
            Some("bad") => ("failed", "exit status 3"),
            _ => ("failed-dependency", "needs `bad`: failed"),
        };
        assert_eq!((&build["status"], &build["reason"]), (&status.into(), &reason.into()));
        assert!(build["queuedtime"].as_i64() > Some(1_600_000_000), "{build}");
        assert_eq!(build["seconds"].is_i64(), build["starttime"] != 0, "{build}");
        // The fields that clients of the API know are there too.
        assert_eq!((&build["finished"], &build["jobset"]), (&1.into(), &"spec".into()));
    }
}

#[test]
fn an_argument_that_is_none_is_refused_in_words_that_say_what_is_expected() {
    let place = Place::new();
    for (arguments, told) in [
        (&["log", "abc"][..], "a build is a number"),
        (&["log", "0"], "a build is a number"),
        (&["log", "-3"], "unexpected argument"),
        (&["log", "99999999999999999999"], "a build is a number"),
        (&["log"], "BUILD"),
        (&["log", "1", "--evaluation", "2"], "cannot be used with"),
        (&["cancel", "x"], "a build is a number"),
        (&["restart", "1.5"], "a build is a number"),
        (&["wait"], "BUILD"),
        (&["wait", "1", "two"], "a build is a number"),
        (&["wait", "1", "--eval", "2"], "cannot be used with"),
        (&["wait", "--eval", "last"], "an evaluation is a number"),
        (&["wait", "1", "--timeout", "soon"], "90s, 5m, 1h30m"),
        (&["evaluate", "x", "--timeout", "5s"], "--wait"),
        (&["builds", "--evaluation", "x"], "an evaluation is a number"),
        (&["builds", "--number", "many"], "a whole number from 1 to 1000"),
        (&["builds", "--number", "0"], "a whole number from 1 to 1000"),
        (&["builds", "--status", "broken"], "failed-dependency"),
    ] {
        let ended = run(place.tool(arguments));
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(told), "{arguments:?}: {}", ended.stderr);
        assert!(!ended.stderr.contains("invalid digit"), "{}", ended.stderr);
    }
}

#[test]
fn what_a_command_line_lacks_is_named_with_all_that_it_may_be() {
    for (arguments, said) in [
        (&["log"][..], "<BUILD|--evaluation <ID>>"),
        (&["wait"], "<BUILD|--evaluation <ID>>"),
        (&["check", "--json"], "<FILE|--config <FILE>|--jobs <FILE>>"),
        (&["log", "1", "--evaluation", "1"], "cannot be used with"),
        (&["wait", "1", "2", "--eval", "1"], "cannot be used with"),
    ] {
        let mut command = Command::new(crate::support::PROGRAM);
        command.args(arguments);
        let ended = run(command);
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {}", ended.stderr);
        let line = ended.stderr.replace("...", "");
        assert!(line.contains(said), "{arguments:?}: {}", ended.stderr);
    }
}

#[test]
fn a_state_directory_without_anything_in_it_is_told_as_such() {
    let (place, _repository) = place(&[GOOD]);
    let mut server = Command::new(crate::support::PROGRAM);
    server.args(["serve", "--one-shot", "--sandbox=off", "--state"]).arg(place.state());
    assert!(run(server).status.success());
    for (arguments, said) in [
        (&["spec", "list"][..], "there is no specification yet"),
        (&["prune", "--dry-run"], "there is no specification"),
        (&["builds"], "no build is like this"),
    ] {
        let ended = run(place.tool(arguments));
        assert_eq!(ended.status.code(), Some(0), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(said), "{arguments:?}: {}", ended.stderr);
    }
}

#[test]
fn a_state_directory_that_is_none_is_refused_with_what_to_do() {
    let (place, _repository) = place(&[GOOD]);
    place.write("state", "a file");
    for command in [
        place.command(&["--one-shot"]),
        place.tool(&["spec", "add", place.path("specifications.toml").to_str().expect("text")]),
    ] {
        let ended = run(command);
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        assert!(ended.stderr.contains("it is no directory: name another one"), "{}", ended.stderr);
    }
}

#[test]
fn a_state_directory_that_may_not_be_looked_at_is_told_as_such() {
    let (place, _repository) = place(&[GOOD]);
    place.good_one_shot();
    std::fs::set_permissions(place.state(), Permissions::from_mode(0o000)).expect("a mode");
    for arguments in [&["builds"][..], &["spec", "list"], &["wait", "1"], &["evaluate", "spec"]] {
        let mut command = place.tool(arguments);
        if is_root() {
            // Root ignores modes, unless it lacks these capabilities.
            let tool = command;
            command = Command::new("setpriv");
            command.arg("--bounding-set=-dac_override,-dac_read_search");
            command.arg(tool.get_program()).args(tool.get_args());
        }
        let ended = run(command);
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("give the command as its user"), "{}", ended.stderr);
    }
    std::fs::set_permissions(place.state(), Permissions::from_mode(0o700)).expect("a mode");
}

#[test]
fn a_command_that_waits_for_a_lock_says_so_and_then_does_its_work() {
    let (place, _) = place(&[("bad", "command = \"false\"")]);
    assert_eq!(place.one_shot().status.code(), Some(1));
    let other = place.database();
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let restart = Process::start(place.tool(&["restart", "1"]));
    restart.trace("the database is waited for, up to 30 s: another program has it locked");
    other.execute_batch("ROLLBACK").expect("let go");
    assert_eq!(restart.line(), "build 1: scheduled");
    assert!(restart.end().success());
}
