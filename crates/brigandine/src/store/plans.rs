//! Tests query plans: every statement of the store finds its rows by an index, in their order, with few builds and with
//! millions.
//!
//! The test has no list of statements. It makes every request of the server on a connection with a trace, and explains
//! each traced statement under three sets of statistics.

use super::builds::claim_for;
use super::derivations::definition;
use super::*;
use crate::model::{
    Actor, Asked, BuildFilter, BuildId, BuildLogFile, BuildStatus, Change, Checkout, EvaluationId,
    EvaluationStatus, Grant, History, Restart, Role, Scope, Sight, SpecificationId, Specify,
    Target,
};
use crate::os::state_dir::StateDir;
use rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG;
use rusqlite::{Connection, trace::TraceEvent};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

mod jobs;
mod lists;
mod requests;

/// The statements that traced connections have run. A static, because SQLite's hook is a plain function.
static RUN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

#[expect(clippy::needless_pass_by_value, reason = "as SQLite's hook is called")]
fn trace(event: TraceEvent<'_>) {
    if let TraceEvent::Stmt(_, sql) = event {
        // SQLite traces the statements of triggers as comments. They are explained together with the statement that
        // fires them.
        if !sql.starts_with("--") {
            RUN.lock().unwrap_or_else(PoisonError::into_inner).insert(sql.to_owned());
        }
    }
}

/// Four specifications, and evaluations of a hundred jobs, with every status, outputs and dependencies.
fn fill(builds: usize) -> String {
    format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4)
         INSERT INTO specification SELECT i, 'spec' || i, '{{\"name\":\"spec' || i || '\",
           \"inputs\":[],\"evaluator\":{{\"kind\":\"jobs\",\"file\":\"f\"}}}}', 1, 0, 0, '', 0, 0, 0, 0, NULL
         FROM n;
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {builds} / 100)
         INSERT INTO evaluation SELECT i, i % 4 + 1, 's' || i, 0, '', 1, 1, 1, '', 3, 0, 94, 2, 1, 0, 0
         FROM n;
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {builds})
         INSERT INTO build SELECT i, i || '.drv', i * 7919 % 1000003, (i - 1) / 100 % 4 + 1,
           min((i - 1) / 100 + 1, {builds} / 100), 'job' || (i % 100), 'system' || (i % 3), 'n', 0,
           CASE WHEN i % 40 = 0 THEN -2 WHEN i % 20 = 0 THEN 1 ELSE 0 END, -1, 0, 0, 0, 0, '', 0, 0,
           i, i, CASE WHEN i % 40 = 0 THEN 0 ELSE i + 5 END, '', 0, ''
         FROM n;
         INSERT INTO job SELECT evaluation_id, job, id, 0 FROM build;
         INSERT INTO definition SELECT id, '{{\"version\":1,\"name\":\"n\",
           \"command\":[],\"environment\":{{}},\"system\":\"s\",\"sources\":[],\"needs\":{{}},
           \"products\":[]}}' FROM build;
         INSERT INTO output SELECT id, 'out', 'path' || id FROM build;
         INSERT INTO attempt SELECT id, 1, 'w', 0, '', 1, 2 FROM build WHERE status >= 0;
         INSERT INTO dependency SELECT id, id - 1, 'n' FROM build WHERE id % 40 = 1 AND id > 1;
         INSERT INTO product SELECT id, id, 'file', 'n', 'p', 1, '' FROM build WHERE id % 10 = 0;"
    )
}

/// Statistics of a database with five million builds, as `ANALYZE` finds them.
const MILLIONS: &str = include_str!("plans.sql");

/// All filters that a request can have: every subset of the fields that `fields` has.
fn subsets(fields: &BuildFilter) -> impl Iterator<Item = BuildFilter> {
    (0_u32..128).map(move |bits| {
        let has = |bit: u32| bits & (1 << bit) != 0;
        BuildFilter {
            project: fields.project.clone().filter(|_| has(6)),
            specification: fields.specification.clone().filter(|_| has(0)),
            job: fields.job.clone().filter(|_| has(1)),
            system: fields.system.clone().filter(|_| has(2)),
            evaluation: fields.evaluation.filter(|_| has(3)),
            derivation: fields.derivation.clone().filter(|_| has(4)),
            status: fields.status.filter(|_| has(5)),
        }
    })
}

/// Filters by values that [`fill`] stores.
fn filters() -> Vec<BuildFilter> {
    let text = |text: &str| Some(text.to_owned());
    let fields = BuildFilter {
        project: text("main"),
        specification: text("spec2"),
        job: text("job7"),
        system: text("system1"),
        evaluation: Some(EvaluationId::new(2)),
        derivation: text("107.drv"),
        status: Some(BuildStatus::Succeeded),
    };
    subsets(&fields).collect()
}

