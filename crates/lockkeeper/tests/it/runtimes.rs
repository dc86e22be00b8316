//! The same small suite on every kind of executor, and without an executor.

use std::time::Duration;

use lockkeeper::{Database, Error, ErrorKind, Phase};

use crate::support::{
    Dir, ENDLESS, HANG, PLACES, Place, TABLE, block_on, ids, insert, poll_once, within,
};

/// Opens, writes, reads, takes snapshots, lets a deadline pass, cancels, fails, and closes.
async fn suite(place: Place) -> Result<(), Error> {
    let dir = Dir::new();
    let db: Database = dir.builder(place).open().await?;
    db.write(|tx| tx.execute_batch(TABLE)).await?;
    for id in 0..20 {
        db.write(move |tx| insert(tx, id)).await?;
    }
    let count = |s: &lockkeeper::Snapshot| {
        s.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0))
    };
    assert_eq!(db.read(count).await?, 20);
    assert_eq!(db.read(count).short().await?, 20);
    let snapshot = db.snapshot().await?;
    let ((), after) = db.client("web").write(|tx| insert(tx, 20)).and_snapshot().await?;
    assert_eq!((snapshot.read(count).await?, after.read(count).await?), (20, 21));
    let endless = |s: &lockkeeper::Snapshot| s.query_row(ENDLESS, [], |row| row.get::<_, i64>(0));
    let late = db.read(endless).deadline(Duration::from_millis(20)).await;
    // On a busy machine the deadline may pass before the query begins. The tests of promise A16 check the phases.
    let kind = late.expect_err("it is late").kind();
    assert!(matches!(kind, ErrorKind::Timeout(Phase::Running | Phase::Queued)), "{kind:?}");
    let mut canceled = Box::pin(db.write(move |tx| {
        insert(tx, 99)?;
        endless(tx)
    }));
    assert!(poll_once(&mut canceled).is_pending());
    drop(canceled);
    let failed = db.write(|tx| insert(tx, 0)).await.expect_err("the row is there");
    assert_eq!(failed.kind(), ErrorKind::Call);
    db.exclusive(|conn| conn.execute_batch("VACUUM")).await?;
    let once = db.write_once(|tx| insert(tx, 21)).await;
    once?;
    assert_eq!(db.read(count).await?, 22);
    db.close().await?;
    assert!(db.read(count).await.expect_err("it is closed").is_closed());
    Ok(())
}

/// Runs the suite with `run`, on a file and then in memory.
fn on(run: impl Fn(Place) + Send + 'static) {
    within(HANG, move || PLACES.into_iter().for_each(run));
}

#[test]
fn a32_on_tokio_with_one_thread() {
    on(|place| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(suite(place)).expect("the suite passes");
    });
}

#[test]
fn a32_on_tokio_with_several_threads() {
    on(|place| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
        runtime.expect("a runtime").block_on(async {
            let tasks: Vec<_> = (0..4).map(|_| tokio::spawn(suite(place))).collect();
            for task in tasks {
                task.await.expect("the task ends").expect("the suite passes");
            }
        });
    });
}

#[test]
fn a32_on_smol() {
    on(|place| {
        smol::block_on(async {
            let tasks: Vec<_> = (0..4).map(|_| smol::spawn(suite(place))).collect();
            for task in tasks {
                task.await.expect("the suite passes");
            }
        });
    });
}

#[test]
fn a32_on_a_bare_block_on() {
    on(|place| block_on(suite(place)).expect("the suite passes"));
}

#[test]
fn a32_on_plain_threads() {
    on(|place| {
        let dir = Dir::new();
        let db = dir.builder(place).blocking_open().expect("opens");
        db.blocking_write(|tx| tx.execute_batch(TABLE)).expect("the table");
        std::thread::scope(|scope| {
            for n in 0..8_i64 {
                let db = &db;
                scope.spawn(move || {
                    for i in 0..25 {
                        let id = 25 * n + i;
                        db.blocking_write(move |tx| insert(tx, id)).expect("a write");
                        assert!(ids(db).contains(&id));
                    }
                });
            }
        });
        assert_eq!(ids(&db), (0..200).collect::<Vec<_>>());
        db.blocking_close().expect("closes");
    });
}
