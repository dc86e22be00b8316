//! A slice of builds that one transaction stores, and the counts that the slice changes.

use super::begin::UNKNOWN_AT;
use super::outcome::Imported;
use super::source::{CuirassBuild, CuirassError};
use crate::model::{BuildStatus, Weather};
use crate::store::query::integer;
use rusqlite::{Connection, params};
use std::collections::HashMap;

/// The builds that one transaction stores, with the counts that they change.
#[derive(Default)]
pub(super) struct Slice {
    pub(super) builds: usize,
    last_build: i64,
    outputs: i64,
    rescheduled: i64,
    logs: i64,
    /// By evaluation: how many builds have each status (the first entry is for status -2), and the earliest submission.
    evaluations: HashMap<i64, ([i64; 7], i64)>,
    /// The number of builds, by status and specification, then by system.
    counts: HashMap<(i64, i64), HashMap<String, i64>>,
    jobs: Vec<(i64, String, i64)>,
}

impl Slice {
    /// Stores builds with their outputs. `of` maps each evaluation to its specification. Builds that belong to nothing are
    /// left out (`unplaced.rs` counts them).
    pub(super) fn store(
        &mut self,
        tx: &Connection,
        batch: Vec<CuirassBuild>,
        of: &HashMap<i64, i64>,
    ) -> Result<(), CuirassError> {
        let mut insert = tx.prepare_cached(
            "INSERT INTO build (id, derivation, derivation_key, specification_id, evaluation_id,
             job, system, nix_name, priority, status, weather, backend, attempt, losses, waiting,
             message, timeout_s, max_silent_s, submitted_at, started_at, stopped_at, log_path,
             log_bytes, log_digest)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 1, 0, 0, 0, '', ?12, ?13, ?14,
             ?15, ?16, '', 0, '')",
        )?;
        let mut output =
            tx.prepare_cached("INSERT INTO output (build_id, name, path) VALUES (?1, ?2, ?3)")?;
        for mut build in batch {
            self.last_build = build.id;
            let Some((specification, job)) = build.place(of) else { continue };
            if build.status == BuildStatus::Started {
                // Rescheduled, as Cuirass does when it starts, because no process runs the build any more.
                build.status = BuildStatus::Scheduled;
                self.rescheduled += 1;
            }
            if build.status.is_finished() {
                // Cuirass gives some canceled builds no stop time.
                build.stopped_at =
                    build.stopped_at.max(build.started_at).max(build.timestamp).max(1);
            } else {
                (build.started_at, build.stopped_at) = (0, 0);
                build.weather = Weather::Unknown;
            }
            insert.execute(params![
                build.id,
                build.derivation,
                build.derivation_key,
                specification,
                build.evaluation,
                job,
                build.system,
                build.nix_name,
                build.priority,
                build.status,
                build.weather,
                build.timeout_s.max(0),
                build.max_silent_s.max(0),
                build.timestamp,
                build.started_at,
                build.stopped_at,
            ])?;
            for (name, path) in &build.outputs {
                output.execute(params![build.id, name, path])?;
                self.outputs += 1;
            }
            let place = usize::try_from(build.status.code() + 2).unwrap_or(0);
            let (statuses, first) =
                self.evaluations.entry(build.evaluation).or_insert(([0; 7], i64::MAX));
            if let Some(count) = statuses.get_mut(place) {
                *count += 1;
            }
            *first = (*first).min(build.timestamp.max(UNKNOWN_AT));
            let systems = self.counts.entry((build.status.code(), specification)).or_default();
            match systems.get_mut(&build.system) {
                Some(count) => *count += 1,
                None => drop(systems.insert(build.system, 1)),
            }
            self.logs += i64::from(build.has_log);
            self.builds += 1;
            self.jobs.push((build.evaluation, job, build.id));
        }
        Ok(())
    }

    /// Stores the counts that the builds change, and adds them to `done`.
    pub(super) fn end(self, tx: &Connection, done: &mut Imported) -> rusqlite::Result<()> {
        let Self { builds, last_build, outputs, rescheduled, logs, evaluations, counts, mut jobs } =
            self;
        let builds = integer(builds);
        jobs.sort_unstable();
        let mut insert = tx.prepare_cached(
            "INSERT INTO job (evaluation_id, name, build_id, reused) VALUES (?1, ?2, ?3, 0)",
        )?;
        for (evaluation, name, build) in jobs {
            insert.execute(params![evaluation, name, build])?;
        }
        let mut update = tx.prepare_cached(
            "UPDATE evaluation SET scheduled = scheduled + ?2, started = started + ?3,
             succeeded = succeeded + ?4, failed = failed + ?5,
             failed_dependency = failed_dependency + ?6, failed_other = failed_other + ?7,
             canceled = canceled + ?8,
             created_at = CASE WHEN created_at = 1 THEN ?9 ELSE created_at END,
             checkout_at = CASE WHEN checkout_at = 1 THEN ?9 ELSE checkout_at END,
             finished_at = CASE WHEN finished_at = 1 THEN ?9 ELSE finished_at END
             WHERE id = ?1",
        )?;
        for (id, ([a, b, c, d, e, f, g], first)) in &evaluations {
            update.execute(params![id, a, b, c, d, e, f, g, first])?;
        }
        let mut count = tx.prepare_cached(
            "INSERT INTO build_count (status, specification_id, system, builds)
             VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (status, specification_id, system)
             DO UPDATE SET builds = builds + excluded.builds",
        )?;
        for ((status, specification), systems) in &counts {
            for (system, builds) in systems {
                count.execute(params![status, specification, system, builds])?;
            }
        }
        tx.prepare_cached(
            "UPDATE import SET builds = builds + ?1, last_build = max(last_build, ?2),
             outputs = outputs + ?3, rescheduled = rescheduled + ?4, logs = logs + ?5",
        )?
        .execute(params![builds, last_build, outputs, rescheduled, logs])?;
        done.builds += builds;
        done.outputs += outputs;
        done.rescheduled += rescheduled;
        done.logs += logs;
        Ok(())
    }
}
