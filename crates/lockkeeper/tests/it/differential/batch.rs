//! The library's side: makes one batch of calls, and drops the futures that the program names.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};

use lockkeeper::{Database, ErrorKind, Transaction};
use rusqlite::Connection;

use super::interpret::interpret;
use super::program::{Call, End, Failure, Form, Outcome, Seen, code, modulo, victims};
use super::view::{Real, Sql};
use crate::support::HANG;

pub(crate) enum Message {
    /// Some future may be ready.
    Woken,
    /// Drop the future of this call, and report when it is dropped.
    Cancel(usize, mpsc::Sender<()>),
}

pub(crate) fn ask_to_cancel(messages: &mpsc::Sender<Message>, call: usize) {
    let (done, is_done) = mpsc::channel();
    messages.send(Message::Cancel(call, done)).expect("the test waits for messages");
    is_done.recv_timeout(HANG).expect("the future is dropped");
}

pub(crate) struct WakeUp(Mutex<mpsc::Sender<Message>>);

impl Wake for WakeUp {
    fn wake(self: Arc<Self>) {
        // After the test, the receiver may be gone.
        let _ = self.0.lock().expect("no panic under this lock").send(Message::Woken);
    }
}

/// Where the function `rung` sends its requests during the current batch.
pub(crate) type Wire = Arc<Mutex<Option<mpsc::Sender<Message>>>>;

pub(crate) fn add_rung(conn: &Connection, wire: Option<Wire>) -> Sql<()> {
    let flags = rusqlite::functions::FunctionFlags::SQLITE_UTF8;
    conn.create_scalar_function("rung", 1, flags, move |context| {
        let call: i64 = context.get(0)?;
        let messages = wire.as_ref().and_then(|wire| wire.lock().expect("not poisoned").clone());
        if let Some(messages) = messages {
            ask_to_cancel(&messages, call as usize);
        }
        Ok(1_i64)
    })
}

pub(crate) type Submitted = Pin<Box<dyn Future<Output = Answer>>>;

/// Submits `call` to the library. The closure's type depends on `call.kind`.
pub(crate) fn submit(
    db: &Database<Failure>,
    call: Call,
    number: i64,
    canceled: bool,
    messages: &mpsc::Sender<Message>,
) -> Submitted {
    fn of_kind<const KIND: u8>(
        db: &Database<Failure>,
        call: Call,
        number: i64,
        canceled: bool,
        messages: &mpsc::Sender<Message>,
    ) -> Submitted {
        let (form, messages) = (call.form, messages.clone());
        let body = move |tx: &Transaction| {
            if number != WARM_UP {
                RUNS.fetch_add(1, Ordering::Relaxed);
            }
            interpret(&Real { tx, messages: &messages }, &call, number, canceled)
        };
        match form {
            Form::Many => Box::pin(db.write(body)),
            Form::Once => Box::pin(db.write_once(body)),
            Form::Try => Box::pin(db.try_write(body).map_err(|_| ()).expect("there is room")),
        }
    }
    let of_kind = match call.kind {
        0 => of_kind::<0>,
        1 => of_kind::<1>,
        2 => of_kind::<2>,
        3 => of_kind::<3>,
        4 => of_kind::<4>,
        _ => of_kind::<5>,
    };
    of_kind(db, call, number, canceled, messages)
}

pub(crate) const KINDS: u8 = 6;

/// The call number of the runs that only earn trust.
pub(crate) const WARM_UP: i64 = -1;

/// Runs each kind of closure without writes, so often that the library trusts its type.
pub(crate) fn earn_trust(db: &Database<Failure>) {
    let (messages, _inbox) = mpsc::channel();
    let calls = (0..KINDS).flat_map(|kind| {
        let call = move |form| Call { form, kind, steps: Vec::new(), end: End::Good };
        std::iter::repeat_n([call(Form::Many), call(Form::Once), call(Form::Try)], 10).flatten()
    });
    let mut flying: Vec<_> =
        calls.map(|call| submit(db, call, WARM_UP, false, &messages)).collect();
    let mut context = Context::from_waker(Waker::noop());
    for future in &mut flying {
        let _ = future.as_mut().poll(&mut context);
    }
    // Writes of one client run in order, so when this one is answered, all are.
    db.blocking_write(|_| Ok(())).expect("the writer lives");
}

