//! What programs written for rusqlite can keep (A55): one function for connections, snapshots and transactions, and
//! rusqlite's methods, within the limits of their call.

use lockkeeper::rusqlite::types::Type;
use lockkeeper::rusqlite::{self, Error as Sql, ErrorCode};
use lockkeeper::{Executor, Queryable, Transaction};

use crate::support::{Dir, PLACES, Place, db_at, on_each_place};

/// Reads a table of names by every method of the trait.
fn look(db: &impl Queryable) -> rusqlite::Result<Vec<String>> {
    let all = "SELECT text FROM name ORDER BY id";
    let by = "SELECT text FROM name WHERE id = ?1";
    let mut found: Vec<String> =
        db.prepare(all)?.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    found.push(db.query_row(by, [1], |row| row.get(0))?);
    found.push(db.query_one(by, [2], |row| row.get(0))?);
    found.push(db.query_row_and_then(by, [1], |row| row.get(0))?);
    let mut columns = Vec::new();
    db.pragma(Some("main"), "table_info", "name", |row| {
        columns.push(row.get::<_, String>("name")?);
        Ok(())
    })?;
    found.extend(columns);
    db.pragma_query(None, "table_info(name)", |_| Ok(())).expect_err("no name of a PRAGMA");
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    assert_eq!(db.pragma_query_one::<i64>(Some("main"), "user_version")?, version);
    found.push(version.to_string());
    for (schema, table) in
        [(None, "name"), (Some("main"), "NAME"), (Some("temp"), "name"), (None, "no")]
    {
        found.push(db.table_exists(schema, table)?.to_string());
        found.push(db.column_exists(schema, table, "Text")?.to_string());
    }
    let mut statement =
        db.prepare_cached("SELECT text AS t, id FROM name WHERE id = :id AND ?2")?;
    statement.raw_bind_parameter(":id", 2)?;
    statement.raw_bind_parameter(2, true)?;
    found.push(statement.raw_query()?.next()?.expect("a row").get(0)?);
    found.extend(statement.columns().iter().map(|column| column.name().to_owned()));
    found.push(format!("{:?}", statement.columns()[0].decl_type()));
    found.push(format!("{} {}", statement.column_name(1)?, statement.column_index("ID")?));
    found.push(format!("{:?} {:?}", statement.parameter_name(1), statement.parameter_name(2)));
    found.push(format!("{} {}", statement.parameter_count(), statement.is_explain()));
    let mut blob = db.blob_open("main", "name", "text", 1, true)?;
    let mut bytes = [0; 2];
    blob.read_at_exact(&mut bytes, 1)?;
    found.push(String::from_utf8_lossy(&bytes).into_owned());
    Ok(found)
}

fn found() -> Vec<String> {
    [
        "Ada",
        "Bob",
        "Ada",
        "Bob",
        "Ada",
        "id",
        "text",
        "7",
        "true",
        "true",
        "true",
        "true",
        "false",
        "false",
        "false",
        "false",
        "Bob",
        "t",
        "id",
        "Some(\"TEXT\")",
        "id 1",
        "Some(\":id\") Some(\"?2\")",
        "2 0",
        "da",
    ]
    .map(String::from)
    .to_vec()
}

fn fill(db: &impl Executor) -> rusqlite::Result<[u64; 3]> {
    db.execute_batch("CREATE TABLE name (id INTEGER PRIMARY KEY, text TEXT)")?;
    let before = db.total_changes();
    assert_eq!(db.execute("INSERT INTO name (text) VALUES (?1), (?2)", ["Ada", "Bob"])?, 2);
    db.pragma_update(None, "user_version", 7)?;
    Ok([db.last_insert_rowid().unsigned_abs(), db.changes(), db.total_changes() - before])
}

#[test]
fn a55_one_function_serves_connections_snapshots_and_transactions() {
    on_each_place(|db, _| {
        assert_eq!(db.blocking_write(fill).expect("a write"), [2, 2, 2]);
        assert_eq!(db.blocking_write(look).expect("a write"), found());
        assert_eq!(db.blocking_read(look).expect("a read"), found());
        let short = db.read(look).short();
        assert_eq!(futures_lite::future::block_on(short).expect("a short read"), found());
        db.blocking_exclusive(|conn| {
            assert_eq!(look(conn)?, found());
            conn.execute_batch("DROP TABLE name")?;
            let mut tx = conn.transaction()?;
            assert_eq!(fill(&tx)?, [2, 2, 2]);
            assert_eq!(look(&tx)?, found());
            let savepoint = tx.savepoint()?;
            assert_eq!(look(&savepoint)?, found());
            savepoint.commit()?;
            tx.commit()
        })
        .expect("an exclusive call");
        let mut lease = futures_lite::future::block_on(db.lease()).expect("a lease");
        assert_eq!(lease.blocking_run(look).expect("a call of a lease"), found());
    });
    let dir = Dir::new();
    let filled = dir.builder(Place::Memory).setup(|conn| {
        fill(conn)?;
        assert_eq!(look(conn)?, found());
        conn.execute_batch("DROP TABLE name")
    });
    filled.blocking_open().expect("the function serves `setup` as well");
}

