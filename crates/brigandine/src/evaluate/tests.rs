use super::check::{Context, Jobs};
use super::error::EvaluateError;
use super::protocol::{self, Line};
use std::time::{Duration, Instant};

fn context() -> Context {
    Context {
        checkouts: Vec::new(),
        main: "main".to_owned(),
        systems: vec!["x86_64-linux".to_owned()],
        priority: 5,
        isolation: "none".to_owned(),
        network: false,
    }
}

fn job(name: &str, needs: &[&str]) -> String {
    serde_json::json!({
        "job": name, "needs": needs, "derivation": { "command": "true", "sources": {} }
    })
    .to_string()
}

fn check(lines: &[String]) -> Result<Vec<crate::store::NewJob>, EvaluateError> {
    let mut jobs = Jobs::default();
    for (index, line) in lines.iter().enumerate() {
        jobs.take(index + 1, line.as_bytes())?;
    }
    jobs.finish(&context(), far())
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(1000)
}

#[test]
fn needs_come_before_those_who_need_them() {
    let jobs = check(&[job("c", &["b", "a"]), job("b", &["a"]), job("a", &[]), String::new()])
        .expect("jobs");
    let names: Vec<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(jobs[2].needs, [("a".to_owned(), 0), ("b".to_owned(), 1)]);
    assert_eq!(jobs[0].priority, 5);
    assert_eq!(jobs[0].system, "x86_64-linux");
}

#[test]
fn identity_covers_command_environment_and_needs_but_not_the_limits() {
    let one =
        |line: serde_json::Value| check(&[line.to_string()]).expect("job").remove(0).derivation;
    let base = serde_json::json!({"job": "a", "derivation": {"command": "x", "sources": {}}});
    let with = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut line = base.clone();
        edit(&mut line);
        one(line)
    };
    let same = one(base.clone());
    assert_eq!(same, with(&|line| line["timeout"] = 3.into()));
    assert_eq!(same, with(&|line| line["priority"] = 3.into()));
    assert_ne!(same, with(&|line| line["system"] = "riscv64-linux".into()));
    assert_ne!(same, with(&|line| line["derivation"]["command"] = "y".into()));
    assert_ne!(same, with(&|line| line["derivation"]["environment"]["A"] = "1".into()));
    assert_ne!(same, with(&|line| line["derivation"]["products"] = vec!["p"].into()));
    assert!(same.ends_with("-a.drv"), "{same}");
}

