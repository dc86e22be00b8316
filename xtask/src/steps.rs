//! The steps of `cargo xtask test`, in their order. A step is added to [`STEPS`], and nowhere else.

use std::num::NonZero;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::command::{Failed, Line, cargo, succeeds};
use crate::install::install;
use crate::{api, installed, neighbours, oidc, oldest};

/// One step: `cargo xtask test --only NAME` runs it alone.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    /// What the step checks; printed before it runs.
    pub(crate) checks: &'static str,
    /// `true`: only the long form runs this step.
    pub(crate) long_only: bool,
    run: fn(Form) -> Result<Closing, Failed>,
}

/// The closing lines of a step's test runners.
type Closing = Vec<String>;

/// The form in which the tests run.
#[derive(Clone, Copy)]
pub(crate) struct Form {
    pub(crate) long: bool,
}

pub(crate) const STEPS: [Step; 17] = [
    step("install", "what the tests need beside Rust can be installed", |_| no_tests(install())),
    step("format", "the sources are formatted", |_| {
        no_tests(cargo(&["fmt", "--all", "--check"]).run())
    }),
    step("lints", "neither the compiler nor clippy warns", |_| {
        no_tests(of_all(&["clippy"], &["--all-targets", "--", "-D", "warnings"]).run())
    }),
    step("docs", "every link in the documentation leads somewhere", |_| {
        let doc = of_all(&["doc"], &["--no-deps"]);
        no_tests(doc.with("RUSTDOCFLAGS", "-D warnings").run())
    }),
    step("features", "each feature of the library compiles alone, without a warning", |_| {
        no_tests(features())
    }),
    step("trees", "the library depends on no runtime, its queue on no SQLite", |_| {
        no_tests(trees())
    }),
    step("tests", "both products do what they promise", tests),
    step("api", "every answer is as the document of the API says", |form| api::test(form.long)),
    step("examples", "the examples in the documentation run", examples),
    step("optional", "the optional features of the library do what they promise", |_| {
        of_all(&["test"], &["--test", "features"]).run_tests()
    }),
    step("asan", "no memory is used after it was freed, nor freed twice", asan),
    long("fuzz", "random programs of calls leave what their calls would alone", |_| fuzz(3, None)),
    step("models", "the queue is right in every interleaving of a few threads", |_| models()),
    long("oldest", "the library holds on the oldest rusqlite that it accepts", |_| oldest::test()),
    long("oidc", "people log in through a real provider of OpenID Connect", |_| oidc::test()),
    long("neighbours", "the README is right about which crates link beside the library", |_| {
        no_tests(neighbours::check())
    }),
    long("package", "the package installs, runs, upgrades and goes in a fresh Debian", |_| {
        installed::check()
    }),
];

const fn step(
    name: &'static str,
    checks: &'static str,
    run: fn(Form) -> Result<Closing, Failed>,
) -> Step {
    Step { name, checks, long_only: false, run }
}

const fn long(
    name: &'static str,
    checks: &'static str,
    run: fn(Form) -> Result<Closing, Failed>,
) -> Step {
    Step { long_only: true, ..step(name, checks, run) }
}

