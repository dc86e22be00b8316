//! Logs in and out as a browser without scripts does, and as others try to.

use super::local;
use crate::auth::password_digest;
use crate::config::Web;
use crate::model::{Grant, Role, Scope};
use crate::site::harness::{Answer, Served, served, served_with};
use crate::store;

#[test]
fn a_login_leads_to_this_server_only() {
    for right in ["/", "/queue", "/build/7?nr=1&x=%2F%2Fy", "/jobset/a//b"] {
        assert_eq!(local(right), right);
    }
    for wrong in [
        "",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\/evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        " /queue",
        "https://evil.example",
        "javascript:alert(1)",
        "evil.example",
        "/a b",
        "/a\"b",
        "/ä",
        &format!("/{}", "x".repeat(3000)),
    ] {
        assert_eq!(local(wrong), "/", "{wrong:?}");
    }
}

const PASSWORD: &str = "correct horse & battery";
const OWN: &str = "sec-fetch-site: same-origin\r\n";

/// A site with the user `alice`.
async fn site() -> Served {
    with_alice(served().await).await
}

/// The site, with the user `alice`.
async fn with_alice(served: Served) -> Served {
    let digest = password_digest(PASSWORD).expect("a digest");
    let grant = Grant { scope: Scope::EVERYWHERE, role: Role::Builder };
    let added = served.database.write(move |tx| store::add_user(tx, "alice", &digest, &grant, 1));
    assert!(added.await.expect("added"));
    served
}

async fn post(served: &Served, path: &str, lines: &str, fields: &[(&str, &str)]) -> Answer {
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let length = body.len();
    let kind = "accept: text/html\r\ncontent-type: application/x-www-form-urlencoded";
    let lines = format!("{lines}{kind}\r\ncontent-length: {length}\r\n\r\n{body}");
    served.ask("POST", path, &lines).await
}

async fn log_in(served: &Served, lines: &str, password: &str, next: &str) -> Answer {
    let fields = [("name", "alice"), ("password", password), ("next", next)];
    post(served, "/login", lines, &fields).await
}

fn cookie(answer: &Answer) -> String {
    let set = answer.header("set-cookie").unwrap_or_else(|| panic!("no cookie: {}", answer.head));
    format!("cookie: {}\r\n", set.split(';').next().unwrap_or_default())
}

#[tokio::test]
async fn a_person_logs_in_and_out_without_a_script() {
    let served = site().await;
    let page = served.page("/login?next=/queue%3Fa%3D%22").await;
    assert!(page.body.contains("name=\"next\" value=\"/\""), "a quote is in no address");
    let page = served.page("/login?next=/queue").await;
    assert!(page.body.contains("name=\"next\" value=\"/queue\""), "{}", page.body);
    assert_eq!(page.header("cache-control"), Some("no-store"));
    let answer = log_in(&served, OWN, PASSWORD, "/queue").await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (303, Some("/queue")),
        "{}",
        answer.body
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let cookie = cookie(&answer);
    let page = served.ask("GET", "/login", &format!("accept: text/html\r\n{cookie}")).await.body;
    assert!(page.contains("<h1>alice</h1>") && page.contains("builder"), "{page}");
    let (_, rest) = page.split_once("name=\"form-token\" value=\"").expect("a form");
    let (token, _) = rest.split_once('"').expect("a value");
    let refused = post(&served, "/logout", &format!("{OWN}{cookie}"), &[]).await;
    assert_eq!(refused.status, 403);
    let other = format!("sec-fetch-site: cross-site\r\n{cookie}");
    assert_eq!(post(&served, "/logout", &other, &[("form-token", token)]).await.status, 403);
    let own = format!("{OWN}{cookie}");
    let answer = post(&served, "/logout", &own, &[("form-token", token)]).await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("/")), "{}", answer.body);
    assert!(answer.header("set-cookie").is_some_and(|set| set.contains("Max-Age=0")));
    let page = served.ask("GET", "/login", &format!("accept: text/html\r\n{cookie}")).await.body;
    assert!(page.contains("<h1>Log in</h1>"), "the session has ended, not the cookie alone");
    served.close().await;
}

