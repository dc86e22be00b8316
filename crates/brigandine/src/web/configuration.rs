//! `/configuration`: the settings that the server uses, and how the files differ from them.

use askama::Template;
use axum::response::Response;

use super::layout::{Layout, or_refusal, render};
use super::view::{self, Moment};
use crate::context::Reading;
use crate::http::Result;
use crate::model::{self, Setting};
use crate::store::visible;

#[derive(Template)]
#[template(path = "configuration.html")]
struct Page {
    layout: Layout,
    /// The configuration file; empty: there is none.
    file: String,
    /// Why the files cannot be used as they are now; empty: they can.
    problem: Vec<String>,
    /// How the files differ.
    differing: Vec<Setting>,
    settings: Vec<Setting>,
    /// How specification files differ from what is stored.
    unused: Vec<String>,
    /// The last reload; `None`: there was none.
    reload: Option<Done>,
}

/// A reload that was done.
struct Done {
    at: Moment,
    sentences: Vec<String>,
}

pub(super) async fn page(context: Reading) -> Response {
    or_refusal(&context, make(&context).await).await
}

async fn make(context: &Reading) -> Result<Response> {
    let now = model::now();
    let found = context.configuration().await?;
    let reading = context.clone();
    let read = context.read(move |s| Ok((visible::queue_counts(s)?, reading.unused(s)?)));
    let (queue, unused) = read.await?;
    let reload = found.reload.as_ref().and_then(|reload| {
        Some(Done { at: view::moment(reload.at, now)?, sentences: reload.sentences() })
    });
    let page = Page {
        layout: Layout {
            title: "Configuration · Brigandine".to_owned(),
            section: "",
            queue,
            live: String::new(),
            notice: context.health().notice(),
        },
        file: found.file,
        problem: found.problem.lines().map(str::to_owned).collect(),
        differing: found.settings.iter().filter(|it| it.file.is_some()).cloned().collect(),
        settings: found.settings,
        unused: unused.iter().map(model::Unused::sentences).collect(),
        reload,
    };
    render(&page)
}
