//! One build with everything that belongs to it, and what builds left.

use super::row::{columns, from_row, select};
use crate::model::{Attempt, Build, BuildDetails, BuildId, Output, Product, ProductId};
use crate::store::database::Snapshot;
use rusqlite::{Row, params};
use std::collections::HashMap;

/// One build.
pub fn build(s: &Snapshot, id: BuildId) -> rusqlite::Result<Option<Build>> {
    s.prepare_cached(select!("WHERE b.id = ?1"))?.query_map([id], from_row)?.next().transpose()
}

pub(super) const BY_KEY: &str = select!("WHERE b.derivation_key = ?1 ORDER BY b.id DESC");

/// The build whose derivation ends with this component, as in `/build/BASENAME.drv`; the newest,
/// where an import brought several.
fn build_by_basename(s: &Snapshot, basename: &str) -> rusqlite::Result<Option<Build>> {
    for build in s
        .prepare_cached(BY_KEY)?
        .query_map([crate::store::derivations::derivation_key(basename)], from_row)?
    {
        let build = build?;
        if build.derivation.rsplit('/').next() == Some(basename) {
            return Ok(Some(build));
        }
    }
    Ok(None)
}

/// A build by its number or by the last component of its derivation.
pub(crate) fn build_named(s: &Snapshot, id: &str) -> rusqlite::Result<Option<Build>> {
    match id.parse::<i64>() {
        Ok(number) => build(s, BuildId::new(number)),
        Err(_) if id.ends_with(".drv") => build_by_basename(s, id),
        Err(_) => Ok(None),
    }
}

/// The outputs of these builds, in one query: fetched for a whole page.
pub fn outputs(
    s: &Snapshot,
    builds: &[BuildId],
) -> rusqlite::Result<HashMap<BuildId, Vec<Output>>> {
    if let [one] = builds {
        let mut statement =
            s.prepare_cached("SELECT name, path FROM output WHERE build_id = ?1 ORDER BY name")?;
        let rows = statement
            .query_map([one], |row| Ok(Output { name: row.get(0)?, path: row.get(1)? }))?;
        return Ok(HashMap::from([(*one, rows.collect::<rusqlite::Result<_>>()?)]));
    }
    let mut found: HashMap<_, Vec<_>> = HashMap::new();
    let ids = id_list(builds);
    let mut statement = s.prepare_cached(
        "SELECT build_id, name, path FROM output
         WHERE build_id IN (SELECT value FROM json_each(?1)) ORDER BY build_id, name",
    )?;
    let rows = statement.query_map([ids], |row| {
        Ok((row.get(0)?, Output { name: row.get(1)?, path: row.get(2)? }))
    })?;
    for row in rows {
        let (id, output) = row?;
        found.entry(id).or_default().push(output);
    }
    Ok(found)
}

fn id_list(builds: &[BuildId]) -> String {
    let ids: Vec<String> = builds.iter().map(ToString::to_string).collect();
    format!("[{}]", ids.join(","))
}

/// The products of these builds, in one query: fetched for a whole page.
pub(crate) fn products(
    s: &Snapshot,
    builds: &[BuildId],
) -> rusqlite::Result<HashMap<BuildId, Vec<Product>>> {
    if let [one] = builds {
        let mut statement = s.prepare_cached(
            "SELECT id, build_id, kind, path, name, bytes, checksum FROM product
             WHERE build_id = ?1 ORDER BY id",
        )?;
        let rows = statement.query_map([one], product_from_row)?;
        return Ok(HashMap::from([(*one, rows.collect::<rusqlite::Result<_>>()?)]));
    }
    let mut found: HashMap<_, Vec<_>> = HashMap::new();
    let mut statement = s.prepare_cached(
        "SELECT id, build_id, kind, path, name, bytes, checksum FROM product
         WHERE build_id IN (SELECT value FROM json_each(?1)) ORDER BY build_id, id",
    )?;
    for row in statement.query_map([id_list(builds)], product_from_row)? {
        let product = row?;
        found.entry(product.build).or_default().push(product);
    }
    Ok(found)
}

fn product_from_row(row: &Row<'_>) -> rusqlite::Result<Product> {
    Ok(Product {
        id: row.get(0)?,
        build: row.get(1)?,
        kind: row.get(2)?,
        path: row.get(3)?,
        name: row.get(4)?,
        bytes: row.get(5)?,
        checksum: row.get(6)?,
    })
}

/// One product, for `/download/ID`.
pub(crate) fn product(s: &Snapshot, id: ProductId) -> rusqlite::Result<Option<Product>> {
    s.prepare_cached(
        "SELECT id, build_id, kind, path, name, bytes, checksum FROM product WHERE id = ?1",
    )?
    .query_map([id], product_from_row)?
    .next()
    .transpose()
}

/// The attempts of a build, first to last.
pub(crate) fn attempts(s: &Snapshot, id: BuildId) -> rusqlite::Result<Vec<Attempt>> {
    s.prepare_cached(
        "SELECT number, worker, status, message, started_at, stopped_at FROM attempt
         WHERE build_id = ?1 ORDER BY number",
    )?
    .query_map([id], |row| {
        Ok(Attempt {
            number: row.get(0)?,
            worker: row.get(1)?,
            status: row.get(2)?,
            message: row.get(3)?,
            started_at: row.get(4)?,
            stopped_at: row.get(5)?,
        })
    })?
    .collect()
}

/// Everything a page about one build shows.
pub(crate) fn build_details(s: &Snapshot, id: BuildId) -> rusqlite::Result<Option<BuildDetails>> {
    let Some(build) = build(s, id)? else { return Ok(None) };
    let needs = s
        .prepare_cached(select!(
            "dependency AS d CROSS JOIN build AS b ON b.id = d.needs_id",
            "WHERE d.build_id = ?1 ORDER BY d.needs_id"
        ))?
        .query_map(params![id], from_row)?
        .collect::<Result<_, _>>()?;
    let needed_by = s
        .prepare_cached(select!(
            "dependency AS d CROSS JOIN build AS b ON b.id = d.build_id",
            "WHERE d.needs_id = ?1 ORDER BY d.build_id LIMIT 100"
        ))?
        .query_map(params![id], from_row)?
        .collect::<Result<_, _>>()?;
    Ok(Some(BuildDetails {
        outputs: outputs(s, &[id])?.remove(&id).unwrap_or_default(),
        products: products(s, &[id])?.remove(&id).unwrap_or_default(),
        attempts: attempts(s, id)?,
        needs,
        needed_by,
        definition: crate::store::derivations::definition(s, id)?,
        build,
    }))
}
