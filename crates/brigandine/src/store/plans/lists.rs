//! Compares lists of builds with plain queries, which use no index.

use super::*;
use crate::store::builds::{By, List, shape};
use crate::store::hidden::NOTHING;

/// The result of a list, computed by a plain query that uses no index.
fn plain_list(
    connection: &Connection,
    filter: &BuildFilter,
    finished: &str,
    order: &str,
) -> Vec<BuildId> {
    let sql = format!(
        "SELECT b.id FROM build AS b NOT INDEXED
         CROSS JOIN specification AS s ON s.id = b.specification_id
         WHERE {finished} AND (?1 IS NULL OR s.name = ?1) AND (?2 IS NULL OR b.job = ?2)
         AND (?3 IS NULL OR b.system = ?3) AND (?4 IS NULL OR b.evaluation_id = ?4)
         AND (?5 IS NULL OR b.derivation = ?5) AND (?6 IS NULL OR b.status = ?6)
         AND (?7 IS NULL OR s.project = ?7)
         ORDER BY {order} LIMIT 7"
    );
    let BuildFilter { project, specification, job, system, evaluation, derivation, status } =
        filter;
    let mut statement = connection.prepare(&sql).expect("a plain query");
    let values =
        rusqlite::params![specification, job, system, evaluation, derivation, status, project];
    let rows = statement.query_map(values, |row| row.get(0)).expect("rows");
    rows.map(|row| row.expect("a row")).collect()
}

#[tokio::test]
async fn a_hundred_thousand_builds_are_answered_as_a_plain_query_would() {
    let directory = tempfile::tempdir().expect("a directory");
    let made = make_sample(100_000, directory.path(), 1, &|_| ()).expect("the sample");
    assert_eq!(made.builds, 100_000);
    let path = StateDir::new(directory.path()).database();
    Connection::open_with_flags(&path, rusqlite::OpenFlags::default())
        .and_then(|file| {
            let other =
                "UPDATE specification SET definition = json_set(definition, '$.project', 'other')
                 WHERE id % 2 = 0";
            file.execute(other, [])
        })
        .expect("two projects");
    let read_only = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = Connection::open_with_flags(&path, read_only).expect("opens");
    let database = open(directory.path()).await.expect("opens");
    let one = database
        .read(|s| build(s, BuildId::new(77_777)))
        .await
        .expect("reads")
        .expect("build 77777");
    let mut answers = 0;
    let fields = BuildFilter {
        project: Some(one.project),
        specification: Some(one.specification),
        job: Some(one.job),
        system: Some(one.system),
        evaluation: Some(one.evaluation),
        derivation: Some(one.derivation),
        status: Some(one.status),
    };
    for filter in subsets(&fields) {
        for (list, finished, order) in [
            (List::Latest, "b.status >= 0", "b.stopped_at DESC, b.id DESC"),
            (List::Queue, "b.status < 0", "b.status DESC, b.submitted_at, b.id"),
        ] {
            let wanted = plain_list(&connection, &filter, finished, order);
            let asked = filter.clone();
            let found = database
                .read(move |s| match list {
                    List::Latest => latest_builds(s, &asked, 7),
                    List::Queue => queue(s, &asked, 7),
                })
                .await
                .expect("reads");
            let found: Vec<BuildId> = found.iter().map(|build| build.id).collect();
            assert_eq!(found, wanted, "{list:?} {filter:?}");
            answers += found.len();
            let fitting = [
                (By::Order, true),
                (By::Specification, filter.specification.is_some()),
                (By::System, filter.system.is_some()),
                (By::Status, filter.status.is_some()),
            ];
            for (by, _) in fitting.into_iter().filter(|(_, fits)| *fits) {
                let (sql, _) = shape(&filter, &NOTHING, list, by);
                assert_eq!(fault(&sql, &plan(&connection, &sql)), None, "{sql}");
            }
        }
    }
    assert!(answers > 100, "{answers} builds were found");
    database.close().await.expect("closes");
}

#[test]
fn a_list_is_read_by_the_index_that_was_chosen() {
    let connection = Connection::open_in_memory().expect("opens");
    connection.execute_batch(include_str!("../../../schema.sql")).expect("the schema");
    let text = |text: &str| Some(text.to_owned());
    let all = BuildFilter {
        project: None,
        specification: text("s"),
        job: text("j"),
        system: text("y"),
        evaluation: Some(EvaluationId::new(1)),
        derivation: text("d"),
        status: Some(BuildStatus::Failed),
    };
    for (by, wanted) in [
        (By::Order, "SCAN b USING INDEX build_latest"),
        (By::Specification, "INDEX build_latest_of_specification (specification_id=?"),
        (By::Evaluation, "INDEX build_latest_of_evaluation (evaluation_id=?"),
        (By::Job, "INDEX build_latest_of_job (specification_id=? AND job=?"),
        (By::System, "INDEX build_latest_for_system (system=?"),
        (By::Status, "INDEX build_latest_with_status (<expr>=?"),
        (By::Derivation, "INDEX build_derivation (derivation_key=?"),
    ] {
        let (sql, _) = shape(&all, &NOTHING, List::Latest, by);
        let found = plan(&connection, &sql).join("; ");
        assert!(found.contains(wanted) && !found.contains("TEMP"), "{by:?}: {found}");
    }
}
