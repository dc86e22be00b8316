//! How the definitions of two builds differ, in words: why a derivation is another one.

use super::{Definition, Source};
use std::collections::BTreeSet;

/// The most names that one part of the answer has.
const NAMES: usize = 5;

impl Definition {
    /// What differs from `before`, each part as a phrase such as "the command". Empty if and only if both have the same
    /// identity ([`Definition::identity`]).
    pub fn differences(&self, before: &Self) -> Vec<String> {
        // The compiler refuses this pattern if a field is missing.
        let Self {
            version,
            name,
            command,
            environment,
            system,
            sources,
            needs,
            products,
            isolation,
            network,
            description: _,
        } = self;
        let mut parts = Vec::new();
        sources_differ(sources, &before.sources, &mut parts);
        let changed = differing(needs, &before.needs);
        if !changed.is_empty() {
            parts.push(format!("the builds that it needs: {}", list(&changed)));
        }
        let changed = differing(environment, &before.environment);
        if !changed.is_empty() {
            parts.push(format!("the variables {}", list(&changed)));
        }
        let rest = [
            ("the command", *command != before.command),
            ("the system", *system != before.system),
            ("the patterns of its products", *products != before.products),
            ("how it is isolated", (isolation, network) != (&before.isolation, &before.network)),
            ("the name", *name != before.name),
            ("the version of this server's definitions", *version != before.version),
        ];
        let differ = rest.into_iter().filter(|(_, differs)| *differs);
        parts.extend(differ.map(|(part, _)| part.to_owned()));
        parts
    }
}

/// Adds what differs between the files of two builds.
fn sources_differ(now: &[Source], before: &[Source], parts: &mut Vec<String>) {
    let started = parts.len();
    let find = |all: &[Source], input: &str| all.iter().find(|one| one.input == input).cloned();
    let named: Vec<&Source> = now.iter().chain(before).collect();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for Source { input, .. } in named {
        if !seen.insert(input) {
            continue;
        }
        match (find(now, input), find(before, input)) {
            (Some(now), Some(before)) if now.digest != before.digest => {
                parts.push(format!(
                    "the files of {input} ({} → {})",
                    short(&before.revision),
                    short(&now.revision)
                ));
            }
            (Some(now), Some(before))
                if (&now.patterns, now.main) != (&before.patterns, before.main) =>
            {
                parts.push(format!("which files of {input} it sees"));
            }
            (Some(_), Some(_)) => {}
            _ => parts.push(format!("whether it sees {input}")),
        }
    }
    let identity = |sources: &[Source]| -> Vec<(String, bool, Vec<String>, String)> {
        let part =
            |one: &Source| (one.input.clone(), one.main, one.patterns.clone(), one.digest.clone());
        sources.iter().map(part).collect()
    };
    if parts.len() == started && identity(now) != identity(before) {
        parts.push("the order of its inputs".to_owned());
    }
}

/// The keys whose values differ, or that only one of the maps has.
fn differing<'m>(
    now: &'m std::collections::BTreeMap<String, String>,
    before: &'m std::collections::BTreeMap<String, String>,
) -> BTreeSet<&'m str> {
    let keys = now.keys().chain(before.keys());
    keys.filter(|key| now.get(*key) != before.get(*key)).map(String::as_str).collect()
}

/// `a, b and 3 others`
fn list(names: &BTreeSet<&str>) -> String {
    let shown: Vec<&str> = names.iter().take(NAMES).copied().collect();
    match names.len().saturating_sub(NAMES) {
        0 => shown.join(", "),
        others => format!("{} and {others} others", shown.join(", ")),
    }
}

/// The first ten characters of a revision.
fn short(revision: &str) -> &str {
    revision.get(..10).unwrap_or(revision)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn source(input: &str) -> Source {
        Source {
            input: input.to_owned(),
            main: input == "one",
            url: "https://example.org/x".to_owned(),
            revision: "0123456789abcdef".to_owned(),
            submodules: false,
            submodules_from: Vec::new(),
            patterns: vec!["src/**".to_owned()],
            digest: "00".to_owned(),
        }
    }

    fn definition() -> Definition {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        Definition {
            version: 2,
            name: "it".to_owned(),
            command: vec!["make".to_owned()],
            environment: map(&[("A", "1"), ("B", "2"), ("C", "3")]),
            system: "x86_64-linux".to_owned(),
            sources: vec![source("one"), source("two")],
            needs: map(&[("compile", "a.drv"), ("lint", "b.drv")]),
            products: vec!["dist/*".to_owned()],
            isolation: "sandbox".to_owned(),
            network: false,
            description: "About".to_owned(),
        }
    }

    /// A change of a definition, and the words for it; empty: the identity stays the same.
    type Change = (fn(&mut Definition), &'static str);

    /// One change of each kind. All of them may be made together.
    const CHANGES: [Change; 16] = [
        (|it| it.sources[0].digest.push('1'), "the files of one (0123456789 → 0123456789)"),
        (|it| it.sources[1].patterns.clear(), "which files of two it sees"),
        (|it| it.sources.push(source("new")), "whether it sees new"),
        (
            |it| drop(it.needs.insert("compile".to_owned(), "c.drv".to_owned())),
            "the builds that it needs: compile",
        ),
        (|it| drop(it.environment.remove("B")), "the variables B"),
        (|it| it.command.push("all".to_owned()), "the command"),
        (|it| it.system.push('x'), "the system"),
        (|it| it.products.clear(), "the patterns of its products"),
        (|it| it.isolation.clear(), "how it is isolated"),
        (|it| it.name.push('x'), "the name"),
        (|it| it.version += 1, "the version of this server's definitions"),
        (|it| it.description.clear(), ""),
        (|it| it.sources[0].url.clear(), ""),
        (|it| it.sources[1].revision = "f".repeat(40), ""),
        (|it| it.sources[0].submodules = true, ""),
        (|it| it.sources[1].submodules_from.push("https://".to_owned()), ""),
    ];

    #[test]
    fn what_differs_is_told_for_every_set_of_changes() {
        for bits in 0..1_u32 << CHANGES.len() {
            // Every set is too many for a test that is run often: all small and all large ones.
            let of = bits.count_ones() as usize;
            if (4..CHANGES.len() - 2).contains(&of) {
                continue;
            }
            let (before, mut now) = (definition(), definition());
            let mut wanted = BTreeSet::new();
            for (place, (change, words)) in CHANGES.iter().enumerate() {
                if bits & (1 << place) != 0 {
                    change(&mut now);
                    wanted.insert(*words);
                }
            }
            wanted.remove("");
            let told = now.differences(&before);
            assert_eq!(told.iter().map(String::as_str).collect::<BTreeSet<_>>(), wanted);
            assert_eq!(told.len(), wanted.len(), "each once: {told:?}");
            assert_eq!(told.is_empty(), now.identity() == before.identity(), "{told:?}");
            assert_eq!(before.differences(&now).is_empty(), told.is_empty());
        }
    }

    #[test]
    fn revisions_and_many_names_are_told_shortly() {
        let (before, mut now) = (definition(), definition());
        now.sources[0].digest.push('1');
        now.sources[0].revision = "f".repeat(40);
        for name in 0..7 {
            now.environment.insert(format!("X{name}"), String::new());
        }
        let told = now.differences(&before);
        let variables = "the variables X0, X1, X2, X3, X4 and 2 others";
        assert_eq!(told, ["the files of one (0123456789 → ffffffffff)", variables]);
        let mut turned = definition();
        turned.sources.reverse();
        assert_eq!(turned.differences(&before), ["the order of its inputs"]);
    }
}
