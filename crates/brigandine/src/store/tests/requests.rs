//! What each change does to a build in each state, and that exactly the changes that were made are in the audit.

mod evaluations;

use super::*;
use crate::model::{Actor, Asked, AuditFilter, Change, Outcome, Target};

/// The state of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Scheduled,
    Started,
    Ended(BuildStatus),
    Missing,
}

/// What a change is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    /// The build has this status afterwards.
    Make(BuildStatus),
    /// The attempt is asked to end.
    Ask,
    /// Something else than the status.
    Note,
    /// Nothing, and the text says why.
    Refuse(&'static str),
    Miss,
}

use BuildStatus::{Canceled, Failed, FailedDependency, FailedOther, Scheduled, Succeeded};
use Does::{Ask, Make, Miss, Note, Refuse};

/// The table at the top of `store/requests.rs`.
const TABLE: &[(Change, Of, Does)] = &[
    (Change::Cancel, Of::Scheduled, Make(Canceled)),
    (Change::Cancel, Of::Started, Ask),
    (Change::Cancel, Of::Ended(Succeeded), Refuse("has ended already: succeeded")),
    (Change::Cancel, Of::Ended(Failed), Refuse("has ended already: failed")),
    (Change::Cancel, Of::Ended(FailedDependency), Refuse("ended already: failed-dependency")),
    (Change::Cancel, Of::Ended(FailedOther), Refuse("has ended already: failed-other")),
    (Change::Cancel, Of::Ended(Canceled), Refuse("has ended already: canceled")),
    (Change::Cancel, Of::Missing, Miss),
    (Change::Restart, Of::Scheduled, Refuse("is scheduled already")),
    (Change::Restart, Of::Started, Refuse("is started already")),
    (Change::Restart, Of::Ended(Succeeded), Refuse("is not built again")),
    (Change::Restart, Of::Ended(Failed), Make(Scheduled)),
    (Change::Restart, Of::Ended(FailedDependency), Refuse("which failed; restart that")),
    (Change::Restart, Of::Ended(FailedOther), Make(Scheduled)),
    (Change::Restart, Of::Ended(Canceled), Make(Scheduled)),
    (Change::Restart, Of::Missing, Miss),
    (Change::Bump, Of::Scheduled, Note),
    (Change::Bump, Of::Started, Refuse("runs already")),
    (Change::Bump, Of::Ended(Succeeded), Refuse("has ended already: succeeded")),
    (Change::Bump, Of::Ended(Failed), Refuse("has ended already: failed")),
    (Change::Bump, Of::Ended(FailedDependency), Refuse("has ended already: failed-dependency")),
    (Change::Bump, Of::Ended(FailedOther), Refuse("has ended already: failed-other")),
    (Change::Bump, Of::Ended(Canceled), Refuse("has ended already: canceled")),
    (Change::Bump, Of::Missing, Miss),
    (Change::Comment, Of::Scheduled, Note),
    (Change::Comment, Of::Started, Note),
    (Change::Comment, Of::Ended(Succeeded), Note),
    (Change::Comment, Of::Ended(Failed), Note),
    (Change::Comment, Of::Ended(FailedDependency), Note),
    (Change::Comment, Of::Ended(FailedOther), Note),
    (Change::Comment, Of::Ended(Canceled), Note),
    (Change::Comment, Of::Missing, Miss),
];

/// A database with the specification 1.
async fn empty() -> Database {
    let database = with_rows("").await;
    let stored = specification("sample");
    write(&database, move |tx| put_specification(tx, &stored, false, 1)).await;
    database
}

/// A database with an evaluation of the jobs `base` (build 1) and `top` (build 2), which needs it.
async fn evaluated() -> Database {
    let database = empty().await;
    evaluate(&database, 1, &[("base", &[]), ("top", &[0])]).await;
    database
}

/// Begins an evaluation of specification 1.
async fn begin(database: &Database, evaluation: i64) {
    let begun = write(database, move |tx| {
        let (of, stamp) = (SpecificationId::new(1), format!("stamp {evaluation}"));
        begin_evaluation(tx, of, &stamp, &[], "", evaluation)
    });
    assert_eq!(begun.await, Begun::New(EvaluationId::new(evaluation)));
}

