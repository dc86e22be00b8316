//! Tests that request pages as a browser does.

mod jobs;

use std::collections::BTreeSet;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::model::LogName;
use crate::model::{BuildId, BuildStatus, EvaluationId, Event, SpecificationId};
use crate::site::harness::{LIMIT, Served, served, served_with};

const PAGES: [&str; 12] = [
    "/",
    "/queue",
    "/jobset/hello",
    "/jobset/odd",
    "/job/hello/test",
    "/jobset/hello/grid",
    "/search?query=test",
    "/eval/1",
    "/eval/2",
    "/eval/3",
    "/build/3",
    "/build/7/details",
];

/// The failed build of the job `test` succeeds at its first attempt.
const FLAKY: &str = "UPDATE attempt SET number = 2 WHERE build_id = 3;
     INSERT INTO attempt VALUES (3, 1, 'local', 0, '', 1700000203, 1700000204);";

/// The part of `text` between `from` and `to`.
fn between<'t>(text: &'t str, from: &str, to: &str) -> &'t str {
    let start = text.find(from).map_or(text.len(), |at| at + from.len());
    let end = text[start..].find(to).map_or(text.len(), |at| start + at);
    &text[start..end]
}

#[tokio::test]
async fn every_page_is_whole_escaped_and_loads_nothing_from_elsewhere() {
    let served = served().await;
    let forge = "UPDATE specification SET definition =
           replace(definition, 'https://example.org/hello', 'https://github.com/o/hello') WHERE id = 1";
    let changed =
        served.database.exclusive(move |conn: &mut rusqlite::Connection| conn.execute_batch(forge));
    changed.await.expect("changed");
    let of = |page: &str| format!("https://github.com/o/hello/{page}");
    let (first, second) = ("1".repeat(40), "3".repeat(40));
    let forges = [
        of(&format!("commit/{first}")),
        of(&format!("commit/{second}")),
        of(&format!("compare/{first}...{second}")),
    ];
    let forges: Vec<&str> = forges.iter().map(String::as_str).collect();
    let mut seen = BTreeSet::new();
    for path in PAGES {
        let page = served.page(path).await;
        assert_eq!(page.status, 200, "{path}");
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"), "{path}");
        assert_eq!(page.header("content-length"), Some(&*page.body.len().to_string()), "{path}");
        let policy = page.header("content-security-policy").unwrap_or_default();
        assert!(policy.starts_with("default-src 'none'"), "{path}: {policy}");
        assert!(page.body.trim_end().ends_with("</html>"), "{path}");
        for tag in ["<main", "<head>", "<body"] {
            assert_eq!(page.body.matches(tag).count(), 1, "{path}: {tag}");
        }
        for text in ["<x>", "<everybody>", "<b>connection", "\"<job>\""] {
            assert!(!page.body.contains(text), "{path} holds {text} unescaped");
        }
        // Pages load nothing from other hosts. They link only pages of forges about revisions, which are not told from
        // where a reader comes.
        for attribute in ["src=\"", "href=\"", "action=\""] {
            for (at, _) in page.body.match_indices(attribute) {
                let target = between(&page.body[at..], attribute, "\"");
                let tag = page.body[..at].rfind('<').map_or("", |tag| &page.body[tag..]);
                if tag.starts_with("<a href=\"https://") {
                    assert!(tag.starts_with(&format!("<a href=\"{target}\" rel=\"noreferrer\">")));
                    assert!(forges.contains(&target), "{path} names {target}");
                    seen.insert(target.to_owned());
                    continue;
                }
                assert!(
                    target.starts_with(['/', '#', '?']) && !target.starts_with("//"),
                    "{path} names {target}"
                );
            }
        }
        assert!(!page.body.contains(" style="), "{path}: the policy forbids inline style");
    }
    assert_eq!(seen.len(), forges.len(), "{seen:?}");
    served.close().await;
}

#[tokio::test]
async fn every_link_of_every_page_leads_somewhere() {
    let served = served().await;
    served.put("products/hello", b"hello world\n");
    let mut links = BTreeSet::new();
    for path in PAGES {
        let body = served.page(path).await.body;
        for (at, _) in body.match_indices("href=\"") {
            let target = between(&body[at..], "href=\"", "\"").replace("&#38;", "&");
            if target.starts_with('/') {
                links.insert(target);
            }
        }
    }
    // The log of a running build does not end, and the file of product 2 is missing on purpose.
    links.retain(|link| !link.ends_with("/7/log/raw") && link != "/download/2");
    assert!(links.len() > 25, "{links:?}");
    for link in &links {
        let answer = served.page(link).await;
        assert!(answer.status == 200 || link.ends_with("/log/raw"), "{link}: {}", answer.head);
    }
    served.close().await;
}

