//! What real clients ask, and the fields that they read: `(guix ci)` and `guix weather`, build-farm.el, hydra-cli, and
//! scripts with sed. Each list was made by reading the client.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::harness::{LIMIT, Served, served};

/// The kind of a field.
#[derive(Debug, Clone, Copy)]
enum Is {
    Text,
    TextOrNull,
    TextOrFalse,
    Number,
    NumberOrNull,
    Boolean,
    /// 0 or 1.
    Bit,
    List,
    ListOrNull,
    Object,
    Null,
}

use Is::{
    Bit, Boolean, List, ListOrNull, Null, Number, NumberOrNull, Object, Text, TextOrFalse,
    TextOrNull,
};

impl Is {
    fn fits(self, value: &Value) -> bool {
        match self {
            Text => value.is_string(),
            TextOrNull => value.is_string() || value.is_null(),
            TextOrFalse => value.is_string() || value == false,
            Number => value.is_i64(),
            NumberOrNull => value.is_i64() || value.is_null(),
            Boolean => value.is_boolean(),
            Bit => value == 0 || value == 1,
            List => value.is_array(),
            ListOrNull => value.is_array() || value.is_null(),
            Object => value.is_object(),
            Null => value.is_null(),
        }
    }
}

/// A request: its path, the way from the answer to the value that has the fields (`*`: each element), and the fields.
type Wanted = (&'static str, &'static str, &'static [(&'static str, Is)]);

/// The values at the end of `way`. There is at least one at each step.
fn at<'v>(value: &'v Value, way: &str) -> Vec<&'v Value> {
    way.split('/').filter(|step| !step.is_empty()).fold(vec![value], |values, step| {
        let next = |value: &'v Value| -> Vec<&'v Value> {
            match (step, value) {
                ("*", Value::Array(all)) => all.iter().collect(),
                ("*", Value::Object(all)) => all.values().collect(),
                _ => value.get(step).into_iter().collect(),
            }
        };
        let found: Vec<_> = values.into_iter().flat_map(next).collect();
        assert!(!found.is_empty(), "nothing is at {step} of {way} in {value}");
        found
    })
}

/// Sends each request with these headers, and checks the fields of its answer.
async fn check(served: &Served, headers: &str, list: &[Wanted]) {
    for (path, way, fields) in list {
        let answer = served.ask("GET", path, headers).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
        assert_eq!(
            answer.header("content-length"),
            Some(&*answer.body.len().to_string()),
            "{path}"
        );
        let value: Value = serde_json::from_str(&answer.body).expect("JSON");
        for one in at(&value, way) {
            for (field, kind) in *fields {
                let found = one.get(field).unwrap_or_else(|| panic!("{path}: no {field} in {one}"));
                assert!(kind.fits(found), "{path}: {field} is {found}, not {kind:?}");
            }
        }
    }
}

const GUIX_BUILD: &[(&str, Is)] = &[
    ("id", Number),
    ("derivation", Text),
    ("evaluation", Number),
    ("system", Text),
    ("buildstatus", Number),
    ("timestamp", Number),
    ("buildproducts", ListOrNull),
];
const GUIX_PRODUCT: &[(&str, Is)] =
    &[("id", Number), ("type", Text), ("file-size", Number), ("path", Text)];
const GUIX_EVALUATION: &[(&str, Is)] =
    &[("id", Number), ("specification", Text), ("in-progress", Bit), ("checkouts", List)];
/// `input` is read by older versions, `channel` by newer ones.
const GUIX_CHECKOUT: &[(&str, Is)] = &[("commit", Text), ("input", Text), ("channel", Text)];
const GUIX_JOB: &[(&str, Is)] = &[("build", Number), ("status", Number), ("name", Text)];

const GUIX: &[Wanted] = &[
    ("/api/queue?nr=1000", "*", GUIX_BUILD),
    ("/api/latestbuilds?nr=1000", "*", GUIX_BUILD),
    ("/api/latestbuilds?nr=1000&evaluation=1", "*", GUIX_BUILD),
    (
        "/api/latestbuilds?nr=1&evaluation=1&job=compile&system=x86_64-linux&status=0",
        "*",
        GUIX_BUILD,
    ),
    ("/api/latestbuilds?nr=1&job=compile", "*/buildproducts/*", GUIX_PRODUCT),
    ("/build/1", "", GUIX_BUILD),
    ("/api/evaluation?id=1", "", GUIX_EVALUATION),
    ("/api/evaluations?nr=1000", "*", GUIX_EVALUATION),
    ("/api/evaluations?nr=1&spec=hello", "*/checkouts/*", GUIX_CHECKOUT),
    ("/api/jobs?evaluation=1&names=compile,test", "*", GUIX_JOB),
    (
        "/api/jobs/history?spec=hello&names=compile,test&nr=10",
        "*",
        &[("evaluation", Number), ("checkouts", List), ("jobs", List)],
    ),
    ("/api/jobs/history?spec=hello&names=compile,test&nr=10", "*/jobs/*", GUIX_JOB),
    (
        "/api/jobs/history?spec=hello&names=compile,test&nr=10",
        "*/checkouts/*",
        &[("commit", Text), ("channel", Text)],
    ),
];

