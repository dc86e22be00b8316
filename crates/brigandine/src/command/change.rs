//! `brigandine cancel ID`, `brigandine restart ID`: changes of builds, by the server that runs, or in
//! the database of one that does not.

use std::time::{Duration, Instant};

use super::{Failure, PAUSE, existing, say, trouble};
use crate::app::{self, Presence, Served};
use crate::cli;
use crate::model::{self, Build, BuildId, BuildStatus, Cancel, Restart, restart_refused};
use crate::store::{self, Database};

/// Before a server that runs is told once more: it may have had too much to do to hear it.
const AGAIN: Duration = Duration::from_secs(1);

/// Cancels a build and waits for its end. The wish is stored first: a server that is killed before it
/// could do it cancels the build when it starts again.
///
/// # Errors
/// There is no such build, it has ended already, or no server runs that could end it now.
pub(crate) fn cancel(arguments: &cli::Change) -> Result<(), Failure> {
    super::runtime()?.block_on(async {
        let (database, id) = open(arguments).await?;
        let state = &arguments.state.state;
        let build = find(&database, id).await?;
        if build.status.is_finished() {
            return Err(Failure::failed(format!("build {id} has ended already: {}", build.status)));
        }
        let now = model::now();
        let done = database.write(move |tx| store::cancel(tx, id, now)).await.map_err(trouble)?;
        let tell = || drop(app::tell(state, &format!("cancel {id}")));
        tell();
        if let Cancel::Running(_) = done
            && app::served(state) == Served::No
        {
            return Err(Failure::failed(format!(
                "no server runs on {}; the one that started build {id} was killed, and the next one \
                 cancels it",
                state.display()
            )));
        }
        let (mut presence, mut told) = (Presence::new(state), Instant::now());
        let ended = loop {
            // Looked at first: what a server stored before it went is read below.
            let gone = presence.has_gone();
            let build = find(&database, id).await?;
            if build.status.is_finished() {
                break build;
            }
            if gone {
                return Err(Failure::failed(format!(
                    "the server of {} has gone before build {id} ended; the next one cancels it",
                    state.display()
                )));
            }
            if told.elapsed() > AGAIN {
                tell();
                told = Instant::now();
            }
            tokio::time::sleep(PAUSE).await;
        };
        say(&format!("build {id}: {}", ended.status));
        if ended.status == BuildStatus::Canceled {
            return Ok(());
        }
        Err(Failure::failed(format!("build {id} ended before it could be canceled")))
    })
}

/// Schedules a build that ended badly once more.
///
/// # Errors
/// There is no such build, or it is not one that can be built again.
pub(crate) fn restart(arguments: &cli::Change) -> Result<(), Failure> {
    super::runtime()?.block_on(async {
        let (database, id) = open(arguments).await?;
        find(&database, id).await?;
        // Decided here, in one write: the server only needs to know that there is something to do.
        let done = database.write(move |tx| store::restart(tx, id)).await.map_err(trouble)?;
        match done {
            Restart::Done(changed) => {
                let served = app::wake(&arguments.state.state);
                let rest = match changed.len() - 1 {
                    0 => String::new(),
                    more => format!(", and {more} that need it"),
                };
                let when = if served { "" } else { "; no server runs now" };
                say(&format!("build {id}: scheduled{rest}{when}"));
                Ok(())
            }
            Restart::Not(status) => Err(Failure::failed(restart_refused(id, status))),
            Restart::Needs(needed) => Err(Failure::failed(format!(
                "build {id} needs build {needed}, which failed; restart that"
            ))),
            Restart::Undefined => Err(Failure::failed(format!(
                "build {id} has no derivation any more; evaluate its specification again"
            ))),
            Restart::Missing => Err(Failure::not_found(format!("there is no build {id}"))),
        }
    })
}

async fn open(arguments: &cli::Change) -> Result<(Database, BuildId), Failure> {
    Ok((existing(&arguments.state.state).await?, BuildId::new(arguments.id)))
}

async fn find(database: &Database, id: BuildId) -> Result<Build, Failure> {
    let found = database.read(move |s| store::build(s, id)).await.map_err(trouble)?;
    found.ok_or_else(|| Failure::not_found(format!("there is no build {id}")))
}
