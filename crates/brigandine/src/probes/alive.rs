//! `/healthz`: the process answers. It says nothing else, so that a supervisor does not restart a server that waits for
//! a locked database or a full disk.

use axum::http::StatusCode;
use axum::response::Response;

use crate::http::{not_kept, text};

/// Always 200.
pub(super) async fn answer() -> Response {
    not_kept(text(StatusCode::OK, "ok\n"))
}