#[tokio::test]
async fn guix_ci_reads_builds_evaluations_jobs_and_histories() {
    let served = served().await;
    check(&served, "user-agent: GNU Guile\r\n", GUIX).await;
    // Guix calls an evaluation complete when `in-progress` is 0.
    let answer = served.get("/api/evaluations?nr=1000").await;
    let all: Value = serde_json::from_str(&answer.body).expect("JSON");
    for evaluation in at(&all, "*") {
        assert_eq!(evaluation["in-progress"] == 0, evaluation["status"] != -1, "{evaluation}");
    }
    served.close().await;
}

#[tokio::test]
async fn guix_weather_computes_rates_and_takes_missing_narinfos_for_missing_substitutes() {
    let served = served().await;
    // The rate of builds is the number of builds by the age of the oldest, so no time may be 0.
    let answer = served.get("/api/latestbuilds?nr=1000").await;
    let builds: Value = serde_json::from_str(&answer.body).expect("JSON");
    for build in at(&builds, "*") {
        assert!(build["timestamp"].as_i64() > Some(0), "{build}");
        assert!(build["derivation"].is_string(), "without it, the queue is not counted: {build}");
    }
    // Substitutes are asked for down one connection, and none is here.
    let mut requests = String::new();
    for n in 0..50 {
        requests += &format!("GET /{n:032x}.narinfo HTTP/1.1\r\nhost: x\r\n\r\n");
    }
    let answers = pipelined(&served, &requests, 50).await;
    assert!(answers.iter().all(|(status, _)| *status == 404), "{answers:?}");
    assert_eq!(served.get("/nix-cache-info").await.status, 404);
    served.close().await;
}

const FARM_BUILD: &[(&str, Is)] = &[
    ("id", Number),
    ("nixname", Text),
    ("buildstatus", Number),
    ("timestamp", Number),
    ("queuedtime", Number),
    ("starttime", Number),
    ("stoptime", Number),
    ("finished", Bit),
    ("busy", Bit),
    ("priority", Number),
    ("project", Text),
    ("jobset", Text),
    ("job", Text),
    ("system", Text),
    ("releasename", TextOrNull),
    ("buildoutputs", Object),
    ("buildproducts", ListOrNull),
];

const FARM: &[Wanted] = &[
    ("/build/1", "", FARM_BUILD),
    ("/build/1", "buildoutputs/*", &[("path", Text)]),
    ("/api/latestbuilds?nr=64", "*", FARM_BUILD),
    (
        "/api/latestbuilds?nr=64&project=main&jobset=hello&job=compile&system=x86_64-linux",
        "*",
        FARM_BUILD,
    ),
    ("/api/queue?nr=64", "*", FARM_BUILD),
    (
        "/api/jobsets?project=main",
        "*",
        &[
            ("name", Text),
            ("nrscheduled", Number),
            ("nrsucceeded", Number),
            ("nrfailed", Number),
            ("nrtotal", Number),
        ],
    ),
    (
        "//jobsets",
        "*",
        &[
            ("name", Text),
            ("load-path-inputs", List),
            ("package-path-inputs", List),
            ("proc-input", Text),
            ("proc-file", Text),
            ("proc", Text),
            ("proc-args", Object),
            ("inputs", List),
        ],
    ),
    (
        "//jobsets",
        "*/inputs/*",
        &[
            ("name", Text),
            ("url", Text),
            ("load-path", Text),
            ("branch", TextOrFalse),
            ("tag", TextOrFalse),
            ("commit", TextOrFalse),
            ("no-compile?", Boolean),
        ],
    ),
    (
        "/",
        "*",
        &[
            ("name", Text),
            ("displayname", Text),
            ("description", Text),
            ("owner", Text),
            ("enabled", Bit),
            ("releases", List),
            ("jobsets", List),
        ],
    ),
    ("/project/main", "", &[("name", Text), ("jobsets", List)]),
    (
        "/api/evaluations?nr=20",
        "*",
        &[("id", Number), ("specification", Text), ("in-progress", Bit)],
    ),
    ("/api/evaluations?nr=20", "*/checkouts/*", &[("commit", Text), ("input", Text)]),
    ("/eval/1", "", &[("id", Number), ("builds", List)]),
];

#[tokio::test]
async fn build_farm_el_lists_builds_jobsets_projects_and_evaluations() {
    let served = served().await;
    check(&served, "mime-version: 1.0\r\naccept: application/json\r\n", FARM).await;
    served.close().await;
}

