//! Definitions that must be refused, sent as they are and as clients of Hydra send them. Nothing of them is stored.

use serde_json::{Value, json};

use crate::api::tests::check_with;
use crate::site::harness::{Answer, Served, TOKEN, parse, served};

/// Sends a request of an administrator.
async fn send(served: &Served, method: &str, path: &str, body: &str) -> Answer {
    served.send(method, path, &format!("authorization: Bearer {TOKEN}\r\n"), body).await
}

/// Everything that a change of specifications would change.
async fn stored(served: &Served) -> [String; 2] {
    [served.get("/jobsets").await.body, served.get("/api/v1/audit").await.body]
}

/// The pointers of the problems in an answer that refuses a body.
fn pointers(answer: &Answer, what: &str) -> Vec<String> {
    assert_eq!(answer.status, 400, "{what}: {}", answer.body);
    let said: Value = serde_json::from_str(&answer.body).expect("JSON");
    assert!(said["error"].as_str().is_some_and(|error| !error.is_empty()), "{what}: {said}");
    let problems = said["problems"].as_array().unwrap_or_else(|| panic!("{what}: {said}"));
    assert!(!problems.is_empty(), "{what}: {said}");
    let text = |problem: &Value, key: &str| {
        let text = problem[key].as_str().unwrap_or_else(|| panic!("{what}: {said}"));
        assert!(text.len() < 1000, "{what}: {said}");
        text.to_owned()
    };
    let all = problems.iter().inspect(|problem| assert_ne!(text(problem, "message"), "", "{what}"));
    all.map(|problem| text(problem, "pointer")).collect()
}

/// A body with one specification: that of `key` and `value` besides a name and an input.
fn with(key: &str, value: Value) -> Value {
    let mut one = json!({"name": "new", "input": [{"url": "/srv/new"}]});
    one[key] = value;
    json!({"specification": [one]})
}

/// Names that nothing may have, with what each is.
fn bad_names() -> Vec<(String, &'static str)> {
    let own = |name: &str, what| (name.to_owned(), what);
    vec![
        own("a b", "a blank"),
        own("ä", "a letter that is not ASCII"),
        own("\u{65e5}\u{672c}", "another script"),
        own("../x", "a path"),
        own("a/b", "a slash"),
        own("a%2Fb", "an encoded slash"),
        own("-x", "an option"),
        own(".", "a dot"),
        own("a\u{0}b", "a zero"),
        own("a\nb", "a line end"),
        own("<b>", "markup"),
        ("x".repeat(101), "too long"),
    ]
}

#[tokio::test]
async fn specifications_are_defined_and_removed() {
    let headers = format!("authorization: Bearer {TOKEN}\r\n");
    let requests = [
        r#"POST /api/v1/specifications {"specification":[{"name":"new","input":[{"url":"/srv/new"}]}]}"#,
        r#"POST /api/v1/specifications {"specification":[{"name":"hello","input":[{"url":"/srv/x"}]}]}"#,
        r#"POST /api/v1/specifications?replace=true {"specification":[{"name":"hello","input":[{"url":"/srv/x"}]}]}"#,
        r#"POST /api/v1/specifications {"specification":[{"name":"a b","input":[{"url":"/srv/x","brnach":"y"}]}]}"#,
        "POST /api/v1/specifications {",
        "POST /api/v1/specifications",
        "POST /api/v1/jobset/hello/remove?override=x",
        "POST /api/v1/jobset/odd/remove",
        "POST /api/v1/jobset/odd/remove?override=true",
        "POST /api/v1/jobset/hello/remove?history=delete",
        "POST /api/v1/jobset/hello/remove?history=x",
        "POST /api/v1/jobset/unknown/remove",
    ];
    check_with("definitions", &headers, &requests).await;
    let requests = [
        r#"PUT /project/fresh {"displayname":"fresh","enabled":true,"visible":true}"#,
        r#"PUT /project/a%20b {}"#,
        "PUT /api/push?jobsets=main:hello,main:unknown",
        "POST /api/push?repos=https://example.org/hello.git",
        "DELETE /project/tools",
        "DELETE /project/unknown",
        r#"PUT /jobset/main/fresh {"nixexprinput":"src","nixexprpath":"ci.toml","inputs":{"src":{"type":"git","value":"/srv/x main"}}}"#,
        r#"PUT /jobset/main/hello {"nixexprinput":"src","nixexprpath":"ci.toml","inputs":{"src":{"type":"git","value":"/srv/x"}}}"#,
        r#"PUT /jobset/main/x {"enabled":2}"#,
        r#"PUT /jobset/main/x {"nixexprinput":"other","nixexprpath":"ci.toml","inputs":{"src":{"type":"git","value":"/srv/x"}}}"#,
        r#"PUT /jobset/tools/hello {"nixexprinput":"src","nixexprpath":"ci.toml","inputs":{"src":{"type":"git","value":"/srv/x"}}}"#,
        "PUT /jobset/main/x []x",
        "DELETE /jobset/main/hello",
        "DELETE /jobset/tools/odd",
        "DELETE /jobset/tools/hello",
        "DELETE /project/tools?override=true",
        r#"PUT /project/main {"enabled":false}"#,
        "PATCH /project/main",
    ];
    check_with("hydra-writes", &headers, &requests).await;
}

