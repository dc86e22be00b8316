//! `cargo xtask neighbours`: checks which crates can be in one program together with Lockkeeper.
//!
//! `links = "sqlite3"` allows one libsqlite3-sys per program, so two crates can be used together only if one version of
//! it suits both. For each crate that users of Lockkeeper often use too, this command resolves and compiles a program
//! that depends on both. For crates that cannot be used together with Lockkeeper, it checks that the program still
//! cannot be resolved. So the README's table stays true in both directions.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::command::{Failed, Line, cargo};
use crate::root;

/// A crate that people use together with Lockkeeper, or used before it.
struct Neighbour {
    name: &'static str,
    /// The line that its users write below `[dependencies]`.
    dependency: &'static str,
    outcome: Outcome,
}

enum Outcome {
    /// A program can depend on both crates. This code must compile: it uses both crates, and it compiles only if both
    /// use the same rusqlite.
    Links(&'static str),
    /// No program can depend on both: the crate requires a libsqlite3-sys that no rusqlite in Lockkeeper's range uses.
    Refuses,
}

use Outcome::{Links, Refuses};

/// The code for a program that opens its own connection: its type must be Lockkeeper's.
const SAME: &str =
    "pub fn same(conn: rusqlite::Connection) -> lockkeeper::rusqlite::Connection { conn }";

const NEIGHBOURS: [Neighbour; 17] = [
    Neighbour { name: "rusqlite 0.40", dependency: "rusqlite = '0.40'", outcome: Links(SAME) },
    Neighbour { name: "rusqlite 0.41", dependency: "rusqlite = '0.41'", outcome: Links(SAME) },
    Neighbour { name: "rusqlite 0.42", dependency: "rusqlite = '0.42'", outcome: Links(SAME) },
    Neighbour { name: "rusqlite 0.43", dependency: "rusqlite = '0.43'", outcome: Links(SAME) },
    Neighbour {
        name: "tokio-rusqlite 0.8",
        dependency: "tokio-rusqlite = '0.8'",
        outcome: Links(
            "pub fn same(conn: tokio_rusqlite::rusqlite::Connection) -> lockkeeper::rusqlite::Connection { conn }",
        ),
    },
    Neighbour {
        name: "deadpool-sqlite 0.14",
        dependency: "deadpool-sqlite = '0.14'",
        outcome: Links(
            "pub fn same(conn: deadpool_sqlite::rusqlite::Connection) -> lockkeeper::rusqlite::Connection { conn }",
        ),
    },
    Neighbour {
        name: "r2d2_sqlite 0.35",
        dependency: "r2d2_sqlite = '0.35'",
        outcome: Links(
            "pub fn same(conn: r2d2_sqlite::rusqlite::Connection) -> lockkeeper::rusqlite::Connection { conn }",
        ),
    },
    Neighbour {
        name: "async-sqlite 0.7",
        dependency: "async-sqlite = '0.7'",
        outcome: Links(
            "pub fn same(conn: async_sqlite::rusqlite::Connection) -> lockkeeper::rusqlite::Connection { conn }",
        ),
    },
    Neighbour {
        name: "rusqlite_migration 2.6",
        dependency: "rusqlite_migration = '2.6'",
        outcome: Links(
            "pub fn migrate(db: &lockkeeper::Database) -> bool {
                let steps = rusqlite_migration::Migrations::new(Vec::new());
                let db = db.with_error::<rusqlite_migration::Error>();
                db.blocking_exclusive(move |conn| steps.to_latest(conn)).is_ok()
            }",
        ),
    },
    Neighbour {
        name: "refinery 0.10",
        dependency: "refinery = { version = '0.10', features = ['rusqlite'] }",
        outcome: Links(
            "pub fn migrate(db: &lockkeeper::Database) -> bool {
                let runner = refinery::Runner::new(&[]);
                let db = db.with_error::<refinery::Error>();
                db.blocking_exclusive(move |conn| runner.run(conn)).is_ok()
            }",
        ),
    },
    Neighbour {
        name: "serde_rusqlite 0.44",
        dependency: "serde_rusqlite = '0.44'",
        outcome: Links(
            "pub fn read(row: &lockkeeper::rusqlite::Row<'_>) -> Option<i64> {
                serde_rusqlite::from_row(row).ok()
            }",
        ),
    },
    Neighbour {
        name: "tower-sessions-rusqlite-store 0.15",
        dependency: "tower-sessions-rusqlite-store = '0.15'",
        outcome: Links("pub use tower_sessions_rusqlite_store::RusqliteStore;"),
    },
    Neighbour {
        name: "diesel 2.3",
        dependency: "diesel = { version = '2.3', features = ['sqlite'] }",
        outcome: Links("pub use diesel::sqlite::SqliteConnection;"),
    },
    Neighbour {
        name: "hiqlite 0.15",
        dependency: "hiqlite = { version = '0.15', default-features = false, features = ['sqlite'] }",
        outcome: Links("pub use hiqlite::Client;"),
    },
    Neighbour {
        name: "sqlx 0.9",
        dependency: "sqlx = { version = '0.9', features = ['sqlite'] }",
        outcome: Refuses,
    },
    Neighbour {
        name: "sea-orm 2.0",
        dependency: "sea-orm = { version = '2.0', features = ['sqlx-sqlite'] }",
        outcome: Refuses,
    },
    Neighbour {
        name: "sea-query-rusqlite 0.8",
        dependency: "sea-query-rusqlite = '0.8'",
        outcome: Refuses,
    },
];

