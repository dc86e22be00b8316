//! What the tests need beside Rust is installed first, where that can be done.

use crate::command::{Failed, Line, succeeds};

/// A program that some step runs, and the Debian package that has it.
const PROGRAMS: [(&str, &str); 8] = [
    ("git", "git"),
    // Repositories with large files.
    ("git-lfs", "git-lfs"),
    // SQLite and libgit2 are compiled.
    ("cc", "gcc"),
    // The example in the server's README.
    ("make", "make"),
    // The script of the same README that makes a Cuirass database.
    ("python3", "python3"),
    // The server's sandbox.
    ("bwrap", "bubblewrap"),
    // Pages are looked at in a browser.
    ("chromium", "chromium"),
    ("chromedriver", "chromium-driver"),
];

pub(crate) fn install() -> Result<(), Failed> {
    for (tool, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if !succeeds("cargo", &[tool, "--version"]) {
            Line::new("rustup", &["component", "add", component]).run()?;
        }
    }
    let missing: Vec<&str> = PROGRAMS
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
    Line::new("apt-get", &["update"]).run()?;
    let mut words = vec!["install", "--yes", "--no-install-recommends"];
    words.extend(names);
    Line::new("apt-get", &words).run()
}
