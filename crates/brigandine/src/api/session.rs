//! `/login` and `/logout`. Clients of Hydra log in with JSON; the answer has the cookie that they send afterwards.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use axum::response::Response;

use crate::auth::{self, Origin};
use crate::context::Context;
use crate::http::{self, Arrived, HttpError, Result};
use crate::openapi::{Dialect, Kind, Operation, Parameter};
use crate::wire::{LoginJson, UserJson};

/// The description of the page with the form.
pub(crate) fn login_page_operation() -> Operation {
    let next = Parameter::new("next", Kind::Text, "/queue", "The address to which a login leads.");
    Operation::new(Dialect::Own, "A page to log in, or out, without a script")
        .takes(&[next])
        .other(200, "text/html; charset=utf-8", "The page.")
        .open()
}

/// The description of [`log_in`]. The form of the page is not for programs.
pub(crate) fn log_in_operation() -> Operation {
    Operation::new(Dialect::Hydra, "Log in with a name and a password")
        .needs::<LoginJson>()
        .json::<UserJson>(200, "The user. The cookie of the answer is that of a session.")
        .refuses(
            403,
            "The name or the password is wrong, or the request comes from a page of another site.",
        )
        .refuses(
            429,
            "Too many logins have failed; `Retry-After` says when there is another attempt.",
        )
        .open()
}

/// The description of `POST /logout`.
pub(crate) fn log_out_operation() -> Operation {
    Operation::new(Dialect::Hydra, "End the session whose cookie the request has")
        .leads_on("The session has ended, if there was one.")
        .refuses(403, "The request comes from a page of another site.")
        .open()
}

/// Logs in.
///
/// # Errors
/// 400: the body is not `{"username":…,"password":…}`. 403: the name or the password is wrong, or the request comes from a
/// page of another site. 429: too many logins have failed.
pub(crate) async fn log_in(
    context: &Context,
    arrived: &Arrived,
    request: Request,
) -> Result<Response> {
    if auth::origin(request.headers(), arrived) == Origin::Other {
        let why = "this login comes from a page of another site";
        return Err(HttpError::Forbidden(why.to_owned()));
    }
    let unreadable = || {
        let why = "a login is JSON with two texts: {\"username\":…,\"password\":…}";
        HttpError::BadRequest(why.to_owned())
    };
    let body = Bytes::from_request(request, &()).await.map_err(|_| unreadable())?;
    // serde would take a list for an object without names.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(unreadable());
    }
    let login: LoginJson = serde_json::from_slice(&body).map_err(|_| unreadable())?;
    let found = context.auth().log_in(&login.username, &login.password, arrived).await?;
    let mut response = http::not_kept(http::json(StatusCode::OK, &UserJson::new(&found.user)));
    response.headers_mut().insert(header::SET_COOKIE, found.cookie);
    Ok(response)
}
