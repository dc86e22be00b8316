//! A person who may push, or who writes a specification, tries to get out and to reach what is another's: each
//! test has one theme and all its variants that are known.
//!
//! What the sandbox changes is tried without it and with it.

mod bounds;
mod descriptors;
mod environment;
mod identity;
mod kills;
mod limits;
mod outputs;
mod processes;
mod sharing;
mod submodules;
mod turns;
mod user;

use crate::support::{Place, Repository};
use std::process::Command;

/// The two ways in which builds are isolated.
const SANDBOXES: [&str; 2] = ["off", "require"];

/// The argument that chooses one of [`SANDBOXES`].
///
/// # Panics
/// The sandbox is wanted, and bubblewrap does not work on this machine: a test that passed without it
/// would say what is not known.
fn sandbox(kind: &str) -> String {
    if kind == "require" {
        let probe = Command::new("bwrap")
            .args([
                "--unshare-all",
                "--ro-bind",
                "/",
                "/",
                "--proc",
                "/proc",
                "--dev",
                "/dev",
                "true",
            ])
            .output();
        match probe {
            Ok(done) if done.status.success() => {}
            Ok(done) => panic!(
                "bubblewrap does not work on this machine, so nothing is known about the sandbox: {}",
                String::from_utf8_lossy(&done.stderr)
            ),
            Err(error) => panic!(
                "bubblewrap cannot be run, so nothing is known about the sandbox ({error}); \
                 `cargo xtask test` installs it"
            ),
        }
    }
    format!("--sandbox={kind}")
}

/// A text that no other process has in its command line, and that `sleep` takes for a long time.
fn unique(number: usize) -> String {
    format!("{}{number:03}", 1_000_000 + u64::from(std::process::id()))
}

/// The same command, started by a shell after `before`.
pub(crate) fn started_by(before: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{before}; exec \"$@\""), "sh"]).arg(command.get_program());
    shell.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

/// A job list whose commands may hold anything.
fn commands(repository: &Repository, jobs: &[(&str, &str)]) {
    let text: String = jobs
        .iter()
        .map(|(name, script)| {
            let script = serde_json::Value::from(*script);
            format!("[[job]]\nname = \"{name}\"\ncommand = {script}\nsources = [\"none\"]\n")
        })
        .collect();
    repository.commit(&[("brigandine.toml", &text), ("none", "")]);
}

/// An evaluator that runs a shell script; the evaluation has one job.
fn evaluator(place: &Place, repository: &Repository, script: &str) {
    let job = r#"{"job": "one", "derivation": {"command": "true"}}"#;
    repository.commit(&[("evaluate", &format!("{script}\necho '{job}'\n"))]);
    let evaluator = "[specification.evaluator]\ncommand = [\"sh\", \"evaluate\"]";
    place.specify(&[("sample", repository, evaluator)]);
}
