//! `brigandine cancel ID` and `brigandine restart ID`: change builds in the database, and notify the server if one
//! runs.

use std::time::{Duration, Instant};

use super::{Failure, existing, find_build, no_build, poll, say};
use crate::app::{self, Served};
use crate::cli;
use crate::model::{self, BuildStatus, Cancel, Restart, restart_refused};
use crate::store;

/// After this time, `cancel` notifies the server again, because a full socket drops messages.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// Cancels a build and waits for its end. The request is stored first. So if the server is killed before it has handled
/// the request, the next server cancels the build when it starts.
///
/// # Errors
/// There is no such build, it has ended already, or no server runs that could end it now.
pub(crate) async fn cancel(arguments: &cli::Change) -> Result<(), Failure> {
    let (state, id) = (&arguments.state.state, arguments.id);
    let database = existing(state).await?;
    let build = find_build(&database, id).await?;
    if build.status.is_finished() {
        return Err(Failure::failed(format!("build {id} has ended already: {}", build.status)));
    }
    let now = model::now();
    let done = database.write(move |tx| store::cancel(tx, id, now)).await?;
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
    let mut told = Instant::now();
    let ended = poll(state, async |gone| {
        let build = find_build(&database, id).await?;
        if build.status.is_finished() {
            return Ok(Some(build));
        }
        if gone {
            return Err(Failure::failed(format!(
                "the server of {} has gone before build {id} ended; the next one cancels it",
                state.display()
            )));
        }
        if told.elapsed() > TELL_AGAIN {
            tell();
            told = Instant::now();
        }
        Ok(None)
    });
    let ended = ended.await?;
    say(&format!("build {id}: {}", ended.status));
    if ended.status == BuildStatus::Canceled {
        return Ok(());
    }
    Err(Failure::failed(format!("build {id} ended before it could be canceled")))
}

/// Reschedules a build that ended without success.
///
/// # Errors
/// There is no such build, or it cannot be rescheduled.
pub(crate) async fn restart(arguments: &cli::Change) -> Result<(), Failure> {
    let (state, id) = (&arguments.state.state, arguments.id);
    let database = existing(state).await?;
    // One write makes the whole change. The server then only needs to know that a build is scheduled.
    match database.write(move |tx| store::restart(tx, id)).await? {
        Restart::Done(changed) => {
            let rest = match changed.len() - 1 {
                0 => String::new(),
                more => format!(", and {more} that need it"),
            };
            let when = if app::wake(state) { "" } else { "; no server runs now" };
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
        Restart::Missing => Err(no_build(id)),
    }
}
