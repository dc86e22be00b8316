//! `/login` and `/logout`: forms that need no script.

use askama::Template;
use axum::Extension;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

pub(super) mod provider;

use super::layout::{Layout, or_refusal, render_as};
use crate::auth::{self, Form, Origin, Visitor};
use crate::context::Reading;
use crate::http::{self, Arrived, HttpError, Query, Result};
use crate::model::QueueCounts;
use crate::store::visible;

/// The most bytes of the address to which a login leads.
const NEXT_BYTES_MAX: usize = 2048;

#[derive(Template)]
#[template(path = "login.html")]
struct Page {
    layout: Layout,
    /// Who is logged in.
    owner: Option<Owner>,
    /// Why the last login failed; usually empty.
    error: String,
    /// The address to which the login leads.
    next: String,
    /// The provider through which people may log in.
    provider: Option<Through>,
}

/// A provider of logins.
struct Through {
    name: String,
    /// The address at which a login through the provider begins.
    address: String,
}

struct Owner {
    name: String,
    roles: String,
    form_token: String,
}

/// The page with the form, or, for somebody who is logged in, with a button to log out.
pub(crate) async fn page(
    context: Reading,
    Extension(visitor): Extension<Visitor>,
    query: Query,
) -> Response {
    let owner = visitor.principal().map(|principal| Owner {
        name: principal.actor.to_string(),
        roles: principal.roles(),
        form_token: principal.form_token().to_owned(),
    });
    let next = query.get("next").unwrap_or_default();
    let page = make(&context, &visitor, owner, &next, None).await;
    match page {
        // Without the counts of builds, which are not for everybody.
        Err(refusal) if !context.auth().may_read(&visitor) => refusal.into_response(),
        page => or_refusal(&context, page).await,
    }
}

/// Makes the page, after a failed login with the reason.
async fn make(
    context: &Reading,
    visitor: &Visitor,
    owner: Option<Owner>,
    next: &str,
    failed: Option<&HttpError>,
) -> Result<Response> {
    let (status, error) = failed.map_or((StatusCode::OK, ""), HttpError::parts);
    let error = error.to_owned();
    let readable = context.auth().may_read(visitor);
    let layout = Layout {
        title: "Account · Brigandine".to_owned(),
        section: "account",
        queue: if readable {
            context.read_few(visible::queue_counts).await?
        } else {
            QueueCounts::default()
        },
        live: String::new(),
        notice: if readable { context.health().notice() } else { String::new() },
    };
    let next = local(next).to_owned();
    let provider = context.auth().provider().map(|provider| Through {
        name: provider.name().to_owned(),
        address: format!("/login/oidc?next={}", utf8_percent_encode(&next, NON_ALPHANUMERIC)),
    });
    let page = Page { layout, owner, error, next, provider };
    render_as(status, &page).map(http::not_kept)
}

/// The address, if it is one of this server, and `/` otherwise. So nobody is led elsewhere after a login.
fn local(address: &str) -> &str {
    // Browsers read `\` as `/`, drop control characters, and take what begins with two slashes for another host.
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"\\\"<>`".contains(&byte);
    let right = address.starts_with('/')
        && !address.starts_with("//")
        && address.len() <= NEXT_BYTES_MAX
        && address.bytes().all(plain);
    if right { address } else { "/" }
}

/// Logs in with the form of the page.
pub(crate) async fn log_in(context: &Reading, arrived: &Arrived, request: Request) -> Response {
    let asked = auth::origin(request.headers(), arrived);
    let form = match Form::from_request(request, &()).await {
        Ok(form) if asked == Origin::Same => form,
        Ok(_) => {
            let why = "this login does not come from the page of this server: open the page /login and try again; a \
                       program sends JSON, {\"username\":…,\"password\":…}";
            return HttpError::Forbidden(why.to_owned()).into_response();
        }
        Err(refusal) => return refusal.into_response(),
    };
    let (name, password, next) = (form.get("name"), form.get("password"), form.get("next"));
    match context.auth().log_in(name, password, arrived).await {
        Ok(found) => {
            let mut response = http::see_other(local(next));
            response.headers_mut().insert(header::SET_COOKIE, found.cookie);
            http::not_kept(response)
        }
        Err(refusal @ (HttpError::Forbidden(_) | HttpError::TooManyFailures(_))) => {
            let page = make(context, &Visitor::Nobody, None, next, Some(&refusal)).await;
            page.unwrap_or_else(IntoResponse::into_response)
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// Ends the session, and takes the cookie away.
pub(crate) async fn log_out(
    context: Reading,
    Extension(visitor): Extension<Visitor>,
    Extension(arrived): Extension<Arrived>,
) -> Response {
    if visitor == Visitor::CrossSite {
        let why =
            "this does not come from a page of this server; open the page /login and log out there";
        return HttpError::Forbidden(why.to_owned()).into_response();
    }
    match context.auth().log_out(visitor.principal(), &arrived).await {
        Ok(cookie) => {
            let mut response = http::see_other("/");
            response.headers_mut().insert(header::SET_COOKIE, cookie);
            http::not_kept(response)
        }
        Err(refusal) => refusal.into_response(),
    }
}

#[cfg(test)]
mod tests;
