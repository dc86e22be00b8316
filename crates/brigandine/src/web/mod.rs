//! Pages for people: rendered here, whole without JavaScript, live with it, and nothing from
//! anywhere else. A page's struct stands beside its handler, its template has the same name.

mod ansi;
mod build;
mod evaluation;
mod jobset;
mod live;
mod overview;
mod queue;
mod tail;
mod view;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use std::sync::{Arc, Mutex, PoisonError};

use crate::context::Context;
use crate::http::{Refusal, Result, html};
use crate::model::{self, Build, EvaluationId, QueueCounts, Timestamp};
use crate::store::{self, Snapshot};
use view::{Look, Moment, Part};

pub(crate) use build::show as build;
pub use evaluation::COMPARED;

const STYLE: &str = include_str!("../../static/style.css");
const SCRIPT: &str = include_str!("../../static/live.js");
const ICON: &str = include_str!("../../static/icon.svg");

/// Makes what answers at a route.
type Make = fn() -> MethodRouter<Context>;

/// Every route of the pages and of what they load, but for that of a build (`site.rs`). `tests/data/pages/routes.txt` names an address of each, and
/// how it is tested.
const ROUTES: [(&str, Make); 12] = [
    ("/", || get(overview::page)),
    ("/jobset/{name}", || get(jobset::page)),
    ("/eval/{id}", || get(evaluation::page)),
    ("/eval/{id}/log", || get(evaluation::log)),
    ("/build/{id}/details", || get(build::page)),
    ("/build/{id}/log/live", || get(live::log)),
    ("/queue", || get(queue::page)),
    ("/live", || get(live::changes)),
    ("/static/style.css", || get(async || asset("text/css; charset=utf-8", STYLE))),
    ("/static/live.js", || get(async || asset("text/javascript; charset=utf-8", SCRIPT))),
    ("/static/icon.svg", || get(async || asset("image/svg+xml", ICON))),
    ("/favicon.ico", || get(async || asset("image/svg+xml", ICON))),
];

/// The routes of the pages and what they load.
pub(crate) fn router() -> Router<Context> {
    ROUTES.into_iter().fold(Router::new(), |router, (path, make)| router.route(path, make()))
}

/// A file that is part of the program. Pages name it with [`Layout::version`], so it may be kept.
fn asset(kind: &'static str, body: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, body).into_response()
}

/// Changes when one of the files that pages load changes.
const VERSION: u64 = fingerprint(&[STYLE, SCRIPT, ICON]);

/// FNV-1a: not for secrets, but it can be computed while compiling.
const fn fingerprint(texts: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut text = 0;
    while text < texts.len() {
        let bytes = texts[text].as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
            at += 1;
        }
        text += 1;
    }
    hash
}

/// What every page shows around its own part.
struct Layout {
    title: String,
    /// The part of the navigation that is marked.
    section: &'static str,
    /// Builds that run and wait.
    queue: QueueCounts,
    /// Where changes of the page are told.
    live: String,
    /// What the server waits for; empty: nothing.
    notice: String,
}

impl Layout {
    fn version(&self) -> String {
        format!("{VERSION:x}")
    }

    fn pending(&self) -> bool {
        self.queue.started + self.queue.scheduled > 0
    }
}

/// Renders a page.
fn render(page: &impl Template) -> Result<Response> {
    render_as(StatusCode::OK, page)
}

fn render_as(status: StatusCode, page: &impl Template) -> Result<Response> {
    let text = page.render().map_err(|error| {
        tracing::error!(%error, "a page could not be rendered");
        Refusal::Internal
    })?;
    Ok(html(status, text))
}

/// A page that says why there is none.
#[derive(Template)]
#[template(path = "refused.html")]
struct Refused {
    layout: Layout,
    status: u16,
    text: String,
}

/// `page`, or a page that says why there is none.
async fn or_refusal(context: &Context, page: Result<Response>) -> Response {
    let refusal = match page {
        Ok(page) => return page,
        Err(refusal) => refusal,
    };
    let (status, text) = refusal.parts();
    let queue = context.read(store::queue_counts).await.unwrap_or_default();
    let title = format!("{} · Brigandine", status.canonical_reason().unwrap_or("Refused"));
    let notice = context.health().notice();
    let layout = Layout { title, section: "", queue, live: String::new(), notice };
    let page = Refused { layout, status: status.as_u16(), text: text.to_owned() };
    render_as(status, &page).unwrap_or_else(IntoResponse::into_response)
}

/// What is answered, whatever is asked for, while the server cannot start: why it waits.
pub(crate) fn waiting(why: Arc<Mutex<String>>) -> Router {
    Router::new().fallback(async move |headers: HeaderMap| {
        let why = why.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let mut response = if wants_page(&headers) {
            let title = "Waiting · Brigandine".to_owned();
            let (queue, live) = (QueueCounts::default(), String::new());
            let layout = Layout { title, section: "", queue, live, notice: String::new() };
            let page = Refused { layout, status: status.as_u16(), text: why };
            render_as(status, &page).unwrap_or_else(IntoResponse::into_response)
        } else {
            Refusal::Waiting(why).into_response()
        };
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        response
    })
}

