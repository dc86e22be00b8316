//! Backups of a state directory with rows, logs and outputs: whole, or not there.

use super::*;
use crate::store::{self, Database};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const ALL: Parts = Parts { logs: true, outputs: true };

/// Three builds: one with two attempts and an output, one that runs, one whose log and output are gone.
const ROWS: &str = "
    INSERT INTO server VALUES (1, 'the old one', 0);
    INSERT INTO specification VALUES (1, 's', '{}', 1, 0, 0, '', 0, 0, 0, 0, NULL);
    INSERT INTO evaluation VALUES (1, 1, 'e', 0, '', 1, 1, 1, 'logs/evaluation/1.log.zst', 0, 1, 2, 0, 0, 0, 0);
    INSERT INTO build VALUES
      (1, 'a', 1, 1, 1, 'a', 'y', 'n', 0, 0, -1, 0, 2, 1, 0, '', 0, 0, 1, 1, 1, 'logs/build/0/1-2.log.zst', 3, ''),
      (2, 'b', 2, 1, 1, 'b', 'y', 'n', 0, -1, -1, 0, 2, 1, 0, '', 0, 0, 1, 1, 0, '', 0, ''),
      (3, 'c', 3, 1, 1, 'c', 'y', 'n', 0, 0, -1, 0, 1, 0, 0, '', 0, 0, 1, 1, 1, 'logs/build/0/3-1.log.zst', 3, '');
    INSERT INTO output VALUES (1, 'out', 'outputs/0a'), (3, 'out', 'outputs/0b'), (3, 'x', 'outputs/../../etc');";

const KEPT: [&str; 5] = [
    "logs/build/0/1-1.log",
    "logs/build/0/1-2.log.zst",
    "logs/build/0/2-1.log.zst",
    "logs/evaluation/1.log.zst",
    "outputs/0a/in/it",
];
/// Files that the database does not name, or not yet.
const LEFT_OUT: [&str; 4] =
    ["logs/build/0/2-2.log", "logs/build/0/4-1.log.zst", "outputs/0c/it", "outputs/partial-1/it"];

async fn state(state: &Path) -> Database {
    let database = store::open(state).await.expect("opens");
    database.exclusive(|conn| conn.execute_batch(ROWS)).await.expect("rows");
    for file in KEPT.iter().chain(&LEFT_OUT) {
        let path = state.join(file);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, file).expect("a file");
    }
    std::os::unix::fs::symlink("/nowhere", state.join("outputs/0a/link")).expect("a link");
    database
}

fn files(root: &Path) -> BTreeSet<String> {
    let (mut found, mut open) = (BTreeSet::new(), vec![root.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.strip_prefix(root).expect("below").display().to_string());
            }
        }
    }
    found
}

fn control(report: impl Fn(Step) + Send + Sync + 'static) -> Control {
    Control { stop: Arc::default(), report: Arc::new(report) }
}

#[tokio::test]
async fn a_backup_has_what_its_database_names_and_nothing_else() {
    let place = tempfile::tempdir().expect("a directory");
    let (from, backup, to) =
        (place.path().join("state"), place.path().join("backup"), place.path().join("restored"));
    let database = state(&from).await;
    let quiet = control(|_| ());
    let manifest = create(&database, &from, &backup, ALL, &quiet).await.expect("a backup");
    let wanted: BTreeSet<String> = KEPT
        .iter()
        .chain(&["outputs/0a/link", "brigandine.db", "manifest.json"])
        .map(|name| (*name).to_owned())
        .collect();
    assert_eq!(files(&backup), wanted);
    let (logs, outputs) = (manifest.logs.expect("logs"), manifest.outputs.expect("outputs"));
    assert_eq!((logs.files, logs.missing, outputs.files, outputs.missing), (4, 1, 2, 2));
    assert_eq!((manifest.rows["build"], manifest.rows["output"]), (3, 3));
    assert_eq!(Manifest::read(&backup).expect("a manifest"), manifest);
    check_target(&to).expect("it is not there");
    std::fs::create_dir(&to).expect("a directory");
    restore(&backup, &manifest, &to, "the new one", &quiet).expect("restored");
    let restored: BTreeSet<String> = files(&to);
    let mut wanted = wanted;
    wanted.remove("manifest.json");
    wanted.insert("restored.json".to_owned());
    assert_eq!(restored, wanted);
    assert_eq!(std::fs::read(to.join(KEPT[4])).expect("a file"), KEPT[4].as_bytes());
    assert!(matches!(check_target(&to), Err(BackupError::NotEmpty(_))));
    let restored = store::open_as_it_is(&to).await.expect("opens");
    let started = restored.write(|tx| store::note_start(tx, "another")).await.expect("starts");
    assert_eq!((started.state_id.as_str(), started.killed), ("the new one", true));
    restored.close().await.expect("closes");
    // The name is taken now, whatever has it.
    for taken in [&backup, &from.join(KEPT[0]), &from.join("outputs/0a/link")] {
        let error = create(&database, &from, taken, ALL, &quiet).await.expect_err("taken");
        assert!(matches!(error, BackupError::Exists(_)), "{error}");
    }
    let none = Parts { logs: false, outputs: false };
    let small = place.path().join("small");
    let manifest = create(&database, &from, &small, none, &quiet).await.expect("a backup");
    assert_eq!((manifest.logs, manifest.outputs, files(&small).len()), (None, None, 2));
    database.close().await.expect("closes");
}

