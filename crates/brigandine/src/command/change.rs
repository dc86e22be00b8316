//! `brigandine cancel`, `restart`, `bump`, `keep` and `comment`: change builds and evaluations in the database, and notify
//! the server if one runs; or ask another server.

use std::path::Path;
use std::time::{Duration, Instant};

use super::remote::Remote;
use super::{Failure, existing, find_build, poll, print_json, say, written};
use crate::app::{self, Served};
use crate::cli;
use crate::model::{
    self, Actor, Asked, BuildId, BuildStatus, Change, Counts, EvaluationId, Outcome, TARGETS_MAX,
    Target,
};
use crate::os::account;
use crate::store::{self, Database};
use crate::wire::OutcomesJson;

/// After this time, `cancel` notifies the server again, because a full socket drops messages.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// Cancels builds and evaluations, and waits for the ends of the builds. The request is stored first. So if the server
/// is killed before it has handled the request, the next server cancels the builds when it starts. The ends of builds of
/// another server are not waited for.
///
/// # Errors
/// A build does not exist or has ended already, or no server runs that could end it now.
pub(crate) async fn cancel(arguments: &cli::Change) -> Result<(), Failure> {
    let state = &arguments.state.state;
    let targets = targets(&arguments.ids, &arguments.evaluation, &arguments.status);
    let asked = &arguments.asked;
    if let Some(remote) = Remote::new(&asked.server)? {
        return ask(remote, Change::Cancel, targets, &asked.reason, asked.json).await;
    }
    let database = existing(state).await?;
    let outcomes = change(state, &database, Change::Cancel, targets, &asked.reason).await?;
    let mut ended = Ok(());
    for (target, outcome) in &outcomes {
        let (Target::Build(id), Outcome::Ending(_)) = (target, outcome) else { continue };
        let waited = wait_for_end(state, &database, *id).await;
        if ended.is_ok() {
            ended = waited;
        }
    }
    report(Change::Cancel, outcomes, asked.json).and(ended)
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
    some(arguments, Change::Restart).await
}

/// Puts builds in front of the queue.
///
/// # Errors
/// A build does not exist, or does not wait.
pub(crate) async fn bump(arguments: &cli::Change) -> Result<(), Failure> {
    some(arguments, Change::Bump).await
}

async fn some(arguments: &cli::Change, change: Change) -> Result<(), Failure> {
    let targets = targets(&arguments.ids, &arguments.evaluation, &arguments.status);
    let asked = &arguments.asked;
    let place = (&*arguments.state.state, &asked.server);
    one_of(place, change, targets, &asked.reason, asked.json).await
}

/// Keeps evaluations against retention, or no longer.
///
/// # Errors
/// An evaluation does not exist, or is kept already or not.
pub(crate) async fn keep(arguments: &cli::Keep) -> Result<(), Failure> {
    let change = if arguments.undo { Change::Release } else { Change::Keep };
    let (targets, asked) = (targets(&[], &arguments.ids, &[]), &arguments.asked);
    let place = (&*arguments.state.state, &asked.server);
    one_of(place, change, targets, &asked.reason, asked.json).await
}

/// Comments on builds and evaluations.
///
/// # Errors
/// One of them does not exist, or the comment is empty.
pub(crate) async fn comment(arguments: &cli::Comment) -> Result<(), Failure> {
    let targets = targets(&arguments.ids, &arguments.evaluation, &[]);
    let place = (&*arguments.state.state, &arguments.server);
    one_of(place, Change::Comment, targets, &arguments.message, arguments.json).await
}

/// Enables or disables specifications.
///
/// # Errors
/// A specification does not exist, or is so already.
pub(super) async fn specifications(
    state: &Path,
    change: Change,
    names: &[String],
    asked: &cli::Asked,
) -> Result<(), Failure> {
    let targets = names.iter().cloned().map(Target::Specification).collect();
    one_of((state, &asked.server), change, targets, &asked.reason, asked.json).await
}

/// What the command line names, each once.
fn targets(
    builds: &[BuildId],
    evaluations: &[EvaluationId],
    statuses: &[BuildStatus],
) -> Vec<Target> {
    let of_evaluation = |id: &EvaluationId| match statuses {
        [] => Target::Evaluation(*id),
        statuses => Target::Jobs(*id, statuses.to_vec()),
    };
    let builds = builds.iter().map(|id| Target::Build(*id));
    let mut all: Vec<Target> = Vec::new();
    for target in builds.chain(evaluations.iter().map(of_evaluation)) {
        if !all.contains(&target) {
            all.push(target);
        }
    }
    all
}

