//! `/eval/ID`: an evaluation's jobs, filtered by status and text, and how they differ from those of the previous
//! evaluation.

use askama::Template;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::audit::{self, AuditRow};
use super::layout::{Layout, or_refusal, refusal_for, render};
use super::rows::{BuildRow, summary};
use super::view::{self, Badge, Moment, Part};
use crate::context::Context;
use crate::http::{HttpError, Path, Query, Result};
use crate::model::{
    self, AuditFilter, BuildId, BuildStatus, Checkout, Evaluation, EvaluationDetails, EvaluationId,
    EvaluationStatus, JobChange, JobState, Timestamp,
};
use crate::store::{self, JobFilter, Snapshot};

/// The number of jobs on a page.
const ROWS: u32 = 50;

/// The most jobs of evaluations that a page compares without being asked. The comparison reads every job of both
/// evaluations, so the page of a larger evaluation has a link to it.
pub const COMPARED: i64 = 200;

/// The most jobs that are named for each kind of change.
const CHANGES: u32 = 24;

#[derive(Template)]
#[template(path = "evaluation.html")]
struct Page {
    layout: Layout,
    id: EvaluationId,
    specification: String,
    badge: Badge,
    message: String,
    /// Whether somebody keeps the evaluation.
    kept: bool,
    /// Whether the evaluation was canceled or superseded.
    withdrawn: bool,
    /// The evaluation that superseded this one; `None`: none did.
    successor: Option<EvaluationId>,
    summary: String,
    bar: Vec<Part>,
    checkouts: Vec<Checkout>,
    created: Option<Moment>,
    took: String,
    has_log: bool,
    previous: Option<EvaluationId>,
    next: Option<EvaluationId>,
    changes: Vec<Changes>,
    audit: Vec<AuditRow>,
    /// The evaluation that a link offers to compare with this one; `None`: there is no link.
    compare: Option<EvaluationId>,
    total: String,
    counts: Vec<Chip>,
    all: Chip,
    filtered: bool,
    status: String,
    text: String,
    rows: Vec<BuildRow>,
    before: Option<String>,
    after: Option<String>,
}

/// A link that restricts the list to a status.
struct Chip {
    class: &'static str,
    label: &'static str,
    number: String,
    href: String,
    chosen: bool,
}

/// The jobs that differ in one way from the previous evaluation.
struct Changes {
    badge: Badge,
    jobs: Vec<(String, BuildId)>,
    /// Whether there are more such jobs than `jobs` has.
    more: bool,
}

/// The address of a list of jobs.
fn address(
    id: EvaluationId,
    status: &str,
    text: &str,
    border: Option<(&str, &JobState)>,
) -> String {
    let mut parts = Vec::new();
    let build = border.map(|(_, job)| job.build.id.to_string()).unwrap_or_default();
    for (name, value) in [("status", status), ("text", text)]
        .into_iter()
        .chain(border.map(|(name, job)| (name, job.job.as_str())))
        .chain([("build", build.as_str())])
        .filter(|(_, v)| !v.is_empty())
    {
        parts.push(format!("{name}={}", view::encode(value)));
    }
    let query = parts.join("&");
    format!("/eval/{id}{}{query}", if query.is_empty() { "" } else { "?" })
}

/// The page of an evaluation.
pub(crate) async fn page(
    State(context): State<Context>,
    Path(id): Path<String>,
    query: Query,
) -> Response {
    or_refusal(&context, make(&context, &id, &query).await).await
}

