//! The spans that calls run in, and the warnings.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use futures_lite::future::block_on;
use lockkeeper::Database;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_core::span::Current;

use crate::{HANG, file_db};

/// Notes each new span (its parent, and its fields as text) and each event.
#[derive(Clone, Default)]
struct Notes {
    spans: Arc<Mutex<Vec<Noted>>>,
    events: Arc<Mutex<Vec<String>>>,
}

#[derive(Debug)]
struct Noted {
    parent: Option<u64>,
    text: String,
    metadata: &'static Metadata<'static>,
}

thread_local! {
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0 += &format!(" {field}={value:?}");
    }
}

impl Subscriber for Notes {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut text = Text(span.metadata().name().to_owned());
        span.record(&mut text);
        let mut spans = self.spans.lock().expect("no panic");
        let parent = span.parent().map(|id| id.into_u64());
        spans.push(Noted { parent, text: text.0, metadata: span.metadata() });
        Id::from_u64(spans.len() as u64)
    }

    fn current_span(&self) -> Current {
        let Some(id) = ENTERED.with_borrow(|entered| entered.last().copied()) else {
            return Current::none();
        };
        let metadata = self.spans.lock().expect("no panic")[id as usize - 1].metadata;
        Current::new(Id::from_u64(id), metadata)
    }

    fn enter(&self, id: &Id) {
        ENTERED.with_borrow_mut(|entered| entered.push(id.into_u64()));
    }

    fn exit(&self, _: &Id) {
        ENTERED.with_borrow_mut(|entered| entered.pop());
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut text = Text(format!("{} {}", metadata.level(), metadata.target()));
        event.record(&mut text);
        self.events.lock().expect("no panic").push(text.0);
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
}

/// The subscriber is set for the whole process, because the database's threads take part. All tests here share it.
fn notes() -> &'static Notes {
    static NOTES: OnceLock<Notes> = OnceLock::new();
    NOTES.get_or_init(|| {
        let notes = Notes::default();
        tracing::subscriber::set_global_default(notes.clone()).expect("the only subscriber");
        notes
    })
}

/// A value that is bound to statements, and must be found nowhere.
const SECRET: i64 = 271_828;

#[test]
fn a29_a_call_runs_in_a_span_below_its_callers_without_arguments() {
    let notes = notes();
    // The threshold of the slow log is 0, so it reports every call.
    let (dir, file) = file_db(|builder| builder.on_slow(Duration::ZERO, |_| {}));
    let memory = Database::builder(":memory:").on_slow(Duration::ZERO, |_| {});
    let memory = memory.blocking_open().expect("the database opens");
    memory.blocking_write(|tx| tx.execute_batch("CREATE TABLE t (id, v)")).expect("the table");
    for (db, name) in [(&file, "spans-file"), (&memory, "spans-memory")] {
        let caller = tracing::info_span!("request");
        let id = caller.id().expect("enabled").into_u64();
        let entered = caller.enter();
        let client = db.client(name);
        let insert = "INSERT INTO t (v) VALUES (?1)";
        let count = "SELECT count(*) FROM t WHERE v = ?1";
        let write = client.write(move |tx| tx.execute(insert, [SECRET]));
        assert_eq!(block_on(write).expect("stored"), 1);
        let read = client.read(move |s| s.query_row(count, [SECRET], |row| row.get::<_, i64>(0)));
        assert_eq!(block_on(read).expect("a row"), 1);
        let exclusive = client.exclusive(move |conn| conn.execute(insert, [SECRET]));
        assert_eq!(block_on(exclusive).expect("stored"), 1);
        let mut lease = block_on(client.lease()).expect("a lease");
        lease.blocking_run(move |tx| tx.execute(insert, [SECRET])).expect("runs");
        lease.blocking_commit().expect("stored");
        client.backup(dir.path().join("copy.db")).blocking_run().expect("a backup");
        drop(entered);
        // The slow log reports a call after the call was answered. When the close returns, the threads have ended, so
        // all calls have been reported.
        db.blocking_close().expect("closes");
        let spans = notes.spans.lock().expect("no panic");
        let mine: Vec<_> = spans.iter().filter(|span| span.parent == Some(id)).collect();
        // A lease makes three spans: for its beginning, its call and its commit.
        let expected = ["write", "read", "exclusive", "lease", "lease", "lease", "backup"];
        assert_eq!(mine.len(), expected.len(), "{mine:#?}");
        for (Noted { text, .. }, what) in mine.iter().zip(expected) {
            let (what, client) = (format!("what={what:?}"), format!("client={name:?}"));
            for part in ["call ", &what, &client, "place=", "spans.rs:", "waited_us="] {
                assert!(text.contains(part), "{part} in {text}");
            }
        }
        let secret = SECRET.to_string();
        assert!(spans.iter().all(|span| !span.text.contains(&secret)), "{spans:#?}");
        let events = notes.events.lock().expect("no panic");
        let slow = format!("{} lockkeeper::slow", Level::WARN);
        let slow = events.iter().filter(|e| e.starts_with(&slow) && e.contains(name)).count();
        // One report each for the write, the read, the exclusive call, the lease as a whole, and the backup.
        assert_eq!(slow, 5, "{events:#?}");
        assert!(events.iter().all(|event| !event.contains(&secret)), "{events:#?}");
    }
}

#[test]
fn a26_the_warning_at_the_maximum_names_who_pins_the_wal() {
    const LOAD: &str = "INSERT INTO t (v) VALUES (zeroblob(65536))";
    let notes = notes();
    let (dir, db) = file_db(|builder| builder.wal_bytes_max(1 << 20));
    for _ in 0..128 {
        db.blocking_write(|tx| tx.execute(LOAD, [])).expect("stored");
    }
    let (begun, has_begun) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let backup =
        db.client("nightly").backup(dir.path().join("copy.db")).progress(move |progress| {
            if progress.pages < progress.of && begun.send(()).is_ok() {
                let _ = released.recv();
            }
        });
    let backup = std::thread::spawn(move || backup.blocking_run());
    has_begun.recv_timeout(HANG).expect("it copies");
    for _ in 0..64 {
        db.blocking_write(|tx| tx.execute(LOAD, [])).expect("writes go on");
    }
    drop(release);
    backup.join().expect("no panic").expect("it ends");
    let events = notes.events.lock().expect("no panic");
    let begin = format!(
        "{} lockkeeper message=the WAL is at its maximum and pinned by a backup of client `nightly` \
         made at {}:",
        Level::WARN,
        file!()
    );
    assert!(events.iter().any(|event| event.starts_with(&begin)), "{begin} in {events:#?}");
}
