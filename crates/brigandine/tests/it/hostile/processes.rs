//! Processes that try to outlive the build or the evaluator that started them.

use super::{SANDBOXES, commands, evaluator, sandbox, unique};
use crate::support::{Place, Process, alive, run, until};

/// Ways to leave the parent process. `$N` is replaced by the number of seconds to sleep.
const ESCAPES: [(&str, &str); 10] = [
    ("background", "sleep $N &"),
    ("session", "setsid sleep $N >/dev/null 2>&1 &"),
    ("environment", "env -i setsid sleep $N >/dev/null 2>&1 &"),
    ("double", "(setsid sh -c '(sleep $N &)' &) >/dev/null 2>&1"),
    ("deaf", "(trap '' TERM HUP INT; exec sleep $N) >/dev/null 2>&1 &"),
    ("nohup", "nohup sleep $N >/dev/null 2>&1 </dev/null &"),
    ("holds", "setsid sleep $N 2>&1 &"),
    ("stopped", "(sh -c 'kill -STOP $$; sleep $N' &) >/dev/null 2>&1"),
    ("many", "for i in 1 2 3 4 5 6 7 8 9; do (env -i setsid sleep $N &) & done >/dev/null 2>&1"),
    // Each process starts the next one and ends, so every look at `/proc` finds another process.
    (
        "hopping",
        "echo 'test $2 -gt 0 && sh hop $1 $(($2 - 1)) &' > hop; setsid sh hop $N 20000 >/dev/null 2>&1 &",
    ),
];

/// Waits until no process has this text in its command line.
fn wait_until_gone(text: &str) {
    until(|| alive(text), |count| *count == 0);
}

/// Waits until `count` builds fulfil the SQL condition `which`.
fn wait_for_builds(place: &Place, which: &str, count: &str) {
    let ended = format!("SELECT count(*) FROM build WHERE {which}");
    until(
        || (place.rows(&ended), place.rows("SELECT job, status FROM build")),
        |(it, _)| *it == [count],
    );
}

#[test]
fn nothing_that_a_build_starts_outlives_it() {
    for (place_number, kind) in SANDBOXES.into_iter().enumerate() {
        let place = Place::new();
        let repository = place.repository("sample");
        let marks: Vec<String> =
            (0..ESCAPES.len()).map(|n| unique(100 * place_number + n)).collect();
        let scripts: Vec<(&str, String)> = ESCAPES
            .iter()
            .zip(&marks)
            .map(|((name, script), mark)| {
                (*name, format!("{}\necho up", script.replace("$N", mark)))
            })
            .collect();
        let jobs: Vec<(&str, &str)> = scripts.iter().map(|(n, s)| (*n, s.as_str())).collect();
        commands(&repository, &jobs);
        place.specify(&[("sample", &repository, "")]);
        let server = Process::start(place.command(&[&sandbox(kind)]));
        server.trace("the server runs");
        // The server still runs while the processes are looked for, so they are not gone because of its end. The test
        // reads the database from outside of the server.
        wait_for_builds(&place, "status = 0", "10");
        for ((name, _), mark) in ESCAPES.iter().zip(&marks) {
            assert_eq!(alive(mark), 0, "{kind} {name}");
            let log = place.build_log(name);
            assert!(log.starts_with("up\n"), "{kind} {name}: {log}");
            assert!(kind == "require" || log.contains("that outlived the build"), "{name}: {log}");
        }
        server.signal("TERM");
        assert!(server.end().success());
    }
}

#[test]
fn nothing_that_an_evaluator_starts_outlives_it() {
    for (place_number, kind) in SANDBOXES.into_iter().enumerate() {
        for (number, (name, script)) in ESCAPES.into_iter().enumerate() {
            let place = Place::new();
            let repository = place.repository("sample");
            let mark = unique(300 + 100 * place_number + number);
            evaluator(&place, &repository, &script.replace("$N", &mark));
            let server = Process::start(place.command(&[&sandbox(kind)]));
            server.trace("the server runs");
            let ended = "SELECT count(*) FROM evaluation WHERE status = 0";
            until(|| (name, place.rows(ended)), |(_, count)| *count == ["1"]);
            assert_eq!(alive(&mark), 0, "{kind} {name}");
        }
    }
}

