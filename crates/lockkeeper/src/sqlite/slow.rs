//! The slow log: which calls were slow, the work that they did because an index was missing, and the plan of their last
//! statement.

use std::cell::Cell;
use std::time::Duration;

use super::link::Link;
use super::words::{has_plan, without_separators};
use crate::config::Config;
use crate::queue::shielded;
use crate::stats::holders::Holder;
use crate::stats::{Slow, Work};

/// The most lines of a query plan in a report.
const PLAN_MAX: usize = 16;

/// Reports the call that has just run on `link` to the slow log, if it was slow. Returns whether it reported the call;
/// then the caller must not count the time of the report as running time of a call.
pub(crate) fn report(config: &Config, link: &Link, waited: Duration, ran: Duration) -> bool {
    let Some((threshold, tell)) = &config.on_slow else { return false };
    if waited < *threshold && ran < *threshold {
        return false;
    }
    // Answered callers are woken first, because the callback may take long.
    link.callbacks.wakeups.wake_all();
    let Some(Holder { kind, client, place, sql, .. }) = link.callbacks.slot.call() else {
        return false;
    };
    let work = link.work.as_ref().map(Cell::get).unwrap_or_default();
    let plan = match sql.is_some() && work != Work::default() {
        true => plan_of_last(link).unwrap_or_default(),
        false => Vec::new(),
    };
    let slow = Slow { kind, client, place, waited, ran, sql, work, plan };
    #[cfg(feature = "tracing")]
    tracing::warn!(target: "lockkeeper::slow", "{slow}");
    shielded(|| (tell.f)(&slow));
    true
}

/// The query plan of the last statement that was prepared on `link`.
fn plan_of_last(link: &Link) -> rusqlite::Result<Vec<String>> {
    let sql = link.last_sql.borrow();
    if !has_plan(&sql) {
        return Ok(Vec::new());
    }
    // `EXPLAIN` before a semicolon would be a statement by itself.
    let sql = without_separators(&sql);
    let mut plan = link.session.conn().prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
    let mut rows = plan.raw_query();
    let mut lines = Vec::new();
    while let Some(row) = rows.next()?
        && lines.len() < PLAN_MAX
    {
        lines.push(row.get("detail")?);
    }
    Ok(lines)
}
