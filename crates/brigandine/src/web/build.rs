//! `/build/ID`: a build, with its attempts, neighbours, products and build log.

use askama::Template;
use axum::Extension;
use axum::http::HeaderMap;
use axum::response::Response;

use super::audit::{self, AuditRow};
use super::changing::Buttons;
use super::layout::{Layout, or_refusal, render};
use super::past::Past;
use super::rows::{BuildRow, SQUARE, Square};
use super::tail::{self, Tail};
use super::view::{self, Badge, Moment};
use super::why::{self, Reason};
use crate::auth::Visitor;
use crate::context::Reading;
use crate::http::{HttpError, Path, Result};
use crate::model::{
    self, Attempt, AuditFilter, Build, BuildDetails, BuildId, BuildStatus, Definition, Output,
    Product, ProductId, Timestamp,
};
use crate::store::visible;

/// How many builds of the same job are shown as squares.
const SQUARES: u32 = 24;

/// How many builds, this one and its neighbours, the page watches for changes.
const NEIGHBOURS: usize = 100;

#[derive(Template)]
#[template(path = "build.html")]
struct Page {
    layout: Layout,
    build: Build,
    row: BuildRow,
    submitted: Option<Moment>,
    started: Option<Moment>,
    stopped: Option<Moment>,
    attempts: Vec<AttemptRow>,
    needs: Vec<BuildRow>,
    needed_by: Vec<BuildRow>,
    outputs: Vec<Output>,
    products: Vec<ProductRow>,
    recipe: Recipe,
    history: Vec<Square<BuildId>>,
    /// The address of the job's page.
    job_page: String,
    past: Past,
    why: Vec<Reason>,
    audit: Vec<AuditRow>,
    buttons: Option<Buttons>,
    log_size: String,
    log: LogView,
}

/// The part of the page that shows the build log of the last attempt.
#[derive(Default)]
struct LogView {
    /// The attempt of the log; 0: there is no log. An open page takes over the log when this number changes.
    attempt: i64,
    /// The offset in the log at which the shown part begins.
    from: u64,
    /// The complete lines, and then the unfinished line.
    html: String,
    /// Whether the page follows the log.
    live: bool,
    /// The offset from which the page follows the log; `None`: the server sends the end of the log.
    resume: Option<u64>,
    /// A sentence that is shown instead of a log.
    note: &'static str,
    /// Why the log cannot be read; empty: the log can be read.
    error: String,
    /// The build whose result this build has.
    twin: Option<BuildId>,
}

struct AttemptRow {
    number: i64,
    worker: String,
    badge: Badge,
    message: String,
    started: Option<Moment>,
    took: String,
    /// Whether the attempt's build log still exists.
    has_log: bool,
}

struct ProductRow {
    id: ProductId,
    name: String,
    kind: String,
    size: String,
    checksum: String,
}

