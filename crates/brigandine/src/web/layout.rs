//! The frame of every page, and the pages for errors.

use std::sync::{Arc, Mutex, PoisonError};

use askama::Template;
use axum::extract::State;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};

use super::files::VERSION;
use crate::auth::Visitor;
use crate::context::Context;
use crate::http::{self, HttpError, Result, accepts_html, html};
use crate::model::{QueueCounts, Role};
use crate::store;

/// What a page shows around its own content.
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
        format!("{VERSION:x}")
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
pub(super) async fn or_refusal(context: &Context, page: Result<Response>) -> Response {
    let refusal = match page {
        Ok(page) => return page,
        Err(refusal) => refusal,
    };
    let queue = context.read(store::queue_counts).await.unwrap_or_default();
    refused_page(&refusal, queue, context.health().notice())
}

fn refused_page(refusal: &HttpError, queue: QueueCounts, notice: String) -> Response {
    let (status, text) = refusal.parts();
    let title = format!("{} · Brigandine", status.canonical_reason().unwrap_or("Refused"));
    let layout = Layout { title, section: "", queue, live: String::new(), notice };
    let page = Refused { layout, status: status.as_u16(), text: text.to_owned() };
    render_as(status, &page).unwrap_or_else(IntoResponse::into_response)
}

/// A router that answers every request with the reason `why` while the server waits to start.
pub(crate) fn waiting(why: Arc<Mutex<String>>) -> Router {
    Router::new().fallback(async move |headers: HeaderMap| {
        let why = why.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let mut response = if accepts_html(&headers) {
            let title = "Waiting · Brigandine".to_owned();
            let (queue, live) = (QueueCounts::default(), String::new());
            let layout = Layout { title, section: "", queue, live, notice: String::new() };
            let page = Refused { layout, status: status.as_u16(), text: why };
            render_as(status, &page).unwrap_or_else(IntoResponse::into_response)
        } else {
            HttpError::Waiting(why).into_response()
        };
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        response
    })
}

/// Answers requests for a path without a route: browsers get a page, other clients JSON. On a private server those who
/// may not read learn not even that.
pub(crate) async fn unknown_path(
    State(context): State<Context>,
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
    let refusal = HttpError::no_path(&uri);
    if accepts_html(&headers) {
        or_refusal(&context, Err(refusal)).await
    } else {
        refusal.into_response()
    }
}

/// Refuses a request whose sender may not do what it asks for. A browser without credentials that asks for a page is
/// sent to the login, which leads back.
pub(crate) fn refusal(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    refusal: HttpError,
) -> Response {
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