/// Makes a specification private. The first evaluation that has its builds is that of another one.
const HIDE: &str =
    "UPDATE specification SET definition = json_set(definition, '$.private', json('true'))
     WHERE id = ?1";

/// Calls every function of the store: those of requests twice, once while something is hidden.
async fn ask_everything(database: &lockkeeper::Database) {
    database
        .write(move |tx| {
            for private in [false, true] {
                if private {
                    tx.execute(HIDE, [4])?;
                }
                let seen = Visible::new(tx, &Sight::default())?;
                assert_eq!(seen.hidden().is_empty(), !private);
                requests::ask(&seen)?;
            }
            ask_for_the_rest(tx)
        })
        .await
        .expect("reads");
    database
        .write(move |tx| {
            change_builds(tx)?;
            ask_for_changes(tx)?;
            change_evaluations(tx)?;
            ask_for_accounts(tx)?;
            prune(tx)
        })
        .await
        .expect("writes");
}

const BUILD: BuildId = BuildId::new(120);
const EVALUATION: EvaluationId = EvaluationId::new(2);

fn ask_for_the_rest(s: &Snapshot) -> rusqlite::Result<()> {
    definition(s, BUILD)?;
    due(s, crate::model::Keep { evaluations: Some(5), days: Some(1) }, 9)?;
    jobs_after(s, EVALUATION, &("job5".to_owned(), BUILD), 10)?;
    strays(s, EVALUATION, 10)?;
    leftovers(s, "", 10)?;
    has_output(s, "outputs/x")?;
    asked_to_end(s)?;
    Ok(())
}

/// Requests every change.
fn ask_for_changes(tx: &Transaction) -> rusqlite::Result<()> {
    let asked = Asked::new(Actor::token(), 9, "because");
    let scheduled = queue(tx, &BuildFilter::default(), 1)?[0].id;
    let targets = [scheduled, BuildId::new(7)].map(Target::Build);
    for change in [Change::Cancel, Change::Restart] {
        let done = request(tx, change, &targets, &asked)?;
        assert!(!done.effects.changed.is_empty(), "{done:?}");
    }
    for change in [Change::Bump, Change::Comment] {
        request(tx, change, &targets, &asked)?;
    }
    let of = [Target::Specification("spec2".to_owned())];
    for change in [Change::Evaluate, Change::Disable, Change::Enable] {
        request(tx, change, &of, &asked)?;
    }
    let third = EvaluationId::new(3);
    let of = [Target::Evaluation(third), Target::Jobs(EVALUATION, vec![BuildStatus::Scheduled])];
    for change in [
        Change::Keep,
        Change::Release,
        Change::Bump,
        Change::Cancel,
        Change::Restart,
        Change::Comment,
    ] {
        let done = request(tx, change, &of, &asked)?;
        for rest in done.left() {
            proceed(tx, rest)?;
        }
    }
    take_up_again(tx, third, 9)?;
    supersede(tx, EvaluationId::new(50), 9)?;
    unfinished(tx, EvaluationId::new(0), 9)?;
    prune_audit(tx, i64::MAX, 10)?;
    Ok(())
}

fn change_builds(tx: &Transaction) -> rusqlite::Result<()> {
    let claimed = claim_for(tx, "system1", 2, 7)?;
    assert!(!claimed.is_empty(), "something waits");
    for (claimed, status) in claimed.iter().zip([BuildStatus::Failed, BuildStatus::Succeeded]) {
        let end = Finish {
            id: claimed.changed.id,
            attempt: claimed.attempt,
            status,
            message: String::new(),
            stopped_at: 9,
            log: BuildLogFile::default(),
            outputs: vec![("out".to_owned(), "path".to_owned())],
            products: Vec::new(),
        };
        finish(tx, &end)?;
    }
    let claimed = claim_for(tx, "system2", 1, 7)?;
    let one = &claimed[0];
    let log = BuildLogFile::default();
    lose(tx, one.changed.id, one.attempt, "m", 1, BuildStatus::Scheduled, &log, 8)?;
    cancel(tx, one.changed.id, "canceled on request", 8)?;
    let abandoned = |id, attempt| Abandoned {
        id,
        attempt,
        message: String::new(),
        log: BuildLogFile::default(),
        now: 8,
    };
    for system in ["system0", "system1"] {
        let one = &claim_for(tx, system, 1, 7)?[0];
        assert!(!abandon(tx, &abandoned(one.changed.id, Some(one.attempt)))?.is_empty());
    }
    let waits = queue(tx, &BuildFilter::default(), 1)?;
    assert!(!abandon(tx, &abandoned(waits[0].id, None))?.is_empty());
    let restarted = restart(tx, one.changed.id)?;
    assert!(!matches!(restarted, Restart::Missing | Restart::Not(_)), "{restarted:?}");
    Ok(())
}

