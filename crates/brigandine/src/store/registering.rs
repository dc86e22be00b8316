//! The life of an evaluation: it is begun before anything runs, and its jobs are registered as a whole or not at all.

use super::database::Transaction;
use super::derivations::derivation_key;
use super::query::{Columns, Query, integer, read};
use super::specifications::note_current;
use crate::model::{
    BuildId, BuildStatus, Checkout, EvaluationId, EvaluationStatus, SpecificationId, Timestamp,
};
use lockkeeper::Statement;
use rusqlite::params;

/// What [`begin_evaluation`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// The stamp is new: the row is stored, and the evaluator may run.
    New(EvaluationId),
    /// The stamp is known. Its evaluation was aborted, or failed with the message of the last failed look, and is
    /// started again.
    Again(EvaluationId),
    /// The stamp is known: nothing has to run.
    Known(EvaluationId, EvaluationStatus),
}

/// Stores an evaluation in state started, unless its stamp is known, and notes it as the evaluation of the revisions
/// that the inputs have now. A known evaluation is begun again if it was aborted, or if it failed with the message
/// `error`, which is that of the last failed look; but not if it was canceled (WISH3 in `wishes.rs`).
pub fn begin_evaluation(
    tx: &Transaction,
    specification: SpecificationId,
    stamp: &str,
    checkouts: &[Checkout],
    error: &str,
    now: Timestamp,
) -> rusqlite::Result<Begun> {
    let sql = "SELECT id, status, (status = 2 OR (status = 1 AND message = ?3 AND ?3 <> ''))
           AND NOT EXISTS (SELECT 1 FROM withdrawn_evaluation AS w WHERE w.evaluation_id = id)
         FROM evaluation WHERE specification_id = ?1 AND stamp = ?2";
    let known: Option<(EvaluationId, EvaluationStatus, bool)> =
        tx.first(sql, params![specification, stamp, error], |row| row.try_into())?;
    if let Some((id, status, again)) = known {
        note_current(tx, specification, id)?;
        if !again {
            return Ok(Begun::Known(id, status));
        }
        let sql =
            "UPDATE evaluation SET status = -1, message = '', created_at = ?2, checkout_at = 0,
             finished_at = 0, log_path = '' WHERE id = ?1 AND status IN (1, 2)";
        tx.execute(sql, params![id, now])?;
        return Ok(Begun::Again(id));
    }
    let sql = "INSERT INTO evaluation (specification_id, stamp, status, message, created_at,
         checkout_at, finished_at, log_path, scheduled, started, succeeded, failed,
         failed_dependency, failed_other, canceled)
         VALUES (?1, ?2, -1, '', ?3, 0, 0, '', 0, 0, 0, 0, 0, 0, 0)";
    let values = params![specification, stamp, now];
    let id = EvaluationId::new(tx.prepare_cached(sql)?.insert(values)?);
    note_current(tx, specification, id)?;
    let sql = "INSERT INTO checkout (evaluation_id, position, input, revision, subject, author,
         revision_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    for (position, checkout) in (0_i64..).zip(checkouts) {
        let Checkout { input, revision, subject, author, revision_at } = checkout;
        tx.execute(sql, params![id, position, input, revision, subject, author, revision_at])?;
    }
    Ok(Begun::New(id))
}

/// Notes that the checkouts are ready and the evaluator is about to start.
pub(crate) fn note_checkouts(
    tx: &Transaction,
    id: EvaluationId,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let sql =
        "UPDATE evaluation SET checkout_at = max(?2, created_at) WHERE id = ?1 AND status = -1";
    tx.execute(sql, params![id, now])?;
    Ok(())
}

/// Ends an evaluation without storing jobs. `false`: the evaluation had ended already, and nothing was changed.
pub(crate) fn end_evaluation(
    tx: &Transaction,
    id: EvaluationId,
    status: EvaluationStatus,
    message: &str,
    log_path: &str,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let sql = "UPDATE evaluation SET status = ?2, message = ?3, log_path = ?4,
         finished_at = max(?5, created_at, checkout_at)
         WHERE id = ?1 AND status = -1";
    Ok(tx.execute(sql, params![id, status, message, log_path, now])? == 1)
}

/// Notes the log of an evaluation that was aborted and has none. `false`: nothing was changed.
pub(crate) fn note_log(
    tx: &Transaction,
    id: EvaluationId,
    log_path: &str,
) -> rusqlite::Result<bool> {
    let sql = "UPDATE evaluation SET log_path = ?2 WHERE id = ?1 AND status = 2 AND log_path = ''";
    Ok(tx.execute(sql, params![id, log_path])? == 1)
}

