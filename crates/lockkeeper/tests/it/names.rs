//! However a file is named, every guard recognizes it as the same file (A41). A backup is put only where there is no
//! file or a database (A43).
#![cfg(target_os = "linux")]

use std::ffi::OsString;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use lockkeeper::{Database, ErrorKind, blocking_restore};

use crate::support::{Dir, HANG, TABLE, block_on, count, insert, warnings_of_the_file, within};

/// Names that a file may have, some of which SQLite, a URL parser or a shell would treat specially.
fn names() -> Vec<OsString> {
    let mut names: Vec<OsString> = [
        "app.db",
        "APP.DB",
        "file:app.db",
        "file:app.db?mode=memory",
        "FILE:app.db",
        "sqlite:app.db",
        ":memory:",
        "a b.db",
        "a?mode=ro#x.db",
        "a%20b%2f.db",
        "äö.db",
    ]
    .map(OsString::from)
    .into();
    names.push(OsString::from_vec(b"a\xff\xfe.db".to_vec()));
    names
}

/// A relative path to `to`, which leads from the current directory up to the root and down again.
fn from_here(to: &Path) -> PathBuf {
    let here = std::env::current_dir().expect("a current directory");
    let up: PathBuf = here.components().skip(1).map(|_| "..").collect();
    up.join(to.strip_prefix("/").expect("an absolute path"))
}

/// Ways to name the file `name` in `dir`. Some go through links, which are made here.
fn spellings(dir: &Path, name: &OsString) -> Vec<(&'static str, PathBuf)> {
    let file = dir.join(name);
    let joined = |before: &str, after: &str| {
        let mut text = OsString::from(before);
        text.push(dir.as_os_str());
        text.push(after);
        text.push(name);
        PathBuf::from(text)
    };
    for sub in ["sub", "links"] {
        std::fs::create_dir_all(dir.join(sub)).expect("a directory");
    }
    let link = |target: &Path, at: &str| {
        let at = dir.join("links").join(at);
        symlink(target, &at).expect("a link");
        at
    };
    let up = Path::new("..").join(name);
    let here = link(dir, "dir");
    vec![
        ("absolute", file.clone()),
        ("relative", from_here(&file)),
        ("a dot", joined("", "/./")),
        ("two dots", joined("", "/sub/../")),
        ("double slashes", joined("/", "//sub//..///")),
        ("a link", link(&file, "absolute")),
        ("a relative link", link(&up, "relative")),
        ("a link to a link", link(Path::new("relative"), "second")),
        ("a chain of links", link(&dir.join("links/second"), "third")),
        ("a link to its directory", here.join(name)),
        ("two dots behind a link", link(&dir.join("sub"), "sub").join("..").join(name)),
    ]
}

/// The names of the files in a directory, without its subdirectories.
fn files(dir: &Path) -> Vec<OsString> {
    let entries = std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("one"));
    let is_dir = |path: PathBuf| path.is_dir();
    let mut files: Vec<_> =
        entries.filter(|entry| !is_dir(entry.path())).map(|entry| entry.file_name()).collect();
    files.sort();
    files
}

fn with(name: &OsString, end: &str) -> OsString {
    let mut name = name.clone();
    name.push(end);
    name
}

/// Opens the file by one spelling, and checks that it is guarded by every other spelling.
fn check_guards(
    dir: &Path,
    name: &OsString,
    (way, path): &(&str, PathBuf),
    all: &[(&str, PathBuf)],
) {
    let what = format!("{name:?} by {way}");
    let real = dir.join(name);
    let db = Database::builder(path).readers(1).blocking_open();
    let db = db.unwrap_or_else(|error| panic!("{what}: {error}"));
    db.blocking_write(|tx| {
        tx.execute_batch("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, v)")?;
        insert(tx, 1 + tx.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0))?)
    })
    .expect("a write");
    assert_eq!(files(dir), [name.clone(), with(name, "-shm"), with(name, "-wal")], "{what}");
    let wal = std::fs::metadata(dir.join(with(name, "-wal"))).expect("a WAL").len();
    assert!(wal > 0 && db.stats().wal_bytes == wal, "{what}: {} of {wal}", db.stats().wal_bytes);
    let hard = dir.join("sub/hard");
    std::fs::hard_link(&real, &hard).expect("a hard link");
    let copy = dir.join("sub/copy");
    db.backup(&copy).blocking_run().expect("a backup");
    for (other, path) in all.iter().map(|(way, path)| (*way, path)).chain([("a hard link", &hard)])
    {
        let what = format!("{what}, then by {other}");
        let error = Database::blocking_open(path).expect_err(&what);
        assert_eq!(error.kind(), ErrorKind::AlreadyOpen, "{what}: {error}");
        let error = db.backup(path).blocking_run().expect_err(&what);
        assert_eq!(error.kind(), ErrorKind::Backup, "{what}: {error}");
        let error = blocking_restore(&copy, path).expect_err(&what);
        assert_eq!(error.kind(), ErrorKind::Backup, "{what}: {error}");
        let from = blocking_restore(path, dir.join("sub/from"));
        match other {
            // By a hard link SQLite would not find the WAL.
            "a hard link" => {
                let error = from.expect_err("a second WAL");
                assert!(error.to_string().contains("hard link to"), "{what}: {error}");
            }
            _ => drop(from.unwrap_or_else(|error| panic!("{what}, as a source: {error}"))),
        }
    }
    db.blocking_close().expect("closes");
    std::fs::remove_file(&hard).expect("the hard link");
    for (other, path) in all {
        let what = format!("{what}, then from {other}");
        let error = blocking_restore(path, &real).expect_err(&what);
        assert!(error.to_string().contains("its own place"), "{what}: {error}");
    }
    // A restore to a link replaces the file to which it leads and keeps the link.
    let link = path.symlink_metadata().expect("it is there").file_type();
    blocking_restore(&copy, path).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(path.symlink_metadata().expect("it is there").file_type(), link, "{what}");
    assert_eq!(files(dir), std::slice::from_ref(name), "{what}");
}

