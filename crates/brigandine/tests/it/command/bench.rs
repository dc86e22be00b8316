//! `brigandine bench`, short: that every request is answered, never how fast.

use crate::support::{PROGRAM, Place, run};
use std::process::Command;

#[test]
fn every_request_is_answered_idle_and_while_builds_change() {
    let place = Place::new();
    let state = place.path("bench");
    let mut command = Command::new(PROGRAM);
    command.args(["bench", "--builds", "10000", "--seconds", "0.1", "--repeat", "1", "--json"]);
    command.arg("--state").arg(&state);
    let ended = run(command);
    assert!(ended.status.success(), "{}\n{}", ended.stdout, ended.stderr);
    let figures: serde_json::Value = serde_json::from_str(&ended.stdout).expect("only JSON");
    let rows = figures["rows"].as_array().expect("rows");
    let of = |load: &str| rows.iter().filter(|row| row["load"] == load).count();
    assert_eq!((of("idle"), of("2000 updates")), (13, 13));
    assert_eq!((of("itself"), of("nr=1000"), of("registration")), (1, 1, 1));
    for row in rows {
        assert!(row["requests"].as_u64().is_some_and(|requests| requests > 0), "{row}");
        assert!(row["p50_ms"].as_f64() <= row["max_ms"].as_f64(), "{row}");
    }
    // What was changed while it was asked is there, and the counters agree.
    let stored = rusqlite::Connection::open_with_flags(
        state.join("brigandine.db"),
        rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY,
    )
    .expect("opens");
    let count = |sql: &str| stored.query_row(sql, [], |row| row.get::<_, i64>(0)).expect(sql);
    let builds = figures["builds"].as_i64().expect("a number");
    assert!(
        count("SELECT count(*) FROM build")
            >= 10_000 + figures["registered_jobs"].as_i64().unwrap_or(0)
    );
    assert!(count("SELECT count(*) FROM attempt") >= builds / 2, "half of the updates were starts");
    let wrong = count(
        "SELECT count(*) FROM build_count AS c WHERE builds <> (SELECT count(*) FROM build AS b
         WHERE b.status = c.status AND b.specification_id = c.specification_id
         AND b.system = c.system)",
    );
    assert_eq!(wrong, 0);
}
