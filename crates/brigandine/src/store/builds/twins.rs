//! Builds of one derivation: which of them share an end.
//!
//! Usually a derivation has one build, to which the jobs of all specifications are linked. If the build ends by itself
//! (it succeeds, or its command fails), this end holds for all of them. Any other end (a limit, a cancel, a lost
//! worker) holds only for the specification that owns the build. Jobs of other specifications then get a build of their
//! own, a *twin*, which is scheduled. A job with a greater limit than the build gets a twin when the job is registered.
//!
//! - TWIN1: only one of several twins is started at a time. When it ends by itself, the others get the same end
//!   (`adopt`).
//! - TWIN2: if a build does not end by itself, it never fails the builds of another specification: those wait for the
//!   twin instead. Jobs of evaluations that want no builds any more get none.

use super::change::{changed, count};
use crate::model::{BuildId, BuildStatus, Changed, EvaluationId, SpecificationId};
use crate::store::database::Transaction;
use crate::store::query::Query;
use rusqlite::params;
use std::collections::{BTreeMap, BTreeSet};

/// Makes twins for other specifications when a build of `owner` gets an end that holds only for `owner`: twins of this
/// build, and of the builds of `owner` that need it. `was` is the status of the build in the counters.
pub(super) fn split(
    tx: &Transaction,
    id: BuildId,
    owner: SpecificationId,
    was: BuildStatus,
) -> rusqlite::Result<Vec<Changed>> {
    let mut split = Split { tx, twins: BTreeMap::new(), made: Vec::new() };
    let sql = "WITH RECURSIVE dead (id) AS (
           SELECT ?1
           UNION
           SELECT d.build_id FROM dead CROSS JOIN dependency AS d ON d.needs_id = dead.id
           CROSS JOIN build AS b ON b.id = d.build_id
           WHERE b.specification_id = ?2 AND b.status = -2)
         SELECT id FROM dead";
    // The builds are visited in the order of their numbers. A build usually has a higher number than the builds that it
    // needs, so their twins are made first.
    let dead: BTreeSet<BuildId> = tx.values(sql, params![id, owner])?;
    for dead in dead {
        let was = if dead == id { was } else { BuildStatus::Scheduled };
        split.links(dead, owner, was)?;
        split.dependants(dead, owner)?;
    }
    Ok(split.made)
}

struct Split<'t> {
    tx: &'t Transaction,
    /// The twins that were made, by specification and original build.
    twins: BTreeMap<(SpecificationId, BuildId), BuildId>,
    made: Vec<Changed>,
}

impl Split<'_> {
    /// Links the jobs of other specifications to their twins of the build.
    fn links(
        &mut self,
        id: BuildId,
        owner: SpecificationId,
        was: BuildStatus,
    ) -> rusqlite::Result<()> {
        let sql = "SELECT j.evaluation_id, j.name, e.specification_id FROM job AS j
             CROSS JOIN evaluation AS e ON e.id = j.evaluation_id
             WHERE j.build_id = ?1 AND e.specification_id <> ?2
             AND NOT EXISTS (SELECT 1 FROM withdrawn_evaluation AS w WHERE w.evaluation_id = e.id)";
        let jobs: Vec<(EvaluationId, String, SpecificationId)> =
            self.tx.all(sql, params![id, owner], |row| row.try_into())?;
        let mut twins = BTreeSet::new();
        for (evaluation, name, specification) in jobs {
            let twin = self.twin(id, specification, evaluation, &name)?;
            let sql = "UPDATE job SET build_id = ?3
                 WHERE evaluation_id = ?1 AND name = ?2 AND build_id = ?4";
            self.tx.execute(sql, params![evaluation, name, twin, id])?;
            twins.insert(twin);
        }
        for twin in twins {
            if was != BuildStatus::Scheduled {
                count(self.tx, twin, was, BuildStatus::Scheduled)?;
            }
        }
        Ok(())
    }

    /// Makes the scheduled builds of other specifications wait for the twins (TWIN2).
    fn dependants(&mut self, id: BuildId, owner: SpecificationId) -> rusqlite::Result<()> {
        let sql = "SELECT b.id, b.specification_id, b.evaluation_id FROM dependency AS d
             CROSS JOIN build AS b ON b.id = d.build_id
             WHERE d.needs_id = ?1 AND b.status = -2 AND b.specification_id <> ?2";
        let foreign: Vec<(BuildId, SpecificationId, EvaluationId)> =
            self.tx.all(sql, params![id, owner], |row| row.try_into())?;
        for (dependant, specification, evaluation) in foreign {
            let sql = "SELECT job FROM build WHERE id = ?1";
            let name: String = self.tx.query_row(sql, [id], |row| row.get(0))?;
            let twin = self.twin(id, specification, evaluation, &name)?;
            let sql = "UPDATE dependency SET needs_id = ?3 WHERE build_id = ?1 AND needs_id = ?2";
            self.tx.execute(sql, params![dependant, id, twin])?;
        }
        Ok(())
    }

    /// The twin of `id` for a specification. Makes it if there is none yet.
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
        let tx = self.tx;
        let sql =
            "INSERT INTO build (derivation, derivation_key, specification_id, evaluation_id, job,
             system, nix_name, priority, status, weather, backend, attempt, losses, waiting, message,
             timeout_s, max_silent_s, submitted_at, started_at, stopped_at, log_path, log_bytes,
             log_digest)
             SELECT derivation, derivation_key, ?2, ?3, ?4, system, nix_name, priority, -2, -1, backend,
             0, 0, 0, '', timeout_s, max_silent_s, submitted_at, 0, 0, '', 0, '' FROM build
             WHERE id = ?1";
        let values = params![id, specification, evaluation, job];
        let twin = BuildId::new(tx.prepare_cached(sql)?.insert(values)?);
        let sql = "INSERT INTO definition (build_id, text)
             SELECT ?2, text FROM definition WHERE build_id = ?1";
        tx.execute(sql, params![id, twin])?;
        let sql = "SELECT needs_id, name FROM dependency WHERE build_id = ?1";
        let needs: Vec<(BuildId, String)> = tx.all(sql, [id], |row| row.try_into())?;
        for (need, name) in needs {
            let need = self.twins.get(&(specification, need)).copied().unwrap_or(need);
            let sql = "INSERT INTO dependency (build_id, needs_id, name) VALUES (?1, ?2, ?3)";
            tx.execute(sql, params![twin, need, name])?;
        }
        let sql = "UPDATE build SET waiting = (SELECT count(*) FROM dependency AS d
               CROSS JOIN build AS n ON n.id = d.needs_id WHERE d.build_id = ?1 AND n.status <> 0)
             WHERE id = ?1 RETURNING job, evaluation_id, specification_id";
        self.made
            .push(tx.query_row(sql, [twin], |row| changed(twin, BuildStatus::Scheduled, row))?);
        self.twins.insert((specification, id), twin);
        Ok(twin)
    }
}
