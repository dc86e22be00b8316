//! Which files a backup and a restore replace, and which they leave alone (A43).
#![cfg(target_os = "linux")]

use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use lockkeeper::{Database, ErrorKind, blocking_restore};
use rusqlite::Connection;
use rustix::fs::{CWD, FileType, Mode, makedev, mkfifoat, mknodat};

use crate::support::{Dir, HANG, TABLE, insert, within};

/// Makes the thing at a path.
type Make = fn(&Path);

/// Something that may be at the target's name: how it is made, and what the error says of it.
struct Case {
    name: &'static str,
    make: Make,
    why: &'static str,
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).expect("a file");
}

fn database(path: &Path, mode: &str) {
    let conn = Connection::open(path).expect("opens");
    let mode = format!("PRAGMA journal_mode = {mode}; CREATE TABLE old (x)");
    conn.execute_batch(&mode).expect("a database");
}

/// Things that a copy must not replace.
fn precious() -> Vec<Case> {
    let case = |name, make, why| Case { name, make, why };
    vec![
        case("text", |p| write(p, "my notes\n".repeat(900).as_bytes()), "no SQLite database"),
        case("short text", |p| write(p, b"SQLite"), "no SQLite database"),
        case("nearly", |p| write(p, b"SQLite format 4\0and more"), "no SQLite database"),
        case("zeros", |p| write(p, &[0; 8192]), "no SQLite database"),
        case("a directory", |p| std::fs::create_dir(p).expect("made"), "is a directory"),
        case("a FIFO", |p| mkfifoat(CWD, p, Mode::RUSR | Mode::WUSR).expect("made"), "is a FIFO"),
        case(
            "a socket",
            |p| drop(std::os::unix::net::UnixListener::bind(p).expect("made")),
            "is a socket",
        ),
        case("a link to a device", |p| symlink("/dev/full", p).expect("made"), "is a device"),
        case("a device", device, "is a device"),
        case(
            "a link to text",
            |p| {
                write(&p.with_file_name("notes.txt"), b"my notes");
                symlink("notes.txt", p).expect("made");
            },
            "no SQLite database",
        ),
        case("a circle", |p| symlink(p, p).expect("made"), "circle"),
        case("a link into nothing", |p| symlink("no/such.db", p).expect("made"), "directory"),
        case("a database in use", |p| std::mem::forget(in_use(p)), "-wal"),
        case("what a crash left", |p| write(&with(p, "-journal"), b"x"), "-journal"),
        case("a stale WAL", |p| write(&with(p, "-wal"), b"x"), "-wal"),
    ]
}

/// Makes a device node. Only root may do that; otherwise a link to a device takes its place.
fn device(path: &Path) {
    let mode = Mode::RUSR | Mode::WUSR;
    if mknodat(CWD, path, FileType::CharacterDevice, mode, makedev(1, 7)).is_err() {
        symlink("/dev/full", path).expect("a link");
    }
}

fn with(path: &Path, end: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(end);
    path.into()
}

fn in_use(path: &Path) -> Connection {
    let conn = Connection::open(path).expect("opens");
    conn.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE old (x)").expect("a database");
    conn
}

/// The state of a directory, for comparison: names, kinds, inodes, sizes, and the bytes of the files.
fn state(dir: &Path) -> Vec<String> {
    let mut state: Vec<String> = std::fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let about = path.symlink_metadata().expect("it is there");
            let kind = about.file_type();
            let bytes = match kind.is_file() && !path.to_string_lossy().ends_with("-shm") {
                true => std::fs::read(&path).expect("bytes"),
                false => Vec::new(),
            };
            let special = (kind.is_fifo(), kind.is_socket(), kind.is_char_device());
            format!("{path:?} {kind:?} {special:?} {} {} {bytes:?}", about.ino(), about.len())
        })
        .collect();
    state.sort();
    state
}

fn source(dir: &Dir) -> (Database, PathBuf) {
    let db = Database::blocking_open(dir.file("source.db")).expect("opens");
    db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("a table");
    db.blocking_write(|tx| insert(tx, 7)).expect("a row");
    let copy = dir.file("copy.db");
    db.backup(&copy).blocking_run().expect("a backup");
    (db, copy)
}

