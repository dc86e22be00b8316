//! The life of a build, as a pure function: no I/O, no clock.
//!
//! ```text
//!              claim                     ended
//! scheduled ──────────▶ started ──────────────────▶ succeeded | failed | failed-other | canceled
//!   │  ▲                   │
//!   │  └───────────────────┘ lost (fewer than LOSSES_MAX times), server stopped
//!   ├── the database refuses the start (LOSSES_MAX times) ──▶ failed-other
//!   ├── dependency failed ──▶ failed-dependency
//!   └── cancel ──▶ canceled
//! ```
//!
//! - STATE1: a finished build never changes.
//! - STATE2: only an event of the current attempt changes a build.
//! - STATE3: when the server is stopped or killed, the attempt does not count as a loss.
//!
//! The store's conditional updates make the same decisions in SQL; a test runs both side by side. The transitions that
//! only the store makes are compiled only for that test. What happens when the database refuses a transition is decided
//! in `turns/refused.rs`.

use crate::model::BuildStatus;

/// A build fails when its worker has vanished this many times, or the database has refused its start this many times.
pub(crate) const LOSSES_MAX: i64 = 3;

/// What decides a build's next state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    /// The build's status.
    pub(crate) status: BuildStatus,
    /// The number of the build's last attempt.
    pub(crate) attempt: i64,
    /// The number of attempts whose worker vanished.
    pub(crate) losses: i64,
    /// The number of dependencies that have not succeeded.
    pub(crate) waiting: i64,
}

/// Something that happens to a build. The numbers are those of attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happening {
    /// The builder starts the build.
    #[cfg(test)]
    Claimed,
    /// The build's process ended, with a finished status other than failed-dependency.
    Ended(i64, BuildStatus),
    /// The build's worker vanished.
    Lost(i64),
    /// The server was stopped or killed while the build ran.
    Stopped(i64),
    /// The build is canceled.
    #[cfg(test)]
    Cancel,
    /// A build that this one needs succeeded.
    #[cfg(test)]
    DependencySucceeded,
    /// A build that this one needs did not succeed.
    #[cfg(test)]
    DependencyFailed,
}

impl State {
    /// The next state; `None`: nothing changes.
    pub(crate) fn after(self, happening: Happening) -> Option<Self> {
        use BuildStatus::{FailedOther, Scheduled, Started};
        let current = |attempt| self.status == Started && attempt == self.attempt; // STATE2
        match happening {
            #[cfg(test)]
            Happening::Claimed if self.status == Scheduled && self.waiting == 0 => {
                Some(Self { status: Started, attempt: self.attempt + 1, ..self })
            }
            Happening::Ended(attempt, status) if current(attempt) => Some(Self { status, ..self }),
            Happening::Lost(attempt) if current(attempt) => {
                let losses = self.losses + 1;
                let status = if losses >= LOSSES_MAX { FailedOther } else { Scheduled };
                Some(Self { status, losses, ..self })
            }
            // STATE3
            Happening::Stopped(attempt) if current(attempt) => {
                Some(Self { status: Scheduled, ..self })
            }
            #[cfg(test)]
            Happening::Cancel if self.status == Scheduled => {
                Some(Self { status: BuildStatus::Canceled, ..self })
            }
            #[cfg(test)]
            Happening::DependencySucceeded if self.status == Scheduled && self.waiting > 0 => {
                Some(Self { waiting: self.waiting - 1, ..self })
            }
            #[cfg(test)]
            Happening::DependencyFailed if self.status == Scheduled => {
                Some(Self { status: BuildStatus::FailedDependency, ..self })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: State = State { status: BuildStatus::Scheduled, attempt: 0, losses: 0, waiting: 0 };

    fn play(state: State, happenings: &[Happening]) -> State {
        happenings.iter().fold(state, |state, happening| state.after(*happening).unwrap_or(state))
    }

    #[test]
    fn a_late_result_of_an_earlier_attempt_changes_nothing() {
        use Happening::{Claimed, Ended, Lost};
        let state = play(NEW, &[Claimed, Lost(1), Claimed]);
        assert_eq!(state.after(Ended(1, BuildStatus::Failed)), None);
        assert_eq!(play(state, &[Ended(2, BuildStatus::Succeeded)]).status, BuildStatus::Succeeded);
    }

    #[test]
    fn the_third_loss_is_the_last_and_stops_are_not_losses() {
        use Happening::{Claimed, Lost, Stopped};
        let state = play(NEW, &[Claimed, Stopped(1), Claimed, Stopped(2), Claimed, Stopped(3)]);
        assert_eq!((state.status, state.losses), (BuildStatus::Scheduled, 0));
        let state = play(state, &[Claimed, Lost(4), Claimed, Lost(5)]);
        assert_eq!(state.status, BuildStatus::Scheduled);
        let state = play(state, &[Claimed, Lost(6)]);
        assert_eq!(state.status, BuildStatus::FailedOther);
    }

    #[test]
    fn nothing_changes_a_finished_build() {
        use Happening::{
            Cancel, Claimed, DependencyFailed, DependencySucceeded, Ended, Lost, Stopped,
        };
        for status in BuildStatus::ALL.iter().copied().filter(|status| status.is_finished()) {
            let state = State { status, attempt: 1, ..NEW };
            for happening in [
                Claimed,
                Ended(1, BuildStatus::Failed),
                Lost(1),
                Stopped(1),
                Cancel,
                DependencyFailed,
                DependencySucceeded,
            ] {
                assert_eq!(state.after(happening), None, "{status} {happening:?}");
            }
        }
    }

    #[test]
    fn a_build_waits_for_all_of_its_dependencies() {
        let state = State { waiting: 2, ..NEW };
        assert_eq!(state.after(Happening::Claimed), None);
        let state = play(state, &[Happening::DependencySucceeded]);
        assert_eq!(state.after(Happening::Claimed), None);
        let state = play(state, &[Happening::DependencySucceeded, Happening::Claimed]);
        assert_eq!(state.status, BuildStatus::Started);
    }
}
