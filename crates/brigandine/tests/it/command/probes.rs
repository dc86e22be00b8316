//! What monitors read of a running server.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::serve::{address, text};
use crate::support::exposition::Exposition;
use crate::support::{Place, Process, run, until};

/// The body of `/metrics`.
fn metrics(address: &str) -> String {
    let answer = text(address, "/metrics");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.0 200") || head.starts_with("HTTP/1.1 200"), "{head}");
    body.to_owned()
}

/// A server that has built a job that succeeds, one that fails, and has one that needs the latter.
fn built() -> (Place, Process, String) {
    let place = Place::new();
    let repository = place.repository("repository");
    repository.jobs(&[
        ("good", "command = \"true\""),
        ("bad", "command = \"false\""),
        ("needy", "command = \"true\"\nneeds = [\"bad\"]"),
    ]);
    place.specify(&[("sample", &repository, "")]);
    let server = Process::start(place.command(&[]));
    let address = address(&server);
    // The last of them to end.
    until(|| text(&address, "/build/3"), |page| page.contains("dependency failed"));
    until(|| text(&address, "/build/1"), |page| page.contains("succeeded"));
    (place, server, address)
}

/// A private server that has built a job.
fn private() -> (Place, Process, String) {
    let place = Place::new();
    let repository = place.repository("repository");
    repository.jobs(&[("good", "command = \"true\"")]);
    place.specify(&[("sample", &repository, "")]);
    place.write("config.toml", "[web]\nprivate = true\n");
    let server = Process::start(place.command(&[]));
    let address = address(&server);
    until(|| place.rows("SELECT id FROM build WHERE status = 0"), |built| built.len() == 1);
    (place, server, address)
}

#[test]
fn the_figures_of_a_server_are_those_of_its_history() {
    let (place, server, address) = built();
    let ended = "brigandine_builds_ended_total";
    // The page may be ahead of the count by a moment.
    let ends = |figures: &Exposition| figures.samples(ended).map(|it| it.value).sum::<f64>();
    let figures = until(|| Exposition::read(&metrics(&address)), |figures| ends(figures) >= 3.0);
    for (status, code) in [("succeeded", 0), ("failed", 1), ("failed-dependency", 2)] {
        let rows = place.rows(&format!("SELECT count(*) FROM build WHERE status = {code}"));
        let count: f64 = rows[0].parse().expect("a number");
        assert_eq!(figures.value(ended, &[("status", status)]), Some(count), "{status}");
        let name = "brigandine_builds";
        let stored = figures.samples(name).filter(|it| it.labels["status"] == status);
        assert_eq!(stored.map(|it| it.value).sum::<f64>(), count, "{status}");
    }
    assert_eq!(ends(&figures), 3.0);
    let value = |name: &str| figures.value(name, &[]).unwrap_or_else(|| panic!("{name}"));
    assert_eq!(value("brigandine_build_duration_seconds_count"), 2.0, "one was never started");
    assert_eq!(value("brigandine_evaluation_duration_seconds_count"), 1.0);
    let succeeded = [("status", "succeeded")];
    assert_eq!(figures.value("brigandine_evaluations_ended_total", &succeeded), Some(1.0));
    assert_eq!(value("brigandine_specifications"), 1.0);
    assert_eq!(value("brigandine_specifications_unreachable"), 0.0);
    assert_eq!(value("brigandine_ready"), 1.0);
    assert!(value("brigandine_database_commit_seconds_count") > 0.0);
    let disk = [("folder", ".")];
    assert!(figures.value("brigandine_disk_free_bytes", &disk) > Some(0.0));
    assert!(figures.value("brigandine_disk_used_bytes", &disk) > Some(0.0));
    // One is measured each second.
    let lag = "brigandine_scheduler_lag_seconds_count";
    let read = || Exposition::read(&metrics(&address)).value(lag, &[]);
    until(read, |count| *count >= Some(1.0));
    // Builds that are built again end again.
    assert!(run(place.tool(&["restart", "2"])).status.success());
    let figures = until(|| Exposition::read(&metrics(&address)), |figures| ends(figures) >= 5.0);
    assert_eq!(figures.value(ended, &[("status", "failed")]), Some(2.0));
    assert_eq!(figures.value(ended, &[("status", "failed-dependency")]), Some(2.0));
    // A build that fails when it is registered, because the build that it needs has failed before, ends too.
    place.repository_of("repository").jobs(&[
        ("good", "command = \"true\""),
        ("bad", "command = \"false\""),
        ("needy", "command = \"echo again\"\nneeds = [\"bad\"]"),
    ]);
    assert!(run(place.tool(&["evaluate", "sample"])).status.success());
    let figures = until(|| Exposition::read(&metrics(&address)), |figures| ends(figures) >= 6.0);
    assert_eq!(figures.value(ended, &[("status", "failed-dependency")]), Some(3.0));
    server.signal("TERM");
    assert!(server.end().success());
}

/// Prometheus' own checker: the one that `PROMTOOL` names, or that of Debian's package, unpacked into `place`.
fn promtool(place: &Place) -> PathBuf {
    if let Some(named) = std::env::var_os("PROMTOOL") {
        return named.into();
    }
    let folder = place.path("prometheus");
    // A machine that has installed nothing yet has no lists of packages.
    let script = "mkdir \"$0\"; cd \"$0\"
        apt-get download prometheus || { apt-get update; apt-get download prometheus; }
        dpkg-deb -x prometheus_*.deb .";
    let done = run({
        let mut command = Command::new("sh");
        command.arg("-euc").arg(script).arg(&folder);
        command
    });
    assert!(done.status.success(), "name a promtool with PROMTOOL: {}", done.stderr);
    folder.join("usr/bin/promtool")
}

