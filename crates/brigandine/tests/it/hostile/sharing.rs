//! Which ends of a job's build also hold for other jobs, and which do not.

use crate::support::{Gate, Place, Process, until};
use std::fs;

/// The jobs of the last evaluation of each specification, as `specification|job|status`.
fn fates(place: &Place) -> Vec<String> {
    place.rows(
        "SELECT s.name, j.name, b.status FROM specification AS s
         JOIN evaluation AS e ON e.id = (SELECT max(id) FROM evaluation WHERE specification_id = s.id)
         JOIN job AS j ON j.evaluation_id = e.id JOIN build AS b ON b.id = j.build_id
         ORDER BY s.name, j.name",
    )
}

/// A specification that contains its jobs.
fn specified(name: &str, url: &std::path::Path, jobs: &str) -> String {
    format!(
        "[[specification]]\nname = \"{name}\"\n[[specification.input]]\nname = \"source\"\n\
         url = \"{}\"\nbranch = \"main\"\n{jobs}",
        url.display()
    )
}

/// A job that takes longer than a second, and a job that needs it.
fn slow(limit: &str) -> String {
    format!(
        "[[specification.job]]\nname = \"slow\"\ncommand = \"sleep 3\"\n{limit}\n\
         [[specification.job]]\nname = \"next\"\ncommand = \"true\"\nneeds = [\"slow\"]\n"
    )
}

#[test]
fn a_failure_by_a_limit_is_not_that_of_a_job_with_a_greater_one() {
    for (smaller, greater) in [
        ("timeout = \"1s\"", "timeout = \"60s\""),
        ("timeout = \"1s\"", ""),
        ("max-silent = \"1s\"", "max-silent = \"60s\""),
    ] {
        let place = Place::new();
        let repository = place.repository("sample");
        repository.commit(&[("file", "text")]);
        let write = |limit: &str| {
            let text = specified("sample", &repository.path, &slow(limit));
            place.write("specifications.toml", &text);
        };
        write(smaller);
        place.good_one_shot();
        assert_eq!(fates(&place), ["sample|next|2", "sample|slow|3"], "{smaller}");
        // A new revision with the same limit has the same result, and no build is started again.
        repository.git(&["commit", "--quiet", "--allow-empty", "--message=again"]);
        place.good_one_shot();
        assert_eq!(place.rows("SELECT count(*) FROM evaluation"), ["2"]);
        assert_eq!(place.rows("SELECT count(*) FROM attempt"), ["1"], "{smaller}");
        write(greater);
        place.good_one_shot();
        assert_eq!(fates(&place), ["sample|next|0", "sample|slow|0"], "{greater}");
        // A success holds for every job, whatever its limit is.
        write(smaller);
        place.good_one_shot();
        repository.git(&["commit", "--quiet", "--allow-empty", "--message=once more"]);
        place.good_one_shot();
        assert_eq!(fates(&place), ["sample|next|0", "sample|slow|0"], "{smaller}");
        place.check_consistency();
    }
}

#[test]
fn a_failure_by_a_limit_is_not_that_of_another_specification() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.commit(&[("file", "text")]);
    let text = |names: &[(&str, &str)]| -> String {
        names.iter().map(|(name, limit)| specified(name, &repository.path, &slow(limit))).collect()
    };
    // First both specifications are built at the same time; later one after the other.
    let both = [("a", "timeout = \"1s\""), ("b", "timeout = \"60s\"")];
    place.write("specifications.toml", &text(&both));
    place.good_one_shot();
    let found = fates(&place);
    assert_eq!(found[2..], ["b|next|0", "b|slow|0"]);
    // `a` fails by its own limit, unless `b` was built first and `a` got the success of `b`.
    assert!(
        found[..2] == ["a|next|2", "a|slow|3"] || found[..2] == ["a|next|0", "a|slow|0"],
        "{found:?}"
    );
    place.check_consistency();

    let place = Place::new();
    place.write("specifications.toml", &text(&[("a", "timeout = \"1s\"")]));
    place.good_one_shot();
    place.write(
        "specifications.toml",
        &text(&[("a", "timeout = \"1s\""), ("c", "timeout = \"1s\"")]),
    );
    place.good_one_shot();
    assert_eq!(fates(&place), ["a|next|2", "a|slow|3", "c|next|2", "c|slow|3"]);
    assert_eq!(place.rows("SELECT count(*) FROM attempt"), ["2"], "each failed by itself");
    place.check_consistency();
}