#[tokio::test]
async fn below_a_path_the_cookie_and_the_next_page_are_there_too() {
    let fill = include_str!("../../../tests/data/api/fill.sql");
    let served =
        with_alice(served_with(fill, Web { base: "/ci".to_owned(), ..Web::default() }).await).await;
    let fields = [("name", "alice"), ("password", PASSWORD), ("next", "/queue")];
    let answer = post(&served, "/ci/login", OWN, &fields).await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("/ci/queue")));
    let set = answer.header("set-cookie").expect("a cookie");
    assert!(set.contains("; Path=/ci;"), "{set}");
    served.close().await;
}

#[tokio::test]
async fn a_login_from_elsewhere_or_to_elsewhere_is_none() {
    let served = site().await;
    for lines in ["", "sec-fetch-site: cross-site\r\n", "origin: http://y\r\n", "origin: null\r\n"]
    {
        let answer = log_in(&served, lines, PASSWORD, "/").await;
        assert_eq!((answer.status, answer.header("set-cookie")), (403, None), "{lines}");
    }
    for next in ["//evil.example", "https://evil.example", "/\\evil.example", ""] {
        let answer = log_in(&served, OWN, PASSWORD, next).await;
        assert_eq!((answer.status, answer.header("location")), (303, Some("/")), "{next}");
    }
    served.close().await;
}

#[tokio::test]
async fn a_client_that_fails_too_often_waits() {
    let served = site().await;
    for _ in 0..10 {
        let answer = log_in(&served, OWN, "wrong password", "/queue").await;
        assert_eq!((answer.status, answer.header("set-cookie")), (403, None));
        assert!(answer.body.contains("the name or the password is wrong"), "{}", answer.body);
        assert!(answer.body.contains("value=\"/queue\""), "the address is kept");
        assert!(!answer.body.contains("wrong password\""), "the password is not shown");
    }
    let answer = log_in(&served, OWN, PASSWORD, "/").await;
    assert_eq!((answer.status, answer.header("set-cookie")), (429, None));
    let body = format!("{{\"username\":\"alice\",\"password\":\"{PASSWORD}\"}}");
    let kind = format!("content-type: application/json\r\ncontent-length: {}", body.len());
    let answer = served.ask("POST", "/login", &format!("{kind}\r\n\r\n{body}")).await;
    assert_eq!(answer.status, 429);
    assert!(answer.header("retry-after").is_some(), "{}", answer.head);
    served.close().await;
}

#[tokio::test]
async fn a_client_of_hydra_logs_in_with_json() {
    let served = site().await;
    let ask = async |lines: &str, body: &str| {
        let kind = format!("content-type: application/json\r\ncontent-length: {}", body.len());
        served.ask("POST", "/login", &format!("{lines}{kind}\r\n\r\n{body}")).await
    };
    let right = format!("{{\"username\":\"alice\",\"password\":\"{PASSWORD}\"}}");
    let answer = ask("referer: http://x\r\n", &right).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(
        answer.body.starts_with("{\"username\":\"alice\",\"fullname\":\"\""),
        "{}",
        answer.body
    );
    let lines = format!("content-type: application/json\r\n{}", cookie(&answer));
    assert!(served.ask("POST", "/api/v1/build/7/cancel", &lines).await.status < 300);
    assert_eq!(ask("origin: http://y\r\n", &right).await.status, 403);
    let list = format!("[\"alice\",\"{PASSWORD}\"]");
    for (body, status) in
        [("", 400), ("{}", 400), ("[1]", 400), (&*list, 400), ("{\"username\":1}", 400)]
    {
        assert_eq!(ask("", body).await.status, status, "{body}");
    }
    let wrong = right.replace("horse", "cow");
    assert_eq!(ask("", &wrong).await.body, "{\"error\":\"the name or the password is wrong\"}");
    served.close().await;
}
