//! Private specifications: to those who have no role in one, everything of it answers as what does not exist.
//!
//! The addresses are made of the table of all routes, so a new route is asked too. What belongs to the private
//! specification has a mark in its name, its number or its revision. Each address that has a mark is also asked with
//! another one in its place, which nothing has: both answers must be the same but for the marks that they repeat. No other
//! answer may have a mark.

use std::sync::PoisonError;

use super::access::{Access, TABLE};
use super::harness::{Answer, Served, TOKEN, served_with};
use crate::config::Web;
use crate::model::{BuildId, Grant, Reload, Role, Setting, Tasks, Unused, UnusedPart, now};
use crate::store::{self, Snapshot, derivation_key};

mod changes;

/// The marks, and what stands for them in names of what does not exist.
const MARKS: [(&str, &str); 3] = [("zebra", "zebru"), ("98765", "98764"), ("abad1dea", "abad1deb")];

/// The variable parts of addresses, by their names and the beginnings of their routes.
const PARTS: [(&str, &str, &str); 19] = [
    ("/build/", "id", "987650201"),
    ("/api/v1/build/", "id", "987650201"),
    ("/eval/", "id", "987650101"),
    ("/api/v1/eval/", "id", "987650101"),
    ("/jobset/", "name", "zebra-spec"),
    ("/api/v1/jobset/", "name", "zebra-spec"),
    ("/output/", "name", "zebra-out"),
    ("/job/", "name", "zebra-spec"),
    ("/api/v1/job/", "name", "zebra-spec"),
    ("/api/v1/job/", "job", "zebra-job"),
    ("/", "project", "zebra-project"),
    ("/", "jobset", "zebra-spec"),
    ("/job/", "job", "zebra-job"),
    ("/job/", "system", "zebra-system"),
    ("/download/", "product", "987650301"),
    ("/build/", "number", "1"),
    ("/", "kind", "file"),
    ("/build/", "subtype", "x"),
    ("/build/", "file", "zebra.txt"),
];

/// Parameters of lists, and values that name something private.
const PARAMETERS: [&str; 29] = [
    "jobset=zebra-spec",
    "spec=zebra-spec",
    "specification=zebra-spec",
    "specification=987650001",
    "project=zebra-project",
    "evaluation=987650101",
    "id=987650101",
    "build=987650201",
    "builds=987650201,987650207",
    "job=zebra-job",
    "names=zebra-job",
    "system=zebra-system",
    "derivation=zebra-job.drv",
    "query=zebra",
    "query=zebra-job.drv",
    "query=/outputs/zebra-out",
    "query=spec:zebra-spec",
    "query=system:zebra-system",
    "query=job:zebra-job",
    "query=author:zebra",
    "query=abad1dea0",
    "query=987650101",
    "query=987650201",
    "compare=987650101",
    "compare=abad1dea",
    "with=987650101",
    "with=abad1dea",
    "text=zebra",
    "status=zebra",
];

/// What lists need.
const NEEDED: &str = "nr=50&period=day&names=zebra-job,shared&spec=open&evaluation=11&query=shared";

/// Answers of these have neither names nor numbers of what is built.
const NUMBERS: [&str; 6] =
    ["/api/nrbuilds", "/api/nrqueue", "/login", "/login/oidc", "/login/oidc/callback", "/live"];

/// Another specification in the project of the private one.
const ELSEWHERE: &str = "zebra-project/other";

const JSON: &str = "accept: application/json\r\n";
const HTML: &str = "accept: text/html\r\n";

/// Streams that do not end.
const ENDLESS: &str = "/live";

/// A route as an address of something private, or of a list.
fn address(route: &str) -> String {
    let part = |part: &str| {
        if part == "{*rest}" {
            return "download/1".to_owned();
        }
        let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) else {
            return part.to_owned();
        };
        let found = PARTS.iter().find(|(begin, of, _)| route.starts_with(begin) && *of == name);
        found.unwrap_or_else(|| panic!("what is {name} in {route}?")).2.to_owned()
    };
    route.split('/').map(part).collect::<Vec<_>>().join("/")
}

fn is_marked(text: &str) -> bool {
    let text = text.to_lowercase();
    MARKS.iter().any(|(mark, _)| text.contains(mark))
}

/// The text with other marks, which nothing has.
fn unknown(text: &str) -> String {
    MARKS.iter().fold(text.to_owned(), |text, (mark, other)| text.replace(mark, other))
}

/// The text with the marks that [`unknown`] has replaced.
fn known(text: &str) -> String {
    MARKS.iter().fold(text.to_owned(), |text, (mark, other)| text.replace(other, mark))
}

