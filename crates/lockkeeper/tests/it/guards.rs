//! One instance per file and process, and only SQLite opens the file.
#![cfg(unix)]

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier, mpsc};

use lockkeeper::{Builder, Database, ErrorKind};

use crate::support::{Dir, HANG, TABLE, block_on, ids, insert, kind, within};

/// Checks that `path` cannot be opened, because the file is open as `first`.
fn refused(path: &Path, first: &Path) {
    let error = Database::blocking_open(path).expect_err("a second instance");
    assert_eq!(error.kind(), ErrorKind::AlreadyOpen, "{error}");
    let said = error.to_string();
    assert!(said.contains(&first.display().to_string()), "{said} names {}", first.display());
    // The error names the place in the program where the file was opened.
    assert!(said.contains("guards.rs:"), "{said}");
}

#[test]
fn a36_a_second_instance_is_refused_and_told_of_the_first() {
    within(HANG, || {
        let dir = Dir::new();
        let file = dir.file("app.db");
        let (link, hard, inside) = (dir.file("link.db"), dir.file("hard.db"), dir.file("inside"));
        // The link's target does not exist yet.
        symlink("app.db", &link).expect("a link");
        std::fs::create_dir(&inside).expect("a directory");
        symlink(dir.path(), inside.join("up")).expect("a link");
        let db = Database::blocking_open(&link).expect("opens");
        db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("a table");
        std::fs::hard_link(&file, &hard).expect("a hard link");
        for path in
            [&file, &link, &hard, &inside.join("up/app.db"), &dir.file("./inside/../app.db")]
        {
            refused(path, &link);
        }
        assert_eq!(kind(block_on(Database::open(&file))), ErrorKind::AlreadyOpen);
        // The refusals harm neither the first instance nor another file.
        db.blocking_write(|tx| insert(tx, 1)).expect("a write");
        Database::blocking_open(dir.file("other.db")).expect("opens").blocking_close().expect("ok");
        db.blocking_close().expect("closes");
        let again = Database::blocking_open(&hard).expect("the file was given back");
        assert_eq!(ids(&again), [1]);
        refused(&file, &hard);
        again.blocking_close().expect("closes");
    });
}

#[test]
fn a36_a_file_whose_last_handle_went_is_waited_for() {
    within(HANG, || {
        let dir = Dir::new();
        let file = dir.file("app.db");
        for n in 0..50 {
            let db = Database::blocking_open(&file).expect("opens");
            db.blocking_write(move |tx| {
                tx.execute_batch("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, v)")?;
                insert(tx, n)
            })
            .expect("a write");
            drop(db);
        }
        // The file stays in use while an accepted call runs.
        let db = Database::blocking_open(&file).expect("opens");
        let (release, released) = mpsc::channel::<()>();
        let (begun, has_begun) = mpsc::channel();
        let running = db.clone();
        let thread = std::thread::spawn(move || {
            running.blocking_exclusive(move |_| {
                let _ = begun.send(());
                let _ = released.recv();
                Ok(())
            })
        });
        has_begun.recv().expect("it runs");
        let closing = std::thread::spawn(move || db.blocking_close());
        let patience = std::time::Duration::from_millis(20);
        let mut tries = 0;
        let error = loop {
            let opened = Database::builder(&file).busy_timeout(patience).blocking_open();
            let error = opened.expect_err("still in use");
            tries += 1;
            // Until the close has begun, the error is another one.
            if error.to_string().contains("being closed") || tries > 1000 {
                break error;
            }
        };
        assert!(error.to_string().contains("being closed"), "{error}");
        let waiting = std::thread::spawn(move || Database::blocking_open(&file));
        release.send(()).expect("it waits");
        thread.join().expect("no panic").expect("it ran");
        closing.join().expect("no panic").expect("closes");
        let db = waiting.join().expect("no panic").expect("opens when the other is gone");
        assert_eq!(ids(&db).len(), 50);
        db.blocking_close().expect("closes");
    });
}

