//! Reads one build with everything that belongs to it, and the outputs and products of builds.

use super::row::{columns, from_row, select};
use crate::model::{
    Attempt, Build, BuildDetails, BuildId, EvaluationId, Output, Product, ProductId,
};
use crate::store::database::Snapshot;
use crate::store::derivations::{definition, derivation_key};
use crate::store::query::{Columns, Query, read};
use rusqlite::{Row, params};
use std::collections::HashMap;

/// One build.
pub fn build(s: &Snapshot, id: BuildId) -> rusqlite::Result<Option<Build>> {
    s.first(select!("WHERE b.id = ?1"), [id], from_row)
}

const BY_KEY: &str = select!("WHERE b.derivation_key = ?1 ORDER BY b.id DESC");

/// The builds whose derivation has this last component, as in `/build/BASENAME.drv`, the newest first. There are several
/// if an import brought them, or twins were made.
fn builds_by_basename(s: &Snapshot, basename: &str) -> rusqlite::Result<Vec<Build>> {
    let mut found: Vec<Build> = s.all(BY_KEY, [derivation_key(basename)], from_row)?;
    found.retain(|build| build.derivation.rsplit('/').next() == Some(basename));
    Ok(found)
}

/// The builds that are meant by a number, or by the last component of a derivation, the newest first.
pub(crate) fn builds_named(s: &Snapshot, id: &str) -> rusqlite::Result<Vec<Build>> {
    match id.parse::<i64>() {
        Ok(number) => Ok(build(s, BuildId::new(number))?.into_iter().collect()),
        Err(_) if id.ends_with(".drv") => builds_by_basename(s, id),
        Err(_) => Ok(Vec::new()),
    }
}

/// The outputs of these builds, read by one query for a whole page.
pub fn outputs(
    s: &Snapshot,
    builds: &[BuildId],
) -> rusqlite::Result<HashMap<BuildId, Vec<Output>>> {
    if let [one] = builds {
        let sql = "SELECT name, path FROM output WHERE build_id = ?1 ORDER BY name";
        let found = s.all(sql, [one], |row| Ok(Output { name: row.get(0)?, path: row.get(1)? }))?;
        return Ok(HashMap::from([(*one, found)]));
    }
    let sql = "SELECT build_id, name, path FROM output
         WHERE build_id IN (SELECT value FROM json_each(?1)) ORDER BY build_id, name";
    let found: Vec<(BuildId, Output)> = s.all(sql, [json_list(builds)], |row| {
        Ok((row.get(0)?, Output { name: row.get(1)?, path: row.get(2)? }))
    })?;
    Ok(by_build(found))
}

/// The products of these builds, read by one query for a whole page.
pub(crate) fn products(
    s: &Snapshot,
    builds: &[BuildId],
) -> rusqlite::Result<HashMap<BuildId, Vec<Product>>> {
    if let [one] = builds {
        let sql = "SELECT id, build_id, kind, path, name, bytes, checksum FROM product
             WHERE build_id = ?1 ORDER BY id";
        return Ok(HashMap::from([(*one, s.all(sql, [one], product_from_row)?)]));
    }
    let sql = "SELECT id, build_id, kind, path, name, bytes, checksum FROM product
         WHERE build_id IN (SELECT value FROM json_each(?1)) ORDER BY build_id, id";
    let found: Vec<Product> = s.all(sql, [json_list(builds)], product_from_row)?;
    Ok(by_build(found.into_iter().map(|product| (product.build, product))))
}

fn json_list(builds: &[BuildId]) -> String {
    let ids: Vec<String> = builds.iter().map(ToString::to_string).collect();
    format!("[{}]", ids.join(","))
}

fn by_build<T>(rows: impl IntoIterator<Item = (BuildId, T)>) -> HashMap<BuildId, Vec<T>> {
    let mut found: HashMap<_, Vec<_>> = HashMap::new();
    for (id, row) in rows {
        found.entry(id).or_default().push(row);
    }
    found
}

