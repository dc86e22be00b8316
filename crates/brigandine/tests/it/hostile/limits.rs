//! Builds that exceed their limits.

use super::{SANDBOXES, evaluator, sandbox, unique};
use crate::support::{Place, alive, run};

/// The name of each job begins with the limit that it exceeds. `$N` is replaced by the number of seconds to sleep.
const GREEDY: [(&str, &str); 12] = [
    // `tail` keeps a line in memory until it has seen the line's end.
    ("memory-one", "(head -c 400000000 /dev/zero; sleep $N) | tail"),
    (
        "memory-many",
        "for i in 1 2 3 4 5 6; do (head -c 80000000 /dev/zero; exec sleep $N) | tail & done; wait",
    ),
    (
        "memory-shared",
        "cc -x c -o it - <<E\n#include <sys/mman.h>\n#include <string.h>\n#include <unistd.h>\n\
         int main() { size_t n = 400 << 20; memset(mmap(0, n, 3, 0x21, -1, 0), 1, n); sleep($N); }\nE\n./it",
    ),
    ("processes-many", "for i in $(seq 100); do sleep $N & done; wait"),
    ("processes-away", "for i in $(seq 100); do (env -i setsid sleep $N &) & done; sleep $N"),
    (
        "processes-threads",
        "cc -pthread -x c -o it - <<E\n#include <pthread.h>\n#include <unistd.h>\n\
         void *f(void *x) { sleep($N); return x; }\n\
         int main() { pthread_t t; for (int i = 0; i < 100; i++) pthread_create(&t, 0, f, 0); f(0); }\nE\n./it",
    ),
    ("file-write", "head -c 40000000 /dev/zero > big"),
    ("file-deaf", "(trap '' XFSZ; head -c 40000000 /dev/zero > big || exit 7)"),
    ("file-output", "head -c 40000000 /dev/zero > $BRIGANDINE_OUT/big"),
    ("disk-many", "for i in 1 2 3 4 5 6 7; do head -c 16000000 /dev/urandom > f$i; done; sleep $N"),
    // These files are in a folder whose path is longer than the kernel accepts.
    (
        "disk-deep",
        "cc -x c -o it - <<E\n#include <sys/stat.h>\n#include <unistd.h>\n\
         int main() { char name[251]; for (int i = 0; i < 250; i++) name[i] = 'n'; name[250] = 0;\n\
         for (int i = 0; i < 40; i++) if (mkdir(name, 0755) || chdir(name)) return 1;\n\
         return execl(\"/bin/sh\", \"sh\", \"-c\", \"for i in 1 2 3 4 5 6 7; do head -c 16000000 /dev/urandom > f\\$i; done; sleep $N\", 0); }\nE\n./it",
    ),
    (
        "disk-removed",
        "for i in 1 2 3 4 5 6 7; do (head -c 16000000 /dev/urandom >&3; sleep $N) 3>f & sleep 0.2; rm f; done; sleep $N",
    ),
];

const LIMITS: &str = "[limits]\nbuild-memory = \"256 MiB\"\nbuild-processes = 60\n\
                      build-file = \"32 MiB\"\nbuild-disk = \"96 MiB\"\nbuild-grace = \"1s\"\n";

#[test]
fn a_build_that_takes_more_than_its_limit_fails_with_the_limits_name() {
    for (place_number, kind) in SANDBOXES.into_iter().enumerate() {
        let place = Place::new();
        let repository = place.repository("sample");
        place.write("config.toml", LIMITS);
        let mark = unique(400 + place_number);
        let list: String = GREEDY
            .iter()
            .map(|(name, script)| {
                let script = serde_json::Value::from(script.replace("$N", &mark));
                format!("[[job]]\nname = \"{name}\"\ncommand = {script}\nsources = [\"none\"]\n")
            })
            .collect();
        let modest = "[[job]]\nname = \"modest\"\nsources = [\"none\"]\n\
                      command = \"for i in $(seq 20); do sleep 1 & done; head -c 16000000 /dev/zero > f; wait\"\n";
        repository.commit(&[("brigandine.toml", &(list + modest)), ("none", "")]);
        place.specify(&[("sample", &repository, "")]);
        let ended = run(place.command(&["--one-shot", &sandbox(kind)]));
        ended.check_evaluated();
        for (name, _) in GREEDY {
            let limit = name.split('-').next().expect("a limit");
            let rows =
                place.rows(&format!("SELECT status, message FROM build WHERE job = '{name}'"));
            assert!(
                rows[0].starts_with("3|") && rows[0].contains(&format!("`build-{limit}`")),
                "{kind} {name}: {rows:?}\n{}",
                place.build_log(name)
            );
            let log = place.build_log(name);
            assert!(log.contains(&format!("`build-{limit}`")), "{kind} {name}: {log}");
        }
        assert_eq!(place.rows("SELECT status FROM build WHERE job = 'modest'"), ["0"], "{kind}");
        assert_eq!(alive(&mark), 0, "{kind}");
        let left = std::fs::read_dir(place.state().join("work")).expect("work").count();
        assert_eq!(left, 0, "{kind}");
    }
}

