//! The part of a build's page that says why: why it was built, why it waits, who canceled it, why it was tried again.

use super::audit::{self, AuditRow};
use super::past::Past;
use super::view::{self, Moment};
use crate::model::{Attempt, AuditFilter, Build, BuildStatus, Definition, EvaluationId, Timestamp};
use crate::store::{self, Visible, visible};

/// How many attempts are explained, the latest of them.
const ATTEMPTS: usize = 5;

/// Among how many changes of an evaluation and its builds a cancel of the evaluation is looked for.
const CHANGES: u32 = 500;

/// A sentence with a link in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reason {
    pub(super) before: String,
    /// Where the link leads; empty: there is none.
    pub(super) link: String,
    pub(super) label: String,
    pub(super) after: String,
    /// When it happened; `None`: nobody asks.
    pub(super) at: Option<Moment>,
}

/// A sentence without a link.
fn plain(text: impl Into<String>) -> Reason {
    Reason { before: text.into(), ..Reason::default() }
}

/// What the sentences are made of.
pub(super) struct Known<'a> {
    pub(super) build: &'a Build,
    pub(super) definition: Option<&'a Definition>,
    pub(super) attempts: &'a [Attempt],
    pub(super) past: &'a Past,
    pub(super) audit: &'a [AuditRow],
    /// The systems that the server builds for.
    pub(super) systems: &'a [String],
    pub(super) now: Timestamp,
}

/// Why a build is as it is, the first cause first.
pub(super) fn reasons(s: &Visible<'_>, known: &Known<'_>) -> rusqlite::Result<Vec<Reason>> {
    let mut reasons = vec![made(s, known)?];
    reasons.extend(again(known));
    reasons.extend(waits(s, known)?);
    reasons.extend(ended(s, known)?);
    let more = known.past.evaluations.len() as i64 + known.past.others - 1;
    if more > 0 {
        let what = view::count(more, "other evaluation");
        let verb = if more == 1 { "uses" } else { "use" };
        reasons
            .push(plain(format!("{what} {verb} it too, since its derivation is the same there.")));
    }
    Ok(reasons)
}

/// Why there is such a build at all.
fn made(s: &Visible<'_>, known: &Known<'_>) -> rusqlite::Result<Reason> {
    let before = match known.past.previous {
        Some(id) => visible::predecessor(s, known.build, id)?,
        None => None,
    };
    let Some(before) = before else {
        return Ok(plain("It was made because no earlier evaluation has this job."));
    };
    let from_before = |text: &str, after: String| Reason {
        before: text.to_owned(),
        link: format!("/build/{}", before.id),
        label: format!("#{}", before.id),
        after,
        at: None,
    };
    Ok(match (before.is_same, known.definition, &before.definition) {
        (true, ..) => from_before(
            "It was made because ",
            ", of the same derivation, does not count here: an end by a limit, a cancel or a lost worker holds for one \
             specification alone."
                .to_owned(),
        ),
        (false, Some(now), Some(past)) => {
            let differs = now.differences(past).join("; ");
            from_before("It was made because this differs from ", format!(": {differs}."))
        }
        (false, ..) => from_before("It was made because its derivation is another than that of ", ".".to_owned()),
    })
}

/// Why it was started more than once.
fn again(known: &Known<'_>) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let is_lost = |attempt: &&Attempt| attempt.status == BuildStatus::Scheduled;
    let lost: Vec<&Attempt> = known.attempts.iter().filter(is_lost).collect();
    for attempt in &lost[lost.len().saturating_sub(ATTEMPTS)..] {
        let why = if attempt.message.is_empty() { "it came to no end" } else { &attempt.message };
        reasons.push(plain(format!("Attempt {} did not count: {why}.", attempt.number)));
    }
    // The latest first, as in the audit.
    for row in known.audit.iter().filter(|row| row.change == "restart").take(ATTEMPTS) {
        reasons.push(asked("It was started again because ", " asked for it", row));
    }
    reasons
}

/// A sentence about who asked for a change.
fn asked(before: &str, after: &str, row: &AuditRow) -> Reason {
    let why = if row.reason.is_empty() { String::new() } else { format!(": {}", row.reason) };
    let at = row.at.clone();
    Reason { before: format!("{before}{}{after}{why}", row.actor), at, ..Reason::default() }
}

