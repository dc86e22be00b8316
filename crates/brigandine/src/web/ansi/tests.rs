//! Compares logs with what a terminal would show, line by line.

use super::*;

fn html(text: &[u8]) -> String {
    let (mut lines, mut html) = (Lines::default(), String::new());
    lines.push(text, &mut html);
    lines.finish(&mut html);
    assert_eq!(lines.resume(), text.len() as u64);
    html
}

/// The text of each line, without colours.
fn shown(text: &[u8]) -> Vec<String> {
    let html = html(text);
    let lines = html.strip_prefix("<div class=\"l\">").and_then(|rest| rest.strip_suffix("</div>"));
    let Some(lines) = lines else { return Vec::new() };
    let plain =
        |line: &str| line.split('<').map(|it| it.rsplit('>').next().unwrap_or(it)).collect();
    lines.split("</div><div class=\"l\">").map(plain).collect()
}

#[test]
fn everything_a_job_prints_is_escaped() {
    assert_eq!(
        html(b"<script>alert(\"x\")</script> & more"),
        "<div class=\"l\">&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; more</div>"
    );
    assert_eq!(
        html(b"\x1b[31m<b>\x1b[0m"),
        "<div class=\"l\"><span class=\"c31\">&lt;b&gt;</span></div>"
    );
    assert!(!html("a\u{202e}b".as_bytes()).contains('\u{202e}'));
}

#[test]
fn colours_stay_until_they_are_reset_and_other_sequences_vanish() {
    assert_eq!(
        html(b"\x1b[1;32mok\nstill\x1b[0m plain\x1b[?25l\x1b]0;title\x07!"),
        "<div class=\"l\"><span class=\"c32 b\">ok</span></div>\
         <div class=\"l\"><span class=\"c32 b\">still</span> plain!</div>"
    );
    assert_eq!(html(b"\x1b[38;5;31mx\x1b[38;2;1;31;3my"), "<div class=\"l\">xy</div>");
}

#[test]
fn a_line_is_drawn_as_a_terminal_draws_it() {
    for (text, wanted) in [
        (&b"10%\r50%\r100%\r\ndone"[..], &["100%", "done"][..]),
        (b"long before\rshort", &["shortbefore"]),
        (b"long before\r\x1b[Kshort", &["short"]),
        (b"abc\x1b[2Kd", &["   d"]),
        (b"abcdef\x1b[3D\x1b[1K", &["    ef"]),
        (b"abc\x08\x08X", &["aXc"]),
        (b"12345\x1b[2GX\x1b[2CY", &["1X34Y"]),
        (b"\x1b[5Gx", &["    x"]),
        (b"/\x08-\x08\\\x08|\x08 done", &[" done"]),
        (b"a\x00b\x07c\x7fd", &["abcd"]),
        (b"tab\tto", &["tab\tto"]),
        (b"\r\n\r\n", &["", ""]),
        (b"\xff\xfeGr\xfc\xdfe", &["\u{fffd}\u{fffd}Gr\u{fffd}\u{fffd}e"]),
        (b"\xe2\x82", &["\u{fffd}"]),
        (b"a\xe2\x82\nb", &["a\u{fffd}", "b"]),
        (b"\x1b(Bplain\x1b=x", &["plainx"]),
        // A sequence that is never closed hides only its own line.
        (b"x\x1b]0;title\nnext", &["x", "next"]),
        (b"x\x1bPdata\x1b\\y", &["xy"]),
        (b"x\x1b[12\nnext", &["x", "next"]),
        (b"x\x1b", &["x"]),
        ("x\u{1b}[3\u{e9}y".as_bytes(), &["x\u{e9}y"]),
        (b"10%\x1b[3\r1mred", &["red"]),
    ] {
        assert_eq!(shown(text), wanted, "{}", text.escape_ascii());
    }
}

#[test]
fn pieces_of_any_size_give_the_same_page() {
    let text = "naïve \u{1b}[31mröd\u{1b}[0m\n\nlast ✓ line 𝕏\r\u{1b}[2Kover\u{8}\u{1b}]8;;x\u{1b}\\link\nno end";
    let mut bytes = text.as_bytes().to_vec();
    bytes.extend(b"\xff\xe2\x82x\xf0\x9d\x95");
    let whole = html(&bytes);
    for size in 1..bytes.len() {
        let (mut lines, mut pieces) = (Lines::default(), String::new());
        for piece in bytes.chunks(size) {
            lines.push(piece, &mut pieces);
        }
        lines.finish(&mut pieces);
        assert_eq!(pieces, whole, "pieces of {size}");
    }
}

