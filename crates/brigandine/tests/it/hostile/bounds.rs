//! Texts from outside: very long ones, and texts with control characters or forged trace lines.

use crate::support::{Place, run};
use std::process::Command;

const FORGED: &str = "2026-01-01T00:00:00Z  INFO brigandine: forged";

#[test]
fn what_an_evaluator_says_is_bounded_and_forges_no_trace_line() {
    let place = Place::new();
    let repository = place.repository("sample");
    let long = "x".repeat(900_000);
    let error = |job: &str| serde_json::json!({"error": {"job": job, "message": format!("\n{FORGED}\u{1b}[2J{long}")}});
    let mut lines: Vec<String> =
        (0..12).map(|number| error(&format!("b{number}")).to_string()).collect();
    let job = r#"{"job": "one", "derivation": {"command": "true"}}"#;
    lines.push(job.to_owned());
    let whole = serde_json::json!({"error": {"message": format!("a\n{FORGED}\u{1b}[2J{long}")}});
    repository.commit(&[("lines", &lines.join("\n")), ("whole", &whole.to_string())]);
    let evaluator = |script: &str| {
        format!("[specification.evaluator]\ncommand = [\"sh\", \"-c\", \"{script}\"]")
    };
    let forged = FORGED.replace('Z', "Z ");
    place.specify(&[
        ("some", &repository, &evaluator("cat lines")),
        ("all", &repository, &evaluator("cat whole")),
        (
            "words",
            &repository,
            &evaluator(&format!("echo '{forged}' >&2; head -c 900000 lines >&2; exit 1")),
        ),
        (
            "system",
            &repository,
            &evaluator(&format!(
                "tail -n 1 lines | sed 's/.$/, \\\"system\\\": \\\"{}\\\"}}/'",
                "y".repeat(3000)
            )),
        ),
    ]);
    let ended = run(place.command(&["--one-shot"]));
    assert_eq!(ended.status.code(), Some(1));
    let rows = place.rows(
        "SELECT s.name, e.status, length(CAST(e.message AS BLOB)), e.message FROM evaluation AS e
         JOIN specification AS s ON s.id = specification_id ORDER BY s.name",
    );
    assert_eq!(rows.len(), 4);
    for row in &rows {
        assert!(row.len() < 4600, "{row:.100}");
        assert!(!row.contains(char::is_control), "{row:.200}");
    }
    assert!(rows[0].starts_with("all|1|") && rows[0].ends_with("… (cut)"), "{:.100}", rows[0]);
    assert!(
        rows[1].starts_with("some|0|") && rows[1].contains("12 jobs could not be"),
        "{:.100}",
        rows[1]
    );
    assert!(
        rows[2].starts_with("system|1|") && rows[2].contains("is no system"),
        "{:.200}",
        rows[2]
    );
    for line in ended.stderr.lines() {
        assert!(!line.trim_start().starts_with("2026-01-01"), "forged: {line:.200}");
        assert!(line.len() < 10_000 && !line.contains('\u{1b}'), "{line:.200}");
    }
}

#[test]
fn authors_and_subjects_are_bounded_and_plain() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.jobs(&[("one", "command = \"true\"")]);
    let name = format!("A\u{1b}[31m\u{202e}{}", "é".repeat(5000));
    let subject = format!("S\u{7}\u{2028}{FORGED} {}", "日".repeat(5000));
    let done = Command::new("git")
        .arg("-C")
        .arg(&repository.path)
        .args(["-c", &format!("user.name={name}"), "-c", "user.email=a@b"])
        .args(["commit", "--quiet", "--allow-empty", "--cleanup=verbatim", "--message", &subject])
        .status();
    assert!(done.expect("git").success());
    place.specify(&[("sample", &repository, "")]);
    place.good_one_shot();
    let row = place.rows("SELECT author, subject FROM checkout").remove(0);
    let (author, subject) = row.split_once('|').expect("two columns");
    assert!(author.starts_with("A\\u{1b}[31m\\u{202e}é") && author.len() <= 200, "{author}");
    assert!(subject.starts_with("S\\u{7}; 2026") && subject.len() <= 400, "{subject}");
    assert!(author.ends_with("… (cut)") && subject.ends_with("… (cut)"));
}

#[test]
fn what_git_says_forges_no_trace_line() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.jobs(&[("one", "command = \"true\"")]);
    place.specify(&[("sample", &repository, "")]);
    let hook = place.path("git");
    std::fs::create_dir(&hook).expect("a folder");
    // git prints what a host says on its standard error.
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *fetch*) printf 'fatal: \\033[2J\\r{FORGED}\\n{FORGED}\\n' >&2; exit 1;; esac\n\
         exec \"$REAL_GIT\" \"$@\"\n"
    );
    let fake = hook.join("git");
    std::fs::write(&fake, script).expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&fake, mode).expect("a mode");
    let real = Command::new("sh").args(["-c", "command -v git"]).output().expect("sh").stdout;
    let real = String::from_utf8(real).expect("text");
    // The path of the real git is written into the script, because the server passes on only a few variables.
    let text = std::fs::read_to_string(&fake).expect("read").replace("$REAL_GIT", real.trim());
    std::fs::write(&fake, text).expect("written");
    let path = std::env::var("PATH").expect("a path");
    let mut command = place.command(&["--one-shot"]);
    command.env("PATH", format!("{}:{path}", hook.display()));
    let ended = run(command);
    assert_eq!(ended.status.code(), Some(1));
    let told = place.rows("SELECT look_error FROM specification").remove(0);
    assert!(told.contains("fatal: ") && told.contains("forged"), "{told}");
    assert!(!told.contains(char::is_control), "{told:?}");
    for line in ended.stderr.lines() {
        assert!(!line.trim_start().starts_with("2026-01-01"), "forged: {line}");
    }
}

#[test]
fn a_revision_of_more_files_than_can_be_is_refused() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.jobs(&[("one", "command = \"true\"")]);
    // Nine levels of trees, each with ten names for the tree below: a few kilobytes stand for a thousand million files.
    let script = "blob=$(git hash-object -w brigandine.toml); kind='100644 blob' tree=$blob
        for level in 1 2 3 4 5 6 7 8 9; do
            tree=$(for i in 0 1 2 3 4 5 6 7 8 9; do printf '%s %s\\tn%s\\n' \"$kind\" $tree $i; done | git mktree)
            kind='040000 tree'
        done
        root=$(printf '100644 blob %s\\tbrigandine.toml\\n040000 tree %s\\tmany\\n' $blob $tree | git mktree)
        git -c user.name=a -c user.email=a@b commit-tree -m many $root > ../revision
        git update-ref refs/heads/main $(cat ../revision)";
    let done = Command::new("sh").args(["-ec", script]).current_dir(&repository.path).status();
    assert!(done.expect("sh").success());
    place.specify(&[("sample", &repository, "")]);
    let ended = run(place.command(&["--one-shot"]));
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    let message = place.rows("SELECT message FROM evaluation").remove(0);
    assert!(message.contains("more than 1000000 files"), "{message}");
}
