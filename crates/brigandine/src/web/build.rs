//! `/build/ID`: one build, its attempts, neighbours, products and its log.

use askama::Template;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::layout::{Layout, or_refusal, render};
use super::rows::BuildRow;
use super::tail::{self, Tail};
use super::view::{self, Look, Moment};
use crate::context::Context;
use crate::http::{Path, Refusal, Result};
use crate::model::{self, Build, BuildId, BuildStatus, EvaluationId, Timestamp};
use crate::store;

/// Earlier builds of the same job that are shown as plates.
const PLATES: u32 = 24;

/// Neighbours whose changes a page hears of.
const NEIGHBOURS: usize = 100;

#[derive(Template)]
#[template(path = "build.html")]
struct Page {
    layout: Layout,
    id: BuildId,
    job: String,
    specification: String,
    evaluation: EvaluationId,
    look: Look,
    weather: &'static str,
    message: String,
    system: String,
    nix_name: String,
    derivation: String,
    priority: i64,
    submitted: Option<Moment>,
    started: Option<Moment>,
    stopped: Option<Moment>,
    took: String,
    since: Option<Timestamp>,
    waiting: i64,
    attempts: Vec<AttemptRow>,
    needs: Vec<BuildRow>,
    needed_by: Vec<BuildRow>,
    outputs: Vec<(String, String)>,
    products: Vec<ProductRow>,
    script: String,
    environment: Vec<(String, String)>,
    sources: Vec<String>,
    description: String,
    history: Vec<Plate>,
    log_size: String,
    log: LogView,
}

/// The part of the page about the log of the last attempt.
#[derive(Default)]
struct LogView {
    /// The attempt whose log it is; 0 while there is none. A page that is open takes over another one's.
    attempt: i64,
    /// Where the shown part begins.
    from: u64,
    /// Complete lines, and the one whose end has not come.
    html: String,
    /// Whether the page goes on by itself, and from where; without an offset from the end of the log.
    live: bool,
    resume: Option<u64>,
    /// What there is to say instead of a log.
    note: &'static str,
    /// Why it cannot be read.
    error: String,
    /// The build that ran for this one.
    twin: Option<BuildId>,
}

struct AttemptRow {
    number: i64,
    worker: String,
    look: Look,
    message: String,
    started: Option<Moment>,
    took: String,
    /// Whether its log is kept.
    has_log: bool,
}

struct ProductRow {
    id: i64,
    name: String,
    kind: String,
    size: String,
    checksum: String,
}

struct Plate {
    id: BuildId,
    look: Look,
    x: usize,
    current: bool,
}

/// The page of a build.
pub(crate) async fn show(context: &Context, id: &str, headers: &HeaderMap) -> Response {
    or_refusal(context, make(context, id, headers).await).await
}

pub(super) async fn page(
    State(context): State<Context>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    show(&context, &id, &headers).await
}

/// Names the attempt whose log a page follows when it asks for itself again: that log is not sent once more.
const FOLLOWED: &str = "x-brigandine-follows";

async fn make(context: &Context, id: &str, headers: &HeaderMap) -> Result<Response> {
    let now = model::now();
    let wanted = id.to_owned();
    let found = context
        .read_few(move |s| {
            let Some(build) = store::build_named(s, &wanted)? else { return Ok(None) };
            let Some(details) = store::build_details(s, build.id)? else { return Ok(None) };
            let history = store::job_history(s, &build.specification, &build.job, PLATES)?;
            Ok(Some((details, history, store::queue_counts(s)?)))
        })
        .await?;
    let (details, history, queue) = found.ok_or_else(|| Refusal::no_build(id))?;
    let build = details.build;
    let followed = headers.get(FOLLOWED).and_then(|value| value.to_str().ok()?.parse().ok());
    let log = if build.status == BuildStatus::Started && followed == Some(build.attempt) {
        LogView { attempt: build.attempt, live: true, ..LogView::default() }
    } else {
        log_view(context, &build).await
    };
    let numbers = details.attempts.iter().map(|attempt| attempt.number).collect();
    let kept = context.logs().kept(build.id, numbers).await;
    let rows = |builds: Vec<Build>| -> Vec<_> {
        builds.into_iter().map(|build| BuildRow::new(build, now)).collect()
    };
    let watched: Vec<String> = std::iter::once(build.id)
        .chain(details.needs.iter().map(|need| need.id))
        .chain(details.needed_by.iter().map(|build| build.id))
        .take(NEIGHBOURS)
        .map(|id| id.to_string())
        .collect();
    let row = BuildRow::new(build.clone(), now);
    let definition = details.definition;
    let page = Page {
        layout: Layout {
            title: format!("{} · build {} · Brigandine", build.job, build.id),
            section: "overview",
            queue,
            live: format!("/live?builds={}", watched.join(",")),
            notice: context.health().notice(),
        },
        id: build.id,
        look: row.look,
        weather: row.weather,
        took: row.took,
        since: row.since,
        waiting: row.waiting,
        submitted: view::moment(build.submitted_at, now),
        started: view::moment(build.started_at, now),
        stopped: view::moment(build.stopped_at, now),
        attempts: details
            .attempts
            .into_iter()
            .map(|attempt| AttemptRow {
                number: attempt.number,
                has_log: kept.contains(&attempt.number),
                worker: attempt.worker,
                look: match attempt.status {
                    BuildStatus::Scheduled => Look { class: "cancel", label: "lost" },
                    status => view::build_look(status),
                },
                message: attempt.message,
                started: view::moment(attempt.started_at, now),
                took: if attempt.stopped_at > 0 {
                    view::duration(attempt.stopped_at - attempt.started_at)
                } else {
                    String::new()
                },
            })
            .collect(),
        needs: rows(details.needs),
        needed_by: rows(details.needed_by),
        outputs: details.outputs.into_iter().map(|output| (output.name, output.path)).collect(),
        products: details
            .products
            .into_iter()
            .map(|product| ProductRow {
                id: product.id.get(),
                name: product.name,
                kind: product.kind,
                size: view::bytes(product.bytes),
                checksum: product.checksum,
            })
            .collect(),
        script: definition.as_ref().map(|d| script(&d.command)).unwrap_or_default(),
        sources: definition
            .as_ref()
            .map(|definition| {
                let sources = definition.sources.iter().map(|source| {
                    let what = if source.patterns.is_empty() {
                        "the whole tree".to_owned()
                    } else {
                        source.patterns.join("  ")
                    };
                    format!("{} at {}: {what}", source.input, view::short(&source.revision))
                });
                sources.collect()
            })
            .unwrap_or_default(),
        description: definition.as_ref().map(|d| d.description.clone()).unwrap_or_default(),
        environment: definition
            .map(|definition| definition.environment.into_iter().collect())
            .unwrap_or_default(),
        history: history
            .iter()
            .rev()
            .enumerate()
            .map(|(at, past)| Plate {
                id: past.id,
                look: view::build_look(past.status),
                x: at * 14,
                current: past.id == build.id,
            })
            .collect(),
        log_size: if build.log.bytes > 0 { view::bytes(build.log.bytes) } else { String::new() },
        log,
        job: build.job,
        specification: build.specification,
        evaluation: build.evaluation,
        message: build.message,
        system: build.system,
        nix_name: build.nix_name,
        derivation: build.derivation,
        priority: build.priority,
    };
    render(&page)
}

/// A command as it would be typed.
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

/// What the page shows of the log of a build, or says instead.
async fn log_view(context: &Context, build: &Build) -> LogView {
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
