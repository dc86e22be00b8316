//! A machine with odd folders, several file systems, pipes in the place of files, another program that locks the
//! database, and a clock that goes back.

use super::mounts::{Mounts, is_root, place};
use crate::command::serve::{address, text};
use crate::hostile::started_by;
use crate::support::{Gate, Place, Process, run, until, within};
use rustix::fs::{Mode, OFlags};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// Nested folders that are deeper than a path can be long and than a stack can recurse. Some levels have a second
/// folder, and some levels cannot be entered.
fn dig(root: &Path, levels: usize) {
    fs::create_dir_all(root).expect("a folder");
    let mut at = OwnedFd::from(fs::File::open(root).expect("a folder"));
    for level in 0..levels {
        if level % 10 == 0 {
            rustix::fs::mkdirat(&at, "beside", Mode::RWXU).expect("a folder");
        }
        rustix::fs::mkdirat(&at, "deep", Mode::RWXU).expect("a folder");
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let below = rustix::fs::openat(&at, "deep", flags, Mode::empty()).expect("a folder");
        if level % 100 == 99 {
            rustix::fs::chmodat(&at, "deep", Mode::empty(), rustix::fs::AtFlags::empty())
                .expect("shut");
        }
        at = below;
    }
}

/// The same command, with at most this many open files.
fn with_descriptors(number: usize, command: &Command) -> Command {
    started_by(&format!("ulimit -n {number}"), command)
}

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

#[test]
fn what_a_killed_server_left_is_removed_however_deep_and_shut_it_is() {
    let place = place(&[("job", "command = \"true\"")]);
    let [work, checkouts, outputs] =
        ["work", "checkouts", "outputs"].map(|name| place.state().join(name));
    // The folders are in memory, because making so many of them on a disk would take long.
    let mounts = Mounts::new(&[(&work, "256m"), (&checkouts, "64m"), (&outputs, "64m")]);
    let once = || run(mounts.command(&with_descriptors(64, &place.command(&["--one-shot"]))));
    assert!(once().status.success());
    place.database().execute_batch("UPDATE server SET stopped = 0").expect("as after a kill");
    dig(&mounts.path(&work.join("9-1/build")), 20_000);
    dig(&mounts.path(&checkouts.join("partial-1-1")), 3_000);
    dig(&mounts.path(&outputs.join("gone-1")), 3_000);
    dig(&mounts.path(&outputs.join("partial-1-1")), 300);
    let ended = once();
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(!ended.stderr.contains("cannot be removed"), "{}", ended.stderr);
    assert_eq!(entries(&mounts.path(&work)), 0);
    assert_eq!(entries(&mounts.path(&checkouts)), 0);
    // The empty output is left.
    assert_eq!(entries(&mounts.path(&outputs)), 1);
}

#[test]
fn folders_of_a_build_are_measured_and_removed_with_few_descriptors() {
    let script = "import os\nfd = os.open('.', os.O_RDONLY)\nfor level in range(20000):\n    \
                  os.mkdir('beside', dir_fd=fd); os.mkdir('n' * 200, dir_fd=fd)\n    \
                  n = os.open('n' * 200, os.O_RDONLY, dir_fd=fd); os.close(fd); fd = n\n\
                  os.chmod('n' * 200, 0)\nimport time; time.sleep(2)\n";
    let job = format!(
        "command = {}",
        serde_json::Value::from(format!("python3 -c \"{script}\"; echo done"))
    );
    let place = place(&[("deep", &job), ("next", "command = \"true\"\nneeds = [\"deep\"]")]);
    let work = place.state().join("work");
    let mounts = Mounts::new(&[(&work, "512m")]);
    let ended = run(mounts.command(&with_descriptors(96, &place.command(&["--one-shot"]))));
    assert!(ended.status.success(), "{}", ended.stderr);
    assert_eq!(place.jobs(1), ["deep|0", "next|0"], "{}", ended.stderr);
    assert_eq!(entries(&mounts.path(&work)), 0);
    assert!(!ended.stderr.contains("cannot remove"), "{}", ended.stderr);
}

