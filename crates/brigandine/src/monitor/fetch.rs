//! Fetches the inputs of a specification in parallel.

use super::shared::Shared;
use crate::health::Run;
use crate::input::Resolved;
use crate::model::{MESSAGE_BYTES_MAX, Specification, one_line};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::Instrument;

/// The most fetches of one specification that run at the same time.
const FETCHES_OF_ONE: usize = 4;

/// Fetches all inputs in parallel. The error names all inputs that failed, for people.
pub(super) async fn fetch(
    shared: &Shared,
    specification: &Specification,
) -> Result<Vec<Resolved>, String> {
    let mut fetches = JoinSet::new();
    let own = Arc::new(Semaphore::new(FETCHES_OF_ONE));
    for (place, input) in specification.inputs.iter().cloned().enumerate() {
        let (repositories, turns) = (Arc::clone(&shared.repositories), Arc::clone(&shared.fetches));
        let own = Arc::clone(&own);
        let work = async move {
            // The semaphore is never closed, so this cannot fail.
            let _own = own.acquire_owned().await;
            let resolved = turns.run(repositories.fetch(&input.url, &input.reference)).await;
            (place, resolved.map_err(|error| format!("input `{}`: {error}", input.name)))
        };
        fetches.spawn(work.in_current_span());
    }
    let mut resolved: Vec<Option<Resolved>> = vec![None; specification.inputs.len()];
    let mut errors = Vec::new();
    while let Some(done) = fetches.join_next().await {
        match done {
            Ok((place, Ok(found))) => resolved[place] = Some(found),
            Ok((_, Err(error))) => errors.push(error),
            Err(error) => errors.push(format!("a fetch failed: {error}")),
        }
    }
    errors.sort_unstable();
    let resolved: Option<Vec<Resolved>> = resolved.into_iter().collect();
    resolved
        .filter(|_| errors.is_empty())
        .ok_or_else(|| one_line(&errors.join("; "), MESSAGE_BYTES_MAX))
}

/// Like [`Run::met_full_disk`], but on a thread that may block. `None`: that thread panicked.
pub(super) async fn met_full_disk(run: Run) -> (Option<Run>, bool) {
    let looked = tokio::task::spawn_blocking(move || {
        let met = run.met_full_disk();
        (Some(run), met)
    });
    looked.await.unwrap_or((None, false))
}
