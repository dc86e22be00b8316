//! Ends of attempts as they come in, and what a stop of the server makes of them.
//!
//! The signal that stops the server may reach the builds too: systemd sends it to all processes of a unit, unless the
//! unit says `KillMode=mixed`. An end by such a signal says nothing about the build, so the build is started again.
//!
//! | an attempt ends | while the server | counts as |
//! |---|---|---|
//! | by TERM or KILL | runs | its own end, unless a stop begins within [`STOP_DELAY`] |
//! | by TERM or KILL | drains | stopped (STATE3) |
//! | lost, or in any way but success | ends running builds | stopped (STATE3) |
//! | in any other way, or after a cancel was requested | | its own end |

use super::Loop;
use crate::build::builder::Stop;
use crate::build::dispatch::{DispatchEvent, Dispatcher, EndRequest, Lost, Outcome, Progress};
use crate::build::state::Happening;
use crate::model::{BuildId, STOP_DELAY};
use std::time::Instant;

impl<D: Dispatcher> Loop<D> {
    /// Notes an event of the dispatcher. An event for an unknown attempt is ignored.
    pub(super) fn take(&mut self, event: DispatchEvent) {
        let (id, attempt) = (event.id, event.attempt);
        match &event.progress {
            _ if !self.running.contains_key(&id) => {
                tracing::warn!(build = %id, attempt, "an event for a build that does not run");
            }
            Progress::Started(at) => {
                let _ = self.builder.shared.started.send((id, *at));
            }
            Progress::Ended(Ok(outcome), _)
                if outcome.killed
                    && self.stop() == Stop::No
                    && !self.builder.cancel_set().contains(&(id, attempt)) =>
            {
                self.held_back.push((Instant::now() + STOP_DELAY, event));
            }
            Progress::Ended(..) => self.note_end(event),
        }
    }

    /// Notes the ends that were held back long enough, or all of them if the server is stopped.
    pub(super) fn release(&mut self) {
        let (now, all) = (Instant::now(), self.stop() != Stop::No);
        let is_due = |(due, _): &(Instant, DispatchEvent)| all || *due <= now;
        let held_back = std::mem::take(&mut self.held_back);
        let (due, later): (Vec<_>, Vec<_>) = held_back.into_iter().partition(is_due);
        self.held_back = later;
        for (_, event) in due {
            self.note_end(event);
        }
    }

    fn stop(&self) -> Stop {
        *self.builder.shared.stop.borrow()
    }

    /// Prepares the end of an attempt for the next write.
    fn note_end(&mut self, DispatchEvent { id, attempt, progress }: DispatchEvent) {
        let Progress::Ended(ended, log) = progress else { return };
        let Some(running) = self.running.get(&id).cloned() else { return };
        let happening = match &ended {
            Ok(outcome) if !outcome.gone.is_empty() => Happening::Lost(attempt),
            ended if self.is_stopped((id, attempt), ended) => Happening::Stopped(attempt),
            Ok(outcome) => Happening::Ended(attempt, outcome.status),
            Err(Lost(_)) => Happening::Lost(attempt),
        };
        let Some(next) = running.state.after(happening) else {
            tracing::warn!(build = %id, attempt, "an event of another attempt");
            return;
        };
        let end = self.end(id, &running, (happening, next), ended, log);
        if !self.has_ended(end.key()) {
            self.ends.push(end);
        }
        self.hungry = true;
    }

    /// Whether an attempt has ended because the server is stopped, as far as can be known.
    fn is_stopped(&self, key: (BuildId, i64), ended: &Result<Outcome, Lost>) -> bool {
        let by_stop = match (self.stop(), ended) {
            (Stop::No, _) | (Stop::Drain, Err(_)) => false,
            (Stop::Drain, Ok(outcome)) => outcome.killed,
            // The signal reaches the processes of a build in any order. So a command may see the end of its child first,
            // and fail.
            (Stop::Now, Ok(outcome)) => !outcome.status.is_success(),
            (Stop::Now, Err(_)) => true,
        };
        by_stop && !self.builder.cancel_set().contains(&key)
    }

    /// Asks the dispatcher to end canceled builds, and to end all builds if the server stops without a drain.
    pub(super) fn pass_on_cancels(&mut self, stop: Stop) {
        if stop == Stop::Now {
            for (id, running) in &mut self.running {
                if !std::mem::replace(&mut running.cut, true) {
                    self.dispatcher.cancel(*id, running.state.attempt, EndRequest::Stopped);
                }
            }
        }
        let wanted: Vec<_> = self.builder.cancel_set().iter().copied().collect();
        for (id, attempt) in wanted {
            if self.running.get(&id).is_some_and(|running| running.state.attempt == attempt) {
                self.dispatcher.cancel(id, attempt, EndRequest::Canceled);
            } else {
                self.builder.cancel_set().remove(&(id, attempt));
            }
        }
    }
}
