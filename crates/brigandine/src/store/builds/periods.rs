//! How many builds ended in each hour or day.

use super::list::{By, List, choose, conditions, per_specification};
use crate::model::{BuildFilter, Timestamp};
use crate::store::database::Snapshot;
use crate::store::hidden::Hidden;
use crate::store::query::Query;
use std::collections::BTreeMap;

/// The most pairs of a specification and a period that are counted for one answer.
const COUNTED_MAX: usize = 20_000;

/// The number of finished builds in each period of `seconds`, for the last `limit` periods in which builds ended, the
/// oldest first, without those of hidden specifications. The filter must not name an evaluation or a derivation, whose builds are few.
///
/// The builds of a period are counted in an index, or, if the filter has several fields, in the rows that one index finds.
/// The next period is found there too, so empty periods cost nothing. If the builds of many specifications are counted,
/// the answer has fewer periods ([`COUNTED_MAX`]).
pub(crate) fn ended_per_period(
    s: &Snapshot,
    filter: &BuildFilter,
    hidden: &Hidden,
    seconds: i64,
    limit: u32,
) -> rusqlite::Result<Vec<i64>> {
    let filters = per_specification(s, filter, hidden, List::Latest)?;
    let filters = filters.unwrap_or_else(|| vec![filter.clone()]);
    let periods_max = u32::try_from(COUNTED_MAX / filters.len().max(1)).unwrap_or(u32::MAX).max(1);
    let limit = limit.min(periods_max);
    let mut periods: BTreeMap<Timestamp, i64> = BTreeMap::new();
    for filter in filters {
        let Some(by) = choose(s, &filter, List::Latest)? else { continue };
        let mut end = Timestamp::MAX;
        for _ in 0..limit {
            let Some(last) = last_stop(s, &filter, hidden, by, end)? else { break };
            let start = last - last.rem_euclid(seconds);
            *periods.entry(start).or_default() += ended(s, &filter, hidden, by, start, end)?;
            end = start;
        }
    }
    let too_many = periods.len().saturating_sub(limit as usize);
    Ok(periods.into_values().skip(too_many).collect())
}

/// When the last build before `end` stopped.
fn last_stop(
    s: &Snapshot,
    filter: &BuildFilter,
    hidden: &Hidden,
    by: By,
    end: Timestamp,
) -> rusqlite::Result<Option<Timestamp>> {
    let index = by.index(List::Latest);
    let mut sql = format!("SELECT b.stopped_at FROM build AS b INDEXED BY {index} WHERE ");
    let mut values = conditions(filter, hidden, List::Latest, &mut sql);
    sql.push_str(" AND b.stopped_at < ? ORDER BY b.stopped_at DESC LIMIT 1");
    values.push(end.into());
    s.value(&sql, rusqlite::params_from_iter(values))
}

/// How many builds stopped from `start` on and before `end`.
fn ended(
    s: &Snapshot,
    filter: &BuildFilter,
    hidden: &Hidden,
    by: By,
    start: Timestamp,
    end: Timestamp,
) -> rusqlite::Result<i64> {
    let index = by.index(List::Latest);
    let mut sql = format!("SELECT count(*) FROM build AS b INDEXED BY {index} WHERE ");
    let mut values = conditions(filter, hidden, List::Latest, &mut sql);
    sql.push_str(" AND b.stopped_at >= ? AND b.stopped_at < ?");
    values.extend([start.into(), end.into()]);
    s.query_row(&sql, rusqlite::params_from_iter(values), |row| row.get(0))
}
