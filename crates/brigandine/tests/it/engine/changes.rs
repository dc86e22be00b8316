//! Changes by commands and requests: builds are canceled and restarted, looks are requested.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

use crate::command::serve::address;
use crate::support::{Gate, PATIENCE, Place, Process, processes_with, run};

pub(super) const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Status and body of an answer to a POST.
fn post(address: &str, path: &str, token: &str) -> (u16, serde_json::Value) {
    post_body(address, path, token, "{}")
}

/// Status and body of an answer to a POST with this body.
pub(super) fn post_body(
    address: &str,
    path: &str,
    token: &str,
    body: &str,
) -> (u16, serde_json::Value) {
    let mut socket = TcpStream::connect(address).expect("the server listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\
         authorization: Bearer {token}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    (status, serde_json::from_str(body).expect("JSON"))
}

pub(super) fn put_token(place: &Place, mode: u32) {
    std::fs::create_dir_all(place.state()).expect("a directory");
    let path = place.state().join("token");
    std::fs::write(&path, TOKEN).expect("a file");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
}

#[test]
fn a_build_that_ignores_term_is_killed_with_its_whole_group() {
    let place = Place::new();
    let repository = place.repository("sample");
    let running = Gate::new(place.path("running"));
    let mark = format!("MARK=cancel-{}", std::process::id());
    let (name, value) = mark.split_once('=').expect("a pair");
    // Neither the first process of the group nor its child reacts to TERM. The child is in the same process group.
    let stubborn = format!(
        "command = \"\"\"trap '' TERM\nsh -c 'trap \"\" TERM; echo up > {}; while :; do sleep 1; done' &\n\
         while :; do sleep 1; done\"\"\"\nenv = {{ {name} = \"{value}\" }}",
        running.path().display()
    );
    repository
        .jobs(&[("stubborn", &stubborn), ("after", "command = \"true\"\nneeds = [\"stubborn\"]")]);
    place.specify(&[("sample", &repository, "")]);
    place.write("config.toml", "[limits]\nbuild-grace = \"1s\"\n");
    put_token(&place, 0o600);
    let server = Process::start(place.command(&[]));
    let address = address(&server);
    assert_eq!(running.wait(), "up\n");
    let id = place.rows("SELECT id FROM build WHERE job = 'stubborn'").remove(0);
    let path = format!("/api/v1/build/{id}/cancel");
    let (status, said) = post(&address, &path, "wrong wrong wrong");
    assert_eq!(status, 401, "{said}");
    assert!(processes_with(&mark) >= 2, "both run");
    let (status, said) = post(&address, &path, TOKEN);
    assert_eq!((status, &said["status"]), (202, &"started".into()), "{said}");
    server.trace("build ended");
    assert_eq!(processes_with(&mark), 0, "the whole group is gone");
    assert_eq!(
        place.rows("SELECT job, status, message FROM build ORDER BY job"),
        ["after|2|needs `stubborn`: canceled", "stubborn|4|canceled on request"]
    );
    let (status, said) = post(&address, &path, TOKEN);
    assert_eq!(status, 409);
    assert_eq!(said["error"], format!("build {id} has ended already: canceled"));
    assert_eq!(post(&address, "/api/v1/build/99/cancel", TOKEN).0, 404);
    let audit = run(place.tool(&["audit", "--json"]));
    let rows: Vec<serde_json::Value> = serde_json::from_str(&audit.stdout).expect("JSON");
    let [row] = rows.as_slice() else { panic!("one change was made: {rows:?}") };
    assert_eq!((&row["actor"], &row["change"]), (&"token".into(), &"cancel".into()));
    assert_eq!(row["result"], "attempt 1 asked to end");
    server.signal("TERM");
    assert!(server.end().success());
    place.check_consistency();
}

#[test]
fn what_ended_badly_is_built_once_more_with_what_failed_for_want_of_it() {
    let place = Place::new();
    let repository = place.repository("sample");
    let go = place.path("go");
    repository.jobs(&[
        ("base", &format!("command = \"test -e {}\"", go.display())),
        ("middle", "command = \"true\"\nneeds = [\"base\"]"),
        ("top", "command = \"true\"\nneeds = [\"middle\", \"broken\"]"),
        ("broken", "command = \"false\""),
    ]);
    place.specify(&[("sample", &repository, "")]);
    put_token(&place, 0o600);
    place.good_one_shot();
    assert_eq!(place.jobs(1), ["base|1", "broken|1", "middle|2", "top|2"]);
    let id = |job: &str| place.rows(&format!("SELECT id FROM build WHERE job = '{job}'")).remove(0);
    // Restarts by the command, without a server. A build whose needs have failed is refused.
    let refused = run(place.tool(&["restart", &id("middle")]));
    assert_eq!(refused.status.code(), Some(1));
    let wanted = format!("needs build {}, which failed; restart that", id("base"));
    assert!(refused.stderr.contains(&wanted), "{}", refused.stderr);
    assert_eq!(run(place.tool(&["restart", "99"])).status.code(), Some(3));
    let ended = run(place.tool(&["restart", &id("base"), "--reason", "it is there now"]));
    assert!(ended.status.success(), "{}", ended.stderr);
    assert_eq!(place.jobs(1), ["base|-2", "broken|1", "middle|-2", "top|2"]);
    place.check_consistency();
    let audit = run(place.tool(&["audit", "--build", &id("base")]));
    assert!(audit.stdout.contains("  local ") && audit.stdout.contains("it is there now"));
    assert!(audit.stdout.contains("scheduled, with 1 build that needs it"), "{}", audit.stdout);
    assert_eq!(run(place.tool(&["audit", "--spec", "smaple"])).status.code(), Some(3));
    // A build that cannot be changed does not keep the others from it.
    let some = run(place.tool(&["restart", &id("top"), &id("broken"), "99", "--json"]));
    assert_eq!(some.status.code(), Some(1), "{}", some.stderr);
    let said: serde_json::Value = serde_json::from_str(&some.stdout).expect("JSON");
    let results: Vec<_> =
        said["results"].as_array().expect("a list").iter().map(|one| &one["result"]).collect();
    assert_eq!(results, ["refused", "done", "missing"], "{said}");
    let canceled = run(place.tool(&["cancel", &id("broken"), &id("middle")]));
    assert!(canceled.status.success(), "{}", canceled.stderr);
    let said = format!("build {}: canceled\nbuild {}: canceled\n", id("broken"), id("middle"));
    assert_eq!(canceled.stdout, said);
    std::fs::write(&go, "").expect("a file");
    let server = Process::start(place.command(&[]));
    let address = address(&server);
    server.trace("build ended");
    let middle = format!("/api/v1/build/{}/restart", id("middle"));
    let (status, said) = post(&address, &middle, TOKEN);
    assert_eq!((status, &said["changed"]), (200, &1.into()), "{said}");
    server.trace("build ended");
    let (status, said) = post(&address, &middle, TOKEN);
    assert_eq!(status, 409, "{said}");
    assert!(said["error"].as_str().expect("text").ends_with("what succeeded is not built again"));
    server.signal("TERM");
    assert!(server.end().success());
    assert_eq!(place.jobs(1), ["base|0", "broken|4", "middle|0", "top|2"]);
    place.check_consistency();
}

#[test]
fn a_look_can_be_asked_for_and_a_running_build_canceled_by_the_command() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.jobs(&[("one", "command = \"true\"")]);
    place.specify(&[("sample", &repository, "")]);
    put_token(&place, 0o600);
    let server = Process::start(place.command(&[]));
    let address = address(&server);
    server.trace("build ended");
    let running = Gate::new(place.path("running"));
    let command = format!("command = \"echo up > {}; sleep 1000\"", running.path().display());
    repository.jobs(&[("two", &command)]);
    let (status, said) = post(&address, "/api/v1/jobset/sample/evaluate", TOKEN);
    assert_eq!(status, 202, "{said}");
    assert_eq!(running.wait(), "up\n");
    assert_eq!(post(&address, "/api/v1/jobset/none/evaluate", TOKEN).0, 404);
    let id = place.rows("SELECT id FROM build WHERE job = 'two'").remove(0);
    let canceled = run(place.tool(&["cancel", &id]));
    assert!(canceled.status.success(), "{}", canceled.stderr);
    let again = run(place.tool(&["cancel", &id]));
    assert_eq!(again.status.code(), Some(1));
    assert!(again.stderr.contains("has ended already: canceled"), "{}", again.stderr);
    server.signal("TERM");
    assert!(server.end().success());
    place.check_consistency();
}

