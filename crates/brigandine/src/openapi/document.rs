//! The document of OpenAPI.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::operation::{Access, Answer, Body, Content, Kind, Operation, Parameter, Stated};
use crate::wire::ErrorJson;

/// The version of OpenAPI.
const VERSION: &str = "3.1.0";

const ABOUT: &str = "A self-hosted server for continuous integration, which answers as Cuirass and Hydra do. Times are \
    UTC seconds, 0 when not yet. Every GET answers HEAD too; unknown parameters are ignored. The tag of an operation \
    says whose clients know it. Browsers, which accept text/html by name, get refusals as pages, and those without \
    credentials that a page needs are sent to `/login`.";

const TOKEN: &str = "A token that `brigandine token create` makes, or the one in the server's token file. A client may \
    send the cookie of a login instead.";

/// The tags, and what each means.
const TAGS: [(&str, &str); 4] = [
    ("cuirass", "What clients of Cuirass ask."),
    ("hydra", "What clients of Hydra ask."),
    ("brigandine", "Changes, and what describes the API."),
    ("probes", "What programs ask that watch the server."),
];

/// The refusals that every operation shares, with their names in the document. They come from the checks of each request
/// before its route is called, and from the database.
const SHARED: [(u16, &str, &str); 7] = [
    (400, "Unreadable", "The request or one of its parameters cannot be read."),
    (408, "TooSlow", "The request did not arrive in time."),
    (413, "BodyTooLarge", "The body has more than 1 MiB."),
    (414, "TargetTooLong", "The address is too long."),
    (421, "Misdirected", "The request is for another host; the text says what to configure."),
    (429, "TooMany", "The client has too many connections."),
    (
        503,
        "Waiting",
        "The server waits for a disk or the database, or one of its bounds is reached.",
    ),
];

/// The refusals of requests whose senders may not make them, in every operation that is not for everybody.
const DENIED: [(u16, &str, &str); 2] = [
    (
        401,
        "Unauthorized",
        "The request has no valid credentials; reading needs them on a private server.",
    ),
    (403, "Forbidden", "The role is too small, or the request comes from a page of another site."),
];

/// What the server answers to programs.
pub(crate) struct Document {
    stated: Vec<Stated>,
    made: OnceLock<Value>,
}

impl Document {
    pub(super) fn new(stated: Vec<Stated>) -> Self {
        Self { stated, made: OnceLock::new() }
    }

    /// The document, which the first call makes.
    pub(crate) fn value(&self) -> &Value {
        self.made.get_or_init(|| self.make())
    }

    fn make(&self) -> Value {
        let mut generators = Generators::new();
        let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
        for one in &self.stated {
            let path = one.path.replace("{*", "{");
            let value = operation(one, &path, &mut generators);
            paths.entry(path).or_default().insert(one.method.as_str().to_lowercase(), value);
        }
        let error = generators.answers.subschema_for::<ErrorJson<'_>>();
        let refusal = |about: &str| json!({"description": about, "content": {"application/json": {"schema": error}}});
        let responses: Map<String, Value> = SHARED
            .iter()
            .chain(&DENIED)
            .map(|(_, name, about)| ((*name).to_owned(), refusal(about)))
            .collect();
        let tags: Vec<Value> =
            TAGS.iter().map(|(name, about)| json!({"name": name, "description": about})).collect();
        json!({
            "openapi": VERSION,
            "info": {
                "title": "Brigandine",
                "version": env!("CARGO_PKG_VERSION"),
                "description": ABOUT,
                "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
            },
            // Relative to the address of the document.
            "servers": [{"url": "../"}],
            "tags": tags,
            "paths": paths,
            "components": {
                "schemas": generators.schemas(),
                "responses": responses,
                "securitySchemes": {"token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": TOKEN,
                }},
            },
        })
    }
}

/// Make the schemas of types. A field with a default may be missing in a request, and is always in an answer.
struct Generators {
    answers: SchemaGenerator,
    requests: SchemaGenerator,
}

