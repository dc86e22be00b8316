//! Specifications as JSON: the tables of a specification file, with the same keys.
//!
//! JSON is rewritten as TOML and read as a file is, so that both have the same rules and messages. Each line of the TOML
//! comes from one place of the JSON, and a problem in the line is reported with this place as a JSON pointer.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::diagnostic::Diagnostics;
use super::specification::{Placed, parse};

/// A problem in JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JsonProblem {
    /// Where it is, as a JSON pointer; empty: the whole.
    pub(crate) pointer: String,
    /// What is wrong, without a full stop.
    pub(crate) message: String,
    /// What to write instead.
    pub(crate) help: String,
}

/// Reads specifications from JSON: an object whose key `specification` has a list of them.
///
/// # Errors
/// Every problem, in the order of the places.
pub(crate) fn specifications(json: &Value) -> Result<Vec<Placed>, Vec<JsonProblem>> {
    let mut toml = Toml::default();
    let Value::Object(top) = json else {
        return Err(vec![JsonProblem {
            pointer: String::new(),
            message: "the body must be an object".to_owned(),
            help: "write `{\"specification\": [{\"name\": …, \"input\": […]}]}`".to_owned(),
        }]);
    };
    toml.table("", "", top);
    if !toml.problems.is_empty() {
        return Err(toml.problems);
    }
    parse("JSON", &toml.text).map_err(|problems| toml.placed(&problems))
}

/// The TOML that is written.
#[derive(Default)]
struct Toml {
    text: String,
    /// For each line, the place that it comes from.
    pointers: Vec<String>,
    problems: Vec<JsonProblem>,
}

impl Toml {
    fn line(&mut self, pointer: &str, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
        self.pointers.push(pointer.to_owned());
    }

    /// Writes the entries of a table whose header was written: first its values, then the tables below it.
    fn table(&mut self, path: &str, pointer: &str, entries: &Map<String, Value>) {
        for (key, value) in entries.iter().filter(|(_, value)| !is_table(value)) {
            let pointer = below(pointer, key);
            let mut line = format!("{} = ", text(key));
            self.value(&mut line, &pointer, value);
            self.line(&pointer, &line);
        }
        for (key, value) in entries.iter().filter(|(_, value)| is_table(value)) {
            let pointer = below(pointer, key);
            let path = if path.is_empty() { text(key) } else { format!("{path}.{}", text(key)) };
            match value {
                Value::Object(entries) => {
                    self.line(&pointer, &format!("[{path}]"));
                    self.table(&path, &pointer, entries);
                }
                Value::Array(tables) => {
                    for (n, entries) in tables.iter().filter_map(Value::as_object).enumerate() {
                        let pointer = below(&pointer, &n.to_string());
                        self.line(&pointer, &format!("[[{path}]]"));
                        self.table(&path, &pointer, entries);
                    }
                }
                _ => {}
            }
        }
    }

    /// Appends a value to a line.
    fn value(&mut self, line: &mut String, pointer: &str, value: &Value) {
        match value {
            Value::Null => self.problems.push(JsonProblem {
                pointer: pointer.to_owned(),
                message: "null has no meaning here".to_owned(),
                help: "leave the key out".to_owned(),
            }),
            Value::Bool(_) | Value::Number(_) => {
                let _ = write!(line, "{value}");
            }
            Value::String(value) => line.push_str(&text(value)),
            Value::Array(values) => {
                line.push('[');
                for (n, value) in values.iter().enumerate() {
                    self.value(line, &below(pointer, &n.to_string()), value);
                    line.push_str(", ");
                }
                line.push(']');
            }
            Value::Object(entries) => {
                line.push('{');
                for (n, (key, value)) in entries.iter().enumerate() {
                    line.push_str(if n > 0 { ", " } else { "" });
                    let _ = write!(line, "{} = ", text(key));
                    self.value(line, &below(pointer, key), value);
                }
                line.push('}');
            }
        }
    }

