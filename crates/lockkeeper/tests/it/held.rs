//! The writer, held. A file of its own, because the bench `day_two` uses it too.

use std::sync::mpsc;
use std::time::Duration;

use futures_lite::future::block_on;
use lockkeeper::{Client, ErrorKind};

/// After this long the writer is taken to hang.
const HANG: Duration = Duration::from_secs(120);

/// The writer, held inside a call until released: what is submitted meanwhile shares one batch.
pub(crate) struct HeldWriter {
    release: mpsc::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl HeldWriter {
    /// Returns when the holding call runs. It writes nothing.
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
            // It wrote nothing; a neighbour may have lost the transaction.
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
