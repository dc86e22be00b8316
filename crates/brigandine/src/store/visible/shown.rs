//! How a build is shown to somebody from whom specifications are hidden (SEEN2).

use super::snapshot::Visible;
use crate::model::{
    Build, BuildId, BuildStatus, Definition, EvaluationId, SpecificationId, Weather,
};
use crate::store::evaluations::checkouts;
use crate::store::query::{Columns, Query, read};
use rusqlite::params;

/// What a build has of the job for which it is shown.
struct Lent {
    evaluation: EvaluationId,
    specification_id: SpecificationId,
    specification: String,
    project: String,
    job: String,
}

/// Beginnings of messages that name an evaluation.
const OF_EVALUATIONS: [&str; 2] = ["canceled with evaluation ", "superseded by evaluation "];

/// The beginning of the message of a build that has the result of another one.
const OF_BUILD: &str = "as build ";

impl Visible<'_> {
    /// The build as it is shown; `None`: it is hidden.
    pub(super) fn show(&self, mut build: Build) -> rusqlite::Result<Option<Build>> {
        if self.hidden.is_empty() {
            return Ok(Some(build));
        }
        if self.hidden.has(build.specification_id) {
            let Some(lent) = self.lent(build.id)? else { return Ok(None) };
            let Lent { evaluation, specification_id, specification, project, job } = lent;
            // The weather is that of the hidden specification's job.
            build = Build {
                evaluation,
                specification_id,
                specification,
                project,
                job,
                weather: Weather::Unknown,
                ..build
            };
        }
        build.message = match build.status {
            BuildStatus::FailedDependency => self.needed(build.id)?,
            _ => self.told(build.message)?,
        };
        Ok(Some(build))
    }

    /// Those of the builds that are shown.
    pub(super) fn show_all(
        &self,
        builds: impl IntoIterator<Item = Build>,
        limit: u32,
    ) -> rusqlite::Result<Vec<Build>> {
        let shown = builds.into_iter().filter_map(|build| self.show(build).transpose());
        shown.take(limit as usize).collect()
    }

    /// The most rows that a query needs to read, so that `limit` builds can be shown.
    pub(super) fn read_at_most(&self, limit: u32) -> u32 {
        if self.hidden.is_empty() { limit } else { u32::MAX }
    }

    /// The first job of a visible evaluation that has a build.
    fn lent(&self, id: BuildId) -> rusqlite::Result<Option<Lent>> {
        let sql = "SELECT j.evaluation_id, e.specification_id, s.name, s.project, j.name
             FROM job AS j CROSS JOIN evaluation AS e ON e.id = j.evaluation_id
             CROSS JOIN specification AS s ON s.id = e.specification_id
             WHERE j.build_id = ?1 AND s.id NOT IN (SELECT value FROM json_each(?2))
             ORDER BY j.evaluation_id LIMIT 1";
        self.snapshot.first(sql, params![id, self.hidden.json()], |row| {
            let columns = &mut Columns::of(row);
            Ok(read!(columns: Lent { evaluation, specification_id, specification, project, job }))
        })
    }

    /// The message of a build that needs one which did not succeed. The stored one may have the name of a hidden job.
    fn needed(&self, id: BuildId) -> rusqlite::Result<String> {
        let sql = "SELECT d.name, n.status FROM dependency AS d
             CROSS JOIN build AS n ON n.id = d.needs_id
             WHERE d.build_id = ?1 AND n.status > 0 ORDER BY d.needs_id LIMIT 1";
        let found: Option<(String, BuildStatus)> =
            self.snapshot.first(sql, [id], |row| row.try_into())?;
        Ok(found.map(|(name, status)| format!("needs `{name}`: {status}")).unwrap_or_default())
    }

    /// A message of the server without the numbers of hidden builds and evaluations.
    pub(super) fn told(&self, message: String) -> rusqlite::Result<String> {
        if self.hidden.is_empty() {
            return Ok(message);
        }
        if let Some(rest) = message.strip_prefix(OF_BUILD) {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (number, rest) = rest.split_at(end);
            if let Ok(number) = number.parse()
                && !self.shows(number)?
            {
                return Ok(format!("as another build{rest}"));
            }
        }
        for begin in OF_EVALUATIONS {
            if let Some(number) = message.strip_prefix(begin)
                && let Ok(number) = number.parse()
                && self.hides_evaluation(number)?
            {
                return Ok("canceled".to_owned());
            }
        }
        Ok(message)
    }

    /// Whether a build is shown.
    pub(super) fn shows(&self, id: BuildId) -> rusqlite::Result<bool> {
        if self.hidden.is_empty() {
            return Ok(true);
        }
        let sql = "SELECT specification_id FROM build WHERE id = ?1";
        match self.snapshot.value(sql, [id])? {
            None => Ok(false),
            Some(of) if !self.hidden.has(of) => Ok(true),
            Some(_) => Ok(self.lent(id)?.is_some()),
        }
    }

    /// Whether a build that is shown belongs to a hidden specification.
    pub(super) fn lends(&self, id: BuildId) -> rusqlite::Result<bool> {
        if self.hidden.is_empty() {
            return Ok(false);
        }
        let sql = "SELECT specification_id FROM build WHERE id = ?1";
        let of: Option<SpecificationId> = self.snapshot.value(sql, [id])?;
        Ok(of.is_some_and(|of| self.hidden.has(of)))
    }

    /// The definition of a build as it is shown. What is no part of the derivation's identity comes from the hidden
    /// specification: the revisions are replaced by those of the evaluation for which the build is shown, and the rest is
    /// left out.
    pub(super) fn define(
        &self,
        build: &Build,
        definition: Option<Definition>,
    ) -> rusqlite::Result<Option<Definition>> {
        let Some(mut definition) = definition else { return Ok(None) };
        if !self.lends(build.id)? {
            return Ok(Some(definition));
        }
        definition.description.clear();
        let own = checkouts(self.snapshot, build.evaluation)?;
        for source in &mut definition.sources {
            let own = own.iter().find(|checkout| checkout.input == source.input);
            source.revision = own.map(|checkout| checkout.revision.clone()).unwrap_or_default();
            source.url.clear();
            source.submodules_from.clear();
        }
        Ok(Some(definition))
    }
}
