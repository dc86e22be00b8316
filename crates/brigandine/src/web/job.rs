//! `/job/NAME/JOB`: the history of a job of a specification, evaluation by evaluation, and how reliable the job is.

use askama::Template;
use axum::response::Response;
use serde::Deserialize;

use super::layout::{Layout, or_refusal, render};
use super::past::Past;
use super::plot::Plot;
use super::rows::{BuildRow, SQUARE, Square};
use super::view::{self, Badge};
use crate::context::Reading;
use crate::http::{HttpError, Path, Query, Result};
use crate::model::{self, Build, BuildId, EvaluationId, JobPast, JobRates, Timestamp};
use crate::store::{Visible, visible};

/// The number of evaluations on a page.
const ROWS: usize = 60;

#[derive(Template)]
#[template(path = "job.html")]
struct Page {
    layout: Layout,
    specification: String,
    job: String,
    /// The address of the page, without a query.
    address: String,
    /// The state of the job in the latest evaluation on the page; `None`: no evaluation on the page has it.
    state: Option<Badge>,
    rates: JobRates,
    /// Since when the job fails; `None`: it does not fail, or an older page says it.
    past: Option<Past>,
    /// The builds, the oldest first.
    strip: Vec<Square<BuildId>>,
    /// The width of the strip and of the plots, in pixels.
    width: usize,
    plots: Vec<Plot>,
    rows: Vec<Row>,
    /// Whether this is the page of the latest evaluations.
    is_first: bool,
    /// Where the next page begins; `None`: there is none.
    older: Option<EvaluationId>,
}

struct Row {
    evaluation: EvaluationId,
    row: BuildRow,
    /// Whether the build's derivation both succeeded and failed.
    flaky: bool,
}

impl Page {
    /// How many builds were rated.
    fn rated(&self) -> i64 {
        self.rates.succeeded + self.rates.failed
    }

    /// `95 of 100 builds`
    fn of_builds(&self) -> String {
        let all = view::count(self.rated(), "build");
        format!("{} of {all}", view::number(self.rates.succeeded))
    }

    /// `95 %`
    fn success(&self) -> String {
        percent(self.rates.succeeded, self.rated())
    }

    /// `3 %`
    fn flaky(&self) -> String {
        percent(self.rates.flaky.len() as i64, self.rates.derivations)
    }

    /// `the last 100 evaluations`
    fn looked_at(&self) -> String {
        match self.rates.evaluations {
            1 => "the only evaluation".to_owned(),
            all => format!("the last {}", view::count(all, "evaluation")),
        }
    }
}

/// A part in hundredths, rounded so that only none is 0 % and only all are 100 %; empty: there is no whole.
fn percent(part: i64, whole: i64) -> String {
    if whole == 0 {
        return String::new();
    }
    let rounded = (100 * part + whole / 2) / whole;
    let bounded = if part == 0 || part == whole { rounded } else { rounded.clamp(1, 99) };
    format!("{bounded} %")
}

/// The variable parts of the address.
#[derive(Deserialize)]
pub(super) struct Parts {
    name: String,
    job: String,
}

pub(super) async fn page(context: Reading, Path(parts): Path<Parts>, query: Query) -> Response {
    or_refusal(&context, make(&context, parts, &query).await).await
}

/// What a page is made of.
struct Found {
    builds: Vec<JobPast>,
    /// How many bytes the products of each build have, in the order of `builds`.
    sizes: Vec<i64>,
    older: Option<EvaluationId>,
    rates: JobRates,
    past: Option<Past>,
    layout: Layout,
}

impl Found {
    fn read(
        s: &Visible<'_>,
        (name, job): (&str, &str),
        before: Option<EvaluationId>,
        notice: &str,
    ) -> rusqlite::Result<Option<Self>> {
        let Some(state) = visible::specification(s, name)? else { return Ok(None) };
        let begin = before.unwrap_or(EvaluationId::new(i64::MAX));
        let (builds, older) = visible::job_past(s, state.id, job, begin, ROWS)?;
        let ids: Vec<BuildId> = builds.iter().map(|past| past.build.id).collect();
        let products = visible::products(s, &ids)?;
        let bytes = |id: &BuildId| {
            let all = products.get(id).into_iter().flatten();
            all.fold(0, |sum: i64, product| sum.saturating_add(product.bytes))
        };
        Ok(Some(Self {
            sizes: ids.iter().map(bytes).collect(),
            rates: visible::job_rates(s, state.id, job)?,
            past: match failing(&builds).filter(|_| before.is_none()) {
                Some(build) => {
                    let mut past = Past::read(s, build)?;
                    // The page is about the job, so the first failure is named as others are.
                    if let Some(broken) = &mut past.broken {
                        broken.is_here = false;
                    }
                    Some(past)
                }
                None => None,
            },
            layout: Layout {
                title: format!("{job} of {name} · Brigandine"),
                section: "overview",
                queue: visible::queue_counts(s)?,
                live: format!("/live?specification={}", state.id),
                notice: notice.to_owned(),
            },
            builds,
            older,
        }))
    }
}