/// Puts a copy at `to` by a backup and by a restore. Returns the errors.
fn put(db: &Database, copy: &Path, to: &Path) -> [Option<lockkeeper::Error>; 2] {
    [db.backup(to).blocking_run().err(), blocking_restore(copy, to).err()]
}

fn rows(path: &Path) -> i64 {
    let conn = Connection::open(path).expect("opens");
    conn.query_row("SELECT max(id) FROM t", [], |row| row.get(0)).expect("a row")
}

#[test]
fn a43_what_is_no_database_is_left_alone() {
    within(HANG, || {
        let home = Dir::new();
        let (db, copy) = source(&home);
        for Case { name, make, why } in precious() {
            let dir = Dir::new();
            let target = dir.file("target");
            make(&target);
            let before = state(dir.path());
            for error in put(&db, &copy, &target) {
                let error = error.unwrap_or_else(|| panic!("{name} was replaced"));
                assert_eq!(error.kind(), ErrorKind::Backup, "{name}: {error}");
                assert!(error.to_string().contains(why), "{name}: {error}");
                assert_eq!(state(dir.path()), before, "{name}");
            }
        }
        db.blocking_close().expect("closes");
    });
}

#[test]
fn a43_what_belongs_to_an_open_database_is_left_alone() {
    within(HANG, || {
        let home = Dir::new();
        let (db, copy) = source(&home);
        let other = Database::blocking_open(home.file("other.db")).expect("opens");
        other.blocking_write(|tx| tx.execute_batch(TABLE)).expect("a table");
        let before = state(home.path());
        for file in ["source.db", "other.db"] {
            for end in ["", "-wal", "-shm", "-journal"] {
                let target = home.file(&format!("{file}{end}"));
                for error in put(&db, &copy, &target) {
                    let error = error.unwrap_or_else(|| panic!("{target:?} was replaced"));
                    assert_eq!(error.kind(), ErrorKind::Backup, "{error}");
                    assert_eq!(state(home.path()), before, "{target:?}");
                }
            }
        }
        other.blocking_close().expect("closes");
        // No connection has the other database open now, but by their names these files are still parts of it.
        for end in ["-wal", "-shm", "-journal"] {
            let error = db.backup(home.file(&format!("other.db{end}"))).blocking_run();
            let error = error.expect_err("a part of another database");
            assert!(error.to_string().contains("a part of the database"), "{error}");
        }
        db.backup(home.file("other.db")).blocking_run().expect("it is closed");
        assert_eq!(rows(&home.file("other.db")), 7);
        db.blocking_close().expect("closes");
    });
}

#[test]
fn a43_what_is_absent_empty_or_a_database_is_replaced() {
    within(HANG, || {
        let home = Dir::new();
        let (db, copy) = source(&home);
        let makes: [(&str, Make); 9] = [
            ("absent", |_| {}),
            ("empty", |p| write(p, b"")),
            ("a database", |p| database(p, "DELETE")),
            ("a database in WAL mode", |p| database(p, "WAL")),
            ("a damaged database", |p| {
                database(p, "DELETE");
                let mut bytes = std::fs::read(p).expect("bytes");
                bytes[16..].fill(0x5a);
                write(p, &bytes);
            }),
            ("a database cut off", |p| write(p, b"SQLite format 3\0")),
            ("a link to a database", |p| {
                database(&p.with_file_name("real.db"), "DELETE");
                symlink("real.db", p).expect("made");
            }),
            ("a link to what is absent", |p| symlink("real.db", p).expect("made")),
            ("a hard link", |p| {
                database(&p.with_file_name("kept.db"), "DELETE");
                std::fs::hard_link(p.with_file_name("kept.db"), p).expect("made");
            }),
        ];
        for (name, make) in makes {
            for restore in [false, true] {
                let dir = Dir::new();
                let target = dir.file("target");
                make(&target);
                let is_link = target.is_symlink();
                let done = match restore {
                    true => blocking_restore(&copy, &target).map(drop),
                    false => db.backup(&target).blocking_run().map(drop),
                };
                done.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!((rows(&target), target.is_symlink()), (7, is_link), "{name}");
                let kept = dir.file("kept.db");
                if kept.exists() {
                    let conn = Connection::open(&kept).expect("opens");
                    assert!(conn.table_exists(None, "old").expect("a look"), "the other name");
                }
                let names = std::fs::read_dir(dir.path()).expect("a directory").count();
                assert!(names <= 2, "{name} left something beside it");
            }
        }
        db.blocking_close().expect("closes");
    });
}

