//! `/eval/ID`: an evaluation's jobs by status and text, and how they differ from the one before.

use askama::Template;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};

use super::layout::{Layout, or_refusal, render, wants_page};
use super::rows::{BuildRow, summary};
use super::view::{self, Count, Look, Moment, Part};
use crate::context::Context;
use crate::http::{Path, Query, Refusal, Result};
use crate::model::{
    self, BuildId, BuildStatus, Checkout, EvaluationDetails, EvaluationId, EvaluationStatus,
    JobChange,
};
use crate::store::{self, JobFilter, Snapshot};

/// Jobs on a page. Ten thousand jobs are two hundred pages, each as quick as the first.
const ROWS: u32 = 50;

/// Evaluations with so many jobs at most are compared unasked; the comparison of larger ones reads
/// every job of both, so it is a link.
pub const COMPARED: i64 = 200;

/// Jobs named for each kind of change.
const CHANGES: u32 = 24;

#[derive(Template)]
#[template(path = "evaluation.html")]
struct Page {
    layout: Layout,
    id: EvaluationId,
    specification: String,
    look: Look,
    message: String,
    summary: String,
    bar: Vec<Part>,
    checkouts: Vec<Checkout>,
    created: Option<Moment>,
    took: String,
    has_log: bool,
    previous: Option<EvaluationId>,
    next: Option<EvaluationId>,
    changes: Vec<Changes>,
    /// The evaluation that this one can be compared with, when it has not been.
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

/// Jobs that differ from the evaluation before in one way.
struct Changes {
    look: Look,
    jobs: Vec<(String, BuildId)>,
    /// More than are named.
    more: bool,
}

/// The list's parameters, as they stand in an address.
fn address(
    id: EvaluationId,
    status: &str,
    text: &str,
    border: Option<(&str, &model::JobState)>,
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

pub(super) async fn page(
    State(context): State<Context>,
    Path(id): Path<String>,
    query: Query,
) -> Response {
    or_refusal(&context, make(&context, &id, &query).await).await
}

fn missing(id: &str) -> Refusal {
    let id: String = id.chars().take(100).collect();
    Refusal::not_found(format!("Evaluation with ID {id} doesn't exist."))
}

async fn make(context: &Context, id: &str, query: &Query) -> Result<Response> {
    let number: EvaluationId = id.parse().map_err(|_| missing(id))?;
    let now = model::now();
    let notice = context.health().notice();
    let statuses: Vec<BuildStatus> = query
        .list("status")
        .iter()
        .map(|status| status.parse())
        .collect::<std::result::Result<_, _>>()
        .map_err(Refusal::BadRequest)?;
    let status = statuses.iter().map(|status| status.as_str()).collect::<Vec<_>>().join(",");
    // Names may be there more than once in imported evaluations: the build tells them apart.
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
    // A page of jobs is few rows; looking for a text or a status, or comparing, may be many.
    let mut made = Made::Long;
    if asked.filter.text.is_empty() && asked.filter.statuses.is_empty() && !asked.compare {
        let few = asked.clone();
        made = context.read_few(move |s| few.read(s, false)).await?;
    }
    if matches!(made, Made::Long) {
        made = context.read(move |s| asked.read(s, true)).await?;
    }
    match made {
        Made::Page(page) => render(&*page),
        Made::Missing | Made::Long => Err(missing(id)),
    }
}

/// What a request asks for.
#[derive(Clone)]
struct Asked {
    number: EvaluationId,
    filter: JobFilter,
    /// The statuses as they stand in the address.
    status: String,
    compare: bool,
    now: model::Timestamp,
    /// What the server waits for.
    notice: String,
}

/// What reading came to.
enum Made {
    Page(Box<Page>),
    /// Two evaluations are to be compared, which was not allowed.
    Long,
    Missing,
}

impl Asked {
    /// Reads the page; with `long` also what takes many rows.
    fn read(&self, s: &Snapshot, long: bool) -> rusqlite::Result<Made> {
        let Self { number, filter, status, compare: asked, now, notice } = self;
        let (number, asked, now) = (*number, *asked, *now);
        let Some(details) = store::evaluation_details(s, number)? else {
            return Ok(Made::Missing);
        };
        // The comparison stands on the first page alone; further and filtered pages read only
        // what they show.
        let comparable =
            filter.is_whole() && details.evaluation.status == EvaluationStatus::Succeeded;
        let (mut changes, mut compare) = (Vec::new(), None);
        if let Some(previous) = details.previous.filter(|_| comparable) {
            let total = match store::evaluation(s, previous)? {
                Some(past) => details.evaluation.counters.total().max(past.counters.total()),
                None => 0,
            };
            if asked || total <= COMPARED {
                if !long {
                    return Ok(Made::Long);
                }
                changes = store::changes(s, number, previous, CHANGES + 1)?;
            } else {
                compare = Some(previous);
            }
        }
        let jobs = store::job_page(s, number, filter, ROWS)?;
        let border = |name, job: Option<&model::JobState>| {
            job.map(|job| address(number, status, &filter.text, Some((name, job))))
        };
        let before = border("before", jobs.jobs.first().filter(|_| jobs.has_before));
        let after = border("after", jobs.jobs.last().filter(|_| jobs.has_after));
        let EvaluationDetails { evaluation, checkouts, previous, next } = details;
        let pending = evaluation.status == EvaluationStatus::Started
            || evaluation.counters.scheduled + evaluation.counters.started > 0;
        let rows = jobs.jobs.into_iter().map(|job| BuildRow {
            // The name in this evaluation; the build may have been asked for by another.
            job: job.job,
            reused: job.reused,
            weather: if job.reused { "" } else { view::weather(job.build.weather) },
            ..BuildRow::new(job.build, now)
        });
        Ok(Made::Page(Box::new(Page {
            layout: Layout {
                title: format!("{} #{number} · Brigandine", evaluation.specification),
                section: "overview",
                queue: store::queue_counts(s)?,
                // While builds are pending they may belong to other specifications too.
                live: if pending {
                    "/live".to_owned()
                } else {
                    format!("/live?specification={}", evaluation.specification_id)
                },
                notice: notice.clone(),
            },
            id: number,
            look: view::evaluation_look(&evaluation),
            summary: summary(&evaluation),
            bar: view::bar(&evaluation.counters),
            created: view::moment(evaluation.created_at, now),
            took: view::evaluation_took(&evaluation),
            has_log: !evaluation.log_path.is_empty()
                || evaluation.status == EvaluationStatus::Started,
            changes: grouped(&changes),
            compare,
            total: view::count(evaluation.counters.total(), "job"),
            counts: view::counts(&evaluation.counters)
                .into_iter()
                .filter(|count| count.number > 0)
                .map(|Count { status: of, class, label, number: n }| Chip {
                    class,
                    label,
                    number: view::number(n),
                    href: address(number, of.as_str(), &filter.text, None),
                    chosen: status == of.as_str(),
                })
                .collect(),
            all: Chip {
                class: "",
                label: "all",
                number: view::number(evaluation.counters.total()),
                href: address(number, "", &filter.text, None),
                chosen: status.is_empty(),
            },
            filtered: !status.is_empty() || !filter.text.is_empty(),
            status: status.clone(),
            text: filter.text.clone(),
            rows: rows.collect(),
            before,
            after,
            specification: evaluation.specification,
            message: evaluation.message,
            checkouts,
            previous,
            next,
        })))
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
            (!jobs.is_empty()).then(|| Changes { look: view::change_look(kind), jobs, more })
        })
        .collect()
}

/// Bytes of a finished log that are read before an answer begins.
const LOOKED_AT: usize = 256 * 1024;

/// What the evaluator said, as text; goes on while it runs.
pub(super) async fn log(
    State(context): State<Context>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    match read_log(&context, id).await {
        Err(refusal) if wants_page(&headers) => or_refusal(&context, Err(refusal)).await,
        log => log.into_response(),
    }
}

async fn read_log(context: &Context, id: String) -> Result<Response> {
    let number: EvaluationId = id.parse().map_err(|_| missing(&id))?;
    let found = context.read(move |s| store::evaluation(s, number)).await?;
    let evaluation = found.ok_or_else(|| missing(&id))?;
    let mut reader = context.logs().open_evaluation(&evaluation, 0).await;
    if evaluation.status == EvaluationStatus::Started {
        return Ok(context.follow(Vec::new(), reader, u64::MAX));
    }
    if evaluation.log_path.is_empty() {
        return Err(Refusal::not_found(format!(
            "The evaluator of evaluation {id} printed nothing."
        )));
    }
    // Read before the answer begins, so that it can say what is wrong with the file: a usual log as a whole.
    let mut first = Vec::new();
    while first.len() < LOOKED_AT {
        let piece = reader.next().await;
        let what = format_args!("The log of evaluation {id}");
        match piece.map_err(|error| Refusal::unreadable(what, &error))? {
            Some(piece) => first.extend(piece),
            None => break,
        }
    }
    if reader.is_missing() {
        return Err(Refusal::not_found(format!("The log of evaluation {id} is not kept.")));
    }
    Ok(context.follow(first, reader, u64::MAX))
}
