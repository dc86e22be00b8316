//! Evaluations: what they register, and how they fail.

use crate::support::{Gate, Place, Process, run};

const EVALUATIONS: &str = "SELECT id, status, message FROM evaluation ORDER BY id";

#[test]
fn a_first_evaluation_builds_every_job() {
    let place = Place::new();
    let repository = place.repository("sample");
    let revision = repository.jobs(&[
        ("compile", "command = \"mkdir $BRIGANDINE_OUT/bin; echo made > $BRIGANDINE_OUT/bin/it\""),
        (
            "check",
            "command = \"grep made $BRIGANDINE_NEEDS/compile/bin/it\"\nneeds = [\"compile\"]",
        ),
    ]);
    place.specify(&[("sample", &repository, "")]);
    place.good_one_shot();
    assert_eq!(place.rows(EVALUATIONS), ["1|0|"]);
    assert_eq!(place.jobs(1), ["check|0", "compile|0"]);
    assert_eq!(
        place.rows("SELECT input, revision, subject, author FROM checkout"),
        [format!("source|{revision}|a change|Sample")]
    );
    assert_eq!(place.build_log("check"), "made\n");
    place.check_consistency();
}

#[test]
fn nothing_new_is_nothing_done() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.jobs(&[("one", "command = \"true\"")]);
    place.specify(&[("sample", &repository, "")]);
    place.good_one_shot();
    place.good_one_shot();
    assert_eq!(place.rows(EVALUATIONS), ["1|0|"]);
    assert_eq!(place.rows("SELECT job, attempt FROM build"), ["one|1"]);
}

#[test]
fn a_commit_builds_only_the_jobs_whose_sources_it_touches() {
    let place = Place::new();
    let repository = place.repository("sample");
    let jobs = "[[job]]\nname = \"a\"\ncommand = \"cat a/text\"\nsources = [\"a/**\"]\n\
                [[job]]\nname = \"b\"\ncommand = \"cat b/text; ls\"\nsources = [\"b\"]\n\
                [[job]]\nname = \"after-a\"\ncommand = \"true\"\nsources = [\"b\"]\nneeds = [\"a\"]\n\
                [[job]]\nname = \"all\"\ncommand = \"ls\"\n";
    repository.commit(&[("brigandine.toml", jobs), ("a/text", "a1\n"), ("b/text", "b1\n")]);
    place.specify(&[("sample", &repository, "")]);
    place.good_one_shot();
    repository.commit(&[("a/text", "a2\n")]);
    place.good_one_shot();
    let reused = "SELECT name, reused FROM job WHERE evaluation_id = 2 ORDER BY name";
    assert_eq!(place.rows(reused), ["a|0", "after-a|0", "all|0", "b|1"]);
    assert_eq!(place.rows("SELECT count(*) FROM build"), ["7"]);
    assert_eq!(place.rows("SELECT succeeded FROM evaluation"), ["4", "4"]);
    assert_eq!(place.build_log("b"), "b1\nb\n", "a build sees its sources and nothing else");
    place.check_consistency();
}

#[test]
fn two_specifications_share_what_is_the_same() {
    let place = Place::new();
    let repository = place.repository("sample");
    let runs = place.path("runs");
    let command = format!("command = \"echo run >> {}\"", runs.display());
    repository.jobs(&[("one", &command), ("two", &command)]);
    place.specify(&[("first", &repository, ""), ("second", &repository, "")]);
    place.good_one_shot();
    assert_eq!(place.rows("SELECT status, succeeded FROM evaluation"), ["0|2", "0|2"]);
    assert_eq!(place.rows("SELECT count(*) FROM build"), ["2"]);
    assert_eq!(place.rows("SELECT count(*) FROM job WHERE reused"), ["2"]);
    let runs = std::fs::read_to_string(runs).expect("they ran");
    assert_eq!(runs.lines().count(), 2, "each was built once");
    place.check_consistency();
}