fn product_from_row(row: &Row<'_>) -> rusqlite::Result<Product> {
    let mut columns = Columns::of(row);
    Ok(read!(columns: Product { id, build, kind, path, name, bytes, checksum }))
}

/// One product, for `/download/ID`.
pub(crate) fn product(s: &Snapshot, id: ProductId) -> rusqlite::Result<Option<Product>> {
    let sql = "SELECT id, build_id, kind, path, name, bytes, checksum FROM product WHERE id = ?1";
    s.first(sql, [id], product_from_row)
}

/// The latest evaluations that have a build, at most `limit`, the oldest of them first.
pub(crate) fn evaluations_of_build(
    s: &Snapshot,
    id: BuildId,
    limit: u32,
) -> rusqlite::Result<Vec<EvaluationId>> {
    let sql = "SELECT evaluation_id FROM job WHERE build_id = ?1
         ORDER BY evaluation_id DESC LIMIT ?2";
    let mut evaluations: Vec<EvaluationId> = s.values(sql, params![id, limit])?;
    // Two jobs of an evaluation may have the same build.
    evaluations.dedup();
    evaluations.reverse();
    Ok(evaluations)
}

/// The builds that have an output in the state directory at this path, the newest first, at most `limit`.
pub(crate) fn builds_of_output(
    s: &Snapshot,
    path: &str,
    limit: u32,
) -> rusqlite::Result<Vec<Build>> {
    let sql = select!(
        "output AS o CROSS JOIN build AS b ON b.id = o.build_id",
        "WHERE o.path = ?1 AND substr(o.path, 1, 8) = 'outputs/'
         ORDER BY o.build_id DESC LIMIT ?2"
    );
    s.all(sql, params![path, limit], from_row)
}

/// The builds that a build needs, by their numbers, at most `limit`.
pub(crate) fn needs(s: &Snapshot, id: BuildId, limit: u32) -> rusqlite::Result<Vec<Build>> {
    let sql = select!(
        "dependency AS d CROSS JOIN build AS b ON b.id = d.needs_id",
        "WHERE d.build_id = ?1 ORDER BY d.needs_id LIMIT ?2"
    );
    s.all(sql, params![id, limit], from_row)
}

/// The attempts of a build, first to last.
fn attempts(s: &Snapshot, id: BuildId) -> rusqlite::Result<Vec<Attempt>> {
    let sql = "SELECT number, worker, status, message, started_at, stopped_at FROM attempt
         WHERE build_id = ?1 ORDER BY number";
    s.all(sql, [id], |row| {
        let mut columns = Columns::of(row);
        Ok(read!(columns: Attempt { number, worker, status, message, started_at, stopped_at }))
    })
}

/// The builds that need a build, by their numbers, at most `limit`.
pub(crate) fn needed_by(s: &Snapshot, id: BuildId, limit: u32) -> rusqlite::Result<Vec<Build>> {
    let sql = select!(
        "dependency AS d CROSS JOIN build AS b ON b.id = d.build_id",
        "WHERE d.needs_id = ?1 ORDER BY d.build_id LIMIT ?2"
    );
    s.all(sql, params![id, limit], from_row)
}

/// The most needed builds that a build's page shows.
pub(crate) const NEEDS_MAX: u32 = 10_000;

/// The most builds that need a build and that its page shows.
pub(crate) const NEEDED_BY_MAX: u32 = 100;

/// Everything that a build's page shows.
pub(crate) fn build_details(s: &Snapshot, id: BuildId) -> rusqlite::Result<Option<BuildDetails>> {
    let Some(build) = build(s, id)? else { return Ok(None) };
    Ok(Some(BuildDetails {
        outputs: outputs(s, &[id])?.remove(&id).unwrap_or_default(),
        products: products(s, &[id])?.remove(&id).unwrap_or_default(),
        attempts: attempts(s, id)?,
        needs: needs(s, id, NEEDS_MAX)?,
        needed_by: needed_by(s, id, NEEDED_BY_MAX)?,
        definition: definition(s, id)?,
        build,
    }))
}