#[test]
fn what_cannot_be_removed_is_told_and_keeps_no_server_from_starting() {
    let place = place(&[("job", "command = \"true\"")]);
    place.good_one_shot();
    place.database().execute_batch("UPDATE server SET stopped = 0").expect("as after a kill");
    let busy = place.state().join("work/9-1/build/mounted");
    fs::create_dir_all(place.state().join("work/8-1/build")).expect("a folder");
    let mounts = Mounts::new(&[(&busy, "1m")]);
    let ended = run(mounts.command(&place.command(&["--one-shot"])));
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(ended.stderr.contains("cannot be removed"), "{}", ended.stderr);
    assert!(ended.stderr.contains("9-1/build/mounted"), "which: {}", ended.stderr);
    assert!(!place.state().join("work/8-1").exists(), "the rest went");
}

/// A job with outputs and a product, and a job that reads them.
fn chain() -> Place {
    let first = "command = \"mkdir -p $BRIGANDINE_OUT/d/e; echo one > $BRIGANDINE_OUT/d/e/f; \
                 ln -s d/e/f $BRIGANDINE_OUT/l; printf '#!/bin/sh\\\\n' > $BRIGANDINE_OUT/x; \
                 chmod 755 $BRIGANDINE_OUT/x; ln $BRIGANDINE_OUT/x $BRIGANDINE_OUT/y; echo p > it\"\n\
                 products = [\"it\"]";
    let second = "command = \"cat $BRIGANDINE_NEEDS/first/l $BRIGANDINE_NEEDS/first/it; \
                  test -x $BRIGANDINE_NEEDS/first/x; echo two > $BRIGANDINE_OUT/it\"\nneeds = [\"first\"]";
    place(&[("first", first), ("second", second)])
}

fn check_chain(place: &Place, what: &str, ended: &crate::support::Ended) {
    assert!(ended.status.success(), "{what}: {}", ended.stderr);
    assert_eq!(place.jobs(1), ["first|0", "second|0"], "{what}: {}", ended.stderr);
}

const FOLDERS: [&str; 5] = ["work", "outputs", "logs", "repositories", "checkouts"];

#[test]
fn folders_of_the_state_may_be_mounted_file_systems() {
    for mounted in [vec!["work"], vec!["outputs"], FOLDERS.to_vec()] {
        let place = chain();
        let state = place.state();
        let folders: Vec<_> = mounted.iter().map(|name| state.join(name)).collect();
        let folders: Vec<_> = folders.iter().map(|folder| (folder.as_path(), "64m")).collect();
        let mounts = Mounts::new(&folders);
        let what = mounted.join(", ");
        let once = || run(mounts.command(&place.command(&["--one-shot"])));
        check_chain(&place, &what, &once());
        let outputs = mounts.path(&state.join("outputs"));
        let found: Vec<_> = fs::read_dir(&outputs).expect("outputs").flatten().collect();
        assert_eq!(found.len(), 3, "{what}: {found:?}");
        for entry in found {
            let mode = entry.metadata().expect("there").permissions().mode() & 0o7777;
            assert_eq!(
                mode,
                if entry.path().join("it").exists() { 0o555 } else { 0o755 },
                "{what}"
            );
        }
        let log = run(mounts.command(&place.tool(&["log", "2"])));
        assert_eq!(log.stdout, "one\np\n", "{what}: {}", log.stderr);
        // A server was killed and has left a file behind.
        place.database().execute_batch("UPDATE server SET stopped = 0").expect("as after a kill");
        fs::create_dir_all(mounts.path(&state.join("work/7-7/x"))).expect("a folder");
        check_chain(&place, &what, &once());
        assert_eq!(entries(&mounts.path(&state.join("work"))), 0, "{what}");
        // Retention deletes outputs on the other file system too.
        let rule = place.write("keep.toml", "[keep]\nevaluations = 1\n");
        let other = "command = \"echo q > it\"\nproducts = [\"it\"]";
        place.repository_of("sample").jobs(&[("first", other)]);
        assert!(once().status.success(), "{what}");
        let prune = place.tool(&["prune", "--config", rule.to_str().expect("a path")]);
        let ended = run(mounts.command(&prune));
        assert!(ended.stdout.contains("1 evaluations, 2 builds"), "{what}: {}", ended.stdout);
        assert_eq!(entries(&outputs), 2, "{what}");
    }
}

