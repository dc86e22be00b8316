//! Changes of evaluations and of several builds, by commands here and over HTTP, and what a kill leaves of them.

use super::changes::{TOKEN, post_body, put_token};
use crate::command::serve::{address, text};
use crate::support::{Gate, Place, Process, Repository, run, until};
use std::io::Write;
use std::net::TcpStream;

/// Specifies `sample`, whose newer revisions cancel what only older ones want.
fn specify_superseding(place: &Place, repository: &Repository) {
    let text = format!(
        "[[specification]]\nname = \"sample\"\nsupersede = \"cancel\"\n[[specification.input]]\n\
         name = \"source\"\nurl = \"{}\"\nbranch = \"main\"\n",
        repository.path.display()
    );
    place.write("specifications.toml", &text);
}

/// A job that says that it runs, and goes on until it is ended.
fn endless(gate: &Gate) -> String {
    format!("command = \"echo up > {}; sleep 1000\"", gate.path().display())
}

#[test]
fn builds_are_changed_by_their_status_and_commented_on_here_and_over_http() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.jobs(&[
        ("a", "command = \"false\""),
        ("b", "command = \"false\""),
        ("c", "command = \"true\"\nneeds = [\"a\"]"),
        ("d", "command = \"true\""),
    ]);
    place.specify(&[("sample", &repository, "")]);
    put_token(&place, 0o600);
    place.good_one_shot();
    let failed = ["a|1", "b|1", "c|2", "d|0"];
    assert_eq!(place.jobs(1), failed);
    let restarted = run(place.tool(&["restart", "--evaluation", "1", "--reason", "try again"]));
    assert!(restarted.status.success(), "{}", restarted.stderr);
    assert_eq!(restarted.stdout, "evaluation 1: 3 builds scheduled\n");
    assert_eq!(place.jobs(1), ["a|-2", "b|-2", "c|-2", "d|0"]);
    let bumped = run(place.tool(&["bump", "--evaluation", "1", "--status", "scheduled"]));
    assert_eq!(
        bumped.stdout,
        "what is scheduled in evaluation 1: 3 builds put in front of the queue\n"
    );
    place.check_consistency();
    let server = Process::start(place.command(&[]));
    let url = format!("http://{}", address(&server));
    until(|| place.jobs(1), |jobs| jobs == &failed);
    let token = place.state().join("token");
    let token = token.to_str().expect("a path");
    let remote = |arguments: &[&str]| {
        let more = ["--server", url.as_str(), "--token-file", token];
        run(place.tool(&[arguments, &more].concat()))
    };
    let said = remote(&["restart", "--eval", "1", "--status", "failed", "--reason", "from afar"]);
    assert_eq!(
        said.stdout, "what is failed in evaluation 1: 3 builds scheduled\n",
        "{}",
        said.stderr
    );
    until(|| place.jobs(1), |jobs| jobs == &failed);
    let said = remote(&["comment", "1", "--evaluation", "1", "--message", "a <known>\nfault"]);
    assert_eq!(said.stdout, "build 1: noted\nevaluation 1: noted\n", "{}", said.stderr);
    let said = remote(&["keep", "1", "--json"]);
    let kept: serde_json::Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!(kept["results"][0]["evaluation"], 1, "{kept}");
    let said = remote(&["keep", "1", "99"]);
    assert_eq!(said.status.code(), Some(1));
    assert!(said.stderr.contains("evaluation 1 is kept already\nthere is no evaluation 99"));
    let mut wrong = place.tool(&["bump", "1", "--server", &url]);
    wrong.env("BRIGANDINE_TOKEN", "0123456789abcdeX");
    let wrong = run(wrong);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(wrong.stderr.contains("answers 401"), "{}", wrong.stderr);
    let audit = run(place.tool(&["audit", "--json"]));
    let rows: Vec<serde_json::Value> = serde_json::from_str(&audit.stdout).expect("JSON");
    let changes: Vec<_> = rows.iter().filter_map(|row| row["change"].as_str()).collect();
    assert_eq!(changes, ["keep", "comment", "comment", "restart", "bump", "restart"]);
    assert_eq!(rows[1]["reason"], "a <known>\nfault");
    server.signal("TERM");
    assert!(server.end().success());
    place.check_consistency();
}

#[test]
fn newer_revisions_cancel_what_only_older_ones_want() {
    let place = Place::new();
    let repository = place.repository("sample");
    let running = Gate::new(place.path("running"));
    // Without `sources` its derivation would change with the job list, and each revision would have its own build.
    let shared = ("shared", "command = \"echo shared\"\nsources = [\"note\"]");
    repository.commit(&[("note", "")]);
    repository.jobs(&[("old", &endless(&running)), shared]);
    specify_superseding(&place, &repository);
    let server = Process::start(place.command_at("1", &[]));
    address(&server);
    assert_eq!(running.wait(), "up\n");
    repository.jobs(&[("new", "command = \"true\""), shared]);
    let evaluated = run(place.tool(&["evaluate", "sample", "--wait"]));
    assert!(evaluated.status.success(), "{}", evaluated.stderr);
    assert_eq!(place.jobs(2), ["new|0", "shared|0"]);
    until(|| place.jobs(1), |jobs| jobs == &["old|4", "shared|0"]);
    let message = place.rows("SELECT message FROM build WHERE job = 'old'");
    assert_eq!(message, ["superseded by evaluation 2"]);
    let audit = run(place.tool(&["audit", "--evaluation", "1"]));
    assert!(audit.stdout.contains("the server  supersede"), "{}", audit.stdout);
    // The branch is set back, and what was canceled is built after all.
    repository.git(&["reset", "--hard", "--quiet", "HEAD~1"]);
    let evaluated = run(place.tool(&["evaluate", "sample"]));
    assert!(evaluated.status.success(), "{}", evaluated.stderr);
    assert_eq!(running.wait(), "up\n");
    server.signal("TERM");
    assert!(server.end().success());
    place.check_consistency();
}

