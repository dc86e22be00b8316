//! Builds of one derivation: whose end is whose.
//!
//! Mostly a derivation has one build, to which the jobs of all specifications are linked. What ends a build by
//! itself (success, or failure of its command) is the end of all of them. What ends it otherwise (a limit, a
//! cancel, a lost worker) says nothing about another specification: its jobs then get a build of their own, a
//! *twin*, which is scheduled. A job with a greater limit gets one when it is registered.
//!
//! W1: of twins one is started at a time; one that ends by itself takes the others along (`adopt`).
//! W2: a build that another specification asked for never fails for want of what ended so: it waits for the
//! twin instead.

use super::change::{changed, count};
use crate::model::{BuildId, BuildStatus, Changed, EvaluationId, SpecificationId};
use crate::store::database::Transaction;
use rusqlite::params;
use std::collections::{BTreeMap, BTreeSet};

/// Gives other specifications builds of their own instead of a build of `owner` that is about to end in a way
/// which is not theirs, and instead of what `owner` asked for and needs it. `was` is the state in which the
/// counters have the build.
pub(super) fn split(
    tx: &Transaction,
    id: BuildId,
    owner: SpecificationId,
    was: BuildStatus,
) -> rusqlite::Result<Vec<Changed>> {
    let mut split = Split { tx, twins: BTreeMap::new(), made: Vec::new() };
    let dead: BTreeSet<BuildId> = tx
        .prepare_cached(
            "WITH RECURSIVE dead (id) AS (
               SELECT ?1
               UNION
               SELECT d.build_id FROM dead CROSS JOIN dependency AS d ON d.needs_id = dead.id
               CROSS JOIN build AS b ON b.id = d.build_id
               WHERE b.specification_id = ?2 AND b.status = -2)
             SELECT id FROM dead",
        )?
        .query_map(params![id, owner], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    // What needs another one was registered after it, so its number is higher.
    for dead in dead {
        let was = if dead == id { was } else { BuildStatus::Scheduled };
        split.links(dead, owner, was)?;
        split.dependants(dead, owner)?;
    }
    Ok(split.made)
}

struct Split<'t> {
    tx: &'t Transaction,
    /// By specification and build.
    twins: BTreeMap<(SpecificationId, BuildId), BuildId>,
    made: Vec<Changed>,
}

impl Split<'_> {
    /// Links the jobs of other specifications to twins.
    fn links(
        &mut self,
        id: BuildId,
        owner: SpecificationId,
        was: BuildStatus,
    ) -> rusqlite::Result<()> {
        let jobs: Vec<(EvaluationId, String, SpecificationId)> = self
            .tx
            .prepare_cached(
                "SELECT j.evaluation_id, j.name, e.specification_id FROM job AS j
                 CROSS JOIN evaluation AS e ON e.id = j.evaluation_id
                 WHERE j.build_id = ?1 AND e.specification_id <> ?2",
            )?
            .query_map(params![id, owner], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<Result<_, _>>()?;
        let mut twins = BTreeSet::new();
        for (evaluation, name, specification) in jobs {
            let twin = self.twin(id, specification, evaluation, &name)?;
            self.tx
                .prepare_cached(
                    "UPDATE job SET build_id = ?3 WHERE evaluation_id = ?1 AND name = ?2 AND build_id = ?4",
                )?
                .execute(params![evaluation, name, twin, id])?;
            twins.insert(twin);
        }
        for twin in twins {
            if was != BuildStatus::Scheduled {
                count(self.tx, twin, was, BuildStatus::Scheduled)?;
            }
        }
        Ok(())
    }

    /// W2
    fn dependants(&mut self, id: BuildId, owner: SpecificationId) -> rusqlite::Result<()> {
        let foreign: Vec<(BuildId, SpecificationId, EvaluationId)> = self
            .tx
            .prepare_cached(
                "SELECT b.id, b.specification_id, b.evaluation_id FROM dependency AS d
                 CROSS JOIN build AS b ON b.id = d.build_id
                 WHERE d.needs_id = ?1 AND b.status = -2 AND b.specification_id <> ?2",
            )?
            .query_map(params![id, owner], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<Result<_, _>>()?;
        for (dependant, specification, evaluation) in foreign {
            let name: String = self
                .tx
                .prepare_cached("SELECT job FROM build WHERE id = ?1")?
                .query_row([id], |row| row.get(0))?;
            let twin = self.twin(id, specification, evaluation, &name)?;
            self.tx
                .prepare_cached(
                    "UPDATE dependency SET needs_id = ?3 WHERE build_id = ?1 AND needs_id = ?2",
                )?
                .execute(params![dependant, id, twin])?;
        }
        Ok(())
    }

    /// The build of a specification in the place of `id`, made if need be.
    fn twin(
        &mut self,
        id: BuildId,
        specification: SpecificationId,
        evaluation: EvaluationId,
        job: &str,
    ) -> rusqlite::Result<BuildId> {
        if let Some(twin) = self.twins.get(&(specification, id)) {
            return Ok(*twin);
        }
        let twin = BuildId::new(
            self.tx
                .prepare_cached(
                    "INSERT INTO build (derivation, derivation_key, specification_id, evaluation_id, job,
                     system, nix_name, priority, status, weather, backend, attempt, losses, waiting, message,
                     timeout_s, max_silent_s, submitted_at, started_at, stopped_at, log_path, log_bytes,
                     log_digest)
                     SELECT derivation, derivation_key, ?2, ?3, ?4, system, nix_name, priority, -2, -1, backend,
                     0, 0, 0, '', timeout_s, max_silent_s, submitted_at, 0, 0, '', 0, '' FROM build
                     WHERE id = ?1",
                )?
                .insert(params![id, specification, evaluation, job])?,
        );
        self.tx
            .prepare_cached(
                "INSERT INTO definition (build_id, text)
                 SELECT ?2, text FROM definition WHERE build_id = ?1",
            )?
            .execute(params![id, twin])?;
        let needs: Vec<(BuildId, String)> = self
            .tx
            .prepare_cached("SELECT needs_id, name FROM dependency WHERE build_id = ?1")?
            .query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        for (need, name) in needs {
            let need = self.twins.get(&(specification, need)).copied().unwrap_or(need);
            self.tx
                .prepare_cached(
                    "INSERT INTO dependency (build_id, needs_id, name) VALUES (?1, ?2, ?3)",
                )?
                .execute(params![twin, need, name])?;
        }
        let row = self
            .tx
            .prepare_cached(
                "UPDATE build SET waiting = (SELECT count(*) FROM dependency AS d
                   CROSS JOIN build AS n ON n.id = d.needs_id WHERE d.build_id = ?1 AND n.status <> 0)
                 WHERE id = ?1 RETURNING job, evaluation_id, specification_id",
            )?
            .query_row([twin], |row| changed(twin, BuildStatus::Scheduled, row))?;
        self.made.push(row);
        self.twins.insert((specification, id), twin);
        Ok(twin)
    }
}