#[test]
fn folders_of_the_state_may_be_links() {
    let place = chain();
    fs::create_dir_all(place.state()).expect("a directory");
    for name in FOLDERS {
        let elsewhere = place.path("elsewhere").join(name);
        fs::create_dir_all(&elsewhere).expect("a directory");
        symlink(&elsewhere, place.state().join(name)).expect("a link");
    }
    check_chain(&place, "links", &place.one_shot());
    place.database().execute_batch("UPDATE server SET stopped = 0").expect("as after a kill");
    let left = place.path("elsewhere").join("work").join("7-7");
    fs::create_dir_all(left.join("x")).expect("a folder");
    check_chain(&place, "links", &place.one_shot());
    for name in FOLDERS {
        let link = place.state().join(name).symlink_metadata().expect("there");
        assert!(link.is_symlink(), "{name} is no link any more");
    }
    assert_eq!(entries(&place.path("elsewhere/work")), 0);
}

#[test]
fn what_is_no_file_is_refused_at_once_wherever_a_file_is_named() {
    type Make = fn(&Path);
    let kinds: [(&str, Make, &str); 6] = [
        (
            "fifo",
            |path| assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success()),
            "a named pipe",
        ),
        ("directory", |path| fs::create_dir(path).expect("a directory"), "irectory"),
        ("device", |path| symlink("/dev/zero", path).expect("a link"), "a device"),
        (
            "socket",
            |path| drop(std::os::unix::net::UnixListener::bind(path).expect("a socket")),
            "a socket",
        ),
        ("nothing", |path| symlink("/nonexistent/x", path).expect("a link"), "No such file"),
        (
            "unreadable",
            |path| {
                fs::write(path, "0123456789abcdef").expect("a file");
                fs::set_permissions(path, fs::Permissions::from_mode(0o000)).expect("a mode");
            },
            "Permission denied",
        ),
    ];
    for (kind, make, said) in kinds {
        if kind == "unreadable" && is_root() {
            continue;
        }
        let place = place(&[("job", "command = \"true\"")]);
        fs::create_dir(place.state()).expect("a directory");
        make(&place.path("odd"));
        make(&place.state().join("token"));
        let odd = place.path("odd").display().to_string();
        let mut with_token = place.command(&[]);
        with_token.env("RUST_LOG", "info");
        let mut commands = vec![
            ("token", with_token),
            ("configuration", place.command(&["--config", &odd])),
            ("specification", place.command(&["--specifications", &odd])),
        ];
        for arguments in [
            &["check", "--config", &odd][..],
            &["check", &odd],
            &["check", "--jobs", &odd],
            &["spec", "add", &odd],
            &["prune", "--config", &odd],
        ] {
            let mut command = Command::new(crate::support::PROGRAM);
            command.args(arguments);
            if arguments[0] != "check" {
                command.arg("--state").arg(place.state());
            }
            commands.push((arguments[0], command));
        }
        for (what, command) in commands {
            let ended = run(command);
            assert_eq!(ended.status.code(), Some(1), "{kind} as {what}: {}", ended.stderr);
            let all = format!("{}{}", ended.stdout, ended.stderr);
            assert!(all.contains(said), "{kind} as {what}: {all}");
        }
    }
}

