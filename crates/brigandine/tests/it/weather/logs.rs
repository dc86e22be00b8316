//! Build logs of every kind, on pages and as raw text.

use crate::command::serve::{address, gated, open_gate, text};
use crate::support::{Gate, Place, Process, run, until};

/// The part of a page that shows the log.
fn log_of(page: &str) -> &str {
    let at = page.find("id=\"log\"").unwrap_or_else(|| panic!("no log in {page}"));
    &page[at..page.rfind("</main>").expect("an end")]
}

#[test]
fn the_page_of_a_running_build_shows_what_it_has_printed_so_far_without_javascript() {
    let place = Place::new();
    let repository = place.repository("repository");
    let gate = Gate::new(place.path("go"));
    let command = format!(
        "command = \"printf 'line\\\\n10%%\\\\r55%% of it'; timeout 1000 cat '{}'\"",
        gate.path().display()
    );
    repository.jobs(&[("bar", &command)]);
    place.specify(&[("spec", &repository, "")]);
    let server = Process::start(place.command(&[]));
    let address = address(&server);
    let page = until(|| text(&address, "/build/1"), |page| page.contains("55% of it"));
    let log = log_of(&page);
    assert!(
        log.contains("<div class=\"l\">line</div><div class=\"l part\">55% of it</div>"),
        "{log}"
    );
    // A page that follows the log continues behind the last carriage return.
    assert!(log.contains("attempt=1&amp;offset=9\""), "{log}");
    assert!(log.contains("<noscript>"), "{log}");
    gate.open();
    let page = until(|| text(&address, "/build/1"), |page| page.contains(">succeeded<"));
    assert!(log_of(&page).contains("55% of it") && !log_of(&page).contains("data-log"), "{page}");
    server.signal("TERM");
    assert!(server.end().success());
}

#[test]
fn a_restarted_build_has_the_log_of_each_attempt() {
    let place = Place::new();
    let repository = place.repository("repository");
    let gate = gated(&place);
    let command = gate
        .replace("echo begun", "echo attempt $BRIGANDINE_ATTEMPT; test $BRIGANDINE_ATTEMPT = 2");
    repository.jobs(&[("twice", &command)]);
    place.specify(&[("spec", &repository, "")]);
    let server = Process::start(place.command(&[]));
    let address = address(&server);
    until(|| text(&address, "/build/1"), |page| page.contains(">failed<"));
    assert!(run(place.tool(&["restart", "1"])).status.success());
    let page = until(|| text(&address, "/build/1"), |page| page.contains("attempt 2"));
    // By this number an open page of the first attempt notices that the log is another one.
    assert!(log_of(&page).contains("data-attempt=\"2\""), "{page}");
    assert!(!log_of(&page).contains("attempt 1"), "{page}");
    assert!(page.contains("href=\"/build/1/log?attempt=1\""), "{page}");
    let first = text(&address, "/build/1/log/raw?attempt=1");
    assert!(first.starts_with("HTTP/1.0 200") && first.ends_with("attempt 1\n"), "{first}");
    for attempt in ["0", "3", "-1"] {
        let none = text(&address, &format!("/build/1/log/raw?attempt={attempt}"));
        assert!(none.starts_with("HTTP/1.0 404") && none.contains("has no attempt"), "{none}");
    }
    // A stream of the first attempt does not continue with the second attempt's log.
    let stream = text(&address, "/build/1/log/live?attempt=1&offset=10");
    assert!(stream.starts_with("HTTP/1.0 204"), "{stream}");
    open_gate(&place);
    until(|| text(&address, "/build/1"), |page| page.contains(">succeeded<"));
    server.signal("TERM");
    assert!(server.end().success());
}

