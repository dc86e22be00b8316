//! The part of an evaluation's page that compares its jobs with those of another evaluation.

use super::rows::BuildRow;
use super::view::{self, Badge};
use crate::model::{BuildId, ComparedJob, EvaluationId, JobChange, Timestamp};
use crate::store::{ComparedList, Comparison, Visible, visible};

/// How many failing jobs the first page of an evaluation shows of each kind, in front of all jobs.
pub(super) const FIRST: u32 = 10;

/// The comparison with another evaluation.
#[derive(Default)]
pub(super) struct ComparisonPart {
    /// The other evaluation; `None`: there is none.
    pub(super) other: Option<EvaluationId>,
    /// The other evaluation as the address names it; empty: the one before is meant.
    pub(super) asked: String,
    /// Links to the jobs that differ, for each way. Empty: there is nothing to compare.
    pub(super) tabs: Vec<Tab>,
    /// Whether the jobs were compared, and none differs or fails.
    pub(super) equal: bool,
    /// The failing jobs, newly failing ones first.
    pub(super) failing: Vec<Failing>,
}

/// A link to the jobs that differ in one way.
pub(super) struct Tab {
    pub(super) badge: Badge,
    /// How many jobs there are; empty: they were not counted.
    pub(super) number: String,
    pub(super) href: String,
    pub(super) chosen: bool,
}

/// Failing jobs of one kind.
pub(super) struct Failing {
    pub(super) badge: Badge,
    pub(super) rows: Vec<ComparedRow>,
    /// Where all of them are listed; empty: these are all.
    pub(super) all: String,
    /// How many there are.
    pub(super) number: String,
}

/// A job beside its build in the other evaluation.
pub(super) struct ComparedRow {
    pub(super) row: BuildRow,
    pub(super) removed: bool,
    /// The build in the other evaluation, unless both have the same.
    pub(super) before: Option<(BuildId, Badge)>,
}

/// What a page needs for its links to lists of jobs.
#[derive(Debug, Clone)]
pub(super) struct Links {
    pub(super) id: EvaluationId,
    /// The other evaluation as the address names it.
    pub(super) compare: String,
    pub(super) text: String,
}

impl Links {
    /// The address of a list of jobs. `own` are further parameters, of which those without a value are left out.
    pub(super) fn to(&self, own: &[(&str, &str)]) -> String {
        let shared = [("compare", &*self.compare), ("text", &*self.text)];
        let parts: Vec<String> = shared
            .iter()
            .chain(own)
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{name}={}", view::encode(value)))
            .collect();
        let query = parts.join("&");
        format!("/eval/{}{}{query}", self.id, if query.is_empty() { "" } else { "?" })
    }
}

impl ComparisonPart {
    /// Links without numbers, for a page that has not compared anything.
    pub(super) fn links(links: &Links, other: EvaluationId) -> Self {
        let tabs = JobChange::ALL.map(|change| tab(links, change, None, None));
        Self {
            other: Some(other),
            asked: links.compare.clone(),
            tabs: tabs.into(),
            ..Self::default()
        }
    }

    /// The part of a page that lists the jobs of `chosen`; `None`: the page lists all jobs, and the failing ones before.
    pub(super) fn new(
        s: &Visible<'_>,
        links: &Links,
        other: EvaluationId,
        chosen: Option<JobChange>,
        comparison: &mut Comparison,
        now: Timestamp,
    ) -> rusqlite::Result<Self> {
        let has_any = |change: &JobChange| comparison.count(*change) > 0 || chosen == Some(*change);
        let tabs: Vec<Tab> = JobChange::ALL
            .into_iter()
            .filter(has_any)
            .map(|change| tab(links, change, Some(comparison.count(change)), chosen))
            .collect();
        let mut failing = Vec::new();
        let kinds = [JobChange::NewlyFailing, JobChange::StillFailing];
        for change in kinds.into_iter().filter(|_| chosen.is_none()) {
            let list = comparison.take(change);
            if list.jobs.is_empty() {
                continue;
            }
            let all =
                if list.has_after { links.to(&[("tab", change.as_str())]) } else { String::new() };
            failing.push(Failing {
                badge: view::change_badge(change),
                number: view::number(comparison.count(change)),
                rows: rows(s, list, now)?,
                all,
            });
        }
        let equal = tabs.is_empty();
        Ok(Self { other: Some(other), asked: links.compare.clone(), tabs, equal, failing })
    }
}

fn tab(links: &Links, change: JobChange, count: Option<i64>, chosen: Option<JobChange>) -> Tab {
    Tab {
        badge: view::change_badge(change),
        number: count.map(view::number).unwrap_or_default(),
        href: links.to(&[("tab", change.as_str())]),
        chosen: chosen == Some(change),
    }
}

/// The rows of a list, with their builds.
pub(super) fn rows(
    s: &Visible<'_>,
    list: ComparedList,
    now: Timestamp,
) -> rusqlite::Result<Vec<ComparedRow>> {
    let mut rows = Vec::new();
    for ComparedJob { name, build, removed, before, .. } in list.jobs {
        // A job refers to its build, so the build is there.
        let Some(found) = visible::build(s, build)? else { continue };
        let before = before.filter(|(other, _)| *other != build);
        rows.push(ComparedRow {
            // The job's name in this evaluation. Another one may have registered the build under another name.
            row: BuildRow { job: name, ..BuildRow::new(found, now) },
            removed,
            before: before.map(|(other, status)| (other, view::build_badge(status))),
        });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_has_the_parameters_that_have_a_value() {
        let links = |compare: &str, text: &str| Links {
            id: EvaluationId::new(7),
            compare: compare.to_owned(),
            text: text.to_owned(),
        };
        assert_eq!(links("", "").to(&[("tab", "")]), "/eval/7");
        assert_eq!(links("", "").to(&[("tab", "new")]), "/eval/7?tab=new");
        let link = links("#1", "a&b").to(&[("after", "ü"), ("build", "3")]);
        assert_eq!(link, "/eval/7?compare=%231&text=a%26b&after=%C3%BC&build=3");
    }
}
