//! A call that holds the writer. This is a file of its own, because the bench `day_two` uses it too.

use std::sync::mpsc;
use std::time::Duration;

use futures_lite::future::block_on;
use lockkeeper::{Client, ErrorKind};

/// A call that takes longer than this is assumed to hang.
const HANG: Duration = Duration::from_secs(120);

/// Holds the writer inside a call until released. Writes that are submitted meanwhile share one batch.
pub(crate) struct HeldWriter {
    release: mpsc::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl HeldWriter {
    /// Makes a call that holds the writer, and returns when the call runs. The call writes nothing.
    pub(crate) fn hold(db: &Client) -> Self {
        let (release, released) = mpsc::channel::<()>();
        let (begun, has_begun) = mpsc::channel();
        let db = db.clone();
        let thread = std::thread::spawn(move || {
            let write = db.write_once(move |_| {
                let _ = begun.send(());
                let _ = released.recv();
                Ok(())
            });
            // The call wrote nothing, but a neighbour may have lost the transaction.
            if let Err(error) = block_on(write) {
                assert_eq!(error.kind(), ErrorKind::NotApplied, "{error:?}");
            }
        });
        has_begun.recv_timeout(HANG).expect("the holding call begins");
        Self { release, thread }
    }

    /// Lets the writer go on, and waits until the holding call is answered.
    pub(crate) fn release(self) {
        let _ = self.release.send(());
        self.thread.join().expect("the holding call ends");
    }
}
