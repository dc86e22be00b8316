//! What requests ask for, each function of `visible` once.

use super::{BUILD, EVALUATION, filters, jobs};
use crate::model::{
    AuditFilter, BuildFilter, BuildId, BuildStatus, EvaluationId, JobChange, ProductId,
    SpecificationId,
};
use crate::store::visible::{
    ahead, audit, build, build_details, build_named, builds_of_output, checkouts, compare,
    ended_per_period, evaluation, evaluation_details, evaluation_ids, evaluation_page,
    evaluation_states, evaluations, evaluations_of_build, evaluations_of_project, figures,
    job_history, job_page, latest_builds, latest_finished_evaluation, needs, other_evaluation,
    outputs, pending_builds, predecessor, product, products, project_of, queue, queue_counts,
    running_twin, specification, specification_by_id, specifications, surroundings, whole_queue,
};
use crate::store::{ComparisonFilter, JobFilter, Visible};

/// A build of the specification that becomes private, and the evaluation of another one that has it.
const LENT: BuildId = BuildId::new(320);
const OF_LENT: EvaluationId = EvaluationId::new(4);

/// Asks for everything.
pub(super) fn ask(s: &Visible<'_>) -> rusqlite::Result<()> {
    ask_for_builds(s)?;
    jobs::ask_for_jobs(s)?;
    job_page(s, OF_LENT, &JobFilter::default(), 10)?;
    ask_for_evaluations(s)
}

fn ask_for_builds(s: &Visible<'_>) -> rusqlite::Result<()> {
    for filter in filters() {
        latest_builds(s, &filter, 10)?;
        queue(s, &filter, 10)?;
        let pending = BuildFilter { status: Some(BuildStatus::Scheduled), ..filter.clone() };
        queue(s, &pending, 10)?;
        whole_queue(s, &["system1".to_owned(), "system2".to_owned()], 10)?;
        if (filter.evaluation, &filter.derivation) == (None, &None) {
            ended_per_period(s, &filter, 3600, 3)?;
        }
    }
    let latest = latest_builds(s, &BuildFilter::default(), 50)?;
    assert_eq!(latest.len(), 50);
    let ids: Vec<_> = latest.iter().map(|build| build.id).collect();
    assert_eq!(outputs(s, &ids)?.len(), 50);
    products(s, &ids)?;
    product(s, ProductId::new(10))?;
    build(s, BUILD)?;
    build_named(s, "107.drv")?;
    build_details(s, BUILD)?;
    build_details(s, LENT)?.expect("it is shown");
    for id in [BUILD, BuildId::new(4980)] {
        let build = build(s, id)?.expect("it is there");
        surroundings(s, &build)?;
        predecessor(s, &build, BuildId::new(7))?;
        ahead(s, &build, &["system1".to_owned()])?;
        running_twin(s, &build)?;
    }
    evaluations_of_build(s, BUILD, 10)?;
    builds_of_output(s, "outputs/x", 10)?;
    needs(s, BUILD, 10)?;
    job_history(s, "spec2", "job7", 24)?;
    queue_counts(s)?;
    pending_builds(s, "main")?;
    Ok(())
}

fn ask_for_evaluations(s: &Visible<'_>) -> rusqlite::Result<()> {
    evaluation(s, EVALUATION)?;
    evaluation_details(s, EVALUATION)?;
    evaluations(s, None, 10)?;
    evaluations(s, Some("spec2"), 10)?;
    evaluations_of_project(s, "main", 10)?;
    project_of(s, "spec2")?;
    evaluation_states(s, SpecificationId::new(2), 10)?;
    evaluation_page(s, "spec2", Some(EVALUATION), None, 10)?;
    evaluation_page(s, "spec2", None, Some(EVALUATION), 10)?;
    evaluation_ids(s, SpecificationId::new(2), 10)?;
    latest_finished_evaluation(s, SpecificationId::new(2))?;
    checkouts(s, EVALUATION)?;
    let (fifth, first) = (EvaluationId::new(5), EvaluationId::new(1));
    compare(s, fifth, first, &ComparisonFilter::one(JobChange::Fixed, 10))?;
    let of = evaluation(s, fifth)?.expect("the fifth");
    other_evaluation(s, &of, "1")?;
    other_evaluation(s, &of, "abcd")?;
    figures(s)?;
    specifications(s)?;
    specification(s, "spec2")?;
    specification_by_id(s, SpecificationId::new(2))?;
    for bits in 0..8_u8 {
        let has = |bit: u8| bits & bit != 0;
        let filter = AuditFilter {
            build: has(1).then_some(BUILD),
            evaluation: has(2).then_some(EVALUATION),
            specification: has(4).then(|| "spec2".to_owned()),
            before: None,
        };
        audit(s, &filter, 10)?;
    }
    Ok(())
}