#[test]
fn a_database_that_another_program_keeps_locked_is_waited_for_and_pages_say_so() {
    let place = place(&[("job", "command = \"echo said\"")]);
    let server = Process::start(place.command(&["--interval", "1s"]));
    let address = address(&server);
    until(|| text(&address, "/build/1"), |page| page.contains("succeeded"));
    let other = place.database();
    // test                                  | server
    // takes the write lock                  | looks at the inputs, and cannot store the result
    // requests pages, which report this     | repeats the write
    // releases the lock                     | continues
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let is_told = |page: &String| page.contains("The database cannot be used for now");
    until(|| text(&address, "/"), is_told);
    for path in ["/queue", "/build/1", "/jobset/sample", "/eval/1", "/nothing"] {
        assert!(is_told(&text(&address, path)), "{path}");
    }
    assert!(text(&address, "/api/latestbuilds?nr=1").contains("\"buildstatus\":0"), "JSON goes on");
    place.repository_of("sample").jobs(&[("more", "command = \"true\"")]);
    other.execute_batch("ROLLBACK").expect("let go");
    until(|| text(&address, "/jobset/sample"), |page| page.contains("#2") && !is_told(page));
    until(|| place.jobs(2), |jobs| jobs == &["more|0"]);
    server.signal("TERM");
    assert!(server.end().success());
}

#[test]
fn a_server_that_starts_while_the_database_is_locked_waits_and_says_so() {
    let place = place(&[("job", "command = \"true\"")]);
    place.good_one_shot();
    let other = place.database();
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let server = Process::start(place.command(&[]));
    let address = address(&server);
    let page = text(&address, "/");
    assert!(page.contains("503") && page.contains("the server waits to start"), "{page}");
    assert!(page.contains("retry-after: 5"), "{page}");
    assert!(text(&address, "/healthz").contains("200 OK"), "its process answers");
    let readiness = text(&address, "/readyz");
    assert!(readiness.contains("503"), "{readiness}");
    assert!(readiness.contains("not ready\nThe server waits to start"), "{readiness}");
    other.execute_batch("ROLLBACK").expect("let go");
    until(|| text(&address, "/build/1"), |page| page.contains("succeeded"));
    until(|| text(&address, "/readyz"), |readiness| readiness.contains("200 OK"));
    server.signal("TERM");
    assert!(server.end().success());
}

#[test]
fn status_tells_of_the_server_that_waits_and_not_of_the_one_that_was_killed() {
    let place = place(&[("job", "command = \"true\"")]);
    let mut killed = Process::start(place.command(&[]));
    address(&killed);
    killed.child.kill().expect("kill -9");
    killed.child.wait().expect("its status");
    let other = place.database();
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let server = Process::start(place.command(&[]));
    let address = address(&server);
    let ended = run(place.tool(&["status"]));
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    for said in [
        &*format!("process {}", server.child.id()),
        &*format!("http://{address}\n"),
        "The server waits to start",
    ] {
        assert!(ended.stdout.contains(said), "no {said:?} in {}", ended.stdout);
    }
    other.execute_batch("ROLLBACK").expect("let go");
    // How builds are isolated is decided, and said, once, however often the server tries to start.
    let lines = server.traced("the server runs");
    let said = lines.iter().filter(|line| line.contains("run WITHOUT a sandbox")).count();
    assert_eq!(said, 1, "{lines:?}");
    server.signal("TERM");
    assert!(server.end().success());
}

#[test]
fn an_idle_server_notices_that_the_database_is_locked_and_says_so_to_monitors() {
    let place = place(&[("job", "command = \"true\"")]);
    let server = Process::start(place.command(&[]));
    let address = address(&server);
    until(|| text(&address, "/build/1"), |page| page.contains("succeeded"));
    until(|| text(&address, "/readyz"), |readiness| readiness.contains("200 OK"));
    let other = place.database();
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let readiness = until(|| text(&address, "/readyz"), |readiness| readiness.contains("503"));
    assert!(readiness.contains("The database"), "{readiness}");
    assert!(text(&address, "/healthz").contains("200 OK"), "its process answers");
    // Nobody asks anything of the server, and no task writes: it says so by itself, in its trace and on its pages.
    server.traces(&["the database accepts no write", "the database cannot be used for now"]);
    until(|| text(&address, "/"), |page| page.contains("The database cannot be used for now"));
    let readiness = text(&address, "/readyz");
    assert_eq!(readiness.matches("The database cannot be used").count(), 1, "{readiness}");
    other.execute_batch("ROLLBACK").expect("let go");
    until(|| text(&address, "/readyz"), |readiness| readiness.contains("200 OK"));
    server.trace("the database can be used again");
    until(|| text(&address, "/"), |page| !page.contains("The database cannot be used"));
    server.signal("TERM");
    assert!(server.end().success());
}

