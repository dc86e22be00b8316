//! `POST /login` with JSON, as clients of Hydra log in. The answer has the cookie that they send afterwards.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use axum::response::Response;

use crate::auth::{self, Origin};
use crate::context::Context;
use crate::http::{self, Arrived, HttpError, Result};
use crate::wire::{LoginJson, UserJson};

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
    let login: LoginJson = serde_json::from_slice(&body).map_err(|_| unreadable())?;
    let found = context.auth().log_in(&login.username, &login.password, arrived).await?;
    let mut response = http::not_kept(http::json(StatusCode::OK, &UserJson::new(&found.user)));
    response.headers_mut().insert(header::SET_COOKIE, found.cookie);
    Ok(response)
}