    /// The problems of the file, each with the place that its line comes from.
    fn placed(&self, problems: &Diagnostics) -> Vec<JsonProblem> {
        let place = |problem: &super::Diagnostic| JsonProblem {
            pointer: self.pointers.get(problem.line.wrapping_sub(1)).cloned().unwrap_or_default(),
            message: problem.message.clone(),
            help: problem.help.clone().unwrap_or_default(),
        };
        problems.iter().map(place).collect()
    }
}

/// Whether a value is written as a table or a list of tables, below the values of its table.
fn is_table(value: &Value) -> bool {
    match value {
        Value::Object(_) => true,
        Value::Array(all) => !all.is_empty() && all.iter().all(Value::is_object),
        _ => false,
    }
}

/// The pointer to `key` of the value at `pointer`.
fn below(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// A text in quotes. JSON's escapes are TOML's too, which also wants DEL escaped.
fn text(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(json: &Value) -> Vec<(String, String)> {
        let problems = specifications(json).expect_err("problems");
        problems.into_iter().map(|it| (it.pointer, it.message)).collect()
    }

    #[test]
    fn a_specification_is_the_same_as_json_and_as_toml() {
        let file = r#"
            [[specification]]
            name = "one"
            description = "\"quotes\", Grüße"
            interval = "10m"
            keep = { evaluations = 5, days = 9 }
            [[specification.input]]
            name = "source"
            url = "https://example.org/x.git"
            branch = "main"
            [specification.evaluator]
            command = ["./evaluate", "a b"]
            arguments = { subset = ["core", 1, true, { deep = 1.5 }], "odd key" = "tab\there, \u007f" }
            [[specification]]
            name = "two"
            enabled = false
            [[specification.input]]
            url = "/srv/y.git"
            [[specification.job]]
            name = "check"
            command = "make\ncheck"
            env = { A = "1" }
        "#;
        let json = json!({"specification": [
            {
                "name": "one",
                "description": "\"quotes\", Grüße",
                "interval": "10m",
                "keep": {"evaluations": 5, "days": 9},
                "input": [{"name": "source", "url": "https://example.org/x.git", "branch": "main"}],
                "evaluator": {
                    "command": ["./evaluate", "a b"],
                    "arguments": {"subset": ["core", 1, true, {"deep": 1.5}], "odd key": "tab\there, \u{7f}"},
                },
            },
            {
                "name": "two",
                "enabled": false,
                "input": [{"url": "/srv/y.git"}],
                "job": [{"name": "check", "command": "make\ncheck", "env": {"A": "1"}}],
            },
        ]});
        let same = |placed: Vec<Placed>| -> Vec<_> {
            placed.into_iter().map(|placed| placed.specification).collect()
        };
        let wanted = parse("file", file).map_err(|problems| problems.to_string());
        let found = specifications(&json).map_err(|problems| format!("{problems:?}"));
        assert_eq!(found.map(same), wanted.map(same));
    }

    #[test]
    fn every_problem_is_told_with_its_place_and_in_the_words_for_files() {
        let json = json!({"specification": [
            {"name": "a b", "input": [{"url": "/srv/x"}]},
            {"name": "two", "interval": "soon", "input": [{"url": "/srv/x", "brnach": "main"}]},
        ]});
        let told = told(&json);
        let at = |pointer: &str| told.iter().filter(|(at, _)| at == pointer).count();
        assert_eq!(at("/specification/0/name"), 1, "{told:?}");
        assert_eq!(at("/specification/1/interval"), 1, "{told:?}");
        assert_eq!(at("/specification/1/input/0/brnach"), 1, "{told:?}");
    }

    #[test]
    fn what_toml_does_not_have_is_refused() {
        assert_eq!(told(&json!([]))[0].0, "");
        assert_eq!(told(&json!({}))[0].1, "the file has no `specification`");
        let null = json!({"specification": [{"name": "x", "input": [{"url": "/x", "tag": null}]}]});
        assert_eq!(told(&null)[0].0, "/specification/0/input/0/tag");
        let large = json!({"specification": [{"name": "x", "priority": u64::MAX, "input": [{"url": "/x"}]}]});
        assert_eq!(told(&large)[0].0, "/specification/0/priority");
        let many = json!({"specification": ["x"]});
        assert_eq!(told(&many)[0].0, "/specification");
    }
}
