//! HTTP itself: the server, the checks of every request, answers and refusals. This module knows neither the API nor
//! the pages.

mod accept;
mod answer;
mod arrived;
mod base;
mod bounds;
mod client;
mod clients;
mod coding;
mod disposition;
mod download;
mod error;
mod gate;
mod host;
mod meters;
mod negotiate;
mod query;
mod range;
mod server;
mod slashes;
mod socket;
mod stream;
mod turns;
mod until;

pub(crate) use accept::{accepts_html, is_json, varied, vary, wants_json};
pub(crate) use answer::{html, json, not_kept, redirect, see_other, text};
pub(crate) use arrived::Arrived;
pub(crate) use base::{Base, place};
pub(crate) use client::Client;
pub(crate) use coding::Fixed;
pub(crate) use download::file;
pub(crate) use error::{HttpError, Result, wrong_method};
pub(crate) use meters::{HttpMeters, note_route};
pub(crate) use negotiate::{Compressors, negotiate};
#[cfg(test)]
pub(crate) use query::asked;
pub(crate) use query::{Path, Query};
pub(crate) use range::{Wanted, describe, tag, wanted, weak_tag};
pub(crate) use server::{Routes, closed, serve};
pub(crate) use stream::{Sender, stream};
pub(crate) use until::until;

#[cfg(test)]
mod tests;