const HYDRA_CLI: &[Wanted] = &[
    (
        "/",
        "*",
        &[
            ("name", Text),
            ("displayname", Text),
            ("description", TextOrNull),
            ("owner", Text),
            ("enabled", Bit),
            ("hidden", Bit),
            ("jobsets", List),
        ],
    ),
    (
        "/api/jobsets?project=main",
        "*",
        &[
            ("project", Text),
            ("name", Text),
            ("nrscheduled", Number),
            ("nrtotal", Number),
            ("nrsucceeded", Number),
            ("nrfailed", Number),
            ("starttime", NumberOrNull),
            ("lastcheckedtime", NumberOrNull),
            ("haserrormsg", Boolean),
        ],
    ),
    ("/api/jobsets?project=tools", "*", &[("starttime", Number), ("lastcheckedtime", Null)]),
    (
        "/search?query=outputs/bbbb-test",
        "builds/*",
        &[
            ("id", Number),
            ("project", Text),
            ("jobset", Text),
            ("job", Text),
            ("drvpath", Text),
            ("stoptime", Number),
            ("buildoutputs", Object),
            ("jobsetevals", List),
        ],
    ),
    ("/search?query=outputs/bbbb-test", "builds/*/buildoutputs/*", &[("path", Text)]),
    ("/jobset/main/hello", "", &[("nixexprpath", Text), ("nixexprinput", Text)]),
    (
        "/eval/1",
        "jobsetevalinputs/*",
        &[("type", Text), ("uri", TextOrNull), ("revision", TextOrNull), ("value", TextOrNull)],
    ),
];

#[tokio::test]
async fn hydra_cli_lists_searches_waits_and_reproduces() {
    let served = served().await;
    check(&served, "accept: */*\r\ncontent-type: application/json\r\n", HYDRA_CLI).await;
    // `reproduce` looks the input that the expression is in up among those of the build's first evaluation.
    let get = async |path: &str| -> Value {
        let answer = served.ask("GET", path, "content-type: application/json\r\n").await;
        serde_json::from_str(&answer.body).expect("JSON")
    };
    let found = get("/search?query=outputs/bbbb-test").await;
    let evaluation = get(&format!("/eval/{}", found["builds"][0]["jobsetevals"][0])).await;
    let jobset = get("/jobset/main/hello").await;
    let input = jobset["nixexprinput"].as_str().expect("a text");
    let input = &evaluation["jobsetevalinputs"][input];
    assert!(input["uri"].is_string() && input["revision"].is_string(), "{input}");
    served.close().await;
}

/// Sends `requests` at once down one connection, and reads as many answers: status and body.
async fn pipelined(served: &Served, requests: &str, count: usize) -> Vec<(u16, String)> {
    let mut socket = served.connect().await;
    socket.write_all(requests.as_bytes()).await.expect("sent");
    let mut read = Vec::new();
    let mut answers = Vec::new();
    while answers.len() < count {
        if let Some((status, body, length)) = first(&read) {
            answers.push((status, body));
            read.drain(..length);
            continue;
        }
        let more = tokio::time::timeout(LIMIT, socket.read_buf(&mut read)).await;
        assert!(more.expect("in time").expect("read") > 0, "only {} answers", answers.len());
    }
    assert!(read.is_empty(), "{}", String::from_utf8_lossy(&read));
    answers
}

/// The first whole answer in `read`: its status, its body, and its length in bytes.
fn first(read: &[u8]) -> Option<(u16, String, usize)> {
    let end = read.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.expect("every answer says its length").parse().ok()?;
    let body = read.get(end..end + length)?;
    Some((status, String::from_utf8_lossy(body).into_owned(), end + length))
}

#[tokio::test]
async fn fifty_requests_down_one_connection_are_answered_in_their_order() {
    let served = served().await;
    let paths = ["/build/1", "/build/2", "/build/99", "/api/queue?nr=1", "/api/latestbuilds"];
    let mut wanted = Vec::new();
    for path in paths {
        let answer = served.get(path).await;
        wanted.push((answer.status, answer.body));
    }
    let request = |n: usize| format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", paths[n % paths.len()]);
    let requests: String = (0..50).map(request).collect();
    let answers = pipelined(&served, &requests, 50).await;
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer, &wanted[n % paths.len()], "{n}");
    }
    served.close().await;
}

#[tokio::test]
async fn scripts_cut_numbers_out_of_answers_with_sed() {
    let served = served().await;
    for (path, number) in [
        ("/build/1", "1"),
        ("/api/latestbuilds?nr=1&job=compile&status=0", "1"),
        ("/api/evaluations?nr=1&spec=hello", "2"),
        ("/eval/2", "2"),
    ] {
        let answer = served.ask("GET", path, "accept: application/json\r\n").await;
        let mut sed = Command::new("sed")
            .args(["-n", r#"s/^[^"]*"id":\([0-9]*\).*/\1/p"#])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sed");
        let mut input = sed.stdin.take().expect("its input");
        input.write_all(answer.body.as_bytes()).expect("written");
        drop(input);
        let cut = sed.wait_with_output().expect("it ends");
        assert_eq!(String::from_utf8_lossy(&cut.stdout).trim(), number, "{path}: {}", answer.body);
    }
    served.close().await;
}
