//! `brigandine user` and `brigandine token`, beside a running server.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::serve::address;
use crate::support::browser::Browser;
use crate::support::{Ended, PATIENCE, PROGRAM, Place, Process, run, until};
use crate::weather::axe::findings;

/// Sends a request with these header lines. Status and text of the answer.
fn ask(address: &str, method: &str, path: &str, lines: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(address).expect("the server listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
    let request =
        format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lines}\r\n");
    socket.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, answer)
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {}\r\n", token.trim())
}

/// A server with two specifications, which have nothing to build.
fn two() -> (Place, crate::support::Repository, Process, String) {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.jobs(&[("one", "command = \"true\"")]);
    place.specify(&[("first", &repository, ""), ("second", &repository, "")]);
    let server = Process::start(place.command(&[]));
    let address = address(&server);
    (place, repository, server, address)
}

const FIRST: &str = "/api/v1/jobset/first/evaluate";
const SECOND: &str = "/api/v1/jobset/second/evaluate";

#[test]
fn a_token_is_valid_where_its_scope_says_until_it_is_revoked() {
    let (place, _repository, server, address) = two();
    let create = |arguments: &[&str]| {
        let ended = run(place.tool(&[&["token", "create"], arguments].concat()));
        assert!(ended.status.success(), "{}", ended.stderr);
        ended.stdout
    };
    let all = create(&["deploy"]);
    let of_first = create(&["first", "--in", "main/first"]);
    let reader = create(&["reader", "--role", "reader", "--expires", "1h"]);
    let status = |path: &str, token: &str| ask(&address, "POST", path, &bearer(token)).0;
    assert_eq!((status(FIRST, &all), status(SECOND, &all)), (202, 202));
    assert_eq!((status(FIRST, &of_first), status(SECOND, &of_first)), (202, 403));
    assert_eq!((status(FIRST, &reader), status(FIRST, "brg_0")), (403, 401));
    // A token that has ended.
    place
        .database()
        .execute_batch("UPDATE token SET expires_at = 1 WHERE name = 'first'")
        .expect("changed");
    assert_eq!(status(FIRST, &of_first), 401);
    // A name that is taken.
    let ended = run(place.tool(&["token", "create", "deploy"]));
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    // No text of a token is stored.
    let stored =
        place.rows("SELECT hex(digest) || name || scope FROM token").join(" ").to_lowercase();
    for token in [&all, &of_first, &reader] {
        assert!(!stored.contains(token.trim().trim_start_matches("brg_")), "{stored}");
    }
    assert_eq!(place.rows("SELECT used_at > 0 FROM token WHERE name = 'deploy'"), ["1"]);
    let listed = run(place.tool(&["token", "list"])).stdout;
    assert!(
        listed.contains("deploy") && listed.contains("main/first") && listed.contains("(ended)"),
        "{listed}"
    );
    let ended = run(place.tool(&["token", "revoke", "deploy"]));
    assert!(ended.status.success(), "{}", ended.stderr);
    assert_eq!(status(FIRST, &all), 401);
    let ended = run(place.tool(&["token", "revoke", "deploy"]));
    assert_eq!(ended.status.code(), Some(3), "{}", ended.stderr);
    server.signal("TERM");
    assert!(server.end().success());
}

/// Runs `brigandine user` with a text on standard input.
fn user(place: &Place, arguments: &[&str], input: &str) -> Ended {
    let path = place.write("input", input);
    let mut command = Command::new(PROGRAM);
    command.arg("user").args(arguments).arg("--state").arg(place.state());
    command.stdin(Stdio::from(std::fs::File::open(path).expect("the input")));
    run(command)
}

#[test]
fn a_role_that_allows_nothing_yet_is_given_with_a_word_about_it() {
    let (place, _repository, _server, _address) = two();
    let said = |arguments: &[&str]| {
        let ended = user(&place, arguments, "correct-horse-battery\n");
        assert!(ended.status.success(), "{}", ended.stderr);
        ended.stderr
    };
    said(&["add", "alice", "--role", "admin"]);
    for (scope, wanted) in [
        ("main", ""),
        ("main/first", ""),
        (
            "first",
            "no project with specifications `first` yet, so the role allows nothing now; did you mean `--in main/first`?",
        ),
        (
            "main/secnd",
            "no specification `main/secnd` yet, so the role allows nothing now; did you mean `--in main/second`?",
        ),
        (
            "elsewhere",
            "no project with specifications `elsewhere` yet, so the role allows nothing now\n",
        ),
    ] {
        for said in [
            said(&["role", "alice", "builder", "--in", scope]),
            said(&["add", &format!("of-{}", scope.replace('/', "-")), "--in", scope]),
            run(place.tool(&["token", "create", &scope.replace('/', "-"), "--in", scope])).stderr,
        ] {
            assert_eq!(said.contains("allows nothing now"), !wanted.is_empty(), "{scope}: {said}");
            assert!(said.contains(wanted), "{scope}: {said}");
        }
        assert_eq!(said(&["role", "alice", "none", "--in", scope]), "", "{scope}");
    }
}

