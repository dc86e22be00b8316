//! Compares the document of the API with the router and its answers, in both directions.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::access::{Access, TABLE};
use super::fits::fits;
use super::harness::{LIMIT, Served, TOKEN, served};
use super::router;
use crate::auth::password_digest;
use crate::http::asked;
use crate::model::{Grant, Role, Scope};
use crate::store;

/// The description of what is not described.
static NOTHING: Value = Value::Null;

const JSON: &str = "accept: application/json\r\n";

/// A route of the router: its path as the router writes it, and a method.
type Route = (String, String);

/// The paths of all routes, as the router knows them.
fn paths() -> BTreeSet<String> {
    // The router tells its routes only to people who debug.
    let text = format!("{:?}", router().0);
    let paths = text
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(|path| path.starts_with("/") && !path.contains("__private__"));
    paths.map(str::to_owned).collect()
}

async fn document(served: &Served) -> Value {
    let answer = served.get("/api/openapi.json").await;
    assert_eq!(answer.status, 200, "{}", answer.head);
    serde_json::from_str(&answer.body).expect("JSON")
}

/// The operations of the document: the path, the method, and the description.
fn operations(document: &Value) -> Vec<(&str, String, &Value)> {
    let paths = document["paths"].as_object().expect("paths");
    let all = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().expect("methods");
        methods.iter().map(move |(method, one)| (&**path, method.to_uppercase(), one))
    });
    all.collect()
}

fn parameters(operation: &Value) -> impl Iterator<Item = &Value> {
    operation["parameters"].as_array().into_iter().flatten()
}

fn example(parameter: &Value) -> String {
    let example = &parameter["example"];
    example.as_str().map_or_else(|| example.to_string(), str::to_owned)
}

/// The path with the example of each variable part; those that are not described are 1 or `hello`.
fn filled(path: &str, operation: &Value) -> String {
    let mut filled = path.replace("{*", "{");
    for parameter in parameters(operation).filter(|one| one["in"] == "path") {
        let name = parameter["name"].as_str().expect("a name");
        filled = filled.replace(&format!("{{{name}}}"), &example(parameter));
    }
    while let (Some(from), Some(to)) = (filled.find('{'), filled.find('}')) {
        let value = if &filled[from..=to] == "{id}" { "1" } else { "hello" };
        filled.replace_range(from..=to, value);
    }
    filled
}

/// The status and the media type of an answer, which may go on without an end.
async fn head(served: &Served, path: &str) -> (String, String) {
    let mut socket = served.connect().await;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{JSON}\r\n");
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let read = tokio::time::timeout(LIMIT, socket.read_buf(&mut head)).await;
        assert!(read.expect("in time").expect("read") > 0, "{path}");
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let kind = head.lines().find_map(|line| line.strip_prefix("content-type: "));
    (head.split(' ').nth(1).unwrap_or_default().to_owned(), kind.unwrap_or_default().to_owned())
}

#[tokio::test]
async fn the_document_has_every_route_that_answers_json_or_changes_something_and_no_other() {
    let served = served().await;
    let document = document(&served).await;
    let by_path: BTreeMap<&str, &Value> =
        operations(&document).into_iter().map(|(path, _, one)| (path, one)).collect();
    let mut routes: BTreeSet<Route> = BTreeSet::new();
    for path in paths() {
        let plain = path.replace("{*", "{");
        let known = by_path.get(&*plain).copied().unwrap_or(&NOTHING);
        let answer = served.ask("OPTIONS", &filled(&path, known), "").await;
        let allowed = answer.header("allow").unwrap_or_else(|| panic!("{path}: {}", answer.head));
        let methods = allowed.split(',').map(str::trim).filter(|method| *method != "HEAD");
        routes.extend(methods.map(|method| (plain.clone(), method.to_owned())));
    }
    assert!(routes.len() > 50, "the router is debugged as before: {routes:?}");
    let described: BTreeSet<Route> = operations(&document)
        .into_iter()
        .map(|(path, method, _)| (path.to_owned(), method))
        .collect();
    let unknown: Vec<_> = described.difference(&routes).collect();
    assert!(unknown.is_empty(), "these are described, and are no routes: {unknown:?}");
    for (path, method) in routes.difference(&described) {
        // Forms of a page. `docs/http.md` says what programs may send instead.
        if path.ends_with("/change") {
            continue;
        }
        assert_eq!(method, "GET", "{path} changes something, and is not described");
        let (status, kind) = head(&served, &filled(path, &NOTHING)).await;
        // A refusal is JSON for every client but a browser.
        let json = kind.contains("json") && status == "200";
        assert!(!json, "{path} answers JSON, and is not described");
    }
    served.close().await;
}

