//! The workspace's own commands: `cargo xtask test [--long] [--only STEP]`, `cargo xtask fuzz`,
//! `cargo xtask neighbours`, `cargo xtask oldest`, `cargo xtask package`, and what maintainers run before a release: `cargo xtask deny`,
//! `cargo xtask advisories`, `cargo xtask semver`.
//!
//! `steps.rs` has the steps of the tests, `command.rs` prints and runs commands, `install.rs` installs what the tests
//! need, `api.rs` and `oidc.rs` test the server's API and its logins, `package/` packs the server and `installed/` tries
//! the package, and `neighbours.rs` and `oldest.rs` test Lockkeeper with other versions of SQLite's bindings.

use std::path::PathBuf;
use std::process::ExitCode;

use command::{Failed, cargo, succeeds};
use steps::{Form, STEPS, Step};

mod api;
mod command;
mod install;
mod installed;
mod neighbours;
mod oidc;
mod oldest;
mod package;
mod steps;

const HELP: &str = "\
The workspace's own commands.

Usage: cargo xtask <COMMAND>

Commands:
  test          Install what the tests need; check format, lints, docs; run all tests and models
  test --long   The same with the long forms (10^5 batches, 300 kills, every fault): at most an hour
  test --only STEP
                Run this step alone; may be given more than once, and with --long
  steps         List the steps
  neighbours    Check which crates link beside Lockkeeper, and which cannot
  oldest        Run Lockkeeper's tests on the oldest rusqlite that it accepts
  fuzz [--minutes N] [--seed S]
                Look for a program of calls that shows a fault, for 10 minutes unless told otherwise
  package       Make a Debian package and a tarball of the server, in target/package
  deny          Check licences, sources and duplicate crates with cargo-deny
  advisories    Check for known vulnerabilities with cargo-deny, which fetches the list of them
  semver BASE   Check with cargo-semver-checks that Lockkeeper breaks nothing since the revision BASE
  help          Print this

Exit status: 0 when everything passed, 1 when a step failed, 2 for wrong arguments.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["test", words @ ..] => match chosen(words) {
            Ok((steps, form)) => steps::run(&steps, form),
            Err(wrong) => return refuse(&wrong),
        },
        ["steps"] => {
            list();
            return ExitCode::SUCCESS;
        }
        ["neighbours"] => neighbours::check(),
        ["oldest"] => oldest::test().map(drop),
        ["package"] => package::package(),
        ["fuzz", words @ ..] => match minutes_and_seed(words) {
            Ok((minutes, seed)) => steps::fuzz(minutes, seed).map(drop),
            Err(wrong) => return refuse(&wrong),
        },
        ["deny"] => deny(&["licenses", "bans", "sources"]),
        ["advisories"] => deny(&["advisories"]),
        ["semver", base] => semver(base),
        ["help" | "--help" | "-h"] => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => return refuse(&format!("unknown command `{}`", words.join(" "))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed(what)) => {
            eprintln!("xtask: failed: {what}");
            ExitCode::FAILURE
        }
    }
}

fn refuse(wrong: &str) -> ExitCode {
    eprintln!("xtask: {wrong}\n\n{HELP}");
    ExitCode::from(2)
}

/// The steps that the words after `test` name, in the order of [`STEPS`], and the form in which they run.
fn chosen(words: &[&str]) -> Result<(Vec<&'static Step>, Form), String> {
    let (mut long, mut only) = (false, Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--long" => long = true,
            "--only" => only.push(*words.next().ok_or("`--only` needs the name of a step")?),
            other => return Err(format!("`test` does not know `{other}`")),
        }
    }
    if let Some(unknown) = only.iter().find(|name| STEPS.iter().all(|step| step.name != **name)) {
        let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
        return Err(format!("there is no step `{unknown}`; the steps are {}", names.join(", ")));
    }
    let wanted = |step: &&Step| match only.is_empty() {
        true => long || !step.long_only,
        false => only.contains(&step.name),
    };
    Ok((STEPS.iter().filter(wanted).collect(), Form { long }))
}

/// The minutes and the seed that the words after `fuzz` name.
fn minutes_and_seed(words: &[&str]) -> Result<(u64, Option<u64>), String> {
    let (mut minutes, mut seed) = (10, None);
    for pair in words.chunks(2) {
        let [name, value] = pair else { return Err(format!("`{}` needs a number", pair[0])) };
        let number = || value.parse::<u64>().map_err(|_| format!("`{name} {value}`: no number"));
        match *name {
            // At most a year, so that the number of seconds does not overflow.
            "--minutes" => minutes = number()?.min(525_600),
            "--seed" => seed = Some(number()?),
            other => return Err(format!("`fuzz` does not know `{other}`")),
        }
    }
    Ok((minutes, seed))
}

fn list() {
    for step in &STEPS {
        let form = if step.long_only { " (with --long)" } else { "" };
        println!("{:<10} {}{form}", step.name, step.checks);
    }
}

/// The workspace's folder.
fn root() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    own.parent().map_or_else(|| own.clone(), PathBuf::from)
}

fn deny(checks: &[&str]) -> Result<(), Failed> {
    installed("deny", "cargo-deny")?;
    cargo(&[&["deny", "check"], checks].concat()).run()
}

fn semver(base: &str) -> Result<(), Failed> {
    installed("semver-checks", "cargo-semver-checks")?;
    cargo(&["semver-checks", "--package", "lockkeeper", "--baseline-rev", base]).run()
}

/// Installs `package` unless cargo has this subcommand already.
fn installed(subcommand: &str, package: &str) -> Result<(), Failed> {
    match succeeds("cargo", &[subcommand, "--version"]) {
        true => Ok(()),
        false => cargo(&["install", "--locked", package]).run(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(words: &[&str]) -> Vec<&'static str> {
        let (steps, _) = chosen(words).expect("right arguments");
        steps.iter().map(|step| step.name).collect()
    }

    #[test]
    fn all_steps_run_unless_some_are_named() {
        let default = names(&[]);
        assert_eq!(default.len(), STEPS.iter().filter(|step| !step.long_only).count());
        assert_eq!(names(&["--long"]).len(), STEPS.len());
        assert_eq!(names(&["--only", "models", "--only", "format"]), ["format", "models"]);
    }

    #[test]
    fn fuzz_takes_minutes_and_a_seed() {
        assert_eq!(minutes_and_seed(&[]), Ok((10, None)));
        assert_eq!(minutes_and_seed(&["--seed", "7", "--minutes", "30"]), Ok((30, Some(7))));
        for (words, named) in [
            (&["--minutes"][..], "`--minutes` needs a number"),
            (&["--minutes", "ten"], "`--minutes ten`: no number"),
            (&["--hours", "1"], "does not know `--hours`"),
        ] {
            let wrong = minutes_and_seed(words).expect_err("refused");
            assert!(wrong.contains(named), "{wrong}");
        }
    }

    #[test]
    fn wrong_arguments_are_named() {
        for (words, named) in [
            (&["--only", "form"][..], "no step `form`; the steps are install, format"),
            (&["--only"], "`--only` needs the name"),
            (&["--quick"], "does not know `--quick`"),
        ] {
            let wrong = chosen(words).err().expect("refused");
            assert!(wrong.contains(named), "{wrong}");
        }
    }
}
