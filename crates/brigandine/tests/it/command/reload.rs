//! `reload` and SIGHUP: the running server takes what its files say, or keeps what it has.

use super::serve::{address, text};
use crate::support::{Ended, PROGRAM, Place, Process, run, until};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;

/// Writes the server's configuration, with these lines besides the usual ones.
fn configure(place: &Place, more: &str) {
    let text = format!(
        "state = \"state\"\nlisten = \"127.0.0.1:0\"\nsandbox = \"off\"\ninterval = \"1d\"\n\
         specifications = [\"specifications.toml\"]\nreplace = true\n{more}\n"
    );
    place.write("config.toml", &text);
}

fn start(place: &Place) -> Process {
    let mut command = Command::new(PROGRAM);
    command.arg("serve").arg("--config").arg(place.path("config.toml")).env("RUST_LOG", "info");
    Process::start(command)
}

fn reload(place: &Place, more: &[&str]) -> Ended {
    run(place.tool(&[&["reload"], more].concat()))
}

/// A job that runs until the file `go` is there.
fn waiting(place: &Place) -> String {
    let go = place.path("go");
    format!("command = \"timeout 1000 sh -c 'until [ -e {} ]; do sleep 0.1; done'\"", go.display())
}

/// The first line of an answer to a request that names this host.
fn as_host(address: &str, host: &str) -> String {
    let mut socket = TcpStream::connect(address).expect("the server listens");
    write!(socket, "GET /healthz HTTP/1.0\r\nhost: {host}\r\n\r\n").expect("sent");
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line).expect("an answer");
    line
}

fn started(place: &Place) -> usize {
    place.rows("SELECT id FROM build WHERE status = -1").len()
}

#[test]
fn a_reload_takes_what_the_files_say_and_names_what_needs_a_restart() {
    let place = Place::new();
    let repository = place.repository("repository");
    let waiting = waiting(&place);
    repository.jobs(&[("one", &waiting), ("two", &format!("{waiting}\nenv = {{ N = \"2\" }}"))]);
    place.specify(&[("spec", &repository, "")]);
    configure(&place, "max-jobs = 1");
    let server = start(&place);
    let address = address(&server);
    let both = || place.rows("SELECT id FROM build").len() == 2 && started(&place) == 1;
    until(both, |both| *both);
    place.specify(&[("spec", &repository, "submodules = true"), ("late", &repository, "")]);
    configure(&place, "max-jobs = 2\ngit-filters = []\n[web]\nhosts = [\"ci.example.org\"]");
    assert!(as_host(&address, "other").contains(" 200 "));
    let page = text(&address, "/configuration");
    for said in
        ["<code>2</code> instead of <code>1</code>", "<dt>git-filters</dt>", "<dt>web.hosts</dt>"]
    {
        assert!(page.contains(said), "{said}: {page}");
    }
    let ended = reload(&place, &["--json"]);
    assert!(ended.status.success(), "{}{}", ended.stdout, ended.stderr);
    let said: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(said["changed"], serde_json::json!(["max-jobs", "web.hosts"]));
    assert_eq!(said["restart"], serde_json::json!(["git-filters"]));
    let specifications = serde_json::json!([["spec", "changed"], ["late", "new"]]);
    assert_eq!(said["specifications"], specifications);
    until(|| started(&place), |started| *started == 2);
    until(
        || place.rows("SELECT name FROM specification WHERE evaluation_id IS NOT NULL ORDER BY 1"),
        |names| *names == ["late", "spec"],
    );
    assert!(as_host(&address, "other").contains(" 421 "), "`hosts` is used at once");
    let again = reload(&place, &[]);
    assert!(
        again.stdout.contains("only by a restart of the server: git-filters"),
        "{}",
        again.stdout
    );
    std::fs::write(place.path("go"), "").expect("a file");
    server.signal("TERM");
    assert!(server.end().success());
}

#[test]
fn a_server_that_waits_for_its_builds_answers_that_it_reloads_nothing() {
    let place = Place::new();
    let repository = place.repository("repository");
    repository.jobs(&[("job", &waiting(&place))]);
    place.specify(&[("spec", &repository, "")]);
    configure(&place, "drain = true");
    let server = start(&place);
    let _ = address(&server);
    until(|| started(&place), |started| *started == 1);
    server.signal("TERM");
    server.trace("running builds may end");
    configure(&place, "drain = true\nmax-jobs = 2");
    let ended = reload(&place, &[]);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stdout);
    assert!(ended.stderr.contains("the next one reads the files"), "{}", ended.stderr);
    server.signal("HUP");
    server.trace("by=\"SIGHUP\"");
    std::fs::write(place.path("go"), "").expect("a file");
    assert!(server.end().success());
    assert_eq!(place.rows("SELECT status FROM build"), ["0"]);
}

#[test]
fn a_reload_of_files_with_mistakes_changes_nothing_and_is_told_everywhere() {
    let place = Place::new();
    let repository = place.repository("repository");
    repository.jobs(&[("job", "command = \"true\"")]);
    place.specify(&[("spec", &repository, "")]);
    configure(&place, "");
    let server = start(&place);
    let address = address(&server);
    configure(&place, "max-jobs = 0");
    let ended = reload(&place, &[]);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stdout);
    assert!(
        ended.stderr.contains("the server keeps the configuration that it has"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("config.toml:7"), "{}", ended.stderr);
    server.trace("the configuration was not reloaded, and everything stays as it was");
    assert!(text(&address, "/configuration").contains("the server would not start again"));
    let status = run(place.tool(&["status"]));
    assert!(status.stdout.contains("was not reloaded"), "{}", status.stdout);
    configure(&place, "drain = true");
    // A mistake in a specification file is as good a reason.
    place.write("specifications.toml", "[[specification]]\nname = 3\n");
    let ended = reload(&place, &[]);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stdout);
    assert!(ended.stderr.contains("specifications.toml:2"), "{}", ended.stderr);
    place.specify(&[("spec", &repository, "")]);
    server.signal("HUP");
    server.trace("the configuration was reloaded");
    until(|| text(&address, "/configuration"), |page| page.contains("Changed: drain."));
    let status = run(place.tool(&["status"]));
    assert!(!status.stdout.contains("was not reloaded"), "{}", status.stdout);
    let unknown = text(&address, "/configuration");
    assert!(!unknown.contains("token-file</dt><dd><code>"), "{unknown}");
    server.signal("TERM");
    assert!(server.end().success());
    let ended = reload(&place, &[]);
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("no server runs on"), "{}", ended.stderr);
}