/// A control that stops the work at its `number`-th report, and the count of reports.
fn stopping(number: usize) -> (Control, Arc<AtomicUsize>) {
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (own, counted) = (Arc::clone(&stop), Arc::clone(&count));
    let report = move |_| {
        if counted.fetch_add(1, Ordering::SeqCst) == number {
            own.store(true, Ordering::SeqCst);
        }
    };
    (Control { stop, report: Arc::new(report) }, count)
}

#[tokio::test]
async fn work_that_is_stopped_at_any_step_leaves_nothing() {
    let place = tempfile::tempdir().expect("a directory");
    let names = || files(place.path());
    let (from, backup, to) =
        (place.path().join("state"), place.path().join("backup"), place.path().join("restored"));
    let database = state(&from).await;
    database.close().await.expect("closes");
    let database = store::open_as_it_is(&from).await.expect("opens");
    let before: BTreeSet<String> = names();
    let folders = || std::fs::read_dir(place.path()).expect("a folder").count();
    let mut stopped = 0;
    let manifest = loop {
        let (control, count) = stopping(stopped);
        match create(&database, &from, &backup, ALL, &control).await {
            Ok(manifest) => {
                assert!(count.load(Ordering::SeqCst) <= stopped, "a stop was not heard");
                break manifest;
            }
            Err(error) => assert!(matches!(error, BackupError::Stopped), "{error}"),
        }
        let strip = |names: BTreeSet<String>| -> BTreeSet<String> {
            names.into_iter().filter(|name| !name.starts_with("state/brigandine.db-")).collect()
        };
        assert_eq!((strip(names()), folders()), (strip(before.clone()), 1), "at {stopped}");
        stopped += 1;
    };
    assert!(stopped > 6, "{stopped}");
    database.close().await.expect("closes");
    std::fs::create_dir(&to).expect("a directory");
    stopped = 0;
    loop {
        let (control, _) = stopping(stopped);
        match restore(&backup, &manifest, &to, "new", &control) {
            Ok(()) => break,
            Err(error) => assert!(matches!(error, BackupError::Stopped), "{error}"),
        }
        check_target(&to).expect("it is empty again");
        stopped += 1;
    }
    assert!(stopped > 6, "{stopped}");
}

#[tokio::test]
async fn a_backup_is_no_state_directory_and_has_no_place_in_one() {
    let place = tempfile::tempdir().expect("a directory");
    let (from, backup) = (place.path().join("state"), place.path().join("backup"));
    let database = state(&from).await;
    let quiet = control(|_| ());
    let manifest = create(&database, &from, &backup, ALL, &quiet).await.expect("a backup");
    let bytes = || std::fs::read(backup.join("brigandine.db")).expect("the database");
    let before = bytes();
    for error in [store::open_as_it_is(&backup).await, store::open(&backup).await] {
        let error = error.expect_err("it is a backup").to_string();
        assert!(error.contains("is a backup") && error.contains("brigandine restore"), "{error}");
    }
    assert!(bytes() == before, "it was changed");
    // In the state directory, also where the path says otherwise.
    std::os::unix::fs::symlink(from.join("logs"), place.path().join("link")).expect("a link");
    for target in [from.join("backup"), place.path().join("link/backup")] {
        let error = create(&database, &from, &target, ALL, &quiet).await.expect_err("inside");
        assert!(matches!(error, BackupError::Inside(_)), "{error}");
    }
    let error = create(&database, &from, &place.path().join("no/backup"), ALL, &quiet).await;
    let error = error.expect_err("there is no such folder").to_string();
    assert!(error.starts_with(&format!("`{}`:", place.path().join("no").display())), "{error}");
    database.close().await.expect("closes");
    let to = place.path().join("to");
    std::fs::create_dir(&to).expect("a directory");
    restore(&backup, &manifest, &to, "new", &quiet).expect("it is as it was");
    // A copy of a backup by hand is a state directory once its manifest is gone.
    std::fs::remove_file(backup.join("manifest.json")).expect("removed");
    store::open(&backup).await.expect("opens").close().await.expect("closes");
}

