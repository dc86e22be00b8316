//! `export` and `import` of the whole history, and `backup` and `restore` beside them.

use super::serve::{address, text};
use crate::support::{PROGRAM, Place, Process, run};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

fn path(path: &Path) -> &str {
    path.to_str().expect("a path")
}

/// Exports the history of a place into a file.
fn export(place: &Place, file: &Path) {
    let ended = run(place.tool(&["export", "--output", path(file)]));
    assert!(ended.status.success(), "{}", ended.stderr);
}

/// Whether two files have the same bytes; they may be large.
fn are_same(one: &Path, other: &Path) -> bool {
    Command::new("cmp").args([one, other]).status().expect("cmp").success()
}

/// The long form has 200,000 builds.
#[test]
fn many_builds_are_the_same_after_export_and_import_and_after_backup_and_restore() {
    let is_long = std::env::var_os("LOCKKEEPER_LONG").is_some();
    let builds = if is_long { 200_000 } else { 4_000 };
    let (place, imported, restored) = (Place::new(), Place::new(), Place::new());
    brigandine::store::make_sample(builds, &place.state(), 1, &|_| ()).expect("the sample");
    let first = place.path("first.jsonl");
    export(&place, &first);
    let ended = run(imported.tool(&["import", path(&first), "--json"]));
    assert!(ended.status.success(), "{}", ended.stderr);
    let said: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(said["rows"]["build"], builds);
    let backup = place.path("backup");
    assert!(run(place.tool(&["backup", path(&backup)])).status.success());
    let ended = run(restored.tool(&["restore", path(&backup)]));
    assert!(ended.status.success(), "{}", ended.stderr);
    for other in [&imported, &restored] {
        let again = other.path("again.jsonl");
        export(other, &again);
        assert!(are_same(&first, &again), "the bytes differ");
        // All tables are equal, compared by SQLite.
        let database = place.database();
        database
            .execute("ATTACH ?1 AS other", [path(&other.state().join("brigandine.db"))])
            .expect("attached");
        for table in place.rows("SELECT name FROM sqlite_schema WHERE type = 'table'") {
            if table.starts_with("sqlite_") || table == "server" {
                continue;
            }
            let differing: i64 = database
                .query_row(
                    &format!(
                        "SELECT (SELECT count(*) FROM (SELECT * FROM {table} EXCEPT SELECT * FROM other.{table}))
                           + (SELECT count(*) FROM (SELECT * FROM other.{table} EXCEPT SELECT * FROM {table}))"
                    ),
                    [],
                    |row| row.get(0),
                )
                .expect(&table);
            assert_eq!(differing, 0, "{table}");
        }
    }
}

#[test]
fn a_history_is_exported_beside_a_server_and_served_after_its_import() {
    let place = Place::new();
    let repository = place.repository("repository");
    repository.jobs(&[("good", "command = \"echo made\""), ("bad", "command = \"exit 3\"")]);
    place.specify(&[("spec", &repository, "")]);
    let server = Process::start(place.command(&["--interval", "1d"]));
    let _ = address(&server);
    assert!(run(place.tool(&["evaluate", "spec", "--wait"])).status.code().is_some());
    let ended = run(place.tool(&["export"]));
    assert!(ended.status.success(), "{}", ended.stderr);
    let mut lines = ended.stdout.lines();
    let first: serde_json::Value =
        serde_json::from_str(lines.next().expect("a line")).expect("JSON");
    assert_eq!((&first["brigandine"], &first["rows"]["build"]), (&"history".into(), &2.into()));
    assert!(lines.all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    let file = place.write("history.jsonl", &ended.stdout);
    let taken = run(place.tool(&["export", "--output", path(&file)]));
    assert!(taken.stderr.contains("an export replaces nothing"), "{}", taken.stderr);
    let present = run(place.tool(&["import", path(&file)]));
    assert!(present.stderr.contains("a new state directory"), "{}", present.stderr);
    let other = Place::new();
    let ended = run(other.tool(&["import", path(&file)]));
    assert!(ended.stdout.contains("1 specifications, 1 evaluations, 2 builds"), "{}", ended.stdout);
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--listen", "127.0.0.1:0", "--interval", "1d", "--state"]);
    let second = Process::start({
        command.arg(other.state());
        command
    });
    let builds = text(&address(&second), "/api/latestbuilds?nr=5");
    assert!(builds.contains("\"good\"") && builds.contains("\"bad\""), "{builds}");
    let unknown = run(other.tool(&["import", path(&place.path("specifications.toml"))]));
    assert!(unknown.stderr.contains("it is neither a database of Cuirass"), "{}", unknown.stderr);
}

#[test]
fn an_export_whose_reader_goes_away_ends_without_a_word() {
    let place = Place::new();
    brigandine::store::make_sample(20_000, &place.state(), 1, &|_| ()).expect("the sample");
    let mut command = place.tool(&["export"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    assert!(line.contains("\"rows\""), "{line}");
    let mut said = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("its end");
    assert_eq!((child.wait().expect("its status").code(), said.as_str()), (Some(1), ""));
}
