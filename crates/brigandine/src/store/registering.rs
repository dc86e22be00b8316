//! Evaluations as they happen: begun before anything runs, registered as a whole or not at all.

use super::database::Transaction;
use super::derivations::derivation_key;
use super::specifications::note_current;
use crate::model::{
    BuildId, BuildStatus, Checkout, EvaluationId, EvaluationStatus, SpecificationId, Timestamp,
};
use rusqlite::params;

/// What [`begin_evaluation`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// A new stamp: the row is stored, the evaluator may run.
    New(EvaluationId),
    /// A stamp whose evaluation was aborted, or could not be fetched: the row is started again.
    Again(EvaluationId),
    /// A known stamp: nothing is to be done.
    Known(EvaluationId, EvaluationStatus),
}

/// Stores an evaluation in state started, unless its stamp is known. In any case the inputs are at it. One that
/// failed by what the last look failed by, `error`, is begun again.
pub fn begin_evaluation(
    tx: &Transaction,
    specification: SpecificationId,
    stamp: &str,
    checkouts: &[Checkout],
    error: &str,
    now: Timestamp,
) -> rusqlite::Result<Begun> {
    let known: Option<(EvaluationId, EvaluationStatus, bool)> = tx
        .prepare_cached(
            "SELECT id, status, status = 2 OR (status = 1 AND message = ?3 AND ?3 <> '')
             FROM evaluation WHERE specification_id = ?1 AND stamp = ?2",
        )?
        .query_map(params![specification, stamp, error], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .next()
        .transpose()?;
    if let Some((id, status, again)) = known {
        note_current(tx, specification, id)?;
        if !again {
            return Ok(Begun::Known(id, status));
        }
        tx.prepare_cached(
            "UPDATE evaluation SET status = -1, message = '', created_at = ?2, checkout_at = 0,
             finished_at = 0, log_path = '' WHERE id = ?1 AND status IN (1, 2)",
        )?
        .execute(params![id, now])?;
        return Ok(Begun::Again(id));
    }
    let id = EvaluationId::new(
        tx.prepare_cached(
            "INSERT INTO evaluation (specification_id, stamp, status, message, created_at,
             checkout_at, finished_at, log_path, scheduled, started, succeeded, failed,
             failed_dependency, failed_other, canceled)
             VALUES (?1, ?2, -1, '', ?3, 0, 0, '', 0, 0, 0, 0, 0, 0, 0)",
        )?
        .insert(params![specification, stamp, now])?,
    );
    note_current(tx, specification, id)?;
    let mut insert = tx.prepare_cached(
        "INSERT INTO checkout (evaluation_id, position, input, revision, subject, author,
         revision_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for (position, checkout) in (0_i64..).zip(checkouts) {
        insert.execute(params![
            id,
            position,
            checkout.input,
            checkout.revision,
            checkout.subject,
            checkout.author,
            checkout.revision_at
        ])?;
    }
    Ok(Begun::New(id))
}

/// Notes that the checkouts are ready and the evaluator starts.
pub(crate) fn note_checkouts(
    tx: &Transaction,
    id: EvaluationId,
    now: Timestamp,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE evaluation SET checkout_at = max(?2, created_at) WHERE id = ?1 AND status = -1",
    )?
    .execute(params![id, now])?;
    Ok(())
}

/// Ends an evaluation without jobs. `false`: it had ended already, and nothing was changed.
pub(crate) fn end_evaluation(
    tx: &Transaction,
    id: EvaluationId,
    status: EvaluationStatus,
    message: &str,
    log_path: &str,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE evaluation SET status = ?2, message = ?3, log_path = ?4,
             finished_at = max(?5, created_at, checkout_at)
             WHERE id = ?1 AND status = -1",
        )?
        .execute(params![id, status, message, log_path, now])?;
    Ok(changed == 1)
}