type Change = fn(&Path);

const fn none(_: &Path) {}

fn edit(path: &Path, f: impl Fn(&str) -> String) {
    let path = path.join("manifest.json");
    let text = std::fs::read_to_string(&path).expect("a manifest");
    let changed = f(&text);
    assert_ne!(changed, text);
    std::fs::write(&path, changed).expect("written");
}

/// What may have happened to a backup, and what is said of it; the empty text: it is restored.
const CHANGES: [(Change, &str); 10] = [
    (none, ""),
    (|b| std::fs::remove_file(b.join("manifest.json")).expect("removed"), "is no backup"),
    (|b| std::fs::write(b.join("manifest.json"), "{").expect("written"), "is no backup"),
    (|b| edit(b, |text| text.replace("\"format\": 1", "\"format\": 2")), "by a newer program"),
    (|b| edit(b, |text| text.replace("\"build\": 3", "\"build\": 4")), "counts other rows"),
    (|b| flip(&b.join("brigandine.db")), "another digest"),
    (|b| std::fs::remove_file(b.join("brigandine.db")).expect("removed"), "No such file"),
    (|b| std::fs::remove_file(b.join(KEPT[0])).expect("removed"), "its logs are 3 files"),
    (|b| std::fs::write(b.join(KEPT[4]), "longer than it was").expect("written"), "its outputs"),
    (|b| std::fs::remove_dir_all(b.join("outputs")).expect("removed"), "its outputs are 0 files"),
];

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).expect("written");
}

#[tokio::test]
async fn a_backup_that_was_changed_is_refused_and_nothing_is_restored() {
    let place = tempfile::tempdir().expect("a directory");
    let from = place.path().join("state");
    let database = state(&from).await;
    let quiet = control(|_| ());
    for (number, (change, said)) in CHANGES.into_iter().enumerate() {
        let backup = place.path().join(format!("backup-{number}"));
        let to = place.path().join(format!("to-{number}"));
        create(&database, &from, &backup, ALL, &quiet).await.expect("a backup");
        change(&backup);
        std::fs::create_dir(&to).expect("a directory");
        let done = Manifest::read(&backup)
            .and_then(|manifest| restore(&backup, &manifest, &to, "new", &quiet));
        match done {
            Ok(()) => assert_eq!(said, "", "{number}"),
            Err(error) => {
                let text = error.to_string();
                assert!(!said.is_empty() && text.contains(said), "{number}: {text}");
                check_target(&to).expect("it is empty");
            }
        }
    }
    database.close().await.expect("closes");
}

#[tokio::test]
async fn reports_come_in_the_order_of_the_work_and_end_with_the_disk() {
    let place = tempfile::tempdir().expect("a directory");
    let from = place.path().join("state");
    let database = state(&from).await;
    let steps = Arc::new(Mutex::new(Vec::new()));
    let own = Arc::clone(&steps);
    let control = control(move |step| own.lock().expect("the list").push(step));
    create(&database, &from, &place.path().join("backup"), ALL, &control).await.expect("a backup");
    database.close().await.expect("closes");
    let steps = steps.lock().expect("the list");
    let place = |step: &Step| match step {
        Step::Database(..) => 0,
        Step::Check => 1,
        Step::Logs(_) => 2,
        Step::Outputs(_) => 3,
        Step::Sync => 4,
    };
    let places: Vec<i32> = steps.iter().map(place).collect();
    assert!(places.is_sorted() && places.ends_with(&[3, 4]), "{steps:?}");
}