type Damage = fn(&Path);

/// How a finished build's log may be damaged.
const DAMAGES: [(&str, Damage); 6] = [
    ("removed", |path| fs::remove_file(path).expect("removed")),
    ("emptied", |path| fs::write(path, "").expect("emptied")),
    ("garbage", |path| fs::write(path, "no log at all").expect("written")),
    ("cut", |path| {
        let bytes = fs::read(path).expect("read");
        fs::write(path, &bytes[..bytes.len() / 2]).expect("cut");
    }),
    ("changed", |path| {
        let mut bytes = fs::read(path).expect("read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x55;
        fs::write(path, bytes).expect("changed");
    }),
    ("directory", |path| {
        fs::remove_file(path).expect("removed");
        fs::create_dir(path).expect("a directory");
    }),
];

#[test]
fn a_log_that_is_damaged_or_gone_is_a_sentence_on_its_page_and_words_in_the_api() {
    let place = place(&[("job", "command = \"seq 1 100000 | sha256sum; seq 1 100000\"")]);
    let server = Process::start(place.command(&[]));
    let address = address(&server);
    until(|| text(&address, "/build/1"), |page| page.contains("succeeded"));
    let path = place.rows("SELECT log_path FROM build").remove(0);
    let path = place.state().join(path);
    let whole = fs::read(&path).expect("the log");
    for (what, damage) in DAMAGES {
        damage(&path);
        let page = text(&address, "/build/1");
        assert!(
            page.starts_with("HTTP/1.0 200") || page.starts_with("HTTP/1.1 200"),
            "{what}: {page}"
        );
        let is_told = page.contains("log cannot be read: ") || page.contains("Its log is gone");
        assert!(is_told && !page.contains("It printed nothing"), "{what}: {page}");
        let raw = text(&address, "/build/1/log/raw");
        let words = raw.contains("cannot be read: ") || raw.contains("is gone");
        assert!(raw.contains(" 404 ") && words, "{what}: {raw}");
        let live = text(&address, "/build/1/log/live");
        assert!(live.contains("event: end"), "{what}: a page would ask for ever: {live}");
        let ended = run(place.tool(&["log", "1"]));
        assert_eq!(ended.status.code(), Some(1), "{what}: {}", ended.stderr);
        assert!(ended.stderr.contains("log"), "{what}: {}", ended.stderr);
        if path.is_dir() {
            fs::remove_dir(&path).expect("removed");
        }
        fs::write(&path, &whole).expect("put back");
        assert!(text(&address, "/build/1/log/raw").ends_with("99999\n100000\n"), "{what}");
    }
    server.signal("TERM");
    assert!(server.end().success());
}

#[test]
fn the_log_of_an_evaluation_and_a_product_that_are_damaged_or_gone_are_told_in_words() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.commit(&[("file", "text")]);
    let line = r#"{"job": "job", "derivation": {"command": "seq 5000 > it; echo said", "products": ["it"]}}"#;
    let program = format!("#!/bin/sh\necho begun >&2; seq 20000 | sha256sum >&2; echo '{line}'\n");
    let program = place.write("evaluator", &program);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a mode");
    let evaluator = format!(
        "[specification.evaluator]\nkind = \"command\"\ncommand = [\"sh\", \"{}\"]",
        program.display()
    );
    place.specify(&[("sample", &repository, &evaluator)]);
    let server = Process::start(place.command(&[]));
    let address = address(&server);
    until(|| text(&address, "/build/1"), |page| page.contains("succeeded"));
    let stored = |sql: &str| place.state().join(place.rows(sql).remove(0));
    let fifo: (&str, Damage) = ("a pipe", |path| {
        fs::remove_file(path).expect("removed");
        assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
    });
    for (sql, page, arguments) in [
        ("SELECT log_path FROM evaluation", "/eval/1/log", &["log", "--evaluation", "1"][..]),
        ("SELECT path FROM product", "/download/1", &[]),
        ("SELECT log_path FROM build", "/build/1/log/raw", &["log", "1"]),
    ] {
        let path = stored(sql);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("a mode");
        let folder = path.parent().expect("a folder");
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("a mode");
        let whole = fs::read(&path).expect("the file");
        for (what, damage) in DAMAGES.into_iter().chain([fifo]) {
            damage(&path);
            let said = text(&address, page);
            let words = said.contains("cannot be read: ") || said.contains("not kept");
            // A product is not read before it is sent, because it may be large. So a change of its contents is not
            // noticed.
            let silent = page == "/download/1" && what == "changed";
            assert!(silent || said.contains(" 404 ") && words, "{page} {what}: {said}");
            if !arguments.is_empty() {
                let ended = run(place.tool(arguments));
                assert_eq!(ended.status.code(), Some(1), "{page} {what}: {}", ended.stdout);
                assert!(ended.stderr.contains("log"), "{page} {what}: {}", ended.stderr);
            }
            if path.is_dir() {
                fs::remove_dir(&path).expect("removed");
            } else {
                let _ = fs::remove_file(&path);
            }
            fs::write(&path, &whole).expect("put back");
            assert!(text(&address, page).contains(" 200 "), "{page} {what}");
        }
    }
    server.signal("TERM");
    assert!(server.end().success());
}

