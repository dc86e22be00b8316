//! Checks report the truth: the right job is blamed, every circle is named, and unreadable files are reported.

use crate::command::serve::{address, text};
use crate::support::{Ended, PROGRAM, Place, Process, run, until};
use std::path::Path;
use std::process::Command;

fn check(arguments: &[&str]) -> Ended {
    let mut command = Command::new(PROGRAM);
    command.arg("check").args(arguments).env_remove("BRIGANDINE_STATE");
    run(command)
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path")
}

/// The messages that `check --jobs --json` prints for this list.
fn messages(list: &str) -> Vec<String> {
    let place = Place::new();
    let file = place.write("jobs.toml", list);
    let ended = check(&["--json", "--jobs", path(&file)]);
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let problems = report["problems"].as_array().expect("a list");
    problems.iter().map(|p| p["message"].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn a_job_is_not_blamed_for_the_mistake_of_another() {
    let dependant = "[[job]]\nname = \"test\"\nneeds = [\"compile\"]\ncommand = \"true\"\n";
    for (wrong, told) in [
        ("name = \"compile\"", "has no `command`"),
        ("name = \"compile\"\ncomand = \"make\"", "unknown key `comand`"),
        ("name = \"compile\"\ncommand = 7", "must be a shell script or a list"),
        ("name = \"compile\"\ncommand = \"\"", "is empty"),
        ("name = \"compile\"\ncommand = \"make\"\ntimeout = \"soon\"", "is no length of time"),
        ("name = \"compile\"\ncommand = \"make\"\ncolour = 1", "unknown key `colour`"),
        ("name = \"compile\"\ncommand = \"make\"\nsystems = [\"x\"]", "is no system"),
        ("nmae = \"compile\"\ncommand = \"make\"", "unknown key `nmae`"),
        ("title = \"compile\"\ncommand = \"make\"", "unknown key `title`"),
    ] {
        for list in
            [format!("[[job]]\n{wrong}\n{dependant}"), format!("{dependant}[[job]]\n{wrong}\n")]
        {
            let messages = messages(&list);
            assert_eq!(messages.len(), 1, "{wrong:?}: {messages:?}");
            assert!(messages[0].contains(told), "{messages:?}");
        }
    }
    // An invalid name is reported, and not the jobs that need the job with that name.
    let list = dependant.replace("compile", "com pile")
        + "[[job]]\nname = \"com pile\"\ncommand = \"x\"\n";
    let messages = messages(&list);
    assert_eq!(messages.len(), 1, "{messages:?}");
    // A need that no wrong name can explain is reported as well.
    let both = format!("[[job]]\nnmae = \"x\"\ncommand = \"x\"\n{dependant}");
    let messages = self::messages(&both);
    assert!(messages.iter().any(|m| m.contains("job `test` needs `compile`, which is not there")));
}

/// A job list in which each job needs the named jobs.
fn list(jobs: &[(&str, &[&str])]) -> String {
    let job = |(name, needs): &(&str, &[&str])| {
        format!("[[job]]\nname = \"{name}\"\nneeds = {needs:?}\ncommand = \"true\"\n")
    };
    jobs.iter().map(job).collect()
}

/// The same jobs, as the lines of an evaluator.
fn lines(jobs: &[(&str, &[&str])]) -> String {
    let job = |(name, needs): &(&str, &[&str])| {
        format!(
            "{{\"job\": \"{name}\", \"derivation\": {{\"command\": \"true\"}}, \"needs\": {needs:?}}}\n"
        )
    };
    jobs.iter().map(job).collect()
}

/// The message of an evaluation whose evaluator prints `output`.
fn evaluated(output: &str) -> String {
    let place = Place::new();
    let repository = place.repository("repository");
    repository.commit(&[("output", output)]);
    let evaluator = "[specification.evaluator]\ncommand = [\"cat\", \"output\"]\n";
    place.specify(&[("spec", &repository, evaluator)]);
    let ended = place.one_shot();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    place.rows("SELECT message FROM evaluation").remove(0)
}

#[test]
fn every_circle_is_named_once_by_check_and_by_an_evaluation() {
    for (jobs, circles) in [
        (&[("a", &["a"][..])][..], &[&["a"][..]][..]),
        (&[("a", &["b"]), ("b", &["a"]), ("c", &[])], &[&["a", "b"]]),
        (
            &[
                ("a", &["b"]),
                ("b", &["a"]),
                ("c", &["d"]),
                ("d", &["e"]),
                ("e", &["c"]),
                ("f", &["a", "c"]),
            ],
            &[&["a", "b"], &["c", "d", "e"]],
        ),
        // Two circles with a common job, and two circles with two common jobs.
        (&[("a", &["b", "c"]), ("b", &["a"]), ("c", &["a"])], &[&["a", "b"], &["a", "c"]]),
        (&[("a", &["b", "c"]), ("b", &["a"]), ("c", &["b"])], &[&["a", "b"], &["a", "c", "b"]]),
    ] {
        let told = messages(&list(jobs));
        let message = evaluated(&lines(jobs));
        assert_eq!(told.len(), circles.len(), "{told:?}");
        assert_eq!(message.matches("in a circle").count(), circles.len(), "{message}");
        for circle in circles {
            let round = [circle, &circle[..1]].concat();
            let arrows = match circle {
                [one] => format!("job `{one}` needs itself"),
                _ => format!("in a circle: {}", round.join(" → ")),
            };
            assert_eq!(told.iter().filter(|told| told.ends_with(&arrows)).count(), 1, "{told:?}");
            assert!(message.contains(&round.join(" needs ")), "{message}");
        }
    }
}

#[test]
fn many_circles_are_told_up_to_a_bound_and_that_there_are_more() {
    let names: Vec<String> = (0..40).map(|n| format!("j{n:02}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let jobs: Vec<(&str, &[&str])> = all.iter().map(|name| (*name, &all[..])).collect();
    let told = messages(&list(&jobs));
    assert!(told.len() <= 10, "{}", told.len());
    assert!(told.iter().any(|message| message.contains("there are more circles")), "{told:?}");
}

#[test]
fn a_line_that_is_no_json_is_shown_bounded_and_harmless() {
    for (line, shown) in [
        ("Downloading packages", "`Downloading packages`"),
        ("warning: \u{1b}[31mred\u{1b}[0m", "`warning: \\u{1b}[31mred\\u{1b}[0m`"),
        ("{\"job\": \"a\",", "`{\"job\": \"a\",`"),
        ("[1, 2]", "`[1, 2]`"),
        ("{\"jop\": \"a\"}", "`{\"jop\": \"a\"}`"),
    ] {
        let message = evaluated(&format!("{line}\n"));
        assert!(message.contains("line 1: cannot be read"), "{message}");
        assert!(message.contains(shown), "{shown} is not in {message}");
    }
    let message = evaluated(&format!("{}\n", "x".repeat(100_000)));
    assert!(message.contains("`xxxx") && message.len() < 1000, "{} bytes", message.len());
}

#[test]
fn a_revision_fits_the_kind_of_its_repository_where_that_can_be_seen() {
    let place = Place::new();
    let repository = place.repository("repository");
    let revision = repository.jobs(&[("job", "command = \"true\"")]);
    let long = format!("{revision}{}", &revision[..24]);
    let file = |url: &str, revision: &str| {
        let text = format!(
            "[[specification]]\nname = \"spec\"\n[[specification.input]]\nurl = \"{url}\"\nrevision = \"{revision}\"\n"
        );
        place.write("spec.toml", &text)
    };
    let here = path(&repository.path).to_owned();
    let url = format!("file://{here}");
    let remote = "https://example.org/x.git";
    for (url, revision, status, told) in [
        (&*here, &revision, 0, "ok: 1 file"),
        (&*here, &long, 1, ":5:13: error: the revision of input `source` of `spec` has 64 digits"),
        (&*url, &long, 1, "have 40; `git rev-parse HEAD` in it prints one"),
        (remote, &revision, 0, "ok: 1 file"),
        (remote, &long, 0, "note: the revision of input `source` of `spec` has 64 digits"),
        (remote, &revision[..39].to_owned(), 1, "has 39 digits"),
        (remote, &long[..50].to_owned(), 1, "has 50 digits, not 40 or 64"),
    ] {
        let ended = check(&[path(&file(url, revision))]);
        assert_eq!(ended.status.code(), Some(status), "{revision}: {}", ended.stderr);
        let text = format!("{}{}", ended.stdout, ended.stderr);
        assert!(text.contains(told), "{told} is not in {text}");
    }
    let sha256 = place.path("sha256");
    let mut git = Command::new("git");
    git.args(["init", "--quiet", "--object-format=sha256"]).arg(&sha256);
    assert!(run(git).status.success());
    let sha256 = path(&sha256).to_owned();
    assert_eq!(check(&[path(&file(&sha256, &long))]).status.code(), Some(0));
    let ended = check(&[path(&file(&sha256, &revision))]);
    assert!(ended.stderr.contains("has 40 digits"), "{}", ended.stderr);
}

#[test]
fn a_file_that_is_named_twice_is_one_file() {
    let place = Place::new();
    let text = "[[specification]]\nname = \"hello\"\n[[specification.input]]\nurl = \"/srv/x\"\n";
    let hello = place.write("hello.toml", text);
    let config = place.write("server.toml", "specifications = [\"hello.toml\"]\n");
    let other = place.path(".").join("hello.toml");
    let (hello, config, other) = (path(&hello), path(&config), path(&other));
    for arguments in [&["--config", config, hello][..], &["--config", config, hello, other, hello]]
    {
        let ended = check(arguments);
        assert_eq!(ended.stdout, "ok: 2 files, 1 specification\n", "{}", ended.stderr);
    }
}

#[test]
fn a_build_that_misses_a_program_is_told_where_it_was_searched_for() {
    for sandbox in ["--sandbox=off", "--sandbox=auto"] {
        let place = Place::new();
        let repository = place.repository("repository");
        repository.jobs(&[
            ("shell", "command = \"no-such-program build\""),
            ("list", "command = [\"no-such-program\", \"build\"]"),
            ("own", "command = \"no-such-program\"\nenv = { PATH = \"/nowhere:/bin\" }"),
        ]);
        place.specify(&[("spec", &repository, "")]);
        run(place.command(&["--one-shot", sandbox]));
        for row in place.rows("SELECT job, message FROM build ORDER BY job") {
            let (job, message) = row.split_once('|').expect("two columns");
            let searched = match job {
                "own" => "the search path is `/nowhere:/bin`; as the job's `env` says",
                _ => "the search path is `/usr/local/bin:",
            };
            assert!(message.contains(searched), "{sandbox} {row}");
            assert_eq!(message.contains("BRIGANDINE_BUILD_PATH"), job != "own", "{row}");
        }
        assert!(place.build_log("shell").contains("the search path is"), "{sandbox}");
    }
}

/// Starts a server without `--replace`.
fn server(place: &Place) -> Process {
    let mut command = Command::new(PROGRAM);
    command.args([
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--interval",
        "1d",
        "--sandbox=off",
        "--state",
    ]);
    command.arg(place.state()).arg("--specifications").arg(place.path("specifications.toml"));
    Process::start(command)
}

#[test]
fn a_file_that_says_otherwise_than_what_is_stored_is_told_with_what_differs() {
    let place = Place::new();
    let repository = place.repository("repository");
    repository.jobs(&[("job", "command = \"true\"")]);
    place.specify(&[("spec", &repository, "")]);
    let first = server(&place);
    address(&first);
    first.signal("TERM");
    assert!(first.end().success());
    let other = place.repository("other");
    place.specify(&[("spec", &other, "submodules = true")]);
    let more = "name = \"spec\"\ninterval = \"2m\"\nnetwork = true";
    let written = std::fs::read_to_string(place.path("specifications.toml")).expect("a file");
    place.write("specifications.toml", &written.replacen("name = \"spec\"", more, 1));
    let second = server(&place);
    second.trace("differs=\"interval, network, input source\"");
    let address = address(&second);
    let file = place.path("specifications.toml");
    let said = format!(
        "{file} says otherwise than what is used: interval, network, input source. \
         `brigandine spec add --replace {file}` uses it",
        file = file.display()
    );
    until(|| run(place.tool(&["spec", "show", "spec"])).stdout, |shown| shown.contains(&said));
    assert!(run(place.tool(&["spec", "list"])).stderr.contains(&said));
    for page in ["/", "/jobset/spec"] {
        let page = text(&address, page);
        assert!(page.contains(&said), "{page}");
    }
    let ended = run(place.tool(&["spec", "add", path(&file)]));
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("`spec` (interval, network, input source)"), "{}", ended.stderr);
    let ended = run(place.tool(&["spec", "add", "--replace", path(&file)]));
    assert!(ended.status.success(), "{}", ended.stderr);
    let shown = || run(place.tool(&["spec", "list"])).stderr;
    until(shown, String::is_empty);
    assert!(!text(&address, "/").contains("says otherwise"));
}

#[test]
fn a_file_that_is_edited_under_the_server_is_told_on_pages_until_it_is_used() {
    let place = Place::new();
    let repository = place.repository("repository");
    repository.jobs(&[("job", "command = \"true\"")]);
    place.specify(&[("spec", &repository, "")]);
    let server = Process::start(place.command(&["--interval", "1d"]));
    let address = address(&server);
    let page = |path: &'static str| {
        let address = address.clone();
        move || text(&address, path)
    };
    let file = place.path("specifications.toml");
    let before = std::fs::read_to_string(&file).expect("a file");
    place.specify(&[("spec", &repository, "submodules = true"), ("more", &repository, "")]);
    let add = format!("`brigandine spec add {}` adds it", file.display());
    let overview = until(page("/"), |page| page.contains(&add));
    assert!(overview.contains("has what is not used yet: more."), "{overview}");
    until(page("/jobset/spec"), |page| page.contains("says otherwise than what is used: input"));
    // A mistake in the file is reported while the server runs, and not only when it is started again.
    place.write("specifications.toml", &format!("{before}oops = 1\n"));
    let overview = until(page("/"), |page| page.contains("would not start again"));
    assert!(overview.contains(": unknown key `oops`"), "{overview}");
    std::fs::write(&file, before).expect("as it was");
    until(page("/"), |page| !page.contains("specifications.toml"));
}

#[test]
fn traces_of_builds_name_the_specification() {
    let place = Place::new();
    let repository = place.repository("repository");
    repository.jobs(&[("job", "command = \"exit 3\"")]);
    place.specify(&[("spec", &repository, "")]);
    let ended = place.good_one_shot();
    for what in ["build started", "build ended", "evaluation started", "evaluation succeeded"] {
        let line = ended.stderr.lines().find(|line| line.contains(what)).expect(what);
        assert!(line.contains("specification=\"spec\""), "{line}");
    }
}