#[tokio::test]
async fn what_is_not_there_is_a_page_for_browsers_and_json_for_programs() {
    let served = served().await;
    for path in ["/build/99", "/build/abc", "/eval/99", "/eval/x", "/jobset/nope", "/nope"] {
        let page = served.page(path).await;
        assert_eq!(page.status, 404, "{path}");
        assert!(page.body.contains("Back to the overview"), "{path}");
    }
    assert_eq!(
        served.get("/build/abc").await.body,
        r#"{"error":"Build with ID abc doesn't exist."}"#
    );
    assert_eq!(served.page("/eval/2?status=wrong").await.status, 400);
    served.close().await;
}

#[tokio::test]
async fn one_address_is_a_page_for_browsers_and_json_for_programs() {
    let served = served().await;
    let (page, json) = (served.page("/build/3").await, served.get("/build/3").await);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(json.header("content-type"), Some("application/json"));
    assert_eq!(page.header("vary"), Some("accept, x-brigandine-parts, accept-encoding"));
    // This one is too short to be compressed.
    assert_eq!(json.header("vary"), Some("accept"));
    let address = "/search?query=compile";
    let (page, json) = (served.page(address).await, served.get(address).await);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(json.header("content-type"), Some("application/json"));
    served.close().await;
}

/// The names of the jobs in the rows of a text.
fn names(text: &str) -> Vec<String> {
    let found = text.match_indices("class=\"name\">");
    found.map(|(at, found)| between(&text[at..], found, "<").to_owned()).collect()
}

#[tokio::test]
async fn an_evaluation_shows_what_fails_and_what_differs_from_the_one_before() {
    let served = served().await;
    let body = served.page("/eval/2").await.body;
    let changes = between(&body, "<div data-part=\"changes\">", "<div data-part=\"audit\">");
    let newly = between(changes, "newly failing <b>3</b></h3>", "</section>");
    assert_eq!(names(newly), ["package", "slow", "test"]);
    assert!(newly.contains("<span>before <a href=\"/build/2\">succeeded</a></span>"), "{newly}");
    for (tab, label, number) in
        [("newly-failing", "newly failing", 3), ("new", "new", 5), ("canceled", "canceled", 1)]
    {
        let link = between(changes, &format!("<a href=\"/eval/2?tab={tab}\">"), "</a>");
        assert!(link.ends_with(&format!("{label} <b>{number}</b>")), "{tab}: {link}");
        let listed = served.page(&format!("/eval/2?tab={tab}")).await.body;
        let jobs = between(&listed, "data-part=\"jobs\">", "</main>");
        assert_eq!(names(jobs).len(), number, "{tab}");
        assert!(listed.contains(&format!("tab={tab}\" aria-current=\"true\"")), "{tab}");
    }
    assert!(!changes.contains("tab=fixed"), "no job is fixed: {changes}");
    assert!(body.contains("Greet &#60;everybody&#62; &#38; more"), "the revision's subject");
    let failed = served.page("/eval/2?status=failed").await.body;
    assert!(failed.contains(">test</span>") && !failed.contains(">slow</span>"));
    let text = served.page("/eval/2?text=LINT").await.body;
    assert!(text.contains("lint &#34;all&#34;") && !text.contains(">slow</span>"));
    served.close().await;
}

#[tokio::test]
async fn an_evaluation_is_compared_with_any_other_that_has_jobs() {
    let served = served().await;
    let back = served.page("/eval/1?compare=2").await.body;
    assert!(back.contains("Compared with <a href=\"/eval/2\">#2</a>"), "{back}");
    assert!(back.contains("value=\"2\" placeholder="), "the form has what was asked for");
    let fixed = served.page("/eval/1?compare=3333&tab=fixed").await.body;
    assert_eq!(names(&fixed), ["test"]);
    assert!(fixed.contains("<a href=\"/eval/1?compare=3333&#38;tab=removed\">"), "{fixed}");
    let removed = served.page("/eval/1?compare=2&tab=removed").await.body;
    assert_eq!(
        names(&removed),
        ["bench", "docs", "lint &#34;all&#34; &#60;x&#62;", "package", "slow"]
    );
    let none = served.page("/eval/1?compare=2&tab=canceled").await.body;
    assert!(none.contains("<p class=\"none\">No job is canceled.</p>"), "{none}");
    for (query, status) in
        [("compare=99", 404), ("compare=zz", 404), ("compare=3", 400), ("tab=wrong", 400)]
    {
        assert_eq!(served.page(&format!("/eval/2?{query}")).await.status, status, "{query}");
    }
    // One without jobs has nothing to compare.
    assert!(!served.page("/eval/3").await.body.contains("Compare"));
    served.close().await;
}

