//! Values as pages show them: times, sizes, statuses.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::model::{
    self, BuildStatus, Counters, Evaluation, EvaluationStatus, Input, JobChange, Reference,
    Timestamp, Weather,
};

/// The mark, colour and words for a state. Each mark has a shape of its own, so that no information is in the colour
/// alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Badge {
    /// The CSS class of the colour, which is also the name of the symbol.
    pub(super) class: &'static str,
    /// The words.
    pub(super) label: &'static str,
}

const fn badge(class: &'static str, label: &'static str) -> Badge {
    Badge { class, label }
}

/// The badge of a specification without an evaluation.
pub(super) const UNKNOWN: Badge = badge("wait", "not evaluated yet");

/// The badge of a build's status.
pub(super) const fn build_badge(status: BuildStatus) -> Badge {
    match status {
        BuildStatus::Scheduled => badge("wait", "queued"),
        BuildStatus::Started => badge("run", "running"),
        BuildStatus::Succeeded => badge("ok", "succeeded"),
        BuildStatus::Failed => badge("bad", "failed"),
        BuildStatus::FailedDependency => badge("dep", "dependency failed"),
        BuildStatus::FailedOther => badge("other", "failed otherwise"),
        BuildStatus::Canceled => badge("cancel", "canceled"),
    }
}

/// The badge of an evaluation: its status, or, if it succeeded, the state of its jobs.
pub(super) const fn evaluation_badge(evaluation: &Evaluation) -> Badge {
    state_badge(evaluation.status, &evaluation.counters)
}

/// Like [`evaluation_badge`], from the status and the counters.
pub(super) const fn state_badge(status: EvaluationStatus, counters: &Counters) -> Badge {
    match status {
        EvaluationStatus::Started => badge("run", "evaluating"),
        EvaluationStatus::Failed => badge("bad", "evaluation failed"),
        EvaluationStatus::Aborted => badge("cancel", "evaluation aborted"),
        EvaluationStatus::Succeeded if counters.started > 0 => badge("run", "building"),
        EvaluationStatus::Succeeded if counters.scheduled > 0 => badge("wait", "queued"),
        EvaluationStatus::Succeeded if counters.total() == 0 => badge("ok", "no jobs"),
        EvaluationStatus::Succeeded if counters.all_failed() > 0 => badge("bad", "with failures"),
        EvaluationStatus::Succeeded if counters.canceled > 0 => badge("cancel", "partly canceled"),
        EvaluationStatus::Succeeded => badge("ok", "all succeeded"),
    }
}

/// How long an evaluation took, in words; empty while it runs.
pub(super) fn evaluation_took(evaluation: &Evaluation) -> String {
    let took = model::duration(evaluation.finished_at - evaluation.created_at);
    match evaluation.status {
        EvaluationStatus::Started => String::new(),
        EvaluationStatus::Succeeded => format!("evaluated in {took}"),
        EvaluationStatus::Failed | EvaluationStatus::Aborted => format!("ended after {took}"),
    }
}

/// How a finished build compares with the job's build before it, in words; empty: there is nothing to report.
pub(super) const fn weather(weather: Weather) -> &'static str {
    match weather {
        Weather::NewFailure => "new failure",
        Weather::StillFailing => "still failing",
        // The first success of a job is a new success too, so a new success does not imply an earlier failure.
        Weather::NewSuccess | Weather::StillSucceeding | Weather::Unknown => "",
    }
}

/// The badge of a difference between evaluations. Those that say nothing good or bad have no mark.
pub(super) const fn change_badge(change: JobChange) -> Badge {
    match change {
        JobChange::NewlyFailing => badge("bad", "newly failing"),
        JobChange::StillFailing => badge("bad", "still failing"),
        JobChange::Fixed => badge("ok", "fixed"),
        JobChange::New => badge("", "new"),
        JobChange::Removed => badge("", "removed"),
        JobChange::Canceled => badge("cancel", "canceled"),
    }
}

/// A part of a stacked bar. Position and width are in thousandths of the bar's width.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) class: &'static str,
    pub(super) x: i64,
    pub(super) width: i64,
}

