//! `/api/openapi.json`: the document that describes the API.

use std::sync::Arc;

use axum::extract::Extension;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value};

use crate::context::Context;
use crate::http::json;
use crate::openapi::{Described, Dialect, Document, Operation};

pub(super) fn routes() -> Described<Context> {
    let operation = Operation::new(Dialect::Own, "This document")
        .json::<Map<String, Value>>(200, "A document of OpenAPI 3.1.")
        .open();
    Described::new().get("/api/openapi.json", document, operation)
}

async fn document(Extension(document): Extension<Arc<Document>>) -> Response {
    json(StatusCode::OK, document.value())
}
