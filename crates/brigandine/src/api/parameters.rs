//! The parameters that several operations share.

use crate::openapi::{Kind, Parameter};

/// How many entries the client wants.
pub(super) const NR: Parameter =
    Parameter::new("nr", Kind::Range(1, 1000), "10", "How many entries the answer has at most.")
        .required();

pub(super) const PROJECT: Parameter =
    Parameter::new("project", Kind::Text, "main", "The project, which specification files name.");

pub(super) const JOBSET: Parameter =
    Parameter::new("jobset", Kind::Text, "hello", "The name of a specification.");

pub(super) const SPEC: Parameter =
    Parameter::new("spec", Kind::Text, "hello", "The name of a specification.");

pub(super) const JOB: Parameter =
    Parameter::new("job", Kind::Text, "compile", "The name of a job.");

pub(super) const SYSTEM: Parameter =
    Parameter::new("system", Kind::Text, "x86_64-linux", "The system that the build is for.");

pub(super) const EVALUATION: Parameter =
    Parameter::new("evaluation", Kind::Number, "1", "The number of an evaluation.");

pub(super) const NAMES: Parameter =
    Parameter::new("names", Kind::Text, "compile,test", "Names of jobs, divided by commas.");

pub(super) const BUILD_ID: Parameter = Parameter::new(
    "id",
    Kind::Text,
    "1",
    "The number of a build, or the last part of its derivation's path.",
);

pub(super) const EVALUATION_ID: Parameter =
    Parameter::new("id", Kind::Text, "1", "The number of an evaluation.");

pub(super) const QUERY: Parameter = Parameter::new("query", Kind::Text, "compile", "The text.");

/// What follows in the path stays in the redirect.
pub(super) const REST: Parameter =
    Parameter::new("rest", Kind::Text, "download/1", "What follows; it stays in the redirect.");

/// `true` or `false`.
pub(super) const BOOLEAN: Kind = Kind::OneOf(&["true", "false"]);
