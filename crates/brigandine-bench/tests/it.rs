//! Short measurements. The tests check that every request is answered, and not how fast.

use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_brigandine-bench");

/// A temporary directory.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a file");
        path
    }
}

/// The result of a run of the program.
struct Ended {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

fn run(mut command: Command) -> Ended {
    let output = command.stdin(Stdio::null()).output().expect("it starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ended { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[test]
#[expect(clippy::too_many_lines, reason = "the figures of one run, which takes long")]
fn every_request_is_answered_idle_and_while_builds_change() {
    let place = Place::new();
    let state = place.path("bench");
    let mut command = Command::new(PROGRAM);
    command.args(["site", "--builds", "10000", "--seconds", "0.1", "--repeat", "1", "--json"]);
    command.arg("--state").arg(&state);
    let ended = run(command);
    assert!(ended.status.success(), "{}\n{}", ended.stdout, ended.stderr);
    let figures: serde_json::Value = serde_json::from_str(&ended.stdout).expect("only JSON");
    let rows = figures["rows"].as_array().expect("rows");
    let of = |load: &str| rows.iter().filter(|row| row["load"] == load).count();
    assert_eq!((of("idle"), of("2000 updates")), (17, 17));
    assert_eq!((of("itself"), of("nr=1000"), of("registration")), (1, 1, 1));
    let listed = |request: &str, load: &str| {
        let row = rows.iter().find(|row| row["request"] == request && row["load"] == load);
        row.and_then(|row| row["listed"].as_i64()).expect(request)
    };
    for load in ["idle", "2000 updates"] {
        for (request, wanted) in [
            ("latestbuilds?nr=2", 2),
            ("latestbuilds?nr=10&jobset (small)", 10),
            ("build/ID", 1),
            ("api/evaluation?id", 1),
            ("eval/ID (page)", 50),
            ("queue?nr=200", 200),
            ("latestbuilds?nr=1000", 1000),
            ("specifications", 4),
        ] {
            assert_eq!(listed(request, load), wanted, "{request}, {load}");
        }
        let (list, page) = ("latestbuilds?nr=10&job&system&jobset", "build/ID (page)");
        assert_eq!(listed(list, load), listed(page, load), "both list the builds of such a job");
        assert_eq!(listed(list, load), listed(list, "idle"), "updates are about other jobs");
    }
    for row in rows {
        assert!(row["different"].as_u64().is_some_and(|different| different > 0), "{row}");
        assert!(row["answer_bytes"].as_u64().is_some_and(|bytes| bytes > 100), "{row}");
        assert!(row["requests"].as_u64().is_some_and(|requests| requests > 0), "{row}");
        assert!(row["p50_ms"].as_f64() <= row["max_ms"].as_f64(), "{row}");
    }
    // The changes that were made during the requests are stored, and the counters agree with them.
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
    // The builds that the updates ended have as many and as long outputs as the other builds.
    let ended = "SELECT count(*) FROM build AS b WHERE b.backend = 0 AND b.status >= 0";
    let outputs = "SELECT min(length(o.path)), max(length(o.path)), count(*) FROM output AS o
         JOIN build AS b ON b.id = o.build_id WHERE b.status >= 0 AND b.backend =";
    let of = |backend: i64| -> (i64, i64, f64) {
        stored
            .query_row(&format!("{outputs} {backend}"), [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .expect(outputs)
    };
    let (imported, made) = (of(1), of(0));
    assert!(made.0 >= imported.0 && made.1 <= imported.1, "{made:?} like {imported:?}");
    let others = count(&ended.replace("= 0 AND", "= 1 AND")) as f64;
    let (of_imported, of_made) = (imported.2 / others, made.2 / count(ended) as f64);
    assert!((of_imported - of_made).abs() < 0.1, "{of_made} outputs each, others {of_imported}");
    let wrong = count(
        "SELECT count(*) FROM build_count AS c WHERE builds <> (SELECT count(*) FROM build AS b
         WHERE b.status = c.status AND b.specification_id = c.specification_id
         AND b.system = c.system)",
    );
    assert_eq!(wrong, 0);
}

#[test]
fn what_grows_faster_than_the_logarithm_is_named_and_nothing_else() {
    let place = Place::new();
    let write_all = |name: &str, builds: i64, [page, list, rate]: [f64; 3], listed: [i64; 3]| {
        let [listed, different, bytes] = listed;
        let row = |request: &str, p50: f64| {
            serde_json::json!({
                "request": request, "load": "idle", "p50_ms": p50,
                "listed": listed, "different": different, "answer_bytes": bytes,
            })
        };
        let figures = serde_json::json!({
            "builds": builds,
            "rows": [row("page", page), row("list", list), row("new", 9.0)],
            "bulk_updates_per_s": rate,
        });
        place.write(name, &figures.to_string())
    };
    let write = |name: &str, builds: i64, page: f64, list: f64, rate: f64| {
        write_all(name, builds, [page, list, rate], [10, 400, 5000])
    };
    let compare = |files: &[&PathBuf]| {
        let mut command = Command::new(PROGRAM);
        command.args(["site", "--compare"]).args(files);
        run(command)
    };
    let small = write("small.json", 100_000, 0.4, 2.0, 30_000.0);
    let middle = write("middle.json", 1_000_000, 0.45, 2.3, 28_000.0);
    let large = write("large.json", 5_000_000, 0.5, 2.6, 25_000.0);
    let ended = compare(&[&large, &small, &middle]);
    assert!(ended.status.success(), "{}\n{}", ended.stdout, ended.stderr);
    let page = ended.stdout.lines().find(|line| line.starts_with("page, idle")).expect("a row");
    let cells: Vec<_> = page.split_whitespace().collect();
    assert_eq!(cells, ["page,", "idle", "0.400", "0.450", "0.500", "1.25", "10"], "smallest first");
    // This figure grows by a third more than is allowed, so its name is printed.
    let linear = write("linear.json", 5_000_000, 0.5, 4.5, 25_000.0);
    let ended = compare(&[&small, &linear]);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stdout);
    assert!(ended.stderr.ends_with("grows: list, idle\n"), "{}", ended.stderr);
    let slow = write("slow.json", 5_000_000, 0.5, 2.6, 3_000.0);
    let ended = compare(&[&small, &slow]);
    assert!(ended.stderr.contains("1,000 status updates in bulk"), "{}", ended.stderr);
    // Sizes whose answers list different numbers of entries cannot be compared. Ten and eleven entries are similar
    // enough.
    let as_small = |name: &str, listed| write_all(name, 100_000, [0.4, 2.0, 30_000.0], listed);
    let alike = as_small("alike.json", [11, 380, 4400]);
    assert!(compare(&[&alike, &large]).status.success());
    for (listed, told) in [
        ([3, 400, 5000], "page, idle lists 3 to 10; list, idle lists 3 to 10"),
        ([10, 3, 5000], "page, idle is one of 3 to 400 different requests"),
        ([10, 400, 4100], "page, idle has answers of 4100 to 5000 bytes"),
    ] {
        let ended = compare(&[&as_small("unlike.json", listed), &large]);
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stdout);
        assert!(ended.stderr.contains(told), "{}", ended.stderr);
        assert!(ended.stdout.contains("NOT ALIKE"), "{}", ended.stdout);
    }
    let old = r#"{"builds":100000,"rows":[{"request":"page","load":"idle","p50_ms":0.4}]}"#;
    let ended = compare(&[&place.write("old.json", old), &large]);
    assert!(ended.stderr.contains("does not say"), "{}", ended.stderr);
    // Files that cannot be compared are an error.
    for files in [[&small, &small], [&small, &place.write("none.json", "{}")]] {
        assert_eq!(compare(&files).status.code(), Some(1));
    }
}

#[test]
fn the_server_is_started_until_its_first_page() {
    let place = Place::new();
    let mut command = Command::new(PROGRAM);
    command.args(["site", "--startup", "2", "--json", "--state"]).arg(place.path("given"));
    let ended = run(command);
    assert!(ended.status.success(), "{}\n{}", ended.stdout, ended.stderr);
    let figures: serde_json::Value = serde_json::from_str(&ended.stdout).expect("only JSON");
    assert_eq!((&figures[0]["state"], &figures[1]["state"]), (&"empty".into(), &"given".into()));
    for start in figures.as_array().expect("two") {
        assert!(start["median_ms"].as_f64() > Some(0.0), "{start}");
        assert!(start["median_ms"].as_f64() <= start["max_ms"].as_f64(), "{start}");
    }
}

#[test]
fn pages_beside_strangers_are_measured_and_what_is_too_slow_or_too_large_is_a_failure() {
    let mut command = Command::new(PROGRAM);
    command.args(["strangers", "--connections", "300", "--seconds", "0.5", "--json"]);
    let ended = run(command);
    let figures: serde_json::Value = serde_json::from_str(&ended.stdout).expect("only JSON");
    let rows = figures["rows"].as_array().expect("rows");
    let kinds: Vec<_> = rows.iter().filter_map(|row| row["strangers"].as_str()).collect();
    assert_eq!(kinds, ["none", "idle", "slow-head", "slow-body", "pipelined", "followers"]);
    let number = |value: &serde_json::Value| value.as_f64().expect("a number");
    let slow = rows.iter().any(|row| number(&row["p99_ms"]) > 200.0);
    let large = number(&figures["memory_peak_mib"]) - number(&figures["memory_before_mib"]) > 128.0;
    assert_eq!(ended.status.code(), Some(i32::from(slow || large)), "{}", ended.stderr);
    for row in rows {
        assert!(row["pages"].as_u64().is_some_and(|pages| pages > 1), "{row}");
        assert!(number(&row["p50_ms"]) <= number(&row["p99_ms"]), "{row}");
        assert!(number(&row["p99_ms"]) <= number(&row["max_ms"]), "{row}");
        let closed = row["closed"].as_u64().expect("a number");
        // One address gets fewer connections than the strangers open, so the server closes the others.
        assert!(row["strangers"] == "none" || closed >= 300 - 256, "{row}");
    }
}

#[test]
fn an_open_overview_costs_less_than_asking_for_it_again() {
    let mut command = Command::new(PROGRAM);
    command.args([
        "viewer",
        "--specifications",
        "60",
        "--changes",
        "20",
        "--seconds",
        "2",
        "--json",
    ]);
    let ended = run(command);
    assert!(ended.status.success(), "{}\n{}", ended.stdout, ended.stderr);
    let figures: serde_json::Value = serde_json::from_str(&ended.stdout).expect("only JSON");
    let number = |value: &serde_json::Value| value.as_f64().expect("a number");
    assert!(
        number(&figures["page_gzip_bytes"]) * 4.0 < number(&figures["page_bytes"]),
        "{figures}"
    );
    for client in ["whole", "parts"] {
        let row = &figures[client];
        assert!(number(&row["changes_per_s"]) > 0.0 && number(&row["questions"]) >= 2.0, "{row}");
    }
    let answers = |client: &str| number(&figures[client]["answer_bytes"]);
    assert!(answers("parts") * 10.0 < answers("whole"), "{figures}");
}

/// Slopes can only be judged by a longer measurement: on a busy machine the server opens a few more connections within
/// these seconds. One descriptor forgotten per push is seen in a short measurement, too.
#[test]
fn a_short_measurement_of_pushes_forgets_no_descriptor_per_push_and_judges_by_its_lines() {
    let mut command = Command::new(PROGRAM);
    command.args(["pushes", "--pushes", "20", "--json"]);
    let ended = run(command);
    let figures: serde_json::Value = serde_json::from_str(&ended.stdout).expect(&ended.stderr);
    let lines = figures["lines"].as_array().expect("lines");
    for name in ["descriptors", "files and folders", "memory (MiB)", "page (ms)"] {
        let line = lines.iter().find(|line| line["name"] == name).expect(name);
        assert!(line["first_half_max"].as_f64().is_some_and(|max| max > 0.0), "{line}");
    }
    let points = figures["points"].as_array().expect("points");
    assert_eq!(points.len(), 32, "without the first fifth");
    let change = |name: &str| {
        let value = |point: &serde_json::Value| point[name].as_f64().expect("a number");
        value(&points[31]) - value(&points[0])
    };
    // A point's number of pushes is that to each of the two repositories.
    let pushes = 2.0 * change("pushes");
    assert!(pushes >= 30.0, "{figures}");
    assert!(change("descriptors") < pushes, "{figures}");
    let growing = lines.iter().filter(|line| line["grows"] == true).count();
    assert_eq!(ended.status.success(), growing == 0, "{}", ended.stderr);
}

/// The figures say nothing on a busy machine; what is counted must hold on any.
#[test]
fn a_crowd_gets_the_answers_that_it_expects_and_no_log_says_locked() {
    let mut command = Command::new(PROGRAM);
    let clients = ["--writers", "8", "--readers", "20", "--builds", "20000", "--seconds", "4"];
    command.arg("crowd").args(clients).arg("--json");
    let ended = run(command);
    let figures: serde_json::Value = serde_json::from_str(&ended.stdout).expect(&ended.stderr);
    let statuses = |client: &str| figures[client]["statuses"].as_object().expect("statuses");
    assert_eq!(statuses("readers").keys().collect::<Vec<_>>(), ["200"], "{figures}");
    let of_writers = statuses("writers");
    assert!(of_writers.keys().all(|it| ["200", "202", "409"].contains(&it.as_str())), "{figures}");
    assert!(of_writers["200"].as_u64().is_some_and(|count| count >= 8), "{figures}");
    assert_eq!(figures["readers"]["requests"], 80, "{figures}");
    assert!(figures["copies"].as_u64().is_some_and(|copies| copies > 0), "{figures}");
    assert!(figures["log_lines"].as_u64().is_some_and(|lines| lines > 0), "{figures}");
    assert_eq!(figures["locked"], serde_json::json!([]), "{figures}");
    let slow = figures["readers"]["p99_ms"].as_f64().is_some_and(|p99| p99 > 30.0);
    let late = figures["lag_late"].as_u64().is_some_and(|late| late > 0);
    assert_eq!(ended.status.success(), !slow && !late, "{}", ended.stderr);
}

#[test]
fn an_argument_that_is_none_is_refused_in_words_that_say_what_is_expected() {
    for (arguments, told) in [
        (["site", "--seconds", "x"], "a number of seconds from 0.05 to 600"),
        (["site", "--builds", "1e6"], "a whole number from 1000 to 100000000"),
    ] {
        let mut command = Command::new(PROGRAM);
        command.args(arguments);
        let ended = run(command);
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(told), "{arguments:?}: {}", ended.stderr);
    }
}

#[test]
fn two_evaluations_are_compared_as_json_and_as_a_page() {
    let mut command = Command::new(PROGRAM);
    command.args(["comparison", "--jobs", "1000", "--requests", "3", "--json"]);
    let ended = run(command);
    assert!(ended.status.success(), "{}\n{}", ended.stdout, ended.stderr);
    let figures: serde_json::Value = serde_json::from_str(&ended.stdout).expect("only JSON");
    let rows = figures.as_array().expect("rows");
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!(row["jobs"], 1000);
        assert!(row["p50_ms"].as_f64() <= row["max_ms"].as_f64(), "{row}");
    }
}
