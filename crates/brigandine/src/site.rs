//! The site: one router for the API, the pages and the probes, and the HTTP server of a running program.

mod access;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Extension, Request};
use axum::http::HeaderMap;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::app::App;
use crate::auth::{Auth, Provider, Token, Visitor};
use crate::context::{Context, Parts, Reading};
use crate::http::{self, Arrived, Base, Compressors, Path, Query, Routes};
use crate::model::Live;
use crate::openapi::{Described, Document};
use crate::{api, config, probes, web};

/// The routes with one address for people and programs.
pub(crate) const SHARED: [&str; 6] =
    ["/", "/build/{id}", "/eval/{id}", "/search", "/login", "/logout"];

/// The routes of the API, the pages and the probes.
///
/// `base`: the path below which a proxy serves them.
pub(crate) fn routes(context: Context, base: Base) -> Routes {
    let meters = Arc::clone(context.http_meters());
    let auth = context.auth().clone();
    let (router, document) = router();
    let router = router
        .route_layer(from_fn_with_state(context.clone(), access::admit))
        .route_layer(from_fn(http::note_route))
        .fallback(web::unknown_path)
        .method_not_allowed_fallback(http::wrong_method)
        .layer(Extension(Arc::new(document)))
        .layer(from_fn_with_state(web::Versions::default(), web::parts))
        .layer(from_fn_with_state(base, http::place))
        .layer(from_fn_with_state(Compressors::new(), http::negotiate))
        .layer(from_fn_with_state(auth, access::identify))
        .with_state(context);
    Routes { router, at_once: probes::PATHS, meters }
}

/// All routes, and the document that describes those for programs.
fn router() -> (Router<Context>, Document) {
    let (router, document) = described().into_parts();
    (router.merge(web::router()), document)
}

/// The routes that programs use, with their descriptions.
fn described() -> Described<Context> {
    Described::new()
        .merge(api::routes())
        .merge(probes::routes())
        .get(SHARED[0], overview, api::projects_operation())
        .get(SHARED[1], build, api::build_operation())
        .get(SHARED[2], evaluation, api::evaluation_operation())
        .get(SHARED[3], search, api::search_operation())
        .get(SHARED[4], web::login_page, api::login_page_operation())
        .post(SHARED[4], log_in, api::log_in_operation())
        .post(SHARED[5], web::log_out, api::log_out_operation())
}

/// Answers with JSON if the request asks for it by name, as clients of Hydra do, and with a page otherwise.
async fn overview(context: Reading, headers: HeaderMap) -> Response {
    let response = if http::wants_json(&headers) {
        api::projects(&context).await.into_response()
    } else {
        web::overview(context).await
    };
    http::varied(response)
}

/// Answers as [`overview`] does.
async fn evaluation(
    context: Reading,
    visitor: Extension<Visitor>,
    Path(id): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Response {
    let response = if http::wants_json(&headers) {
        api::evaluation(&context, &id).await.into_response()
    } else {
        web::evaluation(context, visitor, Path(id), query).await
    };
    http::varied(response)
}

/// Answers with a page if the request accepts HTML by name, as browsers do, and with JSON otherwise.
async fn build(
    context: Reading,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    if http::accepts_html(&headers) {
        return web::build(&context, &visitor, &id, &headers).await;
    }
    let mut response = api::build(&context, id).await.into_response();
    http::vary(response.headers_mut(), &["accept"]);
    response
}

/// Answers as [`build`] does.
async fn search(context: Reading, query: Query, headers: HeaderMap) -> Response {
    if http::accepts_html(&headers) {
        return web::search(context, query).await;
    }
    let mut response = api::search(&context, &query).await.into_response();
    http::vary(response.headers_mut(), &["accept"]);
    response
}

/// Logs in: with JSON, as clients of Hydra do, or with the form of the page.
async fn log_in(
    context: Reading,
    Extension(arrived): Extension<Arrived>,
    request: Request,
) -> Response {
    if http::is_json(request.headers()) {
        api::log_in(&context, &arrived, request).await.into_response()
    } else {
        web::log_in(&context, &arrived, request).await
    }
}

/// The routes of a server that waits to start: the probes, and the reason `why` for every other request.
pub(crate) fn waiting(why: Arc<Mutex<String>>, base: Base) -> Routes {
    let router = probes::waiting(Arc::clone(&why)).merge(web::waiting(why));
    let router = router.layer(from_fn_with_state(base, http::place));
    Routes { router, at_once: probes::PATHS, meters: Arc::default() }
}

/// The HTTP server of a running program.
pub struct Web {
    closing: watch::Sender<bool>,
    task: JoinHandle<()>,
    settings: Live<Arc<config::Web>>,
}

impl Web {
    /// Begins to answer requests at `listener`.
    ///
    /// `provider`: through which people log in beside passwords.
    pub fn start(
        listener: TcpListener,
        app: &App,
        web: config::Web,
        token: Option<Token>,
        provider: Option<Provider>,
    ) -> Self {
        let auth = Auth::new(app.database().client("accounts"), token, web.private, provider);
        if let Ok(address) = listener.local_addr() {
            app.note_address(address, auth.secret());
        }
        let (closing, closed) = watch::channel(false);
        let base = Base::new(&web.base);
        let context = Context::new(Parts {
            database: app.database().clone(),
            events: Box::new({
                let app = app.clone();
                move || app.events()
            }),
            logs: app.logs().clone(),
            health: app.health().clone(),
            meters: Arc::clone(app.meters()),
            http_meters: Arc::default(),
            tasks: Box::new({
                let app = app.clone();
                move || app.tasks()
            }),
            unused: app.unused(),
            configuration: Box::new({
                let app = app.clone();
                move || app.configuration()
            }),
            state: app.state().to_owned(),
            systems: app.systems().to_vec(),
            closing: closed.clone(),
            auth,
            actions: Box::new(app.clone()),
        });
        let settings = Live::new(Arc::new(web));
        let routes = routes(context, base);
        let task = tokio::spawn(http::serve(listener, routes, settings.clone(), closed));
        Self { closing, task, settings }
    }

    /// Uses other settings from the next request on. The bounds of connections, the path below which the server is
    /// served, and whether it is private stay as they were at the start.
    pub(crate) fn reload(&self, web: config::Web) {
        self.settings.set(Arc::new(web));
    }

    /// Resolves with the reason when the HTTP server has ended without [`Web::close`], which is a fault.
    pub(crate) async fn died(&mut self) -> String {
        match (&mut self.task).await {
            Ok(()) => "it returned".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    /// Answers the open requests and then ends.
    pub async fn close(self) {
        self.closing.send_replace(true);
        let _ = self.task.await;
    }
}

#[cfg(test)]
mod clients;
#[cfg(test)]
mod described;
#[cfg(test)]
mod fits;
#[cfg(test)]
pub(crate) mod harness;
#[cfg(test)]
mod secrecy;
#[cfg(test)]
mod tests;