/// Checks every neighbour, then prints the table.
pub(crate) fn check() -> Result<(), Failed> {
    let mut table = String::from("| crate | beside Lockkeeper | rusqlite |\n|---|---|---|\n");
    let mut failed = Vec::new();
    for neighbour in &NEIGHBOURS {
        let probe = Probe::make(neighbour)?;
        let (found, version) = match probe.look(&neighbour.outcome) {
            Ok(found) => found,
            Err(Failed(why)) => {
                failed.push(format!("{}: {why}", neighbour.name));
                ("NOT AS THE TABLE SAYS", String::new())
            }
        };
        let _ = writeln!(table, "| {} | {found} | {version} |", neighbour.name);
    }
    println!("{table}");
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Failed(failed.join("\n"))),
    }
}

/// A crate below `target/` that depends on Lockkeeper and on one neighbour.
struct Probe {
    place: PathBuf,
}

impl Probe {
    fn make(neighbour: &Neighbour) -> Result<Self, Failed> {
        let place = root().join("target/neighbours").join(neighbour.name.replace(' ', "-"));
        let code = match neighbour.outcome {
            Links(code) => code,
            Refuses => "",
        };
        let manifest = format!(
            "[package]\nname = 'probe'\nversion = '0.0.0'\nedition = '2024'\n\n[dependencies]\nlockkeeper = {{ path = \
             '{}' }}\n{}\n\n[workspace]\n",
            root().join("crates/lockkeeper").display(),
            neighbour.dependency,
        );
        let written = std::fs::create_dir_all(place.join("src"))
            .and_then(|()| std::fs::write(place.join("Cargo.toml"), manifest))
            .and_then(|()| std::fs::write(place.join("src/lib.rs"), code));
        written.map_err(|error| Failed(format!("{}: {error}", place.display())))?;
        Ok(Self { place })
    }

    fn cargo(&self, words: &[&str]) -> Line {
        // The probes share compiled dependencies.
        let target = self.place.with_file_name("target");
        let manifest = self.place.join("Cargo.toml").display().to_string();
        let words = [words, &["--manifest-path", &manifest]].concat();
        cargo(&words).with("CARGO_TARGET_DIR", &target.display().to_string())
    }

    /// Returns the outcome for the table, and the version of rusqlite. An error if the outcome is not `expected`.
    fn look(&self, expected: &Outcome) -> Result<(&'static str, String), Failed> {
        // Resolves the newest versions, as for somebody who adds the dependency today.
        let _ = std::fs::remove_file(self.place.join("Cargo.lock"));
        let resolve = self.cargo(&["generate-lockfile"]);
        println!("xtask: {}", resolve.shown());
        let output = resolve.command().output().map_err(|error| Failed(error.to_string()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        match expected {
            Refuses if output.status.success() => {
                Err(Failed(String::from("it resolves now; say so in the README")))
            }
            Refuses if said.contains("links to the native library `sqlite3`") => {
                Ok(("cannot", String::from("none that suits both")))
            }
            Links(_) if output.status.success() => {
                let version = self.unify()?;
                self.cargo(&["check", "--quiet"]).run()?;
                Ok(("links", version))
            }
            _ => Err(Failed(said.into_owned())),
        }
    }

    /// The version of rusqlite that both use.
    ///
    /// 0.42 and 0.43 have the same libsqlite3-sys, so a program that depends on 0.42 gets both versions, unless `cargo
    /// update` sets Lockkeeper's to the program's, as the README describes.
    fn unify(&self) -> Result<String, Failed> {
        let mut versions = self.versions()?;
        if let [older, newer] = &versions[..] {
            let newer = format!("rusqlite@{newer}");
            self.cargo(&["update", "--quiet", &newer, "--precise", older]).run()?;
            versions = self.versions()?;
        }
        match &versions[..] {
            [one] => Ok(one.clone()),
            several => Err(Failed(format!("several versions of rusqlite: {several:?}"))),
        }
    }

    /// The versions of rusqlite in the lock file, the oldest first.
    fn versions(&self) -> Result<Vec<String>, Failed> {
        let lock = std::fs::read_to_string(self.place.join("Cargo.lock"));
        let lock = lock.map_err(|error| Failed(format!("{}: {error}", self.place.display())))?;
        let versions =
            lock.split("\n\n").filter(|package| package.contains("\nname = \"rusqlite\"\n"));
        let version = |package: &str| {
            Some(package.split("\nversion = \"").nth(1)?.split('"').next()?.to_owned())
        };
        let mut versions: Vec<String> = versions.filter_map(version).collect();
        versions.sort();
        Ok(versions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_says_of_each_neighbour_what_is_checked() {
        let readme = root().join("crates/lockkeeper/README.md");
        let readme = std::fs::read_to_string(readme).expect("the README");
        let rows: Vec<&str> = readme.lines().filter(|line| line.starts_with('|')).collect();
        for neighbour in &NEIGHBOURS {
            let told = match neighbour.outcome {
                Links(_) => "links",
                Refuses => "cannot",
            };
            let row = rows
                .iter()
                .find(|row| row.starts_with(&format!("| {} | {told} | ", neighbour.name)));
            assert!(
                row.is_some(),
                "the README's table has no row `| {} | {told} | …`",
                neighbour.name
            );
        }
    }
}