/// Any path that is no route: a page for browsers, JSON for everybody else.
pub(crate) async fn unknown_path(State(context): Parts, headers: HeaderMap, uri: Uri) -> Response {
    let refusal = Refusal::no_path(&uri);
    if wants_page(&headers) {
        or_refusal(&context, Err(refusal)).await
    } else {
        refusal.into_response()
    }
}

/// Browsers ask for HTML by name; other clients never do.
pub(crate) fn wants_page(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

/// What is not used of the files of specifications, in sentences: of one that is stored, or of none.
fn of_file(unused: &[model::Unused], specification: Option<&str>) -> Vec<String> {
    let of = unused.iter().filter(|unused| unused.specification() == specification);
    of.map(model::Unused::sentences).collect()
}

/// An evaluation in a list.
struct EvaluationRow {
    id: EvaluationId,
    look: Look,
    /// Revision and subject of the first checkout.
    revision: String,
    subject: String,
    /// How many more checkouts there are.
    more: usize,
    created: Option<Moment>,
    /// How long it took, in words; nothing while it goes on.
    took: String,
    message: String,
    bar: Vec<Part>,
    /// `41 of 52 succeeded, 2 failed`
    summary: String,
}

impl EvaluationRow {
    fn new(s: &Snapshot, evaluation: model::Evaluation, now: Timestamp) -> rusqlite::Result<Self> {
        let checkouts = store::checkouts(s, evaluation.id)?;
        let counters = &evaluation.counters;
        let first = checkouts.first();
        Ok(Self {
            id: evaluation.id,
            look: view::evaluation_look(&evaluation),
            revision: first.map_or("", |checkout| view::short(&checkout.revision)).to_owned(),
            subject: first.map(|checkout| checkout.subject.clone()).unwrap_or_default(),
            more: checkouts.len().saturating_sub(1),
            created: view::moment(evaluation.created_at, now),
            took: view::evaluation_took(&evaluation),
            bar: view::bar(counters),
            summary: summary(&evaluation),
            message: evaluation.message,
        })
    }
}

/// How an evaluation's jobs stand, in words.
fn summary(evaluation: &model::Evaluation) -> String {
    let counters = &evaluation.counters;
    if counters.total() == 0 {
        return match evaluation.status {
            model::EvaluationStatus::Started => "finding out the jobs".to_owned(),
            _ => String::new(),
        };
    }
    if counters.succeeded == counters.total() {
        return view::count(counters.total(), "job");
    }
    let mut parts = vec![format!(
        "{} of {} succeeded",
        view::number(counters.succeeded),
        view::number(counters.total())
    )];
    let rest = view::counts(counters).into_iter().skip(1).filter(|count| count.number > 0);
    parts.extend(rest.map(|count| format!("{} {}", view::number(count.number), count.label)));
    parts.join(", ")
}

/// A build in a list.
struct BuildRow {
    id: model::BuildId,
    look: Look,
    job: String,
    specification: String,
    system: String,
    /// When it stopped, else when it was submitted.
    when: Option<Moment>,
    /// How long it ran; nothing while it waits.
    took: String,
    /// When it started, if it runs: the page counts on by itself.
    since: Option<Timestamp>,
    message: String,
    weather: &'static str,
    reused: bool,
    /// What it is started before others for, while it waits.
    priority: i64,
    /// Dependencies it waits for.
    waiting: i64,
    /// Some of them, where a page names them.
    needs: Vec<(model::BuildId, String)>,
    /// A build of the same derivation that runs.
    twin: Option<model::BuildId>,
}

impl BuildRow {
    fn new(build: Build, now: Timestamp) -> Self {
        let running = build.status == model::BuildStatus::Started;
        let finished = build.status.is_finished();
        Self {
            id: build.id,
            look: view::build_look(build.status),
            when: view::moment(if finished { build.stopped_at } else { build.submitted_at }, now),
            took: if build.started_at == 0 {
                String::new()
            } else if running {
                view::duration(now - build.started_at)
            } else if finished && build.stopped_at <= build.started_at {
                "< 1 s".to_owned()
            } else if finished {
                view::duration(build.stopped_at - build.started_at)
            } else {
                String::new()
            },
            since: running.then_some(build.started_at),
            message: build.message,
            weather: view::weather(build.weather),
            job: build.job,
            specification: build.specification,
            system: build.system,
            reused: false,
            priority: if finished || running { 0 } else { build.priority },
            waiting: if finished || running { 0 } else { build.waiting },
            needs: Vec::new(),
            twin: None,
        }
    }

    /// How many of its dependencies are not named.
    fn more_needs(&self) -> i64 {
        self.waiting - i64::try_from(self.needs.len()).unwrap_or(self.waiting)
    }
}

/// Handlers need the site by value.
type Parts = State<Context>;

#[cfg(test)]
mod snapshots;
#[cfg(test)]
mod tests;
