//! Every kind of route, asked for with every way to accept codings, to name a version, and to want a part.

use std::collections::BTreeSet;
use std::io::Read as _;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::harness::{Answer, LIMIT, Served, parse, served, served_with};
use crate::config::Web;

/// What is special about the answers of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// They are compressed.
    Text,
    /// They are too short to be compressed.
    Short,
    /// They have ranges, and are never compressed.
    Download,
}

use Kind::{Download, Short, Text};

const PAGE: &str = "accept: text/html\r\n";
const PARTS: &str = "accept: text/html\r\nx-brigandine-parts: 1\r\n";

/// Kind, status, address and further headers.
const ROUTES: [(Kind, u16, &str, &str); 15] = [
    (Text, 200, "/", PAGE),
    (Text, 200, "/", PARTS),
    (Text, 200, "/eval/2", PAGE),
    (Text, 200, "/build/3", PAGE),
    (Text, 200, "/queue", PAGE),
    (Text, 404, "/nope", PAGE),
    (Text, 200, "/jobsets", ""),
    (Text, 200, "/api/latestbuilds?nr=100", ""),
    (Short, 200, "/build/3", ""),
    (Short, 404, "/nope", ""),
    (Short, 500, "/api/latestbuilds", ""),
    (Text, 200, "/static/style.css", ""),
    (Text, 200, "/static/live.js", ""),
    (Text, 200, "/static/icon.svg", ""),
    (Download, 200, "/download/1", ""),
];

/// Values of `Accept-Encoding`, and the coding that a text then has.
const ACCEPTED: [(Option<&str>, Option<&str>); 10] = [
    (None, None),
    (Some(""), None),
    (Some("gzip"), Some("gzip")),
    (Some("zstd"), Some("zstd")),
    (Some("br"), None),
    (Some("*"), Some("gzip")),
    (Some("gzip;q=0, zstd;q=0"), None),
    (Some("gzip, deflate, br, zstd"), Some("zstd")),
    (Some("gzip;q=0.9, zstd;q=0.8"), Some("gzip")),
    (Some("identity, gzip;q=0.5"), None),
];

/// An answer with its body as bytes.
async fn ask(served: &Served, method: &str, path: &str, headers: &str) -> (Answer, Vec<u8>) {
    let request =
        format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
    split(&served.bytes(&request).await)
}

fn split(answer: &[u8]) -> (Answer, Vec<u8>) {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    let head = parse(std::str::from_utf8(&answer[..end]).expect("a head is text"));
    (head, answer[end..].to_vec())
}

fn decoded(answer: &Answer, body: &[u8]) -> Vec<u8> {
    match answer.header("content-encoding") {
        None => body.to_vec(),
        Some("zstd") => zstd::stream::decode_all(body).expect("zstd"),
        Some("gzip") => {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(body).read_to_end(&mut plain).expect("gzip");
            plain
        }
        Some(other) => panic!("{other}"),
    }
}

/// The head without the date.
fn head(answer: &Answer) -> Vec<&str> {
    answer.head.lines().filter(|line| !line.starts_with("date:")).collect()
}