#[tokio::test]
async fn the_document_names_the_parameters_that_each_route_reads() {
    let served = served().await;
    let document = document(&served).await;
    let headers = format!("{JSON}authorization: Bearer {TOKEN}\r\n");
    let routes: BTreeMap<String, String> =
        paths().into_iter().map(|path| (path.replace("{*", "{"), path)).collect();
    for (path, method, operation) in operations(&document) {
        let what = format!("{method} {path}");
        let (parts, query): (Vec<&Value>, Vec<&Value>) =
            parameters(operation).partition(|one| one["in"] == "path");
        let name = |one: &&Value| one["name"].as_str().expect("a name").to_owned();
        let parts: BTreeSet<String> = parts.iter().map(name).collect();
        let named: BTreeSet<String> = path
            .split('{')
            .skip(1)
            .filter_map(|part| part.split_once('}').map(|(name, _)| name.to_owned()))
            .collect();
        assert_eq!(parts, named, "{what}");
        let pairs = query.iter().map(|one| (name(one), example(one)));
        let text = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let address = format!("{}?{text}", filled(path, operation));
        let answer = served.ask(&method, &address, &headers).await;
        assert!(answer.status < 500, "{what}: {}", answer.body);
        let query: BTreeSet<String> = query.iter().map(name).collect();
        assert_eq!(asked::by(&format!("{method} {}", routes[path])), query, "{what}");
    }
    served.close().await;
}

#[tokio::test]
async fn the_document_says_of_each_operation_who_may_use_it() {
    let served = served().await;
    let document = document(&served).await;
    served.close().await;
    let token = json!({"token": []});
    for (path, method, operation) in operations(&document) {
        let what = format!("{method} {path}");
        let row =
            TABLE.iter().find(|(of, route, _)| *of == method && route.replace("{*", "{") == path);
        let (security, denies) = match row.unwrap_or_else(|| panic!("{what} is not in the table")).2
        {
            Access::Open | Access::Own => (Value::Null, false),
            Access::Read(_) => (json!([{}, token]), true),
            Access::Change(..) => (json!([token]), true),
        };
        assert_eq!(operation["security"], security, "{what}");
        assert_eq!(operation["responses"].get("401").is_some(), denies, "{what}");
        assert!(!denies || operation["responses"].get("403").is_some(), "{what}");
    }
}

#[tokio::test]
async fn the_answers_to_a_login_are_as_the_document_describes_them() {
    let served = served().await;
    let document = document(&served).await;
    let digest = password_digest("correct horse").expect("a digest");
    let grant = Grant { scope: Scope::EVERYWHERE, role: Role::Builder };
    let added = served.database.write(move |tx| store::add_user(tx, "alice", &digest, &grant, 1));
    assert!(added.await.expect("added"));
    for (sent, status) in [
        (r#"{"username":"alice","password":"correct horse"}"#, 200),
        (r#"{"username":"alice","password":"wrong horse"}"#, 403),
        (r#"["alice","correct horse"]"#, 400),
        ("", 400),
    ] {
        let answer =
            served.send("POST", "/login", "content-type: application/json\r\n", sent).await;
        assert_eq!(answer.status, status, "{sent}: {}", answer.body);
        let operation = &document["paths"]["/login"]["post"];
        let described = described(&document, operation, &status.to_string());
        let said: Value = serde_json::from_str(&answer.body).expect("JSON");
        let schema = &described["content"]["application/json"]["schema"];
        fits(&document, schema, &said).unwrap_or_else(|why| panic!("{sent}: {why}"));
    }
    let answer = served.send("POST", "/logout", "", "").await;
    assert_eq!(answer.status, 303, "{}", answer.body);
    served.close().await;
}

/// What the document says of an operation's answer with this status.
fn described<'d>(document: &'d Value, operation: &'d Value, status: &str) -> &'d Value {
    let answer = &operation["responses"][status];
    match answer["$ref"].as_str() {
        Some(place) => document.pointer(place.trim_start_matches('#')).expect("it leads somewhere"),
        None => answer,
    }
}

/// A request and its answer in a golden file.
struct Golden {
    method: String,
    path: String,
    status: String,
    kind: String,
    body: String,
}

/// All answers of the golden files.
fn golden() -> Vec<Golden> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/api");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the golden files") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a golden file");
        for block in text.split("\n\n") {
            let mut lines = block.trim_start_matches('\n').splitn(3, '\n');
            let (Some(request), Some(answer)) = (lines.next(), lines.next()) else { continue };
            let mut words = request.split(' ');
            let (method, path) = words.next().zip(words.next()).expect("a request");
            let (status, kind) = answer.split_once(' ').expect("an answer");
            all.push(Golden {
                method: method.to_owned(),
                path: path.to_owned(),
                status: status.to_owned(),
                kind: kind.split(", ").next().unwrap_or_default().to_owned(),
                body: lines.next().unwrap_or_default().to_owned(),
            });
        }
    }
    all
}