#[tokio::test]
async fn a_body_that_defines_nothing_is_refused_with_every_problem() {
    let served = served().await;
    let before = stored(&served).await;
    let whole = ["", "{", "null", "7", "\"x\"", "[]", "[{}]", "{} {}", "{\"a\":", "\u{feff}{}"];
    for body in whole {
        let answer = send(&served, "POST", "/api/v1/specifications", body).await;
        assert_eq!(pointers(&answer, body), [""], "{body}");
    }
    let one = "/specification/0";
    let mut bodies = vec![
        (json!({}), String::new()),
        (json!({"specification": []}), "/specification".to_owned()),
        (json!({"specification": {}}), "/specification".to_owned()),
        (json!({"specification": ["x"]}), "/specification".to_owned()),
        (json!({"specification": [{}]}), one.to_owned()),
        (with("color", json!("red")), format!("{one}/color")),
        (with("input", json!([])), format!("{one}/input")),
        (with("input", json!([{"url": "/srv/x", "brnach": "y"}])), format!("{one}/input/0/brnach")),
        (with("interval", json!(null)), format!("{one}/interval")),
        (with("interval", json!("soon")), format!("{one}/interval")),
        (with("priority", json!(1e300)), format!("{one}/priority")),
        (with("priority", json!(u64::MAX)), format!("{one}/priority")),
        (with("enabled", json!("yes")), format!("{one}/enabled")),
        (with("description", json!("x".repeat(1001))), format!("{one}/description")),
        (with("description", json!("a\u{7}b")), format!("{one}/description")),
        (with("keep", json!({"evaluations": 0})), format!("{one}/keep")),
        (with("evaluator", json!({"command": []})), format!("{one}/evaluator/command")),
    ];
    for name in ["", "grid", "badge.svg"] {
        bodies.push((with("name", json!(name)), format!("{one}/name")));
    }
    for (name, _) in bad_names() {
        bodies.push((with("name", json!(name)), format!("{one}/name")));
        bodies.push((with("project", json!(name)), format!("{one}/project")));
    }
    for url in ["", "ext::sh -c x", "https://u:p@host/x", "x/y", "-x", "gopher://x/y", "/a\u{0}b"] {
        bodies.push((with("input", json!([{"url": url}])), format!("{one}/input/0/url")));
    }
    let long = format!("https://example.org/{}", "x".repeat(2001));
    bodies.push((with("input", json!([{"url": long}])), format!("{one}/input/0/url")));
    for (body, place) in bodies {
        let text = body.to_string();
        let answer = send(&served, "POST", "/api/v1/specifications?replace=true", &text).await;
        let found = pointers(&answer, &text);
        assert!(found.iter().any(|at| at.starts_with(&place)), "{text}: {}", answer.body);
    }
    let twice = json!({"specification": [with("x", json!(1))["specification"][0], 1]});
    assert_eq!(
        send(&served, "POST", "/api/v1/specifications", &twice.to_string()).await.status,
        400
    );
    let many: Vec<Value> =
        (0..1001).map(|n| json!({"name": format!("n{n}"), "input": [{"url": "/srv/x"}]})).collect();
    let many = json!({"specification": many}).to_string();
    let answer = send(&served, "POST", "/api/v1/specifications", &many).await;
    assert_eq!(pointers(&answer, "1001 at once"), ["/specification"]);
    assert_eq!(stored(&served).await, before);
    served.close().await;
}