/// A job as the evaluator gave it, checked, its derivation known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// Unique in the evaluation.
    pub name: String,
    /// What is built.
    pub derivation: String,
    /// What it is built for.
    pub system: String,
    /// The package's name and version, or the job's name.
    pub nix_name: String,
    /// Higher is built earlier.
    pub priority: i64,
    /// Seconds it may take; 0: the server's default.
    pub timeout_s: i64,
    /// Seconds it may be silent; 0: the server's default.
    pub max_silent_s: i64,
    /// JSON of [`crate::model::Definition`], when the `command` backend builds it.
    pub definition: Option<String>,
    /// What it needs: the name it knows it by, and its place among the jobs, which is earlier.
    pub needs: Vec<(String, usize)>,
}

/// The builds of a derivation, the newest first.
pub(super) const KNOWN: &str =
    "SELECT id, status, specification_id, timeout_s, max_silent_s FROM build
    WHERE derivation_key = ?1 AND derivation = ?2 ORDER BY id DESC";

/// A build of the derivation that a job names.
struct Known {
    id: BuildId,
    status: BuildStatus,
    specification: SpecificationId,
    timeout_s: i64,
    max_silent_s: i64,
}

impl Known {
    /// Whether its fate is that of whoever builds the derivation, with whatever limits.
    fn is_everybodys(&self) -> bool {
        matches!(self.status, BuildStatus::Succeeded | BuildStatus::Failed)
    }

    /// Whether a job of the specification may be linked to it. What ended by a limit, a cancel or a lost
    /// worker says nothing about another specification or a greater limit. Such a job has a build of its own,
    /// and so it has in the end if what is still pending now ends so: see `twins.rs`.
    fn serves(&self, job: &NewJob, specification: SpecificationId) -> bool {
        // 0 is the server's own limit, which is not known here.
        let greater =
            |wanted: i64, has: i64| wanted != has && (wanted == 0 || has == 0 || wanted > has);
        self.is_everybodys()
            || ((self.specification == specification || !self.status.is_finished())
                && !greater(job.timeout_s, self.timeout_s)
                && !greater(job.max_silent_s, self.max_silent_s))
    }
}

/// The build that a job is to be linked to, if one is known: the newest that succeeded before all others.
/// `needs` are the builds that the job's needs are linked to.
fn find(
    tx: &Transaction,
    job: &NewJob,
    key: i64,
    specification: SpecificationId,
    needs: &[(BuildId, BuildStatus)],
) -> rusqlite::Result<Option<(BuildId, BuildStatus)>> {
    let mut known = tx.prepare_cached(KNOWN)?;
    let mut rows = known.query(params![key, job.derivation])?;
    let mut best = None;
    while let Some(row) = rows.next()? {
        let known = Known {
            id: row.get(0)?,
            status: row.get(1)?,
            specification: row.get(2)?,
            timeout_s: row.get(3)?,
            max_silent_s: row.get(4)?,
        };
        if known.status.is_success() {
            return Ok(Some((known.id, known.status)));
        }
        if best.is_none()
            && known.serves(job, specification)
            && (known.is_everybodys() || waits_for(tx, known.id, needs)?)
        {
            best = Some((known.id, known.status));
        }
    }
    Ok(best)
}

