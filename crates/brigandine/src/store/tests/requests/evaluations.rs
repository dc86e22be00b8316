//! What each change does to an evaluation, and what becomes of builds that several evaluations want.

use super::*;
use crate::model::Counts;

/// Asks for a change of an evaluation.
async fn ask_of(database: &Database, change: Change, evaluation: i64) -> Outcome {
    let target = Target::Evaluation(EvaluationId::new(evaluation));
    ask(database, change, vec![target]).await.remove(0)
}

const fn many(changed: usize, ending: usize, left: usize) -> Outcome {
    Outcome::Many(Counts { changed, ending, left })
}

/// The state of an evaluation of `base` and of `top`, which needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Evaluating,
    Pending,
    Succeeded,
    Failed,
}

#[tokio::test]
async fn a_change_of_an_evaluation_does_what_the_table_says_and_is_audited_if_it_was_made() {
    use Change::{Bump, Cancel, Comment, Keep, Release, Restart};
    use Stage::{Evaluating, Failed, Pending, Succeeded};
    let (no, over) = ("no build in evaluation 1 is ", "evaluation 1 has ended already");
    for (change, stage, outcome) in [
        (Cancel, Evaluating, Ok(many(0, 0, 0))),
        (Cancel, Pending, Ok(many(2, 0, 0))),
        (Cancel, Succeeded, Err(over)),
        (Cancel, Failed, Err(over)),
        (Restart, Evaluating, Err(no)),
        (Restart, Pending, Err(no)),
        (Restart, Succeeded, Err(no)),
        (Restart, Failed, Ok(many(2, 0, 0))),
        (Bump, Evaluating, Err(no)),
        (Bump, Pending, Ok(many(2, 0, 0))),
        (Bump, Succeeded, Err(no)),
        (Bump, Failed, Err(no)),
        (Keep, Evaluating, Ok(Outcome::Done(0))),
        (Keep, Pending, Ok(Outcome::Done(0))),
        (Keep, Succeeded, Ok(Outcome::Done(0))),
        (Keep, Failed, Ok(Outcome::Done(0))),
        (Release, Evaluating, Err("nobody keeps evaluation 1")),
        (Release, Pending, Err("nobody keeps evaluation 1")),
        (Release, Succeeded, Err("nobody keeps evaluation 1")),
        (Release, Failed, Err("nobody keeps evaluation 1")),
        (Comment, Evaluating, Ok(Outcome::Done(0))),
        (Comment, Pending, Ok(Outcome::Done(0))),
        (Comment, Succeeded, Ok(Outcome::Done(0))),
        (Comment, Failed, Ok(Outcome::Done(0))),
    ] {
        let what = format!("{change:?} {stage:?}");
        let database = empty().await;
        match stage {
            Evaluating => begin(&database, 1).await,
            stage => {
                evaluate(&database, 1, &[("base", &[]), ("top", &[0])]).await;
                if stage == Failed {
                    end_next(&database, BuildStatus::Failed).await;
                }
                if stage == Succeeded {
                    end_next(&database, BuildStatus::Succeeded).await;
                    end_next(&database, BuildStatus::Succeeded).await;
                }
            }
        }
        let found = ask_of(&database, change, 1).await;
        match &outcome {
            Ok(outcome) => assert_eq!(found, *outcome, "{what}"),
            Err(why) => assert!(
                matches!(&found, Outcome::Refused(said) if said.starts_with(why)),
                "{what}: {found:?}"
            ),
        }
        let rows = database.read(|s| audit(s, &AuditFilter::default(), 10)).await.expect("reads");
        assert_eq!(rows.len(), usize::from(outcome.is_ok()), "{what}: {rows:?}");
        assert_eq!(ask_of(&database, change, 99).await, Outcome::Missing, "{what}");
        check_counters(&database).await;
        database.close().await.expect("closes");
    }
}

async fn statuses(database: &Database) -> Vec<i64> {
    let all = |s: &Snapshot| {
        s.prepare("SELECT status FROM build ORDER BY id")?
            .query_map([], |row| row.get(0))?
            .collect()
    };
    database.read(all).await.expect("reads")
}

async fn one(database: &Database, id: i64) -> crate::model::Evaluation {
    let id = EvaluationId::new(id);
    database.read(move |s| evaluation(s, id)).await.expect("reads").expect("there")
}

