//! The way from a repository to stored results.

mod builds;
mod changes;
mod crash;
mod evaluations;
mod inputs;
mod requests;
mod retention;
mod sandbox;
mod specifications;
