//! `cargo xtask oldest`: runs all tests of the library with the oldest rusqlite that the library accepts.
//!
//! The workspace's lock file has the newest rusqlite. So this command makes a second workspace below `target/`, whose
//! only member is a link to the library. Its lock file has the oldest rusqlite and the dependencies of that version.

use std::path::Path;

use crate::command::{Failed, cargo, succeeds};
use crate::root;

/// The lower end of the range in `Cargo.toml`.
const OLDEST: &str = "0.40.0";

/// Runs the tests in the second workspace.
pub(crate) fn test() -> Result<Vec<String>, Failed> {
    let root = root();
    let place = root.join("target/oldest");
    make(&root, &place).map_err(|error| Failed(format!("{}: {error}", place.display())))?;
    let manifest = place.join("Cargo.toml").display().to_string();
    let target = place.join("target").display().to_string();
    let here = |words: &[&str]| {
        let words = [words, &["--manifest-path", &manifest]].concat();
        cargo(&words).with("CARGO_TARGET_DIR", &target)
    };
    here(&["update", "--quiet", "rusqlite", "--precise", OLDEST]).run()?;
    let tests = match succeeds("cargo", &["nextest", "--version"]) {
        true => here(&["nextest", "run", "-p", "lockkeeper", "--no-fail-fast"]),
        false => here(&["test", "-p", "lockkeeper", "--lib", "--tests", "--no-fail-fast"]),
    };
    tests.run_tests()
}

fn make(root: &Path, place: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(place.join("crates"))?;
    std::fs::write(
        place.join("Cargo.toml"),
        alone(&std::fs::read_to_string(root.join("Cargo.toml"))?),
    )?;
    std::fs::copy(root.join("Cargo.lock"), place.join("Cargo.lock"))?;
    let link = place.join("crates/lockkeeper");
    match link.symlink_metadata() {
        Ok(_) => Ok(()),
        Err(_) => symlink(root.join("crates/lockkeeper"), &link),
    }
}

#[cfg(unix)]
use std::os::unix::fs::symlink;
#[cfg(windows)]
use std::os::windows::fs::symlink_dir as symlink;

/// The manifest of a workspace whose only member is the library.
fn alone(manifest: &str) -> String {
    let line = |line: &str| match line.split(" = ").next() {
        Some("members") => String::from("members = [\"crates/lockkeeper\"]\n"),
        Some("default-members" | "exclude") => String::new(),
        _ => format!("{line}\n"),
    };
    manifest.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_rusqlite_that_is_tested_is_the_oldest_that_is_accepted() {
        let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("the manifest");
        let accepted = format!("rusqlite = {{ version = \">={}, <", OLDEST.trim_end_matches(".0"));
        assert!(manifest.contains(&accepted), "Cargo.toml does not say `{accepted}`");
        let alone = alone(&manifest);
        assert!(
            alone.contains("members = [\"crates/lockkeeper\"]\n") && !alone.contains("xtask\"]")
        );
    }
}
