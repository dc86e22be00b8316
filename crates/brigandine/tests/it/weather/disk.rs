//! A full disk: the server waits until there is room, every page reports it, and no build fails because of it.

use super::mounts::{Mounts, place};
use crate::command::serve::{address, text};
use crate::support::{Place, Process, run, until};
use std::fs;
use std::path::Path;
use std::process::Command;

/// A server whose state directory is a small file system.
struct Small {
    place: Place,
    mounts: Mounts,
}

impl Small {
    fn new(size: &str, jobs: &[(&str, &str)]) -> Self {
        let place = place(jobs);
        let mounts = Mounts::new(&[(&place.state(), size)]);
        Self { place, mounts }
    }

    fn serve(&self) -> Process {
        Process::start(self.mounts.command(&self.place.command(&["--interval", "1s"])))
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.mounts.path(&self.place.state().join(name))
    }

    fn fill(&self) -> std::path::PathBuf {
        self.mounts.fill(&self.place.state())
    }
}

#[expect(clippy::ptr_arg, reason = "stands in `until`, whose answers are strings")]
fn is_told(page: &String) -> bool {
    page.contains("class=\"note other\"") && page.contains("nothing is started until")
}

/// Shuts the server down, and checks that the database can still be read.
fn ends_well(small: &Small, server: Process) {
    server.signal("TERM");
    assert!(server.end().success());
    let ended = run(small.mounts.command(&small.place.tool(&["builds", "--json"])));
    assert!(ended.status.success(), "{}", ended.stderr);
}

fn statuses(address: &str) -> Vec<i64> {
    let answer = text(address, "/api/latestbuilds?nr=10");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let builds: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let builds = builds.as_array().expect("a list");
    builds.iter().filter_map(|build| build["buildstatus"].as_i64()).collect()
}

#[test]
fn on_a_disk_that_cannot_be_written_commands_say_what_to_do() {
    let small = Small::new("24m", &[("job", "command = \"true\"")]);
    let once = small.place.command(&["--one-shot"]);
    assert!(run(small.mounts.command(&once)).status.success());
    let mut mount = Command::new("mount");
    mount.args(["-o", "remount,ro"]).arg(small.place.state());
    assert!(run(small.mounts.command(&mount)).status.success());
    let backup = small.place.path("backup");
    for arguments in [&["builds"][..], &["status"], &["backup", backup.to_str().expect("a path")]] {
        let ended = run(small.mounts.command(&small.place.tool(arguments)));
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {}", ended.stdout);
        let remedy = "copy the whole state directory to a disk that can be written";
        assert!(ended.stderr.contains(remedy), "{arguments:?}: {}", ended.stderr);
    }
    let ended = run(small.mounts.command(&once));
    assert!(!ended.status.success() && !ended.stderr.contains("Builder::"), "{}", ended.stderr);
}

#[test]
fn a_build_that_meets_a_full_disk_is_built_again_when_there_is_room() {
    let job =
        "command = \"dd if=/dev/zero of=big bs=1M count=8 2>&1; test $(stat -c %s big) = 8388608\"";
    let small = Small::new("24m", &[("big", job)]);
    let filler = small.path("filler");
    // So little room is left that the server runs, but the build does not.
    fs::write(&filler, vec![7; 17 << 20]).expect("a file");
    let server = small.serve();
    let address = address(&server);
    server.trace("a build was lost");
    let page = until(|| text(&address, "/"), is_told);
    assert!(page.contains("disk was full"), "{page}");
    for path in ["/queue", "/jobset/sample", "/eval/1", "/build/1", "/nothing"] {
        assert!(is_told(&text(&address, path)), "{path}");
    }
    assert_eq!(statuses(&address), [0_i64; 0], "it failed");
    fs::remove_file(&filler).expect("room");
    until(|| text(&address, "/build/1"), |page| page.contains("succeeded") && !is_told(page));
    assert_eq!(statuses(&address), [0]);
    ends_well(&small, server);
}

#[test]
fn a_build_that_fills_the_disk_itself_fails_in_the_end_and_says_why() {
    let job = "command = \"echo begun; cat /dev/zero > big\"";
    let small = Small::new("24m", &[("greedy", job)]);
    let server = small.serve();
    let address = address(&server);
    // After each attempt, as much room is free as before it. So the build is tried again after a pause, but not for
    // ever.
    server.trace("a build was lost");
    until(|| text(&address, "/queue"), is_told);
    server.trace("a build was lost");
    until(|| text(&address, "/build/1"), |page| page.contains("lost 3 times"));
    let page = text(&address, "/build/1");
    assert!(page.contains("the disk was full while it ran") && page.contains("begun"), "{page}");
    ends_well(&small, server);
}