#[test]
fn a36_of_many_openers_of_a_new_file_one_gets_it() {
    within(HANG, || {
        for _ in 0..20 {
            let dir = Dir::new();
            symlink("app.db", dir.file("link.db")).expect("a link");
            let start = Arc::new(Barrier::new(8));
            let openers: Vec<_> = (0..8)
                .map(|n| {
                    let start = Arc::clone(&start);
                    let path: PathBuf = dir.file(["app.db", "link.db"][n % 2]);
                    std::thread::spawn(move || {
                        start.wait();
                        Database::builder(path).readers(1).blocking_open()
                    })
                })
                .collect();
            let opened: Vec<_> =
                openers.into_iter().map(|opener| opener.join().expect("no panic")).collect();
            let got = opened.iter().filter(|opened| opened.is_ok()).count();
            assert_eq!(got, 1, "{opened:?}");
            for error in opened.iter().filter_map(|opened| opened.as_ref().err()) {
                assert_eq!(error.kind(), ErrorKind::AlreadyOpen, "{error}");
            }
        }
    });
}

/// Counts how often files in a directory are opened, as the kernel reports it (inotify(7)).
#[cfg(target_os = "linux")]
mod kernel {
    use std::mem::MaybeUninit;
    use std::os::fd::OwnedFd;
    use std::path::Path;

    use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};

    pub(super) struct Opens(OwnedFd);

    impl Opens {
        pub(super) fn watch(dir: &Path) -> Self {
            let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).expect("inotify");
            // inotify merges equal events that follow each other. With reads and closes in between, no two opens are
            // merged.
            let events = WatchFlags::OPEN | WatchFlags::ACCESS | WatchFlags::CLOSE;
            add_watch(&inotify, dir, events).expect("a watch");
            Self(inotify)
        }

        /// How often the file called `name` was opened since this was last asked.
        pub(super) fn of(&mut self, name: &str) -> usize {
            let mut buffer = [MaybeUninit::uninit(); 64 << 10];
            let mut events = Reader::new(&self.0, &mut buffer);
            let mut count = 0;
            while let Ok(event) = events.next() {
                let called = event.file_name().map(std::ffi::CStr::to_bytes);
                assert!(!event.events().contains(ReadFlags::QUEUE_OVERFLOW), "events were lost");
                let opened = event.events().contains(ReadFlags::OPEN);
                count += usize::from(opened && called == Some(name.as_bytes()));
            }
            count
        }
    }
}

/// If the library opened the file itself and closed the descriptor, SQLite's locks on the file would be dropped.
#[test]
#[cfg(target_os = "linux")]
fn a37_nobody_but_sqlite_opens_the_file() {
    use crate::support::fault_vfs;

    within(HANG, || {
        let dir = Dir::new();
        let plan = fault_vfs::Plan::of(dir.path());
        let mut opens = kernel::Opens::watch(dir.path());
        let file = dir.file("test.db");
        // With one reader, connections are opened one after another.
        let open = || {
            let builder = Database::builder(&file).vfs(fault_vfs::NAME);
            builder.readers(1).readers_max(1).blocking_open()
        };
        let db = open().expect("opens");
        let mut seen = opens.of("test.db");
        db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("a table");
        for n in 0..100 {
            db.blocking_write(move |tx| insert(tx, n)).expect("a write");
        }
        for _ in 0..20 {
            block_on(db.read(|s| s.table_exists(None, "t")).short()).expect("a read");
        }
        seen += opens.of("test.db");
        let snapshots = [(); 2].map(|()| block_on(db.snapshot()).expect("a snapshot"));
        seen += opens.of("test.db");
        for snapshot in &snapshots {
            assert_eq!(snapshot.blocking_read(|s| s.table_exists(None, "t")).ok(), Some(true));
        }
        assert_eq!(kind(open()), ErrorKind::AlreadyOpen);
        db.blocking_exclusive(|conn| conn.execute_batch("VACUUM")).expect("a vacuum");
        db.backup(dir.file("copy.db")).blocking_run().expect("a backup");
        assert_eq!(kind(db.backup(&file).blocking_run()), ErrorKind::Backup);
        seen += opens.of("test.db");
        drop(snapshots);
        db.blocking_close().expect("closes");
        seen += opens.of("test.db");
        let by_sqlite = plan.opens("test.db");
        assert!(by_sqlite >= 4, "the writer, a reader, two snapshots: {by_sqlite}");
        assert_eq!(seen, by_sqlite, "opens that the kernel saw, and those of SQLite");
        // Checks the watch itself: it must see this opening of the file.
        drop(std::fs::File::open(&file).expect("opens"));
        assert_eq!(opens.of("test.db"), 1);
    });
}