/// What an answer says, apart from its date and from digests of what it says.
fn said(answer: &Answer) -> String {
    let own = |line: &&str| !["date:", "etag:"].iter().any(|begin| line.starts_with(begin));
    let head: Vec<&str> = answer.head.lines().filter(own).collect();
    let mut said = format!("{}\n\n{}", head.join("\n"), answer.body);
    if let Some(at) = said.find("data-version=\"") {
        let from = at + "data-version=\"".len();
        let end = said[from..].find('"').unwrap_or(0) + from;
        said.replace_range(from..end, "");
    }
    said
}

/// The contents, with the keys of derivations.
fn fill() -> String {
    let text = include_str!("../../tests/data/secrecy/fill.sql");
    let mut parts = text.split("key(");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(')') {
            Some((name, rest)) if name.ends_with(".drv") => {
                filled += &derivation_key(name).to_string();
                filled += rest;
            }
            _ => {
                filled += "key(";
                filled += part;
            }
        }
    }
    filled
}

/// A server with a public specification and a private one, of which everything says something.
async fn secretive() -> Served {
    let served = served_with(&fill(), Web::default()).await;
    served.put("logs/build/0/501-1.log", b"shared line\n");
    served.put("logs/build/987650/987650201-1.log", b"zebra line\n");
    served.put("logs/evaluation/987650101.log", b"zebra printed\n");
    served.put("products/shared.txt", b"shared text\n");
    served.put("products/zebra.txt", b"zebra text\n");
    let unused = |what| Unused { file: "/etc/brigandine/zebra.toml".to_owned(), what };
    served.unused.send_replace(vec![
        unused(UnusedPart::Differs {
            specification: "zebra-spec".to_owned(),
            keys: vec!["input zebra".to_owned()],
        }),
        unused(UnusedPart::New(vec!["zebra-new".to_owned()])),
        unused(UnusedPart::Wrong("line 3: unknown key `zebra`".to_owned())),
    ]);
    {
        let mut found = served.configuration.lock().unwrap_or_else(PoisonError::into_inner);
        "zebra.toml: line 7".clone_into(&mut found.problem);
        found.settings.push(Setting {
            key: "specifications",
            running: "/etc/brigandine/zebra.toml".to_owned(),
            file: Some("/etc/brigandine/zebra-2.toml".to_owned()),
            restart: false,
        });
        found.reload = Some(Reload {
            at: 1_700_000_000,
            changed: vec!["interval".to_owned()],
            specifications: vec![("zebra-spec".to_owned(), "new".to_owned())],
            ..Reload::default()
        });
    }
    {
        let monitor = "the monitor of `zebra-spec`".to_owned();
        let mut tasks = served.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        *tasks = Tasks {
            running: vec!["the builder".to_owned(), monitor.clone()],
            faults: vec![format!("A required task exited: {monitor}: zebra.")],
            ending: false,
            private: vec![monitor],
        };
    }
    served
}

/// A grant of a role somewhere.
fn grant(scope: &str, role: Role) -> Grant {
    Grant { scope: scope.parse().expect("a scope"), role }
}

/// Header lines of those who have no role in the private specification.
async fn strangers(served: &Served) -> Vec<String> {
    let reader = served.token("reader", grant("main/open", Role::Reader), 0).await;
    let admin = served.token("admin", grant("main", Role::Admin), 0).await;
    let elsewhere = served.token("elsewhere", grant(ELSEWHERE, Role::Admin), 0).await;
    let builder = served.session("bert", grant("main/open", Role::Builder), now()).await;
    vec![
        String::new(),
        format!("authorization: Bearer {reader}\r\n"),
        format!("authorization: Bearer {admin}\r\n"),
        format!("authorization: Bearer {elsewhere}\r\n"),
        format!("cookie: brigandine={builder}\r\nsec-fetch-site: same-origin\r\n"),
    ]
}

/// Header lines of those who have a role in the private specification; those of an administrator are the last.
async fn insiders(served: &Served) -> Vec<String> {
    let own = grant("zebra-project/zebra-spec", Role::Reader);
    let own = served.token("own", own, 0).await;
    let project = served.session("rita", grant("zebra-project", Role::Builder), now()).await;
    vec![
        format!("authorization: Bearer {own}\r\n"),
        format!("cookie: brigandine={project}\r\nsec-fetch-site: same-origin\r\n"),
        format!("authorization: Bearer {TOKEN}\r\n"),
    ]
}

/// Asks for something private and for something unknown. Returns both answers as if the same had been asked.
async fn both(served: &Served, method: &str, path: &str, lines: &str) -> (String, String) {
    let own = said(&served.ask(method, path, lines).await);
    let other = known(&said(&served.ask(method, &unknown(path), lines).await));
    (own, other)
}