#[test]
fn a_canceled_evaluation_stays_canceled_whenever_the_server_is_killed() {
    let place = Place::new();
    let repository = place.repository("sample");
    let running = Gate::new(place.path("running"));
    let stubborn = format!(
        "command = \"\"\"trap '' TERM; echo up > {}; while :; do sleep 1; done\"\"\"",
        running.path().display()
    );
    repository
        .jobs(&[("stubborn", &stubborn), ("waits", "command = \"true\"\nneeds = [\"stubborn\"]")]);
    place.specify(&[("sample", &repository, "")]);
    put_token(&place, 0o600);
    let server = Process::start(place.command(&[]));
    let at = address(&server);
    assert_eq!(running.wait(), "up\n");
    let (status, said) = post_body(&at, "/api/v1/eval/1/cancel", TOKEN, r#"{"reason":"no"}"#);
    assert_eq!((status, &said["changed"], &said["ending"]), (200, &1.into(), &1.into()), "{said}");
    server.signal("KILL");
    server.end();
    let server = Process::start(place.command(&[]));
    // From then on it ends in order when it is told to.
    address(&server);
    until(|| place.jobs(1), |jobs| jobs == &["stubborn|4", "waits|4"]);
    let messages = place.rows("SELECT DISTINCT message FROM build");
    assert_eq!(messages, ["canceled with evaluation 1"]);
    server.signal("TERM");
    assert!(server.end().success());
    place.check_consistency();
}

#[test]
fn a_change_is_made_to_its_end_although_the_client_has_left() {
    let place = Place::new();
    let repository = place.repository("sample");
    let running = Gate::new(place.path("running"));
    let endless = endless(&running);
    repository.jobs(&[("first", &endless), ("second", "command = \"true\"\nneeds = [\"first\"]")]);
    place.specify(&[("sample", &repository, "")]);
    put_token(&place, 0o600);
    let server = Process::start(place.command(&[]));
    let at = address(&server);
    assert_eq!(running.wait(), "up\n");
    // The change waits for this lock when the client leaves.
    let lock = place.database();
    lock.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let body = r#"{"change":"cancel","evaluations":[1]}"#;
    let request = format!(
        "POST /api/v1/changes HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\nauthorization: Bearer {TOKEN}\r\n\r\n{body}",
        body.len()
    );
    let mut client = TcpStream::connect(&at).expect("the server listens");
    client.write_all(request.as_bytes()).expect("sent");
    server.trace("a change is asked for");
    drop(client);
    // By then the server has looked at its sockets again.
    assert!(text(&at, "/healthz").contains("ok"));
    lock.execute_batch("ROLLBACK").expect("unlocked");
    drop(lock);
    until(|| place.jobs(1), |jobs| jobs == &["first|4", "second|4"]);
    server.signal("TERM");
    assert!(server.end().success());
    place.check_consistency();
}

#[test]
fn an_evaluation_is_canceled_while_its_evaluator_runs() {
    let place = Place::new();
    let repository = place.repository("sample");
    let running = Gate::new(place.path("running"));
    let script = format!("echo begun >&2; echo up > {}; sleep 1000", running.path().display());
    repository.commit(&[("a", "")]);
    let evaluator =
        format!("[specification.evaluator]\nkind = \"command\"\ncommand = \"{script}\"");
    place.specify(&[("sample", &repository, &evaluator)]);
    let server = Process::start(place.command(&[]));
    address(&server);
    assert_eq!(running.wait(), "up\n");
    let canceled = run(place.tool(&["cancel", "--evaluation", "1"]));
    assert!(canceled.status.success(), "{}", canceled.stderr);
    server.trace("evaluation ended");
    let rows = || place.rows("SELECT status, message, log_path <> '' FROM evaluation");
    until(rows, |rows| rows == &["2|canceled on request|1"]);
    // The next look does not evaluate it again.
    run(place.tool(&["evaluate", "sample"]));
    assert_eq!(rows(), ["2|canceled on request|1"]);
    server.signal("TERM");
    assert!(server.end().success());
    place.check_consistency();
}

#[test]
fn a_specification_is_disabled_and_enabled_while_the_server_runs() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.jobs(&[("one", "command = \"true\"")]);
    place.specify(&[("sample", &repository, "")]);
    let server = Process::start(place.command(&[]));
    address(&server);
    until(|| place.jobs(1), |jobs| jobs == &["one|0"]);
    assert_eq!(run(place.tool(&["spec", "disable", "sample"])).stdout, "`sample`: disabled\n");
    let refused = run(place.tool(&["evaluate", "sample"]));
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains("sample is disabled"), "{}", refused.stderr);
    repository.jobs(&[("two", "command = \"true\"")]);
    assert_eq!(run(place.tool(&["spec", "enable", "sample"])).stdout, "`sample`: enabled\n");
    until(|| place.jobs(2), |jobs| jobs == &["two|0"]);
    assert_eq!(run(place.tool(&["spec", "enable", "none"])).status.code(), Some(3));
    server.signal("TERM");
    assert!(server.end().success());
}
