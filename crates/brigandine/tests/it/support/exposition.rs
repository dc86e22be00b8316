//! A strict reader of the text format of Prometheus, version 0.0.4: it fails where the format or its conventions are
//! not kept.

use std::collections::{BTreeMap, BTreeSet};

/// All families of an answer.
#[derive(Debug)]
pub(crate) struct Exposition {
    families: Vec<Family>,
}

#[derive(Debug)]
struct Family {
    name: String,
    kind: String,
    samples: Vec<Sample>,
}

#[derive(Debug)]
pub(crate) struct Sample {
    name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

impl Exposition {
    /// Reads an answer.
    pub(crate) fn read(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line has no end");
        let mut families: Vec<Family> = Vec::new();
        let mut help: Option<String> = None;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, said) = rest.split_once(' ').expect(line);
                assert!(!said.is_empty() && help.is_none(), "{line}");
                unescape(said, false);
                help = Some(name.to_owned());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect(line);
                assert_eq!(help.take().as_deref(), Some(name), "the help stands before: {line}");
                assert!(["counter", "gauge", "histogram", "summary"].contains(&kind), "{line}");
                assert!(families.iter().all(|family| family.name != name), "twice: {line}");
                assert!(is_name(name, true), "{line}");
                assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
                let (name, kind) = (name.to_owned(), kind.to_owned());
                families.push(Family { name, kind, samples: Vec::new() });
            } else {
                assert!(help.is_none() && !line.starts_with('#'), "{line}");
                let sample = sample(line);
                families.last_mut().expect("a family").take(sample, line);
            }
        }
        families.iter().for_each(Family::check);
        Self { families }
    }

    /// The samples of this name.
    pub(crate) fn samples<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        let all = self.families.iter().flat_map(|family| &family.samples);
        all.filter(move |sample| sample.name == name)
    }

    /// The value of the sample with these labels and no others.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let owned = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned()));
        let labels: BTreeMap<String, String> = owned.collect();
        self.samples(name).find(|sample| sample.labels == labels).map(|sample| sample.value)
    }
}

impl Family {
    fn take(&mut self, sample: Sample, line: &str) {
        let end = sample.name.strip_prefix(&self.name).expect(line);
        let ends: &[&str] = match &*self.kind {
            "histogram" => &["_bucket", "_sum", "_count"],
            "summary" => &["", "_sum", "_count"],
            _ => &[""],
        };
        assert!(ends.contains(&end), "{line}");
        let own = |label: &str| sample.labels.contains_key(label);
        assert_eq!(own("le"), end == "_bucket", "{line}");
        assert_eq!(own("quantile"), self.kind == "summary" && end.is_empty(), "{line}");
        let same = |it: &Sample| it.name == sample.name && it.labels == sample.labels;
        assert!(!self.samples.iter().any(same), "twice: {line}");
        assert!(sample.value >= 0.0, "no figure here can be negative: {line}");
        self.samples.push(sample);
    }

    /// Checks that the buckets of each histogram ascend and end with the number of values.
    fn check(&self) {
        let without = |sample: &Sample| {
            let mut labels = sample.labels.clone();
            labels.remove("le");
            labels.remove("quantile");
            labels
        };
        if self.kind != "histogram" && self.kind != "summary" {
            return;
        }
        let groups: BTreeSet<_> = self.samples.iter().map(without).collect();
        for group in groups {
            let of = |end: &str| {
                let name = format!("{}{end}", self.name);
                let mut found =
                    self.samples.iter().filter(|it| it.name == name && without(it) == group);
                let value = found.next().unwrap_or_else(|| panic!("{name} {group:?}")).value;
                assert!(found.next().is_none(), "{name} {group:?}");
                value
            };
            let (_, count) = (of("_sum"), of("_count"));
            if self.kind == "summary" {
                continue;
            }
            let (mut bound, mut up_to) = (f64::NEG_INFINITY, 0.0);
            for sample in self.samples.iter().filter(|it| without(it) == group) {
                let Some(le) = sample.labels.get("le") else { continue };
                let next: f64 = le.parse().expect("a bound");
                assert!(next > bound && sample.value >= up_to, "{} {group:?}", self.name);
                (bound, up_to) = (next, sample.value);
            }
            assert!(bound.is_infinite() && up_to == count, "{} {group:?}", self.name);
        }
    }
}

fn is_name(name: &str, colons: bool) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_' || (colons && c == ':');
    name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit())
}

/// A line such as `name{label="value",other="value"} 7`.
fn sample(line: &str) -> Sample {
    let end = line.find(['{', ' ']).expect(line);
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name, true), "{line}");
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, value) = rest.split_once("=\"").expect(line);
            assert!(is_name(label, false) && !label.starts_with("__"), "{line}");
            let mut escaped = false;
            let end = value.find(|c: char| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            let (value, after) = value.split_at(end.expect(line));
            let known = labels.insert(label.to_owned(), unescape(value, true));
            assert!(known.is_none(), "{line}");
            rest = &after[1..];
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            rest = rest.strip_prefix(',').expect(line);
        }
    }
    let value = rest.strip_prefix(' ').expect(line);
    assert!(!value.contains(' '), "a time is given: {line}");
    Sample { name: name.to_owned(), labels, value: value.parse().expect(line) }
}

fn unescape(text: &str, quoted: bool) -> String {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.push(match c {
            '\\' => match chars.next() {
                Some('\\') => '\\',
                Some('n') => '\n',
                Some('"') if quoted => '"',
                other => panic!("{other:?} needs no escape in {text:?}"),
            },
            c => c,
        });
    }
    plain
}
