//! What one call costs, beside the same statement on a raw rusqlite connection.
//!
//! `cargo bench -p lockkeeper --bench calls`; the bench `figures` measures many concurrent callers.

#![expect(clippy::disallowed_methods, reason = "measures raw connections beside the library's")]

use std::cell::Cell;
use std::convert::Infallible;

use divan::Bencher;
use futures_lite::future::block_on;
use lockkeeper::Database;
use lockkeeper::queue::Worker;
use rusqlite::Connection;

#[path = "harness/place.rs"]
mod place;

use place::Place;

const SCHEMA: &str = "CREATE TABLE person (name TEXT PRIMARY KEY, age INTEGER)";
const INSERT: &str = "INSERT INTO person (name, age) VALUES (?1, 1)";
const SELECT: &str = "SELECT age FROM person WHERE name = ?1";

fn main() {
    divan::main();
}

fn raw(place: &Place) -> Connection {
    let conn = Connection::open(place.file("raw.db")).expect("open");
    conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).expect("WAL");
    conn.execute_batch(&format!("PRAGMA synchronous = FULL; {SCHEMA}")).expect("schema");
    conn
}

fn ours(place: &Place) -> Database {
    let db = Database::blocking_open(place.file("ours.db")).expect("open");
    db.blocking_write(|tx| tx.execute_batch(SCHEMA)).expect("schema");
    db
}

/// A key that was not used before.
fn key(next: &Cell<u64>) -> String {
    next.set(next.get() + 1);
    format!("{:016x}", next.get().wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

#[divan::bench]
fn queue_empty_call(bencher: Bencher<'_, '_>) {
    let worker =
        Worker::builder("bench").blocking_spawn(|| Ok::<_, Infallible>(0_u64)).expect("a worker");
    bencher.bench_local(|| worker.blocking_call(|count| *count += 1));
}

#[divan::bench]
fn write_raw(bencher: Bencher<'_, '_>) {
    let (place, next) = (Place::new(), Cell::new(0));
    let conn = raw(&place);
    bencher.with_inputs(|| key(&next)).bench_local_values(|key| {
        conn.prepare_cached(INSERT).and_then(|mut insert| insert.execute([key])).expect("insert")
    });
}

#[divan::bench]
fn write_blocking(bencher: Bencher<'_, '_>) {
    let (place, next) = (Place::new(), Cell::new(0));
    let db = ours(&place);
    bencher.with_inputs(|| key(&next)).bench_local_values(|key| {
        db.blocking_write(move |tx| tx.prepare_cached(INSERT)?.execute([&key])).expect("insert")
    });
}

#[divan::bench]
fn read_raw(bencher: Bencher<'_, '_>) {
    let place = Place::new();
    let conn = raw(&place);
    conn.execute(INSERT, ["ada"]).expect("insert");
    bencher.bench_local(|| {
        let mut select = conn.prepare_cached(SELECT).expect("prepare");
        select.query_row(["ada"], |row| row.get::<_, i64>(0)).expect("read")
    });
}

#[divan::bench]
fn read_on_a_reader(bencher: Bencher<'_, '_>) {
    read(bencher, false);
}

#[divan::bench]
fn read_short(bencher: Bencher<'_, '_>) {
    read(bencher, true);
}

fn read(bencher: Bencher<'_, '_>, short: bool) {
    let place = Place::new();
    let db = ours(&place);
    db.blocking_write(|tx| tx.execute(INSERT, ["ada"])).expect("insert");
    bencher.bench_local(|| {
        let read = db.read(|s| s.query_row(SELECT, ["ada"], |row| row.get::<_, i64>(0)));
        block_on(if short { read.short() } else { read }).expect("read")
    });
}
