//! `/login/oidc` and `/login/oidc/callback`: the way to the provider of OpenID Connect, and the way back.
//!
//! The way back is a `GET` that begins a session. The protocol wants it so; the state in the cookie of the attempt keeps
//! other sites from beginning one.

use axum::Extension;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};

use super::{local, make};
use crate::auth::{self, Provider, Visitor};
use crate::context::{Context, Reading};
use crate::http::{self, Arrived, HttpError, Query, Result};

/// Sends the browser to the provider.
pub(crate) async fn begin(
    context: Reading,
    Extension(arrived): Extension<Arrived>,
    query: Query,
) -> Response {
    let next = query.get("next").unwrap_or_default();
    let sent = async { provider(&context)?.begin(local(&next), &arrived).await };
    match sent.await {
        Ok(sent) => {
            let mut response = http::see_other(&sent.to);
            response.headers_mut().insert(header::SET_COOKIE, sent.cookie);
            http::not_kept(response)
        }
        Err(refusal) => failed(&context, &next, refusal).await,
    }
}

/// Begins a session, if the provider says who the user is.
pub(crate) async fn finish(
    context: Reading,
    Extension(arrived): Extension<Arrived>,
    headers: HeaderMap,
    query: Query,
) -> Response {
    let of = |name| query.get(name).unwrap_or_default();
    let answer = auth::Answer { code: of("code"), state: of("state"), error: of("error") };
    let back = async {
        let provider = provider(&context)?;
        provider.finish(context.auth(), answer, &headers, &arrived).await
    };
    match back.await {
        Ok(back) => {
            let mut response = http::see_other(local(&back.next));
            for cookie in back.cookies {
                response.headers_mut().append(header::SET_COOKIE, cookie);
            }
            http::not_kept(response)
        }
        Err(refusal) => failed(&context, "", refusal).await,
    }
}

fn provider(context: &Context) -> Result<&Provider> {
    context
        .auth()
        .provider()
        .ok_or_else(|| HttpError::not_found("there is no provider of logins here"))
}

/// The login page with the reason.
async fn failed(context: &Reading, next: &str, refusal: HttpError) -> Response {
    let page = make(context, &Visitor::Nobody, None, next, Some(&refusal)).await;
    page.unwrap_or_else(IntoResponse::into_response)
}