#[test]
fn what_ends_by_itself_is_built_once_for_all_that_want_it_at_the_same_time() {
    for (command, status) in [("true", 0), ("exit 3", 1)] {
        let place = Place::new();
        let repository = place.repository("sample");
        repository.commit(&[("file", "text")]);
        let (begun, go) = (Gate::new(place.path("begun")), Gate::new(place.path("go")));
        let jobs = format!(
            "[[specification.job]]\nname = \"one\"\n\
             command = \"echo x > {}; cat {}; echo made > $BRIGANDINE_OUT/it; {command}\"\n\
             [[specification.job]]\nname = \"next\"\ncommand = \"cat $BRIGANDINE_NEEDS/one/it\"\n\
             needs = [\"one\"]\n",
            begun.path().display(),
            go.path().display()
        );
        let text: String =
            ["a", "b", "c"].map(|name| specified(name, &repository.path, &jobs)).concat();
        place.write("specifications.toml", &text);
        let server = Process::start(place.command(&["--sandbox=off"]));
        begun.wait();
        for _ in 0..3 {
            server.trace("evaluation succeeded");
        }
        go.open();
        let next = if status == 0 { 0 } else { 2 };
        let expected: Vec<String> = ["a", "b", "c"]
            .iter()
            .flat_map(|name| [format!("{name}|next|{next}"), format!("{name}|one|{status}")])
            .collect();
        server.trace("build ended");
        until(|| fates(&place), |fates| *fates == expected);
        let starts = place.rows(
            "SELECT count(*) FROM attempt AS t JOIN build AS b ON b.id = t.build_id WHERE b.job = 'one'",
        );
        assert_eq!(starts, ["1"], "{command}");
    }
}

#[test]
fn a_build_that_is_canceled_is_built_for_those_who_did_not_cancel_it() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.commit(&[("file", "text")]);
    let (begun, go) = (Gate::new(place.path("begun")), Gate::new(place.path("go")));
    let jobs = format!(
        "[[specification.job]]\nname = \"one\"\ncommand = \"echo x > {}; cat {}\"\n",
        begun.path().display(),
        go.path().display()
    );
    let text: String = ["a", "b"].map(|name| specified(name, &repository.path, &jobs)).concat();
    place.write("specifications.toml", &text);
    let server = Process::start(place.command(&["--sandbox=off"]));
    begun.wait();
    for _ in 0..2 {
        server.trace("evaluation succeeded");
    }
    let running = place.rows("SELECT id FROM build WHERE status = -1");
    let canceled = crate::support::run(place.tool(&["cancel", &running[0]]));
    assert!(canceled.status.success(), "{}", canceled.stderr);
    begun.wait();
    go.open();
    until(|| place.rows("SELECT count(*) FROM build WHERE status < 0"), |count| *count == ["0"]);
    assert_eq!(place.rows("SELECT status FROM build ORDER BY status"), ["0", "4"]);
}

/// The only output that has files.
fn output(place: &Place) -> std::path::PathBuf {
    let row = place.rows(
        "SELECT o.path FROM output AS o JOIN build AS b ON b.id = o.build_id WHERE b.job = 'made'",
    );
    place.state().join(&row[0])
}

fn remove(path: &std::path::Path) {
    let allow = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(path, allow).expect("a mode");
    fs::remove_dir_all(path).expect("removed");
}

