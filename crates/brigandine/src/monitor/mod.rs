//! Monitors: one task for each specification. It looks at the inputs at intervals and on request, and evaluates new
//! revisions.
//!
//! A look fetches all inputs in parallel. A *stamp* is made of their revisions and the specification's definition. If
//! the stamp is known, the look ends. A new stamp is stored with a started evaluation before the evaluator runs, so the
//! same revisions are never evaluated twice, and a failure is visible.
//!
//! | what fails | stored in | what happens next |
//! |---|---|---|
//! | a fetch | the specification's row | another look, after pauses that grow |
//! | a fetch of a submodule | both rows | evaluated again by another look, after pauses that grow |
//! | the evaluator | the evaluation's row and its log | nothing until the next push |
//! | the database refuses the jobs of this evaluation | the evaluation's row | nothing until the next push |
//! | the disk is full | the evaluation's row: aborted | evaluated again when there is room, a few times |
//! | the server stops | the evaluation's row: aborted | evaluated again at the next start |

mod evaluation;
mod fetch;
mod shared;
mod superseded;
mod turns;

pub(crate) use shared::{Ending, Scheduled, Shared};
pub(crate) use turns::Turns;

use crate::health::Run;
use crate::model::{
    self, Checkout, EvaluationId, EvaluationStatus, Event, SpecificationId, SpecificationState,
    Supersede,
};
use crate::store::{self, Begun, DatabaseError};
use evaluation::{Ended, Turn, evaluate, make_again, stamp};
use fetch::{fetch, met_full_disk};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tracing::Instrument;

/// The pause after a failed look. Each further failure doubles it.
const BACK_OFF: Duration = Duration::from_secs(10);
/// The longest pause after failed looks, unless the interval is longer.
const BACK_OFF_MAX: Duration = Duration::from_secs(30 * 60);

/// The result of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looked {
    /// Nothing is new; the evaluation of these revisions has this status.
    Known(EvaluationId, EvaluationStatus),
    /// There was an evaluation, which ended with this status.
    Evaluated(EvaluationId, EvaluationStatus),
    /// The inputs could not be fetched.
    Failed,
    /// The specification is gone.
    Gone,
}

/// Looks at a specification at intervals and whenever `wanted` is notified, until `stop` turns true.
///
/// # Errors
/// The database failed, so the server cannot go on.
pub(crate) async fn run(
    shared: Arc<Shared>,
    id: SpecificationId,
    wanted: Arc<Notify>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), DatabaseError> {
    let (mut first, mut full) = (true, 0);
    loop {
        if *stop.borrow_and_update() {
            return Ok(());
        }
        let first = std::mem::replace(&mut first, false);
        let (looked, pause) = look(&shared, id, first, &mut full, stop.clone()).await?;
        if looked == Looked::Gone {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = wanted.notified() => {}
            _ = stop.changed() => {}
        }
    }
}

fn pause_after(interval: Duration, failures: i64) -> Duration {
    if failures == 0 {
        return interval;
    }
    let doublings = u32::try_from(failures - 1).unwrap_or(u32::MAX).min(16);
    BACK_OFF.min(interval).saturating_mul(1 << doublings).min(BACK_OFF_MAX.max(interval))
}

/// Waits until there is room on the disk, then looks once. Returns the result, and the pause before the next look. The
/// `first` look of a server also checks that the outputs of the last evaluation exist. `full` counts the evaluations in
/// a row that met a full disk.
///
/// # Errors
/// The database failed.
///
/// # Cancel safety
/// If the future is dropped, child processes are killed, and a running evaluation stays stored as started until the
/// next start of the server. If `stop` turns true, the evaluation is stored as aborted.
pub(crate) async fn look(
    shared: &Shared,
    id: SpecificationId,
    first: bool,
    full: &mut usize,
    mut stop: watch::Receiver<bool>,
) -> Result<(Looked, Duration), DatabaseError> {
    tokio::select! {
        () = shared.health.room() => {}
        _ = stop.wait_for(|stop| *stop) => return Ok((Looked::Gone, shared.interval.get())),
    }
    let read = move |s: &store::Snapshot| store::specification_by_id(s, id);
    let state = shared.health.read(&shared.database, read).await?;
    let Some(state) = state else { return Ok((Looked::Gone, shared.interval.get())) };
    let span = tracing::info_span!("look", specification = state.specification.name);
    look_at(shared, state, first, full, stop).instrument(span).await
}