/// Whether a build waits for these builds rather than for others of the same derivations.
fn waits_for(
    tx: &Transaction,
    id: BuildId,
    needs: &[(BuildId, BuildStatus)],
) -> rusqlite::Result<bool> {
    let mut edge = tx.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM dependency WHERE build_id = ?1 AND needs_id = ?2)",
    )?;
    for (need, _) in needs {
        if !edge.query_row(params![id, need], |row| row.get(0))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What [`register`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Registered {
    /// Builds that were not known.
    pub new: usize,
    /// Jobs linked to a build that was known.
    pub reused: usize,
}

/// Stores all jobs of an evaluation and ends it well, as a whole. A derivation already known is
/// linked, not built again. `None`: the evaluation had ended already, and nothing was stored.
///
/// `jobs` are in such an order that whatever a job needs stands before it.
pub fn register(
    tx: &Transaction,
    id: EvaluationId,
    jobs: &[NewJob],
    message: &str,
    log_path: &str,
    now: Timestamp,
) -> rusqlite::Result<Option<Registered>> {
    if !end_evaluation(tx, id, EvaluationStatus::Succeeded, message, log_path, now)? {
        return Ok(None);
    }
    let specification = tx
        .prepare_cached("SELECT specification_id FROM evaluation WHERE id = ?1")?
        .query_row([id], |row| row.get(0))?;
    let mut insert = tx.prepare_cached(
        "INSERT INTO build (derivation, derivation_key, specification_id, evaluation_id, job, system,
         nix_name, priority, status, weather, backend, attempt, losses, waiting, message, timeout_s,
         max_silent_s, submitted_at, started_at, stopped_at, log_path, log_bytes, log_digest)
         SELECT ?1, ?2, specification_id, id, ?4, ?5, ?6, ?7, ?8, -1, 0, 0, 0, ?9, ?10, ?11, ?12,
         ?13, 0, ?14, '', 0, '' FROM evaluation WHERE id = ?3",
    )?;
    let mut define =
        tx.prepare_cached("INSERT INTO definition (build_id, text) VALUES (?1, ?2)")?;
    let mut need = tx.prepare_cached(
        "INSERT OR IGNORE INTO dependency (build_id, needs_id, name) VALUES (?1, ?2, ?3)",
    )?;
    let mut link = tx.prepare_cached(
        "INSERT INTO job (evaluation_id, name, build_id, reused) VALUES (?1, ?2, ?3, ?4)",
    )?;
    let mut done = Registered::default();
    let mut builds: Vec<(BuildId, BuildStatus)> = Vec::with_capacity(jobs.len());
    for job in jobs {
        let key = derivation_key(&job.derivation);
        let needed: Vec<_> = job.needs.iter().map(|(_, place)| builds[*place]).collect();
        let found = find(tx, job, key, specification, &needed)?;
        let (build, status) = match found {
            Some(found) => {
                done.reused += 1;
                found
            }
            None => {
                done.new += 1;
                let mut needs: Vec<(BuildId, BuildStatus, &str)> = job
                    .needs
                    .iter()
                    .map(|(name, place)| (builds[*place].0, builds[*place].1, name.as_str()))
                    .collect();
                needs.sort_unstable();
                needs.dedup_by_key(|need| need.0);
                let waiting = needs.iter().filter(|need| !need.1.is_success()).count();
                let broken = needs.iter().find(|need| need.1.is_finished() && !need.1.is_success());
                let (status, message, stopped_at) = match broken {
                    Some((_, status, name)) => {
                        (BuildStatus::FailedDependency, format!("needs `{name}`: {status}"), now)
                    }
                    None => (BuildStatus::Scheduled, String::new(), 0),
                };
                let build = BuildId::new(insert.insert(params![
                    job.derivation,
                    key,
                    id,
                    job.name,
                    job.system,
                    job.nix_name,
                    job.priority,
                    status,
                    i64::try_from(waiting).unwrap_or(i64::MAX),
                    message,
                    job.timeout_s,
                    job.max_silent_s,
                    now,
                    stopped_at
                ])?);
                if let Some(text) = &job.definition {
                    define.execute(params![build, text])?;
                }
                for (needs_id, _, name) in needs {
                    need.execute(params![build, needs_id, name])?;
                }
                (build, status)
            }
        };
        link.execute(params![id, job.name, build, found.is_some()])?;
        builds.push((build, status));
    }
    // Counted once at the end rather than job by job: the row is written once.
    let count = |status| {
        let count = builds.iter().filter(|(_, found)| *found == status).count();
        i64::try_from(count).unwrap_or(i64::MAX)
    };
    tx.prepare_cached(
        "UPDATE evaluation SET scheduled = ?2, started = ?3, succeeded = ?4, failed = ?5,
         failed_dependency = ?6, failed_other = ?7, canceled = ?8 WHERE id = ?1",
    )?
    .execute(params![
        id,
        count(BuildStatus::Scheduled),
        count(BuildStatus::Started),
        count(BuildStatus::Succeeded),
        count(BuildStatus::Failed),
        count(BuildStatus::FailedDependency),
        count(BuildStatus::FailedOther),
        count(BuildStatus::Canceled)
    ])?;
    Ok(Some(done))
}
