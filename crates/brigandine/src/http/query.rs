//! The parameters of a request, and the variable part of its path. Unknown parameters are ignored, as clients of other
//! servers expect.

use std::convert::Infallible;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::error::{HttpError, Result};

/// The numbers of entries that a request may ask for.
const ENTRIES: std::ops::RangeInclusive<u32> = 1..=1000;

/// The query of a request, which the methods decode.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query {
    text: String,
    /// The route that reads it.
    #[cfg(test)]
    route: String,
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> std::result::Result<Self, Infallible> {
        Ok(Self {
            text: parts.uri.query().unwrap_or_default().to_owned(),
            #[cfg(test)]
            route: asked::route(parts),
        })
    }
}

/// The variable parts of the path, decoded: one text, or a struct whose fields have the names of the parts.
#[derive(Debug, Clone)]
pub(crate) struct Path<T>(pub(crate) T);

impl<S, T> FromRequestParts<S> for Path<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Send,
{
    type Rejection = HttpError;

    /// # Errors
    /// 404: the path cannot be decoded.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let found = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        let no_path = |_| HttpError::no_path(&parts.uri);
        found.map(|axum::extract::Path(parts)| Self(parts)).map_err(no_path)
    }
}

impl Query {
    /// The first value of `name`; `None`: it is missing or empty.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.values(name).next().filter(|value| !value.is_empty())
    }

    /// All values of `name`, each split at commas, without the empty ones.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        self.values(name)
            .flat_map(|value| value.split(',').map(str::to_owned).collect::<Vec<_>>())
            .filter(|value| !value.is_empty())
            .collect()
    }

    /// The values of `name`, decoded.
    fn values(&self, name: &str) -> impl Iterator<Item = String> {
        #[cfg(test)]
        asked::note(&self.route, name);
        form_urlencoded::parse(self.text.as_bytes())
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }

    /// The value of `name`, parsed as `T`; `None`: it is missing or empty.
    ///
    /// # Errors
    /// The value cannot be parsed as `T`.
    pub(crate) fn parsed<T: FromStr>(&self, name: &str) -> Result<Option<T>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let refuse = |_| HttpError::BadRequest(format!("the value of '{name}' is not valid"));
        value.parse().map(Some).map_err(refuse)
    }

    /// The value of `nr`: how many entries the client wants.
    ///
    /// # Errors
    /// The two errors that clients of Cuirass know: `nr` is missing or not a number; `nr` is not in 1 to 1000.
    pub(crate) fn number_of_entries(&self) -> Result<u32> {
        let value = self.get("nr").ok_or(HttpError::ParameterMissing)?;
        let digits = value.strip_prefix(['-', '+']).unwrap_or(&value);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(HttpError::ParameterMissing);
        }
        // A number that is too large to be parsed is out of the range too.
        value.parse().ok().filter(|n| ENTRIES.contains(n)).ok_or(HttpError::LimitExceeded)
    }
}

/// Which parameters each route asks for. A test compares them with the document of the API.
#[cfg(test)]
pub(crate) mod asked {
    use std::collections::BTreeSet;
    use std::sync::{Mutex, PoisonError};

    use axum::extract::MatchedPath;
    use axum::http::request::Parts;

    static NAMES: Mutex<BTreeSet<(String, String)>> = Mutex::new(BTreeSet::new());

    pub(super) fn route(parts: &Parts) -> String {
        let path = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
        format!("{} {path}", parts.method)
    }

    pub(super) fn note(route: &str, name: &str) {
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert((route.to_owned(), name.to_owned()));
    }

    /// The names that `route` has asked for: a method and the route, as in `GET /build/{id}`.
    pub(crate) fn by(route: &str) -> BTreeSet<String> {
        let names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        let of = names.iter().filter(|(of, _)| of == route);
        of.map(|(_, name)| name.clone()).collect()
    }
}