#[test]
fn wrong_lines_are_refused_by_number() {
    for (lines, expected) in [
        (vec!["{".to_owned()], "line 1: cannot be read: EOF while parsing an object (column 1)"),
        (vec![job("a", &[]), "[]".to_owned()], "line 2: cannot be read"),
        (vec![r#"{"jop": "a"}"#.to_owned()], "line 1: cannot be read: unknown field `jop`"),
        (vec!["{}".to_owned()], "line 1: has neither `job` nor `error`"),
        (vec![r#"{"job": "a"}"#.to_owned()], "line 1: job `a` has no `derivation`"),
        (
            vec![r#"{"job": "a", "derivation": {"comand": "x"}}"#.to_owned()],
            "line 1: job `a`, `derivation`: unknown field `comand`",
        ),
        (
            vec![r#"{"job": "a", "derivation": "/gnu/store/x.drv"}"#.to_owned()],
            "line 1: job `a`: this server has no backend that builds `/gnu/store/x.drv`",
        ),
        (vec![job("a", &[]), job("a", &[])], "line 2: job `a` was given before, on line 1"),
        (vec![job("a", &["b"])], "line 1: job `a` needs `b`, which no line gives"),
        (vec![job("a", &["a"])], "line 1: jobs need each other in a circle: a needs a"),
        (
            vec![job("x", &[]), job("z", &["a"]), job("a", &["b", "x"]), job("b", &["a"])],
            "line 3: jobs need each other in a circle: a needs b needs a",
        ),
        (vec![job("a b", &[])], "line 1: job `a b` has a blank in its name"),
        (
            vec![job("a\u{202e}b", &[])],
            "line 1: job `a\\u{202e}b` has a control character in its name",
        ),
        (vec![job("", &[])], "line 1: a job has an empty name"),
        (vec![r#"{"error": {"message": "no good"}}"#.to_owned()], "no good"),
        (
            vec![r#"{"job": "a", "derivation": {"command": []}}"#.to_owned()],
            "line 1: job `a`: `command` is a list of texts, the program first",
        ),
        (
            vec![
                r#"{"job": "a", "derivation": {"command": "x", "sources": {"lib": []}}}"#
                    .to_owned(),
            ],
            "line 1: job `a`: `sources` names the input `lib`",
        ),
    ] {
        let error = match check(&lines).expect_err(expected) {
            EvaluateError::Refused(message) | EvaluateError::Reported(message) => message,
            other => panic!("{other}"),
        };
        assert!(error.starts_with(expected), "{error}\n  instead of\n{expected}");
    }
}

#[test]
fn a_job_that_cannot_be_evaluated_does_not_take_the_others_with_it() {
    let mut jobs = Jobs::default();
    jobs.take(1, job("a", &[]).as_bytes()).expect("job");
    jobs.take(2, br#"{"error": {"job": "b", "message": "infinite recursion"}}"#).expect("error");
    assert_eq!(jobs.message(), "1 jobs could not be evaluated: b: infinite recursion");
    assert_eq!(jobs.finish(&context(), far()).expect("jobs").len(), 1);
}

#[test]
fn needs_may_be_given_other_names() {
    let line = br#"{"job": "a", "needs": {"lib": "b.x86"}, "derivation": {"command": ["x"]}}"#;
    let Ok(Line::Job(job)) = protocol::parse(line) else { panic!("not a job") };
    assert_eq!(job.needs["lib"], "b.x86");
}

#[test]
fn twenty_thousand_jobs_are_checked_in_a_moment() {
    let mut jobs = Jobs::default();
    for number in 0..20_000_usize {
        let before = number.saturating_sub(1);
        let needs: Vec<String> = if number == 0 { vec![] } else { vec![format!("j{before}")] };
        let needs: Vec<&str> = needs.iter().map(String::as_str).collect();
        jobs.take(number + 1, job(&format!("j{number}"), &needs).as_bytes()).expect("job");
    }
    assert_eq!(jobs.finish(&context(), far()).expect("jobs").len(), 20_000);
}

#[test]
fn a_hostile_job_list_is_an_error_and_not_the_end_of_the_server() {
    let request = protocol::Request {
        protocol: protocol::VERSION,
        specification: specification(),
        checkouts: vec![protocol::RequestCheckout {
            input: "main".to_owned(),
            url: String::new(),
            directory: String::new(),
            revision: String::new(),
        }],
        arguments: serde_json::Map::new(),
        systems: vec!["x86_64-linux".to_owned()],
    };
    let lines = |list: &str| super::jobs::lines(&request, Some(list.as_bytes()));
    assert_eq!(lines("[[job]]\nname = \"a\"\ncommand = \"x\"\n").expect("a job").len(), 1);
    let deep = 120 * 1024;
    for hostile in [
        format!("x = {}", "[".repeat(deep)),
        format!("x = {}", "{a=".repeat(deep / 3)),
        format!("{} = 1", vec!["a"; deep / 2].join(".")),
        format!("[{}]", vec!["a"; deep / 2].join(".")),
    ] {
        assert!(lines(&hostile).is_err(), "{:.20}", hostile);
    }
    assert!(super::jobs::lines(&request, Some(b"\xff")).is_err());
}

fn specification() -> crate::model::Specification {
    crate::model::Specification {
        name: "s".to_owned(),
        project: "main".to_owned(),
        description: String::new(),
        inputs: Vec::new(),
        evaluator: crate::model::Evaluator::Jobs {
            input: None,
            file: "brigandine.toml".to_owned(),
            jobs: Vec::new(),
        },
        interval_s: None,
        keep: None,
        priority: 0,
        supersede: crate::model::Supersede::default(),
        network: false,
        private: false,
        enabled: true,
    }
}

#[test]
fn texts_of_an_evaluator_are_bounded_where_they_enter() {
    let long = "x".repeat(900_000);
    let with = |key: &str, value: &str| {
        let mut line = serde_json::json!({
            "job": "a", "derivation": {"command": "x", "sources": {}}
        });
        line[key] = value.into();
        line.to_string()
    };
    let told = |refusal: EvaluateError| match refusal {
        EvaluateError::Refused(message) | EvaluateError::Reported(message) => message,
        other => panic!("{other}"),
    };
    let steering = "a\n2026-11-29T00:00:00Z  INFO forged\u{1b}[2J";
    for text in [long.as_str(), steering] {
        for line in [
            with("job", text),
            with("system", text),
            with("nix_name", text),
            with(text, "unknown"),
            with("timeout", text),
            with("derivation", text),
            serde_json::json!({"error": {"message": text}}).to_string(),
            serde_json::json!({"job": "a", "needs": [text], "derivation": {"command": "x"}}).to_string(),
            serde_json::json!({"job": "a", "derivation": {"command": "x", "environment": {"CI": text, text: ""}}})
                .to_string(),
            serde_json::json!({"job": "a", "derivation": {"command": "x", "sources": {text: []}}}).to_string(),
            serde_json::json!({"job": "a", "derivation": {"command": "x", "products": [format!("/{text}")]}})
                .to_string(),
            serde_json::json!({"job": "a", "derivation": {"command": "x", text: 1}}).to_string(),
        ] {
            let message = told(check(std::slice::from_ref(&line)).expect_err("refused"));
            assert!(message.len() <= 4096, "{} bytes: {:.100}", message.len(), message);
            assert!(!message.contains(|c: char| c.is_control()), "{message:?}");
        }
    }
    let mut jobs = Jobs::default();
    for number in 0..12 {
        let error = serde_json::json!({"error": {"job": format!("b{number}\n"), "message": &long}});
        jobs.take(number + 1, error.to_string().as_bytes()).expect("an error");
    }
    let message = jobs.message();
    assert!(message.starts_with("12 jobs could not be evaluated: b0: xxx"), "{message:.100}");
    assert!(message.len() < 4200 && message.contains("(cut)"), "{}", message.len());
}

#[test]
fn a_need_may_have_several_names() {
    let line = r#"{"job": "b", "needs": {"x": "a", "y": "a"}, "derivation": {"command": ["x"], "sources": {}}}"#;
    let jobs = check(&[job("a", &[]), line.to_owned()]).expect("jobs");
    assert_eq!(jobs[1].needs, [("x".to_owned(), 0), ("y".to_owned(), 0)]);
    let definition: crate::model::Definition =
        serde_json::from_str(jobs[1].definition.as_deref().expect("one")).expect("JSON");
    assert_eq!(definition.needs["x"], jobs[0].derivation);
    assert_eq!(definition.needs["y"], jobs[0].derivation);
}

#[test]
fn an_identity_has_256_bits_and_covers_what_a_build_sees_of_the_machine() {
    let line = [job("a", &[])];
    let identity = |isolation: &str| {
        let mut jobs = Jobs::default();
        jobs.take(1, line[0].as_bytes()).expect("a job");
        let context = Context { isolation: isolation.to_owned(), ..context() };
        jobs.finish(&context, far()).expect("jobs").remove(0).derivation
    };
    assert_eq!(identity("none").len(), 64 + "-a.drv".len());
    assert_ne!(identity("none"), identity("sandbox"));
    assert_ne!(identity("sandbox"), identity("sandbox-network"));
}

#[test]
fn jobs_are_not_checked_past_the_time_limit() {
    let mut jobs = Jobs::default();
    jobs.take(1, job("a", &[]).as_bytes()).expect("a job");
    let late = jobs.finish(&context(), Instant::now());
    assert!(matches!(late, Err(EvaluateError::Late)), "{late:?}");
}
