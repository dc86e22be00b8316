//! Which role each route needs: one table of all routes. A test compares it with the router.

use std::time::Duration;

use axum::Extension;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{MatchedPath, RawPathParams, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::auth::{self, Admin, Auth, Builder, Least, Place, Visitor};
use crate::context::{Context, Reading};
use crate::http::{self, Arrived, Result};
use crate::model::{EvaluationId, ProductId, Role, Sight};
use crate::store::visible;
use crate::web;

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody, because the answer says nothing about what is built.
    Open,
    /// Everybody, because the answer says to each what it may say, or is about the sender's own session.
    Own,
    /// Everybody, or, on a private server, those who may read: everything, or the specification that the request is
    /// about.
    Read(Of),
    /// Those who have this role: everywhere, or in the specification that the request is about.
    Change(Role, Of),
}

/// What in the path names the specification that a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// Nothing: the request is about everything.
    Everything,
    /// The build `id`.
    Build,
    /// The evaluation `id`.
    Evaluation,
    /// The product `product`.
    Product,
    /// The specification `name`.
    Specification,
    /// The specification `jobset` of the project `project`.
    Jobset,
}

use Access::{Change, Open, Own, Read};

/// Methods, routes and who may use them. `GET` includes `HEAD`.
pub(super) const TABLE: &[(&str, &str, Access)] = &[
    ("GET", "/", Read(Of::Everything)),
    ("GET", "/api", Open),
    ("GET", "/api/evaluation", Read(Of::Everything)),
    ("GET", "/api/evaluations", Read(Of::Everything)),
    ("GET", "/api/jobs", Read(Of::Everything)),
    ("GET", "/api/jobs/history", Read(Of::Everything)),
    ("GET", "/api/jobsets", Read(Of::Everything)),
    ("GET", "/api/latestbuilds", Read(Of::Everything)),
    ("GET", "/api/nrbuilds", Read(Of::Everything)),
    ("GET", "/api/nrqueue", Read(Of::Everything)),
    ("GET", "/api/openapi.json", Open),
    ("POST", "/api/push", Change(Builder::ROLE, Of::Everything)),
    ("PUT", "/api/push", Change(Builder::ROLE, Of::Everything)),
    ("GET", "/api/queue", Read(Of::Everything)),
    ("GET", "/api/v1/audit", Read(Of::Everything)),
    ("POST", "/api/v1/build/{id}/bump", Change(Builder::ROLE, Of::Build)),
    ("POST", "/api/v1/build/{id}/cancel", Change(Builder::ROLE, Of::Build)),
    ("POST", "/api/v1/build/{id}/comment", Change(Builder::ROLE, Of::Build)),
    ("POST", "/api/v1/build/{id}/restart", Change(Builder::ROLE, Of::Build)),
    // A change of administrators is refused by the handler to others.
    ("POST", "/api/v1/changes", Change(Builder::ROLE, Of::Everything)),
    ("POST", "/api/v1/eval/{id}/bump", Change(Builder::ROLE, Of::Evaluation)),
    ("POST", "/api/v1/eval/{id}/cancel", Change(Builder::ROLE, Of::Evaluation)),
    ("POST", "/api/v1/eval/{id}/comment", Change(Builder::ROLE, Of::Evaluation)),
    ("POST", "/api/v1/eval/{id}/keep", Change(Builder::ROLE, Of::Evaluation)),
    ("POST", "/api/v1/eval/{id}/release", Change(Builder::ROLE, Of::Evaluation)),
    ("POST", "/api/v1/eval/{id}/restart", Change(Builder::ROLE, Of::Evaluation)),
    ("POST", "/api/v1/jobset/{name}/disable", Change(Admin::ROLE, Of::Specification)),
    ("POST", "/api/v1/jobset/{name}/enable", Change(Admin::ROLE, Of::Specification)),
    ("POST", "/api/v1/jobset/{name}/evaluate", Change(Builder::ROLE, Of::Specification)),
    ("GET", "/api/v1/eval/{id}/compare", Read(Of::Evaluation)),
    ("GET", "/api/v1/job/{name}/{job}", Read(Of::Specification)),
    ("POST", "/api/v1/jobset/{name}/remove", Change(Admin::ROLE, Of::Specification)),
    // A definition may name every repository that the server can read, so it needs the role everywhere.
    ("POST", "/api/v1/specifications", Change(Admin::ROLE, Of::Everything)),
    ("GET", "/build/{id}", Read(Of::Build)),
    ("POST", "/build/{id}/change", Change(Builder::ROLE, Of::Build)),
    ("GET", "/build/{id}/constituents", Read(Of::Build)),
    ("GET", "/build/{id}/details", Read(Of::Build)),
    ("GET", "/build/{id}/download-by-type/{kind}/{subtype}", Read(Of::Build)),
    ("GET", "/build/{id}/download-by-type/{kind}/{subtype}/{file}", Read(Of::Build)),
    ("GET", "/build/{id}/download/{number}", Read(Of::Build)),
    ("GET", "/build/{id}/download/{number}/{file}", Read(Of::Build)),
    ("GET", "/build/{id}/log", Read(Of::Build)),
    ("GET", "/build/{id}/log/live", Read(Of::Build)),
    ("GET", "/build/{id}/log/raw", Read(Of::Build)),
    ("GET", "/configuration", Read(Of::Everything)),
    ("GET", "/download/{product}", Read(Of::Product)),
    ("GET", "/eval/{id}", Read(Of::Evaluation)),
    ("GET", "/eval/{id}/builds", Read(Of::Evaluation)),
    ("POST", "/eval/{id}/change", Change(Builder::ROLE, Of::Evaluation)),
    ("GET", "/eval/{id}/log", Read(Of::Evaluation)),
    ("GET", "/favicon.ico", Open),
    ("GET", "/healthz", Open),
    ("GET", "/job/{name}/{job}", Read(Of::Specification)),
    ("GET", "/job/{project}/{jobset}/{job}/latest", Read(Of::Jobset)),
    ("GET", "/job/{project}/{jobset}/{job}/latest-finished", Read(Of::Jobset)),
    ("GET", "/job/{project}/{jobset}/{job}/latest-finished/{*rest}", Read(Of::Jobset)),
    ("GET", "/job/{project}/{jobset}/{job}/latest-for/{system}", Read(Of::Jobset)),
    ("GET", "/job/{project}/{jobset}/{job}/latest-for/{system}/{*rest}", Read(Of::Jobset)),
    ("GET", "/job/{project}/{jobset}/{job}/latest/{*rest}", Read(Of::Jobset)),
    ("GET", "/job/{project}/{jobset}/{job}/shield", Read(Of::Jobset)),
    ("GET", "/jobset/{name}", Read(Of::Specification)),
    // Changes of administrators are refused by the handler to others.
    ("POST", "/jobset/{name}/change", Change(Builder::ROLE, Of::Specification)),
    ("GET", "/jobset/{name}/grid", Read(Of::Specification)),
    ("GET", "/jobset/{project}/{jobset}", Read(Of::Jobset)),
    ("PUT", "/jobset/{project}/{jobset}", Change(Admin::ROLE, Of::Everything)),
    ("DELETE", "/jobset/{project}/{jobset}", Change(Admin::ROLE, Of::Jobset)),
    ("GET", "/jobset/{project}/{jobset}/evals", Read(Of::Jobset)),
    ("GET", "/jobset/{project}/{jobset}/latest-eval", Read(Of::Jobset)),
    ("GET", "/jobset/{project}/{jobset}/latest-eval/{*rest}", Read(Of::Jobset)),
    ("GET", "/jobsets", Read(Of::Everything)),
    ("GET", "/live", Read(Of::Everything)),
    ("GET", "/login", Own),
    ("POST", "/login", Own),
    ("GET", "/login/oidc", Own),
    ("GET", "/login/oidc/callback", Own),
    ("POST", "/logout", Own),
    ("GET", "/metrics", Read(Of::Everything)),
    ("GET", "/output/{name}", Read(Of::Everything)),
    ("GET", "/project/{project}", Read(Of::Everything)),
    ("PUT", "/project/{project}", Change(Admin::ROLE, Of::Everything)),
    ("DELETE", "/project/{project}", Change(Admin::ROLE, Of::Everything)),
    ("GET", "/queue", Read(Of::Everything)),
    ("GET", "/readyz", Own),
    ("GET", "/robots.txt", Open),
    ("GET", "/search", Read(Of::Everything)),
    ("GET", "/search/latest/{kind}", Read(Of::Everything)),
    ("GET", "/specifications", Read(Of::Everything)),
    ("GET", "/static/icon.svg", Open),
    ("GET", "/static/live.js", Open),
    ("GET", "/static/style.css", Open),
];

