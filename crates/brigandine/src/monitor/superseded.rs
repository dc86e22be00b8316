//! Builds that only evaluations of other revisions want, where a specification says `supersede = "cancel"`.

use super::shared::Shared;
use crate::model::{self, EvaluationId, Timestamp};
use crate::store::{self, DatabaseError};

/// Notes what a known evaluation changes when the inputs are at its revisions and were not `before`: the evaluation wants
/// its builds again, and with `cancels` it supersedes others. Returns what is to be done to their builds.
pub(super) fn by(
    tx: &store::Transaction,
    begun: store::Begun,
    before: Option<EvaluationId>,
    cancels: bool,
    now: Timestamp,
) -> rusqlite::Result<Vec<store::Rest>> {
    let store::Begun::Known(id, _) = begun else { return Ok(Vec::new()) };
    if before == Some(id) {
        return Ok(Vec::new());
    }
    let mut rest = Vec::from_iter(store::take_up_again(tx, id, now)?);
    if cancels {
        rest.extend(store::supersede(tx, id, now)?);
    }
    Ok(rest)
}

/// Cancels builds of evaluations that were superseded, and restarts those of an evaluation whose revisions the inputs
/// have again.
///
/// # Errors
/// The database failed. What a killed server leaves here is done at the next start.
pub(super) async fn settle(shared: &Shared, rest: Vec<store::Rest>) -> Result<(), DatabaseError> {
    if rest.is_empty() {
        return Ok(());
    }
    let after = |effects: &store::Effects| {
        shared.meters.builds_changed(&effects.changed);
        model::publish(&shared.events, &effects.changed);
        for (id, attempt) in &effects.running {
            (shared.ending.0)(*id, *attempt);
        }
    };
    for rest in rest {
        let finish = || store::finish_rest(&shared.database, rest.clone(), &after);
        let counts = shared.health.retry(finish).await?;
        tracing::info!(
            changed = counts.changed,
            ending = counts.ending,
            left = counts.left,
            "superseded"
        );
    }
    (shared.scheduled.0)();
    Ok(())
}