async fn make(context: &Context, id: &str, query: &Query) -> Result<Response> {
    let number: EvaluationId = id.parse().map_err(|_| HttpError::no_evaluation(id))?;
    let now = model::now();
    let notice = context.health().notice();
    let statuses: Vec<BuildStatus> = query
        .list("status")
        .iter()
        .map(|status| status.parse())
        .collect::<std::result::Result<_, _>>()
        .map_err(HttpError::BadRequest)?;
    let status = statuses.iter().map(|status| status.as_str()).collect::<Vec<_>>().join(",");
    // An imported evaluation may have several jobs of one name, so the build tells which of them is meant.
    let build: Option<BuildId> = query.parsed("build")?;
    let border = |name, without| query.get(name).map(|job| (job, build.unwrap_or(without)));
    let filter = JobFilter {
        statuses,
        text: query.get("text").unwrap_or_default().chars().take(200).collect(),
        after: border("after", BuildId::new(i64::MAX)),
        before: border("before", BuildId::new(i64::MIN)),
    };
    let compare = query.get("compare").is_some();
    let asked = Asked { number, filter, status, compare, now, notice };
    // A page of jobs needs few rows. A search for a text or a status, or a comparison, may read many.
    let mut found = Found::Long;
    if asked.filter.text.is_empty() && asked.filter.statuses.is_empty() && !asked.compare {
        let few = asked.clone();
        found = context.read_few(move |s| few.read(s, false)).await?;
    }
    if matches!(found, Found::Long) {
        found = context.read(move |s| asked.read(s, true)).await?;
    }
    match found {
        Found::Page(page) => render(&*page),
        Found::Missing | Found::Long => Err(HttpError::no_evaluation(id)),
    }
}

/// The parameters of a request.
#[derive(Clone)]
struct Asked {
    number: EvaluationId,
    filter: JobFilter,
    /// The statuses as the address has them.
    status: String,
    compare: bool,
    now: Timestamp,
    /// What the server waits for, as text; empty: it waits for nothing.
    notice: String,
}

/// The result of a read.
enum Found {
    Page(Box<Page>),
    /// The page would compare two evaluations, which takes too many rows for a short read.
    Long,
    Missing,
}

impl Asked {
    /// Reads the page. Only with `long` may the read take many rows.
    fn read(&self, s: &Snapshot, long: bool) -> rusqlite::Result<Found> {
        let (number, now) = (self.number, self.now);
        let Some(details) = store::evaluation_details(s, number)? else {
            return Ok(Found::Missing);
        };
        let Some((changes, compare)) = self.compare(s, &details, long)? else {
            return Ok(Found::Long);
        };
        let jobs = store::job_page(s, number, &self.filter, ROWS)?;
        let border = |name, job: Option<&JobState>| {
            job.map(|job| address(number, &self.status, &self.filter.text, Some((name, job))))
        };
        let before = border("before", jobs.jobs.first().filter(|_| jobs.has_before));
        let after = border("after", jobs.jobs.last().filter(|_| jobs.has_after));
        let EvaluationDetails { evaluation, checkouts, previous, next } = details;
        let rows = jobs.jobs.into_iter().map(|job| BuildRow {
            // The job's name in this evaluation. Another evaluation may have registered the build under another name.
            job: job.job,
            reused: job.reused,
            weather: if job.reused { "" } else { view::weather(job.build.weather) },
            ..BuildRow::new(job.build, now)
        });
        let total = evaluation.counters.total();
        let of_this = AuditFilter { evaluation: Some(number), ..AuditFilter::default() };
        Ok(Found::Page(Box::new(Page {
            layout: self.layout(s, &evaluation)?,
            id: number,
            badge: view::evaluation_badge(&evaluation),
            summary: summary(&evaluation),
            bar: view::bar(&evaluation.counters),
            created: view::moment(evaluation.created_at, now),
            took: view::evaluation_took(&evaluation),
            has_log: !evaluation.log_path.is_empty()
                || evaluation.status == EvaluationStatus::Started,
            changes,
            audit: audit::changes(s, &of_this, now)?,
            compare,
            total: view::count(total, "job"),
            counts: view::counts(&evaluation.counters)
                .into_iter()
                .filter(|count| count.number > 0)
                .map(|count| {
                    self.chip(count.class, count.label, count.number, count.status.as_str())
                })
                .collect(),
            all: self.chip("", "all", total, ""),
            filtered: !self.status.is_empty() || !self.filter.text.is_empty(),
            status: self.status.clone(),
            text: self.filter.text.clone(),
            rows: rows.collect(),
            before,
            after,
            specification: evaluation.specification,
            message: evaluation.message,
            kept: evaluation.kept,
            withdrawn: evaluation.withdrawn,
            successor: evaluation.successor,
            checkouts,
            previous,
            next,
        })))
    }

