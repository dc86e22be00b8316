//! `/search`: builds that fit every word, and the specifications, evaluations and jobs that the words name.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;

use super::layout::{Layout, or_refusal, render_as};
use super::rows::BuildRow;
use super::view::{self, Badge, Moment};
use crate::context::Reading;
use crate::http::{Query, Result};
use crate::model::{self, Build, BuildId, Checkout, EvaluationId, Search, Timestamp};
use crate::store::{SearchBorder, SearchStep, Visible, visible};

/// How far a page looks.
const STEP: SearchStep = SearchStep { rows: 50, looked_at: 2000 };
/// The most specifications and evaluations on a page.
const NAMED: usize = 20;

#[derive(Template, Default)]
#[template(path = "search.html")]
struct Page {
    layout: Layout,
    query: String,
    /// Why the text is no search; empty: it is one.
    error: String,
    /// Names of specifications.
    specifications: Vec<String>,
    evaluations: Vec<Evaluated>,
    /// Builds that the text names.
    named: Vec<BuildRow>,
    /// Jobs with the texts: the address, the specification and the name.
    jobs: Vec<(String, String, String)>,
    rows: Vec<BuildRow>,
    /// The sentence that stands for builds when there are none; empty: nothing was looked for.
    none: &'static str,
    /// The address of the next step of the search; `None`: there is nothing more.
    next: Option<String>,
}

/// An evaluation.
struct Evaluated {
    id: EvaluationId,
    specification: String,
    badge: Badge,
    checkouts: Vec<Checkout>,
    created: Option<Moment>,
}

/// The page of a search.
pub(crate) async fn page(context: Reading, query: Query) -> Response {
    or_refusal(&context, make(&context, &query).await).await
}

async fn make(context: &Reading, query: &Query) -> Result<Response> {
    let text = query.get("query").unwrap_or_default();
    let after = query.parsed::<Timestamp>("at")?.zip(query.parsed::<BuildId>("build")?);
    let (search, error) = match text.parse::<Search>() {
        Ok(search) => (search, String::new()),
        Err(error) => (Search::default(), error),
    };
    let (now, notice) = (model::now(), context.health().notice());
    let asked = Asked { text, search, after, now };
    let page = context.read(move |s| asked.read(s, &notice)).await?;
    let status = if error.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    render_as(status, &Page { error, ..page })
}

/// What a request asks for.
struct Asked {
    text: String,
    search: Search,
    /// Behind which place the page begins; `None`: it is the first page.
    after: Option<SearchBorder>,
    now: Timestamp,
}

impl Asked {
    fn read(&self, s: &Visible<'_>, notice: &str) -> rusqlite::Result<Page> {
        let mut page = Page {
            layout: Layout {
                title: "Search · Brigandine".to_owned(),
                section: "search",
                queue: visible::queue_counts(s)?,
                live: String::new(),
                notice: notice.to_owned(),
            },
            query: self.text.clone(),
            ..Page::default()
        };
        if self.search.is_empty() {
            return Ok(page);
        }
        let found = visible::search_builds(s, &self.search, self.after, STEP)?;
        if self.after.is_none() {
            self.names(s, &mut page)?;
            let link = |(specification, job): (String, String)| {
                (view::job_page(&specification, &job), specification, job)
            };
            page.jobs = found.jobs.into_iter().map(link).collect();
        }
        page.none = match (found.next, found.one_by_one) {
            (Some(_), true) => {
                "None of the builds that were looked at fits. There are too many jobs to find the text among their names \
                 at once: name the specification with spec:, or the whole job with job:."
            }
            (Some(_), false) => "None of the builds that were looked at fits.",
            (None, _) => "No build fits.",
        };
        page.rows = self.rows(found.builds);
        page.next = found.next.map(|(at, id)| {
            format!("/search?query={}&at={at}&build={id}", view::encode(&self.text))
        });
        Ok(page)
    }

    fn rows(&self, builds: Vec<Build>) -> Vec<BuildRow> {
        builds.into_iter().map(|build| BuildRow::new(build, self.now)).collect()
    }

    /// Reads what the text names: specifications, evaluations and builds.
    fn names(&self, s: &Visible<'_>, page: &mut Page) -> rusqlite::Result<()> {
        let mut evaluations = visible::search_evaluations(s, &self.search)?;
        evaluations.truncate(NAMED);
        let text = self.text.trim();
        if let Ok(number) = text.trim_start_matches('#').parse::<i64>() {
            evaluations.insert(0, EvaluationId::new(number));
            page.named = self.rows(visible::build(s, BuildId::new(number))?.into_iter().collect());
        } else if text.ends_with(".drv") {
            let name = text.rsplit('/').next().unwrap_or_default();
            page.named = self.rows(visible::build_named(s, name)?.into_iter().collect());
        }
        for id in evaluations {
            let Some(found) = visible::evaluation(s, id)? else { continue };
            page.evaluations.push(Evaluated {
                id,
                badge: view::evaluation_badge(&found),
                specification: found.specification,
                checkouts: visible::checkouts(s, id)?,
                created: view::moment(found.created_at, self.now),
            });
        }
        let only_texts = Search { texts: self.search.texts.clone(), ..Search::default() };
        if self.search == only_texts {
            let has_all = |name: &String| {
                let name = name.to_lowercase();
                only_texts.texts.iter().all(|text| name.contains(text))
            };
            let names = visible::active_names(s)?.into_iter();
            page.specifications = names.filter(has_all).take(NAMED).collect();
        }
        Ok(())
    }
}

impl Evaluated {
    /// The revisions with their subjects and authors.
    fn revisions(&self) -> Vec<(&str, &str, &str)> {
        let all = self.checkouts.iter();
        all.map(|it| (view::short(&it.revision), &*it.subject, &*it.author)).collect()
    }
}