fn change_evaluations(tx: &Transaction) -> rusqlite::Result<()> {
    let checkout = Checkout {
        input: "i".to_owned(),
        revision: "r".to_owned(),
        subject: String::new(),
        author: String::new(),
        revision_at: 0,
    };
    let of = SpecificationId::new(1);
    let begun = begin_evaluation(tx, of, "new", &[checkout], "", 9)?;
    let Begun::New(new) = begun else { panic!("{begun:?}") };
    note_checkouts(tx, new, 9)?;
    let job = |name: &str, needs| NewJob {
        name: name.to_owned(),
        derivation: format!("{name}.drv"),
        system: "system1".to_owned(),
        nix_name: name.to_owned(),
        priority: 0,
        timeout_s: 0,
        max_silent_s: 0,
        definition: Some("{}".to_owned()),
        needs,
    };
    let jobs = [job("107", vec![]), job("x", vec![("n".to_owned(), 0)])];
    assert!(register(tx, new, &jobs, "", "", 9)?.is_some());
    end_evaluation(tx, new, EvaluationStatus::Failed, "", "", 9)?;
    let looked = Looked { specification: of, wanted_at: 0, at: 1, next_at: 2, failures: 0 };
    note_look(tx, looked, "")?;
    want_look(tx, "spec2", 3)?;
    put_specification(tx, &specification(tx, "spec1")?.expect("there").specification, true, 4)?;
    let names = vec!["spec4".to_owned()];
    let asked = Asked::new(Actor::token(), 3, "");
    specify(tx, &Specify::Remove { names, history: History::Deleted }, &asked)?;
    Ok(())
}

/// What each request with credentials asks for, and what a login does apart from its end of old sessions.
fn ask_for_accounts(tx: &Transaction) -> rusqlite::Result<()> {
    let grant = Grant { scope: Scope::EVERYWHERE, role: Role::Reader };
    assert!(add_user(tx, "alice", "digest", &grant, 9)?);
    assert!(user(tx, "alice")?.is_some() && password(tx, "alice")?.is_some());
    let grants = vec![grant.clone()];
    let external =
        ExternalUser { name: "bob".to_owned(), subject: "https://sso 1".to_owned(), grants };
    for _ in 0..2 {
        external_login(tx, &external, 9)?;
    }
    session(tx, &[1; 32])?;
    note_session_use(tx, 1, 9)?;
    let new = NewToken { name: "t".to_owned(), digest: [1; 32], grant, expires_at: 0 };
    assert!(put_token(tx, &new, 9)? && token(tx, &[1; 32])?.is_some());
    note_token_use(tx, 1, 9)
}

/// Deletes builds of `EVALUATION`. The count of its scheduled builds is set to 0 first, because builds of an evaluation
/// with scheduled builds are not deleted.
fn prune(tx: &Transaction) -> rusqlite::Result<()> {
    tx.execute("UPDATE evaluation SET scheduled = 0 WHERE id = 2", [])?;
    assert!(mark(tx, EVALUATION)?, "the second of fifty");
    let some: Vec<_> = (101..=110).rev().map(BuildId::new).collect();
    let budget = Budget::new(100, std::time::Duration::from_secs(60));
    let slice = prune_builds(tx, EVALUATION, &some, budget)?.expect("it may go");
    assert!(slice.deleted > 0, "{slice:?}");
    forget_leftovers(tx, &["logs/x".to_owned()])
}

/// What is wrong with a plan; `None`: nothing.
fn fault(sql: &str, plan: &[String]) -> Option<&'static str> {
    if sql.to_lowercase().contains(" offset ") {
        return Some("pages by an offset");
    }
    for step in plan {
        // A server has tens of specifications, so SQLite may sort them by name.
        if step.contains("TEMP B-TREE") && !plan[0].starts_with("SCAN specification") {
            return Some("sorts");
        }
        let Some(scanned) = step.strip_prefix("SCAN ") else { continue };
        let (table, how) = scanned.split_once(' ').unwrap_or((scanned, ""));
        let ordered = how.contains("INDEX build_latest") || how.contains("INDEX build_queue");
        let bounded = sql.contains("LIMIT");
        let small = [
            "specification",
            "s",
            "c",
            "build_count",
            "e",
            "evaluation",
            "json_each",
            "source",
            "dead",
            "needed",
            "CONSTANT",
            "j",
            // Lockkeeper's own query for attached files.
            "pragma_database_list",
        ];
        match table {
            "b" | "build" if ordered && bounded => {}
            // `SCAN j` is a subquery, or the counted jobs of one build. The table `job` itself is always searched.
            table if small.contains(&table) && !how.contains("INDEX job") => {}
            _ => return Some("reads a whole table"),
        }
    }
    None
}

