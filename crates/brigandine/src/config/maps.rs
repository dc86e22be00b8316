//! Tables inside tables: tables of texts, tables of any values, and lists of tables.

use super::document::Text;
use super::plain::to_json;
use super::reader::Table;
use super::value::Refusal;
use super::words::shown;
use std::collections::BTreeMap;
use toml::Spanned;
use toml::de::DeValue;

impl<'d, 'i> Table<'d, 'i> {
    /// The names and texts of the table at `key`.
    pub(crate) fn text_map(
        &self,
        key: &'static str,
        example: &str,
        check_name: impl Fn(&str) -> Result<(), Refusal>,
    ) -> BTreeMap<String, String> {
        let entries = self.text_entries(key, example, check_name);
        entries.into_iter().map(|(name, text)| (name, text.value)).collect()
    }

    /// Like [`Table::text_map`], with the place of each text, in the order of the names.
    pub(crate) fn text_entries(
        &self,
        key: &'static str,
        example: &str,
        check_name: impl Fn(&str) -> Result<(), Refusal>,
    ) -> Vec<(String, Text)> {
        let mut map = Vec::new();
        let Some((_, value)) = self.get(key) else { return map };
        let help = format!("for example `{key} = {{ {example} }}`");
        let DeValue::Table(entries) = value.get_ref() else {
            self.mismatch(key, value, "a table of texts", &help);
            return map;
        };
        for (name, value) in entries.iter() {
            if let Err((message, help)) = check_name(name.get_ref()) {
                self.problem(name.span(), message, help);
            }
            let what = format!("{key}.{}", shown(name.get_ref()));
            if let Some(text) = self.as_text(&what, value, &help) {
                map.push((name.get_ref().clone().into_owned(), text));
            }
        }
        map
    }

    /// The table at `key`, with any values, as JSON.
    pub(crate) fn json_map(
        &self,
        key: &'static str,
        example: &str,
    ) -> serde_json::Map<String, serde_json::Value> {
        let Some((_, value)) = self.get(key) else { return serde_json::Map::new() };
        match to_json(value.get_ref()) {
            serde_json::Value::Object(map) => map,
            _ => {
                let help = format!("for example `{key} = {{ {example} }}`");
                self.mismatch(key, value, "a table", &help);
                serde_json::Map::new()
            }
        }
    }

    /// The tables of the list at `key`, each read by `read`; `None`: `key` is missing.
    pub(crate) fn tables<T>(
        &self,
        key: &'static str,
        header: &str,
        read: impl Fn(Table<'d, 'i>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let (key_span, value) = self.get(key)?;
        let one = header.trim_matches(['[', ']']).rsplit('.').next().unwrap_or(key);
        let item = |item: &'d Spanned<DeValue<'i>>| {
            if let DeValue::Table(entries) = item.get_ref() {
                return read(Table::new(
                    self.document,
                    format!("this {one}"),
                    item.span(),
                    entries,
                ));
            }
            self.mismatch(key, item, "a list of tables", header);
            None
        };
        match value.get_ref() {
            DeValue::Array(items) if items.is_empty() => self.problem(
                value.span(),
                format!("`{key}` of {} is an empty list", self.what),
                format!("write `{header}` and its keys below"),
            ),
            DeValue::Array(items) => return Some(items.iter().filter_map(item).collect()),
            DeValue::Table(_) => self.problem(
                key_span,
                format!("`{key}` is a list, so each one starts with double brackets"),
                format!("write `{header}`"),
            ),
            _ => self.mismatch(key, value, "a list of tables", &format!("write `{header}`")),
        }
        Some(Vec::new())
    }
}