/// Registers an evaluation of specification 1 with these jobs, each with the places of those that it needs.
async fn evaluate(database: &Database, evaluation: i64, jobs: &[(&'static str, &[usize])]) {
    let jobs: Vec<NewJob> = jobs
        .iter()
        .map(|(name, needs)| NewJob {
            name: (*name).to_owned(),
            derivation: format!("{name}.drv"),
            system: "s".to_owned(),
            nix_name: (*name).to_owned(),
            priority: 0,
            timeout_s: 0,
            max_silent_s: 0,
            definition: Some("{}".to_owned()),
            needs: needs.iter().map(|place| (format!("n{place}"), *place)).collect(),
        })
        .collect();
    begin(database, evaluation).await;
    let id = EvaluationId::new(evaluation);
    let registered = write(database, move |tx| register(tx, id, &jobs, "", "", evaluation));
    registered.await.expect("registered");
}

/// Ends the only build that can be started.
async fn end_next(database: &Database, status: BuildStatus) {
    write(database, move |tx| {
        let claimed = claim_for(tx, "s", 1, 5)?.remove(0);
        let end = Finish {
            id: claimed.changed.id,
            attempt: claimed.attempt,
            status,
            message: String::new(),
            stopped_at: 6,
            log: BuildLogFile::default(),
            outputs: Vec::new(),
            products: Vec::new(),
        };
        finish(tx, &end)
    })
    .await;
}

/// Asks for a change of these targets.
async fn ask(database: &Database, change: Change, targets: Vec<Target>) -> Vec<Outcome> {
    let asked = Asked::new(Actor::new("alice"), 9, "a test");
    let done = carry_out(database, change, targets, asked, &|_| ()).await.expect("it is asked for");
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Every evaluation's counters are those of its builds.
async fn check_counters(database: &Database) {
    let wrong: Vec<i64> = write(database, |tx| {
        let sql = "SELECT e.id FROM evaluation AS e WHERE
             (scheduled, started, succeeded, failed, failed_dependency, failed_other, canceled)
             IS NOT (SELECT ifnull(sum(b.status = -2), 0), ifnull(sum(b.status = -1), 0),
               ifnull(sum(b.status = 0), 0), ifnull(sum(b.status = 1), 0), ifnull(sum(b.status = 2), 0),
               ifnull(sum(b.status = 3), 0), ifnull(sum(b.status = 4), 0)
               FROM job AS j JOIN build AS b ON b.id = j.build_id WHERE j.evaluation_id = e.id)";
        tx.prepare_cached(sql)?.query_map([], |row| row.get(0))?.collect()
    })
    .await;
    assert_eq!(wrong, [0; 0], "evaluations whose counters are wrong");
}

/// A database, and a build of it that is in this state.
async fn with(state: Of) -> (Database, BuildId) {
    let database = evaluated().await;
    match state {
        Of::Scheduled | Of::Missing => {}
        Of::Started => {
            write(&database, |tx| claim_for(tx, "s", 1, 5)).await;
        }
        Of::Ended(FailedDependency) => end_next(&database, Failed).await,
        Of::Ended(status) => end_next(&database, status).await,
    }
    let id = match state {
        Of::Ended(FailedDependency) => 2,
        Of::Missing => 99,
        _ => 1,
    };
    (database, BuildId::new(id))
}

#[tokio::test]
async fn a_change_of_a_build_does_what_the_table_says_and_is_audited_if_it_was_made() {
    let states: Vec<Of> = [Of::Scheduled, Of::Started, Of::Missing]
        .into_iter()
        .chain(BuildStatus::ALL.iter().filter(|s| s.is_finished()).map(|s| Of::Ended(*s)))
        .collect();
    for change in [Change::Cancel, Change::Restart, Change::Bump, Change::Comment] {
        for state in &states {
            let found: Vec<_> =
                TABLE.iter().filter(|(c, s, _)| c == &change && s == state).collect();
            let [(.., does)] = found.as_slice() else { panic!("{change:?} {state:?}: {found:?}") };
            let what = format!("{change:?} {state:?}");
            let (database, id) = with(*state).await;
            let status = |id| {
                let read = database.read(move |s| build(s, id));
                async move { read.await.expect("reads").map(|build| build.status) }
            };
            let before = status(id).await;
            let outcome = ask(&database, change, vec![Target::Build(id)]).await.remove(0);
            let after = status(id).await;
            match does {
                Make(made) => {
                    assert!(
                        matches!(outcome, Outcome::Done(changed) if changed > 0),
                        "{what}: {outcome:?}"
                    );
                    assert_eq!(after, Some(*made), "{what}");
                }
                Ask => assert_eq!((outcome, after), (Outcome::Ending(1), before), "{what}"),
                Note => assert_eq!((outcome, after), (Outcome::Done(0), before), "{what}"),
                Refuse(why) => {
                    assert!(
                        matches!(&outcome, Outcome::Refused(said) if said.contains(why)),
                        "{what}: {outcome:?}"
                    );
                    assert_eq!(after, before, "{what}");
                }
                Miss => assert_eq!((outcome, after), (Outcome::Missing, None), "{what}"),
            }
            let made = matches!(does, Make(_) | Ask | Note);
            let rows =
                database.read(|s| audit(s, &AuditFilter::default(), 10)).await.expect("reads");
            assert_eq!(rows.len(), usize::from(made), "{what}: {rows:?}");
            if let [row] = rows.as_slice() {
                assert_eq!((&*row.actor, &*row.change), ("alice", change.as_str()), "{what}");
                assert_eq!((row.at, row.build, &*row.reason), (9, Some(id), "a test"), "{what}");
                assert_eq!(row.specification.as_deref(), Some("sample"), "{what}");
            }
            let asked = database.read(asked_to_end).await.expect("reads");
            assert_eq!(asked.len(), usize::from(*does == Ask), "{what}");
            check_counters(&database).await;
            database.close().await.expect("closes");
        }
    }
}

#[tokio::test]
async fn a_target_that_the_database_refuses_is_refused_alone() {
    let database = evaluated().await;
    let trouble = "CREATE TRIGGER refuse BEFORE UPDATE ON build WHEN old.id = 2 AND new.status = 4
         BEGIN SELECT RAISE(ABORT, 'not this one'); END";
    database.exclusive(move |conn| conn.execute_batch(trouble)).await.expect("made");
    evaluate(&database, 2, &[("other", &[])]).await;
    let targets = [2, 3].map(|id| Target::Build(BuildId::new(id))).to_vec();
    let outcomes = ask(&database, Change::Cancel, targets).await;
    assert!(
        matches!(&outcomes[0], Outcome::Refused(why) if why.contains("not this one")),
        "{outcomes:?}"
    );
    assert_eq!(outcomes[1], Outcome::Done(1));
    check_counters(&database).await;
    let rows = database.read(|s| audit(s, &AuditFilter::default(), 10)).await.expect("reads");
    assert_eq!(rows.len(), 1, "{rows:?}");
    database.close().await.expect("closes");
}

#[tokio::test]
async fn the_audit_is_bounded_by_rows_and_by_age() {
    let database = evaluated().await;
    let fill = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
         INSERT INTO audit SELECT i, i, 'x', 'cancel', 1, 1, 1, '', '' FROM n";
    database.exclusive(move |conn| conn.execute_batch(fill)).await.expect("filled");
    ask(&database, Change::Evaluate, vec![Target::Specification("sample".to_owned())]).await;
    let ends = |s: &Snapshot| {
        s.query_row("SELECT min(id), max(id) FROM audit", [], |row| <(i64, i64)>::try_from(row))
    };
    assert_eq!(database.read(ends).await.expect("reads"), (2, 100_001));
    // Rows of the seconds 2 to 11 are older than two years; that of the last request is older too, but stands behind
    // younger ones.
    let now = 12 + 730 * 86_400;
    assert!(write(&database, move |tx| prune_audit(tx, now, 4)).await, "there are more");
    assert_eq!(database.read(ends).await.expect("reads"), (6, 100_001));
    assert!(!write(&database, move |tx| prune_audit(tx, now, 100)).await);
    assert_eq!(database.read(ends).await.expect("reads"), (12, 100_001));
    database.close().await.expect("closes");
}
