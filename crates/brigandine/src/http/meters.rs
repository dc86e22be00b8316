//! What the web server counts: answers by route and status, and how long it took to begin each of them.
//!
//! A route is the pattern of its path, such as `/build/{id}`, so there are only as many labels as routes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;

use super::clients::Clients;
use crate::measure::{Histogram, Kind, Text};

const BOUNDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// The route of requests for which there is none, or that were refused before their route was known.
const NO_ROUTE: &str = "(none)";

/// What the web server has answered.
#[derive(Debug, Default)]
pub(crate) struct HttpMeters {
    /// Bounded by the routes. Guard: the mutex.
    routes: Mutex<HashMap<String, RouteMeter>>,
    /// The connections; set once, when the server starts.
    clients: OnceLock<Arc<Clients>>,
}

#[derive(Debug)]
struct RouteMeter {
    /// Bounded by the status codes that the server uses.
    statuses: BTreeMap<u16, u64>,
    times: Histogram,
}

impl HttpMeters {
    /// Notes whose connections are counted.
    pub(super) fn watch(&self, clients: &Arc<Clients>) {
        let _ = self.clients.set(Arc::clone(clients));
    }

    /// Counts an answer whose making took `time`; of a stream, until its first piece was asked for.
    pub(super) fn answered(&self, response: &Response, time: Duration) {
        let route = response.extensions().get::<Route>().map(|Route(path)| path.as_str());
        self.count(route.unwrap_or(NO_ROUTE), response.status(), Some(time));
    }

    /// Counts a connection that was refused.
    pub(super) fn refused(&self, status: StatusCode) {
        // Nothing was asked for, so there is no time that the answer took.
        self.count(NO_ROUTE, status, None);
    }

    fn count(&self, route: &str, status: StatusCode, time: Option<Duration>) {
        let mut routes = self.routes();
        let meter = match routes.get_mut(route) {
            Some(meter) => meter,
            None => routes.entry(route.to_owned()).or_insert_with(|| RouteMeter {
                statuses: BTreeMap::new(),
                times: Histogram::new(BOUNDS),
            }),
        };
        *meter.statuses.entry(status.as_u16()).or_default() += 1;
        if let Some(time) = time {
            meter.times.record(time);
        }
    }

    fn routes(&self) -> MutexGuard<'_, HashMap<String, RouteMeter>> {
        // Each change under the lock is a single addition, so the poison is ignored.
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the figures.
    pub(crate) fn write(&self, text: &mut Text) {
        let routes = self.routes();
        let mut sorted: Vec<_> = routes.iter().collect();
        sorted.sort_unstable_by_key(|(route, _)| *route);
        let help = "Requests that were answered, by the pattern of their path";
        let mut family = text.family("brigandine_http_requests_total", Kind::Counter, help);
        for (route, meter) in &sorted {
            for (status, count) in &meter.statuses {
                family.sample(&[("route", route), ("status", &status.to_string())], count);
            }
        }
        let help = "From the head of a request to the head of its answer";
        let name = "brigandine_http_request_duration_seconds";
        let mut family = text.family(name, Kind::Histogram, help);
        for (route, meter) in &sorted {
            family.histogram(&[("route", route)], &meter.times);
        }
        drop(routes);
        let (connections, streams, bytes) =
            self.clients.get().map_or((0, 0, 0), |clients| clients.held());
        for (name, help, value) in [
            ("brigandine_http_connections", "Open connections", connections),
            ("brigandine_http_streams", "Answers that continue, such as followed logs", streams),
            (
                "brigandine_http_unsent_bytes",
                "Bytes of answers that are made and not sent yet",
                bytes,
            ),
        ] {
            text.one(name, Kind::Gauge, help, value);
        }
    }
}

/// The route of an answer, for [`HttpMeters::answered`].
#[derive(Debug, Clone)]
struct Route(MatchedPath);

/// A layer over routes that notes in each answer which route made it.
pub(crate) async fn note_route(path: MatchedPath, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.extensions_mut().insert(Route(path));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_connection_is_counted_and_took_no_time() {
        let meters = HttpMeters::default();
        meters.refused(StatusCode::TOO_MANY_REQUESTS);
        let mut text = Text::default();
        meters.write(&mut text);
        let text = text.end();
        for line in [
            "brigandine_http_requests_total{route=\"(none)\",status=\"429\"} 1\n",
            "brigandine_http_request_duration_seconds_count{route=\"(none)\"} 0\n",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
    }
}
