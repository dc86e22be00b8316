//! Checks that no source file of a crate uses another in a circle, so that each file can be read after those that it
//! uses. `layers.rs` checks the rooms, which are larger.
//!
//! A file uses another if a path in it leads there: in `use` items, in expressions and in the arguments of macros. A
//! name that a file has from another one, also by `pub use`, counts as a use of the other one. The declaration of a
//! module is no use, and neither are tests. The root of a crate is left out, because it re-exports what others have.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{File, Item, UseTree};

use sources::{
    Module, attributes, begins_a_path, files, is_colons, is_left_out, parse, src_of, test_modules,
};

mod sources;

/// The words of a path, such as `["super", "lanes", "Lane"]`.
type Words = Vec<String>;

/// What a file says about others.
#[derive(Debug, Default)]
struct Source {
    /// The names that `use` items bring into the file, and the paths that they stand for.
    names: BTreeMap<String, Words>,
    /// All paths, each with the module in which it stands: an inner module has a path of its own.
    paths: Vec<(Module, Words)>,
}

impl Source {
    fn read(file: &File, module: &Module) -> Self {
        let mut source = Self::default();
        source.add(&file.items, module);
        source
    }

    fn add(&mut self, items: &[Item], module: &Module) {
        for item in items.iter().filter(|item| !is_left_out(attributes(item))) {
            match item {
                Item::Use(import) => {
                    let mut imports = Vec::new();
                    flatten(&import.tree, &[], &mut imports);
                    for (path, name) in imports {
                        self.paths.push((module.clone(), path.clone()));
                        self.names.insert(name, path);
                    }
                }
                Item::Mod(declared) => {
                    if let Some((_, items)) = &declared.content {
                        self.add(items, &[&module[..], &[declared.ident.to_string()]].concat());
                    }
                }
                _ => self.walk(item.to_token_stream(), module),
            }
        }
    }

    fn walk(&mut self, tokens: TokenStream, module: &Module) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.walk(group.stream(), module),
                TokenTree::Ident(word) if begins_a_path(&tokens, at) => {
                    let mut words = vec![word.to_string()];
                    while is_colons(&tokens, at + 1)
                        && let Some(TokenTree::Ident(word)) = tokens.get(at + 3)
                    {
                        words.push(word.to_string());
                        at += 3;
                    }
                    if words.len() > 1 {
                        self.paths.push((module.clone(), words));
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }
}

/// The paths of a `use`, each with the name that it gets.
fn flatten(tree: &UseTree, before: &[String], found: &mut Vec<(Words, String)>) {
    let with = |word: String| [before, &[word]].concat();
    match tree {
        UseTree::Path(path) => flatten(&path.tree, &with(path.ident.to_string()), found),
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, before, found)),
        UseTree::Name(name) if name.ident == "self" => {
            found.extend(before.last().map(|name| (before.to_vec(), name.clone())));
        }
        UseTree::Name(name) => found.push((with(name.ident.to_string()), name.ident.to_string())),
        UseTree::Rename(rename) => {
            found.push((with(rename.ident.to_string()), rename.rename.to_string()));
        }
        UseTree::Glob(_) => found.push((before.to_vec(), "*".to_owned())),
    }
}

/// The files of a crate.
struct Crate(BTreeMap<Module, Source>);

impl Crate {
    fn read(src: &Path) -> Self {
        let files = files(src);
        let tests = test_modules(&files);
        let files =
            files.iter().filter(|(_, module)| !tests.iter().any(|test| module.starts_with(test)));
        Self(
            files
                .map(|(path, module)| (module.clone(), Source::read(&parse(path), module)))
                .collect(),
        )
    }

    /// The path from the crate's root for `words` in `module`; `None`: they name something of another crate, or of the
    /// file itself.
    fn absolute(&self, module: &[String], words: &[String]) -> Option<Words> {
        match words.first()?.as_str() {
            "crate" => Some(words[1..].to_vec()),
            "self" => Some([module, &words[1..]].concat()),
            "super" => {
                let ups = words.iter().take_while(|word| *word == "super").count();
                Some([&module[..module.len().checked_sub(ups)?], &words[ups..]].concat())
            }
            first => {
                let inside = [module, &words[..1]].concat();
                if self.0.contains_key(&inside) {
                    return Some([module, words].concat());
                }
                let path = self.0.get(module)?.names.get(first)?;
                // `use first::…` names another crate.
                let path = (path[0] != first).then(|| self.absolute(module, path))??;
                Some([&path[..], &words[1..]].concat())
            }
        }
    }

