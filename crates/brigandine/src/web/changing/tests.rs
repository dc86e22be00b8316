//! Presses the buttons of pages as a browser without scripts does.

use std::collections::BTreeSet;

use crate::model::{AuditFilter, Audited, Change, Grant, Role, now};
use crate::site::harness::{Answer, Served, served};
use crate::store;

/// What a browser says of a request that a page of this server causes.
const OWN: &str = "sec-fetch-site: same-origin\r\naccept: text/html\r\n";

/// The headers of a new user with a role.
async fn person(served: &Served, name: &'static str, scope: &str, role: Role) -> String {
    let grant = Grant { scope: scope.parse().expect("a scope"), role };
    let secret = served.session(name, grant, now()).await;
    format!("cookie: brigandine={secret}\r\n{OWN}")
}

/// The values that stand behind `begin` in a page.
fn values<'p>(page: &'p str, begin: &str) -> Vec<&'p str> {
    page.split(begin).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

/// The changes whose buttons a page has.
fn buttons(page: &str) -> Vec<&str> {
    values(page, "name=\"change\" value=\"")
}

async fn post(served: &Served, headers: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let headers = format!("{headers}content-type: application/x-www-form-urlencoded\r\n");
    served.post(&format!("{path}/change"), &headers, &body).await
}

/// Opens a page, and presses one of its buttons.
async fn press(served: &Served, headers: &str, path: &str, change: &str, why: &str) -> Answer {
    let page = served.ask("GET", path, headers).await.body;
    assert!(buttons(&page).contains(&change), "{path} has no button for {change}: {page}");
    let token = values(&page, "name=\"form-token\" value=\"")[0];
    let fields = [("form-token", token), ("reason", why), ("change", change)];
    post(served, headers, path, &fields).await
}

async fn audit(served: &Served) -> Vec<Audited> {
    let read = served.database.read(|s| store::audit(s, &AuditFilter::default(), 100));
    read.await.expect("reads")
}

/// Pages, the buttons that those see who may build, and those that only administrators see.
const PAGES: [(&str, &[&str], &[&str]); 8] = [
    ("/build/1", &["comment"], &[]),
    ("/build/3", &["comment", "restart"], &[]),
    ("/build/6", &["comment", "restart"], &[]),
    ("/build/7", &["comment", "cancel"], &[]),
    ("/build/8", &["comment", "cancel", "bump"], &[]),
    ("/eval/1", &["comment", "keep"], &[]),
    ("/eval/2", &["comment", "cancel", "bump", "restart", "keep"], &[]),
    ("/jobset/hello", &["evaluate"], &["disable"]),
];

#[tokio::test]
async fn a_page_shows_the_buttons_that_its_reader_may_press_in_the_state_that_it_shows() {
    let served = served().await;
    let nobody = OWN.to_owned();
    let reader = person(&served, "rita", "", Role::Reader).await;
    let elsewhere = person(&served, "egon", "main/x", Role::Admin).await;
    let here = person(&served, "bert", "main/hello", Role::Builder).await;
    let builder = person(&served, "bea", "", Role::Builder).await;
    let admin = person(&served, "anna", "main", Role::Admin).await;
    for (path, all, of_admins) in PAGES {
        for (who, shown, more) in [
            (&nobody, false, false),
            (&reader, false, false),
            (&elsewhere, false, false),
            (&here, true, false),
            (&builder, true, false),
            (&admin, true, true),
        ] {
            let page = served.ask("GET", path, who).await;
            assert_eq!(page.status, 200, "{path}");
            let mut wanted: Vec<&str> = Vec::new();
            wanted.extend(if shown { all } else { &[] });
            wanted.extend(if more { of_admins } else { &[] });
            assert_eq!(buttons(&page.body), wanted, "{path} {who}");
            let tokens = values(&page.body, "name=\"form-token\" value=\"");
            assert_eq!(tokens.len(), usize::from(shown), "{path} {who}");
        }
    }
    // The build `package` failed because of this one, and is restarted with it.
    let page = served.ask("GET", "/build/3", &builder).await.body;
    assert!(page.contains(">Restart, with what needs it</button>"), "{page}");
    // Programs have the API.
    let bearer = format!("authorization: Bearer {}\r\n{OWN}", crate::site::harness::TOKEN);
    assert_eq!(buttons(&served.ask("GET", "/eval/2", &bearer).await.body), [""; 0]);
    served.close().await;
}

