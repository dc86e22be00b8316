//! The database file: which version it has, what migrates it, and what is reported when it was changed or lost.

use super::mounts::{Mounts, place};
use crate::command::serve::{address, text};
use crate::support::{Place, Process, run, until};
use rusqlite::{Connection, OpenFlags};
use std::fs;
use std::path::Path;

const FIRST: &str = include_str!("../../../migrations/0001_initial.sql");

fn open(path: &Path) -> Connection {
    Connection::open_with_flags(path, OpenFlags::default()).expect("a database")
}

fn version(path: &Path) -> i64 {
    open(path).query_row("PRAGMA user_version", [], |row| row.get(0)).expect("a number")
}

/// Makes a state directory as the first version of the server left it, with one specification.
fn of_first_version(state: &Path) {
    fs::create_dir_all(state).expect("a directory");
    let database = open(&state.join("brigandine.db"));
    database.execute_batch(FIRST).expect("the first schema");
    database
        .execute_batch(
            "PRAGMA application_id = 1112688452; PRAGMA user_version = 1; PRAGMA journal_mode = WAL;",
        )
        .expect("its marks");
}

/// Commands that only read, and commands that change something.
const COMMANDS: [&[&str]; 9] = [
    &["builds"],
    &["log", "1"],
    &["spec", "list"],
    &["spec", "show", "x"],
    &["evaluate", "x"],
    &["cancel", "1"],
    &["restart", "1"],
    &["audit"],
    &["prune"],
];

/// The version of this program's schema, as the document of the schema has it.
fn newest() -> i64 {
    let document = include_str!("../../../schema.sql");
    let line = document.lines().find_map(|line| line.strip_prefix("PRAGMA user_version = "));
    line.and_then(|line| line.trim_end_matches(';').parse().ok()).expect("a version")
}

#[test]
fn only_serve_brings_a_database_to_this_version_and_leaves_a_copy() {
    let place = place(&[("job", "command = \"true\"")]);
    let database = place.state().join("brigandine.db");
    of_first_version(&place.state());
    let specifications = place.path("specifications.toml");
    let add = ["spec", "add", specifications.to_str().expect("a path")];
    for arguments in COMMANDS.iter().copied().chain([&add[..]]) {
        let ended = run(place.tool(arguments));
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("`brigandine serve` of this version"), "{}", ended.stderr);
        assert_eq!(version(&database), 1, "{arguments:?} changed the schema");
    }
    let ended = place.good_one_shot();
    let copy = place.state().join("brigandine.db.schema-1");
    let newest = newest();
    let brought = format!("from schema 1 to {newest}");
    assert!(ended.stderr.contains(&brought), "{}", ended.stderr);
    assert!(ended.stderr.contains(copy.to_str().expect("a path")), "{}", ended.stderr);
    assert_eq!((version(&database), version(&copy)), (newest, 1));
    assert!(run(place.tool(&["builds"])).status.success());
    open(&database)
        .execute_batch("DROP INDEX build_ready")
        .expect("as before there was that index");
    let ended = run(place.tool(&["builds"]));
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("no index `build_ready`"), "{}", ended.stderr);
    place.good_one_shot();
    assert!(run(place.tool(&["builds"])).status.success());
    // The copy can be put back.
    fs::remove_file(&database).expect("removed");
    fs::copy(&copy, &database).expect("copied");
    assert_eq!(version(&database), 1);
    place.good_one_shot();
    assert_eq!((version(&database), version(&copy)), (newest, 1));
}

#[test]
fn the_way_back_from_a_migration_is_as_it_is_said_although_the_server_was_killed() {
    let place = place(&[("job", "command = \"true\"")]);
    let database = place.state().join("brigandine.db");
    of_first_version(&place.state());
    let mut server = Process::start(place.command(&[]));
    let said = server.traced("the database was brought from schema").pop().expect("the message");
    let at = address(&server);
    until(|| text(&at, "/build/1"), |page| page.contains("succeeded"));
    server.child.kill().expect("kill -9");
    server.child.wait().expect("its status");
    let (_, steps) =
        said.split_once("stop the server, remove ").unwrap_or_else(|| panic!("{said}"));
    let (removed, rest) = steps.split_once(", copy ").unwrap_or_else(|| panic!("{said}"));
    let (from, rest) = rest.split_once(" to ").unwrap_or_else(|| panic!("{said}"));
    let (to, _) = rest.split_once(", ").unwrap_or_else(|| panic!("{said}"));
    let wal = fs::metadata(place.state().join("brigandine.db-wal")).map_or(0, |file| file.len());
    assert!(wal > 0, "what a WAL of the newer schema does to the copy is not tested");
    for path in removed.split(" and ") {
        fs::remove_file(path).expect(path);
    }
    fs::copy(from, to).expect("copied");
    assert_eq!(version(&database), 1);
    let sound: String = open(&database)
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("a whole database");
    assert_eq!(sound, "ok");
    place.good_one_shot();
    assert_eq!(place.jobs(1), ["job|0"]);
}

#[test]
fn a_newer_database_is_left_alone_by_all() {
    let place = place(&[("job", "command = \"true\"")]);
    place.good_one_shot();
    let database = place.state().join("brigandine.db");
    open(&database).execute_batch("PRAGMA user_version = 99").expect("a newer file");
    for arguments in COMMANDS {
        let ended = run(place.tool(arguments));
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("use the newer program"), "{}", ended.stderr);
    }
    let ended = place.one_shot();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("use the newer program"), "{}", ended.stderr);
    assert_eq!(version(&database), 99);
}

