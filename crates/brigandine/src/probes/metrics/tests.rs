//! Tests that read the figures as Prometheus does, and compare them with what happened.

#[path = "../../../tests/it/support/exposition.rs"]
mod exposition;

use std::time::{Duration, Instant};

use crate::config::Web;
use crate::model::{
    BuildId, BuildStatus, Changed, EvaluationId, EvaluationStatus, SpecificationId,
};
use crate::site::harness::{Served, served, served_with};
use exposition::Exposition;

async fn scrape(served: &Served) -> Exposition {
    let answer = served.get("/metrics").await;
    assert_eq!(answer.status, 200);
    let kind = answer.header("content-type");
    assert_eq!(kind, Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    Exposition::read(&answer.body)
}

/// Builds whose counts are those of the statement.
fn counted(rows: &str) -> String {
    format!(
        "INSERT INTO specification VALUES (1, 'one', '{{\"name\":\"one\",\"inputs\":[],\"evaluator\":{{\"kind\":\"jobs\",\"file\":\"x\"}}}}', 1, 0, 0, '', 0, 0, 0, 0, NULL);
         INSERT INTO build_count (status, specification_id, system, builds) {rows}"
    )
}

#[tokio::test]
async fn the_queue_is_that_of_the_database() {
    let served = served().await;
    let figures = scrape(&served).await;
    let rows = served.database.read(|s: &crate::store::Snapshot| {
        let sql = "SELECT status, system, count(*) FROM build GROUP BY status, system";
        let mut statement = s.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| row.try_into())?;
        rows.collect::<rusqlite::Result<Vec<(BuildStatus, String, i64)>>>()
    });
    let rows = rows.await.expect("the builds");
    assert!(rows.len() >= 7, "{rows:?}");
    let mut all = 0.0;
    for (status, system, count) in rows {
        let labels = [("status", status.as_str()), ("system", &*system)];
        assert_eq!(figures.value("brigandine_builds", &labels), Some(count as f64), "{labels:?}");
        all += count as f64;
    }
    let sum: f64 = figures.samples("brigandine_builds").map(|sample| sample.value).sum();
    assert_eq!(sum, all, "nothing else is counted");
    let idle = [("status", "started"), ("system", "aarch64-linux")];
    assert_eq!(figures.value("brigandine_builds", &idle), Some(0.0), "an empty queue is 0");
    for (name, value) in [
        ("brigandine_evaluations_running", 1.0),
        ("brigandine_specifications", 2.0),
        ("brigandine_specifications_unreachable", 1.0),
        ("brigandine_database_up", 1.0),
        ("brigandine_file_system_up", 1.0),
        ("brigandine_ready", 1.0),
    ] {
        assert_eq!(figures.value(name, &[]), Some(value), "{name}");
    }
    served.close().await;
}

#[tokio::test]
async fn ends_are_counted_by_status_and_their_times_in_buckets() {
    let served = served().await;
    let changed = |status| Changed {
        id: BuildId::new(1),
        job: "job".to_owned(),
        evaluation: EvaluationId::new(1),
        specification: SpecificationId::new(1),
        status,
    };
    let statuses = [
        BuildStatus::Failed,
        BuildStatus::FailedDependency,
        BuildStatus::FailedDependency,
        BuildStatus::Scheduled,
    ];
    served.meters.builds_changed(&statuses.map(changed));
    served.meters.build_times.record(Duration::from_secs(60));
    served.meters.evaluation_ended(EvaluationStatus::Succeeded, Duration::from_millis(700));
    let figures = scrape(&served).await;
    for (status, count) in [
        ("succeeded", Some(0.0)),
        ("failed", Some(1.0)),
        ("failed-dependency", Some(2.0)),
        ("scheduled", None),
    ] {
        let name = "brigandine_builds_ended_total";
        assert_eq!(figures.value(name, &[("status", status)]), count, "{status}");
    }
    let name = "brigandine_build_duration_seconds_bucket";
    assert_eq!(figures.value(name, &[("le", "15")]), Some(0.0));
    assert_eq!(figures.value(name, &[("le", "60")]), Some(1.0));
    let name = "brigandine_evaluations_ended_total";
    assert_eq!(figures.value(name, &[("status", "succeeded")]), Some(1.0));
    assert_eq!(figures.value("brigandine_evaluation_duration_seconds_sum", &[]), Some(0.7));
    served.close().await;
}

