//! Ctrl-C and SIGTERM: what runs is stopped and cleans up behind it; the second time it ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

/// Whether somebody wants the command to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(pub(crate) Arc<AtomicBool>);

/// The exit status of a program that was ended by Ctrl-C, as shells have it.
const INTERRUPTED: i32 = 130;

impl Stop {
    pub(crate) fn is_wanted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Listens for signals on a thread of its own; returns when it does. Without such a thread the
    /// system's own way remains: the program ends at once.
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
                // Nobody waits for it any more only when the program ends.
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
            // An error: the thread has given up.
            let _ = is_ready.recv();
        }
    }
}
