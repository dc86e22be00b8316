//! Opens every page of the router in Chromium, with the widths of a telephone and of a desktop, with scripts and
//! without.

use crate::command::serve::{address, gated, open_gate, text};
use crate::support::browser::Browser;
use crate::support::{Place, Process, run, until};

/// The kind, route and address of each page; the file's header explains them.
const LIST: &str = include_str!("../../data/pages/routes.txt");
const FILL: &str = include_str!("../../data/pages/fill.sql");

/// A script that finds the faults of the open page: content that is cut off, and content that makes the page wider than
/// the window.
const FAULTS: &str = include_str!("faults.js");

/// The widths of a telephone and of a desktop, in pixels.
const WIDTHS: [u32; 2] = [375, 1440];

/// A server that shows every state at the same time: the sample with its build logs, a running build, a build that
/// waits for a free place, a build that waits for another build, and an evaluation that failed.
pub(super) fn busy() -> (Place, Process, String) {
    let place = Place::new();
    let repository = place.repository("repository");
    let running = gated(&place).replace(
        "echo begun",
        "printf 'begun\\\\n%s\\\\n10%%\\\\r55%% of it' \\\"$(seq -s '' 3000)\\\"",
    );
    repository.jobs(&[
        ("running", &(running + "\npriority = 9")),
        ("queued", "command = \"true\""),
        ("waiting", "command = \"true\"\nneeds = [\"running\"]"),
    ]);
    let broken = place.repository("broken");
    broken.commit(&[("brigandine.toml", "[[job]]\nnmae = \"x\"\n")]);
    let gone = crate::support::Repository { path: place.path("gone") };
    place.specify(&[("busy", &repository, ""), ("broken", &broken, ""), ("nowhere", &gone, "")]);
    let server = Process::start(place.command_at("1", &[]));
    let address = address(&server);
    until(|| text(&address, "/build/1"), |page| page.contains("55% of it"));
    // The rows are inserted while the server runs. When it starts, it would repair them as the remains of a killed
    // server.
    place.database().execute_batch(&format!("BEGIN;{FILL}COMMIT;")).expect("filled");
    let logs = place.state().join("logs/build/1");
    std::fs::create_dir_all(&logs).expect("a directory");
    let wide = "x".repeat(4000) + "\n" + &"\u{1b}[1;31mred \u{1b}[0m日本語 ".repeat(300);
    let long = (0..9000).map(|line| format!("line {line} of a long log\n")).collect::<String>();
    for (name, text) in [
        ("1001-1.log", &*long),
        ("1002-1.log", "first attempt\n"),
        ("1002-2.log", &*wide),
        ("1004-1.log", &*"\rprogress".repeat(50_000)),
        ("1010-1.log", "\0\0<b>bold</b>\n\u{1b}]0;title\nafter"),
        ("1012-1.log.zst", "no zstd"),
    ] {
        std::fs::write(logs.join(name), text).expect("written");
    }
    (place, server, format!("http://{address}"))
}

/// The kind and the address of each page.
pub(super) fn pages() -> impl Iterator<Item = (&'static str, &'static str)> {
    LIST.lines().filter(|line| !line.starts_with(['#', 'f'])).map(|line| {
        let mut words = line.split_whitespace();
        (words.next().unwrap_or_default(), words.next_back().unwrap_or_default())
    })
}

/// The messages on the console, except the one that reports the status of a refused page.
fn console(browser: &Browser, kind: &str) -> Vec<String> {
    let refused =
        |line: &String| kind == "refused" && line.contains("server responded with a status of 40");
    browser.console().into_iter().filter(|line| !refused(line)).collect()
}