#[test]
fn a55_a_row_is_mapped_with_errors_of_ones_own() {
    #[derive(Debug, PartialEq)]
    enum Own {
        Odd(i64),
        Sql(Sql),
    }

    impl From<Sql> for Own {
        fn from(error: Sql) -> Self {
            Self::Sql(error)
        }
    }

    on_each_place(|db, _| {
        let own = db.with_error::<Own>();
        let even = |sql: &'static str| {
            let even = own.blocking_write(|tx| {
                tx.query_row_and_then(sql, [], |row| match row.get(0)? {
                    id if id % 2 == 0 => Ok(id),
                    odd => Err(Own::Odd(odd)),
                })
            });
            even.map_err(|error| error.into_call().expect("the closure's own"))
        };
        assert_eq!(even("INSERT INTO t VALUES (2, 0) RETURNING id"), Ok(2));
        assert_eq!(even("INSERT INTO t VALUES (3, 0) RETURNING id"), Err(Own::Odd(3)));
        assert_eq!(even("SELECT id FROM t WHERE id = 9"), Err(Own::Sql(Sql::QueryReturnedNoRows)));
        // The error of the mapping function undoes the row that the statement wrote.
        let count = "SELECT count(*) FROM t";
        assert_eq!(db.blocking_read(|s| s.query_row(count, [], |row| row.get(0))).ok(), Some(1));
    });
}

#[test]
fn a55_pragmas_take_a_schema_and_any_value_and_are_undone_with_their_call() {
    for place in PLACES {
        let (_dir, db) = db_at(place, |builder| {
            builder.setup(|conn| conn.execute_batch("ATTACH ':memory:' AS \"odd\"\"name\""))
        });
        let version = |schema: Option<&'static str>| {
            db.blocking_write(move |tx| {
                tx.pragma_query_value(schema, "user_version", |row| row.get::<_, i64>(0))
            })
        };
        let set = |good: bool| {
            db.blocking_write(move |tx| {
                tx.pragma_update(Some("main"), "user_version", 3)?;
                tx.pragma_update(Some("odd\"name"), "user_version", "4")?;
                let _: i64 = tx
                    .pragma_update_and_check(None, "defer_foreign_keys", true, |row| row.get(0))
                    .or_else(|error| match error {
                        Sql::QueryReturnedNoRows => Ok(0),
                        error => Err(error),
                    })?;
                if good { Ok(()) } else { Err(Sql::InvalidQuery) }
            })
        };
        set(false).expect_err("it fails");
        let zero = [version(None).expect("a read"), version(Some("odd\"name")).expect("a read")];
        assert_eq!(zero, [0, 0]);
        set(true).expect("a write");
        let both =
            [version(Some("MAIN")).expect("a read"), version(Some("odd\"name")).expect("a read")];
        assert_eq!(both, [3, 4]);
        for (name, value) in [("cache_size", 1), ("synchronous", 0), ("foreign_keys", 0)] {
            let refused = db.blocking_write(move |tx| tx.pragma_update(None, name, value));
            let error = refused.expect_err("it is the connection's").into_call().expect("SQLite's");
            assert_eq!(error.sqlite_error_code(), Some(ErrorCode::AuthorizationForStatementDenied));
        }
        for name in ["user_version = 9; --", "main.user_version", "", "user version"] {
            let refused = db.blocking_write(move |tx| tx.pragma_update(None, name, 9));
            let error = refused.expect_err("it is no name").into_call().expect("SQLite's");
            assert_eq!(error.sqlite_error_code(), Some(ErrorCode::ApiMisuse), "{error}");
        }
        assert_eq!(version(None).expect("a read"), 3);
    }
}

#[test]
fn a55_counters_and_the_state_of_the_transaction_are_the_calls_own() {
    on_each_place(|db, _| {
        let three = "INSERT INTO t VALUES (1, 0), (2, 0), (3, 0)";
        let state = |tx: &Transaction| (tx.total_changes(), tx.changes(), tx.is_autocommit());
        let first = db.blocking_write(|tx| {
            tx.execute(three, [])?;
            tx.execute("UPDATE t SET v = 1 WHERE id = 1", [])?;
            Ok(state(tx))
        });
        assert_eq!(first.expect("a write"), (4, 1, false));
        assert_eq!(db.blocking_write(|tx| Ok(state(tx))).expect("a write"), (0, 0, false));
        assert!(!db.blocking_read(|s| Ok(s.is_autocommit())).expect("a read"));
        let lost = db.blocking_write(|tx| {
            let mut later = tx.prepare("INSERT INTO t VALUES (?1, 0)")?;
            later.raw_bind_parameter(1, 9)?;
            tx.execute("INSERT OR ROLLBACK INTO t VALUES (1, 1)", []).expect_err("it is there");
            assert!(tx.is_autocommit());
            // Without the check, these statements would run and be committed by themselves.
            later.raw_execute().expect_err("there is no transaction");
            assert!(later.raw_query().is_err() && tx.table_exists(None, "t").is_err());
            Ok(())
        });
        lost.expect_err("its transaction was lost");
        let count = "SELECT count(*) FROM t";
        assert_eq!(db.blocking_read(|s| s.query_row(count, [], |row| row.get(0))).ok(), Some(3));
    });
}

#[test]
fn a55_what_a_call_binds_to_a_cached_statement_no_other_finds_bound() {
    on_each_place(|db, _| {
        let bound = |bind: bool| {
            db.blocking_read(|s| {
                let mut statement = s.prepare_cached("SELECT ?1")?;
                if bind {
                    statement.raw_bind_parameter(1, 5)?;
                }
                let kind = statement.raw_query()?.next()?.expect("a row").get_ref(0)?.data_type();
                if bind {
                    statement.clear_bindings();
                    let now =
                        statement.raw_query()?.next()?.expect("a row").get_ref(0)?.data_type();
                    assert_eq!(now, Type::Null);
                    statement.raw_bind_parameter(1, 6)?;
                }
                statement.finalize()?;
                Ok(kind)
            })
        };
        assert_eq!(bound(true).expect("a read"), Type::Integer);
        assert_eq!(bound(false).expect("a read"), Type::Null);
    });
}