/// Checks that an address answers a stranger as one that names nothing.
async fn check_unknown(served: &Served, method: &str, path: &str, lines: &str) {
    // Pages say how long ago something was, and may do so in a later minute.
    for _ in 0..3 {
        let (own, other) = both(served, method, path, lines).await;
        if own == other {
            return;
        }
    }
    let (own, other) = both(served, method, path, lines).await;
    assert_eq!(own, other, "{method} {path} with {lines}");
}

/// The routes that read, without those whose answers are the same on every server.
fn reading() -> impl Iterator<Item = &'static str> {
    let routes =
        TABLE.iter().filter(|(method, _, access)| *method == "GET" && *access != Access::Open);
    routes.map(|(_, route, _)| *route)
}

/// The addresses of lists with their parameters.
fn lists(path: &str) -> Vec<String> {
    let all = PARAMETERS.iter().map(|one| format!("{path}?{one}&{NEEDED}"));
    let plain = ["nr=50&period=day", "query=status:queued", "query=status:succeeded", "query=e"];
    let plain = plain.into_iter().map(|one| format!("{path}?{one}"));
    all.chain([path.to_owned()]).chain(plain).collect()
}

#[tokio::test]
async fn what_is_private_answers_strangers_as_what_does_not_exist() {
    let served = secretive().await;
    let strangers = strangers(&served).await;
    let more = [
        "/build/zebra-job.drv",
        "/build/987650207",
        "/build/987650208",
        "/eval/987650102",
        "/eval/987650103",
        "/eval/987650104",
        "/eval/987650103/log",
        "/jobset/zebra-gone",
        "/jobset/zebra-project/zebra-gone",
        "/eval/11?compare=987650101",
        "/eval/11?compare=abad1dea",
        "/api/v1/eval/11/compare?with=987650101",
        "/build/987650201/log/raw?attempt=1",
    ];
    let addresses: Vec<String> = reading().map(address).filter(|path| is_marked(path)).collect();
    assert!(addresses.len() > 25, "{addresses:?}");
    for path in addresses.iter().map(String::as_str).chain(more) {
        for lines in &strangers {
            for accept in [JSON, HTML] {
                check_unknown(&served, "GET", path, &format!("{lines}{accept}")).await;
            }
        }
        check_unknown(&served, "HEAD", path, HTML).await;
    }
    served.close().await;
}

#[tokio::test]
async fn lists_have_nothing_private_for_strangers() {
    let served = secretive().await;
    let strangers = strangers(&served).await;
    let routes = reading().map(address).filter(|path| !is_marked(path) && path != ENDLESS);
    for path in routes {
        for list in &lists(&path) {
            // The parameters mean the same for all of them.
            let some = if *list == path { 5 } else { 2 };
            for lines in &strangers[..some] {
                for accept in [JSON, HTML] {
                    let lines = format!("{lines}{accept}");
                    // The server's own figures change with each answer.
                    if is_marked(list) && path != "/metrics" {
                        check_unknown(&served, "GET", list, &lines).await;
                    } else {
                        let answer = said(&served.ask("GET", list, &lines).await);
                        // `/login` says to everybody which roles they have.
                        let answer = answer.replace(ELSEWHERE, "");
                        assert!(!is_marked(&answer), "{list} with {lines}: {answer}");
                    }
                }
            }
        }
    }
    served.close().await;
}

/// Addresses of what is public, and of what a public specification shares with the private one.
const PUBLIC: [&str; 34] = [
    "/jobset/open",
    "/eval/11",
    "/eval/11?tab=new",
    "/eval/11/builds",
    "/build/20",
    "/build/21",
    "/build/21/constituents",
    "/build/22",
    "/build/22/constituents",
    "/build/23",
    "/build/24",
    "/build/25",
    "/build/26",
    "/build/501",
    "/build/501/details",
    "/build/501/constituents",
    "/build/501/log/raw",
    "/build/501/log/live",
    "/build/501/download/1",
    "/build/501/download-by-type/file/x",
    "/build/502",
    "/build/503",
    "/build/hhhh-shared.drv",
    "/build/dddd-same.drv",
    "/build/ffff-twin.drv",
    "/download/31",
    "/output/cafe",
    "/build/501/log",
    "/job/open/shared",
    "/job/open/needs",
    "/api/v1/job/open/shared",
    "/jobset/open/grid",
    "/search?query=shared",
    "/search?query=501",
];