#[test]
fn every_page_is_whole_on_every_width_and_says_nothing_on_the_console() {
    let (place, server, site) = busy();
    let browser = Browser::start(&place.path("profile"));
    let mut faults = Vec::new();
    let own = [
        "/build/1",
        "/build/2",
        "/build/3",
        "/eval/1",
        "/eval/2",
        "/jobset/broken",
        "/jobset/nowhere",
    ];
    for width in WIDTHS {
        browser.resize(width);
        for (kind, path) in pages().chain(own.map(|path| ("page", path))) {
            browser.open(&format!("{site}{path}"));
            // Waits until the page's stream of changes is open, or the page has none.
            browser.wait("return !document.body.dataset.live || document.getElementById('link').textContent === 'live'");
            for fault in browser.run(FAULTS).as_array().expect("a list") {
                faults.push(format!("{path} at {width}: {fault}"));
            }
            for line in console(&browser, kind) {
                faults.push(format!("{path} at {width}, console: {line}"));
            }
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    open_gate(&place);
    drop(browser);
    server.signal("TERM");
    assert!(server.end().success());
}

#[test]
fn every_page_has_its_contents_without_scripts() {
    let (place, server, site) = busy();
    let browser = Browser::start(&place.path("profile"));
    // Leaves out times and the free space of the disk, which differ between the two requests, and the words that only
    // pages with or without scripts show.
    let text = "const copy = document.getElementById('main').cloneNode(true);
        copy.querySelectorAll('time, .took, noscript, label, .part').forEach((it) => it.remove());
        return copy.textContent.replace(/\\s+/g, ' ').replace(/[0-9.]+ [KMGT]?i?B is\\./, '');";
    for (_, path) in pages() {
        browser.open(&format!("{site}{path}"));
        let with = browser.run(text);
        browser.allow_scripts(false);
        browser.open(&format!("{site}{path}"));
        assert_eq!(browser.run("return typeof takeOver"), "undefined", "scripts are off");
        assert_eq!(browser.run(text), with, "{path}");
        browser.allow_scripts(true);
    }
    browser.allow_scripts(false);
    browser.open(&format!("{site}/build/1"));
    let log = browser.run("return document.getElementById('log').innerText");
    let log = log.as_str().unwrap_or_default();
    assert!(
        log.contains("begun") && log.contains("55% of it") && log.contains("That is all so far"),
        "{log}"
    );
    open_gate(&place);
    drop(browser);
    server.signal("TERM");
    assert!(server.end().success());
}

#[test]
fn an_open_page_takes_over_what_differs_and_asks_for_nothing_while_it_is_hidden() {
    let place = Place::new();
    let (changing, other) = (place.repository("changing"), place.repository("other"));
    changing.jobs(&[("one", "command = \"true\"")]);
    other.jobs(&[("one", "command = \"true\""), ("two", "command = \"true\"")]);
    place.specify(&[("changing", &changing, ""), ("other", &other, "")]);
    let server = Process::start(place.command(&[]));
    let address = address(&server);
    until(|| text(&address, "/"), |page| page.matches("<span>all succeeded</span>").count() == 2);
    let browser = Browser::start(&place.path("profile"));
    browser.open(&format!("http://{address}"));
    let shows = |name: &str, text: &str| {
        browser.wait(&format!("return document.querySelector('[data-part=\"last {name}\"]').innerText.includes('{text}')"));
    };
    let asked = || {
        browser.run("return performance.getEntriesByType('resource').filter((it) => it.initiatorType === 'fetch').length")
    };
    let settled =
        "return document.getElementById('link').textContent === 'live' && !asking && !again";
    browser.wait(settled);
    browser.run("document.querySelector('[data-part=\"last other\"] .what').mark = 'kept'; window.hides = true;
        Object.defineProperty(document, 'hidden', { get: () => window.hides }); return 0");
    let before = asked();
    changing.jobs(&[
        ("one", "command = \"true\""),
        ("new", "command = \"true\""),
        ("third", "command = \"true\""),
    ]);
    assert!(run(place.tool(&["evaluate", "changing", "--wait"])).status.success());
    browser.wait("return again && !asking");
    assert_eq!(asked(), before, "a page that nobody sees asks for nothing");
    shows("changing", "1 job");
    browser.run(
        "window.hides = false; document.dispatchEvent(new Event('visibilitychange')); return 0",
    );
    shows("changing", "3 jobs");
    browser.wait(settled);
    assert!(asked().as_u64() > before.as_u64());
    let kept =
        browser.run("return document.querySelector('[data-part=\"last other\"] .what').mark");
    assert_eq!(kept, "kept", "what does not differ is left alone");
    assert_eq!(browser.console(), [""; 0]);
    drop(browser);
    server.signal("TERM");
    assert!(server.end().success());
}

/// What may come of the question of an open page, besides an answer.
const REFUSALS: [&str; 3] = [
    "return new Response('', { status: 503 })",
    "return new Response('', { status: 429 })",
    "throw new TypeError('the connection was cut')",
];

#[test]
fn an_open_page_whose_question_is_refused_asks_again_although_nothing_more_happens() {
    let place = Place::new();
    let repository = place.repository("repository");
    repository.jobs(&[("one", "command = \"true\"")]);
    place.specify(&[("spec", &repository, "")]);
    let server = Process::start(place.command(&[]));
    let address = address(&server);
    until(|| text(&address, "/build/1"), |page| page.contains("succeeded"));
    let browser = Browser::start(&place.path("profile"));
    browser.open(&format!("http://{address}/jobset/spec"));
    for (refusal, evaluation) in REFUSALS.into_iter().zip(2..) {
        browser.wait(
            "return document.getElementById('link').textContent === 'live' && !asking && !again",
        );
        // The pauses of the script are shorter, for this test to be short.
        browser.run(&format!(
            "window.last = 0; window.real ??= window.fetch; window.slow ??= window.setTimeout;
             window.setTimeout = (what, ms) => window.slow(what, ms / 20);
             window.fetch = async () => {{ window.last = Date.now(); {refusal}; }}; return 0"
        ));
        repository.jobs(&[("one", &format!("command = \"echo {evaluation}\""))]);
        assert!(run(place.tool(&["evaluate", "spec", "--wait"])).status.success());
        // Events are told within 400 ms, so this question is not due to one.
        browser.run("window.done = Date.now(); return 0");
        browser.wait("return window.last > window.done + 2000");
        browser.run("window.fetch = window.real; return 0");
        browser.wait(&format!(
            "const all = document.querySelector('[data-part=evaluations]').innerText;
             return all.includes('#{evaluation}')"
        ));
    }
    assert_eq!(browser.console(), [""; 0]);
    drop(browser);
    server.signal("TERM");
    assert!(server.end().success());
}

#[test]
fn an_open_page_follows_its_build_through_a_restart_to_the_new_log() {
    let place = Place::new();
    let repository = place.repository("repository");
    let command = gated(&place).replace(
        "echo begun",
        "echo start of $BRIGANDINE_ATTEMPT; test $BRIGANDINE_ATTEMPT = 2; printf 'half a line'",
    );
    repository.jobs(&[("twice", &command)]);
    place.specify(&[("spec", &repository, "")]);
    let server = Process::start(place.command(&[]));
    let address = address(&server);
    let browser = Browser::start(&place.path("profile"));
    let shows = |text: &str| {
        browser.wait(&format!("return document.body.innerText.includes('{text}')"));
    };
    browser.open(&format!("http://{address}"));
    shows("1 failed");
    browser.open(&format!("http://{address}/build/1"));
    shows("start of 1");
    shows("exit status 1");
    assert!(run(place.tool(&["restart", "1"])).status.success());
    shows("start of 2");
    // The unfinished line is shown too.
    shows("half a line");
    let log = browser.run("return document.getElementById('log').innerText");
    assert!(!log.as_str().unwrap_or_default().contains("start of 1"), "{log}");
    open_gate(&place);
    shows("<done>");
    shows("succeeded");
    let lines =
        browser.run("return [...document.querySelectorAll('#log .l')].map((it) => it.textContent)");
    assert_eq!(lines, serde_json::json!(["start of 2", "half a lineopened", "<done>"]));
    assert_eq!(browser.console(), [""; 0]);
    drop(browser);
    server.signal("TERM");
    assert!(server.end().success());
}
