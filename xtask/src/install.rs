//! Installs what the tests need besides Rust, if the machine allows it.

use crate::command::{Failed, Line, succeeds};
use crate::root;

/// A program that some step runs, and the Debian package that contains it.
const PROGRAMS: [(&str, &str); 9] = [
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
    // Installs what looks at these pages for people who cannot see them well.
    ("npm", "npm"),
];

/// The package of npm that looks at pages for people who cannot see them well, and its version.
const AXE: &str = "axe-core@4.11.0";

pub(crate) fn install() -> Result<(), Failed> {
    for (tool, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if !succeeds("cargo", &[tool, "--version"]) {
            Line::new("rustup", &["component", "add", component]).run()?;
        }
    }
    programs(&PROGRAMS)?;
    npm("axe-core", AXE)
}

/// Installs a package of npm below `target/`, in a folder of this name, unless this version is there.
pub(crate) fn npm(folder: &str, package: &str) -> Result<(), Failed> {
    let place = root().join("target").join(folder);
    let failed = |error: std::io::Error| Failed(format!("{}: {error}", place.display()));
    let mark = place.join("installed");
    if std::fs::read_to_string(&mark).is_ok_and(|found| found == package) {
        return Ok(());
    }
    std::fs::create_dir_all(&place).map_err(failed)?;
    let prefix = place.display().to_string();
    let words = ["install", "--no-audit", "--no-fund", "--no-save", "--prefix", &prefix, package];
    Line::new("npm", &words).run()?;
    std::fs::write(&mark, package).map_err(failed)
}

/// Installs the programs that are missing, each with the Debian package that contains it.
pub(crate) fn programs(wanted: &[(&str, &str)]) -> Result<(), Failed> {
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|(program, _)| !succeeds("sh", &["-c", "command -v \"$0\"", program]))
        .map(|(_, package)| *package)
        .collect();
    packages(&missing)
}

/// Installs Debian packages. Without apt-get, the error says what to install by hand.
pub(crate) fn packages(names: &[&str]) -> Result<(), Failed> {
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
