//! Kills a server that runs hostile builds many times with `kill -9`.

use super::{SANDBOXES, sandbox, unique};
use crate::support::{Place, Process, alive, run, until};
use std::path::Path;
use std::time::Duration;

/// How many times servers are killed, in a normal and in a long run.
const KILLS: u64 = 20;
const LONG_KILLS: u64 = 200;
/// The number of harmless builds.
const GOOD: usize = 60;

/// Scripts of the hostile builds. `$N` is replaced by the number of seconds to sleep. A build reaches the end of its
/// script unless it exceeds a limit.
const HOSTILE: [(&str, &str); 7] = [
    ("session", "setsid sleep $N >/dev/null 2>&1 &"),
    ("environment", "(env -i setsid sh -c '(sleep $N &)' &) >/dev/null 2>&1"),
    ("deaf", "(trap '' TERM HUP INT; exec sleep $N) >/dev/null 2>&1 &"),
    (
        "hopping",
        "echo 'test $2 -gt 0 && sh hop $1 $(($2 - 1)) &' > hop; setsid sh hop $N 20000 >/dev/null 2>&1 &",
    ),
    (
        "poison",
        "exec 7>>$BRIGANDINE_OUT/it; setsid sh -c 'while sleep 0.01; do echo BACKDOOR >&7; done' >/dev/null 2>&1 & exec 7>&-",
    ),
    ("many", "for i in $(seq 40); do (env -i setsid sleep $N &) & done >/dev/null 2>&1"),
    ("bomb", "for i in $(seq 200); do sleep $N & done; wait"),
];

/// The processes that use a place: by a word of their command line, their directory or a descriptor.
fn processes_of(place: &Path) -> Vec<String> {
    let of = |path: &Path| {
        let links = ["cwd", "root"].map(|name| path.join(name)).into_iter();
        let open = std::fs::read_dir(path.join("fd")).into_iter().flatten().flatten();
        let links = links.chain(open.map(|entry| entry.path()));
        let has =
            links.filter_map(|link| std::fs::read_link(link).ok()).any(|to| to.starts_with(place));
        let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        (has || line.contains(&*place.to_string_lossy())).then_some(line)
    };
    let own = std::process::id().to_string();
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let others = processes.filter(|process| {
        let name = process.file_name();
        let name = name.to_string_lossy();
        name.bytes().all(|byte| byte.is_ascii_digit()) && name != own
    });
    others.filter_map(|process| of(&process.path())).collect()
}

/// Waits until no process uses a place any more.
fn wait_for_ends(place: &Place, kind: &str) {
    until(|| (kind, processes_of(&place.state())), |(_, left)| left.is_empty());
}

/// A place with these jobs, of which none has run.
fn prepare(mark: &str) -> Place {
    let place = Place::new();
    let repository = place.repository("sample");
    place.write("config.toml", "[limits]\nbuild-processes = 100\nbuild-grace = \"1s\"\n");
    let mut list = String::new();
    for n in 0..GOOD {
        let needs =
            if n % 4 == 0 { String::new() } else { format!("needs = [\"good{:02}\"]\n", n - 1) };
        list += &format!(
            "[[job]]\nname = \"good{n:02}\"\nsources = [\"none\"]\n{needs}\
             command = \"sleep 0.0{}; echo {n} > $BRIGANDINE_OUT/it\"\n",
            n % 10
        );
    }
    for n in 0..3 {
        for (name, script) in HOSTILE {
            let script =
                format!("{}\necho {n} {name} >> $BRIGANDINE_OUT/it\n", script.replace("$N", mark));
            let script = serde_json::Value::from(script);
            list += &format!(
                "[[job]]\nname = \"{name}{n}\"\nsources = [\"none\"]\ncommand = {script}\n"
            );
        }
    }
    repository.commit(&[("brigandine.toml", &list), ("none", "")]);
    place.specify(&[("sample", &repository, "")]);
    place
}

#[test]
fn a_server_killed_under_hostile_builds_loses_nothing_and_leaves_nothing_alive() {
    let long = std::env::var_os("LOCKKEEPER_LONG").is_some_and(|value| value == "1");
    let kills = if long { LONG_KILLS } else { KILLS };
    for (number, kind) in SANDBOXES.into_iter().enumerate() {
        let mark = unique(900 + number);
        // The results of all builds in a server that is never killed. Poisoned files are left out, because their
        // contents depend on timing.
        let results = "SELECT job, status, path FROM build LEFT JOIN output ON build_id = build.id \
                       WHERE job NOT LIKE 'poison%' ORDER BY job";
        let undisturbed = prepare(&mark);
        let ended = run(undisturbed.command(&["--one-shot", &sandbox(kind)]));
        ended.check_evaluated();
        let expected = undisturbed.rows(results);
        assert_eq!(expected.len(), GOOD + 3 * (HOSTILE.len() - 1), "{kind}");

        let place = prepare(&mark);
        let (mut finished_before, mut hits, mut unfinished) = (0, 0, true);
        for kill in 0..kills / 2 {
            let mut server = Process::start(place.command(&[&sandbox(kind)]));
            // In every second round the server is killed only after a build has started, because a busy machine may
            // need time. A build may start before the server traces that it runs.
            match unfinished && kill % 2 == 1 {
                true => server.traces(&["the server runs", "build started"]),
                false => server.trace("the server runs"),
            }
            // The moment of the kill differs between the rounds. In some rounds it is late enough for all builds to
            // have started.
            std::thread::sleep(Duration::from_millis(kill * 37 % 300));
            server.child.kill().expect("kill -9");
            server.child.wait().expect("its status");
            let count = |sql: &str| place.rows(sql)[0].parse::<usize>().expect("a number");
            let finished = count("SELECT count(*) FROM build WHERE status >= 0");
            assert!(finished >= finished_before, "{kind}: a result was lost");
            finished_before = finished;
            hits += usize::from(count("SELECT count(*) FROM build WHERE status = -1") > 0);
            let evaluated = count("SELECT count(*) FROM evaluation WHERE status = 0") > 0;
            unfinished = !evaluated || count("SELECT count(*) FROM build WHERE status < 0") > 0;
            wait_for_ends(&place, kind);
        }
        assert!(hits >= 3, "{kind}: only {hits} kills hit running builds");
        let ended = run(place.command(&["--one-shot", &sandbox(kind)]));
        ended.check_evaluated();
        place.check_consistency();
        assert_eq!(
            place.rows(results),
            expected,
            "{kind}: each has the fate and output it would have had"
        );
        let twice =
            "SELECT build_id FROM attempt WHERE status >= 0 GROUP BY 1 HAVING count(*) <> 1";
        assert_eq!(place.rows(twice), [""; 0], "{kind}: each was run to completion once");
        assert_eq!(alive(&mark), 0, "{kind}");
        // The fork server ends when it notices that the server has gone.
        wait_for_ends(&place, kind);
        let left = std::fs::read_dir(place.state().join("work")).expect("work").count();
        assert_eq!(left, 0, "{kind}: no build directory is left");
        for path in place.rows(
            "SELECT path FROM output JOIN build ON build.id = build_id WHERE job LIKE 'poison%'",
        ) {
            let it =
                place.state().join("outputs").join(path.trim_start_matches("outputs/")).join("it");
            let text = std::fs::read_to_string(&it).expect("an output");
            assert!(text.contains("poison"), "{kind}: {text}");
        }
    }
}
