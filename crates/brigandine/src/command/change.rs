//! `brigandine cancel BUILD…` and `brigandine restart BUILD…`: change builds in the database, and notify the server if
//! one runs.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Failure, existing, find_build, poll, print_json, say, written};
use crate::app::{self, Served};
use crate::cli;
use crate::model::{self, Actor, Asked, BuildId, BuildStatus, Change, Outcome, Target};
use crate::os::account;
use crate::store::{self, Database};
use crate::wire::OutcomesJson;

/// After this time, `cancel` notifies the server again, because a full socket drops messages.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// Cancels builds and waits for their ends. The request is stored first. So if the server is killed before it has
/// handled the request, the next server cancels the builds when it starts.
///
/// # Errors
/// A build does not exist or has ended already, or no server runs that could end it now.
pub(crate) async fn cancel(arguments: &cli::Change) -> Result<(), Failure> {
    let state = &arguments.state.state;
    let database = existing(state).await?;
    let outcomes = change(&database, Change::Cancel, arguments).await?;
    app::wake(state);
    let mut ended = Ok(());
    for (target, outcome) in &outcomes {
        let (Target::Build(id), Outcome::Ending(_)) = (target, outcome) else { continue };
        let waited = wait_for_end(state, &database, *id).await;
        if ended.is_ok() {
            ended = waited;
        }
    }
    let said = |id: &BuildId, _: usize| format!("build {id}: canceled");
    report(Change::Cancel, outcomes, arguments.json, said).and(ended)
}

/// Waits until a build that was running has ended.
///
/// # Errors
/// No server runs that could end it; or it ended by itself before.
async fn wait_for_end(state: &Path, database: &Database, id: BuildId) -> Result<(), Failure> {
    if app::served(state) == Served::No {
        return Err(Failure::failed(format!(
            "no server runs on {}; the one that started build {id} was killed, and the next one \
             cancels it",
            state.display()
        )));
    }
    let mut told = Instant::now();
    let ended = poll(state, async |gone| {
        let build = find_build(database, id).await?;
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
            app::wake(state);
            told = Instant::now();
        }
        Ok(None)
    });
    let ended = ended.await?;
    if ended.status == BuildStatus::Canceled {
        return Ok(());
    }
    Err(Failure::failed(format!("build {id} ended before it could be canceled: {}", ended.status)))
}

/// Reschedules builds that ended without success.
///
/// # Errors
/// A build does not exist, or cannot be rescheduled.
pub(crate) async fn restart(arguments: &cli::Change) -> Result<(), Failure> {
    let state = &arguments.state.state;
    let database = existing(state).await?;
    // One write makes the whole change. The server then only needs to know that builds are scheduled.
    let outcomes = change(&database, Change::Restart, arguments).await?;
    let when = if app::wake(state) { "" } else { "; no server runs now" };
    let said = |id: &BuildId, changed: usize| {
        let rest = match changed.saturating_sub(1) {
            0 => String::new(),
            more => format!(", and {more} that need it"),
        };
        format!("build {id}: scheduled{rest}{when}")
    };
    report(Change::Restart, outcomes, arguments.json, said)
}

/// Makes a change of the builds that the command line names, each once.
async fn change(
    database: &Database,
    change: Change,
    arguments: &cli::Change,
) -> Result<Vec<(Target, Outcome)>, Failure> {
    let mut targets: Vec<Target> = Vec::new();
    for target in arguments.ids.iter().map(|id| Target::Build(*id)) {
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    let asked = Asked::new(actor(), model::now(), &arguments.reason);
    let write = move |tx: &store::Transaction| store::request(tx, change, &targets, &asked);
    Ok(written(database.write(write)).await?.outcomes)
}

/// The user who runs this command.
pub(super) fn actor() -> Actor {
    Actor::local(&account::own_name())
}

/// Prints what became of each build. `said` makes the line of a build that was changed.
///
/// # Errors
/// A build was not changed.
fn report(
    change: Change,
    outcomes: Vec<(Target, Outcome)>,
    as_json: bool,
    said: impl Fn(&BuildId, usize) -> String,
) -> Result<(), Failure> {
    let (mut problems, mut missing) = (Vec::new(), true);
    for (target, outcome) in &outcomes {
        match (target, outcome) {
            (Target::Build(id), Outcome::Missing) => {
                problems.push(format!("there is no build {id}; `brigandine builds` lists them"));
            }
            (target, Outcome::Missing) => problems.push(format!("there is no {target}")),
            (_, Outcome::Refused(why)) => {
                missing = false;
                problems.push(why.clone());
            }
            (Target::Build(id), Outcome::Done(changed)) if !as_json => say(&said(id, *changed)),
            (Target::Build(id), Outcome::Ending(_)) if !as_json => say(&said(id, 0)),
            _ => {}
        }
    }
    if as_json {
        print_json(&OutcomesJson::new(change, outcomes));
    }
    match problems.is_empty() {
        true => Ok(()),
        false if missing => Err(Failure::not_found(problems.join("\n"))),
        false => Err(Failure::failed(problems.join("\n"))),
    }
}
