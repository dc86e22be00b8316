//! `/eval/ID`: an evaluation's jobs, failing ones first, filtered by status, by text, and by how they differ from those of
//! another evaluation.

use askama::Template;
use axum::extract::Extension;
use axum::http::HeaderMap;
use axum::response::Response;

use super::audit::{self, AuditRow};
use super::changing::Buttons;
use super::comparison::{self, ComparedRow, ComparisonPart, Links};
use super::layout::{Layout, or_refusal, refusal_for, render};
use super::revisions::{self, Revision};
use super::rows::{BuildRow, summary};
use super::view::{self, Badge, Moment, Part};
use crate::auth::Visitor;
use crate::context::Reading;
use crate::http::{HttpError, Path, Query, Result};
use crate::model::{
    self, AuditFilter, BuildId, BuildStatus, Evaluation, EvaluationDetails, EvaluationId,
    EvaluationStatus, JobChange, Timestamp,
};
use crate::store::{ComparisonFilter, JobFilter, Visible, visible};

/// The number of jobs on a page.
const ROWS: u32 = 50;

/// The most jobs of evaluations that a page compares without being asked. The comparison reads every job of both
/// evaluations, so the page of a larger evaluation has a link to it.
pub const COMPARED: i64 = 200;

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
    revisions: Vec<Revision>,
    created: Option<Moment>,
    took: String,
    has_log: bool,
    previous: Option<EvaluationId>,
    next: Option<EvaluationId>,
    /// Whether there is an evaluation to compare with, or one may be named.
    comparable: bool,
    comparison: ComparisonPart,
    audit: Vec<AuditRow>,
    buttons: Option<Buttons>,
    counts: Vec<Chip>,
    all: Chip,
    status: String,
    text: String,
    list: List,
}