#[tokio::test]
async fn each_button_makes_its_change_and_the_page_says_who_pressed_it_and_why() {
    let served = served().await;
    let anna = person(&served, "anna", "", Role::Admin).await;
    let mut pressed = BTreeSet::new();
    for (path, change) in [
        ("/eval/2", "bump"),
        ("/build/8", "bump"),
        ("/build/8", "comment"),
        ("/build/8", "cancel"),
        ("/build/7", "cancel"),
        ("/build/5", "restart"),
        ("/eval/2", "keep"),
        ("/eval/2", "release"),
        ("/eval/2", "comment"),
        ("/eval/2", "restart"),
        ("/eval/2", "cancel"),
        ("/eval/4", "cancel"),
        ("/eval/4", "restart"),
        ("/jobset/hello", "evaluate"),
        ("/jobset/hello", "disable"),
        ("/jobset/hello", "enable"),
    ] {
        let why = format!("<{change}> of {path}");
        let answer = press(&served, &anna, path, change, &why).await;
        let what = format!("{change} {path}: {}", answer.body);
        assert_eq!((answer.status, answer.header("location")), (303, Some(path)), "{what}");
        let rows = audit(&served).await;
        let row = &rows[0];
        assert_eq!((&*row.actor, &*row.change, &*row.reason), ("anna", change, &*why), "{what}");
        // Those who may not press buttons see the row too.
        let page = served.page(path).await.body;
        let escaped = why.replace('<', "&#60;").replace('>', "&#62;");
        assert!(page.contains(&escaped), "{what}: {page}");
        assert!(page.contains(&format!("anna: {change}")), "{what}: {page}");
        pressed.insert(change);
    }
    let all: BTreeSet<&str> = Change::ALL.iter().map(|change| change.as_str()).collect();
    assert_eq!(pressed, all);
    served.close().await;
}

#[tokio::test]
async fn a_form_that_is_not_ours_or_not_for_its_sender_changes_nothing() {
    let served = served().await;
    let bert = person(&served, "bert", "main/hello", Role::Builder).await;
    let page = served.ask("GET", "/eval/2", &bert).await.body;
    let token = values(&page, "name=\"form-token\" value=\"")[0].to_owned();
    let before = audit(&served).await.len();
    let foreign = bert.replace("same-origin", "cross-site");
    let (own, foreign) = (&*bert, &*foreign);
    for (headers, path, token, change, status) in [
        (own, "/eval/2", "", "keep", 403),
        (own, "/eval/2", "0123456789abcdef", "keep", 403),
        (foreign, "/eval/2", &*token, "keep", 403),
        (OWN, "/eval/2", &*token, "keep", 401),
        // Another specification, and a change of administrators.
        (own, "/eval/4", &*token, "cancel", 403),
        (own, "/jobset/odd", &*token, "evaluate", 403),
        (own, "/jobset/hello", &*token, "disable", 403),
        (own, "/eval/2", &*token, "explode", 400),
        (own, "/eval/2", &*token, "supersede", 400),
        (own, "/eval/2", &*token, "", 400),
        // What its state does not allow, and what it is no change of.
        (own, "/build/1", &*token, "restart", 409),
        (own, "/build/1", &*token, "comment", 409),
        (own, "/build/1", &*token, "keep", 409),
        (own, "/jobset/hello", &*token, "cancel", 409),
    ] {
        let fields = [("form-token", token), ("change", change), ("reason", "")];
        let answer = post(&served, headers, path, &fields).await;
        assert_eq!(answer.status, status, "{change} {path}: {}", answer.body);
        assert!(answer.body.contains("Back to the overview"), "{change} {path}: {}", answer.body);
    }
    assert_eq!(audit(&served).await.len(), before);
    served.close().await;
}