/// The latest build that succeeded or failed, if it failed.
fn failing(builds: &[JobPast]) -> Option<&Build> {
    let ended = |build: &&Build| build.status.is_success() || build.status.is_broken();
    let latest = builds.iter().map(|past| &past.build).find(ended);
    latest.filter(|build| build.status.is_broken())
}

async fn make(context: &Reading, parts: Parts, query: &Query) -> Result<Response> {
    let Parts { name, job } = parts;
    let (now, notice) = (model::now(), context.health().notice());
    let before: Option<EvaluationId> = query.parsed("before")?;
    let (wanted, of) = (name.clone(), job.clone());
    let read = move |s: &Visible<'_>| Found::read(s, (&wanted, &of), before, &notice);
    let found = context.read_few(read).await?;
    let found = found.ok_or_else(|| HttpError::no_specification(&name))?;
    if found.builds.is_empty() && found.older.is_none() && before.is_none() {
        return Err(HttpError::no_job(&name, &job));
    }
    render(&page_of(found, (name, job), before.is_none(), now))
}

fn page_of(found: Found, (name, job): (String, String), is_first: bool, now: Timestamp) -> Page {
    let Found { builds, sizes, older, rates, past, layout } = found;
    let square = |(at, past): (usize, &JobPast)| Square {
        id: past.build.id,
        badge: view::build_badge(past.build.status),
        x: at * SQUARE,
        current: false,
    };
    let strip: Vec<Square<BuildId>> = builds.iter().rev().enumerate().map(square).collect();
    let plots = plots(&builds, &sizes);
    let row = |past: JobPast| Row {
        evaluation: past.evaluation,
        flaky: rates.flaky.contains(&past.build.derivation),
        row: BuildRow { reused: past.reused, ..BuildRow::new(past.build, now) },
    };
    let rows: Vec<Row> = builds.into_iter().map(row).collect();
    Page {
        layout,
        state: rows.first().map(|one| one.row.badge),
        address: view::job_page(&name, &job),
        specification: name,
        job,
        rates,
        past,
        width: (strip.len() * SQUARE).max(SQUARE) - 2,
        strip,
        plots,
        rows,
        is_first,
        older,
    }
}

/// How long each build took, and how much it made. A re-used build stands where it is the oldest.
fn plots(builds: &[JobPast], sizes: &[i64]) -> Vec<Plot> {
    let seconds = |past: &JobPast| {
        let build = &past.build;
        let ran = build.status.is_finished() && build.started_at > 0;
        (ran && !past.reused).then(|| (build.stopped_at - build.started_at).max(0))
    };
    let of = |past: &JobPast, value: Option<i64>| {
        value.map(|value| (value, view::build_badge(past.build.status), past.build.id))
    };
    let took: Vec<_> = builds.iter().rev().map(|past| of(past, seconds(past))).collect();
    let made = builds.iter().zip(sizes).rev();
    let made: Vec<_> = made
        .map(|(past, bytes)| of(past, (*bytes > 0 && !past.reused).then_some(*bytes)))
        .collect();
    let plots = [
        Plot::new("How long they took", &took, model::duration),
        Plot::new("The size of their products", &made, view::bytes),
    ];
    plots.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_none_is_nothing_and_only_all_are_all() {
        for (part, whole, wanted) in [
            (0, 0, ""),
            (0, 1000, "0 %"),
            (1, 1000, "1 %"),
            (999, 1000, "99 %"),
            (1000, 1000, "100 %"),
            (1, 2, "50 %"),
            (2, 3, "67 %"),
        ] {
            assert_eq!(percent(part, whole), wanted);
        }
    }
}
