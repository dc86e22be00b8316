//! Whether a value is as a schema of the document describes it. A field that the schema does not name is a mistake,
//! unless the schema allows others, so that a new field of an answer must be described.

use serde_json::Value;

/// Checks `value` against `schema`, whose references lead into `document`.
///
/// # Errors
/// Where the value differs, and how; or the schema has a keyword that is not known here.
pub(super) fn fits(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let Some(keywords) = schema.as_object() else {
        return if schema == true { Ok(()) } else { Err(format!("{value} is not allowed")) };
    };
    for (keyword, wanted) in keywords {
        check(document, schema, keyword, wanted, value)?;
    }
    Ok(())
}

fn check(
    document: &Value,
    schema: &Value,
    keyword: &str,
    wanted: &Value,
    value: &Value,
) -> Result<(), String> {
    let expect = |right: bool| match right {
        true => Ok(()),
        false => Err(format!("{value} does not fit {keyword}: {wanted}")),
    };
    let inside =
        |name: String, one: Result<(), String>| one.map_err(|why| format!("{name}: {why}"));
    match keyword {
        "$ref" => {
            let pointer = wanted.as_str().unwrap_or_default().trim_start_matches('#');
            let schema =
                document.pointer(pointer).ok_or_else(|| format!("{wanted} leads nowhere"))?;
            fits(document, schema, value)
        }
        "anyOf" | "oneOf" => {
            let all = wanted.as_array().into_iter().flatten();
            expect(all.into_iter().any(|one| fits(document, one, value).is_ok()))
        }
        "type" => match wanted.as_array() {
            Some(kinds) => expect(kinds.iter().any(|kind| is(value, kind))),
            None => expect(is(value, wanted)),
        },
        "enum" => expect(wanted.as_array().is_some_and(|all| all.contains(value))),
        "const" => expect(wanted == value),
        // They say something about numbers and lists alone.
        "minimum" => expect(!value.is_number() || value.as_f64() >= wanted.as_f64()),
        "maximum" => expect(!value.is_number() || value.as_f64() <= wanted.as_f64()),
        "minItems" => expect(!value.is_array() || count(value) >= wanted.as_u64()),
        "maxItems" => expect(!value.is_array() || count(value) <= wanted.as_u64()),
        "required" => {
            let mut names = wanted.as_array().into_iter().flatten().filter_map(Value::as_str);
            names.try_for_each(|name| match value.get(name) {
                Some(_) => Ok(()),
                None => Err(format!("{name} is missing in {value}")),
            })
        }
        "items" => {
            let items = value.as_array().into_iter().flatten().enumerate();
            items
                .into_iter()
                .try_for_each(|(n, one)| inside(n.to_string(), fits(document, wanted, one)))
        }
        "properties" => {
            let others = schema.get("additionalProperties").is_some();
            let fields = value.as_object().into_iter().flatten();
            fields.into_iter().try_for_each(|(name, one)| match wanted.get(name) {
                Some(schema) => inside(name.clone(), fits(document, schema, one)),
                None if others => Ok(()),
                None => Err(format!("{name} is not described")),
            })
        }
        "additionalProperties" => {
            let fields = value.as_object().into_iter().flatten();
            let others = fields.filter(|(name, _)| schema["properties"].get(name).is_none());
            others
                .into_iter()
                .try_for_each(|(name, one)| inside(name.clone(), fits(document, wanted, one)))
        }
        "description" | "title" | "format" | "default" => Ok(()),
        _ => Err(format!("the keyword {keyword} is not known here")),
    }
}

fn count(value: &Value) -> Option<u64> {
    value.as_array().map(|all| all.len() as u64)
}

fn is(value: &Value, kind: &Value) -> bool {
    match kind.as_str() {
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => false,
    }
}