#[test]
fn a_thousand_jobs_are_one_evaluation() {
    let place = Place::new();
    let repository = place.repository("sample");
    let text: String =
        (0..1000).map(|n| format!("[[job]]\nname = \"j{n}\"\ncommand = \":\"\n")).collect();
    repository.commit(&[("brigandine.toml", &text)]);
    place.specify(&[("sample", &repository, "")]);
    place.good_one_shot();
    assert_eq!(place.rows("SELECT status, succeeded FROM evaluation"), ["0|1000"]);
    place.check_consistency();
}

/// Runs an evaluator script. Returns the status and the message of its evaluation.
fn evaluator(script: &str, limits: &str) -> (Place, String) {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.commit(&[("evaluate", &format!("#!/bin/sh\n{script}\n"))]);
    repository.git(&["update-index", "--chmod=+x", "evaluate"]);
    repository.git(&["commit", "--quiet", "--message=mode"]);
    let more =
        "[specification.evaluator]\nkind = \"command\"\ncommand = [\"./evaluate\"]\n".to_owned();
    place.specify(&[("sample", &repository, &more)]);
    if !limits.is_empty() {
        place.write("config.toml", &format!("[limits]\n{limits}\n"));
    }
    let ended = place.one_shot();
    let rows = place.rows("SELECT status, message FROM evaluation");
    let [row] = rows.as_slice() else { panic!("{rows:?}\n{}", ended.stderr) };
    assert_eq!(ended.status.code(), Some(i32::from(!row.starts_with("0|"))), "{row}");
    place.check_consistency();
    let row = row.clone();
    (place, row)
}

#[test]
fn a_program_of_the_repository_can_be_the_evaluator() {
    let script = r#"cat > request; touch here
        grep -q '"protocol":1' request; grep -q '"input":"source"' request
        echo evaluating >&2
        echo '{"job": "one", "derivation": {"command": "cat evaluate >/dev/null; ls"}}'
        echo '{"error": {"job": "two", "message": "too new"}}'"#;
    let (place, row) = evaluator(script, "");
    assert_eq!(row, "0|1 jobs could not be evaluated: two: too new");
    assert_eq!(place.jobs(1), ["one|0"]);
    assert_eq!(place.build_log("one"), "evaluate\n", "an evaluator cannot change what builds see");
    let log = place.rows("SELECT log_path FROM evaluation").remove(0);
    assert_eq!(place.stored_log(&log), "evaluating\n");
}

