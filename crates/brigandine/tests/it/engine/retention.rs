//! Retention deletes evaluations that need not be kept, with everything that belongs only to them, and nothing else.

use crate::support::{Gate, Place, Process, run, wait};
use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

/// The files below a folder of the state directory.
fn files(place: &Place, folder: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![place.state().join(folder)];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().expect("a type").is_dir() {
                open.push(entry.path());
            } else {
                found.insert(
                    entry.path().strip_prefix(place.state()).expect("below").display().to_string(),
                );
            }
        }
    }
    found
}

fn json(ended: &crate::support::Ended) -> serde_json::Value {
    assert!(ended.status.success(), "{}\n{}", ended.stdout, ended.stderr);
    serde_json::from_str(&ended.stdout).expect("JSON")
}

/// Evaluates `count` revisions of three jobs: `same` never changes, `changing` always does, `both` needs both of them.
fn evaluated(place: &Place, count: usize, keep: &str) -> crate::support::Repository {
    let repository = place.repository("sample");
    repository.commit(&[("note", "never changed\n")]);
    for number in 1..=count {
        let changing =
            format!("command = \"echo {number} > it; echo made {number}\"\nproducts = [\"it\"]");
        repository.jobs(&[
            ("same", "command = \"echo same > $BRIGANDINE_OUT/same\"\nsources = [\"note\"]"),
            ("changing", &changing),
            (
                "both",
                "command = \"echo x\"\nneeds = [\"same\", \"changing\"]\nsources = [\"note\"]",
            ),
        ]);
        place.specify(&[("sample", &repository, keep)]);
        place.good_one_shot();
    }
    repository
}

#[test]
fn what_need_not_be_kept_is_deleted_with_its_files_and_nothing_else_is() {
    let place = Place::new();
    let _repository = evaluated(&place, 5, "");
    assert_eq!(place.rows("SELECT count(*) FROM evaluation"), ["5"]);
    assert_eq!(place.rows("SELECT count(*) FROM build"), ["11"]);
    // Without a rule everything is kept.
    let ended = json(&run(place.tool(&["prune", "--json"])));
    assert_eq!((&ended["evaluations"], &ended["builds"]), (&0.into(), &0.into()));
    let config = place.write("keep.toml", "[keep]\nevaluations = 2\n");
    let config = config.to_str().expect("text");
    let said = json(&run(place.tool(&["prune", "--dry-run", "--json", "--config", config])));
    assert_eq!((&said[0]["evaluations"], &said[0]["kept"]), (&3.into(), &2.into()), "{said}");
    assert_eq!((&said[0]["oldest"], &said[0]["newest"]), (&1.into(), &3.into()), "{said}");
    assert_eq!(place.rows("SELECT count(*) FROM evaluation"), ["5"], "only said");
    let (logs, outputs) = (files(&place, "logs"), files(&place, "outputs"));
    let done = json(&run(place.tool(&["prune", "--json", "--config", config])));
    assert_eq!((&done["evaluations"], &done["builds"]), (&3.into(), &6.into()), "{done}");
    place.check_consistency();
    assert_eq!(place.rows("SELECT id, status FROM evaluation ORDER BY id"), ["4|0", "5|0"]);
    assert_eq!(place.jobs(4), ["both|0", "changing|0", "same|0"]);
    assert_eq!(place.rows("SELECT count(*) FROM leftover"), ["0"]);
    assert_eq!(
        place.rows("SELECT evaluation_id FROM build WHERE job = 'same'"),
        ["5"],
        "it lives on"
    );
    let said = place.rows("SELECT sum(builds) FROM build_count");
    assert_eq!(said, place.rows("SELECT count(*) FROM build"));
    // Only the logs that the remaining rows name are left.
    let named: BTreeSet<String> = place
        .rows("SELECT log_path FROM build UNION SELECT log_path FROM evaluation")
        .into_iter()
        .collect();
    let left = files(&place, "logs");
    assert!(left.len() < logs.len() && left.is_subset(&named), "{left:?} of {named:?}");
    assert_eq!(outputs.len(), 6, "five of `changing`, one of `same`");
    assert_eq!(files(&place, "outputs").len(), 3);
    // A later run works with what was kept.
    place.good_one_shot();
    place.check_consistency();
}