/// A site with an evaluation of ten thousand jobs, of which a tenth failed.
async fn ten_thousand() -> Served {
    let fill = "
        INSERT INTO specification VALUES (1, 'big', '{\"name\":\"big\",\"inputs\":[],\"evaluator\":{\"kind\":\"jobs\",\"file\":\"x\"}}', 1, 0, 0, '', 0, 0, 0, 0, NULL);
        INSERT INTO evaluation VALUES (1, 1, 'a', 0, '', 1, 1, 1, '', 0, 0, 10000, 0, 0, 0, 0), (2, 1, 's', 0, '', 1, 1, 1, '', 0, 0, 9000, 1000, 0, 0, 0);
        INSERT INTO build WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
          SELECT i, 'd' || i, i, 1, 1 + (i > 10000), 'job-' || (i % 10000), 'x86_64-linux', 'j', 0, i > 10000 AND i % 10 = 0, -1, 0, 1, 0, 0, '', 0, 0, 1, 2, 3, '', 0, '' FROM n;
        INSERT INTO job SELECT evaluation_id, job, id, 0 FROM build;";
    served_with(fill, crate::config::Web::default()).await
}

#[tokio::test]
async fn ten_thousand_jobs_are_paged_by_name_and_each_is_seen_once() {
    let served = ten_thousand().await;
    // job-1, job-10..19, job-100..199, job-1000..1999; and every tenth job
    for (first, jobs, last_page) in
        [("/eval/2?text=job-1", 1111, 23), ("/eval/2?tab=newly-failing", 1000, 20)]
    {
        let mut path = first.to_owned();
        let mut found = Vec::new();
        let mut pages = 0;
        loop {
            let body = served.page(&path).await.body;
            found.extend(names(&body));
            pages += 1;
            let Some(at) = body.find("rel=\"next\" href=\"/eval/2?") else { break };
            path = between(&body[at..], "href=\"", "\"").replace("&#38;", "&");
        }
        assert_eq!((found.len(), pages), (jobs, last_page), "{first}");
        assert!(found.is_sorted(), "by name");
        found.dedup();
        assert_eq!(found.len(), jobs, "each once");
        // Then back again from the last page.
        let last = served.page(&path).await.body;
        let at = last.find("rel=\"prev\" href=\"/eval/2?").expect("a page before the last");
        let before = between(&last[at..], "href=\"", "\"").replace("&#38;", "&");
        assert_eq!(names(&served.page(&before).await.body).len(), 50);
    }
    served.close().await;
}

#[tokio::test]
async fn large_evaluations_are_compared_when_somebody_asks() {
    let served = ten_thousand().await;
    let body = served.page("/eval/2").await.body;
    assert!(body.contains("<a href=\"/eval/2?tab=newly-failing\">"), "{body}");
    assert!(!body.contains("newly failing <b>"), "nothing was counted: {body}");
    assert_eq!(names(&body).len(), 50);
    let body = served.page("/eval/2?compare=1").await.body;
    let failing = between(&body, "newly failing <b>1\u{202f}000</b></h3>", "</section>");
    assert_eq!(names(failing).len(), 10);
    assert!(
        failing.contains("<a href=\"/eval/2?compare=1&#38;tab=newly-failing\">all 1"),
        "{failing}"
    );
    assert_eq!(names(&body).len(), 60);
    served.close().await;
}

#[tokio::test]
async fn ten_thousand_jobs_make_no_page_long_or_slow() {
    let served = ten_thousand().await;
    for path in ["/eval/2", "/eval/2?status=failed", "/jobset/big", "/"] {
        served.page(path).await;
        let started = Instant::now();
        let page = served.page(path).await;
        let took = started.elapsed();
        assert_eq!(page.status, 200);
        assert!(page.body.len() < 120_000, "{path} has {} bytes", page.body.len());
        // The program is not optimised, and the machine does other things too, so the bound is wide. Still, a scan of
        // rendered rows or a query per job would exceed it.
        assert!(took.as_millis() < 500, "{path} took {took:?}");
    }
    served.close().await;
}