/// The jobs that the page lists.
struct List {
    /// `newly failing`; empty: jobs whatever differs.
    label: &'static str,
    /// The parameter of the address for `label`.
    tab: &'static str,
    rows: Vec<BuildRow>,
    /// The rows of jobs that differ in one way.
    compared: Vec<ComparedRow>,
    /// The sentence that stands for rows when there are none.
    none: String,
    /// The addresses of the neighbouring pages.
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

/// The page of an evaluation.
pub(crate) async fn page(
    context: Reading,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    query: Query,
) -> Response {
    or_refusal(&context, make(&context, &visitor, &id, &query).await).await
}

async fn make(context: &Reading, visitor: &Visitor, id: &str, query: &Query) -> Result<Response> {
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
    let text = |name| query.get(name).unwrap_or_default().chars().take(200).collect::<String>();
    let filter = JobFilter {
        statuses,
        text: text("text"),
        after: border("after", BuildId::new(i64::MAX)),
        before: border("before", BuildId::new(i64::MIN)),
    };
    let tab = query
        .get("tab")
        .map(|tab| tab.parse::<JobChange>())
        .transpose()
        .map_err(HttpError::BadRequest)?;
    let links = Links { id: number, compare: text("compare"), text: filter.text.clone() };
    let everything = context.auth().may_read(visitor);
    let visitor = visitor.clone();
    let asked = Asked { number, filter, status, tab, links, everything, now, notice, visitor };
    // A page of jobs needs few rows. A search for a text or a status, or a comparison, may read many.
    let mut found = Found::Long;
    if !asked.needs_long() {
        let few = asked.clone();
        found = context.read_few(move |s| few.read(s, false)).await?;
    }
    if matches!(found, Found::Long) {
        let many = asked.clone();
        found = context.read(move |s| many.read(s, true)).await?;
    }
    match found {
        Found::Page(page) => render(&*page),
        Found::NoJobs(id) => {
            Err(HttpError::BadRequest(format!("evaluation {id} has no jobs to compare")))
        }
        Found::NoOther => Err(HttpError::no_evaluation(&asked.links.compare)),
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
    /// Which differing jobs are listed; `None`: all jobs are.
    tab: Option<JobChange>,
    links: Links,
    /// Whether the sender may read every specification.
    everything: bool,
    now: Timestamp,
    /// What the server waits for, as text; empty: it waits for nothing.
    notice: String,
    visitor: Visitor,
}

/// The result of a read.
enum Found {
    Page(Box<Page>),
    /// The page would compare two evaluations, which takes too many rows for a short read.
    Long,
    /// The evaluation that the address names for the comparison does not exist, or is not for the sender.
    NoOther,
    /// The evaluation that the address names for the comparison has no list of jobs.
    NoJobs(EvaluationId),
    Missing,
}

impl Asked {
    /// Whether a read for this request may take many rows.
    fn needs_long(&self) -> bool {
        !self.filter.text.is_empty()
            || !self.filter.statuses.is_empty()
            || !self.links.compare.is_empty()
            || self.tab.is_some()
    }

    /// Reads the page. Only with `long` may the read take many rows.
    fn read(&self, s: &Visible<'_>, long: bool) -> rusqlite::Result<Found> {
        let (number, now) = (self.number, self.now);
        let Some(details) = visible::evaluation_details(s, number)? else {
            return Ok(Found::Missing);
        };
        let other = self.other(s, &details)?;
        if other.is_none() && !self.links.compare.is_empty() {
            return Ok(Found::NoOther);
        }
        if let Some(other) =
            other.as_ref().filter(|other| other.status != EvaluationStatus::Succeeded)
        {
            return Ok(Found::NoJobs(other.id));
        }
        let counted = other.as_ref().is_some_and(|other| self.is_counted(&details, other));
        if counted && !long {
            return Ok(Found::Long);
        }
        let (comparison, list) = match (&other, self.tab) {
            (Some(other), Some(tab)) => self.differing(s, other.id, tab)?,
            (Some(other), None) if counted => {
                (self.compared(s, other.id)?, self.jobs(s, &details)?)
            }
            (Some(other), None) => {
                (ComparisonPart::links(&self.links, other.id), self.jobs(s, &details)?)
            }
            (None, _) => (ComparisonPart::default(), self.jobs(s, &details)?),
        };
        let EvaluationDetails { evaluation, checkouts, previous, next } = details;
        let before = match &other {
            Some(other) => visible::checkouts(s, other.id)?,
            None => Vec::new(),
        };
        let inputs = revisions::inputs(s, evaluation.specification_id)?;
        let revisions = revisions::revisions(checkouts, &before, &inputs);
        let of_this = AuditFilter { evaluation: Some(number), ..AuditFilter::default() };
        let buttons = self.buttons(s, &evaluation)?;
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
            comparable: evaluation.status == EvaluationStatus::Succeeded
                && (previous.is_some() || next.is_some()),
            comparison,
            audit: audit::changes(s, &of_this, now)?,
            buttons,
            counts: self.chips(&evaluation),
            all: self.chip("", "all", evaluation.counters.total(), ""),
            status: self.status.clone(),
            text: self.filter.text.clone(),
            list,
            specification: evaluation.specification,
            message: evaluation.message,
            kept: evaluation.kept,
            withdrawn: evaluation.withdrawn,
            successor: evaluation.successor,
            revisions,
            previous,
            next,
        })))
    }

    /// The frame of the page.
    fn layout(&self, s: &Visible<'_>, evaluation: &Evaluation) -> rusqlite::Result<Layout> {
        let pending = evaluation.status == EvaluationStatus::Started
            || evaluation.counters.scheduled + evaluation.counters.started > 0;
        let state = view::state_badge(evaluation.status, &evaluation.counters).label;
        Ok(Layout {
            title: format!("{state}: {} #{} · Brigandine", evaluation.specification, evaluation.id),
            section: "overview",
            queue: visible::queue_counts(s)?,
            // Pending builds may belong to other specifications, so the page watches all changes.
            live: if pending {
                "/live".to_owned()
            } else {
                format!("/live?specification={}", evaluation.specification_id)
            },
            notice: self.notice.clone(),
        })
    }

    /// The form with which the visitor changes the evaluation.
    fn buttons(
        &self,
        s: &Visible<'_>,
        evaluation: &Evaluation,
    ) -> rusqlite::Result<Option<Buttons>> {
        if self.visitor.principal().is_none() {
            return Ok(None);
        }
        let project = visible::project_of(s, &evaluation.specification)?.unwrap_or_default();
        Ok(Buttons::of_evaluation(&self.visitor, project, evaluation))
    }

    /// The evaluation with which this one is compared; `None`: there is none that the sender may read, or this one has no
    /// jobs.
    fn other(
        &self,
        s: &Visible<'_>,
        details: &EvaluationDetails,
    ) -> rusqlite::Result<Option<Evaluation>> {
        let this = &details.evaluation;
        if this.status != EvaluationStatus::Succeeded {
            return Ok(None);
        }
        let found = if self.links.compare.is_empty() {
            details.previous.map(|id| visible::evaluation(s, id)).transpose()?.flatten()
        } else {
            visible::other_evaluation(s, this, &self.links.compare)?
        };
        let may =
            |other: &Evaluation| self.everything || other.specification_id == this.specification_id;
        Ok(found.filter(may))
    }

    /// Whether the page compares the jobs, or has links instead. Further pages and filtered ones compare nothing: they
    /// read only the rows that they show.
    fn is_counted(&self, details: &EvaluationDetails, other: &Evaluation) -> bool {
        let total = details.evaluation.counters.total().max(other.counters.total());
        let asked = !self.links.compare.is_empty() || total <= COMPARED;
        self.tab.is_some() || (self.filter.is_whole() && asked)
    }

    /// What differs, and the first of the failing jobs.
    fn compared(&self, s: &Visible<'_>, other: EvaluationId) -> rusqlite::Result<ComparisonPart> {
        let mut filter = ComparisonFilter::one(JobChange::NewlyFailing, comparison::FIRST);
        filter.limits[JobChange::StillFailing as usize] = comparison::FIRST;
        let mut found = visible::compare(s, self.number, other, &filter)?;
        ComparisonPart::new(s, &self.links, other, None, &mut found, self.now)
    }

    /// What differs, and the jobs that differ in one way.
    fn differing(
        &self,
        s: &Visible<'_>,
        other: EvaluationId,
        tab: JobChange,
    ) -> rusqlite::Result<(ComparisonPart, List)> {
        let filter = ComparisonFilter {
            text: self.filter.text.clone(),
            after: self.filter.after.clone(),
            before: self.filter.before.clone(),
            ..ComparisonFilter::one(tab, ROWS)
        };
        let mut found = visible::compare(s, self.number, other, &filter)?;
        let list = found.take(tab);
        let name = tab.as_str();
        let border = |border, job: Option<&model::ComparedJob>| {
            job.map(|job| {
                let build = job.build.to_string();
                self.links.to(&[("tab", name), (border, &job.name), ("build", &build)])
            })
        };
        let label = view::change_badge(tab).label;
        let list = List {
            label,
            tab: name,
            rows: Vec::new(),
            none: format!("No job is {label}."),
            before: border("before", list.jobs.front().filter(|_| list.has_before)),
            after: border("after", list.jobs.back().filter(|_| list.has_after)),
            compared: comparison::rows(s, list, self.now)?,
        };
        let part = ComparisonPart::new(s, &self.links, other, Some(tab), &mut found, self.now)?;
        Ok((part, list))
    }

    /// The jobs, whatever differs.
    fn jobs(&self, s: &Visible<'_>, details: &EvaluationDetails) -> rusqlite::Result<List> {
        let jobs = visible::job_page(s, self.number, &self.filter, ROWS)?;
        let border = |border, job: Option<&model::JobState>| {
            job.map(|job| {
                let build = job.build.id.to_string();
                self.links.to(&[("status", &self.status), (border, &job.job), ("build", &build)])
            })
        };
        let before = border("before", jobs.jobs.first().filter(|_| jobs.has_before));
        let after = border("after", jobs.jobs.last().filter(|_| jobs.has_after));
        let row = |job: model::JobState| BuildRow {
            // The job's name in this evaluation. Another evaluation may have registered the build under another name.
            history: view::job_page(&details.evaluation.specification, &job.job),
            job: job.job,
            reused: job.reused,
            weather: if job.reused { "" } else { view::weather(job.build.weather) },
            ..BuildRow::new(job.build, self.now)
        };
        let rows = jobs.jobs.into_iter().map(row).collect();
        let filtered = !self.status.is_empty() || !self.filter.text.is_empty();
        let total = view::count(details.evaluation.counters.total(), "job");
        let none =
            if filtered { format!("None of {total} matches.") } else { "No jobs.".to_owned() };
        Ok(List { label: "", tab: "", rows, compared: Vec::new(), none, before, after })
    }

    /// Links to the jobs of each status that some have.
    fn chips(&self, evaluation: &Evaluation) -> Vec<Chip> {
        let counts = view::counts(&evaluation.counters).into_iter();
        counts
            .filter(|count| count.number > 0)
            .map(|count| self.chip(count.class, count.label, count.number, count.status.as_str()))
            .collect()
    }

    /// A link to the jobs with a status, or to all jobs if `status` is empty.
    fn chip(&self, class: &'static str, label: &'static str, number: i64, status: &str) -> Chip {
        Chip {
            class,
            label,
            number: view::number(number),
            href: self.links.to(&[("status", status)]),
            chosen: self.tab.is_none() && self.status == status,
        }
    }
}

/// How many bytes of a finished log are read before an answer begins.
const READ_AHEAD: usize = 256 * 1024;

/// The evaluator's output as text. The answer continues while the evaluator runs.
pub(super) async fn log(context: Reading, Path(id): Path<String>, headers: HeaderMap) -> Response {
    match read_log(&context, id).await {
        Ok(log) => log,
        Err(refusal) => refusal_for(&context, &headers, refusal).await,
    }
}

async fn read_log(context: &Reading, id: String) -> Result<Response> {
    let number: EvaluationId = id.parse().map_err(|_| HttpError::no_evaluation(&id))?;
    let found = context.read(move |s| visible::evaluation(s, number)).await?;
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
