//! Buttons with which people change builds, evaluations and specifications: plain forms, which need no script. A page
//! shows them to those who may use them.

use axum::Extension;
use axum::response::Response;

use super::layout::or_refusal;
use super::view;
use crate::auth::{Builder, Form, Needs, Place, Principal, Visitor};
use crate::context::Reading;
use crate::http::{self, HttpError, Path, Result};
use crate::model::{
    Build, BuildDetails, BuildStatus, Change, Evaluation, EvaluationStatus, Outcome, Specification,
    Target,
};

/// The form of a page.
pub(super) struct Buttons {
    /// The address to which the form is sent.
    pub(super) action: String,
    /// Shows that a page of this server has made the form.
    pub(super) token: String,
    /// The name of each change and its label.
    pub(super) changes: Vec<(&'static str, &'static str)>,
}

/// The first button, because that is the one that the Enter key presses in the field for the reason.
const COMMENT: (Change, &str) = (Change::Comment, "Comment");

/// Whether somebody may make a change in a specification.
fn may(principal: &Principal, change: Change, place: Option<&Place>) -> bool {
    let role = change.role();
    principal.may(role) || place.is_some_and(|place| principal.may_in(role, place))
}

impl Buttons {
    /// `None`: the visitor may change nothing in this place.
    fn new(
        visitor: &Visitor,
        place: &Place,
        action: String,
        changes: Vec<(Change, &'static str)>,
    ) -> Option<Self> {
        let principal = visitor.principal()?;
        // Programs, whose credentials have no form token, have the API.
        let token = Some(principal.form_token()).filter(|token| !token.is_empty())?.to_owned();
        let allowed =
            changes.into_iter().filter(|(change, _)| may(principal, *change, Some(place)));
        let changes: Vec<_> = allowed.map(|(change, label)| (change.as_str(), label)).collect();
        (!changes.is_empty()).then_some(Self { action, token, changes })
    }

    /// The changes of a build in its state.
    pub(super) fn of_build(visitor: &Visitor, details: &BuildDetails) -> Option<Self> {
        let build = &details.build;
        let place =
            Place { project: build.project.clone(), specification: build.specification.clone() };
        let stopped = |need: &Build| need.status == BuildStatus::FailedDependency;
        let mut changes = vec![COMMENT];
        match build.status {
            BuildStatus::Scheduled => {
                changes.extend([(Change::Cancel, "Cancel"), (Change::Bump, "Build next")]);
            }
            BuildStatus::Started => changes.push((Change::Cancel, "Cancel")),
            BuildStatus::Succeeded => {}
            _ if details.needed_by.iter().any(stopped) => {
                changes.push((Change::Restart, "Restart, with what needs it"));
            }
            _ => changes.push((Change::Restart, "Restart")),
        }
        Self::new(visitor, &place, format!("/build/{}/change", build.id), changes)
    }

    /// The changes of an evaluation in its state.
    pub(super) fn of_evaluation(
        visitor: &Visitor,
        project: String,
        evaluation: &Evaluation,
    ) -> Option<Self> {
        let place = Place { project, specification: evaluation.specification.clone() };
        let counters = &evaluation.counters;
        let mut changes = vec![COMMENT];
        if !evaluation.has_ended() {
            changes.push((Change::Cancel, "Cancel"));
        }
        if counters.scheduled > 0 {
            changes.push((Change::Bump, "Build next"));
        }
        let canceled = evaluation.withdrawn && evaluation.status == EvaluationStatus::Aborted;
        if canceled {
            changes.push((Change::Restart, "Evaluate again"));
        } else if counters.all_failed() > 0 {
            changes.push((Change::Restart, "Restart all that failed"));
        }
        changes.push(match evaluation.kept {
            true => (Change::Release, "Keep no longer"),
            false => (Change::Keep, "Keep"),
        });
        Self::new(visitor, &place, format!("/eval/{}/change", evaluation.id), changes)
    }

    /// The changes of a specification in its state.
    pub(super) fn of_specification(
        visitor: &Visitor,
        specification: &Specification,
    ) -> Option<Self> {
        let Specification { name, project, enabled, .. } = specification;
        let action = format!("/jobset/{}/change", view::encode(name));
        let place = Place { project: project.clone(), specification: name.clone() };
        let changes = match enabled {
            true => vec![(Change::Evaluate, "Evaluate now"), (Change::Disable, "Disable")],
            false => vec![(Change::Enable, "Enable")],
        };
        Self::new(visitor, &place, action, changes)
    }
}

/// Makes the change that a form asks for, and leads back to the page.
async fn change(
    context: &Reading,
    by: &Needs<Builder>,
    place: Option<&Place>,
    form: &Form,
    target: Target,
    page: &str,
) -> Result<Response> {
    let change: Change = form.get("change").parse().map_err(HttpError::BadRequest)?;
    if !may(by, change, place) {
        let (role, actor, roles) = (change.role(), &by.actor, by.roles());
        let why = format!("this needs the role {role}; {actor} has {roles}");
        return Err(HttpError::Forbidden(why));
    }
    let outcomes = context.change(change, vec![target], by, form.get("reason")).await?;
    match outcomes.into_iter().next() {
        Some((_, Outcome::Refused(why))) => Err(HttpError::Conflict(why)),
        Some((target, Outcome::Missing)) => {
            Err(HttpError::not_found(format!("there is no {}", target.thing())))
        }
        _ => Ok(http::not_kept(http::see_other(page))),
    }
}

/// Changes a build.
pub(super) async fn build(
    context: Reading,
    by: Needs<Builder>,
    place: Option<Extension<Place>>,
    Path(id): Path<String>,
    form: Form,
) -> Response {
    let place = place.as_deref();
    let done = match id.parse().map(Target::Build) {
        Ok(target) => change(&context, &by, place, &form, target, &format!("/build/{id}")).await,
        Err(_) => Err(HttpError::no_build(&id)),
    };
    or_refusal(&context, done).await
}

/// Changes an evaluation.
pub(super) async fn evaluation(
    context: Reading,
    by: Needs<Builder>,
    place: Option<Extension<Place>>,
    Path(id): Path<String>,
    form: Form,
) -> Response {
    let place = place.as_deref();
    let done = match id.parse().map(Target::Evaluation) {
        Ok(target) => change(&context, &by, place, &form, target, &format!("/eval/{id}")).await,
        Err(_) => Err(HttpError::no_evaluation(&id)),
    };
    or_refusal(&context, done).await
}

/// Changes a specification.
pub(super) async fn specification(
    context: Reading,
    by: Needs<Builder>,
    place: Option<Extension<Place>>,
    Path(name): Path<String>,
    form: Form,
) -> Response {
    let page = format!("/jobset/{}", view::encode(&name));
    let target = Target::Specification(name);
    let done = change(&context, &by, place.as_deref(), &form, target, &page).await;
    or_refusal(&context, done).await
}

#[cfg(test)]
mod tests;