#[test]
fn an_output_is_what_it_was_when_its_build_ended() {
    for (place_number, kind) in SANDBOXES.into_iter().enumerate() {
        let place = Place::new();
        let repository = place.repository("sample");
        let mark = format!("BACKDOOR{}", unique(900 + place_number));
        let script = format!(
            "echo good > $BRIGANDINE_OUT/g\nexec 7>>$BRIGANDINE_OUT/g\n\
             env -i setsid sh -c 'while :; do echo {mark} >&7; done' >/dev/null 2>&1 &\nexit 0"
        );
        commands(&repository, &[("poisoned", &script)]);
        place.specify(&[("sample", &repository, "")]);
        let ended = run(place.command(&["--one-shot", &sandbox(kind)]));
        assert!(ended.status.success(), "{}", ended.stderr);
        let path = &place.rows("SELECT path FROM output")[0];
        let digest = path.trim_start_matches("outputs/");
        let stored = place.state().join("outputs").join(digest).join("g");
        let first = std::fs::metadata(&stored).expect("an output").len();
        assert_eq!(alive(&mark), 0, "{kind}");
        assert_eq!(std::fs::metadata(&stored).expect("an output").len(), first, "{kind}");
    }
}

#[test]
fn whatever_runs_ends_with_a_server_that_is_killed() {
    for (place_number, kind) in SANDBOXES.into_iter().enumerate() {
        let place = Place::new();
        let repository = place.repository("sample");
        let mark = unique(500 + place_number);
        let script: String =
            ESCAPES.iter().map(|(_, script)| script.replace("$N", &mark) + "\n").collect();
        let script = format!("{script}echo up\nsleep {mark}");
        commands(&repository, &[("job", &script)]);
        place.specify(&[("sample", &repository, "")]);
        let mut server = Process::start(place.command(&[&sandbox(kind)]));
        server.trace("the server runs");
        until(|| alive(&mark), |count| *count >= ESCAPES.len() + 8);
        server.child.kill().expect("kill -9");
        server.child.wait().expect("its status");
        wait_until_gone(&mark);
        let again = Process::start(place.command(&[&sandbox(kind)]));
        again.trace("the server runs");
    }
}

/// Whether this machine allows a namespace for each program, with the server's rights or with those of a user.
fn has_namespaces() -> bool {
    [&["--pid", "--mount"][..], &["--user", "--pid", "--mount"]].iter().any(|kinds| {
        let mut unshare = std::process::Command::new("unshare");
        unshare.args(*kinds).args(["--fork", "--mount-proc", "true"]);
        unshare.stderr(std::process::Stdio::null());
        unshare.status().is_ok_and(|status| status.success())
    })
}

#[test]
fn a_build_cannot_kill_its_supervisors_or_fails_with_them_and_nothing_of_it_lives_on() {
    let place = Place::new();
    let repository = place.repository("sample");
    let (first, second) = (unique(600), unique(601));
    let away = |mark: &str| format!("setsid sleep {mark} >/dev/null 2>&1 &");
    // The second job also kills the process above its supervisor: the fork server, which is the parent of all
    // supervisors.
    let up = "$(sed 's/.*) . //' /proc/$PPID/stat | cut -d' ' -f1)";
    let jobs = [
        ("first", format!("{}\nkill -9 $PPID; echo on", away(&first))),
        ("second", format!("{}\nkill -9 {up} $PPID; echo on", away(&second))),
        ("third", "true".to_owned()),
    ];
    let jobs: Vec<(&str, &str)> =
        jobs.iter().map(|(name, script)| (*name, script.as_str())).collect();
    commands(&repository, &jobs);
    place.specify(&[("sample", &repository, "")]);
    let server = Process::start(place.command_at("1", &[&sandbox("off")]));
    server.trace("the server runs");
    wait_for_builds(&place, "status >= 0", "3");
    wait_until_gone(&first);
    wait_until_gone(&second);
    if has_namespaces() {
        // In a namespace, a signal to the first process has no effect. The parent of that process has the number 0
        // there, and a signal to 0 goes to the process group of the sender.
        assert_eq!(place.jobs(1), ["first|0", "second|1", "third|0"]);
    } else {
        assert_eq!(place.jobs(1), ["first|3", "second|3", "third|0"]);
    }
    server.signal("TERM");
    assert!(server.end().success());
}