/// How the build is made.
#[derive(Default)]
struct Recipe {
    description: String,
    script: String,
    sources: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Recipe {
    fn new(definition: Definition) -> Self {
        let sources = definition.sources.iter().map(|source| {
            let patterns = source.patterns.join("  ");
            let what =
                if source.patterns.is_empty() { "the whole tree" } else { patterns.as_str() };
            format!("{} at {}: {what}", source.input, view::short(&source.revision))
        });
        Self {
            sources: sources.collect(),
            script: script(&definition.command),
            description: definition.description,
            environment: definition.environment.into_iter().collect(),
        }
    }
}

/// The page of a build.
pub(crate) async fn show(
    context: &Reading,
    visitor: &Visitor,
    id: &str,
    headers: &HeaderMap,
) -> Response {
    or_refusal(context, make(context, visitor, id, headers).await).await
}

pub(super) async fn page(
    context: Reading,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    show(&context, &visitor, &id, &headers).await
}

/// A request header: a page that follows a build log and requests itself again names the log's attempt here. The server
/// then does not send that log again.
const FOLLOWED: &str = "x-brigandine-follows";

async fn make(
    context: &Reading,
    visitor: &Visitor,
    id: &str,
    headers: &HeaderMap,
) -> Result<Response> {
    let (wanted, now) = (id.to_owned(), model::now());
    let systems = context.systems().to_vec();
    let found = context
        .read_few(move |s| {
            let Some(build) = visible::build_named(s, &wanted)? else { return Ok(None) };
            let Some(details) = visible::build_details(s, build.id)? else { return Ok(None) };
            let history = visible::job_history(s, &build.specification, &build.job, SQUARES)?;
            let of_build = AuditFilter { build: Some(build.id), ..AuditFilter::default() };
            let audit = audit::changes(s, &of_build, now)?;
            let past = Past::read(s, &details.build)?;
            let why = why::reasons(
                s,
                &why::Known {
                    build: &details.build,
                    definition: details.definition.as_ref(),
                    attempts: &details.attempts,
                    past: &past,
                    audit: &audit,
                    systems: &systems,
                    now,
                },
            )?;
            let is_lent = visible::is_lent(s, build.id)?;
            let queue = visible::queue_counts(s)?;
            Ok(Some((details, is_lent, history, (past, why, audit), queue)))
        })
        .await?;
    let (details, is_lent, history, (past, why, audit), queue) =
        found.ok_or_else(|| HttpError::no_build(id))?;
    let build = &details.build;
    let followed = headers.get(FOLLOWED).and_then(|value| value.to_str().ok()?.parse().ok());
    let log = if build.status == BuildStatus::Started && followed == Some(build.attempt) {
        LogView { attempt: build.attempt, live: true, ..LogView::default() }
    } else {
        log_view(context, build).await
    };
    let numbers = details.attempts.iter().map(|attempt| attempt.number).collect();
    let kept = context.logs().kept(build.id, numbers).await;
    let watched: Vec<String> = std::iter::once(build)
        .chain(&details.needs)
        .chain(&details.needed_by)
        .take(NEIGHBOURS)
        .map(|build| build.id.to_string())
        .collect();
    let state = view::build_badge(build.status).label;
    let layout = Layout {
        title: format!("{state}: {} · build {} · Brigandine", build.job, build.id),
        section: "overview",
        queue,
        live: format!("/live?builds={}", watched.join(",")),
        notice: context.health().notice(),
    };
    let buttons = Buttons::of_build(visitor, &details).filter(|_| !is_lent);
    let page = page_of(layout, details, &history, &kept, (past, why, audit, log), now);
    render(&Page { buttons, ..page })
}

fn page_of(
    layout: Layout,
    details: BuildDetails,
    history: &[Build],
    kept: &[i64],
    (past, why, audit, log): (Past, Vec<Reason>, Vec<AuditRow>, LogView),
    now: Timestamp,
) -> Page {
    let BuildDetails { build, outputs, products, attempts, needs, needed_by, definition } = details;
    let rows = |builds: Vec<Build>| -> Vec<_> {
        builds.into_iter().map(|build| BuildRow::new(build, now)).collect()
    };
    let attempt = |attempt: Attempt| AttemptRow {
        number: attempt.number,
        has_log: kept.contains(&attempt.number),
        worker: attempt.worker,
        badge: match attempt.status {
            BuildStatus::Scheduled => Badge { class: "cancel", label: "lost" },
            status => view::build_badge(status),
        },
        message: attempt.message,
        started: view::moment(attempt.started_at, now),
        took: if attempt.stopped_at > 0 {
            model::duration(attempt.stopped_at - attempt.started_at)
        } else {
            String::new()
        },
    };
    let product = |product: Product| ProductRow {
        id: product.id,
        name: product.name,
        kind: product.kind,
        size: view::bytes(product.bytes),
        checksum: product.checksum,
    };
    let square = |(at, past): (usize, &Build)| Square {
        id: past.id,
        badge: view::build_badge(past.status),
        x: at * SQUARE,
        current: past.id == build.id,
    };
    Page {
        layout,
        row: BuildRow::new(build.clone(), now),
        submitted: view::moment(build.submitted_at, now),
        started: view::moment(build.started_at, now),
        stopped: view::moment(build.stopped_at, now),
        attempts: attempts.into_iter().map(attempt).collect(),
        needs: rows(needs),
        needed_by: rows(needed_by),
        outputs,
        products: products.into_iter().map(product).collect(),
        recipe: definition.map(Recipe::new).unwrap_or_default(),
        history: history.iter().rev().enumerate().map(square).collect(),
        job_page: view::job_page(&build.specification, &build.job),
        log_size: if build.log.bytes > 0 { view::bytes(build.log.bytes) } else { String::new() },
        past,
        why,
        audit,
        buttons: None,
        log,
        build,
    }
}

/// A command as a user would type it in a shell.
fn script(command: &[String]) -> String {
    match command {
        [shell, flag, command, script] if [&**shell, flag, command] == ["/bin/sh", "-e", "-c"] => {
            script.trim_end().to_owned()
        }
        words => words
            .iter()
            .map(|word| {
                let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:+,@%".contains(c);
                if !word.is_empty() && word.chars().all(plain) {
                    word.clone()
                } else {
                    format!("'{}'", word.replace('\'', r"'\''"))
                }
            })
            .collect::<Vec<_>>()
            .join(" "),
    }
}

/// The log of a build as the page shows it, or the sentence that the page shows instead.
async fn log_view(context: &Reading, build: &Build) -> LogView {
    let from = tail::start(context.logs().bytes(build));
    let Some(reader) = context.logs().open(build, from).await else {
        let twin = build.message.strip_prefix("as build ");
        let twin = twin.and_then(|rest| rest.split(':').next()?.parse().ok());
        return LogView { note: build.no_log().unwrap_or_default(), twin, ..LogView::default() };
    };
    let tail = Tail::read(reader, from).await;
    let error = tail.error.as_ref().map(ToString::to_string).unwrap_or_default();
    if !error.is_empty() {
        tracing::warn!(error, build = %build.id, "a build log cannot be read");
    }
    let live = !tail.ended;
    let resume = live.then(|| tail.lines.resume());
    let html = tail.html + &tail.lines.unfinished();
    let note = match build.status {
        _ if !html.is_empty() || !error.is_empty() => "",
        BuildStatus::Started => "It has printed nothing so far.",
        _ if tail.reader.is_missing() && !build.log.path.is_empty() => {
            "Its log is gone: the file is not in the server's state directory any more."
        }
        BuildStatus::Succeeded | BuildStatus::Failed => "It printed nothing.",
        _ => "It printed nothing before it ended.",
    };
    let (attempt, from) = (build.attempt, tail.from);
    LogView { attempt, from, html, live, resume, note, error, ..LogView::default() }
}

impl LogView {
    fn is_empty(&self) -> bool {
        self.html.is_empty()
    }
}
