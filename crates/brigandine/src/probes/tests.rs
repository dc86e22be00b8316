//! Tests that ask the probes as monitors and crawlers do.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

use super::robots::RULES;
use crate::model::Tasks;
use crate::site::harness::{BUSY, LIMIT, Served, TOKEN, parse, served};

const JSON: &str = "accept: application/json\r\n";

/// The answer of `/readyz`: its status, and its JSON.
async fn readiness(served: &Served) -> (u16, serde_json::Value) {
    let answer = served.ask("GET", "/readyz", JSON).await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("vary"), Some("accept, content-type"));
    (answer.status, serde_json::from_str(&answer.body).expect("JSON"))
}

#[tokio::test]
async fn a_server_that_works_is_alive_and_ready() {
    let served = served().await;
    let alive = served.get("/healthz").await;
    assert_eq!((alive.status, &*alive.body), (200, "ok\n"));
    assert_eq!(alive.header("cache-control"), Some("no-store"));
    let ready = served.get("/readyz").await;
    assert_eq!((ready.status, &*ready.body), (200, "ready\n"));
    assert_eq!(ready.header("cache-control"), Some("no-store"));
    assert_eq!(served.ask("HEAD", "/healthz", "").await.status, 200);
    assert_eq!(served.ask("POST", "/healthz", "").await.status, 405);
    served.close().await;
}

#[tokio::test]
async fn a_task_that_exited_makes_the_server_unready_and_is_named() {
    let served = served().await;
    let tasks = Tasks {
        running: vec!["the builder".to_owned()],
        faults: vec!["A required task exited: the wake socket: it broke.".to_owned()],
        private: Vec::new(),
        ending: false,
    };
    *served.tasks.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
    let (status, json) = readiness(&served).await;
    assert_eq!(status, 503);
    assert_eq!(json["ready"], false);
    assert_eq!(json["tasks"], serde_json::json!(["the builder"]));
    let answer = served.get("/readyz").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.body, "not ready\nA required task exited: the wake socket: it broke.\n");
    assert_eq!(served.get("/healthz").await.status, 200, "the process answers");
    served.close().await;
}

#[tokio::test]
async fn a_database_that_accepts_no_write_makes_the_server_unready_until_it_accepts_one() {
    let served = served().await;
    // A short wait is normal.
    served.health.note_waiting(Some(Instant::now()));
    assert_eq!(readiness(&served).await.0, 200);
    served.health.note_waiting(Instant::now().checked_sub(Duration::from_secs(7)));
    let (status, json) = readiness(&served).await;
    assert_eq!(status, 503);
    let reason = json["reasons"][0].as_str().expect("a sentence");
    assert!(reason.starts_with("The database has accepted no write for "), "{reason}");
    served.health.note_waiting(None);
    assert_eq!(readiness(&served).await.0, 200);
    served.close().await;
}

#[tokio::test]
async fn the_figure_of_readiness_is_the_answer_of_readyz() {
    let served = served().await;
    let check = async |status: u16, figure: &str| {
        assert_eq!(readiness(&served).await.0, status, "{figure}");
        let figures = served.get("/metrics").await.body;
        assert!(figures.contains(&format!("\nbrigandine_ready {figure}\n")), "{status}: {figures}");
    };
    check(200, "1").await;
    let ends =
        Tasks { faults: vec!["The server ends.".to_owned()], ending: true, ..Tasks::default() };
    *served.tasks.lock().unwrap_or_else(PoisonError::into_inner) = ends;
    check(503, "0").await;
    *served.tasks.lock().unwrap_or_else(PoisonError::into_inner) = Tasks::default();
    served.health.note_waiting(Instant::now().checked_sub(Duration::from_secs(7)));
    check(503, "0").await;
    served.health.note_waiting(None);
    check(200, "1").await;
    served.close().await;
}

#[tokio::test]
async fn what_is_no_notice_on_pages_is_none_for_programs_and_no_reason_is_said_twice() {
    let served = served().await;
    served.health.note_end();
    let (_, json) = readiness(&served).await;
    assert_eq!(json["notice"], "", "it is among the reasons of a server that ends");
    assert!(served.page("/queue").await.body.contains("The server ends: what runs may end"));
    served.close().await;
}

