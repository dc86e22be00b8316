//! Logs by their lines, over the sample of the golden pages.

use super::{Lines, Row, class, plain};
use crate::config::Web;
use crate::log::Line;
use crate::site::harness::{Answer, Served, served_with};

/// A site whose build 1002 has this log.
async fn with(log: &[u8]) -> Served {
    let served =
        served_with(include_str!("../../../tests/data/pages/fill.sql"), Web::default()).await;
    served.put("logs/build/1/1002-2.log", log);
    served
}

/// The numbers of the lines that a page has, and the texts without tags.
fn lines(page: &Answer) -> Vec<(u64, String)> {
    let rows = page.body.split(" id=\"L").skip(1);
    let row = |row: &str| {
        let (number, rest) = row.split_once('"')?;
        let (_, text) = rest.split_once("</a>")?;
        let (text, _) = text.split_once("</div>")?;
        Some((number.parse().ok()?, text.to_owned()))
    };
    rows.map(|text| row(text).expect("a row")).collect()
}

#[tokio::test]
async fn a_log_is_on_pages_by_its_lines_and_each_line_has_an_address() {
    let text: String = (1..=1234).map(|n| format!("line {n}\n")).collect();
    let served = with(text.as_bytes()).await;
    for (query, first, last) in [
        ("", 1, 500),
        ("?line=1", 1, 500),
        ("?line=500", 1, 500),
        ("?line=501", 501, 1000),
        ("?line=1000", 501, 1000),
        ("?line=1001", 1001, 1234),
        ("?line=1234", 1001, 1234),
    ] {
        let page = served.page(&format!("/build/1002/log{query}")).await;
        assert_eq!(page.status, 200, "{query}");
        let wanted: Vec<_> = (first..=last).map(|n| (n, format!("line {n}"))).collect();
        assert!(lines(&page) == wanted, "{query}");
        assert!(page.body.contains(&format!("href=\"/build/1002/log?line={last}#L{last}\"")));
        let has = |rel: &str| page.body.contains(&format!("rel=\"{rel}\""));
        assert_eq!((has("prev"), has("next")), (first > 1, last < 1234), "{query}");
    }
    for query in ["?line=1501", "?line=18446744073709551615"] {
        let page = served.page(&format!("/build/1002/log{query}")).await;
        assert_eq!((page.status, lines(&page).len()), (200, 0), "{query}");
        assert!(page.body.contains("It has fewer than"), "{query}");
    }
    for query in ["?line=0", "?line=-1", "?line=x", "?line=18446744073709551616", "?attempt=x"] {
        let page = served.page(&format!("/build/1002/log{query}")).await;
        assert_eq!(page.status, 400, "{query}");
    }
    for path in ["/build/99999/log", "/build/1002/log?attempt=9"] {
        assert_eq!(served.page(path).await.status, 404, "{path}");
    }
    served.close().await;
}

#[tokio::test]
async fn lines_with_a_text_are_found_wherever_they_are() {
    let mut text: String = (1..=3000).map(|n| format!("line {n}\n")).collect();
    text += "a \x1b[1mLo\x1b[31mud\x1b[0m <cry> \u{dc}BER\nlast";
    let served = with(text.as_bytes()).await;
    let find = async |text: &str| served.page(&format!("/build/1002/log?find={text}")).await;
    for (wanted, numbers) in [
        ("line+29", [29].into_iter().chain(290..=299).chain(2900..=2999).collect::<Vec<u64>>()),
        ("LOUD+%3Ccry", vec![3001]),
        ("%C3%BCber", vec![3001]),
        ("last", vec![3002]),
        ("nowhere", vec![]),
    ] {
        let page = find(wanted).await;
        let found: Vec<u64> = lines(&page).into_iter().map(|(number, _)| number).collect();
        assert_eq!(found, numbers, "{wanted}");
    }
    let page = find("line").await;
    assert_eq!(lines(&page).len(), super::FOUND_MAX);
    assert!(page.body.contains("The first 500 lines with this text"));
    assert!(
        find("%3Ccry").await.body.contains("value=\"&#60;cry\""),
        "the text stays in its field"
    );
    assert_eq!(find(&"x".repeat(201)).await.status, 400);
    served.close().await;
}

#[tokio::test]
async fn the_first_error_is_led_to() {
    // As long as the database says of this log, at least.
    let text = "fine\nwarning: odd\n\x1b[31merror\x1b[0m: no\nerror: again\nand so on, and so on, and so on\n";
    let served = with(text.as_bytes()).await;
    let answer = served.page("/build/1002/log?line=error").await;
    assert_eq!(answer.status, 303);
    assert_eq!(answer.header("location"), Some("/build/1002/log?line=3#L3"));
    let page = served.page("/build/1002/log").await;
    for row in ["class=\"l\" id=\"L1\"", "class=\"l warn\" id=\"L2\"", "class=\"l err\" id=\"L3\""]
    {
        assert!(page.body.contains(row), "{row}: {}", page.body);
    }
    served.put("logs/build/1/1002-2.log", b"too short\n");
    let page = served.page("/build/1002/log").await;
    assert_eq!(lines(&page), [(1, "too short".to_owned())]);
    assert!(page.body.contains("as far as it can be read: it is damaged: it ends after 10 of 71"));
    served.put("logs/build/1/1002-2.log", "0 errors\nno warnings\n".repeat(9).as_bytes());
    let page = served.page("/build/1002/log?line=error").await;
    assert_eq!((page.status, lines(&page).len()), (200, 0));
    assert!(page.body.contains("No line looks like an error."));
    served.close().await;
}

#[test]
fn a_page_is_bounded_however_long_its_lines_are() {
    let (mut drawn, mut bytes) = (Lines::default(), 0);
    let text = vec![b'<'; 64 * 1024];
    let rows: Vec<Row> = (1..=super::LINES)
        .map(|number| {
            Row::new(
                &Line { number, text: &text, omitted: 1 },
                String::new(),
                &mut drawn,
                &mut bytes,
            )
        })
        .collect();
    let html: usize = rows.iter().map(|row| row.html.len()).sum();
    assert!(html <= super::HTML_BYTES_MAX + 4 * text.len(), "{html}");
    let last = rows.last().expect("a row");
    assert_eq!((last.html.len(), last.omitted), (0, text.len() as u64 + 1));
}

#[test]
fn control_sequences_are_no_part_of_the_text() {
    for (text, wanted) in [
        ("plain", "plain"),
        ("\x1b[1;31mred\x1b[0m.", "red."),
        ("\x1b]0;a title\x07text", "text"),
        ("\x1b(Btext", "Btext"),
        ("an open one\x1b[12", "an open one"),
        ("\x1b", ""),
        ("a\x1b\u{e9}b", "ab"),
    ] {
        assert_eq!(plain(text.as_bytes()), wanted, "{text:?}");
    }
    assert_eq!(class("src/a.c:3:1: Error: no"), " err");
    assert_eq!(class("warning[E1]: odd"), " warn");
    assert_eq!(class("terror is no error"), "");
}
