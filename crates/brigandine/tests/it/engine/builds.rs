//! Builds: how they end, and what they leave.

use crate::command::serve::{address, text};
use crate::support::{Gate, Place, Process, processes_with, run};

fn built(jobs: &[(&str, &str)]) -> Place {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.jobs(jobs);
    place.specify(&[("sample", &repository, "")]);
    place.good_one_shot();
    place.check_consistency();
    place
}

#[test]
fn a_failed_dependency_fails_its_dependants_without_starting_them() {
    let place = built(&[
        ("base", "command = \"echo trouble; exit 7\""),
        ("middle", "command = \"true\"\nneeds = [\"base\"]"),
        ("top", "command = \"true\"\nneeds = [\"middle\"]"),
        ("other", "command = \"true\""),
    ]);
    assert_eq!(place.jobs(1), ["base|1", "middle|2", "other|0", "top|2"]);
    assert_eq!(
        place.rows("SELECT job, message, attempt FROM build WHERE status > 0 ORDER BY job"),
        ["base|exit status 7|1", "middle|needs `base`: failed|0", "top|needs `base`: failed|0"]
    );
    assert_eq!(
        place.rows("SELECT succeeded, failed, failed_dependency FROM evaluation"),
        ["1|1|2"]
    );
    assert_eq!(place.build_log("base"), "trouble\n");
}

#[test]
fn builds_that_take_too_long_or_say_nothing_are_ended_with_their_children() {
    let mark = format!("MARK=limits-{}", std::process::id());
    let (name, value) = mark.split_once('=').expect("a pair");
    let environment = format!("env = {{ {name} = \"{value}\" }}");
    let place = built(&[
        (
            "slow",
            &format!(
                "command = \"sleep 1000 & while :; do echo tick; sleep 0.1; done\"\n\
                 timeout = \"1s\"\n{environment}"
            ),
        ),
        ("silent", &format!("command = \"sleep 1000\"\nmax-silent = \"1s\"\n{environment}")),
        (
            "runaway",
            &format!(
                "command = \"\"\"mkfifo f; setsid sh -c 'echo left > f; exec sleep 1000' &\n\
                 read line < f; echo $line\"\"\"\n{environment}"
            ),
        ),
    ]);
    assert_eq!(
        place.rows("SELECT job, status, message FROM build ORDER BY job"),
        ["runaway|0|", "silent|3|printed nothing for 1 s", "slow|3|took longer than 1 s"]
    );
    assert!(place.build_log("slow").ends_with("\n[brigandine: took longer than 1 s]\n"));
    assert!(place.build_log("runaway").contains("[brigandine: 1 processes that outlived"));
    assert_eq!(processes_with(&mark), 0, "nothing outlives its build");
}

#[test]
fn a_build_has_a_clean_directory_and_a_clean_environment() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.jobs(&[(
        "one",
        "command = \"env | cut -d= -f1 | sort; echo; ls -A; touch left; ls -A ..; id -u >/dev/null\"\n\
         env = { OWN = \"1\", HOME = \"/nowhere\" }",
    )]);
    place.specify(&[("sample", &repository, "")]);
    let mut command = place.command(&["--one-shot"]);
    command.env("SECRET_TOKEN", "must not be seen");
    assert!(run(command).status.success());
    let log = place.build_log("one");
    let (environment, files) = log.split_once("\n\n").expect("two parts");
    let names: Vec<&str> = environment.lines().filter(|name| *name != "_").collect();
    assert_eq!(
        names,
        [
            "BRIGANDINE",
            "BRIGANDINE_ATTEMPT",
            "BRIGANDINE_BUILD",
            "BRIGANDINE_INPUTS",
            "BRIGANDINE_NAME",
            "BRIGANDINE_NEEDS",
            "BRIGANDINE_OUT",
            "BRIGANDINE_RUN",
            "BRIGANDINE_STATE_ID",
            "BRIGANDINE_SYSTEM",
            "CI",
            "HOME",
            "LANG",
            "OWN",
            "PATH",
            "PWD",
            "TMPDIR",
            "TZ"
        ]
    );
    assert_eq!(files, "brigandine.toml\nbuild\nout\ntmp\n");
    let left = std::fs::read_dir(place.state().join("work")).expect("work").count();
    assert_eq!(left, 0, "build directories are removed");
}