#[test]
fn a_reader_that_goes_on_at_the_offset_sees_the_rest() {
    let text = "one\ntwo half\rTWO\nthree é\n\nlast".as_bytes();
    let whole = html(text);
    for cut in 0..=text.len() {
        let (mut lines, mut page) = (Lines::default(), String::new());
        lines.push(&text[..cut], &mut page);
        let resume = usize::try_from(lines.resume()).expect("small");
        assert!(resume <= cut && !page.contains("part"));
        let mut rest = Lines::at(lines.resume());
        rest.push(&text[resume..], &mut page);
        rest.finish(&mut page);
        // A reader that begins behind the carriage return does not have what was drawn before it.
        let drawn_anew = |html: &str| html.replace("TWO half", "TWO");
        assert_eq!(drawn_anew(&page), drawn_anew(&whole), "cut at {cut}");
    }
}

#[test]
fn a_line_whose_end_has_not_come_is_shown_as_it_is_now() {
    let (mut lines, mut html) = (Lines::default(), String::new());
    lines.push(b"done\n 10%\r 20%\r 30% \xe2\x82", &mut html);
    assert_eq!(html, "<div class=\"l\">done</div>");
    assert_eq!(lines.unfinished(), "<div class=\"l part\"> 30% </div>");
    assert_eq!(lines.resume(), 15, "behind the last carriage return");
    lines.push(b"\xac\n", &mut html);
    assert_eq!(lines.unfinished(), "");
    assert!(html.ends_with("<div class=\"l\"> 30% €</div>"), "{html}");
}

#[test]
fn a_line_without_an_end_is_broken_and_takes_bounded_memory() {
    let (mut lines, mut html) = (Lines::default(), String::new());
    for _ in 0..100 {
        lines.push("é".repeat(1000).as_bytes(), &mut html);
        assert!(lines.cells.len() <= LINE_MAX);
    }
    lines.finish(&mut html);
    assert!(!html.contains('\u{fffd}'), "a character was cut");
    assert_eq!(html.matches('é').count(), 100_000);
}

#[test]
fn a_line_that_is_broken_at_its_very_end_leaves_no_empty_line() {
    let mut text = vec![b'x'; LINE_MAX];
    text.extend(b"\nnext");
    assert_eq!(shown(&text).iter().map(String::len).collect::<Vec<_>>(), [LINE_MAX, 4]);
}

#[test]
fn a_progress_bar_of_any_length_takes_the_memory_of_one_line() {
    let (mut lines, mut html) = (Lines::default(), String::new());
    for step in 0..100_000 {
        lines.push(format!("\r{step:>6} of 99999").as_bytes(), &mut html);
    }
    assert_eq!(html, "");
    assert!(lines.cells.len() < 20 && lines.cells.capacity() < 200);
    assert_eq!(lines.unfinished(), "<div class=\"l part\"> 99999 of 99999</div>");
    for hostile in ["\u{1b}[999999999999G", "\u{1b}[9999C", "\u{1b}]"] {
        lines.push(hostile.repeat(1000).as_bytes(), &mut html);
        lines.push(&b"9".repeat(100_000), &mut html);
        assert!(lines.cells.len() <= LINE_MAX, "{hostile:?}");
    }
}

#[test]
fn a_whole_line_is_one_piece_whatever_its_length_and_keeps_its_colours_for_the_next() {
    let mut lines = Lines::default();
    assert_eq!(lines.whole(b""), "");
    assert_eq!(lines.whole(b"10 %\r99 % <b>"), "99 % &lt;b&gt;");
    assert_eq!(lines.whole(b"\x1b[31mred"), "<span class=\"c31\">red</span>");
    assert_eq!(lines.whole(b"still\x1b[0m"), "<span class=\"c31\">still</span>");
    for length in [LINE_MAX - 1, LINE_MAX, LINE_MAX + 1, 2 * LINE_MAX, 3 * LINE_MAX + 5] {
        assert_eq!(lines.whole(&vec![b'x'; length]), "x".repeat(length), "{length}");
    }
    // Half a character at the end of a line is replaced, and does not wait for the next line.
    assert_eq!(lines.whole(b"na\xc3"), "na\u{fffd}");
    assert_eq!(
        lines.whole(b"</div><div class=\"l\">"),
        "&lt;/div&gt;&lt;div class=&quot;l&quot;&gt;"
    );
}
