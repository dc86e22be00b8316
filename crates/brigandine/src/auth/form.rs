//! Forms of pages: their fields, and the token that shows that a page of this server made them.

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, Method, header};
use bytes::Bytes;
use http_body_util::BodyExt;

use super::principal::Principal;
use super::secret::is_same;
use super::visitor::Visitor;
use crate::http::{HttpError, Result};

/// The field with the token.
const TOKEN: &str = "form-token";

/// The fields of a form. One may be a password, so that they have no text for traces.
#[derive(Clone, Default)]
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    fn parse(body: &[u8]) -> Self {
        Self(form_urlencoded::parse(body).into_owned().collect())
    }

    /// The first value of a field; empty: there is no such field.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

impl<S: Sync> FromRequest<S> for Form {
    type Rejection = HttpError;

    /// # Errors
    /// 400: the body is no form.
    async fn from_request(request: Request, _: &S) -> Result<Self> {
        if kind(request.headers()) != "application/x-www-form-urlencoded" {
            return Err(HttpError::BadRequest("the request's body is no form".to_owned()));
        }
        Ok(Self::parse(&whole(request.into_body()).await?))
    }
}

/// The media type of a body, without parameters.
fn kind(headers: &HeaderMap) -> &str {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.unwrap_or_default().split(';').next().unwrap_or_default().trim()
}

/// The body of a request, which is in memory already.
async fn whole(body: Body) -> Result<Bytes> {
    let broken = |_| HttpError::BadRequest("the request's body cannot be read".to_owned());
    Ok(body.collect().await.map_err(broken)?.to_bytes())
}

/// Who sent a request, after its body was looked at: a change by a form of somebody who logged in must have the session's
/// form token. Bodies of other types than those that forms can have pass.
pub(crate) async fn check_form(visitor: Visitor, request: Request) -> Result<(Visitor, Request)> {
    let token = visitor.principal().map_or("", Principal::form_token).to_owned();
    let is_form = ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"]
        .iter()
        .any(|form| kind(request.headers()).eq_ignore_ascii_case(form));
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    if token.is_empty() || !is_form || reads {
        return Ok((visitor, request));
    }
    let (parts, body) = request.into_parts();
    let body = whole(body).await?;
    let visitor =
        if is_same(Form::parse(&body).get(TOKEN), &token) { visitor } else { Visitor::CrossSite };
    Ok((visitor, Request::from_parts(parts, Body::from(body))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equal_fields_counts() {
        let form = Form::parse(b"name=a+b&next=%2Fqueue&name=c&&x");
        assert_eq!((form.get("name"), form.get("next"), form.get("y")), ("a b", "/queue", ""));
    }
}
