//! `/readyz`: the database can be written, and the required tasks run. If not, the answer says why.

use std::sync::{Mutex, PoisonError};

use axum::Extension;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use crate::auth::Visitor;
use crate::context::{Context, Reading};
use crate::http::{json, not_kept, text, varied, wants_json};
use crate::wire::ReadinessJson;

/// 200, or 503 with the reasons: as text, and as JSON for requests that accept it by name.
/// On a private server the reasons are for those who may read, since they name specifications. Those of private
/// specifications are named to those who may see everything.
pub(super) async fn answer(
    context: Reading,
    Extension(visitor): Extension<Visitor>,
    headers: HeaderMap,
) -> Response {
    let mut tasks = context.tasks();
    if !context.sees_everything() {
        tasks = tasks.public();
    }
    let reasons = reasons(&context, tasks.faults);
    let ready = reasons.is_empty();
    if !context.auth().may_read(&visitor) {
        let why = "This server is private: the reasons are for those who may read.".to_owned();
        let reasons = if ready { Vec::new() } else { vec![why] };
        let (notice, tasks) = (String::new(), Vec::new());
        return say(&ReadinessJson { ready, reasons, notice, tasks }, &headers);
    }
    // The rest of what pages show is among the reasons.
    let notice = context.health().disk_notice();
    say(&ReadinessJson { ready, reasons, notice, tasks: tasks.running }, &headers)
}

/// Why the server is not ready, in sentences for people; empty: it is ready. `faults` are those of its tasks.
pub(super) fn reasons(context: &Context, mut faults: Vec<String>) -> Vec<String> {
    faults.extend(context.health().unwritable());
    faults
}

/// The answer of a server that waits to start.
pub(super) fn waiting(why: &Mutex<String>, headers: &HeaderMap) -> Response {
    let reasons = vec![sentence(&why.lock().unwrap_or_else(PoisonError::into_inner))];
    say(&ReadinessJson { ready: false, reasons, notice: String::new(), tasks: Vec::new() }, headers)
}

/// A text of the trace as a sentence.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    let end = if text.ends_with('.') { "" } else { "." };
    first.chain(chars).chain(end.chars()).collect()
}

fn say(readiness: &ReadinessJson, headers: &HeaderMap) -> Response {
    let status = match readiness.ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let response = if wants_json(headers) {
        json(status, readiness)
    } else {
        let first = if readiness.ready { "ready" } else { "not ready" };
        let lines = std::iter::once(first).chain(readiness.reasons.iter().map(String::as_str));
        let notice = Some(&*readiness.notice).filter(|notice| !notice.is_empty());
        let lines = lines.chain(notice);
        text(status, lines.map(|line| format!("{line}\n")).collect::<String>())
    };
    not_kept(varied(response))
}
