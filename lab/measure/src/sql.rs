//! The schema and the statements, the same text for every peer.

/// What tiny writes, point reads and scans work on.
pub const PERSON: &str = "CREATE TABLE person (name TEXT PRIMARY KEY, age INTEGER)";
/// A tiny write.
pub const INSERT: &str = "INSERT INTO person (name, age) VALUES (?1, ?2)";
/// A point read.
pub const LOOKUP: &str = "SELECT age FROM person WHERE name = ?1";
/// About a second over a million rows: every row is looked at, no index helps.
pub const SCAN: &str = "SELECT count(*) FROM person WHERE name LIKE '%7f%' AND age + length(name) > 3 \
                        AND replace(name, '0', '') LIKE '%1%'";
/// Never ends by itself.
pub const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                           SELECT count(*) FROM n";
/// The least that can be asked.
pub const ONE: &str = "SELECT 1";

/// What the page shows: projects and their builds, with a counter that must always agree.
pub const PAGE_SCHEMA: &str = "
    CREATE TABLE project (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, builds INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE build (
        id INTEGER PRIMARY KEY, project INTEGER NOT NULL REFERENCES project,
        status INTEGER NOT NULL, seconds INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX build_by_project ON build (project, status);
    CREATE INDEX build_by_age ON build (project, id);";
/// The write beside the page, in one transaction: first the build, then the counter.
pub const ADD_BUILD: &str = "INSERT INTO build (project, status, seconds) VALUES (?1, ?2, ?3)";
/// The second half of that write.
pub const COUNT_BUILD: &str = "UPDATE project SET builds = builds + 1 WHERE id = ?1";
/// The page's first query: the heading.
pub const PAGE_PROJECT: &str = "SELECT id, builds FROM project WHERE name = ?1";
/// The second: the latest builds.
pub const PAGE_LATEST: &str =
    "SELECT id, status, seconds FROM build WHERE project = ?1 ORDER BY id DESC LIMIT 20";
/// The third: how many of each status.
pub const PAGE_STATUS: &str =
    "SELECT status, count(*) FROM build WHERE project = ?1 GROUP BY status";
/// The fourth: the mean time of the latest hundred.
pub const PAGE_MEAN: &str = "SELECT coalesce(avg(seconds), 0.0) FROM (SELECT seconds FROM build \
                             WHERE project = ?1 ORDER BY id DESC LIMIT 100)";
/// The fifth: the last failure.
pub const PAGE_FAILED: &str =
    "SELECT coalesce(max(id), 0) FROM build WHERE project = ?1 AND status = 1";

/// Rows of `person` in a filled database.
pub const PEOPLE: u64 = 1_000_000;
/// Projects in the page's database.
pub const PROJECTS: u64 = 100;
/// Builds of each project at the start.
pub const BUILDS: u64 = 500;
/// Page cache of every connection, in kibibytes.
pub const CACHE_KIB: u64 = 64 << 10;

/// The pragmas that every peer sets on every connection. The file is in WAL mode already.
#[must_use]
pub fn pragmas(synchronous: crate::Synchronous) -> String {
    format!("PRAGMA synchronous = {}; PRAGMA cache_size = -{CACHE_KIB}", synchronous.sql())
}

/// A project's name.
#[must_use]
pub fn project(n: u64) -> String {
    format!("project-{n:04}")
}