#[tokio::test]
async fn no_probe_waits_for_the_database_or_for_a_turn_of_its_client() {
    let served = served().await;
    // Another program has the database, and all turns of this client are taken.
    let path = served.state.path().join("test.db");
    let flags = rusqlite::OpenFlags::default();
    let other = rusqlite::Connection::open_with_flags(path, flags).expect("the database");
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let request = format!(
        "POST /api/v1/build/{BUSY}/cancel HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n\r\n"
    );
    let turns = 2 * std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut busy = Vec::new();
    for _ in 0..turns {
        let mut socket = served.connect().await;
        socket.write_all(request.as_bytes()).await.expect("sent");
        let begun = tokio::time::timeout(LIMIT, served.busy.acquire()).await;
        begun.expect("in time").expect("never closed").forget();
        busy.push(socket);
    }
    for path in super::PATHS {
        let began = Instant::now();
        let answer = served.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert!(began.elapsed() < Duration::from_secs(5), "{path} took {:?}", began.elapsed());
    }
    // Another request of this client waits for its turn; this one is answered only when the server closes.
    let mut waiting = served.connect().await;
    waiting.write_all(b"GET /jobsets HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    let answer = served.get("/healthz").await;
    assert_eq!(answer.status, 200);
    assert!(waiting.try_read(&mut [0; 1]).is_err(), "it has no turn");
    drop(other);
    served.close().await;
}

#[tokio::test]
async fn a_server_that_waits_to_start_is_alive_and_says_why_it_is_not_ready() {
    use axum::body::Body;
    use axum::http::{Request, header};
    use hyper::service::Service;
    use std::sync::{Arc, Mutex};
    let why = Arc::new(Mutex::new("the server waits to start: the disk is full".to_owned()));
    let router = hyper_util::service::TowerToHyperService::new(super::waiting(why));
    for (path, accept, status, body) in [
        ("/healthz", "*/*", 200, "ok\n"),
        ("/readyz", "*/*", 503, "not ready\nThe server waits to start: the disk is full.\n"),
        (
            "/readyz",
            "application/json",
            503,
            r#"{"ready":false,"reasons":["The server waits to start: the disk is full."],"notice":"","tasks":[]}"#,
        ),
        ("/robots.txt", "*/*", 200, RULES),
    ] {
        let request = Request::get(path).header(header::ACCEPT, accept).body(Body::empty());
        let answer = router.call(request.expect("a request")).await.expect("an answer");
        assert_eq!(answer.status().as_u16(), status, "{path}");
        let found = axum::body::to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
        assert_eq!(String::from_utf8_lossy(&found), body, "{path}");
    }
    let request = Request::get("/metrics").body(Body::empty()).expect("a request");
    let answer = router.call(request).await.expect("an answer");
    assert_eq!(answer.status().as_u16(), 200, "monitors see that it answers, and is not ready");
    let found = axum::body::to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
    let figures = String::from_utf8_lossy(&found);
    for line in ["\nbrigandine_ready 0\n", "\nbrigandine_build_info{", "\nprocess_open_fds "] {
        assert!(figures.contains(line), "{line:?} is not in\n{figures}");
    }
}

/// Whether the rules forbid a path, as RFC 9309 says: the longest rule that matches decides, and there are only
/// `Disallow` rules here.
fn forbids(path: &str) -> bool {
    RULES.lines().filter_map(|line| line.strip_prefix("Disallow: ")).any(|rule| {
        let mut rest = path;
        rule.split('*').enumerate().all(|(at, part)| {
            let found = if at == 0 { rest.starts_with(part).then_some(0) } else { rest.find(part) };
            found.inspect(|at| rest = &rest[at + part.len()..]).is_some()
        })
    })
}

#[tokio::test]
async fn crawlers_are_kept_from_logs_downloads_streams_and_queries_and_from_nothing_else() {
    let served = served().await;
    let answer = served.get("/robots.txt").await;
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(answer.body.starts_with("User-agent: *\n"));
    for path in [
        "/build/7/log/raw",
        "/build/7/log/live",
        "/eval/3/log",
        "/download/1",
        "/live?builds=3,1",
        "/live",
        "/api/latestbuilds?nr=10",
        "/api/v1/build/7/cancel",
        "/eval/2?status=failed&text=x",
        "/eval/2?compare=1",
        "/jobset/hello?before=1004",
        "/metrics",
        "/jobsets",
        "/build/7/constituents",
        "/build/7/download/1",
        "/build/7/download-by-type/file/x",
        "/eval/3/builds",
        "/job/main/hello/all/latest/download/1",
        "/jobset/main/hello",
        "/project/main",
        "/search/latest/file?query=x",
    ] {
        assert!(forbids(path), "{path}");
    }
    for path in ["/", "/queue", "/jobset/hello", "/eval/2", "/build/3", "/build/3/details"] {
        assert!(!forbids(path), "{path}");
        assert_eq!(parse(&served.raw(&format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\naccept: text/html\r\n\r\n"
        )).await).status, 200, "{path}");
    }
    served.close().await;
}
