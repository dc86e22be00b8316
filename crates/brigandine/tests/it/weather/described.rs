//! Requests that schemathesis makes from the document of the API: valid ones, wrong ones, and, in the long form,
//! sequences; with a token of each role and with none. Every answer must be one that the document describes. The step
//! `api` of `cargo xtask test` installs the program, says from which seed it makes the requests, and runs these tests.

use std::process::{Command, Stdio};

use crate::command::serve::{address, text};
use crate::support::{Place, Process, run, until};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");
const FILL: &str = include_str!("../../data/pages/fill.sql");

/// Changes the sample into what a server of its own may have.
const ALONE: &str = "
    -- Nothing runs this build. A request for its log would wait for an end.
    UPDATE build SET status = -2, backend = 1, started_at = 0 WHERE id = 1006;
    DELETE FROM attempt WHERE build_id = 1006;
    UPDATE evaluation SET scheduled = 3, started = 0, succeeded = 2, canceled = 1 WHERE id = 1002;
    -- These logs are not there.
    UPDATE build SET log_path = '' WHERE id > 1000;";

/// The role and the place of a token; `None`: requests have none.
type Token = Option<(&'static str, &'static str)>;

/// Whether the long form of the tests runs.
fn is_long() -> bool {
    std::env::var_os("LOCKKEEPER_LONG").is_some_and(|value| value == "1")
}

/// A server with builds of every kind, among them those that the examples of the document name.
fn served(settings: &str) -> (Place, Process, String) {
    let place = Place::new();
    let repository = place.repository("repository");
    place.specify(&[("hello", &repository, "")]);
    place.write("config.toml", settings);
    // The document's examples name the build 7 and the evaluation 2.
    for revision in 1..=2 {
        let compile = format!("command = \"echo {revision} > made\"\nproducts = [\"made\"]");
        let good = "command = \"echo line\"";
        repository.jobs(&[
            ("compile", &compile),
            ("test", "command = \"false\"\nneeds = [\"compile\"]"),
            ("package", "command = \"true\"\nneeds = [\"test\"]"),
            ("docs", good),
            ("lint", good),
            ("bench", good),
            ("sign", good),
        ]);
        place.good_one_shot();
    }
    let mut command = place.command(&[]);
    // Definitions name repositories at any address, and none of them is to be asked.
    for name in ["http_proxy", "https_proxy", "ALL_PROXY"] {
        command.env(name, "http://127.0.0.1:9");
    }
    command.env("GIT_SSH_COMMAND", "false");
    let server = Process::start(command);
    let address = address(&server);
    until(|| text(&address, "/readyz"), |answer| answer.contains("200 OK"));
    // The rows are inserted while the server runs. When it starts, it would repair them as the remains of a killed
    // server.
    place.database().execute_batch(&format!("BEGIN;{FILL}{ALONE}COMMIT;")).expect("filled");
    (place, server, address)
}

/// The text of a new token, whose name is that of its role.
fn made(place: &Place, role: &str, scope: &str) -> String {
    let mut words = vec!["token", "create", role, "--role", role];
    if !scope.is_empty() {
        words.extend(["--in", scope]);
    }
    let ended = run(place.tool(&words));
    assert!(ended.status.success(), "{}", ended.stderr);
    ended.stdout.trim().to_owned()
}

/// How many requests schemathesis makes.
#[derive(Clone, Copy)]
enum Extent {
    /// The examples of the document, and a valid or wrong request of each operation: some 150.
    Few,
    /// Also each boundary of each parameter, wrong methods, and what is missing: some 2500.
    Many,
}

/// Has schemathesis test the server with a token, or without one.
fn check(place: &Place, address: &str, token: Token, extent: Extent) {
    let tool = std::env::var_os("BRIGANDINE_SCHEMATHESIS").expect("the step `api` sets it");
    let seed = std::env::var("BRIGANDINE_SCHEMATHESIS_SEED").expect("the step `api` sets it");
    let changes = |role: &str| {
        let by = format!("SELECT count(*) > 0 FROM audit WHERE actor = 'token {role}'");
        place.rows(&by) == ["1"]
    };
    let mut command = Command::new(&tool);
    command.args(["--config-file", &format!("{DATA}/schemathesis.toml")]);
    command.args(["run", &format!("http://{address}/api/openapi.json"), "--no-color"]);
    command.args(["--url", &format!("http://{address}"), "--seed", &seed]);
    match (is_long(), extent) {
        (true, _) => command.args(["--max-examples", "10"]),
        (_, Extent::Few) => command.args(["--max-examples", "1", "--phases", "examples,fuzzing"]),
        (_, Extent::Many) => {
            command.args(["--max-examples", "1", "--phases", "examples,coverage,fuzzing"])
        }
    };
    if let Some((role, scope)) = token {
        let bearer = format!("Authorization: Bearer {}", made(place, role, scope));
        command.args(["--header", &bearer]);
    }
    command.env("SCHEMATHESIS_HOOKS", format!("{DATA}/schemathesis_hooks.py"));
    // Otherwise each run would go through its sets in another order.
    command.env("PYTHONHASHSEED", "0").env("PYTHONDONTWRITEBYTECODE", "1");
    let ended = command.current_dir(place.path("")).stdin(Stdio::null()).output();
    let ended = ended.expect("schemathesis runs");
    let told = String::from_utf8_lossy(&ended.stdout);
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "seed {seed}, with {token:?}:\n{told}\n{errors}");
    // The token was one, and did what its role allows.
    if let Some((role, _)) = token {
        assert_eq!(changes(role), role != "reader", "{role}");
    }
}

/// Tests one server with each of these tokens.
fn check_all(settings: &str, tokens: &[(Token, Extent)]) {
    let (place, server, address) = served(settings);
    for (token, extent) in tokens {
        check(&place, &address, *token, *extent);
    }
    server.signal("TERM");
    assert!(server.end().success());
    place.check_consistency();
}

#[test]
#[ignore = "needs schemathesis, which `cargo xtask test --only api` installs"]
fn every_answer_is_as_the_document_of_the_api_says() {
    let (reader, builder, admin) = (("reader", ""), ("builder", ""), ("admin", ""));
    // The later ones change more.
    let mut tokens = vec![(None, Extent::Few), (Some(builder), Extent::Few)];
    if is_long() {
        tokens.insert(1, (Some(reader), Extent::Many));
    }
    tokens.push((Some(admin), Extent::Many));
    check_all("", &tokens);
}

#[test]
#[ignore = "needs schemathesis, which `cargo xtask test --only api` installs"]
fn every_answer_of_a_private_server_is_as_the_document_of_the_api_says() {
    let mut tokens = vec![(None, Extent::Few), (Some(("reader", "")), Extent::Many)];
    if is_long() {
        let in_one = ["builder", "admin"].map(|role| (Some((role, "main/hello")), Extent::Many));
        tokens.extend(in_one);
    }
    check_all("[web]\nprivate = true\n", &tokens);
}