pub(crate) type Answer = Result<Vec<Seen>, lockkeeper::Error<Failure>>;

/// How many times closures ran, over all programs. A closure may run more than once.
pub(crate) static RUNS: AtomicUsize = AtomicUsize::new(0);
pub(crate) static CALLS: AtomicUsize = AtomicUsize::new(0);
pub(crate) static CANCELED: AtomicUsize = AtomicUsize::new(0);
pub(crate) static NOT_APPLIED: AtomicUsize = AtomicUsize::new(0);

/// Runs `batch` through the library. `None` in the result: the call was canceled.
pub(crate) fn run_batch(
    db: &Database<Failure>,
    batch: &[Call],
    wire: &Wire,
) -> Vec<Option<Outcome>> {
    let (messages, inbox) = mpsc::channel();
    *wire.lock().expect("not poisoned") = Some(messages.clone());
    let waker = Waker::from(Arc::new(WakeUp(Mutex::new(messages.clone()))));
    let mut context = Context::from_waker(&waker);
    let victims = victims(batch);

    // test                          | writer
    // ------------------------------+--------------------------------
    //                               | gate begins, waits
    // queue all calls               |
    // release                       |
    //                               | one batch: the gate and all calls
    let (begun, has_begun) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let mut gate = db.write_once(move |_| {
        let _ = begun.send(());
        let _ = released.recv_timeout(HANG);
        Ok(())
    });
    assert!(Pin::new(&mut gate).poll(&mut context).is_pending());
    has_begun.recv_timeout(HANG).expect("the gate begins");

    let mut flying: Vec<Option<Pin<Box<dyn Future<Output = Answer>>>>> = Vec::new();
    for (index, call) in batch.iter().enumerate() {
        let canceled = victims.contains(&index);
        let call = modulo(call, batch.len());
        let mut future = submit(db, call, index as i64, canceled, &messages);
        assert!(future.as_mut().poll(&mut context).is_pending());
        flying.push(Some(future));
    }
    release.send(()).expect("the gate waits");

    let mut outcomes = vec![None; batch.len()];
    while flying.iter().any(Option::is_some) {
        match inbox.recv_timeout(HANG).expect("the calls are answered") {
            Message::Cancel(index, done) => {
                if flying[index].take().is_some() {
                    CANCELED.fetch_add(1, Ordering::Relaxed);
                }
                let _ = done.send(());
            }
            Message::Woken => {
                for index in 0..flying.len() {
                    let Some(future) = &mut flying[index] else { continue };
                    let polled =
                        catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut context)));
                    let outcome = match polled {
                        Ok(Poll::Pending) => continue,
                        Ok(Poll::Ready(answer)) => outcome_of(answer),
                        Err(payload) => Outcome::Panicked(said(payload)),
                    };
                    outcomes[index] = Some(outcome);
                    flying[index] = None;
                }
            }
        }
    }
    *wire.lock().expect("not poisoned") = None;
    drop(gate);
    outcomes
}

pub(crate) fn said(payload: Box<dyn std::any::Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => match payload.downcast::<&str>() {
            Ok(text) => format!("not the call's own panic: {text}"),
            Err(_) => String::from("not the call's own panic"),
        },
    }
}

pub(crate) fn outcome_of(answer: Answer) -> Outcome {
    let error = match answer {
        Ok(seen) => return Outcome::Good(seen),
        Err(error) => error,
    };
    match error.kind() {
        ErrorKind::Call => {
            let failure = error.into_call().expect("a call's error holds what it returned");
            Outcome::Failed(failure.seen, failure.code)
        }
        ErrorKind::ForeignKey => Outcome::ForeignKey,
        ErrorKind::RolledBack => Outcome::RolledBack,
        ErrorKind::Sqlite => {
            Outcome::CommitFailed(code(error.sqlite().expect("it is an error of SQLite's")))
        }
        ErrorKind::NotApplied => Outcome::NotApplied,
        other => Outcome::Other(other),
    }
}