/// The target is checked through SQLite, because closing a descriptor of it in this process would drop the locks of
/// other connections.
#[test]
fn a43_looking_at_a_target_drops_no_locks() {
    within(HANG, || {
        let home = Dir::new();
        let (db, copy) = source(&home);
        let target = home.file("locked.db");
        database(&target, "DELETE");
        let conn = Connection::open(&target).expect("opens");
        conn.execute_batch("BEGIN; SELECT * FROM old").expect("a shared lock");
        // The locks as the system lists them, not as SQLite does.
        let locks = || std::fs::read_to_string("/proc/locks").expect("the locks of the system");
        let inode = format!(":{} ", std::fs::metadata(&target).expect("it is there").ino());
        assert!(locks().contains(&inode), "the connection has no lock");
        blocking_restore(&copy, &target).expect("it is a database, and shows no sign of use");
        assert!(locks().contains(&inode), "the lock went with the look");
        drop(conn);
        db.blocking_close().expect("closes");
    });
}

/// The target is checked before the copy, and again before the copy is put in place.
#[test]
fn a43_what_comes_to_the_target_while_it_is_copied_is_left_alone() {
    within(HANG, || {
        let home = Dir::new();
        let (db, copy) = source(&home);
        let comes: [(&str, Make); 4] = [
            ("text", |p| write(p, b"my notes")),
            ("a database", |p| database(p, "DELETE")),
            ("a directory", |p| std::fs::create_dir(p).expect("made")),
            ("a FIFO", |p| mkfifoat(CWD, p, Mode::RUSR).expect("made")),
        ];
        for (name, come) in comes {
            let (target, other) = (home.file("target"), home.file("other"));
            let at = target.clone();
            let mut once = Some(move || come(&at));
            let backup =
                db.backup(&target).progress(move |_| once.take().into_iter().for_each(|f| f()));
            let error = backup.blocking_run().expect_err(name);
            assert_eq!(error.kind(), ErrorKind::Backup, "{name}: {error}");
            let kept = std::fs::symlink_metadata(&target).expect("it is there");
            // The other way round: a file that was at the target is replaced by something else during the copy.
            std::fs::rename(&target, &other).expect("a rename");
            database(&target, "DELETE");
            let (from, to) = (other.clone(), target.clone());
            let mut once = Some(move || std::fs::rename(from, to));
            if kept.is_dir() {
                std::fs::remove_dir(&other).expect("removed");
                std::fs::remove_file(&target).expect("removed");
                continue;
            }
            let restore = lockkeeper::Restore::new(&copy, &target);
            let restore = restore.progress(move |_| {
                once.take().into_iter().for_each(|f| f().expect("a rename"));
            });
            let error = restore.blocking_run().expect_err(name);
            assert_eq!(error.kind(), ErrorKind::Backup, "{name}: {error}");
            let now = std::fs::symlink_metadata(&target).expect("it is there");
            assert_eq!((kept.ino(), kept.len()), (now.ino(), now.len()), "{name}");
            std::fs::remove_file(&target).expect("removed");
        }
        db.blocking_close().expect("closes");
    });
}

/// The mode, the owner and the group of a file.
fn rights(path: &Path) -> (u32, u32, u32) {
    let about = std::fs::metadata(path).expect("it is there");
    (about.mode() & 0o777, about.uid(), about.gid())
}