impl Generators {
    fn new() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
            })
        };
        Self {
            answers: settings().for_serialize().into_generator(),
            requests: settings().for_deserialize().into_generator(),
        }
    }

    /// The schemas of all types. No type is both in a request and in an answer.
    fn schemas(&mut self) -> Map<String, Value> {
        let mut schemas = self.answers.take_definitions(true);
        schemas.extend(self.requests.take_definitions(true));
        schemas
    }
}

fn operation(stated: &Stated, path: &str, generators: &mut Generators) -> Value {
    let Operation { dialect, summary, parameters, body, answers, access } = &stated.operation;
    let denied: &[_] = if *access == Access::Everybody { &[] } else { &DENIED };
    let mut responses: BTreeMap<String, Value> = SHARED
        .iter()
        .chain(denied)
        .map(|(status, name, _)| {
            (status.to_string(), json!({"$ref": format!("#/components/responses/{name}")}))
        })
        .collect();
    for one in answers {
        responses.insert(one.status.to_string(), answer(one, &mut generators.answers));
    }
    let parameters: Vec<Value> = parameters.iter().map(|one| parameter(one, path)).collect();
    let mut value = json!({
        "operationId": id(stated.method.as_str(), path),
        "summary": summary,
        "tags": dialect.tags(),
        "responses": responses,
    });
    if !parameters.is_empty() {
        value["parameters"] = parameters.into();
    }
    if let Some(Body { content: one, required }) = body {
        let content = content(&[*one], &mut generators.requests);
        value["requestBody"] = json!({"required": required, "content": content});
    }
    match access {
        Access::Everybody => {}
        // Also without credentials, unless the server is private.
        Access::Readers => value["security"] = json!([{}, {"token": []}]),
        Access::Changers => value["security"] = json!([{"token": []}]),
    }
    value
}

/// A name of an operation: its method and the words of its path.
fn id(method: &str, path: &str) -> String {
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let words: Vec<&str> = words.collect();
    let words = if words.is_empty() { "root".to_owned() } else { words.join("_") };
    format!("{}_{words}", method.to_lowercase())
}

fn parameter(parameter: &Parameter, path: &str) -> Value {
    let in_path = path.contains(&format!("{{{}}}", parameter.name));
    let schema = match parameter.kind {
        // An empty value counts as a missing one.
        Kind::Text if parameter.required => json!({"type": "string", "minLength": 1}),
        Kind::Text => json!({"type": "string"}),
        Kind::Words => json!({"type": "string", "pattern": "[^\\s\\u0085]"}),
        Kind::Number => json!({"type": "integer", "format": "int64"}),
        Kind::Range(from, to) => json!({"type": "integer", "minimum": from, "maximum": to}),
        Kind::OneOf(words) => json!({"type": "string", "enum": words}),
    };
    let example = match parameter.kind {
        Kind::Number | Kind::Range(..) => parameter.example.parse::<i64>().map(Value::from).ok(),
        Kind::Text | Kind::Words | Kind::OneOf(_) => Some(parameter.example.into()),
    };
    let mut value = json!({
        "name": parameter.name,
        "in": if in_path { "path" } else { "query" },
        "required": in_path || parameter.required,
        "description": parameter.about,
        "schema": schema,
        "example": example,
    });
    if !in_path && !parameter.required {
        // It counts as a missing one.
        value["allowEmptyValue"] = true.into();
    }
    value
}

fn answer(answer: &Answer, generator: &mut SchemaGenerator) -> Value {
    let mut value = json!({"description": answer.about});
    if !answer.content.is_empty() {
        value["content"] = content(&answer.content, generator);
    }
    if [302, 303].contains(&answer.status) {
        let schema = json!({"type": "string", "format": "uri-reference"});
        value["headers"] = json!({"Location": {"required": true, "schema": schema}});
    }
    value
}

fn content(all: &[Content], generator: &mut SchemaGenerator) -> Value {
    let mut one = |content: &Content| {
        let schema = match content.schema {
            Some(make) => json!({"schema": make(generator)}),
            None => json!({}),
        };
        (content.media.to_owned(), schema)
    };
    all.iter().map(&mut one).collect::<Map<String, Value>>().into()
}