#[test]
fn a_log_that_meets_a_full_disk_says_where_it_is_cut_and_the_build_is_tried_again() {
    let gate = tempfile::tempdir().expect("a directory");
    let go = gate.path().join("go");
    let job = format!(
        "command = \"if test -e {0}; then echo quiet; else touch {0}; yes chatter | head -c 30000000; fi; echo end\"",
        go.display()
    );
    let small = Small::new("24m", &[("chatty", &job)]);
    let server = small.serve();
    let address = address(&server);
    server.trace("cannot write the build log");
    let cut = until(
        || text(&address, "/build/1/log/raw?attempt=1"),
        |log| {
            log.ends_with(
                "[brigandine: the log is cut here: No space left on device (os error 28)]\n",
            )
        },
    );
    assert!(cut.contains("chatter\nchatter\n"));
    // The build gave its room back, so it is built again.
    until(|| text(&address, "/build/1"), |page| page.contains("succeeded"));
    assert!(text(&address, "/build/1/log/raw").ends_with("quiet\nend\n"));
    ends_well(&small, server);
}

#[test]
fn a_full_disk_ends_no_server_and_all_goes_on_when_there_is_room() {
    let small = Small::new("24m", &[("job", "command = \"echo said\"")]);
    let server = small.serve();
    let address = address(&server);
    until(|| text(&address, "/build/1"), |page| page.contains("succeeded"));
    let filler = small.fill();
    until(|| text(&address, "/"), is_told);
    // A push, looks, and commands that request, change and prune meet the full disk.
    small.place.repository_of("sample").jobs(&[("later", "command = \"true\"")]);
    for arguments in
        [&["prune"][..], &["restart", "1"], &["cancel", "1"], &["builds"], &["log", "1"]]
    {
        let mut process = Process::start(small.mounts.command(&small.place.tool(arguments)));
        if arguments[0] == "log" {
            assert_eq!(process.line(), "said");
        }
        let _ = process.child.kill();
        let _ = process.child.wait();
    }
    assert!(text(&address, "/api/latestbuilds?nr=1").contains("\"buildstatus\":0"), "JSON goes on");
    fs::remove_file(filler).expect("room");
    until(|| text(&address, "/jobset/sample"), |page| page.contains("#2") && !is_told(page));
    until(|| statuses(&address), |all| all == &[0, 0]);
    ends_well(&small, server);
}

#[test]
fn a_server_that_starts_on_a_full_disk_says_so_waits_and_goes_on() {
    let small = Small::new("24m", &[("job", "command = \"echo said\"")]);
    let server = small.serve();
    let first = address(&server);
    until(|| text(&first, "/build/1"), |page| page.contains("succeeded"));
    ends_well(&small, server);
    let filler = small.fill();
    let server = small.serve();
    let second = address(&server);
    let page = text(&second, "/");
    assert!(page.contains("503") && page.contains("the server waits to start"), "{page}");
    assert!(text(&second, "/api/latestbuilds?nr=1").contains("the server waits to start"));
    fs::remove_file(filler).expect("room");
    until(|| text(&second, "/build/1"), |page| page.contains("succeeded"));
    ends_well(&small, server);
}

#[test]
fn nothing_is_started_while_less_than_the_reserve_is_free() {
    let small = Small::new("24m", &[("job", "command = \"true\"")]);
    small.place.write("config.toml", "[limits]\ndisk-reserve = \"8 MiB\"\n");
    let filler = small.path("filler");
    fs::write(&filler, vec![7; 18 << 20]).expect("a file");
    let server = small.serve();
    let address = address(&server);
    let page = until(|| text(&address, "/queue"), is_told);
    assert!(page.contains("Nothing is started while less than 8.0 MiB is free"), "{page}");
    assert!(text(&address, "/jobset/sample").contains("sample"));
    fs::remove_file(&filler).expect("room");
    until(|| text(&address, "/build/1"), |page| page.contains("succeeded") && !is_told(page));
    fs::write(&filler, vec![7; 18 << 20]).expect("a file");
    until(|| text(&address, "/"), is_told);
    ends_well(&small, server);
    // Without a reserve, builds start however little is free.
    small.place.write("config.toml", "[limits]\ndisk-reserve = 0\n");
    small.place.repository_of("sample").jobs(&[("more", "command = \"true\"")]);
    let server = small.serve();
    let address = crate::command::serve::address(&server);
    until(|| text(&address, "/build/2"), |page| page.contains("succeeded"));
    assert!(!text(&address, "/queue").contains("Nothing is started"));
    ends_well(&small, server);
}