/// If a supervisor is stopped or traced, neither limits nor a cancel reach the program.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_build_that_stops_its_supervisor_ends_with_it() {
    let place = Place::new();
    let repository = place.repository("sample");
    let (traces, stops) = (unique(610), unique(611));
    // 16 is PTRACE_ATTACH. The tracer must stay alive, because the kernel resumes the traced process when the tracer
    // ends.
    let trace =
        format!("exec perl -e 'syscall(101, 16, getppid(), 0, 0); exec \"sleep\", \"{traces}\"'");
    let stop = format!("kill -STOP $PPID; exec sleep {stops}");
    commands(&repository, &[("traces", &trace), ("stops", &stop)]);
    place.specify(&[("sample", &repository, "")]);
    place.write("config.toml", "[limits]\nbuild-time = \"10s\"\nbuild-grace = \"1s\"\n");
    let server = Process::start(place.command(&[&sandbox("off")]));
    server.trace("the server runs");
    wait_for_builds(&place, "status > 0", "2");
    wait_until_gone(&traces);
    wait_until_gone(&stops);
    server.signal("TERM");
    assert!(server.end().success());
}

#[test]
fn a_request_to_end_reaches_the_job_and_its_grace_is_kept() {
    for (place_number, kind) in SANDBOXES.into_iter().enumerate() {
        let place = Place::new();
        let repository = place.repository("sample");
        let mark = unique(700 + place_number);
        let list = format!(
            "[[job]]\nname = \"polite\"\ntimeout = \"2s\"\nsources = [\"none\"]\n\
             command = \"trap 'echo asked; exit 0' TERM; sleep {mark} & wait\"\n\
             [[job]]\nname = \"deaf\"\ntimeout = \"2s\"\nsources = [\"none\"]\n\
             command = \"trap '' TERM; sleep {mark}\"\n"
        );
        repository.commit(&[("brigandine.toml", &list), ("none", "")]);
        place.write("config.toml", "[limits]\nbuild-grace = \"2s\"\n");
        place.specify(&[("sample", &repository, "")]);
        let ended = run(place.command(&["--one-shot", &sandbox(kind)]));
        ended.check_evaluated();
        assert_eq!(
            place.build_log("polite"),
            "asked\n\n[brigandine: took longer than 2 s]\n",
            "{kind}"
        );
        assert_eq!(place.build_log("deaf"), "\n[brigandine: took longer than 2 s]\n", "{kind}");
        assert_eq!(alive(&mark), 0, "{kind}");
    }
}

#[test]
fn a_canceled_build_of_the_sandbox_may_clean_up() {
    let place = Place::new();
    let repository = place.repository("sample");
    let script = format!("trap 'echo cleaned; exit 3' TERM; echo up; sleep {} & wait", unique(800));
    commands(&repository, &[("job", &script)]);
    place.specify(&[("sample", &repository, "")]);
    let server = Process::start(place.command(&[&sandbox("require")]));
    server.trace("the server runs");
    // Waits for `sleep` itself. The command lines of bubblewrap and of the shell contain the same words earlier.
    until(|| alive(&format!("sleep\0{}", unique(800))), |count| *count > 0);
    let canceled = run(place.tool(&["cancel", "1"]));
    assert!(canceled.status.success(), "{}", canceled.stderr);
    wait_for_builds(&place, "status = 4", "1");
    assert_eq!(place.build_log("job"), "up\ncleaned\n\n[brigandine: canceled on request]\n");
}