#[test]
fn a_fork_bomb_ends_and_the_server_goes_on() {
    // This fork bomb bounds itself, in case the limit does not work: 511 shells, each with a `sleep`. The first shell
    // forks only once: a shell ends when it cannot fork, and if the first shell ended, the build would end without the
    // limit.
    for kind in SANDBOXES {
        let place = Place::new();
        let repository = place.repository("sample");
        place.write("config.toml", LIMITS);
        let list = "[[job]]\nname = \"bomb\"\nsources = [\"none\"]\n\
                    command = \"\"\"\nf() { if test $1 -gt 0; then f $(($1 - 1)) & f $(($1 - 1)) & fi; sleep 1000; }\n\
                    f 8 & wait\n\"\"\"\n\
                    [[job]]\nname = \"other\"\nsources = [\"none\"]\ncommand = \"echo on\"\n";
        repository.commit(&[("brigandine.toml", list), ("none", "")]);
        place.specify(&[("sample", &repository, "")]);
        let ended = run(place.command(&["--one-shot", &sandbox(kind)]));
        ended.check_evaluated();
        let rows = place.rows("SELECT status, message FROM build WHERE job = 'bomb'");
        assert!(rows[0].contains("`build-processes`"), "{kind}: {rows:?}");
        assert_eq!(place.rows("SELECT status FROM build WHERE job = 'other'"), ["0"], "{kind}");
    }
}

#[test]
fn an_evaluator_that_takes_more_than_a_build_may_fails_with_the_limits_name() {
    for (place_number, kind) in SANDBOXES.into_iter().enumerate() {
        let mark = unique(450 + place_number);
        for (limit, script) in [
            ("memory", "(head -c 400000000 /dev/zero; sleep $N) | tail >&2"),
            ("processes", "for i in $(seq 100); do sleep $N & done; wait"),
            ("file", "head -c 40000000 /dev/zero > big || exit 7"),
            (
                "disk",
                "for i in 1 2 3 4 5 6 7; do head -c 16000000 /dev/urandom > f$i; done; sleep $N",
            ),
        ] {
            let place = Place::new();
            let repository = place.repository("sample");
            place.write("config.toml", LIMITS);
            evaluator(&place, &repository, &script.replace("$N", &mark));
            let ended = run(place.command(&["--one-shot", &sandbox(kind)]));
            assert_eq!(ended.status.code(), Some(1), "{kind} {limit}: {}", ended.stderr);
            let message = place.rows("SELECT message FROM evaluation").remove(0);
            assert!(message.contains(&format!("`build-{limit}`")), "{kind} {limit}: {message}");
            assert_eq!(alive(&mark), 0, "{kind} {limit}");
        }
    }
}

#[test]
fn a_build_that_ends_by_itself_beyond_its_limit_fails_with_the_limits_name() {
    for (place_number, kind) in SANDBOXES.into_iter().enumerate() {
        let place = Place::new();
        let repository = place.repository("sample");
        place.write("config.toml", LIMITS);
        let mark = unique(420 + place_number);
        // The program forks faster than the supervisor measures, so it is compiled by an earlier job. It stops when a
        // fork is refused, or when it has the requested number of processes, and then ends by itself.
        let compile = format!(
            "cc -x c -o $BRIGANDINE_OUT/it - <<E\n#include <stdlib.h>\n#include <unistd.h>\n\
             int main(int n, char **all) {{ for (int i = 0; i < atoi(all[1]); i++) {{ \
             int id = fork(); if (id < 0) break; if (!id) {{ sleep({mark}); return 0; }} }} return 3; }}\nE\n"
        );
        let job = |name: &str, script: &str, more: &str| {
            let script = serde_json::Value::from(script);
            format!(
                "[[job]]\nname = \"{name}\"\ncommand = {script}\nsources = [\"none\"]\n{more}\n"
            )
        };
        let fork = |most| format!("exec $BRIGANDINE_NEEDS/made/it {most} {mark}");
        let list = job("made", &compile, "")
            + &job("greedy", &fork(500), "needs = [\"made\"]")
            + &job("modest", &fork(30), "needs = [\"made\"]")
            + &job("plain", "exit 3", "");
        repository.commit(&[("brigandine.toml", &list), ("none", "")]);
        place.specify(&[("sample", &repository, "")]);
        let ended = run(place.command(&["--one-shot", &sandbox(kind)]));
        ended.check_evaluated();
        let rows =
            place.rows("SELECT job, status, message FROM build WHERE job <> 'made' ORDER BY job");
        // In the sandbox, the processes that the program left end together with bubblewrap, so they may be gone before
        // they are counted.
        if kind == "off" {
            assert!(rows[0].starts_with("greedy|3|"), "{rows:?}");
            assert!(rows[0].contains("`build-processes`"), "{rows:?}");
        }
        assert_eq!(rows[1..], ["modest|1|exit status 3", "plain|1|exit status 3"], "{kind}");
        assert_eq!(alive(&mark), 0, "{kind}");
    }
}

#[test]
fn the_processes_of_the_sandbox_do_not_count_for_the_build() {
    for kind in SANDBOXES {
        let place = Place::new();
        let repository = place.repository("sample");
        place.write("config.toml", "[limits]\nbuild-processes = 2\nbuild-grace = \"1s\"\n");
        let mark = unique(430);
        let more = format!("sleep {mark} & sleep {mark} & wait");
        super::commands(&repository, &[("three", &more), ("two", "sleep 1.5; echo both")]);
        place.specify(&[("sample", &repository, "")]);
        let ended = run(place.command(&["--one-shot", &sandbox(kind)]));
        ended.check_evaluated();
        assert_eq!(place.jobs(1), ["three|3", "two|0"], "{kind}");
    }
}
