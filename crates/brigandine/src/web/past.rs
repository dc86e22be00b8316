//! The parts of a build's page about the revisions that it is of, and about the history of its job.

use super::revisions::{self, Revision};
use crate::model::{Build, BuildId, Checkout, EvaluationId, Surroundings};
use crate::store::{Visible, visible};

/// What a build's page shows of the past.
pub(super) struct Past {
    /// The revisions of the evaluation for which the build was made.
    pub(super) revisions: Vec<Revision>,
    pub(super) previous: Option<BuildId>,
    pub(super) next: Option<BuildId>,
    /// The latest evaluations that have the build.
    pub(super) evaluations: Vec<EvaluationId>,
    /// How many further evaluations have it.
    pub(super) others: i64,
    pub(super) broken: Option<Broken>,
}

/// Since when the job fails.
pub(super) struct Broken {
    /// The latest success before; `None`: there is none, as far as was looked.
    pub(super) success: Option<(EvaluationId, BuildId)>,
    /// The first failure after that.
    pub(super) failure: (EvaluationId, BuildId),
    /// Whether this build is the first failure.
    pub(super) is_here: bool,
    /// How the revisions of the first failure differ from those of the latest success.
    pub(super) changed: Vec<Revision>,
    /// What was evaluated after the success, up to the failure, the latest first; empty if that is the failure alone.
    pub(super) suspects: Vec<Suspect>,
    /// How many suspects are not named.
    pub(super) others: i64,
}

/// An evaluation whose revisions may have broken the job.
pub(super) struct Suspect {
    pub(super) id: EvaluationId,
    /// Those of its revisions that the evaluation before did not have.
    pub(super) revisions: Vec<Revision>,
}

impl Past {
    pub(super) fn read(s: &Visible<'_>, build: &Build) -> rusqlite::Result<Self> {
        let Surroundings { previous, next, evaluations, others, blame } =
            visible::surroundings(s, build)?;
        let inputs = revisions::inputs(s, build.specification_id)?;
        let rows =
            |checkouts, before: &[Checkout]| revisions::revisions(checkouts, before, &inputs);
        let broken = match blame {
            None => None,
            Some(blame) => {
                let good = match blame.success {
                    Some((evaluation, _)) => visible::checkouts(s, evaluation)?,
                    None => Vec::new(),
                };
                let mut changed = Vec::new();
                if blame.success.is_some() {
                    let bad = visible::checkouts(s, blame.failure.0)?;
                    changed = rows(revisions::differing(bad, &good), &good);
                }
                let mut suspects = Vec::new();
                if blame.suspects.len() > 1 {
                    suspects = suspected(s, &blame.suspects, blame.others, &good)?
                        .into_iter()
                        .map(|(id, checkouts)| Suspect { id, revisions: rows(checkouts, &[]) })
                        .collect();
                }
                Some(Broken {
                    success: blame.success,
                    failure: blame.failure,
                    is_here: blame.failure.1 == build.id,
                    changed,
                    suspects,
                    others: blame.others,
                })
            }
        };
        let own = rows(visible::checkouts(s, build.evaluation)?, &[]);
        Ok(Self { revisions: own, previous, next, evaluations, others, broken })
    }
}

/// The suspects, the latest first, each with the checkouts that the evaluation before did not have. `good` are those of
/// the latest success, which precedes the last suspect unless `others` stand between them.
fn suspected(
    s: &Visible<'_>,
    suspects: &[EvaluationId],
    others: i64,
    good: &[Checkout],
) -> rusqlite::Result<Vec<(EvaluationId, Vec<Checkout>)>> {
    let mut before = if others == 0 { good.to_vec() } else { Vec::new() };
    let mut found = Vec::new();
    for id in suspects.iter().rev() {
        let checkouts = visible::checkouts(s, *id)?;
        found.push((*id, revisions::differing(checkouts.clone(), &before)));
        before = checkouts;
    }
    found.reverse();
    Ok(found)
}