/// Asks a route in every way. `false`: the page has changed meanwhile, because it shows how long ago things were.
async fn check(served: &Served, (kind, status, path, page): (Kind, u16, &str, &str)) -> bool {
    let (plain, body) = ask(served, "GET", path, page).await;
    assert_eq!(plain.status, status, "{path}: {}", plain.head);
    let tag = plain.header("etag");
    assert_eq!(tag.is_some(), status == 200, "{path}: {}", plain.head);
    for (accepted, coding) in ACCEPTED {
        let line = accepted.map(|value| format!("accept-encoding: {value}\r\n"));
        let line = format!("{page}{}", line.unwrap_or_default());
        let what = format!("{path} with {line:?}");
        let coding = coding.filter(|_| kind == Text);
        let (got, coded) = ask(served, "GET", path, &line).await;
        if decoded(&got, &coded) != body {
            assert_ne!(ask(served, "GET", path, page).await.1, body, "{what}");
            return false;
        }
        assert_eq!(got.status, status, "{what}");
        assert_eq!(got.header("content-encoding"), coding, "{what}: {}", got.head);
        let length = coded.len().to_string();
        assert_eq!(got.header("content-length"), Some(&*length), "{what}");
        assert_eq!(got.header("etag"), tag, "{what}");
        assert!(coding.is_none() || coded.len() < body.len(), "{what}");
        let varies = got.header("vary").is_some_and(|vary| vary.ends_with("accept-encoding"));
        assert_eq!(varies, kind == Text, "{what}: {}", got.head);

        let (only_head, nothing) = ask(served, "HEAD", path, &line).await;
        assert_eq!((head(&only_head), nothing.len()), (head(&got), 0), "{what}");

        let (other, again) =
            ask(served, "GET", path, &format!("{line}if-none-match: \"x\"\r\n")).await;
        assert_eq!((head(&other), &again), (head(&got), &coded), "{what}");

        let (part, bytes) = ask(served, "GET", path, &format!("{line}range: bytes=1-4\r\n")).await;
        if kind == Download {
            assert_eq!((part.status, &*bytes), (206, &body[1..5]), "{what}");
            assert_eq!(part.header("content-length"), Some("4"), "{what}");
            assert_eq!(part.header("content-encoding"), None, "{what}");
        } else {
            assert_eq!((head(&part), &bytes), (head(&got), &coded), "{what}");
        }

        let Some(tag) = tag else { continue };
        let strong = tag.trim_start_matches("W/");
        for known in [tag, strong, "*", &format!("\"x\", {tag}")] {
            for method in ["GET", "HEAD"] {
                let line = format!("{line}if-none-match: {known}\r\n");
                let (kept, nothing) = ask(served, method, path, &line).await;
                assert_eq!((kept.status, nothing.len()), (304, 0), "{what}: {}", kept.head);
                assert_eq!(kept.header("etag"), Some(tag), "{what}");
                assert_eq!(kept.header("content-encoding"), None, "{what}");
                assert_eq!(kept.header("content-length"), None, "{what}");
                assert_eq!(kept.header("cache-control"), got.header("cache-control"), "{what}");
            }
        }
    }
    true
}

#[tokio::test]
async fn every_answer_is_the_same_whatever_the_client_accepts_and_has() {
    let served = served().await;
    served.put("products/hello", b"hello world\n");
    for route in ROUTES {
        while !check(&served, route).await {}
    }
    served.close().await;
}

