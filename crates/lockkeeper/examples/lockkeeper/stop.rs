//! Ctrl-C and SIGTERM: the first stops the command, which cleans up; the second ends the program at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

/// Whether the command is to stop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(pub(crate) Arc<AtomicBool>);

/// The exit status of a program that was ended by Ctrl-C, as shells have it.
const INTERRUPTED: i32 = 130;

impl Stop {
    pub(crate) fn is_wanted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Starts a thread that listens for signals, and returns when it does. If it cannot be started, a signal ends the
    /// program at once, as the system does by default.
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
                // Fails only when the program ends.
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
            // An error means that the thread has ended.
            let _ = is_ready.recv();
        }
    }
}
