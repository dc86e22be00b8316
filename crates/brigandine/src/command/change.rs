//! `brigandine cancel ID`, `brigandine restart ID`: changes of builds, by the server that runs, or in
//! the database of one that does not.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::{Failure, existing, trouble};
use crate::api::restart_refused;
use crate::app;
use crate::cli;
use crate::model::{self, Build, BuildId, BuildStatus};
use crate::store::{self, Cancel, Database, Restart};

/// Between two questions to the database: the server is another process and says nothing itself.
const PAUSE: Duration = Duration::from_millis(50);

/// The server has this long to do what it was told, beyond the grace of a running build.
const TIME: Duration = Duration::from_secs(120);

/// Cancels a build and waits for its end.
///
/// # Errors
/// There is no such build, it has ended already, or it runs and nobody can be asked to end it.
pub(crate) fn cancel(arguments: &cli::Change) -> Result<(), Failure> {
    super::runtime()?.block_on(async {
        let (database, id) = open(arguments).await?;
        let build = find(&database, id).await?;
        if build.status.is_finished() {
            return Err(Failure::failed(format!("build {id} has ended already: {}", build.status)));
        }
        if !told(arguments, "cancel")? {
            let now = model::now();
            let done = database.write(move |tx| store::cancel(tx, id, now)).await;
            if let Cancel::Running(_) = done.map_err(trouble)? {
                return Err(Failure::failed(format!(
                    "no server runs on {}; the one that started build {id} was killed, and the \
                     next one schedules it again",
                    arguments.state.state.display()
                )));
            }
        }
        let ended = wait(&database, id, |build| build.status.is_finished()).await?;
        println!("build {id}: {}", ended.status);
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
                println!("build {id}: scheduled{rest}{when}");
                Ok(())
            }
            Restart::Not(status) => Err(Failure::failed(restart_refused(id, status))),
            Restart::Needs(needed) => Err(Failure::failed(format!(
                "build {id} needs build {needed}, which failed; restart that"
            ))),
            Restart::Undefined => Err(Failure::failed(format!(
                "nothing says any more how to build {id}; evaluate its specification again"
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

/// Tells the server, if one runs.
fn told(arguments: &cli::Change, what: &str) -> Result<bool, Failure> {
    match app::tell(&arguments.state.state, &format!("{what} {}", arguments.id)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            Err(Failure::failed("the server has too much to do to hear this; try again"))
        }
        // No socket, or nobody behind it.
        Err(_) => Ok(false),
    }
}

async fn wait(
    database: &Database,
    id: BuildId,
    until: impl Fn(&Build) -> bool,
) -> Result<Build, Failure> {
    let started = Instant::now();
    loop {
        let build = find(database, id).await?;
        if until(&build) {
            return Ok(build);
        }
        if started.elapsed() > TIME {
            return Err(Failure::failed("the server did not do it in time; see its trace"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