#[tokio::test]
async fn answers_down_one_connection_are_coded_each_as_its_request_accepts() {
    let served = served().await;
    let (_, plain) = ask(&served, "GET", "/jobsets", "").await;
    let mut socket = served.connect().await;
    let asked = ["gzip", "zstd", "", "gzip", "identity", "zstd"];
    for accepted in asked {
        let request =
            format!("GET /jobsets HTTP/1.1\r\nhost: x\r\naccept-encoding: {accepted}\r\n\r\n");
        socket.write_all(request.as_bytes()).await.expect("sent");
    }
    socket
        .write_all(b"GET /jobsets HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .expect("sent");
    let mut answers = Vec::new();
    let read = tokio::time::timeout(LIMIT, socket.read_to_end(&mut answers)).await;
    read.expect("in time").expect("read");
    let mut rest = &*answers;
    for accepted in asked {
        let (answer, body) = split(rest);
        let wanted = ["gzip", "zstd"].into_iter().find(|coding| *coding == accepted);
        assert_eq!(answer.header("content-encoding"), wanted);
        let length: usize =
            answer.header("content-length").and_then(|l| l.parse().ok()).expect("a length");
        assert_eq!(decoded(&answer, &body[..length]), plain);
        rest = &rest[rest.len() - (body.len() - length)..];
    }
    assert_eq!(split(rest).1, plain);
    served.close().await;
}

#[tokio::test]
async fn streams_are_never_compressed() {
    let served = served().await;
    let mut socket = served.connect().await;
    socket
        .write_all(b"GET /live HTTP/1.1\r\nhost: x\r\naccept-encoding: gzip, zstd\r\n\r\n")
        .await
        .expect("sent");
    let mut seen = Vec::new();
    while !seen.windows(6).any(|six| six == b"change") {
        let read = tokio::time::timeout(LIMIT, socket.read_buf(&mut seen)).await;
        assert!(read.expect("in time").expect("read") > 0);
    }
    let (answer, _) = split(&seen);
    assert_eq!(
        (answer.header("content-encoding"), answer.header("etag")),
        (None, None),
        "{}",
        answer.head
    );
    served.close().await;
}

#[tokio::test]
async fn long_answers_are_compressed_as_short_ones_are() {
    let fill = "
        INSERT INTO specification VALUES (1, 'big', '{\"name\":\"big\",\"inputs\":[],\"evaluator\":{\"kind\":\"jobs\",\"file\":\"x\"}}', 1, 0, 0, '', 0, 0, 0, 0, NULL);
        INSERT INTO evaluation VALUES (1, 1, 'a', 0, '', 1, 1, 1, '', 0, 0, 1000, 0, 0, 0, 0);
        INSERT INTO build WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
          SELECT i, 'd' || i, i, 1, 1, 'job-' || i, 'x86_64-linux', 'j', 0, 0, -1, 0, 1, 0, 0, '', 0, 0, 1, 2, 3, '', 0, '' FROM n;";
    let served = served_with(fill, Web::default()).await;
    let path = "/api/latestbuilds?nr=1000";
    let (_, plain) = ask(&served, "GET", path, "").await;
    assert!(plain.len() > 300_000, "{}", plain.len());
    for coding in ["gzip", "zstd"] {
        let (answer, body) =
            ask(&served, "GET", path, &format!("accept-encoding: {coding}\r\n")).await;
        assert_eq!(answer.header("content-encoding"), Some(coding));
        assert_eq!(answer.header("content-length"), Some(&*body.len().to_string()));
        assert_eq!(decoded(&answer, &body), plain);
        assert!(body.len() * 8 < plain.len(), "{coding}: {}", body.len());
    }
    served.close().await;
}

/// The values of attributes with addresses.
fn addresses(page: &str) -> Vec<&str> {
    let begins = [" href=\"", " src=\"", " action=\"", " data-live=\"", " data-log=\""];
    let values = begins.iter().flat_map(|begin| page.split(begin).skip(1));
    values
        .filter_map(|rest| rest.split('"').next())
        .filter(|value| value.starts_with('/'))
        .collect()
}

#[tokio::test]
async fn below_a_path_every_address_of_an_answer_leads_there() {
    let fill = include_str!("../../tests/data/api/fill.sql");
    let base = "/deep/ci";
    let web = || Web { base: base.to_owned(), ..Web::default() };
    let served = served_with(fill, web()).await;
    for path in
        ["/", "/queue", "/jobset/hello", "/eval/2", "/build/3", "/build/7", "/login", "/nope"]
    {
        for asked in [path.to_owned(), format!("{base}{path}")] {
            let page = served.page(&asked).await;
            assert_eq!(page.status, if path == "/nope" { 404 } else { 200 }, "{asked}");
            let addresses = addresses(&page.body);
            assert!(addresses.len() > 5, "{asked}: {addresses:?}");
            for address in addresses {
                assert!(address.starts_with(&format!("{base}/")), "{asked} names {address}");
                let followed = address.split('?').next().unwrap_or_default();
                if !followed.ends_with("/live") && !followed.contains("/download/") {
                    let answer = served.page(followed).await;
                    assert!([200, 404, 405].contains(&answer.status), "{address}");
                    assert!(answer.status != 404 || followed.contains("/log"), "{address}");
                }
            }
        }
    }
    let parts = served.ask("GET", "/deep/ci/queue", PARTS).await;
    assert!(parts.body.contains(" href=\"/deep/ci/build/"), "{}", parts.body);
    let place = served.page("/deep/ci/jobset/main/hello").await;
    assert_eq!((place.status, place.header("location")), (302, Some("/deep/ci/jobset/hello")));
    for probe in ["/healthz", "/deep/ci/healthz", "/deep/ci//healthz/"] {
        assert_eq!(served.get(probe).await.body, "ok\n", "{probe}");
    }
    served.close().await;
    let served = served_with(fill, Web { private: true, ..web() }).await;
    let place = served.page("/deep/ci/queue?x=y").await;
    assert_eq!(
        (place.status, place.header("location")),
        (303, Some("/deep/ci/login?next=%2Fqueue%3Fx%3Dy"))
    );
    let page = served.page("/deep/ci/login?next=%2Fqueue%3Fx%3Dy").await;
    assert!(page.body.contains("name=\"next\" value=\"/queue?x=y\""), "{}", page.body);
    served.close().await;
}

/// The values of `Accept` and `Content-Type` that answers may depend on.
const WANTED: [&str; 3] =
    ["accept: text/html\r\n", "accept: application/json\r\n", "content-type: application/json\r\n"];

#[tokio::test]
async fn an_answer_that_depends_on_what_is_accepted_says_so_whatever_it_is() {
    let served = served().await;
    let paths = [
        "/",
        "/queue",
        "/nothing",
        "/jobset/hello",
        "/jobset/nope",
        "/jobset/main/hello",
        "/jobset/main/nope",
        "/project/main",
        "/project/nope",
        "/eval/2",
        "/eval/99",
        "/eval/x",
        "/eval/99/log",
        "/eval/2/log",
        "/build/3",
        "/build/99",
        "/build/3/details",
        "/build/99/log/raw",
        "/search?query=x",
        "/jobsets",
        "/readyz",
    ];
    let mut depending = 0;
    for path in paths {
        let plain = served.get(path).await;
        let all = [
            &served.ask("GET", path, WANTED[0]).await,
            &served.ask("GET", path, WANTED[1]).await,
            &served.ask("GET", path, WANTED[2]).await,
        ];
        for (other, wanted) in all.into_iter().zip(WANTED) {
            let of = |answer: &Answer| {
                let names = ["content-type", "location"];
                (answer.status, names.map(|name| answer.header(name).map(str::to_owned)))
            };
            if of(other) == of(&plain) {
                continue;
            }
            depending += 1;
            let (name, _) = wanted.split_once(':').expect("a header");
            for answer in [&plain, other] {
                let vary = answer.header("vary").unwrap_or_default();
                assert!(
                    vary.split(", ").any(|it| it == name),
                    "{path} with {wanted:?}: {}",
                    answer.head
                );
            }
        }
    }
    assert!(depending >= 12, "{depending}");
    served.close().await;
}

#[tokio::test]
async fn what_must_not_be_stored_has_no_tag_and_is_always_sent() {
    let served = served().await;
    for path in ["/healthz", "/readyz", "/metrics"] {
        let answer = served.ask("GET", path, "if-none-match: *\r\n").await;
        assert_eq!((answer.status, answer.header("etag")), (200, None), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
    }
    served.close().await;
}

#[tokio::test]
async fn a_refusal_is_not_taken_from_a_cache_without_a_question() {
    let served = served().await;
    for path in ["/build/99", "/eval/99", "/nothing", "/download/99", "/api/build/99"] {
        let answer = served.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-cache"), "{path}");
    }
    served.close().await;
}

/// The addresses of a route for each of these values of `{id}`, projects and specifications.
fn filled(route: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for id in 1..=9 {
        for (project, name) in [("main", "hello"), ("tools", "odd")] {
            let part = |part: &str| match part {
                "{id}" | "{product}" | "{number}" => id.to_string(),
                "{project}" => project.to_owned(),
                "{name}" | "{jobset}" => name.to_owned(),
                part if part.starts_with('{') => "hello".to_owned(),
                part => part.to_owned(),
            };
            all.insert(route.split('/').map(part).collect::<Vec<_>>().join("/"));
        }
    }
    all
}

#[tokio::test]
async fn no_answer_has_the_credentials_in_the_address_of_an_input() {
    const SECRETS: [(&str, &str); 3] = [
        ("https://", "https://tok-SECRET@"),
        ("ssh://git@", "ssh://git:SECRET@"),
        ("/srv/data.git", "http://me:pw-SECRET@example.org/data.git"),
    ];
    let fill = include_str!("../../tests/data/api/fill.sql").to_owned();
    let fill = SECRETS.iter().fold(fill, |fill, (plain, secret)| {
        assert!(fill.contains(plain), "the contents have {plain}");
        fill.replace(plain, secret)
    });
    let served = served_with(&fill, Web::default()).await;
    let mut shown = 0;
    // A stream of events does not end.
    for route in served.routes.iter().filter(|route| !route.ends_with("/live")) {
        for address in filled(route) {
            for accepted in [PAGE, "accept: application/json\r\n"] {
                let (answer, body) = ask(&served, "GET", &address, accepted).await;
                let text = format!("{}\n{}", answer.head, String::from_utf8_lossy(&body));
                assert!(!text.contains("SECRET"), "{address} with {accepted}: {text}");
                shown += usize::from(text.contains("***@example.org"));
            }
        }
    }
    assert!(shown > 5, "pages and JSON show the addresses without the secrets: {shown}");
    served.close().await;
}
