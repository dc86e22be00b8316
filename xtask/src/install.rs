//! Installs what the tests need besides Rust, if the machine allows it.

use crate::command::{Failed, Line, succeeds};

/// A program that some step runs, and the Debian package that contains it.
const PROGRAMS: [(&str, &str); 8] = [
    ("git", "git"),
    // For tests of repositories with large files.
    ("git-lfs", "git-lfs"),
    // Compiles SQLite and libgit2.
    ("cc", "gcc"),
    // Runs the example in the server's README.
    ("make", "make"),
    // Runs the script in that README that makes a Cuirass database.
    ("python3", "python3"),
    // Makes the server's sandbox.
    ("bwrap", "bubblewrap"),
    // Shows pages in the browser tests.
    ("chromium", "chromium"),
    ("chromedriver", "chromium-driver"),
];

pub(crate) fn install() -> Result<(), Failed> {
    for (tool, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if !succeeds("cargo", &[tool, "--version"]) {
            Line::new("rustup", &["component", "add", component]).run()?;
        }
    }
    programs(&PROGRAMS)
}

/// Installs the programs that are missing, each with the Debian package that contains it.
pub(crate) fn programs(wanted: &[(&str, &str)]) -> Result<(), Failed> {
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|(program, _)| !succeeds(program, &["--version"]))
        .map(|(_, package)| *package)
        .collect();
    packages(&missing)
}

/// Installs Debian packages. Without apt-get, the error says what to install by hand.
fn packages(names: &[&str]) -> Result<(), Failed> {
    if names.is_empty() {
        return Ok(());
    }
    if !succeeds("apt-get", &["--version"]) {
        return Err(Failed(format!("please install: {}", names.join(", "))));
    }
    Line::new("apt-get", &["update"]).run()?;
    let mut words = vec!["install", "--yes", "--no-install-recommends"];
    words.extend(names);
    Line::new("apt-get", &words).run()
}
