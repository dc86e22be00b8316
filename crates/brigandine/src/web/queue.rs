//! `/queue`: what runs and what waits, in the order it is taken.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::{BuildRow, Layout, Parts, or_refusal, render, view};
use crate::http::{Result, Site};
use crate::model::{self, BuildFilter};
use crate::store;

/// Builds on the page; the counters say how many more there are.
const ROWS: u32 = 200;

#[derive(Template)]
#[template(path = "queue.html")]
struct Page {
    layout: Layout,
    rows: Vec<BuildRow>,
    /// Pending builds that are not shown.
    more: String,
}

pub(super) async fn page(State(site): Parts) -> Response {
    or_refusal(&site, make(&site).await).await
}

async fn make(site: &Site) -> Result<Response> {
    let now = model::now();
    let page = site
        .read(move |s| {
            let queue = store::queue_counts(s)?;
            let builds = store::queue(s, &BuildFilter::default(), ROWS)?;
            let more = queue.started + queue.scheduled - i64::try_from(builds.len()).unwrap_or(0);
            Ok(Page {
                layout: Layout {
                    title: "Queue · Brigandine".to_owned(),
                    section: "queue",
                    queue,
                    live: "/live".to_owned(),
                },
                rows: builds.into_iter().map(|build| BuildRow::new(build, now)).collect(),
                more: if more > 0 { view::count(more, "more build") } else { String::new() },
            })
        })
        .await?;
    render(&page)
}