#[test]
fn a41_a_file_is_one_file_to_every_guard_however_it_is_spelled() {
    for (n, name) in names().into_iter().enumerate() {
        within(HANG, move || {
            let dir = Dir::new();
            let root = dir.path().canonicalize().expect("a directory");
            let all = spellings(&root, &name);
            // The long form checks every spelling with every name, the default form each spelling with some of the
            // names.
            let few = count(5, 1);
            for spelling in all.iter().skip(n % few).step_by(few) {
                // The file is removed, so that a link leads nowhere when the file is opened.
                std::fs::remove_file(root.join(&name)).ok();
                check_guards(&root, &name, spelling, &all);
            }
        });
    }
}

/// URLs, and what the error tells the caller to write instead.
fn urls(dir: &Path) -> Vec<(String, String)> {
    let abs = dir.join("url.db").display().to_string();
    let here = |name: &str| name.to_owned();
    vec![
        (here("file:url.db"), here("`url.db`")),
        (format!("file:{abs}"), format!("`{abs}`")),
        (format!("file://{abs}"), format!("`{abs}`")),
        (format!("file://localhost{abs}"), format!("`{abs}`")),
        (here("file:url.db?mode=ro&cache=private"), here("`url.db`")),
        (here("file:url.db?nolock=1"), here("`url.db`")),
        (here("file:my%20url.db#x"), here("`my url.db`")),
        (here("file::memory:"), here("`:memory:`")),
        (here("file:shared?mode=memory&cache=shared"), here("`:memory:`")),
        (here("FILE:url.db"), here("`url.db`")),
        (here("File:url.db"), here("`url.db`")),
        (here("file:"), here("a path")),
        // The error does not suggest a path that would be refused as well.
        (here("file:."), here("a path")),
        (here("file:///"), here("a path")),
        (here("file:%00"), here("a path")),
        (here("file:file:url.db"), here("a path")),
        (here("sqlite:url.db"), here("`url.db`")),
        (here("sqlite://url.db"), here("`url.db`")),
        (format!("sqlite://{abs}"), format!("`{abs}`")),
        (here("sqlite::memory:"), here("`:memory:`")),
        (here("SQLite://:memory:"), here("`:memory:`")),
        (here("jdbc:sqlite:url.db"), here("`url.db`")),
        (here("http://example.org/url.db"), here("a path")),
    ]
}

#[test]
fn a41_urls_are_refused_with_what_to_write_instead() {
    within(HANG, || {
        let dir = Dir::new();
        let db = Database::blocking_open(dir.file("source.db")).expect("opens");
        db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("a table");
        let copy = dir.file("copy.db");
        db.backup(&copy).blocking_run().expect("a backup");
        for (url, instead) in urls(dir.path()) {
            let refusals = [
                (Database::blocking_open(&url).err(), ErrorKind::Open),
                (block_on(Database::builder(&url).open()).err(), ErrorKind::Open),
                (db.backup(&url).blocking_run().err(), ErrorKind::Backup),
                (blocking_restore(&url, dir.file("to.db")).err(), ErrorKind::Backup),
                (blocking_restore(&copy, &url).err(), ErrorKind::Backup),
            ];
            for (n, (error, kind)) in refusals.into_iter().enumerate() {
                let error = error.unwrap_or_else(|| panic!("{url} passes {n}"));
                assert_eq!(error.kind(), kind, "{error}");
                let said = error.to_string();
                assert!(said.contains(&instead) && said.contains(&url), "{n}: {said}");
            }
        }
        assert_eq!(files(dir.path()), ["copy.db", "source.db", "source.db-shm", "source.db-wal"]);
        db.blocking_close().expect("closes");
    });
}

