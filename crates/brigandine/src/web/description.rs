//! `/api`: the API for people, made from the document of OpenAPI.

use std::sync::Arc;

use askama::Template;
use axum::extract::Extension;
use axum::response::Response;
use serde_json::{Map, Value};

use super::layout::{Layout, or_refusal, render};
use crate::context::Reading;
use crate::http::Result;
use crate::openapi::Document;
use crate::store::visible;

#[derive(Template)]
#[template(path = "description.html")]
struct Page {
    layout: Layout,
    about: String,
    /// The operations by their tags.
    groups: Vec<Group>,
    /// Refusals that operations share.
    shared: Vec<Row>,
    schemas: Vec<Schema>,
}

struct Group {
    title: String,
    about: String,
    operations: Vec<Operation>,
}

struct Operation {
    method: String,
    path: String,
    summary: String,
    /// Parameters, the body and the answers.
    rows: Vec<Row>,
}

struct Schema {
    name: String,
    about: String,
    fields: Vec<Row>,
}

/// A parameter, an answer, or a field of a schema.
struct Row {
    name: String,
    about: String,
    /// Its kind in words; empty: it has none.
    kind: String,
    /// The schema that the kind names; empty: it names none.
    link: String,
}

impl Row {
    fn new(name: impl Into<String>, about: &Value, schema: &Value) -> Self {
        let (kind, link) = kind(schema);
        Self { name: name.into(), about: text(about), kind, link }
    }
}

/// The text of a JSON string; empty: the value is none.
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The entries of a JSON object.
fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// The kind of values that a schema describes, and the schema that it names.
fn kind(schema: &Value) -> (String, String) {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap_or_default();
        return (String::new(), name.to_owned());
    }
    if let Some(all) = schema["anyOf"].as_array() {
        let link = all.iter().map(|one| kind(one).1).find(|link| !link.is_empty());
        let kinds: Vec<String> =
            all.iter().map(|one| kind(one).0).filter(|kind| !kind.is_empty()).collect();
        return (kinds.join(" or "), link.unwrap_or_default());
    }
    let words = match &schema["type"] {
        Value::String(one) => one.clone(),
        Value::Array(all) => all.iter().map(text).collect::<Vec<_>>().join(" or "),
        _ => String::new(),
    };
    let of = |key: &str| (!schema[key].is_null()).then(|| kind(&schema[key]));
    if let Some((items, link)) = of("items") {
        return (format!("{words} of {items}").trim_end().to_owned(), link);
    }
    if let Some((values, link)) = of("additionalProperties") {
        return (format!("{words} of {values}").trim_end().to_owned(), link);
    }
    let allowed = schema["enum"].as_array().map(|all| {
        let all: Vec<String> = all
            .iter()
            .map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned))
            .collect();
        all.join(", ")
    });
    (allowed.unwrap_or(words), String::new())
}

fn schema_of(content: &Value) -> &Value {
    &content["content"]["application/json"]["schema"]
}

fn operation(method: &str, path: &str, value: &Value) -> Operation {
    let mut rows = Vec::new();
    for parameter in value["parameters"].as_array().into_iter().flatten() {
        let mut row =
            Row::new(text(&parameter["name"]), &parameter["description"], &parameter["schema"]);
        if parameter["required"] == true && parameter["in"] == "query" {
            row.name.push_str(" (required)");
        }
        rows.push(row);
    }
    if !value["requestBody"].is_null() {
        rows.push(Row::new("body", &Value::Null, schema_of(&value["requestBody"])));
    }
    let needed = |all: &Vec<Value>| all.iter().all(|one| one["token"].is_array());
    if value["security"].as_array().is_some_and(needed) {
        let about = "A token or a session with a role.".into();
        rows.push(Row::new("credentials (required)", &about, &Value::Null));
    }
    let answers = entries(&value["responses"]).filter(|(_, answer)| answer["$ref"].is_null());
    rows.extend(answers.map(|(status, one)| Row::new(status, &one["description"], schema_of(one))));
    Operation {
        method: method.to_uppercase(),
        path: path.to_owned(),
        summary: text(&value["summary"]),
        rows,
    }
}

fn groups(document: &Value) -> Vec<Group> {
    let group = |tag: &Value| {
        let all = entries(&document["paths"]).flat_map(|(path, methods)| {
            entries(methods).map(move |(method, value)| (path, method, value))
        });
        let tagged = all.filter(|(.., value)| {
            value["tags"].as_array().is_some_and(|tags| tags.contains(&tag["name"]))
        });
        Group {
            title: text(&tag["name"]),
            about: text(&tag["description"]),
            operations: tagged
                .map(|(path, method, value)| operation(method, path, value))
                .collect(),
        }
    };
    document["tags"].as_array().into_iter().flatten().map(group).collect()
}

fn schemas(document: &Value) -> Vec<Schema> {
    let schema = |(name, value): (&String, &Value)| Schema {
        name: name.clone(),
        about: text(&value["description"]),
        fields: entries(&value["properties"])
            .map(|(name, field)| Row::new(name, &field["description"], field))
            .collect(),
    };
    entries(&document["components"]["schemas"]).map(schema).collect()
}

pub(super) async fn page(
    context: Reading,
    Extension(document): Extension<Arc<Document>>,
) -> Response {
    or_refusal(&context, make(&context, document.value()).await).await
}

async fn make(context: &Reading, document: &Value) -> Result<Response> {
    let queue = context.read_few(visible::queue_counts).await?;
    let shared = entries(&document["components"]["responses"]);
    render(&Page {
        layout: Layout {
            title: "API · Brigandine".to_owned(),
            section: "api",
            queue,
            live: String::new(),
            notice: context.health().notice(),
        },
        about: text(&document["info"]["description"]),
        groups: groups(document),
        shared: shared
            .map(|(name, one)| Row::new(name, &one["description"], schema_of(one)))
            .collect(),
        schemas: schemas(document),
    })
}