#[test]
fn promtool_finds_nothing_wrong_with_the_figures_and_the_rules() {
    if std::env::var_os("LOCKKEEPER_LONG").is_none_or(|value| value != "1") {
        return;
    }
    let (place, server, address) = built();
    let file = place.write("metrics.txt", &metrics(&address));
    let promtool = promtool(&place);
    let mut figures = Command::new(&promtool);
    figures.args(["check", "metrics"]);
    figures.stdin(std::fs::File::open(file).map_or_else(|_| Stdio::null(), Stdio::from));
    let mut rules = Command::new(&promtool);
    rules.args(["check", "rules"]).arg(place.write("rules.yml", &block("groups:")));
    for command in [figures, rules] {
        let checked = run(command);
        let good = checked.status.success() && checked.stderr.is_empty();
        assert!(good, "{}{}", checked.stdout, checked.stderr);
    }
    server.signal("TERM");
    assert!(server.end().success());
}

/// What `brigandine status` says: its exit status, and its text.
fn status(place: &Place) -> (Option<i32>, String) {
    let ended = run(place.tool(&["status"]));
    assert!(ended.stderr.is_empty(), "{}", ended.stderr);
    let wide = |line: &&str| line.chars().count() > 80;
    assert_eq!(ended.stdout.lines().find(wide), None, "in 80 columns");
    (ended.status.code(), ended.stdout)
}

#[test]
fn the_status_is_that_of_the_server_and_says_why_it_is_not_ready() {
    says_all_there_is_to_say(built());
}

#[test]
fn a_private_server_tells_its_commands_what_it_tells_those_who_may_read() {
    let (place, server, address) = private();
    let other = place.database();
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let told = until(|| text(&address, "/readyz"), |told| told.contains("\r\n\r\nnot ready\n"));
    assert!(told.ends_with("the reasons are for those who may read.\n"), "to strangers: {told}");
    drop(other);
    says_all_there_is_to_say((place, server, address));
}

fn says_all_there_is_to_say((place, server, address): (Place, Process, String)) {
    let (_, said) = until(|| status(&place), |(code, _)| *code == Some(0));
    for line in ["state    ready", "builds   0 running, 0 waiting", "inputs   all can be reached"] {
        assert!(said.lines().any(|found| found == line), "{line:?} is not in\n{said}");
    }
    assert!(said.contains(&format!("http://{address}")), "{said}");
    let ended = run(place.tool(&["status", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!((&json["ready"], &json["queue"]["running"]), (&true.into(), &0.into()), "{json}");
    assert_eq!(json["server"]["pid"], server.child.id());
    let tasks = json["tasks"].as_array().expect("a list");
    for task in ["the builder", "the wake socket", "the monitor of `sample`"] {
        assert!(tasks.contains(&task.into()), "{task} is not in {json}");
    }
    // The inputs are gone.
    let repository = place.path("repository");
    std::fs::rename(&repository, place.path("elsewhere")).expect("moved");
    let _ = run(place.tool(&["evaluate", "sample"]));
    let (code, said) = status(&place);
    assert_eq!(code, Some(0), "the server itself is well: {said}");
    assert!(said.contains("inputs   those of 1 specification cannot be reached\n"), "{said}");
    assert!(said.contains("         sample ("), "{said}");
    // Another program locks the database.
    let other = place.database();
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let (code, said) = until(|| status(&place), |(code, _)| *code != Some(0));
    assert_eq!(code, Some(1));
    assert!(said.contains("state    not ready\n         The database"), "{said}");
    drop(other);
    until(|| status(&place), |(code, _)| *code == Some(0));
    server.signal("TERM");
    assert!(server.end().success());
    let (code, said) = status(&place);
    assert_eq!(code, Some(1));
    assert!(said.contains("No server runs on"), "{said}");
    assert!(said.contains("builds   0 running, 0 waiting"), "{said}");
    let mut nowhere = Command::new(crate::support::PROGRAM);
    nowhere.args(["status", "--state"]).arg(place.path("nowhere"));
    assert_eq!(run(nowhere).status.code(), Some(3));
}

/// A block of code in docs/operation.md: the one that begins with this line.
fn block(first: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operation.md");
    let text = std::fs::read_to_string(path).expect("docs/operation.md");
    let begin = text.find(&format!("```yaml\n{first}\n")).expect(first) + "```yaml\n".len();
    let end = text[begin..].find("\n```").expect("its end");
    text[begin..=begin + end].to_owned()
}

#[test]
fn the_figures_in_docs_are_those_of_the_server() {
    let (_place, server, address) = built();
    let figures = metrics(&address);
    let begins = |word: &&str| word.starts_with("brigandine_") || word.starts_with("process_");
    let rules = block("groups:");
    let words = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(begins);
    let words: Vec<&str> = words.collect();
    assert!(words.len() > 10, "{words:?}");
    for word in words {
        let is = |line: &str| line.strip_prefix(word).is_some_and(|it| it.starts_with(['{', ' ']));
        assert!(figures.lines().any(is), "{word} is not among the figures:\n{figures}");
    }
    server.signal("TERM");
    assert!(server.end().success());
}