    /// The frame of the page.
    fn layout(&self, s: &Snapshot, evaluation: &Evaluation) -> rusqlite::Result<Layout> {
        let pending = evaluation.status == EvaluationStatus::Started
            || evaluation.counters.scheduled + evaluation.counters.started > 0;
        Ok(Layout {
            title: format!("{} #{} · Brigandine", evaluation.specification, evaluation.id),
            section: "overview",
            queue: store::queue_counts(s)?,
            // Pending builds may belong to other specifications, so the page watches all changes.
            live: if pending {
                "/live".to_owned()
            } else {
                format!("/live?specification={}", evaluation.specification_id)
            },
            notice: self.notice.clone(),
        })
    }

    /// The changes since the previous evaluation, or that evaluation if the page gets a link to the comparison instead.
    /// `None`: the page needs the comparison, and reading it requires `long`.
    fn compare(
        &self,
        s: &Snapshot,
        details: &EvaluationDetails,
        long: bool,
    ) -> rusqlite::Result<Option<(Vec<Changes>, Option<EvaluationId>)>> {
        // Further pages and filtered ones have no comparison: they read only the rows that they show.
        let comparable =
            self.filter.is_whole() && details.evaluation.status == EvaluationStatus::Succeeded;
        let Some(previous) = details.previous.filter(|_| comparable) else {
            return Ok(Some((Vec::new(), None)));
        };
        let total = match store::evaluation(s, previous)? {
            Some(past) => details.evaluation.counters.total().max(past.counters.total()),
            None => 0,
        };
        if !self.compare && total > COMPARED {
            return Ok(Some((Vec::new(), Some(previous))));
        }
        if !long {
            return Ok(None);
        }
        let changes = store::changes(s, self.number, previous, CHANGES + 1)?;
        Ok(Some((grouped(&changes), None)))
    }

    /// A link to the jobs with a status, or to all jobs if `status` is empty.
    fn chip(&self, class: &'static str, label: &'static str, number: i64, status: &str) -> Chip {
        Chip {
            class,
            label,
            number: view::number(number),
            href: address(self.number, status, &self.filter.text, None),
            chosen: self.status == status,
        }
    }
}

fn grouped(changes: &[(String, BuildId, JobChange)]) -> Vec<Changes> {
    [JobChange::NewlyFailing, JobChange::Fixed, JobChange::New, JobChange::Gone]
        .into_iter()
        .filter_map(|kind| {
            let of_kind = changes.iter().filter(|(.., change)| *change == kind);
            let mut jobs: Vec<_> = of_kind.map(|(job, id, _)| (job.clone(), *id)).collect();
            let more = jobs.len() > CHANGES as usize;
            jobs.truncate(CHANGES as usize);
            (!jobs.is_empty()).then(|| Changes { badge: view::change_badge(kind), jobs, more })
        })
        .collect()
}

/// How many bytes of a finished log are read before an answer begins.
const READ_AHEAD: usize = 256 * 1024;

/// The evaluator's output as text. The answer continues while the evaluator runs.
pub(super) async fn log(
    State(context): State<Context>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    match read_log(&context, id).await {
        Ok(log) => log,
        Err(refusal) => refusal_for(&context, &headers, refusal).await,
    }
}

async fn read_log(context: &Context, id: String) -> Result<Response> {
    let number: EvaluationId = id.parse().map_err(|_| HttpError::no_evaluation(&id))?;
    let found = context.read(move |s| store::evaluation(s, number)).await?;
    let evaluation = found.ok_or_else(|| HttpError::no_evaluation(&id))?;
    let mut reader = context.logs().open_evaluation(&evaluation, 0).await;
    if evaluation.status == EvaluationStatus::Started {
        return Ok(context.follow(Vec::new(), reader, u64::MAX));
    }
    if evaluation.log_path.is_empty() {
        return Err(HttpError::not_found(format!(
            "The evaluator of evaluation {id} printed nothing."
        )));
    }
    // Read before the answer begins, so that the answer can report a fault of the file. Usually this is the whole log.
    let mut first = Vec::new();
    while first.len() < READ_AHEAD {
        let piece = reader.next().await;
        let what = format_args!("The log of evaluation {id}");
        match piece.map_err(|error| HttpError::unreadable(what, &error))? {
            Some(piece) => first.extend(piece),
            None => break,
        }
    }
    if reader.is_missing() {
        return Err(HttpError::not_found(format!("The log of evaluation {id} is not kept.")));
    }
    Ok(context.follow(first, reader, u64::MAX))
}
