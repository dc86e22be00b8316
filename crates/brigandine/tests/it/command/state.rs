//! `spec`, `evaluate`, `builds` and `log` on a state directory, with and without a server.

use super::serve::{address, text};
use crate::support::{Place, Process, run};

/// A place whose specification has been handled once: the job `good` succeeded, `bad` failed.
fn built() -> (Place, crate::support::Repository) {
    let place = Place::new();
    let repository = place.repository("repository");
    repository.jobs(&[
        ("bad", "command = \"echo no; exit 3\""),
        ("good", "command = \"echo yes > it; echo made\"\nproducts = [\"it\"]"),
    ]);
    place.specify(&[("spec", &repository, "")]);
    place.good_one_shot();
    (place, repository)
}

#[test]
fn without_a_state_directory_every_command_says_so_with_status_3() {
    let place = Place::new();
    for arguments in [
        &["spec", "list"][..],
        &["spec", "show", "x"],
        &["spec", "remove", "x"],
        &["evaluate", "x"],
        &["builds"],
        &["log", "1"],
    ] {
        let ended = run(place.tool(arguments));
        assert_eq!(ended.status.code(), Some(3), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("--state or BRIGANDINE_STATE"), "{}", ended.stderr);
        assert!(!place.state().exists(), "{arguments:?} made a state directory");
    }
}

#[test]
fn what_is_not_there_has_status_3() {
    let (place, _repository) = built();
    for arguments in
        [&["spec", "show", "x"][..], &["spec", "remove", "x"], &["evaluate", "x"], &["log", "99"]]
    {
        let ended = run(place.tool(arguments));
        assert_eq!(ended.status.code(), Some(3), "{arguments:?}: {}", ended.stderr);
    }
}

#[test]
fn builds_are_listed_for_people_and_programs() {
    let (place, _repository) = built();
    let ended = run(place.tool(&["builds"]));
    assert!(ended.stdout.starts_with("ID  STATUS"), "{}", ended.stdout);
    let lines: Vec<_> = ended.stdout.lines().skip(1).collect();
    assert_eq!(lines.len(), 2, "{}", ended.stdout);
    assert!(lines.iter().any(|line| line.contains("bad") && line.contains("exit status 3")));
    let ended = run(place.tool(&["builds", "--json", "--status", "succeeded"]));
    let builds: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(builds.as_array().map(Vec::len), Some(1));
    assert_eq!((&builds[0]["job"], &builds[0]["buildstatus"]), (&"good".into(), &0.into()));
    assert_eq!(builds[0]["buildproducts"][0]["file-size"], 4);
}

#[test]
fn a_build_log_is_printed_from_the_files_of_the_state() {
    let (place, _repository) = built();
    let log = |job: &str| {
        let ended = run(place.tool(&["builds", "--json", "--job", job]));
        let builds: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
        let id = builds[0]["id"].to_string();
        run(place.tool(&["log", &id, "--follow"]))
    };
    assert!(log("good").stdout.ends_with("made\n"));
    assert!(log("bad").stdout.contains("no\n"));
}

#[test]
fn columns_bounds_the_lines_of_answers_where_there_is_no_terminal() {
    let (place, repository) = built();
    std::fs::remove_dir_all(&repository.path).expect("removed");
    let ended = run(place.command(&["--one-shot"]));
    assert!(!ended.status.success());
    for arguments in [&["status"][..], &["builds"], &["spec", "list"]] {
        let lines = |columns: &str| {
            let mut command = place.tool(arguments);
            command.env("COLUMNS", columns);
            let stdout = run(command).stdout;
            let widest = stdout.lines().map(|line| line.chars().count()).max();
            (widest.expect("a line"), stdout)
        };
        let (whole, text) = lines("");
        assert!(whole > 40, "{text}");
        for width in [20, 30, 40] {
            let (widest, text) = lines(&width.to_string());
            assert!(widest <= width, "{width}: {text}");
        }
        assert_eq!(lines("none").0, whole, "it names no width");
        assert!(lines("1000").0 >= whole, "nothing is cut");
    }
}

#[test]
fn specifications_are_listed_shown_and_removed() {
    let (place, _repository) = built();
    let ended = run(place.tool(&["spec", "list", "--json"]));
    let list: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!((&list[0]["name"], &list[0]["state"]), (&"spec".into(), &"failing".into()));
    assert_eq!(list[0]["evaluation"]["jobs"]["succeeded"], 1);
    let ended = run(place.tool(&["spec", "show", "spec"]));
    assert!(
        ended.stdout.contains("1 of 2 jobs succeeded, 1 failed, 0 pending"),
        "{}",
        ended.stdout
    );
    assert!(run(place.tool(&["spec", "remove", "spec"])).status.success());
    assert_eq!(run(place.tool(&["spec", "remove", "spec"])).status.code(), Some(3));
    let ended = run(place.tool(&["spec", "list"]));
    assert_eq!(ended.stdout.lines().count(), 1, "{}", ended.stdout);
    // The builds of the removed specification stay.
    assert_eq!(run(place.tool(&["builds"])).stdout.lines().count(), 3);
}

#[test]
fn a_running_server_takes_up_what_is_added_and_looks_when_asked() {
    let place = Place::new();
    let repository = place.repository("repository");
    repository.jobs(&[("first", "command = \"true\"")]);
    let mut command = std::process::Command::new(crate::support::PROGRAM);
    command.args(["serve", "--listen", "127.0.0.1:0", "--interval", "1d", "--state"]);
    command.arg(place.state());
    let server = Process::start(command);
    let address = address(&server);
    place.specify(&[("late", &repository, "")]);
    let file = place.path("specifications.toml");
    let file = file.to_str().expect("a path");
    let ended = run(place.tool(&["spec", "add", file]));
    assert_eq!((ended.status.code(), &*ended.stdout), (Some(0), "late: new\n"));
    // The same definition again is unchanged. Another definition is not stored without `--replace`.
    assert_eq!(run(place.tool(&["spec", "add", file])).stdout, "late: unchanged\n");
    place.specify(&[("late", &repository, "submodules = true")]);
    let ended = run(place.tool(&["spec", "add", file]));
    assert_eq!((ended.status.code(), &*ended.stdout), (Some(1), "late: kept\n"));
    let ended = run(place.tool(&["evaluate", "late"]));
    assert!(ended.status.success(), "{}", ended.stderr);
    repository.jobs(&[("first", "command = \"true\""), ("second", "command = \"true\"")]);
    let ended = run(place.tool(&["evaluate", "late", "--json"]));
    assert!(ended.status.success(), "{}", ended.stderr);
    let outcome: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(outcome["evaluation"]["id"], 2, "{outcome}");
    assert!(text(&address, "/jobset/late").contains("#2"));
    assert_eq!(
        run(place.tool(&["evaluate", "late"])).stdout,
        "nothing new: the inputs are those of evaluation #2\n"
    );
    repository.commit(&[("brigandine.toml", "[[job]]\nname = 7\n")]);
    let ended = run(place.tool(&["evaluate", "late"]));
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("must be text"), "{}", ended.stderr);
    server.signal("TERM");
    assert!(server.end().success());
    let ended = run(place.tool(&["evaluate", "late"]));
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("no server runs"), "{}", ended.stderr);
}
