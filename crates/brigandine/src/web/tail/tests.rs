//! Tests with the ends of many kinds of build logs, finished and unfinished.

use super::*;
use crate::log::Logs;
use crate::model::LogName;
use crate::model::{Build, BuildId, BuildLogFile, BuildStatus};

fn build(status: BuildStatus, log: BuildLogFile) -> Build {
    Build { status, log, started_at: 1, ..crate::log::tests::build(1, "") }
}

/// The end of a log with this text: while it is being written, finished, and finished with an unknown length.
async fn ends(text: &[u8]) -> [Tail; 3] {
    let state = tempfile::tempdir().expect("a directory");
    let logs = Logs::new(state.path(), u64::MAX);
    let name = LogName::Build(BuildId::new(7), 1);
    let mut writer = logs.create(name);
    writer.write(text).await.expect("written");
    let running = build(BuildStatus::Started, BuildLogFile::default());
    let from = start(logs.bytes(&running));
    let reader = logs.open(&running, from).await.expect("a log");
    let live = Tail::read(reader, from).await;
    let file = writer.finish().await;
    logs.forget(name);
    let finished = build(BuildStatus::Failed, file);
    let from = start(logs.bytes(&finished));
    let reader = logs.open(&finished, from).await.expect("a log");
    let known = Tail::read(reader, from).await;
    let reader = logs.open_attempt(&finished, 1, 0).await.expect("a log");
    let unknown = Tail::read(reader, 0).await;
    [live, known, unknown]
}

/// The HTML that a page shows.
fn shown(tail: &Tail) -> String {
    (tail.html.clone() + &tail.lines.unfinished()).replace("l part", "l")
}

#[tokio::test]
async fn the_end_of_a_log_shows_what_a_terminal_would() {
    let most = usize::try_from(TAIL + LEAD).expect("small");
    let line = "a line of a build log with ünïcödé ✓\n";
    let bar = "\r\u{1b}[32m=====>\u{1b}[0m  47 % of everything";
    let long = "x".repeat(100) + "é";
    for (name, text, last) in [
        ("lines", line.repeat(20_000), "log with ünïcödé ✓</div>"),
        ("no line end at all", bar.repeat(20_000), "  47 % of everything</div>"),
        ("a bar behind lines", line.repeat(10) + &bar.repeat(20_000), "47 % of everything</div>"),
        ("a bar and its line end", bar.repeat(20_000) + "\n", "47 % of everything</div>"),
        ("a bar, its end, an error", bar.repeat(20_000) + "\r\nerror: no", "error: no</div>"),
        ("one long line", long.repeat(10_000), "é</div>"),
        ("one long line that ends", long.repeat(10_000) + "\n", "é</div>"),
        ("one long line that ends as in DOS", long.repeat(10_000) + "\r\n", "é</div>"),
        (
            "sequences alone, then a word",
            "\u{1b}[31m".repeat(100_000) + "word",
            "word</span></div>",
        ),
        ("zeros and a word", "\0".repeat(400_000) + "word", "word</div>"),
        ("short", "one\rtwo".to_owned(), "two</div>"),
    ] {
        for (at, tail) in ends(text.as_bytes()).await.into_iter().enumerate() {
            let page = shown(&tail);
            assert!(
                page.ends_with(last),
                "{name} {at}: {}",
                &page[page.len().saturating_sub(90)..]
            );
            assert!(!page.contains('\u{fffd}'), "{name} {at}: a character was cut");
            assert!(!page.contains("[32m"), "{name} {at}: a sequence was cut");
            assert!(tail.from <= text.len() as u64 && page.len() < 3 * most, "{name} {at}");
            assert_eq!(tail.ended, at > 0, "{name} {at}");
            if name == "lines" {
                assert!(page.matches("<div").count() > 5_000, "{name} {at}");
                assert!(page.starts_with("<div class=\"l\">a line"), "{name} {at}");
            }
        }
    }
}

#[tokio::test]
async fn wherever_the_cut_falls_no_character_and_no_sequence_is_cut() {
    let most = usize::try_from(TAIL + LEAD).expect("small");
    for unit in ["é", "✓", "𝕏", "\u{1b}[1;38;2;1;2;3mw", "\u{1b}]8;;http://x\u{1b}\\l"] {
        for shift in 0..unit.len() + 2 {
            let text = unit.repeat(most / unit.len() + 100) + &"z".repeat(shift);
            let [live, known, unknown] = ends(text.as_bytes()).await;
            for tail in [live, known, unknown] {
                let page = shown(&tail);
                assert!(!page.contains('\u{fffd}'), "{unit:?} {shift}");
                let plain: String = page.split('<').filter_map(|it| it.split('>').nth(1)).collect();
                let kept = unit.chars().last().expect("a character");
                assert!(plain.trim_end_matches('z').chars().all(|c| c == kept), "{unit:?} {shift}");
            }
        }
    }
}

#[tokio::test]
async fn a_reader_goes_on_where_the_end_of_a_log_stops() {
    let state = tempfile::tempdir().expect("a directory");
    let logs = Logs::new(state.path(), u64::MAX);
    let mut writer = logs.create(LogName::Build(BuildId::new(7), 1));
    writer.write(b"one\ntwo h").await.expect("written");
    let running = build(BuildStatus::Started, BuildLogFile::default());
    let reader = logs.open(&running, 0).await.expect("a log");
    let mut tail = Tail::read(reader, 0).await;
    assert_eq!(tail.html, "<div class=\"l\">one</div>");
    assert_eq!(tail.lines.unfinished(), "<div class=\"l part\">two h</div>");
    assert_eq!(tail.lines.resume(), 4);
    writer.write(b"alf\n").await.expect("written");
    let more = tail.reader.next().await.expect("readable").expect("more");
    tail.lines.push(&more, &mut tail.html);
    assert!(tail.html.ends_with("<div class=\"l\">two half</div>"), "{}", tail.html);
}