#[tokio::test]
async fn a_body_in_another_encoding_is_refused() {
    let served = served().await;
    let before = stored(&served).await;
    let text = with("description", json!("Gr\u{fc}\u{df}e")).to_string();
    let latin: Vec<u8> = text.chars().map(|c| u8::try_from(c).expect("Latin-1")).collect();
    let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (what, body) in [("Latin-1", latin), ("UTF-16", wide)] {
        for (method, path) in [
            ("POST", "/api/v1/specifications"),
            ("PUT", "/jobset/main/new"),
            ("PUT", "/project/new"),
        ] {
            let mut request = format!(
                "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                 authorization: Bearer {TOKEN}\r\ncontent-length: {}\r\n\r\n",
                body.len()
            )
            .into_bytes();
            request.extend(&body);
            let answer = parse(&String::from_utf8_lossy(&served.bytes(&request).await));
            assert_eq!(pointers(&answer, what), [""], "{what} {path}");
        }
    }
    assert_eq!(stored(&served).await, before);
    served.close().await;
}

#[tokio::test]
async fn what_clients_of_hydra_send_is_refused_by_the_same_rules() {
    let served = served().await;
    let before = stored(&served).await;
    let good = json!({
        "nixexprinput": "src", "nixexprpath": "ci.toml",
        "inputs": {"src": {"type": "git", "value": "/srv/x main"}},
    });
    let names: Vec<String> = bad_names().into_iter().map(|(name, _)| name).collect();
    for name in names.iter().map(String::as_str).chain(["grid", "badge.svg"]) {
        let encoded: String =
            percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC)
                .to_string();
        let path = format!("/jobset/main/{encoded}");
        let answer = send(&served, "PUT", &path, &good.to_string()).await;
        if name == "grid" {
            // A page has this address, which is why the name is reserved.
            assert_eq!(answer.status, 405, "{}", answer.head);
        } else {
            assert_eq!(pointers(&answer, &path), [""], "{}", answer.body);
        }
        let reserved = ["grid", "badge.svg"].contains(&name);
        let answer = send(&served, "PUT", &format!("/project/{encoded}"), "{}").await;
        assert_eq!(answer.status, if reserved { 201 } else { 400 }, "{name}: {}", answer.body);
    }
    for path in ["/jobset/main/%ff", "/project/%ff"] {
        assert_eq!(send(&served, "PUT", path, "{}").await.status, 404, "{path}");
    }
    for body in ["", "{", "[]", "null", "7", r#"{"enabled":"maybe"}"#, r#"{"enabled":2}"#] {
        for path in ["/jobset/main/new", "/project/main"] {
            let answer = send(&served, "PUT", path, body).await;
            pointers(&answer, &format!("{path} {body}"));
        }
    }
    for (key, value) in [
        ("inputs", json!({"src": {"type": "hg", "value": "/srv/x"}})),
        ("inputs", json!({"src": {"type": "git"}})),
        ("inputs", json!({})),
        ("inputs", json!([])),
        ("nixexprinput", json!("other")),
        ("nixexprpath", json!("../../etc/passwd")),
        ("checkinterval", json!(-1)),
        ("checkinterval", json!(10_000_000)),
        ("enabled", json!(2)),
        ("type", json!(1)),
        ("flake", json!("github:x/y")),
    ] {
        let mut body = good.clone();
        body[key] = value;
        let answer = send(&served, "PUT", "/jobset/main/new", &body.to_string()).await;
        pointers(&answer, &body.to_string());
    }
    let answer = send(&served, "PUT", "/jobset/tools/hello", &good.to_string()).await;
    assert_eq!(answer.status, 409, "{}", answer.body);
    assert_eq!(stored(&served).await, before);
    // What the same client may store.
    let answer = send(&served, "PUT", "/jobset/main/new", &good.to_string()).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    served.close().await;
}