/// A job from the evaluator, after every check, with its derivation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// The job's name, unique in the evaluation.
    pub name: String,
    /// The derivation to build.
    pub derivation: String,
    /// The system to build for.
    pub system: String,
    /// The package's name and version, or the job's name.
    pub nix_name: String,
    /// Builds with a higher priority start earlier.
    pub priority: i64,
    /// The most seconds that the build may take; 0: the server's default.
    pub timeout_s: i64,
    /// The most seconds without output; 0: the server's default.
    pub max_silent_s: i64,
    /// JSON of [`crate::model::Definition`]; `None`: another backend than `command` builds the job.
    pub definition: Option<String>,
    /// The jobs that this job needs: the name that it uses for each, and the index of each in the list of jobs, which
    /// is smaller than its own index.
    pub needs: Vec<(String, usize)>,
}

/// The builds of a derivation, the newest first.
const KNOWN: &str = "SELECT id, status, status = 4 AND NOT EXISTS (SELECT 1 FROM job AS j
      WHERE j.build_id = build.id AND NOT EXISTS
        (SELECT 1 FROM withdrawn_evaluation AS w WHERE w.evaluation_id = j.evaluation_id)),
    specification_id, timeout_s, max_silent_s FROM build
    WHERE derivation_key = ?1 AND derivation = ?2 ORDER BY id DESC";

/// A build that a job is linked to, and the build's status.
type Linked = (BuildId, BuildStatus);

/// A known build of the same derivation as a job.
struct Known {
    id: BuildId,
    status: BuildStatus,
    /// Whether the build was canceled together with all evaluations that had it. Nobody has canceled it for a new job.
    was_unwanted: bool,
    specification: SpecificationId,
    timeout_s: i64,
    max_silent_s: i64,
}

impl Known {
    /// Whether the build ended by itself. Such an end holds for every specification and every limit.
    fn ended_by_itself(&self) -> bool {
        matches!(self.status, BuildStatus::Succeeded | BuildStatus::Failed)
    }

    /// Whether a job of the specification may be linked to this build. An end by a limit, a cancel or a lost worker
    /// says nothing about another specification or a greater limit, so such a job gets a build of its own. If a pending
    /// build gets such an end later, the job gets a twin then (`twins.rs`).
    fn serves(&self, job: &NewJob, specification: SpecificationId) -> bool {
        // 0 stands for the server's default limit, which the store does not know.
        let greater =
            |wanted: i64, has: i64| wanted != has && (wanted == 0 || has == 0 || wanted > has);
        self.ended_by_itself()
            || (!self.was_unwanted
                && (self.specification == specification || !self.status.is_finished())
                && !greater(job.timeout_s, self.timeout_s)
                && !greater(job.max_silent_s, self.max_silent_s))
    }
}

/// The known build to link a job to: the newest that succeeded, otherwise the newest that serves. `needs` are the
/// builds to which the jobs that it needs are linked.
fn find(
    tx: &Transaction,
    job: &NewJob,
    key: i64,
    specification: SpecificationId,
    needs: &[Linked],
) -> rusqlite::Result<Option<Linked>> {
    let mut known = tx.prepare_cached(KNOWN)?;
    let mut rows = known.query(params![key, job.derivation])?;
    let mut best = None;
    while let Some(row) = rows.next()? {
        let columns = &mut Columns::of(row);
        let known = read!(columns: Known { id, status, was_unwanted, specification, timeout_s, max_silent_s });
        if known.status.is_success() {
            return Ok(Some((known.id, known.status)));
        }
        if best.is_none()
            && known.serves(job, specification)
            && (known.ended_by_itself() || waits_for(tx, known.id, needs)?)
        {
            best = Some((known.id, known.status));
        }
    }
    Ok(best)
}