#[test]
fn outputs_that_meet_a_full_disk_are_made_again() {
    let place =
        place(&[("job", "command = \"head -c 6000000 /dev/urandom > $BRIGANDINE_OUT/it\"")]);
    let outputs = place.state().join("outputs");
    let mounts = Mounts::new(&[(Path::new(&outputs), "8m")]);
    let filler = mounts.path(&outputs).join("filler");
    fs::write(&filler, vec![7; 4 << 20]).expect("a file");
    let server = Process::start(mounts.command(&place.command(&["--interval", "1s"])));
    let address = address(&server);
    server.trace("cannot keep its outputs");
    let page = until(|| text(&address, "/queue"), is_told);
    assert!(page.contains("The disk was full"), "{page}");
    fs::remove_file(&filler).expect("room");
    until(|| text(&address, "/build/1"), |page| page.contains("succeeded"));
    server.signal("TERM");
    assert!(server.end().success());
    assert_eq!(fs::read_dir(mounts.path(&outputs)).expect("outputs").count(), 2);
}

/// Makes empty files in a folder until the file system has no room for another file, or until there are `most` files.
fn fill_with_files(folder: &Path, most: usize) -> Vec<std::path::PathBuf> {
    let mut made = Vec::new();
    for number in 0..most {
        let path = folder.join(format!("filler-{number}"));
        match fs::File::create(&path) {
            Ok(_) => made.push(path),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
                break;
            }
        }
    }
    made
}

#[test]
fn a_file_system_that_has_no_room_for_files_is_a_full_disk() {
    let job = "command = \"for i in $(seq 100); do echo x > file-$i; done\"";
    let small = Small::new("64m,nr_inodes=600", &[("first", job)]);
    let server = small.serve();
    let address = address(&server);
    until(|| text(&address, "/build/1"), |page| page.contains("succeeded"));
    let fillers = fill_with_files(&small.path(""), 600);
    until(|| text(&address, "/"), |page| is_told(page) && page.contains("hardly any file"));
    small.place.repository_of("sample").jobs(&[("later", job)]);
    assert!(text(&address, "/api/latestbuilds?nr=1").contains("\"buildstatus\":0"), "JSON goes on");
    fillers.iter().for_each(|path| fs::remove_file(path).expect("room"));
    until(|| statuses(&address), |all| all == &[0, 0]);
    // So few files can be made that the server runs, but the build does not.
    let fillers = fill_with_files(&small.path(""), 600);
    fillers.iter().rev().take(60).for_each(|path| fs::remove_file(path).expect("some room"));
    small.place.repository_of("sample").jobs(&[("last", job)]);
    server.trace("a build was lost");
    fillers.iter().rev().skip(60).for_each(|path| fs::remove_file(path).expect("room"));
    until(|| statuses(&address), |all| all == &[0, 0, 0]);
    ends_well(&small, server);
}

#[test]
fn an_evaluation_that_meets_a_full_disk_for_a_moment_is_begun_again() {
    let place = Place::new();
    let repository = place.repository("sample");
    let files: Vec<(String, String)> =
        (0..300).map(|number| (format!("files/{number}"), format!("{number}\n"))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(a, b)| (&**a, &**b)).collect();
    repository.commit(&files);
    let evaluator = "[specification.evaluator]\nkind = \"command\"\ncommand = [\"sh\", \"-c\", \
                     \"echo '{\\\"job\\\": \\\"job\\\", \\\"derivation\\\": {\\\"command\\\": \\\"true\\\"}}'\"]";
    place.specify(&[("sample", &repository, evaluator)]);
    // A checkout that does not fit is removed immediately, so the server finds room when it looks afterwards.
    let checkouts = place.state().join("checkouts");
    let mounts = Mounts::new(&[(Path::new(&checkouts), "16m,nr_inodes=200")]);
    let server = Process::start(mounts.command(&place.command(&["--interval", "1s"])));
    let address = address(&server);
    server.trace("evaluation ended");
    let page = until(|| text(&address, "/eval/1"), |page| page.contains("the disk was full"));
    assert!(page.contains("it is evaluated again when there is room"), "{page}");
    let mut larger = Command::new("mount");
    larger.args(["-o", "remount,nr_inodes=1000"]).arg(&checkouts);
    let ended = run(mounts.command(&larger));
    assert!(ended.status.success(), "{}", ended.stderr);
    until(|| text(&address, "/build/1"), |page| page.contains("succeeded"));
    server.signal("TERM");
    assert!(server.end().success());
}
