//! Products as downloads: `/download/PRODUCT` and `/search/latest/TYPE` of Cuirass, `/build/N/download/…` of Hydra.

use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;

use super::parameters::{BUILD_ID, QUERY};
use crate::context::{Context, Reading};
use crate::http::{self, HttpError, Path, Query, Result};
use crate::model::{Build, BuildFilter, BuildStatus, Product, ProductId, product_file};
use crate::openapi::{Described, Dialect, Kind, Operation, Parameter};
use crate::store::{Visible, visible};

/// How many of the latest builds are searched for a text.
const SEARCHED: u32 = 1000;

/// The description of a download.
fn operation(dialect: Dialect, summary: &'static str, parameters: &[Parameter]) -> Operation {
    let bytes = "application/octet-stream";
    Operation::new(dialect, summary)
        .takes(parameters)
        .other(200, bytes, "The product, as a download.")
        .other(206, bytes, "The part that the request's `Range` asks for.")
        .refuses(404, "There is no such product.")
        .refuses(416, "The range begins past the end.")
}

pub(super) fn routes() -> Described<Context> {
    const NUMBER: Parameter = Parameter::new(
        "number",
        Kind::Text,
        "1",
        "The place among the build's products, from 1 on.",
    );
    const KIND: Parameter = Parameter::new("kind", Kind::Text, "file", "The type of the product.");
    const SUBTYPE: Parameter = Parameter::new("subtype", Kind::Text, "x", "Any text.");
    const FILE: Parameter = Parameter::new(
        "file",
        Kind::Text,
        "hello",
        "A name under which clients store the download.",
    );
    let (numbered, typed) =
        ("/build/{id}/download/{number}", "/build/{id}/download-by-type/{kind}/{subtype}");
    let by_number = |more: &[Parameter]| {
        let all = [&[BUILD_ID, NUMBER], more].concat();
        operation(Dialect::Hydra, "A product of a build by its place", &all)
    };
    let by_type = |more: &[Parameter]| {
        let all = [&[BUILD_ID, KIND, SUBTYPE], more].concat();
        operation(Dialect::Hydra, "The first product of a type of a build", &all)
    };
    let number = Parameter::new("product", Kind::Text, "1", "The number of the product.");
    let product = operation(Dialect::Cuirass, "A product", &[number]);
    let latest_operation = operation(
        Dialect::Cuirass,
        "The product of a type of the latest build that fits `spec:NAME system:NAME TEXT`",
        &[KIND, QUERY],
    );
    Described::new()
        .get("/download/{product}", download, product)
        .get(numbered, of_build, by_number(&[]))
        .get(&format!("{numbered}/{{file}}"), of_build, by_number(&[FILE]))
        .get(typed, of_build, by_type(&[]))
        .get(&format!("{typed}/{{file}}"), of_build, by_type(&[FILE]))
        .get("/search/latest/{kind}", latest, latest_operation)
}

fn missing() -> HttpError {
    HttpError::not_found("there is no such product")
}

async fn send(
    context: &Reading,
    product: Option<Product>,
    headers: &HeaderMap,
) -> Result<Response> {
    let product = product.ok_or_else(missing)?;
    http::file(&context.state().join(product_file(&product.path)), &product, headers).await
}

/// A product, by its number among those of all builds.
async fn download(
    context: Reading,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let number: ProductId = id.parse().map_err(|_| missing())?;
    let product = context.read(move |s| visible::product(s, number)).await?;
    send(&context, product, &headers).await
}

/// The variable parts of the path of a build's product. The name of the file that clients append names nothing: they
/// want to store the download under this name.
#[derive(Debug, Deserialize)]
struct Wanted {
    id: String,
    /// The place among the products of the build, from 1 on.
    #[serde(default)]
    number: Option<String>,
    /// The type. The products of this server have no subtypes, so any is accepted.
    #[serde(default)]
    kind: Option<String>,
}

/// A product of a build: by its place, or the first of a type.
///
/// # Errors
/// 404: there is no such build, or it has no such product.
async fn of_build(
    context: Reading,
    Path(wanted): Path<Wanted>,
    headers: HeaderMap,
) -> Result<Response> {
    let Wanted { id, number, kind } = wanted;
    let named = id.clone();
    let products = context
        .read(move |s| match visible::build_named(s, &named)? {
            Some(build) => of(s, &build).map(Some),
            None => Ok(None),
        })
        .await?;
    let mut products = products.ok_or_else(|| HttpError::no_build(&id))?.into_iter();
    let product = match (number, kind) {
        (Some(number), _) => {
            let place = number.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
            place.and_then(|place| products.nth(place))
        }
        (None, Some(kind)) => products.find(|product| product.kind == kind),
        (None, None) => None,
    };
    send(&context, product, &headers).await
}

fn of(s: &Visible<'_>, build: &Build) -> rusqlite::Result<Vec<Product>> {
    Ok(visible::products(s, &[build.id])?.remove(&build.id).unwrap_or_default())
}

/// What a search of Cuirass wants: `spec:NAME`, `system:NAME`, `status:success`, and text that the name of the job or of
/// the package contains.
#[derive(Debug, Default)]
struct Search {
    filter: BuildFilter,
    texts: Vec<String>,
    /// Whether builds of another status are wanted, which have no products.
    other_status: bool,
}

impl Search {
    fn parse(query: &str) -> Self {
        let mut search = Self::default();
        search.filter.status = Some(BuildStatus::Succeeded);
        for word in query.split_whitespace() {
            match word.split_once(':') {
                Some(("spec", name)) => search.filter.specification = Some(name.to_owned()),
                Some(("system", name)) => search.filter.system = Some(name.to_owned()),
                Some(("status", status)) => {
                    search.other_status |= !["success", "succeeded"].contains(&status);
                }
                // Cuirass ignores words that it does not know.
                Some(_) => {}
                None => search.texts.push(word.to_lowercase()),
            }
        }
        search
    }

    fn fits(&self, build: &Build) -> bool {
        let names = [build.job.to_lowercase(), build.nix_name.to_lowercase()];
        self.texts.iter().all(|text| names.iter().any(|name| name.contains(text)))
    }

    /// The first product of the type among those of the latest builds that fit.
    fn find(&self, s: &Visible<'_>, kind: &str) -> rusqlite::Result<Option<Product>> {
        if self.other_status {
            return Ok(None);
        }
        let builds = visible::latest_builds(s, &self.filter, SEARCHED)?;
        for build in builds.iter().filter(|build| self.fits(build)) {
            let found = of(s, build)?.into_iter().find(|product| product.kind == kind);
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

/// The product of a type of the latest build that a search finds.
///
/// # Errors
/// 404: none of the latest builds that fit has such a product.
async fn latest(
    context: Reading,
    Path(kind): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response> {
    let search = Search::parse(&query.get("query").unwrap_or_default());
    let product = context.read(move |s| search.find(s, &kind)).await?;
    send(&context, product, &headers).await
}