/// Who may use a route with a method. A route that the table lacks is for administrators, or for those who may read.
fn access(method: &Method, route: &str) -> Access {
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    let row = TABLE.iter().find(|(of, path, _)| (*of, *path) == (method, route));
    match row {
        Some((_, _, access)) => *access,
        None if method == "GET" => Read(Of::Everything),
        None => Change(Admin::ROLE, Of::Everything),
    }
}

/// A layer of the router: notes in each request who sent it. For open routes nobody is looked up.
pub(super) async fn identify(
    State(auth): State<Auth>,
    route: Option<MatchedPath>,
    Extension(arrived): Extension<Arrived>,
    request: Request,
    next: Next,
) -> Response {
    let open = route.is_some_and(|route| access(request.method(), route.as_str()) == Open);
    let visitor = if open {
        Visitor::Nobody
    } else {
        auth.visitor(request.method(), request.headers(), &arrived).await
    };
    match auth::check_form(visitor, request).await {
        Ok((visitor, mut request)) => {
            request.extensions_mut().insert(visitor);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// A layer over routes: refuses requests whose senders may not use the route.
pub(super) async fn admit(
    State(context): State<Context>,
    route: MatchedPath,
    Extension(visitor): Extension<Visitor>,
    params: std::result::Result<RawPathParams, RawPathParamsRejection>,
    mut request: Request,
    next: Next,
) -> Response {
    let private = context.auth().is_private();
    let (role, of) = match access(request.method(), route.as_str()) {
        Change(role, of) => (role, of),
        Read(of) if private => (Role::Reader, of),
        Read(of) if of != Of::Everything => {
            let seen = Seen { asker: Asker::of(&context, &request), of, parts: parts(&params) };
            let response = http::until(next.run(request).await, seen.ended());
            return unshared(response, false, &visitor);
        }
        Open | Own | Read(_) => return unshared(next.run(request).await, false, &visitor),
    };
    let admitted = async {
        // Compared with the roles, and told to nobody.
        let everything = context.seen_with(Sight::Everything);
        if visitor.depends_on_place(role)
            && let Some(place) = place(&everything, of, &parts(&params)).await?
        {
            request.extensions_mut().insert(place);
        }
        visitor.needs(role, request.extensions().get::<Place>()).map(|_| ())
    };
    let response = match admitted.await {
        Ok(()) if private => {
            let place = request.extensions().get().cloned();
            let still = Still { asker: Asker::of(&context, &request), place, role };
            http::until(next.run(request).await, still.ended())
        }
        Ok(()) => next.run(request).await,
        Err(refusal) => web::refusal(request.method(), request.uri(), request.headers(), refusal),
    };
    unshared(response, private, &visitor)
}

/// How often it is checked that the reader of a stream may still read.
const CHECK_PAUSE: Duration = Duration::from_secs(30);

/// The credentials of a stream's reader.
struct Asker {
    context: Context,
    headers: HeaderMap,
    arrived: Option<Arrived>,
}

impl Asker {
    fn of(context: &Context, request: &Request) -> Self {
        let mut headers = HeaderMap::new();
        for name in [header::AUTHORIZATION, header::COOKIE] {
            if let Some(value) = request.headers().get(&name) {
                headers.insert(name, value.clone());
            }
        }
        let arrived = request.extensions().get().cloned();
        Self { context: context.clone(), headers, arrived }
    }

    /// Whose the credentials are after a while.
    async fn later(&self) -> Visitor {
        tokio::time::sleep(CHECK_PAUSE).await;
        let Some(arrived) = &self.arrived else { return Visitor::Nobody };
        self.context.auth().visitor(&Method::GET, &self.headers, arrived).await
    }
}

/// What shows that the reader of a stream on a private server may still read.
struct Still {
    asker: Asker,
    place: Option<Place>,
    role: Role,
}

impl Still {
    /// Resolves when the credentials have ended, or their owner has lost the role.
    async fn ended(self) {
        loop {
            match self.asker.later().await {
                // Asked again: the database may be locked for a while.
                Visitor::Unknown => {}
                visitor if visitor.needs(self.role, self.place.as_ref()).is_ok() => {}
                _ => return,
            }
        }
    }
}

/// What shows that what a stream is about is not hidden from its reader.
struct Seen {
    asker: Asker,
    of: Of,
    parts: Parts,
}

impl Seen {
    /// Resolves when it is hidden: its specification has become private, or the reader has lost the role in it.
    async fn ended(self) {
        let Self { asker, of, parts } = self;
        loop {
            let visitor = asker.later().await;
            if visitor == Visitor::Unknown {
                continue;
            }
            let seen = asker.context.seen_with(visitor.sight());
            let everything = asker.context.seen_with(Sight::Everything);
            // What was deleted meanwhile may be read to its end.
            if matches!(place(&seen, of, &parts).await, Ok(None))
                && matches!(place(&everything, of, &parts).await, Ok(Some(_)))
            {
                return;
            }
        }
    }
}

/// Keeps an answer that is not for everybody out of caches that several people share.
fn unshared(mut response: Response, private: bool, visitor: &Visitor) -> Response {
    if private || visitor.principal().is_some() {
        let headers = response.headers_mut();
        let usual = headers.get(header::CACHE_CONTROL).is_none_or(|value| value == "no-cache");
        if usual {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        }
    }
    response
}

/// The variable parts of a path, by their names.
type Parts = Vec<(String, String)>;

fn parts(params: &std::result::Result<RawPathParams, RawPathParamsRejection>) -> Parts {
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    params.as_ref().map(|params| params.iter().map(owned).collect()).unwrap_or_default()
}

/// The specification that a request is about, as its sender may see it; `None`: it is about everything, or about
/// something that is not there.
async fn place(context: &Reading, of: Of, parts: &[(String, String)]) -> Result<Option<Place>> {
    let value = |name: &str| {
        let mut found = parts.iter().filter(|(of, _)| *of == name);
        found.next().map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let read = |(project, specification)| Place { project, specification };
    let found = match of {
        Of::Everything => return Ok(None),
        Of::Build => {
            let id = value("id");
            let found = context.read_few(move |s| visible::build_named(s, &id)).await?;
            found.map(|build| (build.project, build.specification))
        }
        Of::Evaluation => {
            let Ok(id) = value("id").parse::<EvaluationId>() else { return Ok(None) };
            let found = context.read_few(move |s| {
                let Some(found) = visible::evaluation(s, id)? else { return Ok(None) };
                let project = visible::project_of(s, &found.specification)?;
                Ok(project.map(|project| (project, found.specification)))
            });
            found.await?
        }
        Of::Product => {
            let Ok(id) = value("product").parse::<ProductId>() else { return Ok(None) };
            let found = context.read_few(move |s| match visible::product(s, id)? {
                Some(product) => visible::build(s, product.build),
                None => Ok(None),
            });
            found.await?.map(|build| (build.project, build.specification))
        }
        Of::Jobset => {
            let (project, name) = (value("project"), value("jobset"));
            let asked = name.clone();
            let found = context.read_few(move |s| visible::project_of(s, &asked)).await?;
            found.filter(|found| *found == project).map(|project| (project, name))
        }
        Of::Specification => {
            let name = value("name");
            let asked = name.clone();
            let project = context.read_few(move |s| visible::project_of(s, &asked)).await?;
            project.map(|project| (project, name))
        }
    };
    Ok(found.map(read))
}

#[cfg(test)]
mod tests;