#[test]
fn a_running_server_does_it_when_told_and_spares_what_runs() {
    let place = Place::new();
    let repository = evaluated(&place, 3, "[specification.keep]\nevaluations = 1");
    // The fourth evaluation has a build that runs until the test opens the gate. A fifth evaluation follows.
    let (running, go) = (Gate::new(place.path("running")), Gate::new(place.path("go")));
    let command = format!(
        "command = \"echo up > {}; cat {}\"",
        running.path().display(),
        go.path().display()
    );
    repository.jobs(&[("long", &command)]);
    let server = Process::start(place.command(&["--interval", "1h"]));
    assert_eq!(running.wait(), "up\n");
    repository.jobs(&[("quick", "command = \"echo q > it\"\nproducts = [\"it\"]")]);
    let ended = run(place.tool(&["evaluate", "sample"]));
    assert!(ended.status.success(), "{}", ended.stderr);
    // Until the build of the fifth evaluation ends, the third evaluation has the product with the highest number, so it
    // cannot be deleted.
    server.trace("build ended");
    let ended = run(place.tool(&["prune"]));
    assert!(ended.status.success(), "{}", ended.stderr);
    let left = place.rows("SELECT id FROM evaluation ORDER BY id");
    assert_eq!(left, ["4", "5"], "the one that builds and the newest");
    assert_eq!(place.rows("SELECT status FROM build WHERE job = 'long'"), ["-1"]);
    go.open();
    server.signal("TERM");
    assert!(server.end().success());
    place.check_consistency();
}

#[test]
fn a_prune_that_is_killed_leaves_what_fits_together_and_the_next_goes_on() {
    let place = Place::new();
    let _repository = evaluated(&place, 2, "[specification.keep]\nevaluations = 2");
    // Adds old evaluations with fifty builds each and with files of their own.
    place
        .database()
        .execute_batch(
            "PRAGMA foreign_keys = OFF; BEGIN;
             UPDATE build SET evaluation_id = evaluation_id + 1000; UPDATE job SET evaluation_id = evaluation_id + 1000;
             UPDATE checkout SET evaluation_id = evaluation_id + 1000; UPDATE evaluation SET id = id + 1000;
             UPDATE specification SET evaluation_id = evaluation_id + 1000;
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
             INSERT INTO evaluation SELECT i, 1, 'old' || i, 0, '', i, i, i, '', 0, 0, 50, 0, 0, 0, 0 FROM n;
             UPDATE build SET id = id + 100000; UPDATE job SET build_id = build_id + 100000;
             UPDATE definition SET build_id = build_id + 100000; UPDATE output SET build_id = build_id + 100000;
             UPDATE attempt SET build_id = build_id + 100000; UPDATE product SET build_id = build_id + 100000;
             UPDATE dependency SET build_id = build_id + 100000, needs_id = needs_id + 100000;
             WITH RECURSIVE n (i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < 15999)
             INSERT INTO build SELECT i, 'old' || i, i, 1, (i - 1000) / 50 + 1, 'j', 'y', 'n', 0, 0, -1, 0, 1, 0, 0,
               '', 0, 0, 1, 1, 1, '', 0, '' FROM n;
             INSERT INTO job SELECT evaluation_id, 'j' || id, id, 0 FROM build WHERE id < 16000;
             INSERT INTO attempt SELECT id, 1, 'w', 0, '', 1, 1 FROM build WHERE id < 16000;
             INSERT INTO output SELECT id, 'out', 'outputs/' || printf('%040x', id / 2) FROM build WHERE id < 16000;
             COMMIT;",
        )
        .expect("rows");
    place.check_consistency();
    for number in (1000..16_000).step_by(500) {
        let folder = place.state().join(format!("outputs/{:040x}", number / 2));
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("it"), "it").expect("a file");
    }
    let count = |sql: &str| place.rows(sql)[0].parse::<usize>().expect("a number");
    let (mut last, mut hits) = (usize::MAX, 0);
    for round in 0..240_u64 {
        // On a busy machine a program has hardly begun when it is killed. So later programs get more time.
        if round >= 24 && hits >= 3 {
            break;
        }
        let mut command = place.tool(&["prune"]);
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        // The program is killed at a different moment in each round.
        std::thread::sleep(Duration::from_millis(20 + round * 37 % (90 + 4 * round)));
        child.kill().expect("kill -9");
        wait(&mut child);
        let left = count("SELECT count(*) FROM build");
        hits += usize::from(left < last && left > 8);
        last = left;
        place.check_consistency();
        if round % 8 == 0 {
            let counted = count("SELECT sum(builds) FROM build_count");
            assert_eq!(counted, left);
        }
    }
    assert!(hits >= 3, "only {hits} kills were in the middle of it");
    let ended = run(place.tool(&["prune"]));
    assert!(ended.status.success(), "{}", ended.stderr);
    place.check_consistency();
    assert_eq!(count("SELECT count(*) FROM evaluation"), 2);
    assert_eq!(place.rows("SELECT count(*) FROM build WHERE id < 16000"), ["0"]);
    assert_eq!(count("SELECT count(*) FROM leftover"), 0);
    let outputs = files(&place, "outputs");
    assert_eq!(outputs.len(), 3, "those of the two that are kept: {outputs:?}");
}
