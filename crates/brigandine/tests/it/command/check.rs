//! `brigandine check`, and what every command does with a wrong command line.

use crate::support::{Place, run};
use std::process::Command;

fn brigandine(arguments: &[&str]) -> Command {
    let mut command = Command::new(crate::support::PROGRAM);
    command.args(arguments).env_remove("BRIGANDINE_STATE");
    command
}

const GOOD: &str = "[[specification]]\nname = \"hello\"\n[[specification.input]]\nurl = \"/srv/hello.git\"\n[[specification.job]]\nname = \"check\"\ncommand = \"make check\"\n";

#[test]
fn good_files_are_counted_and_the_status_is_0() {
    let place = Place::new();
    let file = place.write("good.toml", GOOD);
    let jobs = place.write("jobs.toml", "[[job]]\nname = \"a\"\ncommand = \"true\"\n");
    let mut check = brigandine(&["check"]);
    let ended = run({
        check.arg(&file).arg("--jobs").arg(&jobs);
        check
    });
    assert_eq!(ended.stdout, "ok: 2 files, 1 specification, 2 jobs\n");
    assert_eq!((ended.status.code(), &*ended.stderr), (Some(0), ""));
}

/// Compares what a run says with a snapshot, without the folder of the files.
fn check_snapshot(name: &str, place: &Place, said: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let said = said.replace(&place.path("").display().to_string(), "");
    settings.bind(|| insta::assert_snapshot!(name, said));
}

#[test]
fn every_mistake_of_every_file_is_told_at_once_and_the_status_is_1() {
    let place = Place::new();
    let first = place.write("first.toml", &GOOD.replace("url", "ulr"));
    let second = place.write("second.toml", &GOOD.replace("\"make check\"", "7"));
    let mut check = brigandine(&["check"]);
    check.arg(&first).arg(&second).arg(place.path("does-not-exist.toml"));
    let ended = run(check);
    assert_eq!((ended.status.code(), &*ended.stdout), (Some(1), ""));
    check_snapshot("mistakes-of-three-files", &place, &ended.stderr);
}

#[test]
fn problems_are_json_for_programs() {
    let place = Place::new();
    let file = place.write("bad.toml", &GOOD.replace("hello\"", "hello world\""));
    let mut check = brigandine(&["check", "--json"]);
    check.arg(&file);
    let ended = run(check);
    assert_eq!((ended.status.code(), &*ended.stderr), (Some(1), ""));
    check_snapshot("problems-as-json", &place, &ended.stdout);
}

#[test]
fn a_configuration_is_checked_with_the_specifications_it_names() {
    let place = Place::new();
    place.write("a.toml", GOOD);
    place.write("b.toml", GOOD);
    // The specification files that a wrong configuration names are not checked.
    let names = "specifications = [\"a.toml\", \"b.toml\"]\n";
    for (name, more) in [("wrong-configuration", "listen = \"x\"\n"), ("one-name-in-two-files", "")]
    {
        let config = place.write("server.toml", &format!("{names}{more}"));
        let mut check = brigandine(&["check", "--config"]);
        check.arg(&config);
        let ended = run(check);
        assert_eq!((ended.status.code(), &*ended.stdout), (Some(1), ""));
        check_snapshot(name, &place, &ended.stderr);
    }
}

#[test]
fn a_wrong_command_line_has_status_2_and_says_what_was_meant() {
    for (arguments, said) in [
        (&["serv"][..], "serve"),
        (&["serve", "--max-job", "2"], "--max-jobs"),
        (&["serve", "--max-jobs", "0"], "a whole number from 1 to 4096"),
        (&["serve", "--listen", "8080"], "127.0.0.1:8080"),
        (&["serve", "--interval", "often"], "90s, 5m, 1h30m"),
        (&["log", "seven"], "a build is a number"),
        (&["builds", "--status", "broken"], "failed-dependency"),
        (&["check"], "required"),
        (&["demo", "--json"], "--exit"),
    ] {
        let ended = run(brigandine(arguments));
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}");
        assert!(ended.stderr.contains(said), "{arguments:?}: {}", ended.stderr);
    }
}

#[test]
fn the_help_documents_every_exit_status() {
    let ended = run(brigandine(&["--help"]));
    assert_eq!(ended.status.code(), Some(0));
    for said in ["  0  ", "  1  ", "  2  ", "  3  ", "RUST_LOG", "demo", "serve", "spec"] {
        assert!(ended.stdout.contains(said), "{said}");
    }
}
