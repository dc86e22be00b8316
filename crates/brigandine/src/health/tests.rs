use super::*;
use rusqlite::ffi;

#[test]
fn a_build_that_met_a_full_disk_is_waited_for_until_more_is_free_than_before() {
    let health = Health::unwatched();
    health.shared.free.store(10 << 20, Ordering::Relaxed);
    let run = health.begin();
    assert!(health.has_room() && health.notice().is_empty());
    assert!(!run.met_full_disk());
    run.note_full();
    assert!(!health.has_room());
    assert!(health.notice().contains("The disk was full"), "{}", health.notice());
    // No file system is watched, so everything is free.
    health.look();
    assert!(health.has_room() && health.notice().is_empty());
}

#[test]
fn that_reads_go_on_does_not_end_what_is_told_of_writes() {
    let health = Health::unwatched();
    health.change(|state| state.writing = Some("locked".to_owned()));
    health.succeeded(reading);
    assert!(health.notice().contains("cannot be used for now"), "{}", health.notice());
    health.note_good();
    assert_eq!(health.notice(), "");
}

#[test]
fn what_does_not_mend_itself_does_not_pass() {
    let of = |code| rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
    for code in [ffi::SQLITE_FULL, ffi::SQLITE_BUSY, ffi::SQLITE_IOERR, ffi::SQLITE_CANTOPEN] {
        assert!(passes_in_sqlite(&of(code)), "{code}");
    }
    for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB, ffi::SQLITE_CONSTRAINT] {
        assert!(!passes_in_sqlite(&of(code)), "{code}");
    }
}

#[tokio::test]
async fn an_empty_write_that_fails_or_is_late_is_told_until_one_succeeds() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("test.db");
    let timeout = Duration::from_secs(4);
    let database = Database::open(&path, true, timeout).await.expect("opens");
    let (health, mut events) = {
        let events = broadcast::Sender::new(16);
        (Health::with(Vec::new(), Some(0), events.clone()), events.subscribe())
    };
    let (watching, probe) = (health.clone(), database.client("probe"));
    let watch = tokio::spawn(async move { watching.watch_writes(&probe).await });
    let flags = rusqlite::OpenFlags::default();
    let other = rusqlite::Connection::open_with_flags(&path, flags).expect("the database");
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let mut state = health.shared.state.subscribe();
    let limit = Duration::from_secs(30);
    let late = tokio::time::timeout(limit, state.wait_for(|state| state.late)).await;
    let late = late.expect("in time").expect("it lives").notice();
    assert!(
        late.contains("The database accepts no write: another program has it locked"),
        "{late}"
    );
    let failed = tokio::time::timeout(limit, state.wait_for(|it| it.probing.is_some())).await;
    let failed = failed.expect("in time").expect("it lives").notice();
    assert!(failed.contains("The database cannot be used for now"), "{failed}");
    assert_eq!(health.unwritable().len(), 1);
    assert_eq!(health.disk_notice(), "");
    other.execute_batch("ROLLBACK").expect("let go");
    let well = state.wait_for(|state| *state == State::default());
    tokio::time::timeout(limit, well).await.expect("in time").expect("it lives");
    assert_eq!((health.notice(), health.unwritable()), (String::new(), Vec::new()));
    // Pages are told when there is something to show, and when there is nothing any more.
    for _ in 0..2 {
        assert!(matches!(events.try_recv(), Ok(Event::Notice)));
    }
    assert!(events.try_recv().is_err());
    health.stop();
    watch.await.expect("no panic").expect("no error");
}
