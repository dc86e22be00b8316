//! Everything that a push makes the server open or store is closed or removed again.

use crate::support::{Place, Process, Repository, run, until};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A process and all its descendants.
fn family(root: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let parents: Vec<(u32, u32)> = processes
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
            Some((id, parent))
        })
        .collect();
    let mut all = vec![root];
    let mut place = 0;
    while let Some(id) = all.get(place).copied() {
        all.extend(parents.iter().filter(|(_, parent)| *parent == id).map(|(id, _)| *id));
        place += 1;
    }
    all
}

/// The files that a process has open or maps.
fn open(id: u32) -> Vec<PathBuf> {
    ["fd", "map_files"]
        .into_iter()
        .filter_map(|folder| fs::read_dir(format!("/proc/{id}/{folder}")).ok())
        .flat_map(Iterator::flatten)
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .collect()
}

/// The number of these files that do not belong to the database. The database opens and closes connections depending on
/// its load, so its files are not counted.
fn but_database(open: Vec<PathBuf>) -> usize {
    let of_database = |path: &PathBuf| path.to_string_lossy().contains("/brigandine.db");
    open.into_iter().filter(|path| !of_database(path)).count()
}

fn clone_of(place: &Place) -> PathBuf {
    let clones = fs::read_dir(place.state().join("repositories")).expect("clones");
    clones.flatten().next().expect("a clone").path()
}

fn push_and_wait(place: &Place, repository: &Repository, number: usize) {
    repository.jobs(&[("one", &format!("command = \"echo {number}\""))]);
    let done = run(place.tool(&["evaluate", "sample"]));
    assert!(done.status.success(), "{}\n{}", done.stdout, done.stderr);
    until(|| place.rows("SELECT count(*) FROM build WHERE status < 0"), |rows| rows == &["0"]);
}

#[test]
fn pushes_that_git_fetches_leave_nothing_open() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.jobs(&[("one", "command = \"true\"")]);
    // The address is spelt so that only git can read it, as for a repository on another machine.
    let url = format!("file://{}", repository.path.display()).replace("/sample", "/s%61mple");
    place.write(
        "specifications.toml",
        &format!(
            "[[specification]]\nname = \"sample\"\n[[specification.input]]\nname = \"source\"\n\
             url = \"{url}\"\nbranch = \"main\"\n"
        ),
    );
    let server = Process::start(place.command(&[]));
    server.trace("the server runs");
    let id = server.child.id();
    let mut counts = Vec::new();
    for number in 0..10 {
        push_and_wait(&place, &repository, number);
        // The test collects garbage as the server does from time to time.
        let mut gc = Command::new("git");
        gc.arg("--git-dir").arg(clone_of(&place)).args(["gc", "--quiet", "--prune=now"]);
        assert!(gc.status().expect("git").success());
        let pack = |path: &&PathBuf| path.to_string_lossy().contains("/objects/pack/");
        let held = open(id).iter().filter(pack).count();
        assert_eq!(held, 0, "the server itself has no pack open: {:?}", open(id));
        counts.push(but_database(open(id)));
    }
    let settled = until(|| but_database(open(id)), |count| *count <= counts[2]);
    assert!(settled > 0);
    // A reader may have packs of the clone's present state open, but none that were deleted earlier.
    let packs = || {
        let all = family(id).into_iter().flat_map(open);
        all.filter(|path| path.to_string_lossy().ends_with(".pack (deleted)")).count()
    };
    assert!(packs() <= 4, "{} deleted packs are open", packs());
    server.signal("TERM");
    assert!(server.end().success());
}

/// The clone has the references that an earlier version of the server made: they have the names of branches.
#[test]
fn references_that_nothing_needs_go() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.jobs(&[("one", "command = \"true\"")]);
    place.specify(&[("sample", &repository, "")]);
    place.good_one_shot();
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        let done = command.arg("--git-dir").arg(clone_of(&place)).args(arguments).output();
        let done = done.expect("git");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    };
    let tip = git(&["for-each-ref", "--format=%(objectname)", "refs/brigandine/tips"]);
    git(&["update-ref", "refs/brigandine/heads/release/1.0", &tip]);
    git(&["update-ref", "refs/brigandine/all/tags/v1", &tip]);
    // Pins of revisions whose evaluations were deleted long ago.
    let tree = format!("{tip}^{{tree}}");
    for number in 0..40 {
        let name = ["-c", "user.name=a", "-c", "user.email=a@b", "commit-tree", "-m"];
        let revision = git(&[&name[..], &[&number.to_string(), &tree]].concat());
        git(&["update-ref", &format!("refs/brigandine/pins/{revision}"), &revision]);
    }
    let pushed = repository.jobs(&[("one", "command = \"echo pushed\"")]);
    place.good_one_shot();
    let left = git(&["for-each-ref", "--format=%(refname)"]);
    let mut left: Vec<&str> = left.lines().collect();
    left.retain(|name| !name.starts_with("refs/brigandine/tips/"));
    let mut pins = [&tip, &pushed].map(|revision| format!("refs/brigandine/pins/{revision}"));
    pins.sort();
    assert_eq!(left, pins);
}

/// The test unpacks as many loose objects as fetches by libgit2 would leave over time.
#[test]
fn loose_objects_are_packed_before_they_are_many() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.jobs(&[("one", "command = \"true\"")]);
    let files: Vec<(String, String)> =
        (0..300).map(|number| (format!("file-{number}"), number.to_string())).collect();
    let files: Vec<(&str, &str)> =
        files.iter().map(|(name, text)| (&name[..], &text[..])).collect();
    repository.commit(&files);
    place.specify(&[("sample", &repository, "")]);
    place.good_one_shot();
    let clone = clone_of(&place);
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.arg("--git-dir").arg(&clone).args(arguments);
        command
    };
    let stored = || {
        let said = git(&["count-objects", "-v"]).output().expect("git").stdout;
        String::from_utf8(said).expect("text")
    };
    // git unpacks only objects that the clone does not have, so the packs are moved away first.
    let aside = place.state().join("packs");
    fs::rename(clone.join("objects/pack"), &aside).expect("set aside");
    fs::create_dir(clone.join("objects/pack")).expect("an empty folder");
    let packs: Vec<PathBuf> =
        fs::read_dir(&aside).expect("packs").map(|entry| entry.expect("a file").path()).collect();
    for pack in packs.iter().filter(|path| path.extension().is_some_and(|kind| kind == "pack")) {
        let pack = fs::File::open(pack).expect("a pack");
        let done = git(&["unpack-objects", "-q"]).stdin(pack).status();
        assert!(done.expect("git").success());
    }
    fs::remove_dir_all(&aside).expect("removed");
    let before = stored();
    let loose: usize =
        before.lines().next().expect("count").replace("count: ", "").parse().expect("a number");
    assert!(loose > 300, "{before}");
    repository.jobs(&[("one", "command = \"echo pushed\"")]);
    place.good_one_shot();
    let after = stored();
    assert!(after.starts_with("count: 0\n"), "{after}");
    assert!(after.contains("\npacks: 1\n"), "{after}");
}

#[test]
fn a_clone_that_was_left_half_made_is_removed_at_the_start() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.jobs(&[("one", "command = \"true\"")]);
    place.specify(&[("sample", &repository, "")]);
    place.good_one_shot();
    let left = place.state().join("repositories/partial-1-2.git");
    fs::create_dir_all(left.join("objects/pack")).expect("folders");
    place.good_one_shot();
    assert!(!Path::new(&left).exists());
}
