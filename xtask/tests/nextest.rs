//! The names of tests in `.config/nextest.toml`: a test that was renamed would lose its group and its priority without a
//! word.

use std::fs;
use std::path::{Path, PathBuf};

/// A pattern of nextest, as far as the configuration uses regular expressions: text, `|`, groups, and `^` in front.
struct Pattern<'t> {
    rest: &'t str,
}

impl Pattern<'_> {
    /// Every text that the pattern stands for.
    fn texts(text: &str) -> Vec<String> {
        let mut pattern = Pattern { rest: text };
        let found = pattern.alternatives();
        assert!(pattern.rest.is_empty(), "`{text}`: `{}` was not expected", pattern.rest);
        found
    }

    fn alternatives(&mut self) -> Vec<String> {
        let mut found = self.sequence();
        while let Some(rest) = self.rest.strip_prefix('|') {
            self.rest = rest;
            found.extend(self.sequence());
        }
        found
    }

    fn sequence(&mut self) -> Vec<String> {
        let mut found = vec![String::new()];
        while let Some(char) = self.rest.chars().next().filter(|char| !"|)".contains(*char)) {
            self.rest = &self.rest[char.len_utf8()..];
            let next = match char {
                '(' => {
                    let inside = self.alternatives();
                    self.rest = self.rest.strip_prefix(')').expect("a group that is closed");
                    inside
                }
                '^' => vec![String::from("^")],
                char if char.is_alphanumeric() || "_:".contains(char) => vec![char.to_string()],
                char => panic!("this check does not know `{char}` in a pattern: teach it"),
            };
            found = found
                .iter()
                .flat_map(|before| next.iter().map(move |after| format!("{before}{after}")))
                .collect();
        }
        found
    }
}

/// Whether a text of a pattern is in the name of a test.
fn fits(text: &str, name: &str) -> bool {
    match text.strip_prefix('^') {
        Some(begin) => name.starts_with(begin),
        None => name.contains(text),
    }
}

/// The patterns in the filters of a configuration: what stands in `test(/…/)`.
fn patterns(config: &str) -> Vec<&str> {
    let lines = config.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut found = Vec::new();
    for filter in lines.flat_map(|line| line.split("test(").skip(1)) {
        let Some(pattern) = filter.strip_prefix('/') else {
            panic!("this check does not know `test({filter}`: teach it");
        };
        found.extend(pattern.split('/').next());
    }
    found
}

fn root() -> PathBuf {
    let xtask = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    Path::new(&xtask).parent().expect("xtask is in the workspace").to_owned()
}

/// Adds the names of the tests in a file or folder that is the module `path`.
fn tests_below(place: &Path, path: &[String], found: &mut Vec<String>) {
    if place.is_dir() {
        for entry in fs::read_dir(place).expect("a folder") {
            let place = entry.expect("an entry").path();
            let name = place.file_stem().expect("a name").to_string_lossy().into_owned();
            let is_same = ["lib", "main", "mod"].contains(&&*name);
            let own = (!is_same).then_some(name);
            tests_below(&place, &[path, own.as_slice()].concat(), found);
        }
    } else if place.extension().is_some_and(|extension| extension == "rs") {
        let text = fs::read_to_string(place).expect("a source file");
        let file = syn::parse_file(&text).unwrap_or_else(|error| panic!("{place:?}: {error}"));
        tests_in(&file.items, path, found);
    }
}

fn tests_in(items: &[syn::Item], path: &[String], found: &mut Vec<String>) {
    for item in items {
        match item {
            syn::Item::Fn(function) if function.attrs.iter().any(is_test) => {
                found.push([path, &[function.sig.ident.to_string()]].concat().join("::"));
            }
            syn::Item::Mod(module) => {
                if let Some((_, items)) = &module.content {
                    tests_in(items, &[path, &[module.ident.to_string()]].concat(), found);
                }
            }
            // `proptest! { #[test] fn name(…) … }`
            syn::Item::Macro(inner) => {
                let text: String = inner.mac.tokens.to_string().split_whitespace().collect();
                let names = text.split("#[test]fn").skip(1).filter_map(|it| it.split('(').next());
                found.extend(names.map(|name| [path, &[name.to_owned()]].concat().join("::")));
            }
            _ => {}
        }
    }
}

/// `#[test]`, `#[tokio::test]` and the like.
fn is_test(attribute: &syn::Attribute) -> bool {
    attribute.path().segments.last().is_some_and(|segment| segment.ident == "test")
}

/// The names of all tests, as nextest knows them.
fn all_tests() -> Vec<String> {
    let root = root();
    let mut found = Vec::new();
    for package in ["crates/lockkeeper", "crates/brigandine", "crates/brigandine-bench", "xtask"] {
        tests_below(&root.join(package).join("src"), &[], &mut found);
        // Each file and folder here is a program of its own.
        for target in fs::read_dir(root.join(package).join("tests")).into_iter().flatten() {
            tests_below(&target.expect("an entry").path(), &[], &mut found);
        }
    }
    found
}

#[test]
fn every_name_in_the_configuration_of_nextest_is_that_of_a_test() {
    let config = fs::read_to_string(root().join(".config/nextest.toml")).expect("a file");
    let (patterns, tests) = (patterns(&config), all_tests());
    assert!(patterns.len() >= 4, "only {patterns:?} were found");
    assert!(tests.len() > 800, "only {} tests were found", tests.len());
    let gone: Vec<String> = patterns
        .into_iter()
        .flat_map(Pattern::texts)
        .filter(|text| !tests.iter().any(|name| fits(text, name)))
        .collect();
    assert!(gone.is_empty(), ".config/nextest.toml names tests that are not there: {gone:?}");
}

#[test]
fn a_pattern_is_each_of_its_texts() {
    assert_eq!(
        Pattern::texts("^(a|b::(c|d))::|^e_f|g"),
        ["^a::", "^b::c::", "^b::d::", "^e_f", "g"]
    );
    assert!(fits("^a::", "a::test") && !fits("^a::", "b::a::test") && fits("g", "a::g_h"));
    let config = "# test(/no/)\nfilter = \"test(/a/)\nand not test(/^b|c/)\"";
    assert_eq!(patterns(config), ["a", "^b|c"]);
}
