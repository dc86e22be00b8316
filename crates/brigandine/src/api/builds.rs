//! `/build/ID`, `/api/latestbuilds`, `/api/queue`, `/download/PRODUCT`.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::wire::builds_json;
use crate::http::{self, Path, Query, Refusal, Result, Site, json};
use crate::model::{Build, BuildFilter, BuildId, BuildStatus, ProductId, product_file};
use crate::store::{self, Snapshot};

/// Builds that are read on the thread of the request.
const FEW: u32 = 20;

/// A build by its number or by the last component of its derivation.
pub(crate) fn find(s: &Snapshot, id: &str) -> rusqlite::Result<Option<Build>> {
    match id.parse::<i64>() {
        Ok(number) => store::build(s, BuildId::new(number)),
        Err(_) if id.ends_with(".drv") => store::build_by_basename(s, id),
        Err(_) => Ok(None),
    }
}

/// One build.
///
/// # Errors
/// 404 in the words clients know.
pub(crate) async fn json_of_build(site: &Site, id: String) -> Result<Response> {
    let wanted = id.clone();
    let found = site
        .read_few(move |s| match find(s, &wanted)? {
            Some(build) => builds_json(s, vec![build]),
            None => Ok(Vec::new()),
        })
        .await?;
    let build = found.first().ok_or_else(|| Refusal::no_build(&id))?;
    Ok(json(StatusCode::OK, build))
}

fn filter(query: &Query) -> Result<BuildFilter> {
    let status = match query.get("status") {
        None => None,
        Some(text) => {
            let code = text.parse().ok().and_then(BuildStatus::from_code);
            let status = code.map_or_else(|| text.parse(), Ok);
            let refuse = |_| Refusal::BadRequest("the value of 'status' is not valid".to_owned());
            Some(status.map_err(refuse)?)
        }
    };
    Ok(BuildFilter {
        specification: query.get("jobset"),
        job: query.get("job"),
        system: query.get("system"),
        evaluation: query.parsed("evaluation")?,
        derivation: query.get("derivation"),
        status,
    })
}

/// Finished builds, latest stop first.
pub(super) async fn latest(State(site): State<Site>, query: Query) -> Result<Response> {
    let (number, filter) = (query.number_of_entries()?, filter(&query)?);
    let read = move |s: &Snapshot| builds_json(s, store::latest_builds(s, &filter, number)?);
    let builds = if number <= FEW { site.read_few(read).await } else { site.read(read).await }?;
    Ok(json(StatusCode::OK, &builds))
}

/// Pending builds: running first, then by submission, and only then cut.
pub(super) async fn queue(State(site): State<Site>, query: Query) -> Result<Response> {
    let (number, filter) = (query.number_of_entries()?, filter(&query)?);
    let builds = site.read(move |s| builds_json(s, store::queue(s, &filter, number)?)).await?;
    Ok(json(StatusCode::OK, &builds))
}

/// A product of a build, as a download.
pub(super) async fn download(
    State(site): State<Site>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let missing = || Refusal::not_found("there is no such product");
    let number: ProductId = id.parse().map_err(|_| missing())?;
    let product = site.read(move |s| store::product(s, number)).await?.ok_or_else(missing)?;
    http::file(&site.state().join(product_file(&product.path)), &product, &headers).await
}
