//! The frame of every page, and the pages for errors.

use std::sync::{Arc, Mutex, PoisonError};

use askama::Template;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};

use super::files;
use crate::auth::Visitor;
use crate::context::Reading;
use crate::http::{self, HttpError, Result, accepts_html, html, vary};
use crate::model::{QueueCounts, Role};
use crate::store::visible;

/// What a page shows around its own content.
#[derive(Default)]
pub(super) struct Layout {
    pub(super) title: String,
    /// Which link of the navigation is marked as the current one.
    pub(super) section: &'static str,
    /// How many builds are running and scheduled.
    pub(super) queue: QueueCounts,
    /// The address of the stream that tells the page about changes.
    pub(super) live: String,
    /// What the server waits for; usually empty.
    pub(super) notice: String,
}

impl Layout {
    pub(super) fn version(&self) -> String {
        files::version()
    }

    pub(super) fn pending(&self) -> bool {
        self.queue.started + self.queue.scheduled > 0
    }
}

/// Renders a page.
pub(super) fn render(page: &impl Template) -> Result<Response> {
    render_as(StatusCode::OK, page)
}

pub(super) fn render_as(status: StatusCode, page: &impl Template) -> Result<Response> {
    let text = page.render().map_err(|error| {
        tracing::error!(%error, "a page could not be rendered");
        HttpError::Internal
    })?;
    Ok(html(status, text))
}

/// A page for an error.
#[derive(Template)]
#[template(path = "refused.html")]
struct Refused {
    layout: Layout,
    status: u16,
    text: String,
}

/// Returns `page`, or a page that shows its error.
pub(super) async fn or_refusal(context: &Reading, page: Result<Response>) -> Response {
    let refusal = match page {
        Ok(page) => return page,
        Err(refusal) => refusal,
    };
    let queue = context.read(visible::queue_counts).await.unwrap_or_default();
    refused_page(&refusal, queue, context.health().notice())
}

/// A page that shows a refusal, with the header that belongs to it.
fn refused_page(refusal: &HttpError, queue: QueueCounts, notice: String) -> Response {
    let (status, text) = refusal.parts();
    let name = match refusal {
        HttpError::Waiting(_) => "Waiting",
        _ => status.canonical_reason().unwrap_or("Refused"),
    };
    let title = format!("{name} · Brigandine");
    let layout = Layout { title, section: "", queue, live: String::new(), notice };
    let page = Refused { layout, status: status.as_u16(), text: text.to_owned() };
    let mut response = render_as(status, &page).unwrap_or_else(IntoResponse::into_response);
    if let Some((name, value)) = refusal.header() {
        response.headers_mut().insert(name, value);
    }
    response
}

/// A refusal at an address for people and programs: a page for browsers, JSON for other clients.
pub(super) async fn refusal_for(
    context: &Reading,
    headers: &HeaderMap,
    refusal: HttpError,
) -> Response {
    let mut response = match accepts_html(headers) {
        true => or_refusal(context, Err(refusal)).await,
        false => refusal.into_response(),
    };
    vary(response.headers_mut(), &["accept"]);
    response
}

/// A router that answers every request with the reason `why` while the server waits to start.
pub(crate) fn waiting(why: Arc<Mutex<String>>) -> Router {
    Router::new().fallback(async move |headers: HeaderMap| {
        let why = HttpError::Waiting(why.lock().unwrap_or_else(PoisonError::into_inner).clone());
        let mut response = match accepts_html(&headers) {
            true => refused_page(&why, QueueCounts::default(), String::new()),
            false => why.into_response(),
        };
        vary(response.headers_mut(), &["accept"]);
        response
    })
}

/// Answers requests for a path without a route: browsers get a page, other clients JSON. On a private server those who
/// may not read learn not even that.
pub(crate) async fn unknown_path(
    context: Reading,
    Extension(visitor): Extension<Visitor>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if context.auth().is_private()
        && let Err(refused) = visitor.needs(Role::Reader, None)
    {
        return refusal(&method, &uri, &headers, refused);
    }
    refusal_for(&context, &headers, HttpError::no_path(&uri)).await
}

/// Refuses a request whose sender may not do what it asks for. A browser without credentials that asks for a page is
/// sent to the login, which leads back.
pub(crate) fn refusal(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    refusal: HttpError,
) -> Response {
    let mut response = refused_for(method, uri, headers, refusal);
    vary(response.headers_mut(), &["accept"]);
    response
}

fn refused_for(method: &Method, uri: &Uri, headers: &HeaderMap, refusal: HttpError) -> Response {
    if !accepts_html(headers) {
        return refusal.into_response();
    }
    if matches!(refusal, HttpError::Unauthorized(_)) && method == Method::GET {
        let next = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let next: String = form_urlencoded::byte_serialize(next.as_bytes()).collect();
        return http::not_kept(http::see_other(&format!("/login?next={next}")));
    }
    // Without the counts of builds and the notice, which are not for everybody.
    refused_page(&refusal, QueueCounts::default(), String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_a_refusal_has_the_header_of_the_refusal() {
        for refusal in [
            HttpError::Waiting("for a lock".to_owned()),
            HttpError::Busy,
            HttpError::TooMany,
            HttpError::OutOfRange(7),
        ] {
            let (name, value) = refusal.header().expect("a header");
            let page = refused_page(&refusal, QueueCounts::default(), String::new());
            assert_eq!(page.headers().get(&name), Some(&value), "{refusal:?}");
            assert_eq!(refusal.into_response().headers().get(&name), Some(&value));
        }
    }
}