fn plan(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect(sql);
    let values = vec![rusqlite::types::Value::Integer(1); statement.parameter_count()];
    let rows = statement
        .query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3))
        .expect(sql);
    rows.map(|row| row.expect("a row")).collect()
}

/// Whether the statement makes a table in memory, with a page cache of its own. That is too slow for a statement that
/// runs once per row.
fn makes_a_table(connection: &Connection, sql: &str) -> bool {
    let mut statement = connection.prepare(&format!("EXPLAIN {sql}")).expect(sql);
    let values = vec![rusqlite::types::Value::Integer(1); statement.parameter_count()];
    let steps = statement
        .query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(1))
        .expect(sql);
    steps.map(|step| step.expect("a row")).any(|step| step == "OpenEphemeral")
}

#[tokio::test]
async fn every_statement_finds_its_rows_by_an_index_on_few_builds_and_on_millions() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = StateDir::new(directory.path()).database();
    // The hook is set on every connection, whenever one is opened.
    let traced = |conn: &Connection| crate::os::ffi::trace_statements(conn, trace);
    let database = lockkeeper::Database::builder(&path).setup(traced).open().await.expect("opens");
    let text = format!("{}BEGIN;{}COMMIT;", include_str!("../../schema.sql"), fill(5000));
    database.exclusive(move |conn| conn.execute_batch(&text)).await.expect("filled");
    // Forgets the statements that filled the database.
    RUN.lock().unwrap_or_else(PoisonError::into_inner).clear();
    ask_everything(&database).await;
    database.close().await.expect("closes");

    let run = RUN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let hot = |sql: &&String| {
        let lockkeepers = ["FROM pragma_", "sqlite_schema", "sqlite_temp_schema"];
        ["SELECT", "UPDATE", "WITH", "INSERT", "DELETE"].iter().any(|word| sql.starts_with(word))
            && !lockkeepers.iter().any(|own| sql.contains(own))
    };
    let statements: Vec<_> = run.iter().filter(hot).collect();
    assert!(statements.len() > 120, "the trace saw {} statements only", statements.len());
    let open = || Connection::open_with_flags(&path, rusqlite::OpenFlags::default());
    let connection = open().expect("opens");
    let mut faults: Vec<String> = Vec::new();
    for (builds, statistics) in [("unknown", ""), ("5,000", "ANALYZE;"), ("5,000,000", MILLIONS)] {
        connection.execute_batch(statistics).expect("statistics");
        let connection = open().expect("opens with the new statistics");
        // The setting of every connection of the server.
        connection.set_db_config(SQLITE_DBCONFIG_ENABLE_QPSG, true).expect("set");
        for sql in &statements {
            let plan = plan(&connection, sql);
            let mut found = fault(sql, &plan);
            if sql.starts_with("DELETE") && makes_a_table(&connection, sql) {
                found = Some("makes a table");
            }
            faults.extend(found.map(|fault| {
                format!("with statistics of {builds} builds this {fault}:\n{sql}\n{plan:#?}")
            }));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

#[test]
fn a_bad_plan_is_told() {
    let connection = Connection::open_in_memory().expect("opens");
    connection.execute_batch(include_str!("../../schema.sql")).expect("the schema");
    for (sql, wanted) in [
        ("SELECT * FROM build WHERE nix_name = 'x'", "reads a whole table"),
        ("SELECT * FROM build WHERE status >= 0 ORDER BY stopped_at DESC", "reads a whole table"),
        ("SELECT * FROM build WHERE evaluation_id = 1 AND status >= 0 ORDER BY job", "sorts"),
        ("SELECT * FROM build WHERE id = 1 LIMIT 1 OFFSET 7", "pages by an offset"),
        ("SELECT count(*) FROM job", "reads a whole table"),
        ("SELECT * FROM output WHERE path = 'x'", "reads a whole table"),
    ] {
        assert_eq!(fault(sql, &plan(&connection, sql)), Some(wanted), "{sql}");
    }
}