/// If an administrator restores a file, its owner and its mode stay, so the program can still use it and others still
/// cannot read it.
#[test]
fn a43_what_is_replaced_keeps_its_owner_and_its_mode() {
    use std::os::unix::fs::{PermissionsExt, chown};

    within(HANG, || {
        let home = Dir::new();
        let (db, copy) = source(&home);
        let is_root = rustix::process::geteuid().is_root();
        for mode in [0o600, 0o640, 0o660, 0o644, 0o664, 0o444] {
            for restore in [false, true] {
                let dir = Dir::new();
                let target = dir.file("target");
                database(&target, "DELETE");
                if is_root {
                    chown(&target, Some(1234), Some(4321)).expect("root may");
                }
                let permissions = std::fs::Permissions::from_mode(mode);
                std::fs::set_permissions(&target, permissions).expect("it is ours");
                let before = rights(&target);
                match restore {
                    true => blocking_restore(&copy, &target).map(drop).expect("restored"),
                    false => db.backup(&target).blocking_run().map(drop).expect("a backup"),
                }
                assert_eq!(rights(&target), before, "{mode:o}, restore: {restore}");
                assert_eq!(rows(&target), 7);
            }
        }
        db.blocking_close().expect("closes");
    });
}

/// Neither the finished copy nor the file in which it is made can be read by users who may not read the source.
#[test]
fn a43_a_copy_is_readable_for_nobody_who_may_not_read_the_source() {
    use std::os::unix::fs::PermissionsExt;

    within(HANG, || {
        for mode in [0o600, 0o640, 0o400] {
            let home = Dir::new();
            let (db, copy) = source(&home);
            for source in [home.file("source.db"), copy.clone()] {
                let permissions = std::fs::Permissions::from_mode(mode);
                std::fs::set_permissions(source, permissions).expect("it is ours");
            }
            for old in [None, Some(0o600)] {
                let dir = Dir::new();
                let target = dir.file("target");
                if let Some(old) = old {
                    database(&target, "DELETE");
                    let permissions = std::fs::Permissions::from_mode(old);
                    std::fs::set_permissions(&target, permissions).expect("it is ours");
                }
                let inside = dir.path().to_owned();
                let look = move || {
                    let files = std::fs::read_dir(&inside).expect("a directory");
                    let modes = files.map(|file| rights(&file.expect("an entry").path()).0);
                    let open = modes.filter(|of| of & 0o777 & !(mode | 0o600) != 0).count();
                    assert_eq!(open, 0, "{mode:o}, over {old:?}");
                };
                let during = look.clone();
                let backup = db.backup(&target).progress(move |_| during());
                backup.blocking_run().expect("a backup");
                look();
                let restore = lockkeeper::Restore::new(&copy, &target);
                let during = look.clone();
                restore.progress(move |_| during()).blocking_run().expect("restored");
                look();
            }
            db.blocking_close().expect("closes");
        }
    });
}

/// The copy is first made under a longer name, to which SQLite appends a suffix.
#[test]
fn a43_whatever_sqlite_can_open_can_be_a_target() {
    within(HANG, || {
        let home = Dir::new();
        let (db, copy) = source(&home);
        let mut deep = home.path().to_owned();
        while deep.as_os_str().len() < 440 {
            deep.push("d".repeat(30));
        }
        std::fs::create_dir_all(&deep).expect("directories");
        let names = [1, 230, 238, 239, 240, 246, 247].map(|n| home.file(&"n".repeat(n)));
        let others = [121, 123].map(|n| home.file(&"\u{e9}".repeat(n)));
        let room = |path: usize| path - deep.as_os_str().len() - 1;
        let paths = [480, 488, 503, 504].map(|n| deep.join("p".repeat(room(n))));
        for path in names.iter().chain(&others).chain(&paths) {
            for error in put(&db, &copy, path) {
                assert!(error.is_none(), "{}: {error:?}", path.as_os_str().len());
            }
            assert_eq!(rows(path), 7);
            let opened = Database::blocking_open(path).expect("a database as any");
            opened.blocking_close().expect("closes");
        }
        let long =
            [(home.file(&"n".repeat(248)), "248 bytes"), (home.file(&"n".repeat(300)), "300")];
        let far = [(deep.join("p".repeat(room(505))), "505 bytes")];
        for (path, said) in long.into_iter().chain(far) {
            let opened = Database::blocking_open(&path).map(drop).err();
            for error in put(&db, &copy, &path).into_iter().chain([opened]) {
                let text = error.expect("SQLite could not open it").to_string();
                assert!(text.contains(said) && text.contains("at most"), "{text}");
            }
        }
        db.blocking_close().expect("closes");
    });
}
