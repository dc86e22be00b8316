//! `/queue`: the running and waiting builds, in the scheduler's order, and why they wait.

use askama::Template;
use axum::response::Response;

use super::layout::{Layout, or_refusal, render};
use super::rows::BuildRow;
use super::view;
use crate::context::Reading;
use crate::http::Result;
use crate::model::{self, Build};
use crate::store::{Pending, Visible, WholeQueue, visible};

/// The most builds on the page. The page says how many more there are.
const ROWS: u32 = 200;

#[derive(Template)]
#[template(path = "queue.html")]
struct Page {
    layout: Layout,
    parts: [Part; 4],
    /// A text that says how many pending builds are not shown.
    more: String,
    /// A sentence that says how much of the disk the server keeps free.
    reserve: String,
}

/// Builds that are pending for the same reason.
struct Part {
    title: &'static str,
    about: &'static str,
    rows: Vec<BuildRow>,
}

impl Page {
    fn is_empty(&self) -> bool {
        self.parts.iter().all(|part| part.rows.is_empty())
    }
}

pub(super) async fn page(context: Reading) -> Response {
    or_refusal(&context, make(&context).await).await
}

async fn make(context: &Reading) -> Result<Response> {
    let now = model::now();
    let systems = context.systems().to_vec();
    let read = move |s: &Visible<'_>| {
        Ok((visible::queue_counts(s)?, visible::whole_queue(s, &systems, ROWS)?))
    };
    let (queue, whole) = context.read(read).await?;
    let plain = |builds: Vec<Build>| -> Vec<_> {
        builds.into_iter().map(|build| BuildRow::new(build, now)).collect()
    };
    let pending = |builds: Vec<Pending>| -> Vec<_> {
        let row = |it: Pending| BuildRow {
            needs: it.needs,
            twin: it.twin,
            ..BuildRow::new(it.build, now)
        };
        builds.into_iter().map(row).collect()
    };
    let WholeQueue { running, ready, waiting, foreign } = whole;
    let parts = [
        Part { title: "Running", about: "", rows: plain(running) },
        Part { title: "Next", about: "Started in this order as builds end.", rows: pending(ready) },
        Part {
            title: "Waiting for other builds",
            about: "Each joins the list above when the builds that it needs have succeeded.",
            rows: pending(waiting),
        },
        Part {
            title: "Not built by this server",
            about: "Imported, or for a system that this server does not build for.",
            rows: plain(foreign),
        },
    ];
    let shown: usize = parts.iter().map(|part| part.rows.len()).sum();
    let more = queue.started + queue.scheduled - i64::try_from(shown).unwrap_or(0);
    let page = Page {
        layout: Layout {
            title: "Queue · Brigandine".to_owned(),
            section: "queue",
            queue,
            live: "/live".to_owned(),
            notice: context.health().notice(),
        },
        parts,
        reserve: context.health().reserve(),
        more: if more > 0 { view::count(more, "more build") } else { String::new() },
    };
    render(&page)
}