#[test]
fn products_are_collected_and_a_missing_one_fails_the_build() {
    let place = built(&[
        (
            "release",
            "command = \"mkdir dist; echo tar > dist/it.tar; echo no > dist/it.log\"\n\
             products = [\"dist/*.tar\"]",
        ),
        ("use", "command = \"cat $BRIGANDINE_NEEDS/release/dist/it.tar\"\nneeds = [\"release\"]"),
        ("forgot", "command = \"true\"\nproducts = [\"dist/*.tar\"]"),
    ]);
    assert_eq!(place.jobs(1), ["forgot|3", "release|0", "use|0"]);
    assert_eq!(place.build_log("use"), "tar\n");
    let rows = place.rows("SELECT name, bytes, checksum, path FROM product");
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    let fields: Vec<&str> = row.split('|').collect();
    assert_eq!(fields[..2], ["dist/it.tar", "4"]);
    assert_eq!(fields[2], "cf5f23f8c5412fac44f7496ff6cc0b899c5b262e1522d4088cc8672362879b83");
    let stored = std::fs::read_to_string(place.state().join(fields[3])).expect("the product");
    assert_eq!(stored, "tar\n");
}

#[test]
fn builds_start_by_priority_then_by_name() {
    let place = Place::new();
    let repository = place.repository("sample");
    let order = place.path("order");
    let say = format!("command = \"echo $BRIGANDINE_NAME >> {}\"", order.display());
    let with = |priority: i32| format!("{say}\npriority = {priority}");
    repository.jobs(&[("low", &with(-1)), ("normal", &say), ("high", &with(9))]);
    place.specify(&[("sample", &repository, "")]);
    let ended = run(place.command_at("1", &["--one-shot"]));
    assert!(ended.status.success(), "{}", ended.stderr);
    assert_eq!(std::fs::read_to_string(order).expect("they ran"), "high\nnormal\nlow\n");
}

#[test]
fn a_stopped_server_cuts_its_builds_and_the_next_one_builds_them() {
    let place = Place::new();
    let repository = place.repository("sample");
    let (running, go) = (Gate::new(place.path("running")), place.path("go"));
    let mark = format!("MARK=cut-{}", std::process::id());
    let (name, value) = mark.split_once('=').expect("a pair");
    // The first attempt hangs. A later attempt finds the file `go` and ends.
    let command = format!(
        "command = \"test -e {0} || {{ echo it begins; echo up > {1}; sleep 1000; }}\"\n\
         env = {{ {name} = \"{value}\" }}",
        go.display(),
        running.path().display()
    );
    repository.jobs(&[("one", &command), ("after", "command = \"true\"\nneeds = [\"one\"]")]);
    place.specify(&[("sample", &repository, "")]);
    let server = Process::start(place.command(&[]));
    assert_eq!(running.wait(), "up\n");
    server.signal("TERM");
    assert!(server.end().success(), "an orderly end");
    assert_eq!(processes_with(&mark), 0, "the build was cut");
    assert_eq!(
        place.rows("SELECT job, status, attempt, losses, message FROM build ORDER BY job"),
        ["after|-2|0|0|", "one|-2|1|0|the server was stopped"]
    );
    assert_eq!(place.rows("SELECT stopped FROM server"), ["1"]);
    place.check_consistency();
    let log = |id: &str| run(place.tool(&["log", id]));
    let id = place.rows("SELECT id FROM build WHERE job = 'one'").remove(0);
    let why = log(&id).stderr;
    assert!(why.contains("It waits to be started again."), "{why}");
    let kept = run(place.tool(&["log", &id, "--attempt", "1"]));
    assert_eq!(
        kept.stdout, "it begins\n\n[brigandine: the server was stopped]\n",
        "{}",
        kept.stderr
    );
    std::fs::write(go, "").expect("a file");
    place.good_one_shot();
    assert_eq!(place.jobs(1), ["after|0", "one|0"]);
    assert_eq!(
        place.rows(
            "SELECT number, a.status FROM attempt AS a JOIN build ON id = build_id
             WHERE job = 'one' ORDER BY number"
        ),
        ["1|-2", "2|0"]
    );
}