#[test]
fn without_a_token_there_are_no_changes_and_an_open_secret_is_none() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.jobs(&[("one", "command = \"true\"")]);
    place.specify(&[("sample", &repository, "")]);
    let server = Process::start(place.command(&[]));
    let address = address(&server);
    let (status, said) = post(&address, "/api/v1/jobset/sample/evaluate", TOKEN);
    assert_eq!(status, 401);
    assert!(said["error"].as_str().expect("text").contains("none of this server"), "{said}");
    server.signal("TERM");
    assert!(server.end().success());
    put_token(&place, 0o644);
    let ended = run(place.command(&[]));
    assert_eq!(ended.status.code(), Some(1));
    assert!(
        ended.stderr.contains("may be read by others (mode 644); chmod 600"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_need_may_have_several_names_in_a_job_list() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.jobs(&[
        ("a", "command = \"echo made > $BRIGANDINE_OUT/it\""),
        (
            "b",
            "command = \"cat $BRIGANDINE_NEEDS/x/it $BRIGANDINE_NEEDS/y/it; ls $BRIGANDINE_NEEDS\"\n\
             needs = { x = \"a\", y = \"a\" }",
        ),
    ]);
    place.specify(&[("sample", &repository, "")]);
    place.good_one_shot();
    assert_eq!(place.build_log("b"), "made\nmade\nx\ny\n");
    place.check_consistency();
}
