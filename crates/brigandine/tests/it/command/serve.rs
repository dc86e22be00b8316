//! Tests `brigandine serve` from outside: its address, its pages while builds run, its shutdown.

use crate::support::{Place, Process, run, within};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The address in the first line of a server.
pub(crate) fn address(server: &Process) -> String {
    let line = server.line();
    let address = line.strip_prefix("listening at http://");
    address.unwrap_or_else(|| panic!("no address in {line:?}")).to_owned()
}

/// Requests `path`. The result reads the whole answer, including the head.
pub(crate) fn get(address: &str, path: &str) -> BufReader<TcpStream> {
    let mut socket = TcpStream::connect(address).expect("the server listens");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a time limit");
    write!(socket, "GET {path} HTTP/1.0\r\naccept: text/html\r\n\r\n").expect("sent");
    BufReader::new(socket)
}

pub(crate) fn text(address: &str, path: &str) -> String {
    let mut text = String::new();
    get(address, path).read_to_string(&mut text).expect("an answer");
    text
}

/// A job that prints "begun" and ends when somebody writes into the pipe `gate`.
pub(crate) fn gated(place: &Place) -> String {
    let gate = place.path("gate");
    let done = std::process::Command::new("mkfifo").arg(&gate).status().expect("mkfifo");
    assert!(done.success());
    // The wait has a time limit, so that a failing test leaves no process behind. The longest test takes minutes.
    format!("command = \"echo begun; timeout 1000 cat '{}'; echo '<done>'\"", gate.display())
}

pub(crate) fn open_gate(place: &Place) {
    let gate = place.path("gate");
    within(move || std::fs::write(gate, "opened\n").expect("the job waits"));
}

#[test]
fn a_log_is_followed_over_http_and_by_the_command_while_the_build_runs() {
    let place = Place::new();
    let repository = place.repository("repository");
    repository.jobs(&[("slow", &gated(&place))]);
    place.specify(&[("spec", &repository, "")]);
    let server = Process::start(place.command(&[]));
    let address = address(&server);
    // The stream of the pages reports when the build has begun. Its first message always comes.
    let mut changes = get(&address, "/live");
    let mut line = String::new();
    let mut log = loop {
        line.clear();
        changes.read_line(&mut line).expect("a line");
        assert!(!line.is_empty(), "the stream of changes ended");
        if line.starts_with("event: change") {
            let mut answer = get(&address, "/build/1/log/raw");
            let mut first = String::new();
            answer.read_line(&mut first).expect("an answer");
            if first.contains("200") {
                break answer;
            }
        }
    };
    // test                          | job
    // waits for "begun"             | prints "begun", waits for the gate
    // opens the gate                | prints the rest
    // reads to the end of the log   |
    line.clear();
    while !line.contains("begun") {
        line.clear();
        assert!(log.read_line(&mut line).expect("a line") > 0, "the log ended early");
    }
    let follower = Process::start(place.tool(&["log", "1", "--follow"]));
    assert_eq!(follower.line(), "begun");
    let page = text(&address, "/build/1");
    assert!(
        page.contains(">running<")
            && page.contains("data-log=\"/build/1/log/live?attempt=1&amp;offset=6\"")
    );
    open_gate(&place);
    let mut rest = String::new();
    log.read_to_string(&mut rest).expect("the end");
    assert!(rest.contains("opened") && rest.contains("<done>"), "{rest}");
    assert_eq!(follower.rest(), ["opened", "<done>"]);
    assert!(follower.end().success());
    // The finished log, which is compressed, has the same text. Only pages escape it.
    assert!(text(&address, "/build/1/log/raw").ends_with("begun\nopened\n<done>\n"));
    server.signal("TERM");
    assert!(server.end().success());
}

#[test]
fn a_port_in_use_is_told_and_nothing_is_left_running() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let mut line = std::process::Command::new(crate::support::PROGRAM);
    line.args(["serve", "--listen", &address, "--state"]).arg(place.state());
    let ended = run(line);
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("another program listens there"), "{}", ended.stderr);
}

#[test]
fn a_second_server_on_the_same_state_is_refused() {
    let place = Place::new();
    let repository = place.repository("repository");
    repository.jobs(&[("job", "command = \"true\"")]);
    place.specify(&[("spec", &repository, "")]);
    let server = Process::start(place.command(&[]));
    address(&server);
    let ended = run(place.command(&[]));
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("another brigandine serves"), "{}", ended.stderr);
    server.signal("INT");
    assert!(server.end().success());
}

#[test]
fn a_wrong_specification_file_keeps_the_server_from_starting() {
    let place = Place::new();
    place.write("specifications.toml", "[[specification]]\nnmae = \"x\"\n");
    let ended = run(place.command(&[]));
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("did you mean `name`?"), "{}", ended.stderr);
    assert!(!place.state().exists(), "nothing was touched");
}