/// Whether a build waits for exactly these builds, and not for other builds of the same derivations.
fn waits_for(tx: &Transaction, id: BuildId, needs: &[Linked]) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM dependency WHERE build_id = ?1 AND needs_id = ?2)";
    for (need, _) in needs {
        if !tx.query_row(sql, params![id, need], |row| row.get(0))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What [`register`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Registered {
    /// Builds that were made for these jobs.
    pub new: usize,
    /// Those of them that have failed already, because a build that they need had.
    pub broken: usize,
    /// Jobs that were linked to a build that was known already.
    pub reused: usize,
}

/// Stores all jobs of an evaluation and ends it as succeeded, in one transaction. If a known build of a job's
/// derivation serves the job, the job is linked to that build. `None`: the evaluation had ended already, and nothing
/// was stored.
///
/// `jobs` are sorted: each job comes after those that it needs.
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
    let sql = "SELECT specification_id FROM evaluation WHERE id = ?1";
    let specification = tx.query_row(sql, [id], |row| row.get(0))?;
    let mut inserts = Inserts::new(tx)?;
    let mut link = tx.prepare_cached(
        "INSERT INTO job (evaluation_id, name, build_id, reused) VALUES (?1, ?2, ?3, ?4)",
    )?;
    let mut done = Registered::default();
    let mut builds: Vec<Linked> = Vec::with_capacity(jobs.len());
    for job in jobs {
        let key = derivation_key(&job.derivation);
        let needed: Vec<_> = job.needs.iter().map(|(_, place)| builds[*place]).collect();
        let found = find(tx, job, key, specification, &needed)?;
        let build = match found {
            Some(found) => {
                done.reused += 1;
                found
            }
            None => {
                done.new += 1;
                let made = inserts.insert(id, job, key, &needed, now)?;
                done.broken += usize::from(made.1.is_finished());
                made
            }
        };
        link.execute(params![id, job.name, build.0, found.is_some()])?;
        builds.push(build);
    }
    // Counted at the end and not per job, so that the row is written once.
    let count = |status| integer(builds.iter().filter(|(_, found)| *found == status).count());
    let sql = "UPDATE evaluation SET scheduled = ?2, started = ?3, succeeded = ?4, failed = ?5,
         failed_dependency = ?6, failed_other = ?7, canceled = ?8 WHERE id = ?1";
    tx.execute(
        sql,
        params![
            id,
            count(BuildStatus::Scheduled),
            count(BuildStatus::Started),
            count(BuildStatus::Succeeded),
            count(BuildStatus::Failed),
            count(BuildStatus::FailedDependency),
            count(BuildStatus::FailedOther),
            count(BuildStatus::Canceled)
        ],
    )?;
    Ok(Some(done))
}

/// The statements that store a new build. They are prepared once for all jobs.
struct Inserts<'t> {
    build: Statement<'t>,
    definition: Statement<'t>,
    dependency: Statement<'t>,
}

impl<'t> Inserts<'t> {
    fn new(tx: &'t Transaction) -> rusqlite::Result<Self> {
        Ok(Self {
            build: tx.prepare_cached(
                "INSERT INTO build (derivation, derivation_key, specification_id, evaluation_id, job, system,
                 nix_name, priority, status, weather, backend, attempt, losses, waiting, message, timeout_s,
                 max_silent_s, submitted_at, started_at, stopped_at, log_path, log_bytes, log_digest)
                 SELECT ?1, ?2, specification_id, id, ?4, ?5, ?6, ?7, ?8, -1, 0, 0, 0, ?9, ?10, ?11, ?12,
                 ?13, 0, ?14, '', 0, '' FROM evaluation WHERE id = ?3",
            )?,
            definition: tx
                .prepare_cached("INSERT INTO definition (build_id, text) VALUES (?1, ?2)")?,
            dependency: tx.prepare_cached(
                "INSERT OR IGNORE INTO dependency (build_id, needs_id, name) VALUES (?1, ?2, ?3)",
            )?,
        })
    }

    /// Stores a new build for a job. The build is scheduled, or has failed-dependency if a build that it needs has
    /// ended without success.
    fn insert(
        &mut self,
        evaluation: EvaluationId,
        job: &NewJob,
        key: i64,
        needed: &[Linked],
        now: Timestamp,
    ) -> rusqlite::Result<Linked> {
        let mut needs: Vec<(BuildId, BuildStatus, &str)> = needed
            .iter()
            .zip(&job.needs)
            .map(|((build, status), (name, _))| (*build, *status, name.as_str()))
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
        let build = BuildId::new(self.build.insert(params![
            job.derivation,
            key,
            evaluation,
            job.name,
            job.system,
            job.nix_name,
            job.priority,
            status,
            integer(waiting),
            message,
            job.timeout_s,
            job.max_silent_s,
            now,
            stopped_at
        ])?);
        if let Some(text) = &job.definition {
            self.definition.execute(params![build, text])?;
        }
        for (needs_id, _, name) in needs {
            self.dependency.execute(params![build, needs_id, name])?;
        }
        Ok((build, status))
    }
}