#[test]
fn a_database_that_cannot_be_copied_first_is_not_changed() {
    let place = place(&[("job", "command = \"true\"")]);
    let state = place.state();
    let mounts = Mounts::new(&[(&state, "6m")]);
    // SQLite does not open a file through the links in `/proc` by which this test reaches the mounts. So the database
    // is made elsewhere and then copied.
    of_first_version(&place.path("old"));
    let old = place.path("old/brigandine.db");
    open(&old)
        .execute_batch("CREATE TABLE ballast AS SELECT zeroblob(4000000) AS bytes")
        .expect("ballast");
    let database = mounts.path(&state).join("brigandine.db");
    fs::copy(&old, &database).expect("copied");
    let ended = run(mounts.command(&place.command(&["--one-shot"])));
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("no room for a copy"), "{}", ended.stderr);
    let after = place.path("after.db");
    fs::copy(&database, &after).expect("copied");
    assert_eq!(version(&after), 1);
    let copy = mounts.path(&state).join("brigandine.db.schema-1");
    assert!(!copy.exists(), "a copy that is not whole");
}

type Loss = fn(&Path);

/// How a database may be lost while no server runs.
const LOSSES: [(&str, Loss); 2] = [
    ("emptied", |path| fs::write(path, "").expect("emptied")),
    ("removed", |path| fs::remove_file(path).expect("removed")),
];

#[test]
fn a_database_that_was_lost_is_not_begun_anew_beside_its_build_logs() {
    for (what, lose) in LOSSES {
        let place = place(&[("job", "command = \"echo said\"")]);
        place.good_one_shot();
        let database = place.state().join("brigandine.db");
        let bytes = fs::read(&database).expect("read");
        lose(&database);
        let servers = [place.command(&[]), place.command(&["--one-shot"])];
        let commands = COMMANDS.iter().map(|arguments| place.tool(arguments));
        for command in servers.into_iter().chain(commands) {
            let shown = format!("{what}: {command:?}");
            let ended = run(command);
            assert_eq!(ended.status.code(), Some(1), "{shown}: {}", ended.stderr);
            assert!(ended.stderr.contains("is empty or gone"), "{shown}: {}", ended.stderr);
            let left = fs::metadata(&database).map_or(0, |metadata| metadata.len());
            assert_eq!(left, 0, "{shown}: another database was made");
        }
        fs::write(&database, bytes).expect("put back");
        place.good_one_shot();
        assert_eq!(place.jobs(1), ["job|0"], "{what}");
    }
}

type Break = fn(&Place);

/// What may happen to a state directory while a server runs, and what the server reports then.
const BREAKS: [(&str, Break, &str); 6] = [
    (
        "removed",
        |p| fs::remove_file(p.state().join("brigandine.db")).expect("removed"),
        "was deleted",
    ),
    (
        "replaced",
        |p| {
            let other = p.state().join("other.db");
            open(&other).execute_batch("CREATE TABLE t (x)").expect("another database");
            fs::rename(other, p.state().join("brigandine.db")).expect("renamed");
        },
        "another file is in the place",
    ),
    ("state removed", |p| fs::remove_dir_all(p.state()).expect("removed"), "was deleted"),
    (
        "state moved",
        |p| fs::rename(p.state(), p.path("moved")).expect("moved"),
        "was deleted or moved",
    ),
    (
        "lock removed",
        |p| fs::remove_file(p.state().join("lock")).expect("removed"),
        "lock was removed",
    ),
    (
        "tables dropped",
        |p| {
            let sql = "PRAGMA foreign_keys = 0; DROP TABLE specification";
            p.database().execute_batch(sql).expect("dropped");
        },
        "no such table: ",
    ),
];

#[test]
fn a_server_whose_files_are_gone_ends_and_says_which_and_why() {
    for (what, break_it, said) in BREAKS {
        let place = place(&[("job", "command = \"true\"")]);
        let server = Process::start(place.command(&["--interval", "1s"]));
        let address = address(&server);
        until(|| text(&address, "/build/1"), |page| page.contains("succeeded"));
        break_it(&place);
        server.trace(said);
        let status = server.end();
        assert_eq!(status.code(), Some(1), "{what}");
    }
}

#[test]
fn a_command_waits_for_the_database_of_a_server_that_starts() {
    let made = place(&[("job", "command = \"true\"")]);
    made.good_one_shot();
    let place = place(&[]);
    let database = place.state().join("brigandine.db");
    of_first_version(&place.state());
    // test                                    | command
    // holds the lock, as a starting server    | finds tables of another version, and waits
    // replaces the database by a migrated one | finds tables of this version
    let lock = fs::File::create(place.state().join("lock")).expect("a file");
    lock.lock().expect("the lock");
    let command = Process::start(place.tool(&["builds"]));
    command.trace("a server starts on");
    let next = place.path("next.db");
    fs::copy(made.state().join("brigandine.db"), &next).expect("copied");
    for end in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{end}", database.display()));
    }
    fs::rename(next, &database).expect("in its place");
    assert!(command.rest().iter().any(|line| line.contains("succeeded")));
    assert!(command.end().success());
}