#[test]
fn a41_a_path_that_names_no_file_is_told_so() {
    within(HANG, || {
        let dir = Dir::new();
        let path = |name: &str| dir.file(name);
        std::fs::create_dir(path("dir")).expect("a directory");
        symlink(path("dir"), path("to-dir")).expect("a link");
        symlink("loop", path("loop")).expect("a link");
        symlink("none/app.db", path("nowhere")).expect("a link");
        rustix::fs::mkfifoat(rustix::fs::CWD, path("fifo"), rustix::fs::Mode::RUSR)
            .expect("a FIFO");
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).expect("a socket");
        let joined = |end: &str| PathBuf::from(format!("{}{end}", dir.path().display()));
        for (path, why) in [
            (PathBuf::new(), "the path is empty"),
            (PathBuf::from("a\0.db"), "NUL"),
            (PathBuf::from("."), "directory"),
            (PathBuf::from(".."), "directory"),
            (PathBuf::from("/"), "directory"),
            (joined("/app.db/"), "directory"),
            (joined("/app.db/."), "directory"),
            (joined("/app.db//"), "directory"),
            (path("dir"), "directory"),
            (path("to-dir"), "directory"),
            (path("loop"), "circle"),
            (path("nowhere"), "directory does not exist"),
            (path("none/app.db"), "directory does not exist"),
            (path("fifo"), "FIFO"),
            (path("socket"), "socket"),
            (PathBuf::from("/dev/null"), "device"),
            (PathBuf::from(":Memory:"), "`:memory:`"),
        ] {
            let error = Database::blocking_open(&path).expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Open, "{path:?}: {error}");
            assert!(error.to_string().contains(why), "{path:?}: {error}");
        }
        let names = ["fifo", "loop", "nowhere", "socket"].map(OsString::from);
        assert_eq!(files(dir.path()), names);
    });
}

/// The environment variable that makes this test binary change its directory, and names the directory.
const CHILD: &str = "LOCKKEEPER_NAMES_DIR";

/// Does nothing as a test. In a process of its own it opens a database by a relative path and changes its directory.
#[test]
fn child_that_changes_its_directory() {
    let Some(dir) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let [first, second] = ["first", "second"].map(|name| dir.join(name));
    std::env::set_current_dir(&first).expect("a directory");
    let builder = Database::builder("app.db").readers(1);
    std::env::set_current_dir(&second).expect("a directory");
    let db = builder.blocking_open().expect("opens");
    db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("a table");
    std::env::set_current_dir(&first).expect("a directory");
    let backup = db.backup("copy.db");
    let restore = lockkeeper::Restore::new("copy.db", "again.db");
    std::env::set_current_dir(&dir).expect("a directory");
    // Opens further connections and uses the path in every other way.
    let held = [(); 3].map(|()| block_on(db.snapshot()).expect("a snapshot"));
    db.blocking_write(|tx| insert(tx, 1)).expect("a write");
    assert!(db.stats().wal_bytes > 0);
    backup.blocking_run().expect("a backup");
    restore.blocking_run().expect("a restore");
    drop(held);
    let error = Database::blocking_open("first/app.db").expect_err("it is open");
    assert_eq!(error.kind(), ErrorKind::AlreadyOpen, "{error}");
    assert_eq!(warnings_of_the_file(&db), Vec::<String>::new());
    db.blocking_close().expect("closes");
}

#[test]
fn a41_a_relative_path_counts_from_where_it_was_named() {
    let dir = Dir::new();
    for name in ["first", "second"] {
        std::fs::create_dir(dir.file(name)).expect("a directory");
    }
    let mut child = std::process::Command::new(std::env::current_exe().expect("this test"));
    child.args(["--exact", "names::child_that_changes_its_directory", "--nocapture"]);
    let output = child.env(CHILD, dir.path()).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(files(&dir.file("first")), ["again.db", "app.db", "copy.db"]);
    assert_eq!(files(&dir.file("second")), [""; 0]);
}

/// The text of such a link in /proc is a name at which there is no file, or another file.
#[test]
fn a41_a_link_to_a_file_without_a_name_is_refused() {
    within(HANG, || {
        let dir = Dir::new();
        let file = std::fs::File::create(dir.file("gone.db")).expect("a file");
        let link = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let db = Database::blocking_open(&link).expect("it has a name");
        db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("a table");
        db.blocking_close().expect("closes");
        std::fs::remove_file(dir.file("gone.db")).expect("it is there");
        let error = Database::blocking_open(&link).expect_err("its name is gone");
        assert_eq!(error.kind(), ErrorKind::Open, "{error}");
        assert!(error.to_string().contains("without a name"), "{error}");
        assert_eq!(files(dir.path()), [""; 0]);
    });
}