async fn look_at(
    shared: &Shared,
    state: SpecificationState,
    first: bool,
    full: &mut usize,
    mut stop: watch::Receiver<bool>,
) -> Result<(Looked, Duration), DatabaseError> {
    let (id, wanted_at, error) = (state.id, state.look.wanted_at, state.look.error);
    let failures = state.look.failures + 1;
    let run = shared.health.begin();
    let specification = Arc::new(state.specification);
    let interval =
        specification.interval_s.map_or_else(|| shared.interval.get(), Duration::from_secs);
    let fetched = tokio::select! {
        fetched = fetch(shared, &specification) => fetched,
        _ = stop.wait_for(|stop| *stop) => return Ok((Looked::Gone, interval)),
    };
    let now = model::now();
    let next_at = now.saturating_add(seconds(interval));
    let look = store::Looked { specification: id, wanted_at, at: now, next_at, failures };
    let resolved = match fetched {
        Ok(resolved) => resolved,
        Err(error) => {
            let pause = note_failure(shared, look, run, interval, error).await?;
            return Ok((Looked::Failed, pause));
        }
    };
    let stamp = stamp(shared, &specification, &resolved);
    let checkouts: Vec<Checkout> = specification
        .inputs
        .iter()
        .zip(&resolved)
        .map(|(input, resolved)| Checkout {
            input: input.name.clone(),
            revision: resolved.revision.clone(),
            subject: resolved.subject.clone(),
            author: resolved.author.clone(),
            revision_at: resolved.revision_at,
        })
        .collect();
    // The announcement is dropped once a new evaluation has its log (LOG4 in `log`).
    let coming = shared.logs.announce();
    let before = state.current_evaluation.filter(|_| !first);
    let cancels = specification.supersede == Supersede::Cancel;
    let begin = move |tx: &store::Transaction| {
        store::note_look(tx, look, "")?;
        let begun = store::begin_evaluation(tx, id, &stamp, &checkouts, &error, now)?;
        Ok((begun, superseded::by(tx, begun, before, cancels, now)?))
    };
    let (begun, rest) = shared.health.write(&shared.database, begin).await?;
    let _ = shared.events.send(Event::Looked { specification: id, failed: false });
    let evaluation = match begun {
        Begun::Known(known, status) => {
            drop(coming);
            tracing::debug!(evaluation = %known, "nothing is new");
            superseded::settle(shared, rest).await?;
            if first && status == EvaluationStatus::Succeeded {
                make_again(shared, known).await?;
            }
            return Ok((Looked::Known(known, status), interval));
        }
        Begun::New(evaluation) | Begun::Again(evaluation) => evaluation,
    };
    let span = tracing::info_span!("evaluation", id = %evaluation);
    let later = pause_after(interval, failures);
    let next_at = now.saturating_add(seconds(later));
    let turn = Turn { run, full: *full, unreachable: store::Looked { next_at, ..look } };
    let evaluated = evaluate(shared, &specification, &resolved, evaluation, turn, (coming, stop));
    let Ended { status, met, unreachable } = evaluated.instrument(span).await?;
    *full = if met { *full + 1 } else { 0 };
    if unreachable {
        let _ = shared.events.send(Event::Looked { specification: id, failed: true });
        return Ok((Looked::Evaluated(evaluation, status), later));
    }
    // The next look waits for room and evaluates the same revisions again.
    let pause = if met && status == EvaluationStatus::Aborted { BACK_OFF } else { interval };
    Ok((Looked::Evaluated(evaluation, status), pause.min(interval)))
}

/// Stores that the inputs could not be fetched. Returns the pause before the next look.
async fn note_failure(
    shared: &Shared,
    look: store::Looked,
    run: Run,
    interval: Duration,
    error: String,
) -> Result<Duration, DatabaseError> {
    let (run, met) = met_full_disk(run).await;
    drop(run);
    // The pause does not grow for a full disk, because looks wait for room anyway.
    let pause = pause_after(interval, if met { 1 } else { look.failures });
    tracing::warn!(error, retry_s = pause.as_secs(), "cannot fetch the inputs");
    let look = store::Looked { next_at: look.at.saturating_add(seconds(pause)), ..look };
    let note = move |tx: &store::Transaction| store::note_look(tx, look, &error);
    shared.health.write(&shared.database, note).await?;
    let _ = shared.events.send(Event::Looked { specification: look.specification, failed: true });
    Ok(pause)
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_looks_are_repeated_soon_at_first_and_seldom_later() {
        let interval = Duration::from_secs(300);
        let pauses: Vec<u64> =
            (0..10).map(|failures| pause_after(interval, failures).as_secs()).collect();
        assert_eq!(pauses, [300, 10, 20, 40, 80, 160, 320, 640, 1280, 1800]);
        assert_eq!(pause_after(Duration::from_secs(7200), 99), Duration::from_secs(7200));
        assert_eq!(pause_after(Duration::from_millis(10), 1), Duration::from_millis(10));
    }
}
