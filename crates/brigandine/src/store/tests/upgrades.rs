//! Databases of every schema version, with rows in every table, are migrated to this program's version.

use super::*;
use crate::store::schema;
use std::collections::BTreeMap;
use std::path::Path;

/// The steps, and rows of each version that exercise what the next steps change. `schema.rs` has the same steps.
const VERSIONS: [(&str, &str); 8] = [
    (
        include_str!("../../../migrations/0001_initial.sql"),
        include_str!("../../../tests/data/migrations/0001.sql"),
    ),
    (
        include_str!("../../../migrations/0002_millions.sql"),
        include_str!("../../../tests/data/migrations/0002.sql"),
    ),
    (
        include_str!("../../../migrations/0003_retention.sql"),
        include_str!("../../../tests/data/migrations/0003.sql"),
    ),
    (
        include_str!("../../../migrations/0004_looks.sql"),
        include_str!("../../../tests/data/migrations/0004.sql"),
    ),
    (
        include_str!("../../../migrations/0005_projects.sql"),
        include_str!("../../../tests/data/migrations/0005.sql"),
    ),
    (
        include_str!("../../../migrations/0006_audit.sql"),
        include_str!("../../../tests/data/migrations/0006.sql"),
    ),
    (
        include_str!("../../../migrations/0007_accounts.sql"),
        include_str!("../../../tests/data/migrations/0007.sql"),
    ),
    (
        include_str!("../../../migrations/0008_wishes.sql"),
        include_str!("../../../tests/data/migrations/0008.sql"),
    ),
];

/// Makes a database of a version, with rows of this version and of each before it, as servers of these versions would
/// have left them. Every table has rows.
pub(super) fn of_version(path: &Path, version: usize) -> Connection {
    assert!(
        version <= VERSIONS.len(),
        "add the step to version {version}, and rows of it, to VERSIONS"
    );
    let conn = files::file(path);
    conn.pragma_update(None, "foreign_keys", false).expect("a pragma");
    schema::add_function(&conn).expect("a function");
    for (at, (step, rows)) in VERSIONS.iter().enumerate().take(version) {
        conn.execute_batch(step).expect(step);
        conn.pragma_update(None, "user_version", i64::try_from(at + 1).expect("few"))
            .expect("a pragma");
        conn.execute_batch(rows).expect(rows);
    }
    let empty: Vec<String> =
        counts(&conn).into_iter().filter(|(_, rows)| *rows == 0).map(|(table, _)| table).collect();
    assert_eq!(empty, [""; 0], "version {version} has no rows in these tables");
    let broken: i64 = conn
        .query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| row.get(0))
        .expect("checks");
    assert_eq!(broken, 0, "the rows of version {version} do not fit together");
    conn
}

/// The number of rows of each table.
fn counts(conn: &Connection) -> BTreeMap<String, i64> {
    let mut tables = conn.prepare(schema::TABLES).expect("a query");
    let tables = tables.query_map([], |row| row.get::<_, String>(0)).expect("tables");
    let count = |table: rusqlite::Result<String>| {
        let table = table.expect("a name");
        let sql = format!("SELECT count(*) FROM {table}");
        let rows = conn.query_row(&sql, [], |row| row.get(0)).expect("a count");
        (table, rows)
    };
    tables.map(count).collect()
}

/// The builds as every version has them.
const BUILDS: &str =
    "SELECT group_concat(id || derivation || job || status || message || log_path, ';' ORDER BY id)
    FROM build";

#[tokio::test]
async fn every_version_is_migrated_with_its_rows_to_the_schema_of_a_new_file() {
    let place = tempfile::tempdir().expect("a directory");
    let new = place.path().join("new");
    open(&new).await.expect("opens").close().await.expect("closes");
    let document = files::schema_of(&files::file(StateDir::new(&new).database()));
    let builds = |conn: &Connection| -> String {
        conn.query_row(BUILDS, [], |row| row.get(0)).expect("builds")
    };
    for version in 1..schema::VERSION {
        let state = place.path().join(format!("version-{version}"));
        std::fs::create_dir(&state).expect("a directory");
        let path = StateDir::new(&state).database();
        let old = of_version(&path, version);
        let (before, built) = (counts(&old), builds(&old));
        drop(old);
        let database = open(&state).await.expect("migrates");
        // What pages and the scheduler ask first.
        let asked = database.read(|s| {
            let counts = queue_counts(s)?;
            let latest = latest_builds(s, &crate::model::BuildFilter::default(), 100)?;
            Ok((counts, latest.len(), specifications(s)?.len()))
        });
        let (_, latest, specifications) = asked.await.expect("reads");
        assert!(latest > 0 && specifications > 0, "{version}: {latest} {specifications}");
        database.close().await.expect("closes");
        let migrated = files::file(&path);
        assert_eq!(files::schema_of(&migrated), document, "from version {version}");
        assert_eq!(builds(&migrated), built, "from version {version}");
        let after = counts(&migrated);
        for (table, rows) in &before {
            assert_eq!(after.get(table), Some(rows), "{table} from version {version}");
        }
        let broken: i64 = migrated
            .query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| row.get(0))
            .expect("checks");
        assert_eq!(broken, 0, "from version {version}");
        let copy = files::file(state.join(format!("brigandine.db.schema-{version}")));
        assert_eq!((counts(&copy), builds(&copy)), (before, built), "the copy of {version}");
    }
}