#[test]
fn a_signal_to_all_processes_of_the_server_lets_no_build_fail() {
    for (options, last) in
        [(&[][..], false), (&[][..], true), (&["--drain"][..], false), (&["--drain"][..], true)]
    {
        let place = Place::new();
        let repository = place.repository("sample");
        let running = Gate::new(place.path("running"));
        let command = format!("command = \"echo up > {}; sleep 1000\"", running.path().display());
        repository.jobs(&[("one", &command), ("after", "command = \"true\"\nneeds = [\"one\"]")]);
        place.specify(&[("sample", &repository, "")]);
        let server = Process::start(place.command(options));
        assert_eq!(running.wait(), "up\n");
        server.signal_all("TERM", last);
        assert!(server.end().success(), "an orderly end");
        assert_eq!(
            place.rows("SELECT job, status, losses, message FROM build ORDER BY job"),
            ["after|-2|0|", "one|-2|0|the server was stopped"],
            "{options:?} {last}"
        );
        place.check_consistency();
    }
}

#[test]
fn draining_lets_running_builds_end_and_starts_no_others() {
    let place = Place::new();
    let repository = place.repository("sample");
    let (running, go) = (Gate::new(place.path("running")), Gate::new(place.path("go")));
    let command = format!(
        "command = \"echo up > {}; read line < {}; echo $line\"",
        running.path().display(),
        go.path().display()
    );
    repository.jobs(&[("one", &command), ("after", "command = \"true\"\nneeds = [\"one\"]")]);
    place.specify(&[("sample", &repository, "")]);
    let server = Process::start(place.command(&["--drain"]));
    let address = address(&server);
    assert_eq!(running.wait(), "up\n");
    server.signal("TERM");
    server.trace("no build is started any more");
    // Everything that only answers goes on.
    let ready = text(&address, "/readyz");
    assert!(ready.contains(" 503 "), "{ready}");
    assert!(ready.ends_with("not ready\nThe server ends: 1 build still runs.\n"), "{ready}");
    assert!(text(&address, "/healthz").contains("200 OK"));
    assert!(text(&address, "/metrics").contains("\nbrigandine_ready 0\n"));
    let page = text(&address, "/build/1");
    assert!(
        page.contains("200 OK") && page.contains("The server ends: what runs may end"),
        "{page}"
    );
    let status = run(place.tool(&["status"]));
    assert_eq!(status.status.code(), Some(1));
    assert!(status.stdout.contains("The server ends: 1 build still runs."), "{}", status.stdout);
    // Nothing is looked at or evaluated, whatever a command asks for.
    repository.jobs(&[("two", "command = \"true\"")]);
    let evaluate = Process::start(place.tool(&["evaluate", "sample"]));
    evaluate.trace("the server is waited for: The server ends: 1 build still runs.");
    go.open();
    assert!(server.end().success());
    assert_eq!(evaluate.end().code(), Some(1), "the next server does it");
    assert_eq!(place.rows("SELECT id FROM evaluation"), ["1"]);
    assert_eq!(place.jobs(1), ["after|-2", "one|0"]);
    assert_eq!(place.build_log("one"), "go\n");
}

