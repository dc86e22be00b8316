//! Attacks by a person who may push, or who writes a specification, and who tries to escape from builds or to reach the
//! data of others. Each test has one theme and all known variants of it.
//!
//! If the sandbox can make a difference, an attack is tried without it and with it.

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

/// The two kinds of isolation that are tested.
const SANDBOXES: [&str; 2] = ["off", "require"];

/// The argument that chooses one of [`SANDBOXES`].
///
/// # Panics
/// The sandbox is wanted, and bubblewrap does not work on this machine. The test must not pass then, because it would
/// have tested nothing.
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

/// A number that no other process has in its command line. As an argument of `sleep` it is a long time.
fn unique(number: usize) -> String {
    format!("{}{number:03}", 1_000_000 + u64::from(std::process::id()))
}

/// The same command, started by a shell that runs `before` first.
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

/// Commits a job list. The commands may contain any characters.
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

/// Makes a specification whose evaluator runs a shell script. The evaluation has one job.
fn evaluator(place: &Place, repository: &Repository, script: &str) {
    let job = r#"{"job": "one", "derivation": {"command": "true"}}"#;
    repository.commit(&[("evaluate", &format!("{script}\necho '{job}'\n"))]);
    let evaluator = "[specification.evaluator]\ncommand = [\"sh\", \"evaluate\"]";
    place.specify(&[("sample", repository, evaluator)]);
}