const MADE: &str = "[[job]]\nname = \"made\"\ncommand = \"echo made > $BRIGANDINE_OUT/it\"\n\
                    sources = [\"none\"]\n";

fn user(text: &str) -> String {
    format!(
        "{MADE}[[job]]\nname = \"user\"\ncommand = \"cat $BRIGANDINE_NEEDS/made/it; echo {text}\"\n\
         needs = [\"made\"]\nsources = [\"none\"]\n"
    )
}

#[test]
fn an_output_that_is_gone_is_made_again() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.commit(&[("brigandine.toml", &user("1")), ("none", "")]);
    place.specify(&[("sample", &repository, "")]);
    place.good_one_shot();
    let path = output(&place);
    // The missing output is noticed when a new evaluation is linked to its build.
    remove(&path);
    repository.commit(&[("brigandine.toml", &user("2"))]);
    place.good_one_shot();
    assert_eq!(fs::read_to_string(path.join("it")).expect("made again"), "made\n");
    assert_eq!(place.jobs(2), ["made|0", "user|0"]);
    place.check_consistency();
    // The missing output is noticed by the first look of a server, although there is no new revision.
    remove(&path);
    place.good_one_shot();
    assert_eq!(fs::read_to_string(path.join("it")).expect("made again"), "made\n");
    assert_eq!(place.rows("SELECT count(*) FROM evaluation"), ["2"]);
    assert_eq!(place.rows("SELECT DISTINCT status FROM build"), ["0"]);
    place.check_consistency();
}

#[test]
fn an_output_that_is_gone_when_it_is_needed_is_made_again() {
    let place = Place::new();
    let repository = place.repository("sample");
    let (begun, go) = (Gate::new(place.path("begun")), Gate::new(place.path("go")));
    let list = format!(
        "{MADE}[[job]]\nname = \"between\"\ncommand = \"echo x > {}; cat {}\"\nneeds = [\"made\"]\n\
         sources = [\"none\"]\n[[job]]\nname = \"user\"\ncommand = \"cat $BRIGANDINE_NEEDS/made/it\"\n\
         needs = [\"made\", \"between\"]\nsources = [\"none\"]\n",
        begun.path().display(),
        go.path().display()
    );
    repository.commit(&[("brigandine.toml", &list), ("none", "")]);
    place.specify(&[("sample", &repository, "")]);
    let mut server = Process::start(place.command(&["--one-shot", "--sandbox=off"]));
    begun.wait();
    let path = output(&place);
    remove(&path);
    go.open();
    let status = crate::support::wait(&mut server.child);
    assert!(status.success());
    assert_eq!(place.jobs(1), ["between|0", "made|0", "user|0"]);
    assert_eq!(place.build_log("user"), "made\n");
    assert_eq!(place.rows("SELECT attempt FROM build ORDER BY job"), ["1", "2", "2"]);
    place.check_consistency();
}

#[test]
fn a_damaged_output_is_replaced_before_it_is_shared() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.commit(&[("brigandine.toml", &user("1")), ("none", "")]);
    place.specify(&[("sample", &repository, "")]);
    place.good_one_shot();
    let path = output(&place);
    let writable = |path: &std::path::Path| {
        let allow = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(path, allow).expect("a mode");
    };
    writable(&path);
    writable(&path.join("it"));
    fs::write(path.join("it"), "evil\n").expect("written");
    // The command is spelt in another way, so this is another job, with the same output.
    let list = user("2").replace("echo made >", "echo 'made' >");
    repository.commit(&[("brigandine.toml", &list)]);
    place.good_one_shot();
    assert_eq!(fs::read_to_string(path.join("it")).expect("there"), "made\n");
    let log = place.rows(
        "SELECT b.log_path FROM build AS b JOIN job AS j ON j.build_id = b.id
         WHERE j.evaluation_id = 2 AND j.name = 'user'",
    );
    assert_eq!(place.stored_log(&log[0]), "made\n2\n");
}
