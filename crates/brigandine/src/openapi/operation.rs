//! The description of one operation: what a request may say, and what it is answered.

use axum::http::Method;
use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema};

use crate::wire::{ErrorJson, ParameterErrorJson};

/// Makes the schema of a type, and adds the schemas that it refers to.
type MakeSchema = fn(&mut SchemaGenerator) -> Schema;

/// An operation at its address.
#[derive(Debug)]
pub(super) struct Stated {
    pub(super) method: Method,
    /// The path as the router knows it, such as `/build/{id}`.
    pub(super) path: String,
    pub(super) operation: Operation,
}

/// Whose clients know an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Those of Cuirass.
    Cuirass,
    /// Those of Hydra.
    Hydra,
    /// Those of both.
    Both,
    /// Those of this server: changes, and what describes the API.
    Own,
    /// Programs that watch the server.
    Probe,
}

impl Dialect {
    /// The tags of an operation.
    pub(super) const fn tags(self) -> &'static [&'static str] {
        match self {
            Self::Cuirass => &["cuirass"],
            Self::Hydra => &["hydra"],
            Self::Both => &["cuirass", "hydra"],
            Self::Own => &["brigandine"],
            Self::Probe => &["probes"],
        }
    }
}

/// The values that a parameter may have.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// Any text.
    Text,
    /// A text that is not blank.
    Words,
    /// A whole number of 64 bits.
    Number,
    /// A whole number in a range.
    Range(i64, i64),
    /// One of these words.
    OneOf(&'static [&'static str]),
}

/// A parameter of the query, or a variable part of the path if the path has one of this name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parameter {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// What the parameter means.
    pub(super) about: &'static str,
    /// A value that makes sense.
    pub(super) example: &'static str,
    pub(super) required: bool,
}

impl Parameter {
    /// A parameter that a request may leave out, unless it is a part of the path.
    pub(crate) const fn new(
        name: &'static str,
        kind: Kind,
        example: &'static str,
        about: &'static str,
    ) -> Self {
        Self { name, kind, about, example, required: false }
    }

    /// The same, and requests must have it.
    pub(crate) const fn required(self) -> Self {
        Self { required: true, ..self }
    }
}

/// Who may make the requests of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody, on a private server too.
    Everybody,
    /// Everybody; on a private server, those who may read.
    Readers,
    /// Those whose role is large enough for the change.
    Changers,
}

/// The body of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Body {
    pub(super) content: Content,
    /// Whether a request without a body is refused.
    pub(super) required: bool,
}

/// The body of a request or of an answer, as its media type says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content {
    /// The media type.
    pub(super) media: &'static str,
    /// The schema of JSON; `None`: the body is no JSON.
    pub(super) schema: Option<MakeSchema>,
}

/// An answer.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) about: &'static str,
    pub(super) content: Vec<Content>,
}

/// The description of an operation.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(super) dialect: Dialect,
    pub(super) summary: &'static str,
    pub(super) parameters: Vec<Parameter>,
    /// What a request may have as its body; `None`: bodies are read and ignored.
    pub(super) body: Option<Body>,
    pub(super) answers: Vec<Answer>,
    pub(super) access: Access,
}

impl Operation {
    /// An operation without parameters and answers, for those who may read.
    pub(crate) fn new(dialect: Dialect, summary: &'static str) -> Self {
        let (parameters, answers) = (Vec::new(), Vec::new());
        Self { dialect, summary, parameters, body: None, answers, access: Access::Readers }
    }

    /// Adds parameters.
    pub(crate) fn takes(mut self, parameters: &[Parameter]) -> Self {
        self.parameters.extend(parameters);
        self
    }

    /// Requests may have a body, which is JSON.
    pub(crate) fn reads<T: JsonSchema>(self) -> Self {
        self.body::<T>(false)
    }

    /// Requests must have a body, which is JSON.
    pub(crate) fn needs<T: JsonSchema>(self) -> Self {
        self.body::<T>(true)
    }

    fn body<T: JsonSchema>(mut self, required: bool) -> Self {
        let schema: MakeSchema = SchemaGenerator::subschema_for::<T>;
        let content = Content { media: "application/json", schema: Some(schema) };
        self.body = Some(Body { content, required });
        self
    }

    /// Adds an answer that is JSON.
    pub(crate) fn json<T: JsonSchema>(self, status: u16, about: &'static str) -> Self {
        let schema: MakeSchema = SchemaGenerator::subschema_for::<T>;
        self.answer(status, about, Content { media: "application/json", schema: Some(schema) })
    }

    /// Adds an answer that is no JSON. If there is an answer with this status already, both are possible.
    pub(crate) fn other(self, status: u16, media: &'static str, about: &'static str) -> Self {
        self.answer(status, about, Content { media, schema: None })
    }

    /// Adds a refusal.
    pub(crate) fn refuses(self, status: u16, about: &'static str) -> Self {
        self.json::<ErrorJson<'_>>(status, about)
    }

    /// Adds the two refusals that clients of Cuirass expect for numbers of entries and required parameters.
    pub(crate) fn refuses_numbers(self) -> Self {
        let about = "A required parameter is missing or unreadable, or `nr` is not from 1 to 1000. Clients expect this status.";
        self.json::<ParameterErrorJson>(500, about)
    }

    /// Adds a redirect to the address that the request means. It has no body.
    pub(crate) fn redirects(self, about: &'static str) -> Self {
        self.leads(302, about)
    }

    /// Adds a redirect to what is asked for with `GET` next. It has no body.
    pub(crate) fn leads_on(self, about: &'static str) -> Self {
        self.leads(303, about)
    }

    fn leads(mut self, status: u16, about: &'static str) -> Self {
        self.answers.push(Answer { status, about, content: Vec::new() });
        self
    }

    /// Everybody may make the requests, on a private server too.
    pub(crate) fn open(self) -> Self {
        Self { access: Access::Everybody, ..self }
    }

    /// Requests need credentials.
    pub(crate) fn secured(self) -> Self {
        Self { access: Access::Changers, ..self }
    }

    fn answer(mut self, status: u16, about: &'static str, content: Content) -> Self {
        match self.answers.iter_mut().find(|answer| answer.status == status) {
            Some(answer) => answer.content.push(content),
            None => self.answers.push(Answer { status, about, content: vec![content] }),
        }
        self
    }
}
