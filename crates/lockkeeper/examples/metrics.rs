//! Hands the database's statistics to the crate `metrics`, and prints what its recorder holds.
//!
//! A real program has an exporter there, for example for Prometheus or StatsD. This one uses the recorder that the
//! crate `metrics-util` provides for debugging, so that it needs nothing else. In any case install the recorder first,
//! then call `export` before each scrape.
//!
//! ```sh
//! cargo run -p lockkeeper --features metrics --example metrics
//! ```

use lockkeeper::Database;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let recorder = DebuggingRecorder::new();
    let scrape = recorder.snapshotter();
    recorder.install()?;

    let dir = tempfile::tempdir()?;
    let db = Database::open(dir.path().join("app.db")).await?;
    let mut exporter = db.exporter("app");
    db.write(|tx| tx.execute_batch("CREATE TABLE visit (at INTEGER)")).await?;
    let web = db.client("web");
    for _ in 0..100 {
        web.write(|tx| tx.execute("INSERT INTO visit VALUES (unixepoch())", [])).await?;
    }

    exporter.export();
    for (key, unit, _, value) in scrape.snapshot().into_vec() {
        let labels: Vec<_> =
            key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let unit = unit.map_or("", |unit| unit.as_canonical_label());
        let value = match value {
            DebugValue::Counter(count) => count.to_string(),
            DebugValue::Gauge(value) => value.to_string(),
            DebugValue::Histogram(values) => format!("{} values", values.len()),
        };
        println!("{}{{{}}} {value} {unit}", key.key().name(), labels.join(","));
    }
    db.close().await?;
    Ok(())
}
