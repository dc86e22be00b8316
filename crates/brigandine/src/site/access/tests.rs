//! Every route, as it is in the router, with every role and every kind of credentials.

use std::collections::BTreeSet;

use super::*;
use crate::config::Web;
use crate::model::{self, Grant, Scope};
use crate::site::harness::{Served, TOKEN, served, served_with};

/// A route as an address that names nothing.
fn address(route: &str) -> String {
    let parts = route.split('/').map(|part| if part.starts_with('{') { "0" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

/// The methods and routes of the router, `HEAD` apart.
async fn of_the_router(served: &Served) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for route in &served.routes {
        // Requests with a method that no route has are answered with the methods that the route has.
        let answer = served.ask("TRACE", &address(route), "").await;
        assert_eq!(answer.status, 405, "{route}: {}", answer.head);
        for method in answer.header("allow").expect("methods").split(',') {
            if method != "HEAD" {
                found.insert((method.to_owned(), route.clone()));
            }
        }
    }
    found
}

#[tokio::test]
async fn the_table_has_the_routes_of_the_router_and_no_others() {
    let served = served().await;
    let listed: BTreeSet<(String, String)> = TABLE
        .iter()
        .map(|(method, route, _)| ((*method).to_owned(), (*route).to_owned()))
        .collect();
    assert_eq!(listed.len(), TABLE.len(), "a row is there twice");
    let routed = of_the_router(&served).await;
    let lacking: Vec<_> = routed.difference(&listed).collect();
    assert!(lacking.is_empty(), "routes that the table lacks: {lacking:?}");
    let gone: Vec<_> = listed.difference(&routed).collect();
    assert!(gone.is_empty(), "rows without a route: {gone:?}");
    served.close().await;
}

#[test]
fn no_base_may_begin_as_an_address_of_the_server_does() {
    let parts = TABLE.iter().filter_map(|(_, route, _)| route.split('/').nth(1));
    let own: BTreeSet<&str> = parts.filter(|part| !part.is_empty()).collect();
    assert_eq!(own, BTreeSet::from(crate::config::OWN_PATHS));
}

#[test]
fn only_get_and_logging_in_is_for_those_without_a_role() {
    for (method, route, access) in TABLE {
        let may = matches!(access, Open | Own | Read(_));
        assert_eq!(
            *method == "GET" || ["/login", "/logout"].contains(route),
            may,
            "{method} {route}"
        );
    }
}

/// Header lines, what they are, the role that their sender has for changes, and whether their sender may read on a private
/// server: other sites cannot read the answers, so a session reads whatever a request says of its origin.
type Credentials = (String, &'static str, Option<Role>, bool);

/// The text of a new token.
async fn token(served: &Served, name: &str, scope: &str, role: Role, expires_at: i64) -> String {
    let grant = Grant { scope: scope.parse().expect("a scope"), role };
    served.token(name, grant, expires_at).await
}

/// The secret in the cookie of a new session of a new user.
async fn session(served: &Served, name: &'static str, role: Role, at: i64) -> String {
    served.session(name, Grant { scope: Scope::EVERYWHERE, role }, at).await
}

/// Credentials of every kind: valid ones of every role, and others.
async fn credentials(served: &Served) -> Vec<Credentials> {
    let bearer = |token: &str| format!("authorization: Bearer {token}\r\n");
    let json = "content-type: application/json\r\n";
    let now = model::now();
    let mut all: Vec<Credentials> = vec![
        (String::new(), "none", None, false),
        ("authorization: Basic 0123456789abcdef\r\n".to_owned(), "another scheme", None, false),
        (bearer(""), "an empty token", None, false),
        (bearer("wrong-wrong-wrong"), "a wrong token", None, false),
        (bearer(&format!("brg_{}", "0".repeat(64))), "an unknown token", None, false),
        (
            bearer(&token(served, "ended", "", Role::Admin, now - 1).await),
            "a token that ended",
            None,
            false,
        ),
        (
            bearer(&token(served, "there", "main/x", Role::Admin, 0).await),
            "a token for elsewhere",
            None,
            false,
        ),
        (
            format!("cookie: brigandine={}\r\n{json}", "0".repeat(64)),
            "an unknown session",
            None,
            false,
        ),
        (format!("cookie: brigandine=\r\n{json}"), "an empty cookie", None, false),
        (bearer(TOKEN), "the token in the file", Some(Role::Admin), true),
    ];
    let old = session(served, "old", Role::Admin, now - 8 * 86_400).await;
    all.push((format!("cookie: brigandine={old}\r\n{json}"), "a session that ended", None, false));
    for (role, user) in Role::ALL.into_iter().zip(["rita", "bert", "anna"]) {
        let text = token(served, role.name(), "", role, now + 1000).await;
        all.push((bearer(&text), "a token", Some(role), true));
        // A page of another site cannot send the header of a token.
        all.push((
            bearer(&text) + "sec-fetch-site: cross-site\r\n",
            "a token, cross-site",
            Some(role),
            true,
        ));
        let cookie = format!("cookie: brigandine={}\r\n", session(served, user, role, now).await);
        for (more, what) in [
            ("sec-fetch-site: same-origin\r\n", "a session"),
            ("origin: http://x\r\n", "a session, by its origin"),
            (json, "a session of a program"),
        ] {
            all.push((cookie.clone() + more, what, Some(role), true));
        }
        for (more, what) in [
            ("", "a session that says no more"),
            ("sec-fetch-site: cross-site\r\ncontent-type: application/json\r\n", "cross-site"),
            ("sec-fetch-site: same-site\r\norigin: http://x\r\n", "a neighbour"),
            ("origin: http://y\r\ncontent-type: application/json\r\n", "another origin"),
            ("origin: null\r\n", "no origin"),
            ("referer: http://y/\r\n", "another page"),
            (
                "sec-fetch-site: same-origin\r\ncontent-type: application/x-www-form-urlencoded\r\n",
                "a form without its token",
            ),
            ("sec-fetch-site: same-origin\r\ncontent-type: text/plain; x=y\r\n", "a plain form"),
        ] {
            all.push((cookie.clone() + more, what, None, true));
        }
    }
    all
}

#[tokio::test]
async fn every_change_needs_its_role_whatever_the_credentials() {
    let served = served().await;
    let all = credentials(&served).await;
    for (method, route, access) in TABLE {
        let Change(needed, _) = access else { continue };
        let path = address(route);
        for (lines, what, role, _) in &all {
            let answer = served.ask(method, &path, lines).await;
            let what = format!("{method} {path} with {what} of {role:?}: {}", answer.body);
            if role.is_some_and(|role| role >= *needed) {
                assert!(![401, 403, 405].contains(&answer.status), "{what}");
            } else {
                assert!([401, 403].contains(&answer.status), "{} {what}", answer.status);
                let unknown = answer.status == 401;
                assert_eq!(answer.header("www-authenticate").is_some(), unknown, "{what}");
            }
        }
    }
    served.close().await;
}

#[tokio::test]
async fn everybody_may_read_whatever_the_credentials() {
    let served = served().await;
    let all = credentials(&served).await;
    for (method, route, access) in TABLE {
        // Streams do not end.
        if !matches!(access, Read(_) | Open) || *route == "/live" {
            continue;
        }
        let path = address(route);
        let plain = served.ask(method, &path, "").await;
        for (lines, what, ..) in &all {
            // JSON is asked for by the type of the body too, as clients of Hydra do.
            let lines = lines.replace("content-type: application/json\r\n", "");
            let answer = served.ask(method, &path, &lines).await;
            assert_eq!(answer.status, plain.status, "{method} {path} with {what}");
        }
    }
    served.close().await;
}

/// A private server with the contents of the golden files.
async fn private() -> Served {
    let fill = include_str!("../../../tests/data/api/fill.sql");
    served_with(fill, Web { private: true, ..Web::default() }).await
}

/// Words that stand in the contents of the golden files only.
const SECRETS: [&str; 5] = ["hello", "greeting", "lint-2", "aaaa-", "x86_64"];

const BROWSER: &str = "accept: text/html\r\n";

#[tokio::test]
async fn on_a_private_server_reading_needs_a_role_whatever_the_credentials() {
    let served = private().await;
    let all = credentials(&served).await;
    for (method, route, access) in TABLE {
        let Read(_) = access else { continue };
        let path = address(route);
        for (lines, what, role, reads) in &all {
            let what = format!("{method} {path} with {what} of {role:?}");
            // Streams do not end.
            if *reads && *route == "/live" {
                continue;
            }
            let answer = served.ask(method, &path, lines).await;
            if *reads {
                assert!(![401, 403, 405].contains(&answer.status), "{what}: {}", answer.body);
                let kept = answer.header("cache-control").unwrap_or_default();
                assert!(kept.contains("private") || kept == "no-store", "{what}: {}", answer.head);
            } else {
                assert!([401, 403].contains(&answer.status), "{} {what}", answer.status);
            }
        }
    }
    served.close().await;
}

#[tokio::test]
async fn a_private_server_says_nothing_of_what_it_builds_to_strangers() {
    let served = private().await;
    let real = [
        "/build/1",
        "/build/aaaa-compile.drv",
        "/eval/2",
        "/jobset/hello",
        "/jobset/main/hello",
        "/job/main/hello/compile/latest",
        "/search?query=hello",
        "/download/1",
        "/nope",
        "/build/1/unknown",
    ];
    let addresses: Vec<String> = TABLE.iter().map(|(_, route, _)| address(route)).collect();
    // The description of the API, whose examples have such names, is the same on every server.
    let described = |path: &&str| path.starts_with("/api") && access(&Method::GET, path) == Open;
    let paths = addresses.iter().map(String::as_str).filter(|path| !described(path));
    for path in paths.chain(real) {
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"] {
            for lines in ["", BROWSER, "accept: application/json\r\n", "x-brigandine-parts: 1\r\n"]
            {
                let answer = served.ask(method, path, lines).await;
                let said = format!("{}{}", answer.head, answer.body);
                for secret in SECRETS {
                    let echoed = path.matches(secret).count();
                    assert!(
                        said.matches(secret).count() <= echoed,
                        "{method} {path} {lines}: {said}"
                    );
                }
            }
        }
    }
    for path in real {
        let answer = served.page(path).await;
        assert_eq!(answer.status, 303, "{path}");
        let place = answer.header("location").expect("a place");
        assert!(place.starts_with("/login?next=%2F"), "{place}");
        let page = served.page(place).await;
        assert!(page.body.contains(&format!("name=\"next\" value=\"{path}\"")), "{}", page.body);
    }
    served.close().await;
}

#[tokio::test]
async fn a_reader_of_one_specification_reads_that_one() {
    let served = private().await;
    let text = token(&served, "narrow", "main/hello", Role::Reader, 0).await;
    let status = async |path: &str| {
        served.ask("GET", path, &format!("authorization: Bearer {text}\r\n")).await.status
    };
    for path in
        ["/build/1", "/eval/2", "/jobset/hello", "/jobset/main/hello/evals", "/build/1/log/raw"]
    {
        assert!(![401, 403].contains(&status(path).await), "{path}");
    }
    for path in
        ["/", "/queue", "/jobsets", "/jobset/odd", "/metrics", "/live", "/build/99", "/search"]
    {
        assert_eq!(status(path).await, 403, "{path}");
    }
    // An evaluation of another specification is not compared with one that the reader may see.
    assert_eq!(status("/eval/2?compare=1").await, 200);
    for path in ["/eval/2?compare=3", "/api/v1/eval/2/compare?with=3"] {
        assert_eq!(status(path).await, 404, "{path}");
        let whole = served.ask("GET", path, &format!("authorization: Bearer {TOKEN}\r\n")).await;
        assert_eq!(whole.status, 400, "{path}: it has no jobs");
    }
    served.close().await;
}

#[test]
fn each_route_of_a_change_needs_the_role_of_the_change() {
    let mut found = BTreeSet::new();
    for (_, route, access) in TABLE.iter().filter(|(method, ..)| *method == "POST") {
        let Some(Ok(change)) = route.rsplit('/').next().map(str::parse::<model::Change>) else {
            continue;
        };
        let Change(role, of) = access else { panic!("{route} needs no role") };
        assert_eq!(*role, change.role(), "{route}");
        assert_ne!(*of, Of::Everything, "{route}");
        found.insert(change.as_str());
    }
    let all: BTreeSet<_> = model::Change::ALL.iter().map(|change| change.as_str()).collect();
    assert_eq!(found, all);
}

#[tokio::test]
async fn several_changes_at_once_need_the_role_of_the_change_everywhere() {
    let served = served().await;
    let post = async |token: &str, path: &str, body: &str| {
        served.post(path, &format!("authorization: Bearer {token}\r\n"), body).await.status
    };
    let narrow = token(&served, "narrow", "main/hello", Role::Admin, 0).await;
    let builder = token(&served, "builder", "", Role::Builder, 0).await;
    let admin = token(&served, "admin", "", Role::Admin, 0).await;
    let comment = r#"{"change":"comment","builds":[1],"reason":"x"}"#;
    let disable = r#"{"change":"disable","specifications":["hello"]}"#;
    for (token, body, status) in [
        (&narrow, comment, 403),
        (&narrow, disable, 403),
        (&builder, comment, 200),
        (&builder, disable, 403),
        (&admin, disable, 200),
    ] {
        assert_eq!(post(token, "/api/v1/changes", body).await, status, "{body}");
    }
    // What one route is about is in its path.
    assert_eq!(post(&narrow, "/api/v1/jobset/hello/enable", "").await, 200);
    assert_eq!(post(&builder, "/api/v1/jobset/hello/disable", "").await, 403);
    assert_eq!(post(&narrow, "/api/v1/eval/2/keep", "").await, 200);
    served.close().await;
}

#[tokio::test]
async fn a_form_of_a_session_must_have_its_token() {
    let served = served().await;
    let secret = session(&served, "anna", Role::Admin, model::now()).await;
    let cookie = format!("cookie: brigandine={secret}\r\nsec-fetch-site: same-origin\r\n");
    let page = served.ask("GET", "/login", &cookie).await.body;
    let (_, rest) = page.split_once("name=\"form-token\" value=\"").expect("a form");
    let (form_token, _) = rest.split_once('"').expect("a value");
    let post = async |fields: &str| {
        let kind = "content-type: application/x-www-form-urlencoded";
        let length = fields.len();
        let lines = format!("{cookie}{kind}\r\ncontent-length: {length}\r\n\r\n{fields}");
        served.ask("POST", "/api/v1/build/7/cancel", &lines).await.status
    };
    assert_eq!(post("").await, 403);
    assert_eq!(post(&format!("form-token={}", &form_token[1..])).await, 403);
    assert_eq!(post(&format!("form-token=&form-token={form_token}")).await, 403);
    assert!(![401, 403].contains(&post(&format!("x=y&form-token={form_token}")).await));
    served.close().await;
}

#[tokio::test]
async fn a_route_that_the_table_lacks_is_for_administrators_or_readers() {
    assert_eq!(access(&Method::GET, "/new"), Read(Of::Everything));
    assert_eq!(access(&Method::HEAD, "/new"), Read(Of::Everything));
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
        assert_eq!(access(&method, "/new"), Change(Role::Admin, Of::Everything));
        assert_eq!(access(&method, "/queue"), Change(Role::Admin, Of::Everything));
    }
}