/// Why it has not started.
fn waits(s: &Visible<'_>, known: &Known<'_>) -> rusqlite::Result<Option<Reason>> {
    let build = known.build;
    if build.status != BuildStatus::Scheduled || build.imported {
        return Ok(None);
    }
    if build.waiting > 0 {
        let what = view::count(build.waiting, "build");
        return Ok(Some(plain(format!("It waits for {what} that it needs."))));
    }
    if !known.systems.contains(&build.system) {
        let (own, systems) = (&build.system, known.systems.join(", "));
        return Ok(Some(plain(format!(
            "It waits for ever: it is for {own}, and this server builds for {systems}."
        ))));
    }
    if let Some(twin) = visible::running_twin(s, build)? {
        return Ok(Some(Reason {
            before: "It waits for ".to_owned(),
            link: format!("/build/{twin}"),
            label: format!("#{twin}"),
            after: ", which runs the same derivation, and gets its end.".to_owned(),
            at: None,
        }));
    }
    let ahead = visible::ahead(s, build, known.systems)?;
    Ok(Some(plain(match ahead {
        0 => "It is the next to be started when a place is free.".to_owned(),
        _ => format!("It waits for a free place: {} before it.", view::count(ahead, "build")),
    })))
}

/// Whose result it has, or who canceled it.
fn ended(s: &Visible<'_>, known: &Known<'_>) -> rusqlite::Result<Option<Reason>> {
    if let Some(other) = number_behind("as build ", known.build) {
        return Ok(Some(Reason {
            before: "It was not run: it has the result of ".to_owned(),
            link: format!("/build/{other}"),
            label: format!("#{other}"),
            after: ", of the same derivation.".to_owned(),
            at: None,
        }));
    }
    match known.build.status {
        BuildStatus::Canceled => canceled(s, known),
        _ => Ok(None),
    }
}

/// The number in the message of a build that begins so; `None`: it begins otherwise.
fn number_behind(begin: &str, build: &Build) -> Option<i64> {
    build.message.strip_prefix(begin)?.split(':').next()?.parse().ok()
}

/// Who canceled it: somebody who asked for that, or for the cancel of an evaluation; or newer revisions did. The message
/// of the build says which.
fn canceled(s: &Visible<'_>, known: &Known<'_>) -> rusqlite::Result<Option<Reason>> {
    let build = known.build;
    if let Some(by) = number_behind("superseded by evaluation ", build) {
        return Ok(Some(Reason {
            before: "It was canceled because ".to_owned(),
            link: format!("/eval/{by}"),
            label: format!("#{by}"),
            after: " superseded what wanted it.".to_owned(),
            at: None,
        }));
    }
    if let Some(of) = number_behind("canceled with evaluation ", build) {
        let evaluation = Some(EvaluationId::new(of));
        let filter = AuditFilter { evaluation, ..AuditFilter::default() };
        let mut rows = audit::some_changes(s, &filter, CHANGES, known.now)?;
        rows.retain(|row| row.build.is_none());
        let row = cancel_of(build, &rows);
        return Ok(Some(Reason {
            before: "It was canceled with ".to_owned(),
            link: format!("/eval/{of}"),
            label: format!("#{of}"),
            after: match row {
                Some(row) => asked(", because ", " asked for it", row).before,
                None => ", on request.".to_owned(),
            },
            at: row.and_then(|row| row.at.clone()),
        }));
    }
    if build.message != store::CANCELED {
        return Ok(None);
    }
    let row = cancel_of(build, known.audit);
    Ok(row.map(|row| asked("It was canceled because ", " asked for it", row)))
}

/// The cancel by which a build ended, among changes of which the latest is the first: of a build that ran the first since
/// its start, since the later ones came when it was being ended; of a build that waited the last.
fn cancel_of<'r>(build: &Build, rows: &'r [AuditRow]) -> Option<&'r AuditRow> {
    let is_within = |row: &&AuditRow| {
        let at = row.at.as_ref().map_or(0, |at| at.seconds);
        row.change == "cancel" && (build.started_at..=build.stopped_at).contains(&at)
    };
    match build.started_at {
        0 => rows.iter().find(is_within),
        _ => rows.iter().rfind(is_within),
    }
}

#[cfg(test)]
mod tests;
