//! Specifications that are added, replaced, disabled and removed over HTTP, in the server's own words and in Hydra's.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use super::changes::{TOKEN, put_token};
use crate::command::serve::address;
use crate::support::{PATIENCE, Place, Process, Repository, until};

/// Sends a request with the token, and reads status and body of the answer.
fn ask(address: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut socket = TcpStream::connect(address).expect("the server listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\naccept: application/json\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nauthorization: Bearer {TOKEN}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

fn get(address: &str, path: &str) -> Value {
    ask(address, "GET", path, &Value::Null).1
}

fn post(address: &str, path: &str, body: &Value) -> (u16, Value) {
    ask(address, "POST", path, body)
}

/// The body that defines a specification.
fn definition(name: &str, repository: &Repository, priority: i64) -> Value {
    let input = json!({"name": "source", "url": repository.path});
    json!({"specification": [{"name": name, "priority": priority, "input": [input]}]})
}

/// Waits until all jobs of a specification have succeeded.
fn built(address: &str, project: &str, name: &str, jobs: i64) {
    let read = || {
        let all = get(address, &format!("/api/jobsets?project={project}"));
        let found = all.as_array().into_iter().flatten().find(|one| one["name"] == name).cloned();
        found.unwrap_or_default()["nrsucceeded"].as_i64()
    };
    until(read, |succeeded| *succeeded == Some(jobs));
}

#[test]
fn a_specification_is_added_replaced_disabled_and_removed_over_http() {
    let place = Place::new();
    let (sample, other) = (place.repository("sample"), place.repository("other"));
    sample.jobs(&[("one", "command = \"true\"")]);
    other.jobs(&[("two", "command = \"true\"")]);
    place.specify(&[("sample", &sample, "")]);
    put_token(&place, 0o600);
    let server = Process::start(place.command(&[]));
    let address = address(&server);
    built(&address, "main", "sample", 1);

    let wrong =
        json!({"specification": [{"name": "a b", "input": [{"url": "/x", "brnach": "y"}]}]});
    let (status, said) = post(&address, "/api/v1/specifications", &wrong);
    assert_eq!(status, 400, "{said}");
    let problems = said["problems"].as_array().expect("problems");
    let places: Vec<&Value> = problems.iter().map(|problem| &problem["pointer"]).collect();
    assert_eq!(places, ["/specification/0/name", "/specification/0/input/0/brnach"]);
    assert!(problems[1]["help"].as_str().expect("a help").contains("`branch`"), "{said}");

    let put = |query: &str, priority| {
        let path = format!("/api/v1/specifications{query}");
        let (status, said) = post(&address, &path, &definition("other", &other, priority));
        (status, said["specifications"][0]["outcome"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(put("", 0), (200, "new".to_owned()));
    built(&address, "main", "other", 1);
    assert_eq!(put("", 0), (200, "unchanged".to_owned()));
    assert_eq!(put("", 5).0, 409);
    assert_eq!(put("?replace=true", 5), (200, "changed".to_owned()));

    assert_eq!(post(&address, "/api/v1/jobset/other/disable", &Value::Null).0, 200);
    assert_eq!(get(&address, "/jobset/main/other")["enabled"], 0);
    let (status, said) = post(&address, "/api/v1/jobset/other/evaluate", &Value::Null);
    assert_eq!((status, &said["error"]), (409, &"other is disabled".into()));
    assert_eq!(post(&address, "/api/v1/jobset/other/enable", &Value::Null).0, 200);
    assert_eq!(get(&address, "/jobset/main/other")["enabled"], 1);

    // What stands in a file of the server is not changed in passing.
    let (status, said) = post(&address, "/api/v1/jobset/sample/remove", &Value::Null);
    assert_eq!(status, 409, "{said}");
    assert!(said["error"].as_str().expect("text").contains("specifications.toml"), "{said}");
    let (status, _) =
        post(&address, "/api/v1/specifications?replace=true", &definition("sample", &other, 0));
    assert_eq!(status, 409);
    assert_eq!(post(&address, "/api/v1/jobset/sample/remove?override=true", &Value::Null).0, 200);
    assert_eq!(ask(&address, "GET", "/jobset/main/sample", &Value::Null).0, 404);
    assert_eq!(get(&address, "/build/1")["jobset"], "sample", "its builds stay");
    server.signal("TERM");
    assert!(server.end().success());
    place.check_consistency();
}

#[test]
fn a_removed_specification_takes_its_history_with_it_if_that_is_wanted() {
    let place = Place::new();
    let (first, last) = (place.repository("first"), place.repository("last"));
    first.jobs(&[("one", "command = \"echo made > $BRIGANDINE_OUT/it\"")]);
    last.jobs(&[("two", "command = \"true\"")]);
    put_token(&place, 0o600);
    let server = Process::start(place.tool(&["serve", "--listen", "127.0.0.1:0", "--sandbox=off"]));
    let address = address(&server);
    for (name, repository) in [("first", &first), ("last", &last)] {
        let body = definition(name, repository, 0);
        assert_eq!(post(&address, "/api/v1/specifications", &body).0, 200);
        built(&address, "main", name, 1);
    }
    let count = |name: &str| {
        let all = get(&address, &format!("/api/evaluations?nr=10&spec={name}"));
        all.as_array().map(Vec::len)
    };
    assert_eq!(count("first"), Some(1));
    assert_eq!(post(&address, "/api/v1/jobset/first/remove?history=delete", &Value::Null).0, 200);
    until(|| count("first"), |count| *count == Some(0));
    until(|| get(&address, "/build/1"), |build| build["error"].is_string());
    assert_eq!(count("last"), Some(1));
    // One whose history is kept is there again when it is added again.
    assert_eq!(post(&address, "/api/v1/jobset/last/remove", &Value::Null).0, 200);
    assert_eq!(count("last"), Some(1));
    assert_eq!(post(&address, "/api/v1/specifications", &definition("last", &last, 0)).0, 200);
    assert_eq!(post(&address, "/api/v1/jobset/none/remove", &Value::Null).0, 404);
    server.signal("TERM");
    assert!(server.end().success());
    place.check_consistency();
}

#[test]
fn a_client_of_hydra_makes_a_jobset_pushes_to_it_and_deletes_it() {
    let place = Place::new();
    let repository = place.repository("tool");
    repository.jobs(&[("one", "command = \"true\"")]);
    put_token(&place, 0o600);
    let server = Process::start(place.tool(&["serve", "--listen", "127.0.0.1:0", "--sandbox=off"]));
    let address = address(&server);
    let project = json!({"displayname": "demo", "enabled": true, "visible": true});
    assert_eq!(ask(&address, "PUT", "/project/demo", &project).0, 201);
    // As hydra-cli sends it.
    let jobset = json!({
        "description": "a tool", "checkinterval": 60, "enabled": 1, "visible": true, "keepnr": 3,
        "nixexprinput": "src", "nixexprpath": "brigandine.toml",
        "inputs": {"src": {
            "value": repository.path, "type": "git", "revision": null, "uri": null,
        }},
    });
    let (status, said) = ask(&address, "PUT", "/jobset/demo/tool", &jobset);
    assert_eq!((status, &said["uri"]), (201, &"/jobset/demo/tool".into()), "{said}");
    built(&address, "demo", "tool", 1);
    assert_eq!(ask(&address, "PUT", "/jobset/demo/tool", &jobset).0, 200);
    let found = get(&address, "/jobset/demo/tool");
    assert_eq!(
        (&found["nixexprinput"], &found["nixexprpath"]),
        (&"src".into(), &"brigandine.toml".into())
    );
    assert_eq!((&found["checkinterval"], &found["description"]), (&60.into(), &"a tool".into()));
    repository.jobs(&[("one", "command = \"true\""), ("two", "command = \"echo\"")]);
    let (status, said) =
        ask(&address, "PUT", "/api/push?jobsets=demo:tool,demo:none", &Value::Null);
    assert_eq!((status, &said["jobsetsTriggered"]), (200, &json!(["demo:tool"])), "{said}");
    built(&address, "demo", "tool", 2);
    let path = format!("/api/push?repos={}", repository.path.display());
    assert_eq!(post(&address, &path, &Value::Null).1["jobsetsTriggered"], json!(["demo:tool"]));
    let elsewhere = ask(&address, "PUT", "/jobset/other/tool", &jobset);
    assert_eq!(elsewhere.0, 409, "{elsewhere:?}");
    let disabled = json!({"enabled": false});
    assert_eq!(ask(&address, "PUT", "/project/demo", &disabled).0, 200);
    assert_eq!(get(&address, "/project/demo")["enabled"], 0);
    let (status, said) = ask(&address, "DELETE", "/jobset/demo/tool", &Value::Null);
    assert_eq!((status, &said["redirect"]), (200, &"/project/demo".into()), "{said}");
    assert_eq!(ask(&address, "DELETE", "/jobset/demo/tool", &Value::Null).0, 404);
    assert_eq!(ask(&address, "DELETE", "/project/demo", &Value::Null).0, 404);
    server.signal("TERM");
    assert!(server.end().success());
    place.check_consistency();
}
