//! The addresses of the pages and of the files that they load.

use axum::Router;
use axum::http::{HeaderMap, Uri};
use axum::routing::{MethodRouter, get, post};

use super::files::{ICON, SCRIPT, STYLE, asset};
use super::{
    changing, configuration, description, evaluation, grid, job, jobset, live, log, login, queue,
};
use crate::context::Context;

/// A function that makes the handler of a route.
type Make = fn() -> MethodRouter<Context>;

/// Every route of the pages and of the files that they load, except those that programs use too (`site.rs`).
/// `tests/data/pages/routes.txt` has an address for each route, and says how it is tested.
pub(super) const ROUTES: [(&str, Make); 20] = [
    ("/job/{name}/{job}", || get(job::page)),
    ("/jobset/{name}", || get(jobset::page)),
    ("/jobset/{name}/grid", || get(grid::page)),
    ("/jobset/{name}/change", || post(changing::specification)),
    ("/eval/{id}/change", || post(changing::evaluation)),
    ("/build/{id}/change", || post(changing::build)),
    ("/eval/{id}/log", || get(evaluation::log)),
    ("/build/{id}/details", || get(super::build::page)),
    ("/build/{id}/log", || get(log::page)),
    ("/build/{id}/log/live", || get(live::log)),
    ("/queue", || get(queue::page)),
    ("/api", || get(description::page)),
    ("/configuration", || get(configuration::page)),
    ("/live", || get(live::changes)),
    ("/login/oidc", || get(login::provider::begin)),
    ("/login/oidc/callback", || get(login::provider::finish)),
    ("/static/style.css", || {
        get(async |uri: Uri, headers: HeaderMap| asset(&STYLE, &uri, &headers))
    }),
    ("/static/live.js", || {
        get(async |uri: Uri, headers: HeaderMap| asset(&SCRIPT, &uri, &headers))
    }),
    ("/static/icon.svg", || get(async |uri: Uri, headers: HeaderMap| asset(&ICON, &uri, &headers))),
    ("/favicon.ico", || get(async |uri: Uri, headers: HeaderMap| asset(&ICON, &uri, &headers))),
];

/// The router of all [`ROUTES`].
pub(crate) fn router() -> Router<Context> {
    ROUTES.into_iter().fold(Router::new(), |router, (path, make)| router.route(path, make()))
}