#[tokio::test]
async fn an_open_page_is_sent_the_parts_that_differ_from_what_it_shows() {
    let served = served().await;
    let ask = async |version: &str| {
        let headers = "accept: text/html\r\nx-brigandine-parts: 1\r\nif-none-match";
        served.ask("GET", "/", &format!("{headers}: W/\"{version}\"\r\n")).await
    };
    let page = served.page("/").await;
    let shown = between(&page.body, "data-version=\"", "\"");
    assert_eq!(ask(shown).await.status, 304);
    let change = "UPDATE evaluation SET succeeded = succeeded + 1 WHERE id = 2";
    let changed = served
        .database
        .exclusive(move |conn: &mut rusqlite::Connection| conn.execute_batch(change));
    changed.await.expect("changed");
    let answer = ask(shown).await;
    assert_eq!(answer.status, 200, "{}", answer.head);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let begins = "<!doctype html><title>Brigandine</title><a class=\"last\" href=\"/eval/2\" data-part=\"last hello\">";
    assert!(answer.body.starts_with(begins), "{}", answer.body);
    assert_eq!(answer.body.matches("data-part").count(), 1, "{}", answer.body);
    let tag = answer.header("etag").expect("a tag").to_owned();
    assert_eq!(ask(between(&tag, "\"", "\"")).await.status, 304);
    // A page that the server does not remember gets all parts, and what stands around them never.
    let all = ask("0123456789abcdef").await;
    assert_eq!(all.header("etag"), Some(&*tag));
    for part in ["pending", "load", "notice", "unused", "specifications", "spec odd", "builds"] {
        assert!(all.body.contains(&format!("data-part=\"{part}\"")), "{part}: {}", all.body);
    }
    assert!(!all.body.contains("<main"), "{}", all.body);
    served.close().await;
}