/// The path of the document that a request means: the one with the most fixed parts.
fn meant<'d>(document: &'d Value, path: &str) -> Option<&'d str> {
    let path = path.split('?').next().unwrap_or_default();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let fixed = |pattern: &str| {
        let wanted: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
        let rest = wanted.last() == Some(&"{rest}");
        let long = if rest { parts.len() >= wanted.len() } else { parts.len() == wanted.len() };
        let same = |(wanted, part): (&&str, &&str)| wanted == part || wanted.starts_with('{');
        let fits = long && wanted.iter().zip(&parts).all(same);
        fits.then(|| wanted.iter().filter(|part| !part.starts_with('{')).count())
    };
    let paths = document["paths"].as_object().expect("paths").keys();
    let all = paths.filter_map(|pattern| Some((fixed(pattern)?, &**pattern)));
    all.max_by_key(|(fixed, _)| *fixed).map(|(_, pattern)| pattern)
}

#[tokio::test]
async fn every_golden_answer_is_as_the_document_describes_it_and_every_route_has_one() {
    let served = served().await;
    let document = document(&served).await;
    served.close().await;
    let mut missing: BTreeSet<Route> = operations(&document)
        .into_iter()
        .map(|(path, method, _)| (path.to_owned(), method))
        .collect();
    for Golden { method, path, status, kind, body } in golden() {
        let Some(pattern) = meant(&document, &path) else {
            assert!(["404", "405"].contains(&&*status), "{path} is not described");
            continue;
        };
        let operation = &document["paths"][pattern][method.to_lowercase()];
        if operation.is_null() {
            assert!(method == "HEAD" || status == "405", "{method} {path} is not described");
            continue;
        }
        let what = format!("{method} {path}: {status} {kind}");
        let answer = described(&document, operation, &status);
        assert!(answer.is_object(), "{what} is not described");
        if status.starts_with(['2', '3']) {
            missing.remove(&(pattern.to_owned(), method));
        }
        let Some(content) = answer.get("content") else {
            assert_eq!(body, "", "{what}");
            continue;
        };
        let content = &content[&*kind];
        assert!(content.is_object(), "{what} is not described");
        if kind == "application/json" {
            let value: Value = serde_json::from_str(&body).expect("JSON");
            fits(&document, &content["schema"], &value)
                .unwrap_or_else(|why| panic!("{what}: {why}"));
        }
    }
    // Their answers change from one moment to the next, or are files or pages.
    let tested_elsewhere = |(path, method): &Route| {
        if ["/login", "/logout"].contains(&&**path) {
            return true;
        }
        method == "GET"
            && ["/build/{id}/download", "/build/{id}/log", "/download", "/search/latest"]
                .iter()
                .chain(&["/healthz", "/readyz", "/metrics", "/robots.txt", "/api/openapi.json"])
                .any(|begin| path.starts_with(begin))
    };
    missing.retain(|route| !tested_elsewhere(route));
    assert!(missing.is_empty(), "no golden file has a success of these: {missing:?}");
}

#[tokio::test]
async fn every_reference_of_the_document_leads_to_a_part_and_every_part_is_used() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Array(all) => all.iter().for_each(|one| references(one, found)),
            Value::Object(all) => all.iter().for_each(|(key, one)| match one.as_str() {
                Some(reference) if key == "$ref" => drop(found.insert(reference.to_owned())),
                _ => references(one, found),
            }),
            _ => {}
        }
    }
    let served = served().await;
    let document = document(&served).await;
    let page = served.page("/api").await.body;
    served.close().await;
    assert_eq!(document["openapi"], "3.1.0");
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    let mut parts = BTreeSet::new();
    for kind in ["schemas", "responses"] {
        let all = document["components"][kind].as_object().expect("parts");
        parts.extend(all.keys().map(|name| format!("#/components/{kind}/{name}")));
    }
    assert_eq!(found, parts);
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        assert!(ids.insert(operation["operationId"].as_str()), "{method} {path}");
        assert!(operation["summary"].is_string(), "{method} {path}");
        assert!(page.contains(&format!(">{path}<")), "{path} is not on the page");
    }
}