#[tokio::test]
async fn requests_are_counted_by_route_and_status() {
    let served = served().await;
    for path in ["/build/3", "/build/4", "/build/99", "/nothing", "/queue"] {
        served.page(path).await;
    }
    served.ask("POST", "/queue", "").await;
    served.raw("GET / HTTP/1.1\r\nconnection: close\r\n\r\n").await;
    let figures = scrape(&served).await;
    let name = "brigandine_http_requests_total";
    for (route, status, count) in [
        ("/build/{id}", "200", 2.0),
        ("/build/{id}", "404", 1.0),
        ("/queue", "200", 1.0),
        // No route, and a request without a host.
        ("(none)", "404", 1.0),
        ("(none)", "400", 1.0),
    ] {
        let labels = [("route", route), ("status", status)];
        assert_eq!(figures.value(name, &labels), Some(count), "{labels:?}");
    }
    let times = "brigandine_http_request_duration_seconds_count";
    assert_eq!(figures.value(times, &[("route", "/build/{id}")]), Some(3.0));
    let sum: f64 = figures.samples(name).map(|sample| sample.value).sum();
    assert_eq!(sum, 7.0, "each request once, and this one not yet");
    assert!(figures.value("brigandine_http_connections", &[]) >= Some(1.0), "this one");
    assert_eq!(figures.value("brigandine_http_streams", &[]), Some(0.0));
    served.close().await;
}

#[tokio::test]
async fn the_database_and_the_process_are_measured() {
    let served = served().await;
    for _ in 0..3 {
        let write =
            |tx: &crate::store::Transaction| tx.execute("UPDATE server SET stopped = 0", []);
        served.database.write(write).await.expect("written");
    }
    // The database of these tests has another name.
    served.put("brigandine.db", &[0; 8192]);
    let figures = scrape(&served).await;
    let value = |name: &str| figures.value(name, &[]).unwrap_or_else(|| panic!("{name}"));
    assert!(value("brigandine_database_write_run_seconds_count") >= 3.0);
    assert!(value("brigandine_database_commit_seconds_count") >= 1.0);
    assert!(value("brigandine_database_commit_seconds_sum") > 0.0);
    assert!(value("brigandine_database_batch_writes_sum") >= 3.0);
    assert_eq!(value("brigandine_database_bytes"), 8192.0);
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(value("process_open_fds") > 3.0);
    assert!(value("brigandine_start_time_seconds") > 1.6e9);
    let lanes = [("client", "main"), ("queue", "write")];
    assert_eq!(figures.value("brigandine_database_waiting_calls", &lanes), Some(0.0));
    served.close().await;
}

#[tokio::test]
async fn names_of_systems_are_escaped_and_bounded() {
    let fill = counted(
        "VALUES (-2, 1, 'a\"b\\c' || char(10) || 'd {e=\"f\"} ü', 1000), (0, 1, 'a\"b\\c' || char(10) || 'd {e=\"f\"} ü', 5)
         UNION ALL SELECT * FROM (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)
         SELECT -2, 1, 'system' || i, i FROM n)",
    );
    let served = served_with(&fill, Web::default()).await;
    let figures = scrape(&served).await;
    let odd = [("status", "scheduled"), ("system", "a\"b\\c\nd {e=\"f\"} ü")];
    assert_eq!(figures.value("brigandine_builds", &odd), Some(1000.0));
    let of =
        |system| figures.value("brigandine_builds", &[("status", "scheduled"), ("system", system)]);
    // The largest have labels: the odd one and 31 others.
    assert_eq!(of("system100"), Some(100.0));
    assert_eq!(of("system70"), Some(70.0));
    assert_eq!(of("system69"), None);
    assert_eq!(of("(other)"), Some((1..=69).sum::<i32>().into()));
    served.close().await;
}

#[tokio::test]
async fn without_the_database_the_other_figures_are_there_and_say_so() {
    let served = served().await;
    served.database.close().await.expect("closed");
    let figures = scrape(&served).await;
    assert_eq!(figures.value("brigandine_database_up", &[]), Some(0.0));
    assert_eq!(figures.samples("brigandine_builds").count(), 0);
    assert!(figures.samples("brigandine_http_connections").count() == 1);
    served.close().await;
}

#[tokio::test]
async fn without_the_file_system_the_other_figures_are_there_and_say_so() {
    let served = served().await;
    // As while an earlier request waits for a disk that does not answer.
    let asking = std::sync::Arc::clone(&served.meters.gathering).acquire_owned().await;
    let figures = scrape(&served).await;
    assert_eq!(figures.value("brigandine_file_system_up", &[]), Some(0.0));
    assert_eq!(figures.samples("brigandine_database_bytes").count(), 0);
    assert_eq!(figures.value("brigandine_database_up", &[]), Some(1.0));
    assert!(figures.value("process_open_fds", &[]) > Some(3.0), "no disk delays /proc");
    drop(asking);
    assert_eq!(scrape(&served).await.value("brigandine_file_system_up", &[]), Some(1.0));
    served.close().await;
}

#[tokio::test]
async fn a_scrape_costs_the_same_however_many_builds_there_are() {
    // The counts of five million builds of a hundred specifications: all that a scrape reads of them.
    let fill = counted(
        "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 2099)
         SELECT i % 7 - 2, 1, 'system' || (i / 7), 2400 FROM n",
    );
    let served = served_with(&fill, Web::default()).await;
    scrape(&served).await;
    let mut times = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        assert_eq!(served.get("/metrics").await.status, 200);
        times.push(began.elapsed());
    }
    times.sort();
    // The program is not optimised, and the machine does other things too, so the bound is wide.
    assert!(times[5] < Duration::from_millis(100), "{times:?}");
    served.close().await;
}
