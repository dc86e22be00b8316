//! What the server answers to programs, described for machines (OpenAPI 3.1). A route is stated together with its
//! description, so that neither can be without the other.
//!
//! The document is not made before the first request for it. Its schemas come from the types in `wire/`, by schemars.

mod document;
mod operation;

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodRouter, delete, get, post, put};

pub(crate) use document::Document;
use operation::Stated;
pub(crate) use operation::{Dialect, Kind, Operation, Parameter};

/// Routes and their descriptions.
pub(crate) struct Described<S> {
    router: Router<S>,
    stated: Vec<Stated>,
}

impl<S: Clone + Send + Sync + 'static> Described<S> {
    /// No routes.
    pub(crate) fn new() -> Self {
        Self { router: Router::new(), stated: Vec::new() }
    }

    /// Adds a route for `GET`, which answers `HEAD` too.
    pub(crate) fn get<H, T>(self, path: &str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.on(Method::GET, path, get(handler), operation)
    }

    /// Adds a route for `POST`.
    pub(crate) fn post<H, T>(self, path: &str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.on(Method::POST, path, post(handler), operation)
    }

    /// Adds a route for `PUT`.
    pub(crate) fn put<H, T>(self, path: &str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.on(Method::PUT, path, put(handler), operation)
    }

    /// Adds a route for `DELETE`.
    pub(crate) fn delete<H, T>(self, path: &str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.on(Method::DELETE, path, delete(handler), operation)
    }

    fn on(
        mut self,
        method: Method,
        path: &str,
        handler: MethodRouter<S>,
        operation: Operation,
    ) -> Self {
        self.router = self.router.route(path, handler);
        self.stated.push(Stated { method, path: path.to_owned(), operation });
        self
    }

    /// Adds the routes of `other`.
    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.stated.extend(other.stated);
        self
    }

    /// The router, and the document that describes it.
    pub(crate) fn into_parts(self) -> (Router<S>, Document) {
        (self.router, Document::new(self.stated))
    }
}
