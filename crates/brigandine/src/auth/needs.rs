//! The extractor by which a handler says which role its requests need.

use std::marker::PhantomData;
use std::ops::Deref;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::principal::{Place, Principal};
use super::visitor::Visitor;
use crate::http::HttpError;
use crate::model::Role;

/// A role as a type, for [`Needs`].
pub(crate) trait Least {
    /// The role.
    const ROLE: Role;
}

/// [`Role::Builder`] as a type.
#[derive(Debug)]
pub(crate) enum Builder {}

/// [`Role::Admin`] as a type.
#[derive(Debug)]
pub(crate) enum Admin {}

impl Least for Builder {
    const ROLE: Role = Role::Builder;
}

impl Least for Admin {
    const ROLE: Role = Role::Admin;
}

/// The sender of a request, who has at least the role `R`: everywhere, or in the specification that the request is
/// about. Other requests are refused before the handler runs.
#[derive(Debug)]
pub(crate) struct Needs<R>(Principal, PhantomData<R>);

impl<R> Deref for Needs<R> {
    type Target = Principal;

    fn deref(&self) -> &Principal {
        &self.0
    }
}

impl<S: Sync, R: Least> FromRequestParts<S> for Needs<R> {
    type Rejection = HttpError;

    /// # Errors
    /// 401: the request has no valid credentials. 403: their owner's role is too small.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, HttpError> {
        let visitor = parts.extensions.get::<Visitor>().unwrap_or(&Visitor::Nobody);
        let principal = visitor.needs(R::ROLE, parts.extensions.get::<Place>())?;
        Ok(Self(principal.clone(), PhantomData))
    }
}