/// The status of a login with JSON, and the cookie.
fn log_in(address: &str, name: &str, password: &str) -> (u16, Option<String>) {
    let body = serde_json::json!({"username": name, "password": password}).to_string();
    let length = body.len();
    let lines = format!("content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}");
    let (status, answer) = ask(address, "POST", "/login", &lines);
    let cookie = answer.lines().find_map(|line| line.strip_prefix("set-cookie: "));
    let cookie = cookie.and_then(|line| line.split(';').next());
    (status, cookie.map(|cookie| format!("cookie: {cookie}\r\ncontent-type: application/json\r\n")))
}

#[test]
fn a_user_logs_in_until_the_password_the_role_or_the_user_goes() {
    let (place, _repository, server, address) = two();
    let good = |arguments: &[&str], input: &str| {
        let ended = user(&place, arguments, input);
        assert!(ended.status.success(), "{arguments:?}: {}", ended.stderr);
        ended.stdout + &ended.stderr
    };
    assert!(good(&["add", "bob"], "the password of bob\n").contains("no administrator yet"));
    good(&["add", "alice", "--role", "admin"], "the password of alice\n");
    for (arguments, input, status) in [
        (&["add", "carol"][..], "short\n", 1),
        (&["add", "carol"], "", 1),
        (&["add", "alice"], "another password\n", 1),
        (&["remove", "alice"], "", 1),
        (&["disable", "alice"], "", 1),
        (&["role", "alice", "builder"], "", 1),
        (&["remove", "carol"], "", 3),
        (&["add", "not a name"], "", 2),
    ] {
        let ended = user(&place, arguments, input);
        assert_eq!(ended.status.code(), Some(status), "{arguments:?}: {}", ended.stderr);
    }
    let status = |path: &str, cookie: &Option<String>| {
        ask(&address, "POST", path, cookie.as_deref().expect("a cookie")).0
    };
    for (name, password) in [("bob", "wrong password"), ("nobody", "the password of bob"), ("", "")]
    {
        assert_eq!(log_in(&address, name, password).0, 403, "{name}");
    }
    let (code, bob) = log_in(&address, "bob", "the password of bob");
    assert_eq!((code, status(FIRST, &bob)), (200, 403));
    good(&["role", "bob", "builder", "--in", "main/first"], "");
    assert_eq!((status(FIRST, &bob), status(SECOND, &bob)), (202, 403));
    good(&["role", "bob", "none", "--in", "main/first"], "");
    assert_eq!(status(FIRST, &bob), 403);
    good(&["role", "bob", "builder"], "");
    assert_eq!(status(SECOND, &bob), 202);
    // Every way in which a session ends early.
    let ways: [(&[&str], &str); 3] = [
        (&["revoke", "bob"], ""),
        (&["passwd", "bob"], "another password\n"),
        (&["disable", "bob"], ""),
    ];
    let mut password = "the password of bob";
    for (arguments, input) in ways {
        let (code, bob) = log_in(&address, "bob", password);
        assert_eq!((code, status(FIRST, &bob)), (200, 202));
        assert!(good(&["sessions", "bob"], "").contains("127.0.0.1"));
        good(arguments, input);
        assert_eq!(status(FIRST, &bob), 401, "{arguments:?}");
        if !input.is_empty() {
            password = input.trim();
        }
    }
    assert_eq!(log_in(&address, "bob", password).0, 403, "a disabled user");
    good(&["enable", "bob"], "");
    assert_eq!(log_in(&address, "bob", password).0, 200);
    // A session that has ended by itself.
    let (_, bob) = log_in(&address, "bob", password);
    place
        .database()
        .execute_batch("UPDATE session SET used_at = used_at - 8 * 86400")
        .expect("changed");
    assert_eq!(status(FIRST, &bob), 401);
    good(&["remove", "bob"], "");
    assert_eq!(log_in(&address, "bob", password).0, 403);
    let stored = place.rows("SELECT password FROM user").join(" ");
    assert!(stored.starts_with("$argon2id$") && !stored.contains("alice"), "{stored}");
    server.signal("TERM");
    assert!(server.end().success());
}

