//! Tests of the optional features. They are apart from the other tests, so that a run with all features need not build
//! those again: `cargo test -p lockkeeper --features affinity,metrics,tracing --test features`.

#![expect(
    clippy::disallowed_methods,
    reason = "tests wait for plain channels and threads, and compare with raw connections"
)]

use std::time::Duration;

use lockkeeper::{Builder, Database};

mod affinity;
mod recorder;
mod spans;

/// A test that takes longer than this is assumed to hang.
const HANG: Duration = Duration::from_secs(120);

/// A file database with a table `t (id, v)`; the directory must be kept as long as the database.
fn file_db(tune: impl FnOnce(Builder) -> Builder) -> (tempfile::TempDir, Database) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let builder = tune(Database::builder(dir.path().join("test.db")));
    let db = builder.blocking_open().expect("the database opens");
    db.blocking_write(|tx| tx.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, v)"))
        .expect("the table is created");
    (dir, db)
}