/// Runs `steps` in this order until one fails, and prints how long each took.
pub(crate) fn run(steps: &[&Step], form: Form) -> Result<(), Failed> {
    let began = Instant::now();
    let mut summary = String::new();
    let mut failed = None;
    for step in steps {
        println!("xtask: step `{}`: {}", step.name, step.checks);
        let since = Instant::now();
        let outcome = (step.run)(form);
        let time = seconds(since.elapsed());
        println!("xtask: step `{}` took {}", step.name, time.trim_start());
        let mark = if outcome.is_ok() { "" } else { "  failed" };
        summary += &format!("  {:<10} {time}{mark}\n", step.name);
        match outcome {
            Ok(closing) => {
                for line in closing {
                    summary += &format!("      {line}\n");
                }
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    let form = if form.long { "long" } else { "default" };
    print!("\nxtask: the steps, in their {form} form:\n{summary}");
    if let Some(error) = failed {
        return Err(error);
    }
    println!("xtask: everything passed in {} s", began.elapsed().as_secs());
    Ok(())
}

fn seconds(time: Duration) -> String {
    format!("{:7.1} s", time.as_secs_f64())
}

fn no_tests(outcome: Result<(), Failed>) -> Result<Closing, Failed> {
    outcome.map(|()| Closing::new())
}

/// A command for the whole workspace, with the optional features of the library, which the step `tests` does without.
/// It names no package, because cargo would then choose other features of shared dependencies, and compile these again.
pub(crate) fn of_all(command: &[&str], words: &[&str]) -> Line {
    const OPTIONAL: &str =
        "lockkeeper/affinity,lockkeeper/metrics,lockkeeper/tracing,brigandine/oidc";
    cargo(&[command, &["--workspace", "--features", OPTIONAL], words].concat())
}

/// Checks the library with each feature alone, because features must be additive. `sqlite` without `bundled` uses the
/// system's SQLite.
fn features() -> Result<(), Failed> {
    for features in ["", "affinity", "bundled", "sqlite", "sqlite,metrics", "sqlite,tracing"] {
        let mut words = vec!["clippy", "-p", "lockkeeper", "--no-default-features"];
        words.extend(["--features", features, "--", "-D", "warnings"]);
        cargo(&words).run()?;
    }
    Ok(())
}

/// Checks that the queue does not depend on SQLite, and that nothing depends on an async runtime.
fn trees() -> Result<(), Failed> {
    const RUNTIMES: [&str; 5] = ["tokio", "async-std", "smol", "async-executor", "async-io"];
    const SQLITE: [&str; 2] = ["rusqlite", "libsqlite3-sys"];
    for (words, absent) in [
        (&["--no-default-features"][..], [&RUNTIMES[..], &SQLITE[..]].concat()),
        (&[], RUNTIMES.to_vec()),
    ] {
        let mut tree = vec!["tree", "-p", "lockkeeper", "-e", "normal,build", "--prefix", "none"];
        tree.extend(words);
        let line = cargo(&tree);
        println!("xtask: {}", line.shown());
        let output = line.command().output().map_err(|error| Failed(error.to_string()))?;
        let listed = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() || !listed.starts_with("lockkeeper ") {
            return Err(Failed(format!("{}: {listed}", line.shown())));
        }
        for package in listed.lines() {
            let name = package.split(' ').next().unwrap_or_default();
            if absent.contains(&name) {
                return Err(Failed(format!("`{}` lists {name}", line.shown())));
            }
        }
    }
    Ok(())
}

/// How many tests run at the same time: twice as many as there are processors, because many only wait.
fn threads() -> String {
    (2 * std::thread::available_parallelism().map_or(1, NonZero::get)).to_string()
}

fn tests(form: Form) -> Result<Closing, Failed> {
    let profile = if form.long { "long" } else { "default" };
    let tests = match succeeds("cargo", &["nextest", "--version"]) {
        true => {
            // `.config/nextest.toml` limits the tests that compute.
            let all = ["nextest", "run", "--profile", profile, "--workspace", "--no-fail-fast"];
            cargo(&[&all[..], &["--test-threads", &threads()]].concat())
        }
        // `--all-targets` would also run the benchmarks.
        false => cargo(&["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"]),
    };
    if form.long { tests.with("LOCKKEEPER_LONG", "1").run_tests() } else { tests.run_tests() }
}

/// Runs the examples with what the step `tests` has compiled. The long form also runs the examples of the optional
/// features, for which the whole workspace is compiled once more.
fn examples(form: Form) -> Result<Closing, Failed> {
    match form.long {
        true => of_all(&["test"], &["--doc"]).run_tests(),
        false => cargo(&["test", "--workspace", "--doc"]).run_tests(),
    }
}

/// Runs the tests about the end of connections (`xtask/asan`) under AddressSanitizer, which also checks SQLite's memory.
/// The long form runs all tests that use SQLite.
fn asan(form: Form) -> Result<Closing, Failed> {
    let host = host()?;
    let suite = |[package, test]: [&str; 2], filters: &[&str]| {
        // With `--target`, the flags do not apply to build scripts. With a directory of its own, other builds are not
        // replaced.
        let words = ["test", "-p", package, "--target", &host, "--test", test];
        let with = ["--features", "rusqlite/with-asan", "--"];
        cargo(&[&words[..], &with, filters].concat())
            // With this variable the stable compiler accepts the flag of the sanitizer.
            .with("RUSTC_BOOTSTRAP", "1")
            .with("RUSTFLAGS", "-Zsanitizer=address --cfg asan")
            .with("CARGO_TARGET_DIR", "target/asan")
            // Some tests leak memory on purpose.
            .with("ASAN_OPTIONS", "detect_leaks=0")
    };
    if !form.long {
        return suite(["asan-tests", "endings"], &[]).run_tests();
    }
    const ALL: [&str; 2] = ["lockkeeper", "it"];
    // A fork copies the locks of SQLite and of the allocator as they are. If another test holds one, the child waits for
    // it for ever. So what forks runs alone.
    let mut closing =
        suite(ALL, &["--test-threads", &threads(), "--skip", "fork::"]).run_tests()?;
    closing.extend(suite(ALL, &["--test-threads", "1", "fork::"]).run_tests()?);
    closing.extend(suite(ALL, &["endings::"]).with("LOCKKEEPER_LONG", "1").run_tests()?);
    Ok(closing)
}

/// Searches for `minutes` minutes for a sequence of calls that fails. Without a seed, the clock is the seed, so that
/// each run tries other sequences.
pub(crate) fn fuzz(minutes: u64, seed: Option<u64>) -> Result<Closing, Failed> {
    const NAME: &str = "fuzz::a06_calls_of_many_clients_are_as_if_they_had_run_alone";
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let seed = seed.unwrap_or_else(|| clock() * 1_000_000);
    // For the whole workspace, as the step `tests` builds it: for one package, cargo would choose other features of
    // shared dependencies, and compile these again.
    cargo(&["test", "--workspace", "--test", "it", "--", "--exact", NAME, "--nocapture"])
        .with("LOCKKEEPER_FUZZ_MINUTES", &minutes.to_string())
        .with("LOCKKEEPER_FUZZ_SEED", &seed.to_string())
        .run_tests()
}

/// The compiler's own target.
fn host() -> Result<String, Failed> {
    let line = Line::new("rustc", &["--verbose", "--version"]);
    let output = line.command().output().map_err(|error| Failed(error.to_string()))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| Failed(format!("{} names no host", line.shown())))
}

fn models() -> Result<Closing, Failed> {
    let words =
        ["test", "-p", "lockkeeper", "--no-default-features", "--lib", "--release", "models::"];
    // A directory of its own. In the usual one, the flag would make cargo compile everything again, and once more for
    // the next build without the flag.
    cargo(&words)
        .with("RUSTFLAGS", "--cfg loom")
        .with("LOOM_MAX_PREEMPTIONS", "3")
        .with("CARGO_TARGET_DIR", "target/loom")
        .run_tests()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_step_has_a_name_of_its_own_that_fits_the_summary() {
        let names: HashSet<&str> = STEPS.iter().map(|step| step.name).collect();
        assert_eq!(names.len(), STEPS.len());
        assert!(names.iter().all(|name| name.len() <= 10), "{names:?}");
    }

    #[test]
    fn the_steps_after_one_that_failed_do_not_run() {
        let good = step("good", "", |_| Ok(vec![String::from("test result: ok")]));
        let bad = step("bad", "", |_| Err(Failed(String::from("it fails"))));
        let never = step("never", "", |_| unreachable!("a step before it failed"));
        let Err(Failed(what)) = run(&[&good, &bad, &never], Form { long: false }) else {
            panic!("a step failed")
        };
        assert_eq!(what, "it fails");
    }
}