#[test]
fn a_broken_evaluator_fails_its_evaluation_and_registers_nothing() {
    let job = |name: &str, needs: &str| {
        format!(
            r#"echo '{{"job": "{name}", "needs": [{needs}], "derivation": {{"command": "x"}}}}'"#
        )
    };
    let cases = [
        (format!("{}\necho nonsense", job("a", "")), "line 2: cannot be read: expected ident"),
        (format!("{}\n{}", job("a", ""), job("a", "")), "line 2: job `a` was given before"),
        (job("a", r#""b""#), "line 1: job `a` needs `b`, which no line gives"),
        (
            format!("{}\n{}", job("a", r#""b""#), job("b", r#""a""#)),
            "line 1: jobs need each other in a circle: a needs b needs a",
        ),
        (
            format!("{}\necho out of cheese >&2\nexit 3", job("a", "")),
            "the evaluator ended with exit status 3: out of cheese",
        ),
        (
            format!("{}\nkill -SEGV $$", job("a", "")),
            "the evaluator ended with killed by signal 11",
        ),
        (format!("{}\necho '{{\"error\": {{\"message\": \"no\"}}}}'", job("a", "")), "no"),
    ];
    for (script, expected) in cases {
        let (place, row) = evaluator(&script, "");
        assert!(row.starts_with("1|") && row.contains(expected), "{row}\n  not {expected}");
        assert_eq!(place.rows("SELECT count(*) FROM build"), ["0"], "{expected}");
    }
}

#[test]
fn an_evaluator_that_never_ends_is_ended() {
    let (_place, row) = evaluator("sleep 1000 & sleep 1000", "evaluation-time = \"1s\"");
    assert!(row.starts_with("1|the evaluator did not end within 1 s"), "{row}");
}

#[test]
fn an_evaluator_that_prints_without_end_is_ended() {
    let line = r#"{"error": {"job": "x", "message": "y"}}"#;
    let (_place, row) = evaluator(&format!("yes '{line}'"), "evaluation-output = \"64 KiB\"");
    assert!(row.starts_with("1|the evaluator printed more than 65536 bytes"), "{row}");
    let (_place, row) = evaluator("head -c 3000000 /dev/zero", "");
    assert!(
        row.starts_with("1|the evaluator printed more than 1048576 bytes on one line"),
        "{row}"
    );
}

#[test]
fn a_wrong_job_list_is_told_by_file_and_line() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.jobs(&[("one", "comand = \"true\"")]);
    place.specify(&[("sample", &repository, "")]);
    assert_eq!(place.one_shot().status.code(), Some(1));
    let row = place.rows(EVALUATIONS).remove(0);
    assert!(row.starts_with("1|1|brigandine.toml:3:1"), "{row}");
    // A second look at the same revision does not evaluate again, and still reports the failure.
    assert_eq!(place.one_shot().status.code(), Some(1));
    assert_eq!(place.rows(EVALUATIONS).len(), 1);
    repository.jobs(&[("one", "command = \"true\"")]);
    place.good_one_shot();
    assert_eq!(place.rows("SELECT status FROM evaluation ORDER BY id"), ["1", "0"]);
}

#[test]
fn the_evaluator_of_job_lists_says_what_is_wrong_with_its_request() {
    let mut command = std::process::Command::new(crate::support::PROGRAM);
    command.arg("evaluate-jobs").stdin(std::process::Stdio::null());
    let ended = run(command);
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stdout.starts_with(r#"{"error":{"message":"standard input holds no"#));
}

#[test]
fn jobs_that_the_database_refuses_fail_their_evaluation_and_no_other() {
    let place = Place::new();
    let (bad, good) = (place.repository("bad"), place.repository("good"));
    for repository in [&bad, &good] {
        repository.jobs(&[("first", "command = \"true\"")]);
    }
    place.specify(&[("bad", &bad, ""), ("good", &good, "")]);
    place.good_one_shot();
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON job WHEN new.name = 'second'
        BEGIN SELECT RAISE(ABORT, 'no second job'); END";
    place.database().execute_batch(refuse).expect("a trigger");
    bad.jobs(&[("second", "command = \"echo second\"")]);
    good.jobs(&[("third", "command = \"echo third\"")]);
    assert_eq!(place.one_shot().status.code(), Some(1));
    let told = "SELECT s.name, e.status FROM evaluation AS e JOIN specification AS s
        ON s.id = e.specification_id WHERE e.id > 2 ORDER BY s.name";
    assert_eq!(place.rows(told), ["bad|1", "good|0"]);
    let message = &place.rows("SELECT message FROM evaluation WHERE status = 1")[0];
    assert!(message.contains("the database refuses them: no second job"), "{message}");
    assert_eq!(place.rows("SELECT status FROM build WHERE job = 'third'"), ["0"]);
    place.check_consistency();
}

#[test]
fn a_signal_to_all_processes_of_the_server_lets_no_evaluation_fail() {
    for last in [false, true] {
        let place = Place::new();
        let repository = place.repository("sample");
        let running = Gate::new(place.path("running"));
        let script = format!("#!/bin/sh\necho up > {}\nsleep 1000\n", running.path().display());
        repository.commit(&[("evaluate", &script)]);
        repository.git(&["update-index", "--chmod=+x", "evaluate"]);
        repository.git(&["commit", "--quiet", "--message=mode"]);
        let evaluator = "[specification.evaluator]\ncommand = [\"./evaluate\"]";
        place.specify(&[("sample", &repository, evaluator)]);
        let server = Process::start(place.command(&[]));
        assert_eq!(running.wait(), "up\n");
        server.signal_all("TERM", last);
        assert!(server.end().success(), "an orderly end");
        assert_eq!(place.rows(EVALUATIONS), ["1|2|the server was stopped"], "{last}");
    }
}