/// The bar of an evaluation's counters. Every status with a job gets at least 12 thousandths.
pub(super) fn bar(counters: &Counters) -> Vec<Part> {
    let total = counters.total();
    if total == 0 {
        return Vec::new();
    }
    let counts: Vec<_> = counts(counters).into_iter().filter(|count| count.number > 0).collect();
    let spare = 1000 - 12 * i64::try_from(counts.len()).unwrap_or(0);
    let mut x = 0;
    counts
        .iter()
        .enumerate()
        .map(|(at, count)| {
            let last = at + 1 == counts.len();
            let width = if last { 1000 - x } else { 12 + spare * count.number / total };
            let part = Part { class: count.class, x, width };
            x += width;
            part
        })
        .collect()
}

/// How many jobs of an evaluation have some status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Count {
    /// The status, whose name is the value of the query parameter.
    pub(super) status: BuildStatus,
    pub(super) class: &'static str,
    pub(super) label: &'static str,
    pub(super) number: i64,
}

/// All counters: success first, then the kinds of failure, then pending builds.
pub(super) fn counts(counters: &Counters) -> Vec<Count> {
    [
        (BuildStatus::Succeeded, counters.succeeded),
        (BuildStatus::Failed, counters.failed),
        (BuildStatus::FailedDependency, counters.failed_dependency),
        (BuildStatus::FailedOther, counters.failed_other),
        (BuildStatus::Canceled, counters.canceled),
        (BuildStatus::Started, counters.started),
        (BuildStatus::Scheduled, counters.scheduled),
    ]
    .into_iter()
    .map(|(status, number)| {
        let badge = build_badge(status);
        Count { status, class: badge.class, label: badge.label, number }
    })
    .collect()
}

/// A point in time, for machines and for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moment {
    /// Seconds since 1970.
    pub(super) seconds: Timestamp,
    /// `2026-11-20T10:26:29Z`
    pub(super) iso: String,
    /// `5 min ago`, `in 40 s`
    pub(super) ago: String,
}

/// The time `at`, as seen from `now`; `None`: `at` is 0.
pub(super) fn moment(at: Timestamp, now: Timestamp) -> Option<Moment> {
    (at > 0).then(|| Moment { seconds: at, iso: model::iso(at), ago: ago(now - at) })
}

/// A future time: `in 5 min`, or `due now` if it has passed. `None`: `at` is 0.
pub(super) fn due(at: Timestamp, now: Timestamp) -> Option<Moment> {
    let ago =
        if at > now { format!("in {}", model::duration(at - now)) } else { "due now".to_owned() };
    (at > 0).then(|| Moment { seconds: at, iso: model::iso(at), ago })
}

/// The badge of a specification's inputs; `None`: there is nothing to report.
pub(super) fn inputs_badge(enabled: bool, error: &str, evaluated: bool) -> Option<Badge> {
    match (enabled, error, evaluated) {
        (false, _, true) => None,
        (false, _, false) => Some(badge("cancel", "disabled")),
        (true, "", true) => None,
        (true, "", false) => Some(UNKNOWN),
        (true, ..) => Some(badge("bad", "inputs cannot be fetched")),
    }
}

fn ago(seconds: i64) -> String {
    match seconds {
        ..=4 => "just now".to_owned(),
        5..60 => format!("{seconds} s ago"),
        60..3_600 => format!("{} min ago", seconds / 60),
        3_600..86_400 => format!("{} h ago", seconds / 3_600),
        86_400..5_184_000 => format!("{} d ago", seconds / 86_400),
        5_184_000..63_072_000 => format!("{} months ago", seconds / 2_592_000),
        _ => format!("{} years ago", seconds / 31_536_000),
    }
}

/// A number of bytes: `512 B`, `3.4 KiB`.
pub(super) fn bytes(bytes: i64) -> String {
    model::size(u64::try_from(bytes).unwrap_or(0))
}

