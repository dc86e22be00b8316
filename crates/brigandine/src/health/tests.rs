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