/// A server that drains, and two builds that never end.
fn draining() -> (Place, Process) {
    let place = Place::new();
    let repository = place.repository("sample");
    let gates = [Gate::new(place.path("one")), Gate::new(place.path("two"))];
    let command =
        |gate: &Gate| format!("command = \"echo up > {}; sleep 1000\"", gate.path().display());
    repository.jobs(&[("one", &command(&gates[0])), ("two", &command(&gates[1]))]);
    place.specify(&[("sample", &repository, "")]);
    let server = Process::start(place.command(&["--drain"]));
    for gate in gates {
        assert_eq!(gate.wait(), "up\n");
    }
    server.signal("TERM");
    server.trace("no build is started any more");
    (place, server)
}

#[test]
fn builds_can_be_canceled_while_the_server_waits_for_their_ends() {
    let (place, server) = draining();
    for build in ["1", "2"] {
        let canceled = run(place.tool(&["cancel", build]));
        assert!(canceled.status.success(), "{}{}", canceled.stdout, canceled.stderr);
    }
    assert!(server.end().success(), "it ends when no build runs");
    assert_eq!(place.jobs(1), ["one|4", "two|4"]);
    place.check_consistency();
}

#[test]
fn a_second_signal_cuts_the_builds_for_which_a_server_waits() {
    let (place, server) = draining();
    server.signal("TERM");
    server.trace("again: running builds are cut");
    assert!(server.end().success());
    assert_eq!(place.jobs(1), ["one|-2", "two|-2"]);
    place.check_consistency();
}

#[test]
fn a_build_log_is_followed_while_the_build_runs() {
    let place = Place::new();
    let repository = place.repository("sample");
    let (running, go) = (Gate::new(place.path("running")), Gate::new(place.path("go")));
    let command = format!(
        "command = \"echo first; echo up > {}; read line < {}; echo then $line\"",
        running.path().display(),
        go.path().display()
    );
    repository.jobs(&[("one", &command)]);
    place.specify(&[("sample", &repository, "")]);
    let server = Process::start(place.command(&[]));
    assert_eq!(running.wait(), "up\n");
    let follower = Process::start(place.tool(&["log", "1", "--follow"]));
    assert_eq!(follower.line(), "first");
    go.open();
    assert_eq!(follower.line(), "then go");
    assert_eq!(follower.rest(), [""; 0], "it ends with the build");
    assert!(follower.end().success());
    server.signal("TERM");
    assert!(server.end().success());
}

#[test]
fn a_chatty_build_is_cut_at_the_log_limit_and_goes_on() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository
        .jobs(&[("one", "command = \"yes | head -n 100000; echo done > $BRIGANDINE_OUT/it\"")]);
    place.specify(&[("sample", &repository, "")]);
    place.write("config.toml", "[limits]\nbuild-log = \"64 KiB\"\n");
    place.good_one_shot();
    assert_eq!(place.jobs(1), ["one|0"]);
    let log = place.build_log("one");
    assert!(log.ends_with("\n[brigandine: the log is cut here, at its limit of 65536 bytes]\n"));
    assert!(log.len() < 65_536 + 200);
}

#[test]
fn two_servers_cannot_share_a_state_directory() {
    let place = Place::new();
    let repository = place.repository("sample");
    let running = Gate::new(place.path("running"));
    let command = format!("command = \"echo up > {}; sleep 1000\"", running.path().display());
    repository.jobs(&[("one", &command)]);
    place.specify(&[("sample", &repository, "")]);
    let server = Process::start(place.command(&[]));
    assert_eq!(running.wait(), "up\n");
    let second = place.one_shot();
    assert_eq!(second.status.code(), Some(1));
    assert!(
        second.stderr.contains("another brigandine serves the state directory"),
        "{}",
        second.stderr
    );
    assert_eq!(place.rows("SELECT status FROM build"), ["-1"], "the first one goes on");
    server.signal("TERM");
    assert!(server.end().success());
}