/// A number in groups of three digits: `10 000`, with narrow spaces.
pub(super) fn number(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "−" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// `1 job`, `2 jobs`.
pub(super) fn count(n: i64, what: &str) -> String {
    format!("{} {what}{}", number(n), if n == 1 { "" } else { "s" })
}

/// The first ten characters of a revision.
pub(super) fn short(revision: &str) -> &str {
    revision.get(..10).unwrap_or(revision)
}

/// An input in one line: its address and its reference.
pub(super) fn source(input: &Input) -> String {
    let shown = input.shown();
    let url = shown.trim_end_matches(".git");
    let url = url.split_once("://").map_or(url, |(_, rest)| rest);
    format!("{url} {}", reference(&input.reference))
}

fn reference(reference: &Reference) -> String {
    match reference {
        Reference::Branch(name) => name.clone(),
        Reference::Tag(name) => format!("tag {name}"),
        Reference::Revision(revision) => short(revision).to_owned(),
        Reference::Head => "HEAD".to_owned(),
    }
}

/// The characters that are percent-encoded in an address.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Percent-encodes text for a query or a path.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// The address of the page of a job.
pub(super) fn job_page(specification: &str, job: &str) -> String {
    format!("/job/{specification}/{}", encode(job))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_evaluation_of_which_nothing_runs_is_queued() {
        let of = |scheduled, started, succeeded, failed| {
            let counters =
                Counters { scheduled, started, succeeded, failed, ..Counters::default() };
            state_badge(EvaluationStatus::Succeeded, &counters)
        };
        assert_eq!(of(3, 1, 2, 0), badge("run", "building"));
        assert_eq!(of(0, 1, 2, 1), badge("run", "building"));
        assert_eq!(of(3, 0, 2, 1), badge("wait", "queued"));
        assert_eq!(of(1, 0, 0, 0), badge("wait", "queued"));
        assert_eq!(of(0, 0, 2, 1), badge("bad", "with failures"));
        assert_eq!(of(0, 0, 2, 0), badge("ok", "all succeeded"));
        assert_eq!(of(0, 0, 0, 0), badge("ok", "no jobs"));
    }

    #[test]
    fn inputs_that_cannot_be_fetched_are_an_error_whatever_was_evaluated_before() {
        for evaluated in [false, true] {
            let badge = inputs_badge(true, "no route", evaluated).expect("a look");
            assert_eq!((badge.class, badge.label), ("bad", "inputs cannot be fetched"));
        }
        assert_eq!(inputs_badge(true, "", true), None);
        assert_eq!(inputs_badge(true, "", false), Some(UNKNOWN));
        // A disabled specification is not looked at any more, so the error is an old one.
        assert_eq!(inputs_badge(false, "no route", true), None);
        assert_eq!(inputs_badge(false, "", false), Some(badge("cancel", "disabled")));
    }

    #[test]
    fn what_is_to_come_is_told_as_such() {
        assert_eq!(due(0, 100), None);
        assert_eq!(due(140, 100).map(|moment| moment.ago).as_deref(), Some("in 40 s"));
        assert_eq!(due(100, 100).map(|moment| moment.ago).as_deref(), Some("due now"));
        assert_eq!(due(99, 100).map(|moment| moment.ago).as_deref(), Some("due now"));
    }

    #[test]
    fn numbers_sizes_and_lengths_are_written_for_people() {
        assert_eq!(number(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(number(-1000), "−1\u{202f}000");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1024 * 3 + 400), "3.4 KiB");
        assert_eq!(bytes(200 << 20), "200 MiB");
        assert_eq!(encode("a b/ü"), "a%20b%2F%C3%BC");
    }

    #[test]
    fn a_bar_is_full_and_shows_every_state() {
        let counters =
            Counters { succeeded: 99_998, failed: 1, scheduled: 1, ..Counters::default() };
        let parts = bar(&counters);
        assert_eq!(parts.iter().map(|part| part.class).collect::<Vec<_>>(), ["ok", "bad", "wait"]);
        assert!(parts.iter().all(|part| part.width >= 12), "{parts:?}");
        assert_eq!(parts.iter().map(|part| part.width).sum::<i64>(), 1000);
        assert_eq!(bar(&Counters::default()), []);
    }
}