#[test]
fn a_clock_that_goes_back_makes_no_time_negative_and_holds_nothing_up() {
    let place = Place::new();
    let gate = Gate::new(place.path("gate"));
    let job = format!("command = \"cat '{}'\"", gate.path().display());
    let repository = place.repository("sample");
    repository.jobs(&[("job", &job), ("next", "command = \"true\"\nneeds = [\"job\"]")]);
    place.specify(&[("sample", &repository, "")]);
    let server = Process::start(place.command(&["--interval", "1s"]));
    let address = address(&server);
    until(|| place.rows("SELECT status FROM build WHERE job = 'job'"), |rows| rows == &["-1"]);
    // Moves all stored times forward, as if the server's clock had been an hour ahead until now.
    place
        .database()
        .execute_batch(
            "UPDATE build SET submitted_at = submitted_at + 3600, started_at = iif(started_at, started_at + 3600, 0);
             UPDATE attempt SET started_at = started_at + 3600;
             UPDATE evaluation SET created_at = created_at + 3600, checkout_at = checkout_at + 3600,
               finished_at = iif(finished_at, finished_at + 3600, 0);
             UPDATE specification SET looked_at = looked_at + 3600, next_look_at = next_look_at + 3600",
        )
        .expect("another time");
    gate.open();
    until(|| place.jobs(1), |jobs| jobs == &["job|0", "next|0"]);
    repository.jobs(&[("later", "command = \"true\"")]);
    until(|| place.rows("SELECT status FROM evaluation"), |rows| rows == &["0", "0"]);
    until(|| place.jobs(2), |jobs| jobs == &["later|0"]);
    for table in ["build", "attempt"] {
        let negative = format!("SELECT * FROM {table} WHERE stopped_at < started_at");
        assert_eq!(place.rows(&negative), [""; 0], "{table}");
    }
    let negative =
        "SELECT * FROM evaluation WHERE finished_at < created_at OR finished_at < checkout_at";
    assert_eq!(place.rows(negative), [""; 0]);
    for path in ["/", "/queue", "/jobset/sample", "/eval/1", "/build/1", "/build/2"] {
        let page = text(&address, path);
        assert!(page.contains(" 200 "), "{page}");
        assert!(
            !page.contains(">-") && !page.contains(" -1"),
            "{path} shows a negative time: {page}"
        );
    }
    server.signal("TERM");
    within(move || assert!(server.end().success()));
}
