//! `/jobsets`, `/specifications`, `/api/jobsets`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::wire::SpecificationJson;
use crate::http::{Result, Site, json};
use crate::store;

/// All specifications, by name.
pub(super) async fn list(State(site): State<Site>) -> Result<Response> {
    let all = site.read_few(store::specifications).await?;
    let all: Vec<_> =
        all.iter().map(|state| SpecificationJson::from(&state.specification)).collect();
    Ok(json(StatusCode::OK, &all))
}