/// Makes a change of these targets, and prints what became of each.
async fn one_of(
    (state, server): (&Path, &cli::Server),
    what: Change,
    targets: Vec<Target>,
    reason: &str,
    as_json: bool,
) -> Result<(), Failure> {
    if let Some(remote) = Remote::new(server)? {
        return ask(remote, what, targets, reason, as_json).await;
    }
    let database = existing(state).await?;
    let outcomes = change(state, &database, what, targets, reason).await?;
    report(what, outcomes, as_json)
}

/// Asks another server for a change of these targets, and prints what became of each.
pub(super) async fn ask(
    remote: Remote,
    what: Change,
    targets: Vec<Target>,
    reason: &str,
    as_json: bool,
) -> Result<(), Failure> {
    check_number(&targets)?;
    let outcomes = remote.change(what, targets, reason).await?;
    report(what, outcomes, as_json)
}

fn check_number(targets: &[Target]) -> Result<(), Failure> {
    match targets.len() <= TARGETS_MAX {
        true => Ok(()),
        false => Err(Failure::failed(format!("at most {TARGETS_MAX} are changed at once"))),
    }
}

/// Makes a change in the database, and tells the server. The server then reads the database.
async fn change(
    state: &Path,
    database: &Database,
    change: Change,
    targets: Vec<Target>,
    reason: &str,
) -> Result<Vec<(Target, Outcome)>, Failure> {
    check_number(&targets)?;
    let asked = Asked::new(actor(), model::now(), reason);
    let outcomes = written(store::carry_out(database, change, targets, asked, &|_| ())).await?;
    if !app::wake(state) && change == Change::Restart {
        eprintln!("brigandine: no server runs now on {}", state.display());
    }
    Ok(outcomes)
}

/// The user who runs this command.
pub(super) fn actor() -> Actor {
    Actor::local(&account::own_name())
}

/// Prints what became of each target.
///
/// # Errors
/// A target was not changed.
fn report(change: Change, outcomes: Vec<(Target, Outcome)>, as_json: bool) -> Result<(), Failure> {
    let (mut problems, mut missing) = (Vec::new(), true);
    for (target, outcome) in &outcomes {
        match (target, outcome) {
            (Target::Build(id), Outcome::Missing) => {
                problems.push(format!("there is no build {id}; `brigandine builds` lists them"));
            }
            (target, Outcome::Missing) => problems.push(format!("there is no {}", target.thing())),
            (_, Outcome::Refused(why)) => {
                missing = false;
                problems.push(why.clone());
            }
            _ if as_json => {}
            (target, Outcome::Many(counts)) => {
                say(&format!("{target}: {}", many(change, *counts)));
            }
            (target, Outcome::Done(changed)) => {
                say(&format!("{target}: {}", done(change, *changed)));
            }
            (target, Outcome::Ending(_)) => say(&format!("{target}: {}", done(change, 0))),
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

/// What a change has done, in words.
fn done(change: Change, changed: usize) -> String {
    let word = match change {
        Change::Restart => {
            return match changed.saturating_sub(1) {
                0 => "scheduled".to_owned(),
                more => format!("scheduled, and {more} that need it"),
            };
        }
        Change::Cancel | Change::Supersede => "canceled",
        Change::Bump => "next in the queue",
        Change::Keep => "kept",
        Change::Release => "no longer kept",
        Change::Comment => "noted",
        Change::Evaluate => "looked at now",
        Change::Enable => "enabled",
        Change::Disable => "disabled",
        Change::Define => "defined",
        Change::Remove => "removed",
    };
    word.to_owned()
}

/// What a change has done to the builds of an evaluation, in words.
fn many(change: Change, counts: Counts) -> String {
    let Counts { changed, ending, left } = counts;
    let (word, why) = match change {
        Change::Restart => ("scheduled", "cannot be restarted"),
        Change::Bump => ("put in front of the queue", "stay"),
        _ => ("canceled", "are wanted by other evaluations"),
    };
    let mut words = format!("{changed} builds {word}");
    if ending > 0 {
        words.push_str(&format!(", {ending} asked to end"));
    }
    if left > 0 {
        words.push_str(&format!(", {left} {why}"));
    }
    words
}
