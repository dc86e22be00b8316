//! The pages of a log's lines, and the keys that lead to them, in Chromium.

use crate::command::serve::{address, text};
use crate::support::browser::Browser;
use crate::support::{Place, Process};
use std::io::{BufWriter, Write};

/// The most bytes by which a page of a large log may let the server grow.
const GROWTH_MAX: u64 = 16 << 20;
/// The most elements of a page.
const ELEMENTS_MAX: u64 = 2_000;

/// A server with a build that failed, `bad`, which is build 1 and has printed this.
fn failed(script: &str) -> (Place, Process, String) {
    let place = Place::new();
    let repository = place.repository("repository");
    repository.jobs(&[("bad", &format!("command = \"{script}; exit 1\""))]);
    place.specify(&[("spec", &repository, "")]);
    place.one_shot();
    let server = Process::start(place.command(&["--interval", "1d"]));
    let address = address(&server);
    (place, server, address)
}

/// Puts a log of this many lines in the place of build 1's.
fn put_log(place: &Place, lines: u64) {
    let path = place.rows("SELECT log_path FROM build WHERE id = 1").remove(0);
    let file = std::fs::File::create(place.state().join(path)).expect("a file");
    let mut file = BufWriter::new(zstd::Encoder::new(file, 1).expect("zstd"));
    for number in 1..=lines {
        writeln!(file, "line {number:012} of a log that is as long as it may be, and longer")
            .expect("written");
    }
    let file = file.into_inner().unwrap_or_else(|error| panic!("{}", error.error()));
    file.finish().expect("written");
}

/// A figure of the server's memory, in bytes.
fn memory(server: &Process, name: &str) -> u64 {
    let path = format!("/proc/{}/status", server.child.id());
    let status = std::fs::read_to_string(path).expect("the server runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
    let kib = line.trim_start_matches(':').trim().trim_end_matches(" kB");
    kib.parse::<u64>().expect("a number") << 10
}

/// The long form has a log of 1 GiB.
#[test]
fn a_page_of_a_log_is_small_however_long_the_log_is() {
    const LINE: u64 = 68;
    let is_long = std::env::var_os("LOCKKEEPER_LONG").is_some();
    let count = if is_long { 1 << 30 } else { 1 << 24 } / LINE;
    let (place, server, address) = failed("echo no");
    put_log(&place, 2_000);
    assert!(text(&address, "/build/1/log?line=1001").contains("id=\"L1001\""));
    put_log(&place, count);
    // From here on the kernel notes the most memory that the server has.
    std::fs::write(format!("/proc/{}/clear_refs", server.child.id()), "5").expect("noted");
    let before = memory(&server, "VmRSS");
    for number in [1, count / 2, count] {
        let page = text(&address, &format!("/build/1/log?line={number}"));
        let text = format!("line {number:012} of a log");
        assert!(page.contains(&format!("id=\"L{number}\"")) && page.contains(&text), "{number}");
    }
    let found = text(&address, &format!("/build/1/log?find={count:012}"));
    assert!(found.contains("1 line with this text") && found.contains(&format!("id=\"L{count}\"")));
    let grown = memory(&server, "VmHWM").saturating_sub(before);
    println!("{count} lines: the server grew by {} KiB", grown >> 10);
    assert!(grown <= GROWTH_MAX, "{grown} bytes");
    let browser = Browser::start(&place.path("profile"));
    browser.open(&format!("http://{address}/build/1/log?line=1001#L1003-1005"));
    let elements = browser.run("return document.querySelectorAll('*').length").as_u64();
    assert!(elements.expect("a number") <= ELEMENTS_MAX, "{elements:?}");
    let marked = "return [...document.querySelectorAll('.here')].map((line) => line.id).join()";
    assert_eq!(browser.run(marked), "L1003,L1004,L1005");
    // With the shift key, a number makes a range that begins at the line of the address.
    browser.run(
        "location.hash = 'L1010'; document.querySelector('#L1007 > a')
           .dispatchEvent(new MouseEvent('click', { bubbles: true, cancelable: true, shiftKey: true }))",
    );
    browser.wait("return location.hash === '#L1007-1010'");
    assert_eq!(browser.run(marked), "L1007,L1008,L1009,L1010");
    drop(browser);
    server.signal("TERM");
    assert!(server.end().success());
}

#[test]
fn from_the_overview_the_first_error_of_a_failure_is_two_keys_or_two_clicks_away() {
    let script = "seq 700; echo 'error: this one'; seq 700; echo 'error: a later one'";
    let (place, server, address) = failed(script);
    let site = format!("http://{address}");
    let browser = Browser::start(&place.path("profile"));
    let at_error = "return location.pathname.endsWith('/log') && location.hash === '#L701'
        && document.querySelector(':target')?.textContent === '701error: this one'";
    let press = |key: &str| {
        browser.run(&format!(
            "document.body.dispatchEvent(new KeyboardEvent('keydown', {{ key: '{key}', bubbles: true }}))"
        ));
    };
    browser.open(&site);
    press("e");
    browser.wait(
        "return location.pathname === '/build/1' && document.title.startsWith('failed: bad')",
    );
    press("e");
    browser.wait(at_error);
    browser.open(&site);
    browser.run("document.querySelector('main .row.bad > a').click()");
    browser.wait("return document.querySelector('main a[href*=\"line=error\"]') !== null");
    browser.run("document.querySelector('main a[href*=\"line=error\"]').click()");
    browser.wait(at_error);
    // The other keys, and the list of them.
    browser.open(&site);
    press("j");
    let first = browser.run("return document.activeElement.href");
    press("j");
    assert_ne!(browser.run("return document.activeElement.href"), first);
    press("k");
    assert_eq!(browser.run("return document.activeElement.href"), first);
    press("?");
    let keys = "return [...document.querySelectorAll('dialog[open] dt')].map((key) => key.textContent).join('')";
    assert_eq!(browser.run(keys), "jkef/hq?");
    press("?");
    assert_eq!(browser.run(keys), "");
    press("q");
    browser.wait("return location.pathname === '/queue'");
    press("h");
    browser.wait("return location.pathname === '/'");
    browser.open(&format!("{site}/eval/1"));
    press("/");
    browser.wait("return document.activeElement.type === 'search'");
    // What somebody types is no key.
    browser.run("document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key: 'q', bubbles: true }))");
    assert_eq!(browser.run("return location.pathname"), "/eval/1");
    drop(browser);
    server.signal("TERM");
    assert!(server.end().success());
}
