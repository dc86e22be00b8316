//! `/jobset/NAME/grid`: how the jobs of a specification did, evaluation by evaluation.

use askama::Template;
use axum::response::Response;

use super::layout::{Layout, or_refusal, render};
use super::view::{self, Badge};
use crate::context::Reading;
use crate::http::{HttpError, Path, Query, Result};
use crate::model::{BuildId, BuildStatus, EvaluationId};
use crate::store::{Grid, GridCell, GridFilter, Visible, visible};

/// The number of evaluations on a page.
const EVALUATIONS: u32 = 30;
/// The number of jobs on a page.
const JOBS: u32 = 50;
/// The value of `only` in an address that asks for failing jobs.
const FAILING: &str = "failing";

#[derive(Template)]
#[template(path = "grid.html")]
struct Page {
    layout: Layout,
    specification: String,
    /// Which jobs are shown.
    about: String,
    failing: bool,
    /// The addresses of the grid of all jobs and of the one of failing jobs.
    all: String,
    only: String,
    columns: Vec<Column>,
    rows: Vec<Row>,
    /// The addresses of the neighbouring pages; `None`: there is no such page.
    newer: Option<String>,
    older: Option<String>,
    before: Option<String>,
    after: Option<String>,
}

/// An evaluation.
struct Column {
    id: EvaluationId,
    /// The revision and subject of the first checkout.
    title: String,
}

/// A job.
struct Row {
    job: String,
    address: String,
    cells: Vec<Option<Cell>>,
}

/// The build of a job in an evaluation.
struct Cell {
    id: BuildId,
    badge: Badge,
}

pub(super) async fn page(context: Reading, Path(name): Path<String>, query: Query) -> Response {
    or_refusal(&context, make(&context, name, &query).await).await
}

async fn make(context: &Reading, name: String, query: &Query) -> Result<Response> {
    let failing = match query.get("only").as_deref() {
        None => false,
        Some(FAILING) => true,
        Some(_) => return Err(HttpError::BadRequest("`only` may be `failing`".to_owned())),
    };
    let filter = GridFilter {
        until: query.parsed("until")?,
        failing,
        after: query.get("after"),
        before: query.get("before"),
        evaluations: EVALUATIONS,
        jobs: JOBS,
    };
    let (wanted, notice) = (name.clone(), context.health().notice());
    let read = move |s: &Visible<'_>| read(s, &wanted, &filter, &notice);
    let page = context.read(read).await?;
    render(&page.ok_or_else(|| HttpError::no_specification(&name))?)
}

fn read(
    s: &Visible<'_>,
    name: &str,
    filter: &GridFilter,
    notice: &str,
) -> rusqlite::Result<Option<Page>> {
    let Some(state) = visible::specification(s, name)? else { return Ok(None) };
    let mut columns = Vec::new();
    let grid = visible::grid(s, state.id, filter)?;
    for id in &grid.evaluations {
        let title = match visible::checkouts(s, *id)?.first() {
            Some(first) => format!("{} {}", view::short(&first.revision), first.subject),
            None => String::new(),
        };
        columns.push(Column { id: *id, title });
    }
    let failing = filter.failing;
    let row = |(job, cells): &(String, Vec<GridCell>)| Row {
        address: view::job_page(name, job),
        job: job.clone(),
        cells: cells.iter().map(|cell| cell.map(of_build)).collect(),
    };
    let border = |side, row: Option<&(String, Vec<GridCell>)>| {
        row.map(|(job, _)| address(name, filter.until, failing, Some((side, job.as_str()))))
    };
    Ok(Some(Page {
        layout: Layout {
            title: format!("Jobs of {name} · Brigandine"),
            section: "overview",
            queue: visible::queue_counts(s)?,
            live: format!("/live?specification={}", state.id),
            notice: notice.to_owned(),
        },
        about: about(&grid, failing),
        failing,
        all: address(name, filter.until, false, None),
        only: address(name, filter.until, true, None),
        newer: grid.newer.map(|id| address(name, Some(id), failing, None)),
        older: grid.older.map(|id| address(name, Some(id), failing, None)),
        before: border("before", grid.rows.first().filter(|_| grid.has_before)),
        after: border("after", grid.rows.last().filter(|_| grid.has_after)),
        rows: grid.rows.iter().map(row).collect(),
        columns,
        specification: name.to_owned(),
    }))
}

fn of_build((id, status): (BuildId, BuildStatus)) -> Cell {
    Cell { id, badge: view::build_badge(status) }
}

/// Which jobs a page shows, as a sentence.
fn about(grid: &Grid, failing: bool) -> String {
    if !failing {
        return "Jobs by name, and their builds in each evaluation, the latest first.".to_owned();
    }
    let numbers: Vec<String> = grid.failing_in.iter().map(|id| format!("#{id}")).collect();
    format!("Jobs that fail in {}, and their builds in each evaluation.", numbers.join(" or "))
}

/// The address of a part of the grid. `border`: the job at which it begins or ends, and on which side of the part it is.
fn address(
    name: &str,
    until: Option<EvaluationId>,
    failing: bool,
    border: Option<(&str, &str)>,
) -> String {
    let mut parts = Vec::new();
    if failing {
        parts.push(format!("only={FAILING}"));
    }
    parts.extend(until.map(|id| format!("until={id}")));
    parts.extend(border.map(|(side, job)| format!("{side}={}", view::encode(job))));
    let query = if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) };
    format!("/jobset/{name}/grid{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_keeps_what_was_chosen() {
        let until = Some(EvaluationId::new(7));
        assert_eq!(address("x", None, false, None), "/jobset/x/grid");
        assert_eq!(address("x", until, true, None), "/jobset/x/grid?only=failing&until=7");
        let next = address("x", until, false, Some(("after", "ü/&")));
        assert_eq!(next, "/jobset/x/grid?until=7&after=%C3%BC%2F%26");
    }
}
