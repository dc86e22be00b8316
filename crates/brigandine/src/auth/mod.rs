//! Who sent a request, and what this sender may do.
//!
//! A layer of the router checks the credentials of each request once, and notes their owner in it as a [`Visitor`]. A
//! second layer compares the owner's role with the table of all routes (both are in `site/access.rs`). A handler that
//! changes something also names the role that it needs, by the extractor [`Needs`].
//!
//! - AUTH1: a change needs a [`Principal`], and only this room makes one.
//! - AUTH2: secrets are stored as digests, and compared by their digests.
//! - AUTH3: a change with the cookie of a session comes from a page of this server, and a form has the form token of the
//!   session.
//! - AUTH4: a command may read what the server tells those who may read. It shows a secret that each server makes anew
//!   and notes in the state directory, where whoever reads it may read everything as well. It changes nothing.

mod cookie;
mod failures;
mod form;
mod log_in_through;
mod login;
mod needs;
mod oidc;
mod password;
mod principal;
mod same_origin;
mod secret;
mod token_file;
mod visitor;

pub(crate) use form::{Form, check_form};
pub(crate) use log_in_through::Answer;
pub(crate) use needs::{Admin, Builder, Least, Needs};
pub use oidc::Provider;
pub(crate) use password::{check_password, password_digest};
pub(crate) use principal::{Place, Principal};
pub(crate) use same_origin::{Origin, origin};
pub(crate) use secret::{digest, new_token};
pub use token_file::Token;
pub(crate) use visitor::{Auth, Visitor};
