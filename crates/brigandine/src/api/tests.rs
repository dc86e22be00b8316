//! Compares the API with golden files: every route and every error, byte by byte.

use std::fmt::Write as _;
use std::path::Path;

use crate::model::BuildId;
use crate::model::LogName;
use crate::site::harness::served;

/// As `curl -H` sends it.
pub(super) const JSON: &str = "accept: application/json\r\n";

/// Compares requests and their answers, as one text, with `tests/data/api/NAME.txt`.
async fn check(name: &str, requests: &[&str]) {
    check_with(name, "", requests).await;
}

/// Like [`check`], with headers in every request.
pub(super) async fn check_with(name: &str, headers: &str, requests: &[&str]) {
    let served = served().await;
    let mut said = String::new();
    for request in requests {
        let (method, rest) = request.split_once(' ').unwrap_or(("GET", request));
        let (path, body) = rest.split_once(' ').unwrap_or((rest, ""));
        let answer = served.send(method, path, headers, body).await;
        let kind = answer.header("content-type").unwrap_or("-");
        let length = answer.header("content-length").unwrap_or("-");
        if method != "HEAD" && length != "-" {
            assert_eq!(length, answer.body.len().to_string(), "{request}");
        }
        let place = answer.header("location").map(|place| format!(" → {place}"));
        let _ = writeln!(
            said,
            "{method} {rest}\n{} {kind}, {length} bytes{}\n{}\n",
            answer.status,
            place.unwrap_or_default(),
            answer.body
        );
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/api/{name}.txt"));
    if std::env::var_os("BRIGANDINE_BLESS").is_some() {
        std::fs::write(&golden, &said).expect("writing the golden file");
    }
    let wanted = std::fs::read_to_string(&golden).unwrap_or_default();
    assert!(wanted == said, "{name}\n--- wanted\n{wanted}\n--- said\n{said}");
    served.close().await;
}

#[tokio::test]
async fn specifications_are_written_as_cuirass_does() {
    let requests = [
        "/jobsets",
        "/specifications",
        "/api/jobsets",
        "HEAD /jobsets",
        "/api/jobsets?project=main",
        "/api/jobsets?project=tools",
        "/api/jobsets?project=unknown",
        "/api/jobsets?project=",
    ];
    check("specifications", &requests).await;
}

#[tokio::test]
async fn evaluations_are_written_as_cuirass_does() {
    let requests = [
        "/api/evaluations?nr=10",
        "/api/evaluations?nr=1&spec=hello",
        "/api/evaluations?nr=5&spec=unknown",
        "/api/evaluations",
        "/api/evaluation?id=2",
        "/api/evaluation?id=99",
        "/api/evaluation",
    ];
    check("evaluations", &requests).await;
}

#[tokio::test]
async fn evaluations_are_compared_page_by_page() {
    let requests = [
        "/api/v1/eval/2/compare",
        "/api/v1/eval/2/compare?with=1111&change=new&nr=2",
        "/api/v1/eval/2/compare?with=1&change=new&nr=2&after=docs&build=6",
        "/api/v1/eval/2/compare?change=new&text=L&nr=1",
        "/api/v1/eval/1/compare?with=2&change=removed&nr=1",
        "/api/v1/eval/1/compare?with=2&change=fixed",
        "/api/v1/eval/2/compare?change=wrong",
        "/api/v1/eval/2/compare?nr=0",
        "/api/v1/eval/2/compare?with=3",
        "/api/v1/eval/2/compare?with=99",
        "/api/v1/eval/1/compare",
        "/api/v1/eval/99/compare",
    ];
    check("comparison", &requests).await;
}

#[tokio::test]
async fn the_history_of_a_job_is_told_page_by_page() {
    let requests = [
        "/api/v1/job/hello/test",
        "/api/v1/job/hello/test?nr=1",
        "/api/v1/job/hello/test?nr=1&before=2",
        "/api/v1/job/hello/compile",
        "/api/v1/job/hello/lint%20%22all%22%20%3Cx%3E",
        "/api/v1/job/hello/none",
        "/api/v1/job/unknown/test",
        "/api/v1/job/hello/test?nr=0",
        "/api/v1/job/hello/test?before=x",
        "POST /api/v1/job/hello/test",
    ];
    check("job", &requests).await;
}

#[tokio::test]
async fn a_build_is_written_as_cuirass_does() {
    let requests = [
        "/build/1",
        "/build/2",
        "/build/3",
        "/build/7",
        "/build/8",
        "/build/aaaa-compile.drv",
        "/build/gggg-lint-2.drv",
        "HEAD /build/1",
        "/output/bbbb-test",
        "/output/bbbb-test-doc",
        "/output/unknown",
        "/output/..",
    ];
    check("build", &requests).await;
}

#[tokio::test]
async fn a_build_that_is_not_there_is_told_in_the_words_clients_know() {
    let requests = [
        "/build/99",
        "/build/abc",
        "/build/-1",
        "/build/99999999999999999999",
        "/build/unknown.drv",
        "/build/%00",
        "/build/%ff",
        "/build/1/unknown",
        "/build/",
        "/build",
        "/build/abc/log/raw",
        "/build/8/log/raw",
        "/download/99",
        "/download/abc",
        "/unknown?x=%00",
    ];
    check("missing", &requests).await;
}

#[tokio::test]
async fn doubled_slashes_and_the_last_one_name_the_same() {
    let served = served().await;
    for (path, same) in [
        ("/build/1/", "/build/1"),
        ("//build///1//", "/build/1"),
        ("/api//queue/?nr=1", "/api/queue?nr=1"),
        ("/jobsets/?x=//", "/jobsets"),
    ] {
        let (answer, wanted) = (served.get(path).await, served.get(same).await);
        assert_eq!((answer.status, &answer.body), (200, &wanted.body), "{path}");
    }
    let page = served.page("//").await;
    assert_eq!((page.status, page.body), (200, served.page("/").await.body));
    let bearer = format!("authorization: Bearer {}\r\n", crate::site::harness::TOKEN);
    let answer = served.ask("POST", "/api/v1//build/8/cancel/", &bearer).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    // An encoded slash is part of a name.
    assert_eq!(served.get("/jobset/a%2F%2Fb").await.status, 404);
    served.close().await;
}

#[tokio::test]
async fn a_project_is_a_filter_of_every_list() {
    let served = served().await;
    for path in [
        "/api/latestbuilds?nr=9",
        "/api/latestbuilds?nr=9&job=test",
        "/api/latestbuilds?nr=9&jobset=hello&status=success",
        "/api/latestbuilds?nr=9&evaluation=1",
        "/api/queue?nr=9",
        "/api/queue?nr=9&system=x86_64-linux",
        "/api/nrqueue?",
        "/api/nrbuilds?nr=9&period=hour",
        "/api/jobs?evaluation=2",
        "/api/jobs/history?nr=9&spec=hello&names=test",
        "/api/evaluations?nr=9&spec=hello",
    ] {
        let all = served.get(path).await.body;
        assert!(all.len() > 2 || all == "2", "{path}: {all}");
        let main = served.get(&format!("{path}&project=main")).await;
        assert_eq!((main.status, main.body), (200, all), "{path}");
        for other in ["tools", "unknown"] {
            let none = served.get(&format!("{path}&project={other}")).await;
            assert_eq!(none.status, 200);
            assert!(["[]", "0"].contains(&&*none.body), "{path} {other}: {}", none.body);
        }
    }
    let of = async |project: &str| {
        let list = served.get(&format!("/api/evaluations?nr=9&project={project}")).await.body;
        list.matches("\"specification\":\"").count()
    };
    assert_eq!((of("main").await, of("tools").await, of("unknown").await), (2, 2, 0));
    served.close().await;
}

#[tokio::test]
async fn the_words_of_cuirass_name_statuses() {
    let served = served().await;
    for (path, same) in [
        ("/api/latestbuilds?nr=9&status=success", "/api/latestbuilds?nr=9&status=0"),
        ("/api/latestbuilds?nr=9&status=done", "/api/latestbuilds?nr=9"),
        ("/api/latestbuilds?nr=9&status=canceled", "/api/latestbuilds?nr=9&status=4"),
        ("/api/latestbuilds?nr=9&status=pending", "/api/queue?nr=9&job=none"),
        ("/api/queue?nr=9&status=pending", "/api/queue?nr=9"),
        ("/api/queue?nr=9&status=done", "/api/queue?nr=9&job=none"),
    ] {
        let (answer, wanted) = (served.get(path).await, served.get(same).await);
        assert_eq!((answer.status, &answer.body), (200, &wanted.body), "{path}");
    }
    served.close().await;
}

#[tokio::test]
async fn numbers_of_builds_are_written_as_hydra_does() {
    let requests = [
        "/api/nrqueue",
        "/api/nrbuilds?nr=10&period=day",
        "/api/nrbuilds?nr=10&period=hour",
        "/api/nrbuilds?nr=1&period=hour",
        "/api/nrbuilds?nr=10&period=hour&jobset=hello&system=x86_64-linux",
        "/api/nrbuilds?nr=10&period=hour&job=test",
        "/api/nrbuilds?nr=10&period=hour&job=none",
        "/api/nrbuilds?nr=10",
        "/api/nrbuilds?period=day",
        "/api/nrbuilds?nr=10&period=year",
        "/api/nrbuilds?nr=1001&period=day",
    ];
    check("numbers", &requests).await;
}

#[tokio::test]
async fn latest_builds_are_filtered_and_the_latest_stop_comes_first() {
    let requests = [
        "/api/latestbuilds?nr=2",
        "/api/latestbuilds?nr=10&jobset=hello&job=test&system=x86_64-linux",
        "/api/latestbuilds?nr=10&evaluation=1",
        "/api/latestbuilds?nr=10&derivation=aaaa-compile.drv",
        "/api/latestbuilds?nr=10&status=1",
        "/api/latestbuilds?nr=10&status=failed-dependency",
        "/api/latestbuilds?nr=10&status=7",
        "/api/latestbuilds?nr=10&evaluation=x",
        "/api/latestbuilds?nr=1&unknown=x&job=",
    ];
    check("latestbuilds", &requests).await;
}

#[tokio::test]
async fn the_queue_has_running_builds_first_even_when_it_is_cut() {
    check("queue", &["/api/queue?nr=10", "/api/queue?nr=1", "/api/queue?nr=10&system=none"]).await;
}

#[tokio::test]
async fn a_wrong_number_of_entries_is_refused_as_clients_expect() {
    let mut requests = Vec::new();
    for route in ["/api/latestbuilds", "/api/queue", "/api/evaluations"] {
        for nr in ["", "?nr=", "?nr=x", "?nr=1.5", "?nr=0", "?nr=1001", "?nr=-1", "?nr=99999999999"]
        {
            requests.push(format!("{route}{nr}"));
        }
    }
    let requests: Vec<_> = requests.iter().map(String::as_str).collect();
    check("number", &requests).await;
}

#[tokio::test]
async fn jobs_of_an_evaluation_are_listed_with_their_builds() {
    let requests = [
        "/api/jobs?evaluation=2",
        "/api/jobs?evaluation=2&names=test,docs",
        "/api/jobs?evaluation=2&system=aarch64-linux",
        "/api/jobs",
    ];
    check("jobs", &requests).await;
}

#[tokio::test]
async fn the_history_of_jobs_is_a_list_of_evaluations() {
    let many = vec!["x"; 101].join(",");
    let requests = [
        "/api/jobs/history?spec=hello&names=test&nr=5",
        "/api/jobs/history?spec=hello&names=compile,package,unknown&nr=1",
        "/api/jobs/history?spec=odd&names=test&nr=2",
        "/api/jobs/history?spec=unknown&names=test&nr=2",
        "/api/jobs/history?spec=hello&names=test",
        "/api/jobs/history?names=test&nr=5",
        "/api/jobs/history?spec=hello&nr=5",
        "/api/jobs/history?spec=hello&names=test&nr=1001",
        &format!("/api/jobs/history?spec=hello&names={many}&nr=1000"),
    ];
    check("history", &requests).await;
}

#[tokio::test]
async fn other_methods_are_refused_with_405_and_what_is_allowed() {
    let requests = [
        "POST /jobsets",
        "PUT /build/1",
        "DELETE /api/queue?nr=1",
        "PATCH /",
        "OPTIONS /eval/1",
        "POST /unknown",
    ];
    check("methods", &requests).await;
    let served = served().await;
    let answer = served.ask("POST", "/build/1", "").await;
    assert_eq!(answer.header("allow"), Some("GET,HEAD"));
    served.close().await;
}

/// A header with the token.
fn bearer() -> String {
    format!("authorization: Bearer {}\r\n", crate::site::harness::TOKEN)
}

#[tokio::test]
async fn changes_are_answered_with_what_has_changed() {
    let requests = [
        "POST /api/v1/build/8/cancel",
        "POST /api/v1/build/7/cancel",
        "POST /api/v1/build/5/restart",
        "POST /api/v1/build/1/restart",
        "POST /api/v1/build/abc/restart",
        "POST /api/v1/build/5/bump",
        "POST /api/v1/build/5/comment",
        "POST /api/v1/build/5/comment {\"comment\":\"of a <b>\"}",
        "POST /api/v1/eval/2/bump",
        "POST /api/v1/eval/2/restart {\"status\":[\"failed\"],\"reason\":\"again\"}",
        "POST /api/v1/eval/2/restart {\"status\":[\"broken\"]}",
        "POST /api/v1/eval/2/keep",
        "POST /api/v1/eval/2/keep",
        "POST /api/v1/eval/2/release",
        "POST /api/v1/eval/2/comment {\"comment\":\"of an evaluation\"}",
        "POST /api/v1/eval/2/cancel",
        "POST /api/v1/eval/1/cancel",
        "POST /api/v1/eval/99/cancel",
        "POST /api/v1/jobset/hello/evaluate",
        "POST /api/v1/jobset/unknown/evaluate",
        "POST /api/v1/jobset/hello/enable",
        "POST /api/v1/jobset/hello/disable",
        "POST /api/v1/jobset/hello/enable",
        "POST /api/v1/changes {\"change\":\"restart\",\"builds\":[5,8,99],\"jobs\":[{\"evaluation\":2,\"status\":[\"failed\"]}]}",
        "POST /api/v1/changes {\"change\":\"disable\",\"specifications\":[\"hello\"]}",
        "POST /api/v1/changes {\"change\":\"explode\",\"builds\":[5]}",
    ];
    check_with("changes", &bearer(), &requests).await;
}

#[tokio::test]
async fn the_audit_is_a_list_of_changes() {
    let requests = [
        "/api/v1/audit",
        "/api/v1/audit?build=6&evaluation=2&specification=hello",
        "/api/v1/audit?before=1",
        "/api/v1/audit?nr=0",
    ];
    check("audit", &requests).await;
}

#[tokio::test]
async fn changes_need_the_token_and_a_post() {
    let served = served().await;
    let bearer = bearer();
    for (path, status, said) in [
        ("/api/v1/build/8/cancel", 200, r#"{"build":8,"changed":1,"status":"canceled"}"#),
        (
            "/api/v1/build/7/cancel",
            202,
            r#"{"attempt":1,"build":7,"message":"it is asked to end, and killed if it does not","status":"started"}"#,
        ),
        ("/api/v1/build/5/restart", 200, r#"{"build":5,"changed":1,"status":"scheduled"}"#),
        (
            "/api/v1/jobset/hello/evaluate",
            202,
            r#"{"jobset":"hello","message":"it is looked at now"}"#,
        ),
    ] {
        for headers in ["", "authorization: Bearer 0123456789abcdeX\r\n", "authorization: x\r\n"] {
            let refused = served.ask("POST", path, headers).await;
            assert_eq!(refused.status, 401, "{path} {headers}");
            assert_eq!(refused.header("www-authenticate"), Some("Bearer realm=\"brigandine\""));
        }
        let answer = served.ask("GET", path, &bearer).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
        assert_eq!(answer.body, r#"{"error":"only POST is answered here"}"#);
        let answer = served.ask("POST", path, &bearer).await;
        assert_eq!((answer.status, &*answer.body), (status, said), "{path}");
    }
    for (path, status, said) in [
        ("/api/v1/jobset/a%20b/evaluate", 404, "there is no specification called a b"),
        ("/api/v1/build/abc/cancel", 404, "Build with ID abc doesn't exist."),
        ("/api/v1/build/99/restart", 404, "Build with ID 99 doesn't exist."),
        ("/api/v1/build/8/cancel", 409, "build 8 has ended already: canceled"),
        ("/api/v1/build/5/restart", 409, "build 5 is scheduled already"),
        ("/api/v1/build/1/restart", 409, "build 1 succeeded; what succeeded is not built again"),
        (
            "/api/v1/build/4/restart",
            409,
            "build 4 has no derivation any more; evaluate its specification again",
        ),
    ] {
        let answer = served.ask("POST", path, &bearer).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.body, format!("{{\"error\":\"{said}\"}}"));
    }
    served.close().await;
}

#[tokio::test]
async fn every_change_is_in_the_audit_with_its_reason_and_nothing_else_is() {
    let served = served().await;
    let post = async |path: &str, body: &str| served.post(path, &bearer(), body).await.status;
    assert_eq!(
        post("/api/v1/build/8/cancel", r#"{"reason":"the <mirror>\nis\u001b gone"}"#).await,
        200
    );
    assert_eq!(post("/api/v1/build/8/cancel", "{}").await, 409);
    assert_eq!(post("/api/v1/jobset/hello/evaluate", " \n").await, 202);
    for wrong in [r#"{"raeson":"x"}"#, "x", "[]", r#"{"reason":1}"#, r#"{"reason":"x"#] {
        assert_eq!(post("/api/v1/build/7/cancel", wrong).await, 400, "{wrong}");
    }
    let list = served.get("/api/v1/audit").await;
    let found: serde_json::Value = serde_json::from_str(&list.body).expect("JSON");
    let rows = found.as_array().expect("a list");
    assert_eq!(rows.len(), 3, "{found}");
    assert_eq!(
        (&rows[0]["change"], &rows[0]["specification"]),
        (&"evaluate".into(), &"hello".into())
    );
    let canceled = &rows[1];
    assert_eq!(
        (&canceled["actor"], &canceled["build"], &canceled["evaluation"], &canceled["result"]),
        (&"token".into(), &8.into(), &2.into(), &"canceled".into())
    );
    assert_eq!(canceled["reason"], "the <mirror>\nis\\u{1b} gone");
    for (path, rows) in [
        ("/api/v1/audit?build=8", 1),
        ("/api/v1/audit?build=7", 0),
        ("/api/v1/audit?evaluation=2", 2),
        ("/api/v1/audit?specification=hello", 3),
        ("/api/v1/audit?specification=hello&nr=1", 1),
        ("/api/v1/audit?before=2", 1),
    ] {
        let found: Vec<serde_json::Value> =
            serde_json::from_str(&served.get(path).await.body).expect("JSON");
        assert_eq!(found.len(), rows, "{path}");
    }
    assert_eq!(served.get("/api/v1/audit?build=x").await.status, 400);
    let page = served.page("/build/8").await.body;
    assert!(page.contains("the &#60;mirror&#62;\nis\\u{1b} gone"), "{page}");
    assert!(served.page("/eval/2").await.body.contains("href=\"/build/8\">build 8</a>"));
    assert!(served.page("/jobset/hello").await.body.contains("looked at now"));
    served.close().await;
}

#[tokio::test]
async fn a_path_that_cannot_be_decoded_names_nothing() {
    let served = served().await;
    for path in ["/build/%ff", "/build/%ff/log/raw", "/download/%ff", "/eval/%ff", "/jobset/%ff"] {
        let answer = served.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
        assert_eq!(answer.body, format!("{{\"error\":\"nothing is at {path}\"}}"));
    }
    served.close().await;
}

#[tokio::test]
async fn blanks_never_stand_around_colons() {
    let served = served().await;
    for path in ["/jobsets", "/build/1", "/api/evaluations?nr=9", "/api/queue?nr=9"] {
        let body = served.get(path).await.body;
        let outside: String = body.split('"').step_by(2).collect();
        assert!(!outside.contains([' ', '\n']), "{path}: {body}");
    }
    served.close().await;
}

#[tokio::test]
async fn a_build_log_is_followed_while_it_is_written_and_read_again_when_finished() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let served = served().await;
    let mut writer = served.logs.create(LogName::Build(BuildId::new(7), 1));
    let mut client = served.connect().await;
    let request = b"GET /build/7/log/raw HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    client.write_all(request).await.expect("sent");
    // client                      | writer
    // reads "first"               | writes "first"
    // reads the rest and the end  | writes "second", finishes
    writer.write(b"first\n").await.expect("written");
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    while !seen.contains("first\n") {
        let read = client.read(&mut buffer).await.expect("more");
        assert!(read > 0, "ended early: {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    writer.write(b"second\n").await.expect("written");
    writer.finish().await;
    client.read_to_string(&mut seen).await.expect("the end");
    assert!(seen.contains("second\n"), "{seen}");
    assert!(seen.ends_with("0\r\n\r\n"), "the stream has its end: {seen}");
    let again = served.get("/build/7/log/raw?offset=6").await;
    assert_eq!((again.status, &*again.body), (200, "second\n"));
    for offset in ["x", "-1", "9223372036854775808"] {
        let path = format!("/build/7/log/raw?offset={offset}");
        assert_eq!(served.get(&path).await.status, 400, "{path}");
    }
    served.close().await;
}

#[tokio::test]
async fn a_product_is_a_download_and_never_a_page() {
    let served = served().await;
    served.put("products/hello", b"hello world\n");
    let answer = served.get("/download/1").await;
    assert_eq!((answer.status, &*answer.body), (200, "hello world\n"));
    assert_eq!(answer.header("content-length"), Some("12"));
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    assert_eq!(answer.header("content-disposition"), Some("attachment; filename=\"hello\""));
    let part = served.ask("GET", "/download/1", "range: bytes=6-\r\n").await;
    assert_eq!((part.status, &*part.body), (206, "world\n"));
    assert_eq!(part.header("content-range"), Some("bytes 6-11/12"));
    assert_eq!(served.get("/download/2").await.status, 404, "the file is gone");
    served.close().await;
}