/// Reads a stream until it has sent `text`. Keep-alives do not extend the time limit.
async fn read_until(socket: &mut tokio::net::TcpStream, seen: &mut String, text: &str) {
    let mut buffer = [0; 16 * 1024];
    let end = tokio::time::Instant::now() + LIMIT;
    while !seen.contains(text) {
        let read = tokio::time::timeout_at(end, socket.read(&mut buffer))
            .await
            .unwrap_or_else(|_| panic!("{text:?} did not come: {seen}"))
            .expect("more of the stream");
        assert!(read > 0, "the stream ended: {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
}

async fn open(served: &Served, path: &str, headers: &str) -> tokio::net::TcpStream {
    let mut socket = served.connect().await;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
    socket.write_all(request.as_bytes()).await.expect("sent");
    socket
}

#[tokio::test]
async fn changes_are_told_to_the_pages_that_show_them() {
    let served = served().await;
    let change = |id: i64| Event::Build {
        id: BuildId::new(id),
        job: "test".to_owned(),
        evaluation: EvaluationId::new(2),
        specification: SpecificationId::new(1),
        status: BuildStatus::Started,
    };
    let mut page = open(&served, "/live?builds=3,1", "").await;
    let mut seen = String::new();
    // The first message comes immediately, because the page may be older than the stream.
    read_until(&mut page, &mut seen, "event: change").await;
    assert!(seen.contains("text/event-stream"));
    seen.clear();
    // The page shows build 1 and not build 2. Both changes together give one message.
    served.events.send(change(2)).expect("a receiver");
    served.events.send(change(1)).expect("a receiver");
    read_until(&mut page, &mut seen, "event: change").await;
    assert_eq!(seen.matches("event: change").count(), 1);
    // These are far more events than the channel holds. One more message comes, and the stream continues.
    seen.clear();
    for _ in 0..1000 {
        let _ = served.events.send(change(2));
    }
    read_until(&mut page, &mut seen, "event: change").await;
    served.close().await;
}

#[tokio::test]
async fn a_followed_log_goes_on_from_the_offset_the_browser_names() {
    let served = served().await;
    let mut writer = served.logs.create(LogName::Build(BuildId::new(7), 1));
    writer.write(b"one\ntwo\nhal").await.expect("written");
    let mut page = open(&served, "/build/7/log/live", "").await;
    let mut seen = String::new();
    read_until(&mut page, &mut seen, "two</div>\n\n").await;
    assert!(seen.contains("event: start\ndata: 0\n"), "{seen}");
    assert!(
        seen.contains("id: 8\ndata: <div class=\"l\">one</div><div class=\"l\">two</div>"),
        "{seen}"
    );
    drop(page);
    // The browser lost the connection, and reconnects with the id of the last message.
    let mut page = open(&served, "/build/7/log/live", "last-event-id: 8\r\n").await;
    let mut seen = String::new();
    read_until(&mut page, &mut seen, "event: start\ndata: 8\n").await;
    writer.write(b"f <b>\nlast").await.expect("written");
    read_until(&mut page, &mut seen, "id: 17\n").await;
    assert!(seen.contains("<div class=\"l\">half &lt;b&gt;</div>"), "{seen}");
    assert!(!seen.contains("one</div>"), "{seen}");
    writer.finish().await;
    read_until(&mut page, &mut seen, "event: end").await;
    assert!(seen.contains("id: 21\ndata: <div class=\"l\">last</div>"), "{seen}");
    served.close().await;
}

#[tokio::test]
async fn a_line_whose_end_has_not_come_is_told_as_it_is_drawn_anew() {
    let served = served().await;
    let mut writer = served.logs.create(LogName::Build(BuildId::new(7), 1));
    writer.write(b"done\n10%").await.expect("written");
    let mut page = open(&served, "/build/7/log/live?attempt=1&offset=5", "").await;
    let mut seen = String::new();
    read_until(&mut page, &mut seen, "id: 5\nevent: part\ndata: <div class=\"l part\">10%</div>")
        .await;
    writer.write(b"\r20%").await.expect("written");
    read_until(&mut page, &mut seen, "id: 9\nevent: part\ndata: <div class=\"l part\">20%</div>")
        .await;
    writer.write(b"\r\x1b[K").await.expect("written");
    read_until(&mut page, &mut seen, "event: part\ndata: \n").await;
    writer.write(b"end\n").await.expect("written");
    read_until(&mut page, &mut seen, "data: <div class=\"l\">end</div>").await;
    writer.finish().await;
    read_until(&mut page, &mut seen, "event: end").await;
    // Another attempt than the last cannot be followed.
    assert_eq!(served.get("/build/7/log/live?attempt=2").await.status, 204);
    served.close().await;
}

#[tokio::test]
async fn a_page_that_follows_a_log_is_not_sent_it_once_more() {
    let served = served().await;
    let mut writer = served.logs.create(LogName::Build(BuildId::new(7), 1));
    writer.write(b"line\n").await.expect("written");
    let browser = "accept: text/html\r\n";
    for (follows, sent) in [("", true), ("1", false), ("2", true), ("x", true)] {
        let headers = format!("{browser}x-brigandine-follows: {follows}\r\n");
        let page = served.ask("GET", "/build/7", &headers).await;
        assert_eq!(page.body.contains(">line</div>"), sent, "{follows}");
        assert!(page.body.contains("data-attempt=\"1\" data-log="), "{follows}");
    }
    served.close().await;
}

#[tokio::test]
async fn a_log_that_has_not_begun_is_not_asked_for_again_and_again() {
    let served = served().await;
    assert_eq!(served.get("/build/8/log/live").await.status, 204);
    assert_eq!(served.get("/build/99/log/live").await.status, 404);
    served.close().await;
}

#[tokio::test]
async fn what_pages_load_may_be_kept_for_ever_at_an_address_with_its_version() {
    let served = served().await;
    let body = served.page("/").await.body;
    for file in ["/static/style.css?", "/static/live.js?", "/static/icon.svg?"] {
        let at = body.find(file).unwrap_or_else(|| panic!("{file} is not loaded"));
        let link = between(&body[at - 1..], "\"", "\"");
        let answer = served.get(link).await;
        assert_eq!(answer.status, 200);
        assert!(answer.header("cache-control").is_some_and(|value| value.contains("immutable")));
        // At an address that does not change with the contents, a cache must ask each time.
        let plain = file.trim_end_matches('?');
        for address in [plain, "/favicon.ico", &format!("{link}0"), &format!("{plain}?x")] {
            let answer = served.get(address).await;
            assert_eq!(
                (answer.status, answer.header("cache-control")),
                (200, Some("no-cache")),
                "{address}"
            );
            assert!(answer.header("etag").is_some(), "{address}");
        }
    }
    served.close().await;
}