#[tokio::test]
async fn a_build_that_another_evaluation_wants_is_not_canceled_with_one() {
    let database = evaluated().await;
    evaluate(&database, 2, &[("base", &[]), ("other", &[0])]).await;
    assert_eq!(ask_of(&database, Change::Cancel, 1).await, many(1, 0, 1));
    assert_eq!(statuses(&database).await, [-2, 4, -2], "`base` is wanted");
    assert!(one(&database, 1).await.withdrawn && !one(&database, 2).await.withdrawn);
    assert_eq!(ask_of(&database, Change::Cancel, 2).await, many(2, 0, 0));
    assert_eq!(statuses(&database).await, [4, 4, 4], "nothing failed because of a cancel");
    check_counters(&database).await;
    // Nobody has canceled the builds themselves, so new evaluations have builds of their own.
    evaluate(&database, 3, &[("base", &[])]).await;
    assert_eq!(statuses(&database).await, [4, 4, 4, -2]);
    // Somebody wants a build of it again, and so the evaluation.
    let restarted = ask(&database, Change::Restart, vec![Target::Build(BuildId::new(1))]).await;
    assert_eq!(restarted, [Outcome::Done(1)]);
    assert!(!one(&database, 1).await.withdrawn && !one(&database, 2).await.withdrawn);
    // It waits beside another build of the same derivation; one of them runs for both.
    end_next(&database, Succeeded).await;
    assert_eq!(statuses(&database).await, [0, 4, 4, 0]);
    check_counters(&database).await;
    let none = database.read(|s| latest_finished_evaluation(s, SpecificationId::new(1)));
    assert_eq!(none.await.expect("reads"), Some(EvaluationId::new(3)), "1 and 2 are not complete");
    database.close().await.expect("closes");
}

#[tokio::test]
async fn a_running_build_that_is_wanted_again_before_it_has_ended_is_built_once_more() {
    for again in [false, true] {
        let database = evaluated().await;
        let claimed = write(&database, |tx| claim_for(tx, "s", 1, 5)).await.remove(0);
        assert_eq!(ask_of(&database, Change::Cancel, 1).await, many(1, 1, 0));
        assert_eq!(statuses(&database).await, [-1, 4]);
        if again {
            evaluate(&database, 2, &[("base", &[])]).await;
        }
        let end = Finish {
            id: claimed.changed.id,
            attempt: claimed.attempt,
            status: Canceled,
            message: "canceled on request".to_owned(),
            stopped_at: 9,
            log: BuildLogFile::default(),
            outputs: Vec::new(),
            products: Vec::new(),
        };
        write(&database, move |tx| finish(tx, &end)).await;
        let found = database.read(|s| build(s, BuildId::new(1))).await.expect("reads");
        let found = found.expect("there");
        let wanted = if again {
            (Scheduled, "canceled, and wanted again")
        } else {
            (Canceled, "canceled with evaluation 1")
        };
        assert_eq!((found.status, &*found.message), wanted);
        check_counters(&database).await;
        database.close().await.expect("closes");
    }
}

#[tokio::test]
async fn newer_revisions_supersede_older_ones_and_are_superseded_when_the_branch_is_set_back() {
    let database = evaluated().await;
    evaluate(&database, 2, &[("base", &[]), ("kept", &[0])]).await;
    assert_eq!(ask_of(&database, Change::Keep, 2).await, Outcome::Done(0));
    evaluate(&database, 3, &[("base", &[]), ("new", &[0])]).await;
    let current = async |id: i64| {
        let id = EvaluationId::new(id);
        let rest = write(&database, move |tx| {
            let mut rest: Vec<Rest> = take_up_again(tx, id, 9)?.into_iter().collect();
            rest.extend(supersede(tx, id, 9)?);
            Ok(rest)
        });
        for rest in rest.await {
            finish_rest(&database, rest, &|_| ()).await.expect("it is done");
        }
        check_counters(&database).await;
        statuses(&database).await
    };
    assert_eq!(current(3).await, [-2, 4, -2, -2], "only `top` is of 1 alone; 2 is kept");
    let first = one(&database, 1).await;
    assert_eq!((first.withdrawn, first.successor), (true, Some(EvaluationId::new(3))));
    assert_eq!(current(1).await, [-2, -2, -2, 4], "set back");
    let (first, third) = (one(&database, 1).await, one(&database, 3).await);
    assert_eq!((first.withdrawn, third.successor), (false, Some(EvaluationId::new(1))));
    assert_eq!(current(1).await, [-2, -2, -2, 4], "nothing is new");
    let rows = database.read(|s| audit(s, &AuditFilter::default(), 10)).await.expect("reads");
    let by: Vec<_> = rows.iter().map(|row| (&*row.actor, &*row.change)).collect();
    assert_eq!(
        by,
        [
            ("the server", "supersede"),
            ("the server", "restart"),
            ("the server", "supersede"),
            ("alice", "keep")
        ]
    );
    database.close().await.expect("closes");
}