/// A builder for `file` whose `setup` attaches `side`.
fn attaching(file: &Path, side: &Path) -> Builder {
    let side = side.to_str().expect("a path in UTF-8").to_owned();
    let builder = Database::builder(file).busy_timeout(HANG);
    builder.setup(move |conn| conn.execute("ATTACH ?1 AS side", [&side]).map(drop))
}

/// `BEGIN IMMEDIATE` also locks attached files. If two databases attached each other's file, each would hold one lock
/// and wait for the other.
#[test]
fn a36_a_file_that_a_setup_attaches_is_not_open_beside_it() {
    within(HANG, || {
        let dir = Dir::new();
        let [a, b, link] = ["a.db", "b.db", "link.db"].map(|name| dir.file(name));
        for file in [&a, &b] {
            let db = Database::blocking_open(file).expect("opens");
            db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("a table");
            db.blocking_close().expect("closes");
        }
        symlink(&b, &link).expect("a link");
        for itself in [&a, &dir.file("./a.db")] {
            let error = attaching(&a, itself).blocking_open().expect_err("its own lock");
            assert_eq!(error.kind(), ErrorKind::AlreadyOpen, "{error}");
        }
        // If the other file is open, attaching it is refused by whatever name.
        let other = Database::blocking_open(&b).expect("opens");
        for side in [&b, &link] {
            let error = attaching(&a, side).blocking_open().expect_err("two writers");
            assert_eq!(error.kind(), ErrorKind::AlreadyOpen, "{error}");
            assert!(error.to_string().contains("mode=ro"), "{error}");
        }
        // Attaching it read-only is harmless, because that waits for no lock.
        let read_only = PathBuf::from(format!("file:{}?mode=ro", b.display()));
        let reads = attaching(&a, &read_only).blocking_open().expect("opens");
        other.blocking_write(|tx| insert(tx, 5)).expect("a write");
        let inside = other.clone();
        let copied = reads.blocking_write(move |tx| {
            inside.blocking_write(|tx| insert(tx, 6)).map_err(|_| rusqlite::Error::InvalidQuery)?;
            tx.execute("INSERT INTO main.t SELECT * FROM side.t WHERE id = 5", [])
        });
        assert_eq!(copied.ok(), Some(1));
        // The close must not copy back the WAL of the other database.
        reads.blocking_close().expect("closes");
        drop(other);
        // The other order: the file is attached first, then opened.
        let first = attaching(&a, &link).blocking_open().expect("nobody has it");
        first.blocking_exclusive(|_| Ok(())).expect("a connection of its own afterwards");
        for path in [&b, &link] {
            let error = Database::blocking_open(path).expect_err("it is attached");
            assert_eq!(error.kind(), ErrorKind::AlreadyOpen, "{error}");
            assert!(error.to_string().contains("attached by"), "{error}");
            assert_eq!(kind(first.backup(path).blocking_run()), ErrorKind::Backup);
        }
        first
            .blocking_write(|tx| tx.execute_batch("INSERT INTO side.t VALUES (7, 7)"))
            .expect("a row");
        first.blocking_close().expect("closes");
        let b = Database::blocking_open(&b).expect("it was given back");
        assert_eq!(ids(&b), [5, 6, 7]);
        b.blocking_close().expect("closes");
    });
}

/// SQLite would take the database `app.db-wal` for the WAL of `app.db`, and delete it.
#[test]
fn a36_a_name_that_makes_an_open_database_a_part_of_it_is_refused() {
    within(HANG, || {
        for end in ["-wal", "-shm", "-journal"] {
            let dir = Dir::new();
            let odd = dir.file(&format!("app.db{end}"));
            let db = Database::blocking_open(&odd).expect("opens");
            db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("a table");
            let error = Database::blocking_open(dir.file("app.db")).expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Open, "{error}");
            assert!(error.to_string().contains("for a part of"), "{error}");
            db.blocking_write(|tx| insert(tx, 1)).expect("a write");
            db.blocking_close().expect("closes");
        }
    });
}