#[test]
fn a_browser_logs_in_and_out_of_a_private_server_with_scripts_and_without() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.jobs(&[("one", "command = \"true\"")]);
    place.specify(&[("first", &repository, "")]);
    place.write("config.toml", "[web]\nprivate = true\n");
    let server = Process::start(place.command(&[]));
    let site = format!("http://{}", address(&server));
    let ended = user(&place, &["add", "alice"], "the password of alice\n");
    assert!(ended.status.success(), "{}", ended.stderr);
    let browser = Browser::start(&place.path("profile"));
    let at = |path: &str| browser.wait(&format!("return location.pathname === '{path}'"));
    for scripts in [true, false] {
        browser.allow_scripts(scripts);
        browser.open(&format!("{site}/jobset/first"));
        at("/login");
        let log_in = |password: &str| {
            browser.run(&format!(
                "document.getElementById('name').value = 'alice';
                 document.getElementById('password').value = '{password}';
                 document.querySelector('.account button').click();"
            ));
        };
        log_in("another password");
        browser.wait("return document.querySelector('[role=alert]') !== null");
        log_in("the password of alice");
        at("/jobset/first");
        let title = browser.run("return document.querySelector('h1').textContent");
        assert!(title.as_str().is_some_and(|title| title.contains("first")), "{title}");
        assert_eq!(browser.run("return document.cookie"), "", "no script reads the cookie");
        browser.open(&format!("{site}/login"));
        browser.run("document.querySelector('.account button').click();");
        at("/login");
        browser.wait("return document.getElementById('name') !== null");
        browser.open(&format!("{site}/queue"));
        at("/login");
    }
    drop(browser);
    server.signal("TERM");
    assert!(server.end().success());
}

#[test]
fn a_browser_comments_cancels_and_restarts_with_scripts_and_without() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.jobs(&[("one", "command = \"sleep 1000\"")]);
    place.specify(&[("first", &repository, "")]);
    let server = Process::start(place.command(&[]));
    let site = format!("http://{}", address(&server));
    let ended = user(&place, &["add", "bob", "--role", "builder"], "the password of bob\n");
    assert!(ended.status.success(), "{}", ended.stderr);
    let status = |wanted: &'static str| until(|| place.jobs(1), |jobs| jobs == &[wanted]);
    status("one|-1");
    let browser = Browser::start(&place.path("profile"));
    for scripts in [true, false] {
        browser.allow_scripts(scripts);
        browser.open(&format!("{site}/build/1"));
        assert_eq!(browser.run("return document.querySelector('.change')"), Value::Null);
        browser.open(&format!("{site}/login?next=/build/1"));
        browser.run(
            "document.getElementById('name').value = 'bob';
             document.getElementById('password').value = 'the password of bob';
             document.querySelector('.account button').click();",
        );
        let press = |change: &str, why: &str| {
            let button = format!("document.querySelector('.change button[value={change}]')");
            browser.wait(&format!("return {button} !== null"));
            browser.run(&format!(
                "document.getElementById('reason').value = '{why}'; {button}.click();"
            ));
            // The new page shows the change, and an empty field.
            browser.wait(&format!(
                "const part = document.querySelector('[data-part=audit]');
                 return part !== null && part.textContent.includes('{why}')"
            ));
        };
        browser.wait("return document.querySelector('.change') !== null");
        for path in ["/login", "/jobset/first", "/eval/1", "/build/1"].iter().filter(|_| scripts) {
            browser.open(&format!("{site}{path}"));
            assert_eq!(findings(&browser, ""), [""; 0], "{path}, with its buttons");
        }
        press("comment", &format!("noted {scripts}"));
        press("cancel", &format!("stopped {scripts}"));
        status("one|4");
        browser.open(&format!("{site}/build/1"));
        press("restart", &format!("again {scripts}"));
        status("one|-1");
        browser.open(&format!("{site}/login"));
        browser.run("document.querySelector('.account button').click();");
        browser.wait("return location.pathname === '/'");
    }
    drop(browser);
    let changes = place.rows("SELECT change FROM audit WHERE actor = 'bob' ORDER BY id");
    assert_eq!(changes, ["comment", "cancel", "restart", "comment", "cancel", "restart"]);
    assert!(run(place.tool(&["cancel", "1"])).status.success());
    server.signal("TERM");
    assert!(server.end().success());
}
