//! Ctrl-C and SIGTERM: the first signal stops the command, which cleans up; the second one ends the program
//! immediately.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

/// Whether the command was asked to stop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(pub(crate) Arc<AtomicBool>);

/// The exit status that shells use for a program that was ended by Ctrl-C.
const INTERRUPTED: i32 = 130;

impl Stop {
    pub(crate) fn is_wanted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Starts a thread that waits for signals, and returns when the thread is ready. If the thread cannot be started, a
    /// signal ends the program immediately, which is the system's default.
    pub(crate) fn listen(&self) {
        let (ready, is_ready) = mpsc::sync_channel(1);
        let stop = self.clone();
        let thread = std::thread::Builder::new().name(String::from("signals"));
        let started = thread.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                use tokio::signal::unix::{SignalKind, signal};
                let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
                let (Ok(mut interrupt), Ok(mut terminate)) = signals else { return };
                // The receiver is gone only if the program is ending.
                let _ = ready.send(());
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    if stop.0.swap(true, Ordering::Relaxed) {
                        std::process::exit(INTERRUPTED);
                    }
                    eprintln!("lockkeeper: stopping; once more to end at once");
                }
            });
        });
        if started.is_ok() {
            // An error means that the thread has ended without being ready.
            let _ = is_ready.recv();
        }
    }
}
