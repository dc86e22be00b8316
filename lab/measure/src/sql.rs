//! The schema and the statements, which are the same for every peer.

/// The table for tiny writes, point reads and scans.
pub const PERSON: &str = "CREATE TABLE person (name TEXT PRIMARY KEY, age INTEGER)";
/// The statement of a tiny write.
pub const INSERT: &str = "INSERT INTO person (name, age) VALUES (?1, ?2)";
/// The statement of a point read.
pub const LOOKUP: &str = "SELECT age FROM person WHERE name = ?1";
/// Reads every row without an index, which takes about a second for a million rows.
pub const SCAN: &str = "SELECT count(*) FROM person WHERE name LIKE '%7f%' AND age + length(name) > 3 \
                        AND replace(name, '0', '') LIKE '%1%'";
/// A query that never ends by itself.
pub const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                           SELECT count(*) FROM n";
/// The smallest possible query.
pub const ONE: &str = "SELECT 1";

/// The tables of the page: projects and their builds. A project's counter must always equal its number of builds.
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
/// The first statement of the write that runs beside the page: adds a build.
pub const ADD_BUILD: &str = "INSERT INTO build (project, status, seconds) VALUES (?1, ?2, ?3)";
/// The second statement of that write, in the same transaction: raises the counter.
pub const COUNT_BUILD: &str = "UPDATE project SET builds = builds + 1 WHERE id = ?1";
/// The first query of the page: its heading.
pub const PAGE_PROJECT: &str = "SELECT id, builds FROM project WHERE name = ?1";
/// The second query: the latest builds.
pub const PAGE_LATEST: &str =
    "SELECT id, status, seconds FROM build WHERE project = ?1 ORDER BY id DESC LIMIT 20";
/// The third query: the number of builds with each status.
pub const PAGE_STATUS: &str =
    "SELECT status, count(*) FROM build WHERE project = ?1 GROUP BY status";
/// The fourth query: the mean duration of the latest hundred builds.
pub const PAGE_MEAN: &str = "SELECT coalesce(avg(seconds), 0.0) FROM (SELECT seconds FROM build \
                             WHERE project = ?1 ORDER BY id DESC LIMIT 100)";
/// The fifth query: the last failed build.
pub const PAGE_FAILED: &str =
    "SELECT coalesce(max(id), 0) FROM build WHERE project = ?1 AND status = 1";

/// The number of rows of `person` in a filled database.
pub const PEOPLE: u64 = 1_000_000;
/// The number of projects in the page's database.
pub const PROJECTS: u64 = 100;
/// The number of builds of each project at the start.
pub const BUILDS: u64 = 500;
/// The page cache of every connection, in kibibytes.
pub const CACHE_KIB: u64 = 64 << 10;

/// The pragmas that every peer runs on every connection. The file is in WAL mode already.
#[must_use]
pub fn pragmas(synchronous: crate::Synchronous) -> String {
    format!("PRAGMA synchronous = {}; PRAGMA cache_size = -{CACHE_KIB}", synchronous.sql())
}

/// The name of project `n`.
#[must_use]
pub fn project(n: u64) -> String {
    format!("project-{n:04}")
}
