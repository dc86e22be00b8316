//! Calls every function of the store about jobs.

use super::*;
use crate::store::visible::{
    active_names, build_ids, grid, job_builds, job_page, job_past, job_rates, latest_of_job,
    search_builds, search_evaluations,
};

pub(super) fn ask_for_jobs(s: &Visible<'_>) -> rusqlite::Result<()> {
    for latest in [Latest::Ended, Latest::Succeeded, Latest::SucceededInFinished] {
        latest_of_job(s, SpecificationId::new(2), "job7", None, latest)?;
        latest_of_job(s, SpecificationId::new(2), "job7", Some("system1"), latest)?;
    }
    job_past(s, SpecificationId::new(2), "job7", EVALUATION, 10)?;
    job_past(s, SpecificationId::new(2), "job7", EvaluationId::new(45), 3)?;
    job_rates(s, SpecificationId::new(2), "job7")?;
    for failing in [false, true] {
        for (after, before) in [(None, None), (Some("job5"), None), (None, Some("job5"))] {
            let filter = GridFilter {
                until: Some(EvaluationId::new(45)),
                failing,
                after: after.map(str::to_owned),
                before: before.map(str::to_owned),
                evaluations: 5,
                jobs: 7,
            };
            assert!(!grid(s, SpecificationId::new(2), &filter)?.rows.is_empty());
        }
    }
    for text in [
        "",
        "spec:spec2",
        "job:job7",
        "job:job7 spec:spec2",
        "system:system1",
        "status:failed",
        "status:queued",
        "author:a",
        "author:a spec:spec2",
        "ob",
        "ob7 spec:spec2",
        "öb7",
        "abcdef0",
    ] {
        let search: crate::model::Search = text.parse().expect("a search");
        for after in [None, Some((2500, BUILD))] {
            search_builds(s, &search, after, SearchStep { rows: 10, looked_at: 100 })?;
        }
        search_evaluations(s, &search)?;
    }
    active_names(s)?;
    build_ids(s, EVALUATION, 10)?;
    job_builds(s, EVALUATION, &[], None, 10)?;
    job_builds(s, EVALUATION, &["job7".to_owned()], Some("system1"), 10)?;
    for border in [None, Some(("job5".to_owned(), BUILD))] {
        for text in [String::new(), "ob".to_owned()] {
            for statuses in [Vec::new(), vec![BuildStatus::Failed, BuildStatus::Succeeded]] {
                let after = JobFilter {
                    statuses: statuses.clone(),
                    text: text.clone(),
                    after: border.clone(),
                    before: None,
                };
                let before = JobFilter { after: None, before: border.clone(), ..after.clone() };
                job_page(s, EVALUATION, &after, 10)?;
                job_page(s, EVALUATION, &before, 10)?;
            }
        }
    }
    Ok(())
}