    /// The file that has what an absolute path names. Names that a file has from another one are followed.
    fn file_of(&self, mut path: Words) -> Option<Module> {
        // More re-exports of re-exports would be a circle of their own.
        for _ in 0..8 {
            let file = (0..=path.len())
                .rev()
                .map(|words| &path[..words])
                .find(|file| self.0.contains_key(*file))?;
            let next = path.get(file.len()).and_then(|name| self.0[file].names.get(name));
            let next = next.and_then(|words| self.absolute(file, words));
            let Some(next) = next.filter(|next| next[..] != path[..=file.len()]) else {
                return Some(file.to_vec());
            };
            path = [&next[..], &path[file.len() + 1..]].concat();
        }
        None
    }

    /// The files that each file uses.
    fn arrows(&self) -> BTreeMap<&Module, BTreeSet<Module>> {
        let mut arrows: BTreeMap<&Module, BTreeSet<Module>> = BTreeMap::new();
        for (file, source) in self.0.iter().filter(|(file, _)| !file.is_empty()) {
            let used = source
                .paths
                .iter()
                .filter_map(|(module, words)| self.file_of(self.absolute(module, words)?));
            let others = used.filter(|used| used != file && !used.is_empty());
            arrows.insert(file, others.collect());
        }
        arrows
    }

    /// The arrows of all circles, as `file -> file`: those from whose end a way leads back to their beginning.
    fn circles(&self) -> Vec<String> {
        let arrows = self.arrows();
        let leads_to = |from: &Module, to: &Module| {
            let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
            while let Some(file) = open.pop() {
                if file == to {
                    return true;
                }
                if seen.insert(file) {
                    open.extend(arrows.get(file).into_iter().flatten());
                }
            }
            false
        };
        let all = arrows.iter().flat_map(|(file, used)| used.iter().map(|used| (*file, used)));
        let back = all.filter(|(file, used)| leads_to(used, file));
        back.map(|(file, used)| format!("{} -> {}", file.join("::"), used.join("::"))).collect()
    }
}

#[test]
fn no_file_uses_another_in_a_circle() {
    for name in ["lockkeeper", "brigandine", "brigandine-bench"] {
        let found = Crate::read(&src_of(name)).circles();
        assert!(found.is_empty(), "these files of {name} use each other in a circle: {found:#?}");
    }
}

#[test]
fn a_circle_is_found_whatever_leads_back() {
    let circles = |files: &[(&str, &str)]| -> Vec<String> {
        let files = files.iter().map(|(module, code)| {
            let module: Module =
                module.split("::").filter(|word| !word.is_empty()).map(str::to_owned).collect();
            let source = Source::read(&syn::parse_str(code).expect("code"), &module);
            (module, source)
        });
        Crate(files.collect()).circles()
    };
    let both = ["a -> b", "b -> a"];
    for (files, expected) in [
        (&[("a", "use crate::b::B;"), ("b", "fn f() { crate::a::go(); }")][..], &both[..]),
        (&[("a", "use super::{b::B, c};"), ("b", "use super::a::A as Other;"), ("c", "")], &both),
        (&[("a", "fn f() { println!(\"{}\", crate::b::N); }"), ("b", "use crate::a;")], &both),
        // A re-export leads to the file that has the name.
        (&[("", "pub use a::A;"), ("a", "use crate::b::B;"), ("b", "use crate::A;")], &both),
        // A folder that re-exports what its files have is in no circle, unless they use what it has itself.
        (&[("a", "mod p; pub use p::P;"), ("a::p", "use super::q::Q;"), ("a::q", "")], &[]),
        (
            &[("a", "mod p; use p::P; fn help() {}"), ("a::p", "use super::help;")],
            &["a -> a::p", "a::p -> a"],
        ),
        (&[("a", "use b::B; mod inner { use super::super::b; }"), ("b", "")], &[]),
        // What leads to a circle or away from one is not told with it.
        (
            &[
                ("a", "use crate::b::B;"),
                ("b", "use crate::a::A; use crate::d;"),
                ("c", "use crate::a::A;"),
                ("d", ""),
            ],
            &both,
        ),
        (&[("a", "use crate::b::B;"), ("b", "#[cfg(test)] mod tests { use crate::a::A; }")], &[]),
    ] {
        assert_eq!(circles(files), expected, "{files:?}");
    }
}