#[tokio::test]
async fn what_is_shared_is_shown_as_that_of_the_public_specification() {
    let served = secretive().await;
    let strangers = strangers(&served).await;
    for path in PUBLIC {
        for lines in &strangers {
            for accept in [JSON, HTML] {
                let answer = served.ask("GET", path, &format!("{lines}{accept}")).await;
                let found = said(&answer);
                assert_eq!(answer.status, 200, "{path}: {found}");
                assert!(!is_marked(&found), "{path} with {lines}{accept}: {found}");
            }
        }
    }
    let build = served.ask("GET", "/build/501", JSON).await.body;
    for part in [
        "\"jobset\":\"open\"",
        "\"job\":\"shared\"",
        "\"evaluation\":11",
        "\"project\":\"main\"",
        "\"jobsetevals\":[11]",
    ] {
        assert!(build.contains(part), "{part}: {build}");
    }
    let page = served.ask("GET", "/build/501", HTML).await.body;
    assert!(page.contains("source at 2222222222"), "the revision of the public evaluation: {page}");
    let page = served.ask("GET", "/build/22", HTML).await.body;
    assert!(page.contains("needs `fails`: failed"), "{page}");
    let page = served.ask("GET", "/eval/11", HTML).await.body;
    assert!(page.contains(">shared<"), "{page}");
    // Who may change a build of the public specification may not change that of the private one.
    for path in ["/build/501", "/build/502", "/build/503"] {
        let page = served.ask("GET", path, &format!("{}{HTML}", strangers[4])).await.body;
        assert!(!page.contains("/change\""), "{path}: {page}");
        let lines = format!("{}{JSON}", strangers[2]);
        let own = said(&served.ask("POST", &format!("/api/v1{path}/cancel"), &lines).await);
        let other = said(&served.ask("POST", "/api/v1/build/599/cancel", &lines).await);
        assert!(own.starts_with("HTTP/1.1 403"), "{own}");
        assert_eq!(own, other);
    }
    let page = served.ask("GET", "/build/21", &format!("{}{HTML}", strangers[4])).await.body;
    assert!(page.contains("/build/21/change\""), "{page}");
    served.close().await;
}

#[tokio::test]
async fn those_with_a_role_see_what_is_private() {
    let served = secretive().await;
    let insiders = insiders(&served).await;
    let gone = "/search/latest/file?query=spec:zebra-spec";
    for lines in &insiders {
        let lines = format!("{lines}{JSON}");
        for path in reading().map(address).filter(|path| is_marked(path)) {
            let (own, other) = both(&served, "GET", &path, &lines).await;
            assert_ne!(own, other, "{path} with {lines}");
        }
        let answer = served.ask("GET", gone, &lines).await;
        assert_eq!((answer.status, &*answer.body), (200, "zebra text\n"), "{lines}");
    }
    let all = &insiders[2];
    for path in reading().map(address).filter(|path| !is_marked(path)) {
        if NUMBERS.contains(&&*path) {
            continue;
        }
        let mut found = false;
        for list in lists(&path) {
            for accept in [JSON, HTML] {
                let (own, other) = both(&served, "GET", &list, &format!("{all}{accept}")).await;
                found |= match is_marked(&list) {
                    true => own != other,
                    false => is_marked(&own),
                };
            }
        }
        assert!(found, "{path} says nothing of what is private to those who may see it");
    }
    for (path, seen, all) in [
        ("/api/nrqueue", "2", "5"),
        ("/api/nrqueue?project=zebra-project", "0", "3"),
        ("/api/nrbuilds?nr=1&period=day", "[5]", "[10]"),
    ] {
        assert_eq!(served.ask("GET", path, "").await.body, seen, "{path}");
        assert_eq!(served.ask("GET", path, &insiders[2]).await.body, all, "{path}");
    }
    served.close().await;
}

#[tokio::test]
async fn changes_of_what_is_private_are_refused_as_those_of_what_does_not_exist() {
    let served = secretive().await;
    let strangers = strangers(&served).await;
    let changing = TABLE.iter().filter(|(method, ..)| *method != "GET");
    let mut asked = 0;
    for (method, route, _) in changing {
        let path = address(route);
        if !is_marked(&path) {
            continue;
        }
        for lines in &strangers {
            for accept in [JSON, HTML] {
                check_unknown(&served, method, &path, &format!("{lines}{accept}")).await;
                asked += 1;
            }
        }
    }
    assert!(asked > 150, "{asked}");
    let builds = [501, 502, 503, 987_650_201, 987_650_205, 987_650_206, 987_650_207, 987_650_208];
    let read = served.database.read(move |s: &Snapshot| {
        let status = |id| Ok(store::build(s, BuildId::new(id))?.map(|build| build.status.code()));
        builds.into_iter().map(status).collect::<rusqlite::Result<Vec<_>>>()
    });
    let states = read.await.expect("reads");
    assert_eq!(states, [0, 1, -1, 0, 1, -2, -1, 0].map(Some), "nothing has changed");
    served.close().await;
}
