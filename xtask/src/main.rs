//! The workspace's own commands: `cargo xtask test [--long]`, `cargo xtask deny`.
//!
//! Each step is an ordinary command, printed before it runs, so that it can be run alone.

use std::process::{Command, ExitCode};
use std::time::Instant;

const HELP: &str = "\
The workspace's own commands.

Usage: cargo xtask <COMMAND>

Commands:
  test          Install what the tests need; check format, lints, docs; run all tests and models
  test --long   The same with the long forms (10^5 batches, 300 kills, every fault): about 15 minutes
  deny          Check licences, sources and duplicate crates with cargo-deny
  help          Print this

Exit status: 0 when everything passed, 1 when a step failed, 2 for wrong arguments.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["test"] => test(false),
        ["test", "--long"] => test(true),
        ["deny"] => deny(),
        ["help" | "--help" | "-h"] => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("xtask: unknown command `{}`\n\n{HELP}", words.join(" "));
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed(what)) => {
            eprintln!("xtask: failed: {what}");
            ExitCode::FAILURE
        }
    }
}

/// The step that failed; its own output says why.
struct Failed(String);

fn test(long: bool) -> Result<(), Failed> {
    let began = Instant::now();
    install()?;
    run(&cargo(&["fmt", "--all", "--check"]))?;
    run(&cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    run(&cargo(&["doc", "--workspace", "--no-deps"]).with("RUSTDOCFLAGS", "-D warnings"))?;
    features()?;
    trees()?;
    let nextest = succeeds("cargo", &["nextest", "--version"]);
    let tests = match nextest {
        true => cargo(&["nextest", "run", "--workspace", "--no-fail-fast"]),
        // Not `--all-targets`: the benchmarks are no tests.
        false => cargo(&["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"]),
    };
    run(&if long { tests.with("LOCKKEEPER_LONG", "1") } else { tests })?;
    run(&cargo(&["test", "--workspace", "--doc"]))?;
    optional()?;
    loom()?;
    println!("xtask: everything passed in {} s", began.elapsed().as_secs());
    Ok(())
}

/// Each feature alone: they must be additive.
fn features() -> Result<(), Failed> {
    for features in ["", "affinity", "sqlite", "sqlite,metrics", "sqlite,tracing"] {
        let mut words = vec!["check", "-p", "lockkeeper", "--no-default-features"];
        words.extend(["--features", features]);
        run(&cargo(&words))?;
    }
    Ok(())
}

/// The optional features of the library, all at once: their own tests and examples, and lints over the
/// code that the other steps leave out. The rest of the suite does not run again.
fn optional() -> Result<(), Failed> {
    let with = ["-p", "lockkeeper", "--features", "affinity,metrics,tracing"];
    run(&cargo(&[&["clippy", "--all-targets"], &with[..], &["--", "-D", "warnings"]].concat()))?;
    run(&cargo(&[&["test", "--test", "features"], &with[..]].concat()))?;
    run(&cargo(&[&["test", "--doc"], &with[..], &["exporter"]].concat()))?;
    let doc = cargo(&[&["doc", "--no-deps"], &with[..]].concat());
    run(&doc.with("RUSTDOCFLAGS", "-D warnings"))
}

/// The queue needs no SQLite, and nothing needs an async runtime.
fn trees() -> Result<(), Failed> {
    const RUNTIMES: [&str; 5] = ["tokio", "async-std", "smol", "async-executor", "async-io"];
    const SQLITE: [&str; 2] = ["rusqlite", "libsqlite3-sys"];
    for (words, absent) in [
        (&["--no-default-features"][..], [&RUNTIMES[..], &SQLITE[..]].concat()),
        (&[], RUNTIMES.to_vec()),
    ] {
        let mut tree = vec!["tree", "-p", "lockkeeper", "-e", "normal,build", "--prefix", "none"];
        tree.extend(words);
        let step = cargo(&tree);
        println!("xtask: {}", step.shown());
        let output = step.command().output().map_err(|error| Failed(error.to_string()))?;
        let listed = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() || !listed.starts_with("lockkeeper ") {
            return Err(Failed(format!("{}: {listed}", step.shown())));
        }
        for line in listed.lines() {
            let name = line.split(' ').next().unwrap_or_default();
            if absent.contains(&name) {
                return Err(Failed(format!("`{}` lists {name}", step.shown())));
            }
        }
    }
    Ok(())
}

/// The models of the queue: every interleaving of a few threads.
fn loom() -> Result<(), Failed> {
    let words =
        ["test", "-p", "lockkeeper", "--no-default-features", "--lib", "--release", "models::"];
    // A directory of its own: the flag would otherwise rebuild everything, twice.
    let step = cargo(&words)
        .with("RUSTFLAGS", "--cfg loom")
        .with("LOOM_MAX_PREEMPTIONS", "3")
        .with("CARGO_TARGET_DIR", "target/loom");
    run(&step)
}

fn deny() -> Result<(), Failed> {
    if !succeeds("cargo", &["deny", "--version"]) {
        run(&cargo(&["install", "--locked", "cargo-deny"]))?;
    }
    run(&cargo(&["deny", "check", "licenses", "bans", "sources"]))
}

/// Installs what the tests use beyond Rust: rustfmt, clippy, git, a C compiler, and bubblewrap for
/// the server's sandbox.
fn install() -> Result<(), Failed> {
    for (tool, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if !succeeds("cargo", &[tool, "--version"]) {
            run(&Step::new("rustup", &["component", "add", component]))?;
        }
    }
    let missing: Vec<&str> = [("git", "git"), ("cc", "gcc"), ("bwrap", "bubblewrap")]
        .into_iter()
        .filter(|(program, _)| !succeeds(program, &["--version"]))
        .map(|(_, package)| package)
        .collect();
    packages(&missing)
}

/// Installs Debian packages; where there is no apt-get, says what to install by hand.
fn packages(names: &[&str]) -> Result<(), Failed> {
    if names.is_empty() {
        return Ok(());
    }
    if !succeeds("apt-get", &["--version"]) {
        return Err(Failed(format!("please install: {}", names.join(", "))));
    }
    run(&Step::new("apt-get", &["update"]))?;
    let mut words = vec!["install", "--yes", "--no-install-recommends"];
    words.extend(names);
    run(&Step::new("apt-get", &words))
}

struct Step {
    program: String,
    words: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

fn cargo(words: &[&str]) -> Step {
    Step::new("cargo", words)
}

impl Step {
    fn new(program: &str, words: &[&str]) -> Self {
        Self {
            program: program.to_owned(),
            words: words.iter().map(ToString::to_string).collect(),
            environment: Vec::new(),
        }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.words);
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        command
    }

    /// The line that runs this step alone.
    fn shown(&self) -> String {
        let quoted = |text: &String| match text.is_empty() || text.contains(' ') {
            true => format!("'{text}'"),
            false => text.clone(),
        };
        let settings =
            self.environment.iter().map(|(name, value)| format!("{name}={}", quoted(value)));
        let words = std::iter::once(&self.program).chain(&self.words).map(quoted);
        settings.chain(words).collect::<Vec<_>>().join(" ")
    }
}

fn run(step: &Step) -> Result<(), Failed> {
    println!("xtask: {}", step.shown());
    match step.command().status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failed(format!("{} ({status})", step.shown()))),
        Err(error) => Err(Failed(format!("{}: {error}", step.shown()))),
    }
}

fn succeeds(program: &str, words: &[&str]) -> bool {
    Command::new(program).args(words).output().is_ok_and(|output| output.status.success())
}