#[test]
fn a_build_without_a_log_says_why_on_its_page_and_to_programs() {
    let place = Place::new();
    let repository = place.repository("repository");
    repository.jobs(&[
        ("bad", "command = \"echo why >&2; exit 3\""),
        ("dependant", "command = \"true\"\nneeds = [\"bad\"]"),
        ("mute", "command = \"true\""),
        ("torn", "command = \"echo much; exit 1\""),
        ("lost", "command = \"echo much; exit 1\"\nenv = { A = \"b\" }"),
    ]);
    place.specify(&[("spec", &repository, "")]);
    place.one_shot();
    let log = |job: &str| {
        let rows = place.rows(&format!("SELECT id, log_path FROM build WHERE job = '{job}'"));
        let (id, path) = rows[0].split_once('|').expect("two columns");
        (id.to_owned(), place.state().join(path))
    };
    std::fs::write(log("torn").1, b"no zstd at all").expect("written");
    std::fs::remove_file(log("lost").1).expect("removed");
    let server = Process::start(place.command(&[]));
    let address = address(&server);
    for (job, wanted, status) in [
        ("bad", "<div class=\"l\">why</div>", "200"),
        ("dependant", "never started, because a build that it needs did not succeed", "404"),
        ("mute", "It printed nothing.", "200"),
        ("torn", "Its log cannot be read: ", "404"),
        ("lost", "Its log is gone", "404"),
    ] {
        let (id, _) = log(job);
        let page = text(&address, &format!("/build/{id}"));
        assert!(page.starts_with("HTTP/1.0 200"), "{job}: {page}");
        assert!(log_of(&page).contains(wanted), "{job}: {}", log_of(&page));
        let raw = text(&address, &format!("/build/{id}/log/raw"));
        assert!(raw.starts_with(&format!("HTTP/1.0 {status}")), "{job}: {raw}");
        // The page has no link to a log that cannot be downloaded or has no text.
        let linked = page.contains(&format!("href=\"/build/{id}/log/raw\""));
        assert_eq!(linked, job == "bad", "{job}");
    }
    server.signal("TERM");
    assert!(server.end().success());
}

#[test]
fn a_log_without_a_line_end_shows_the_end_of_its_progress_bar() {
    let place = Place::new();
    let repository = place.repository("repository");
    repository.jobs(&[(
        "bar",
        "command = \"seq -f '%g of 50000 files are copied' 50000 | tr '\\\\n' '\\\\r'; exit 1\"",
    )]);
    place.specify(&[("spec", &repository, "")]);
    place.one_shot();
    let server = Process::start(place.command(&[]));
    let address = address(&server);
    let page = text(&address, "/build/1");
    let log = log_of(&page);
    assert!(log.contains("<div class=\"l\">50000 of 50000 files are copied</div>"), "{log}");
    assert!(log.contains("The beginning is left out"), "{log}");
    server.signal("TERM");
    assert!(server.end().success());
}

#[test]
fn a_build_that_was_canceled_after_a_stop_had_cut_it_has_the_log_of_its_attempt() {
    let place = Place::new();
    let repository = place.repository("repository");
    let running = Gate::new(place.path("running"));
    let command =
        format!("command = \"echo it begins; echo up > {}; sleep 1000\"", running.path().display());
    repository.jobs(&[("job", &command)]);
    place.specify(&[("spec", &repository, "")]);
    let server = Process::start(place.command(&[]));
    assert_eq!(running.wait(), "up\n");
    server.signal("TERM");
    assert!(server.end().success());
    assert!(run(place.tool(&["cancel", "1"])).status.success());
    let ended = run(place.tool(&["log", "1"]));
    let said = "It was canceled while it waited to be started again.";
    assert!(ended.stderr.contains(said), "{}", ended.stderr);
    assert!(ended.stderr.contains("`brigandine log 1 --attempt 1`"), "{}", ended.stderr);
    assert_eq!(run(place.tool(&["log", "1", "--attempt", "2"])).status.code(), Some(3));
    let server = Process::start(place.command(&[]));
    let address = address(&server);
    let page = text(&address, "/build/1");
    assert!(log_of(&page).contains(said), "{page}");
    assert!(page.contains("href=\"/build/1/log?attempt=1\""), "{page}");
    let raw = text(&address, "/build/1/log/raw");
    assert!(raw.starts_with("HTTP/1.0 404"), "{raw}");
    assert!(raw.contains(said) && raw.contains("?attempt=1"), "{raw}");
    let kept = text(&address, "/build/1/log/raw?attempt=1");
    let whole = "it begins\n\n[brigandine: the server was stopped]\n";
    assert!(kept.starts_with("HTTP/1.0 200") && kept.ends_with(whole), "{kept}");
    std::fs::remove_file(place.state().join("logs/build/0/1-1.log.zst")).expect("removed");
    let gone = text(&address, "/build/1/log/raw?attempt=1");
    assert!(gone.starts_with("HTTP/1.0 404") && gone.contains("its log is gone"), "{gone}");
    server.signal("TERM");
    assert!(server.end().success());
}
