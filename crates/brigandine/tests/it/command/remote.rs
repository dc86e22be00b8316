//! Commands that ask another server over HTTP, and what that server may answer.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::{Builder, JoinHandle};

use super::serve::address;
use crate::support::{Ended, PATIENCE, Place, Process, run};

/// A token that no server here knows.
const TOKEN: &str = "brg_0123456789abcdef";

/// Answers one request with `answer`. Returns the address, and the thread that returns what was asked.
fn answering(answer: &str) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let answer = answer.to_owned();
    let thread = Builder::new().name("server".to_owned()).spawn(move || {
        let (mut socket, _) = listener.accept().expect("a connection");
        socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let (mut asked, mut piece) = (String::new(), [0; 4096]);
        // Every body of these requests is an object; `GET` has none.
        let whole = |asked: &str| match asked.starts_with("GET ") {
            true => asked.ends_with("\r\n\r\n"),
            false => asked.ends_with('}'),
        };
        while !whole(&asked) {
            let read = socket.read(&mut piece).expect("a request");
            assert!(read > 0, "the request ends early: {asked}");
            asked.push_str(&String::from_utf8_lossy(&piece[..read]));
        }
        socket.write_all(answer.as_bytes()).expect("answered");
        asked
    });
    (address, thread.expect("a thread"))
}

/// An answer with a body.
fn answer(status: &str, lines: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{lines}\r\n{body}"
    )
}

/// Runs a command with the token in the environment.
fn with_token(place: &Place, arguments: &[&str], token: &str) -> Ended {
    let mut command = place.tool(arguments);
    command.env("BRIGANDINE_TOKEN", token);
    run(command)
}