#[tokio::test]
async fn what_a_killed_server_left_of_an_evaluation_is_found_again() {
    let database = evaluated().await;
    let asked = Asked::new(Actor::new("alice"), 9, "");
    let target = [Target::Evaluation(EvaluationId::new(1))];
    // The first write is committed, and the server is killed before the next.
    write(&database, move |tx| request(tx, Change::Cancel, &target, &asked)).await;
    assert_eq!(statuses(&database).await, [-2, -2]);
    let left = database.read(|s| unfinished(s, EvaluationId::new(0), 9)).await.expect("reads");
    assert_eq!(left.len(), 1);
    for (id, rest) in left {
        assert_eq!(id.get(), 1);
        finish_rest(&database, rest, &|_| ()).await.expect("it is done");
    }
    assert_eq!(statuses(&database).await, [4, 4]);
    let none = database.read(|s| unfinished(s, EvaluationId::new(0), 9)).await.expect("reads");
    assert!(none.is_empty(), "{none:?}");
    database.close().await.expect("closes");
}

#[tokio::test]
async fn an_evaluation_that_was_canceled_before_it_had_jobs_is_evaluated_again_only_when_asked() {
    let database = empty().await;
    begin(&database, 1).await;
    assert_eq!(ask_of(&database, Change::Cancel, 1).await, many(0, 0, 0));
    let again =
        |tx: &Transaction| begin_evaluation(tx, SpecificationId::new(1), "stamp 1", &[], "", 9);
    let id = EvaluationId::new(1);
    let known = Begun::Known(id, crate::model::EvaluationStatus::Aborted);
    assert_eq!(write(&database, again).await, known);
    assert_eq!(ask_of(&database, Change::Restart, 1).await, many(0, 0, 0));
    assert_eq!(write(&database, again).await, Begun::Again(id));
    database.close().await.expect("closes");
}

#[tokio::test]
async fn a_kept_evaluation_is_not_deleted_and_one_that_is_being_deleted_is_not_kept() {
    let database = empty().await;
    for id in 1..=4 {
        evaluate(&database, id, &[("base", &[])]).await;
    }
    end_next(&database, Succeeded).await;
    assert_eq!(ask_of(&database, Change::Keep, 1).await, Outcome::Done(0));
    let rule = crate::model::Keep { evaluations: Some(1), days: None };
    let found = async || {
        let due = database.read(move |s| due(s, rule, 99)).await.expect("reads").remove(0);
        due.evaluations.iter().map(|id| id.get()).collect::<Vec<_>>()
    };
    assert_eq!(found().await, [2, 3]);
    assert!(!write(&database, |tx| mark(tx, EvaluationId::new(1))).await);
    assert!(write(&database, |tx| mark(tx, EvaluationId::new(2))).await);
    let refused = ask_of(&database, Change::Keep, 2).await;
    assert!(matches!(refused, Outcome::Refused(why) if why.contains("being deleted")));
    assert_eq!(ask_of(&database, Change::Release, 1).await, Outcome::Done(0));
    assert_eq!(found().await, [1, 2, 3]);
    database.close().await.expect("closes");
}

#[tokio::test]
async fn what_is_put_in_front_is_next_with_what_it_needs_and_the_last_one_first() {
    let database = empty().await;
    evaluate(&database, 1, &[("a", &[]), ("b", &[]), ("c", &[1]), ("d", &[])]).await;
    let bump = |id| Target::Build(BuildId::new(id));
    assert_eq!(ask(&database, Change::Bump, vec![bump(3)]).await, [Outcome::Done(0)]);
    assert_eq!(ask(&database, Change::Bump, vec![bump(4)]).await, [Outcome::Done(0)]);
    let mut order = Vec::new();
    while let Some(next) = write(&database, |tx| claim_for(tx, "s", 1, 5)).await.pop() {
        order.push(next.changed.job.clone());
        let end = Finish {
            id: next.changed.id,
            attempt: next.attempt,
            status: Succeeded,
            message: String::new(),
            stopped_at: 6,
            log: BuildLogFile::default(),
            outputs: Vec::new(),
            products: Vec::new(),
        };
        write(&database, move |tx| finish(tx, &end)).await;
    }
    assert_eq!(order, ["d", "b", "c", "a"]);
    database.close().await.expect("closes");
}

#[tokio::test]
async fn a_specification_is_enabled_and_disabled_and_its_definition_stays() {
    let database = empty().await;
    let sample = || vec![Target::Specification("sample".to_owned())];
    for (change, enabled) in [(Change::Disable, false), (Change::Enable, true)] {
        assert_eq!(ask(&database, change, sample()).await, [Outcome::Done(0)]);
        let found =
            database.read(|s| crate::store::specification(s, "sample")).await.expect("reads");
        let found = found.expect("there").specification;
        assert_eq!(found, Specification { enabled, ..specification("sample") });
        let again = ask(&database, change, sample()).await;
        assert!(matches!(&again[..], [Outcome::Refused(_)]), "{again:?}");
    }
    let none = vec![Target::Specification("none".to_owned())];
    assert_eq!(ask(&database, Change::Disable, none).await, [Outcome::Missing]);
    database.close().await.expect("closes");
}
