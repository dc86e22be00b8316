//! Descriptors that the server inherited are closed in all programs that it starts.

use super::{SANDBOXES, commands, evaluator, sandbox};
use crate::support::{Place, run};
use std::process::Command;

/// The command, started by a shell that has opened a secret file, a directory and a file for writing.
fn with_open_files(place: &Place, command: &Command) -> Command {
    let secret = place.write("secret", "the server's secret\n");
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!(
        "exec 9<{} 8<{} 7>>{} 6</dev/zero; exec \"$0\" \"$@\"",
        secret.display(),
        place.path(".").display(),
        place.path("written").display()
    ));
    shell.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

/// Prints which of the descriptors are open, and tries to use them.
const SCRIPT: &str = "for n in 6 7 8 9; do test -e /proc/self/fd/$n && echo open $n; done; \
                      cat <&9; cat /proc/self/fd/8/secret; echo overwritten >&7; true";

#[test]
fn a_build_has_no_descriptor_of_the_server() {
    for kind in SANDBOXES {
        let place = Place::new();
        let repository = place.repository("sample");
        commands(
            &repository,
            &[("job", &format!("( set +e; {SCRIPT} ) 2>/dev/null || true; echo done"))],
        );
        place.specify(&[("sample", &repository, "")]);
        let command = place.command(&["--one-shot", &sandbox(kind)]);
        let ended = run(with_open_files(&place, &command));
        assert!(ended.status.success(), "{}", ended.stderr);
        assert_eq!(place.build_log("job"), "done\n", "{kind}");
        assert_eq!(std::fs::read_to_string(place.path("written")).expect("a file"), "", "{kind}");
    }
}

#[test]
fn an_evaluator_has_no_descriptor_of_the_server() {
    for kind in SANDBOXES {
        let place = Place::new();
        let repository = place.repository("sample");
        evaluator(
            &place,
            &repository,
            &format!("( {SCRIPT} ) 2>/dev/null >found; cat found >&2; echo done >&2"),
        );
        let command = place.command(&["--one-shot", &sandbox(kind)]);
        let ended = run(with_open_files(&place, &command));
        assert!(ended.status.success(), "{}", ended.stderr);
        let path = &place.rows("SELECT log_path FROM evaluation")[0];
        assert_eq!(place.stored_log(path), "done\n", "{kind}");
    }
}

#[test]
fn git_has_no_descriptor_of_the_server_and_no_variable_that_it_does_not_need() {
    let place = Place::new();
    let repository = place.repository("sample");
    commands(&repository, &[("job", "true")]);
    let found = place.path("found");
    let ssh = place.write(
        "ssh",
        &format!("#!/bin/sh\n( {SCRIPT}; env | grep SECRET ) > {} 2>/dev/null\n", found.display()),
    );
    place.specify(&[("sample", &repository, "")]);
    let specification = std::fs::read_to_string(place.path("specifications.toml")).expect("text");
    let local = format!("url = \"{}\"", repository.path.display());
    place.write(
        "specifications.toml",
        &specification.replace(&local, "url = \"ssh://host.invalid/x\""),
    );
    let mut command = place.command(&["--one-shot"]);
    command.env("GIT_SSH_COMMAND", format!("sh {}", ssh.display())).env("SECRET_TOKEN", "unseen");
    let ended = run(with_open_files(&place, &command));
    assert_eq!(ended.status.code(), Some(1), "there is no such host: {}", ended.stderr);
    assert_eq!(std::fs::read_to_string(found).expect("ssh was run"), "");
}