#[test]
fn every_answer_of_another_server_is_told_in_words() {
    let place = Place::new();
    let json = "content-type: application/json\r\n";
    for (answer, status, said) in [
        (answer("200 OK", json, r#"{"build":7,"result":"done","changed":1}"#), 0, ""),
        (answer("404 Not Found", json, r#"{"error":"no build"}"#), 3, "there is no build 7"),
        (answer("409 Conflict", json, r#"{"error":"it runs\u001b[31m"}"#), 1, "it runs"),
        (answer("403 Forbidden", json, r#"{"error":"the role"}"#), 1, "answers 403: the role"),
        (answer("404 Not Found", "", "<html>"), 1, "answers 404: this is no answer of Brigandine"),
        (answer("409 Conflict", "", "<html>"), 1, "answers 409: this is no answer of Brigandine"),
        (answer("200 OK", json, "[7"), 1, "answers 200, and the answer cannot be read"),
        (
            answer("307 Temporary Redirect", "location: http://127.0.0.1:1/\r\n", ""),
            1,
            "answers 307: it sends on to another address",
        ),
        (String::new(), 1, "the change may have been made"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".to_owned(),
            1,
            "the change may have been made",
        ),
    ] {
        let (at, thread) = answering(&answer);
        let server = format!("{at}/ci/");
        let ended = with_token(&place, &["bump", "7", "--server", &server], TOKEN);
        let what = format!("{answer:?}: {} {}", ended.stdout, ended.stderr);
        assert_eq!(ended.status.code(), Some(status), "{what}");
        assert!(ended.stderr.contains(said) && !ended.stderr.contains('\u{1b}'), "{what}");
        assert!(!ended.stderr.contains(TOKEN), "{what}");
        let done = if status == 0 { "build 7: next in the queue\n" } else { "" };
        assert_eq!(ended.stdout, done, "{what}");
        let asked = thread.join().expect("asked");
        assert!(asked.starts_with("POST /ci/api/v1/build/7/bump HTTP/1.1\r\n"), "{asked}");
        let line = format!("authorization: Bearer {TOKEN}\r\n");
        assert!(asked.to_lowercase().contains(&line.to_lowercase()), "{asked}");
    }
}

#[test]
fn what_keeps_a_request_from_being_sent_is_told_in_words() {
    let place = Place::new();
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port");
    let nobody = format!("http://{}", gone.local_addr().expect("an address"));
    drop(gone);
    let nobody = &*nobody;
    place.write("empty", "\n");
    place.write("long", &"x".repeat(5000));
    let (empty, long) = (place.path("empty"), place.path("long"));
    let file = |path: &std::path::Path| path.to_str().expect("a path").to_owned();
    for (server, token, more, said) in [
        (nobody, TOKEN, None, "efused"),
        ("ftp://x", TOKEN, None, "an address begins with https:// or http://"),
        ("http://[", TOKEN, None, "http://["),
        (nobody, "two words", None, "BRIGANDINE_TOKEN has no token"),
        (nobody, "", Some(file(&empty)), "empty has no token"),
        (nobody, "", Some(file(&long)), "long has no token"),
        (nobody, "", Some("/nowhere".to_owned()), "/nowhere: "),
    ] {
        let mut arguments = vec!["bump", "7", "--server", server];
        if let Some(file) = &more {
            arguments.extend(["--token-file", file.as_str()]);
        }
        let ended = with_token(&place, &arguments, token);
        let what = format!("{server} {more:?}: {}", ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{what}");
        assert!(ended.stderr.contains(said), "{what}");
        assert!(!ended.stderr.contains("may have been made"), "{what}");
        assert!(!ended.stderr.contains("two words"), "{what}");
    }
    // The state directory is not made.
    assert!(!place.state().exists());
}

#[test]
fn a_role_in_one_specification_is_enough_for_what_belongs_to_that_one() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.jobs(&[("one", "command = \"true\""), ("two", "command = \"true\"")]);
    place.specify(&[("sample", &repository, ""), ("other", &repository, "")]);
    let server = Process::start(place.command(&[]));
    let at = format!("http://{}", address(&server));
    let make = ["token", "create", "narrow", "--role", "builder", "--in", "main/sample"];
    let token = run(place.tool(&make)).stdout;
    let ask = |arguments: &[&str]| {
        with_token(&place, &[arguments, &["--server", at.as_str()]].concat(), token.trim())
    };
    let looked = ask(&["evaluate", "sample", "--reason", "from afar"]);
    assert_eq!(looked.stdout, "`sample`: looked at now\n", "{}", looked.stderr);
    let looked = ask(&["evaluate", "sample", "--json"]);
    let said: serde_json::Value = serde_json::from_str(&looked.stdout).expect("JSON");
    assert_eq!(said["results"][0]["specification"], "sample", "{said}");
    let other = ask(&["evaluate", "other"]);
    assert!(other.stderr.contains("answers 403: this needs the role builder"), "{}", other.stderr);
    let disabled = ask(&["spec", "disable", "sample"]);
    assert!(disabled.stderr.contains("this needs the role admin"), "{}", disabled.stderr);
    let several = ask(&["comment", "1", "2", "--message", "x"]);
    assert!(several.stderr.contains("answers 403"), "{}", several.stderr);
    let without = run(place.tool(&["evaluate", "sample", "--server", &at]));
    assert!(without.stderr.contains("no token was sent: --token-file"), "{}", without.stderr);
    let audit = run(place.tool(&["audit"])).stdout;
    assert!(audit.contains("token narrow") && audit.contains("from afar"), "{audit}");
    assert_eq!(audit.matches("evaluate").count(), 2, "{audit}");
    server.signal("TERM");
    assert!(server.end().success());
}

#[test]
fn the_audit_of_another_server_reads_as_that_of_the_state_directory() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.jobs(&[("one", "command = \"true\"")]);
    place.specify(&[("sample", &repository, ""), ("other", &repository, "")]);
    place.write("config.toml", "[web]\nprivate = true\n");
    place.good_one_shot();
    let server = Process::start(place.command(&[]));
    let at = format!("http://{}", address(&server));
    for change in [
        &["comment", "1", "--message", "two\nlines"][..],
        &["comment", "--eval", "2", "--message", "x"],
        &["spec", "disable", "other", "--reason", "moved"],
    ] {
        let ended = run(place.tool(change));
        assert!(ended.status.success(), "{change:?}: {}", ended.stderr);
    }
    let make = ["token", "create", "narrow", "--role", "reader"];
    let token = run(place.tool(&make)).stdout;
    for more in [
        &[][..],
        &["--json"],
        &["--spec", "other"],
        &["--build", "1"],
        &["--eval", "2"],
        &["--number", "1", "--json"],
    ] {
        let arguments = [&["audit"][..], more].concat();
        let here = run(place.tool(&arguments)).stdout;
        assert!(here.lines().count() > 1, "{more:?}: {here}");
        let afar =
            with_token(&place, &[&arguments[..], &["--server", &*at]].concat(), token.trim());
        assert_eq!((afar.status.code(), afar.stdout), (Some(0), here), "{more:?}: {}", afar.stderr);
    }
    let without = run(place.tool(&["audit", "--server", &at]));
    assert_eq!(without.status.code(), Some(1));
    assert!(without.stderr.contains("no token was sent: --token-file"), "{}", without.stderr);
    server.signal("TERM");
    assert!(server.end().success());
}

#[test]
fn an_audit_that_another_server_makes_up_steers_no_terminal() {
    let place = Place::new();
    let json = "content-type: application/json\r\n";
    let row = r#"[{"id":1,"timestamp":0,"actor":"x\u001b[31m","change":"\u001b[2J","build":null,"evaluation":null,
        "specification":"s\u001b[1m","result":"two\nlines","reason":"\u001b]0;"}]"#;
    for (answer, status, said) in [
        (answer("200 OK", json, row), 0, ""),
        (answer("200 OK", json, "[]"), 0, "no change was asked for"),
        (answer("200 OK", json, "{}"), 1, "answers 200, and the answer cannot be read"),
        (answer("403 Forbidden", json, r#"{"error":"the role"}"#), 1, "answers 403: the role"),
        (answer("404 Not Found", "", "<html>"), 1, "this is no answer of Brigandine"),
        (String::new(), 1, "http://127.0.0.1"),
    ] {
        let (at, thread) = answering(&answer);
        let arguments = ["audit", "--spec", "a&b", "--server", &*at];
        let ended = with_token(&place, &arguments, TOKEN);
        let what = format!("{answer:?}: {} {}", ended.stdout, ended.stderr);
        assert_eq!(ended.status.code(), Some(status), "{what}");
        assert!(
            ended.stderr.contains(said) && !ended.stderr.contains("may have been made"),
            "{what}"
        );
        assert!(!ended.stdout.contains('\u{1b}') && !ended.stderr.contains('\u{1b}'), "{what}");
        assert_eq!(ended.stdout.contains("two; lines"), answer.contains("two"), "{what}");
        let asked = thread.join().expect("asked");
        let line = "GET /api/v1/audit?nr=20&specification=a%26b HTTP/1.1\r\n";
        assert!(asked.starts_with(line), "{asked}");
    }
    // Nothing is made here.
    assert!(!place.state().exists());
}
