//! Checks which rooms of a crate use which others, by every path in the code. `ARCHITECTURE.md` shows the same map.
//!
//! A room is a folder or a few files. [`LOCKKEEPER`] and [`BRIGANDINE`] list the rooms from the bottom up, and the
//! rooms that each may use. There are no exceptions.
//!
//! Every path that begins with `crate`, `super`, `self` or the name of a module is checked, in `use` items, in
//! expressions and in the arguments of macros. Tests are not checked: they may use everything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{File, Item, UseTree};

use sources::{
    Module, attributes, begins_a_path, files, is_colons, is_left_out, parse, src_of, test_modules,
};

mod sources;

/// A room: its name, its modules by their paths from the crate's root, and the other rooms that it may use.
struct Room {
    name: &'static str,
    modules: &'static [&'static str],
    uses: &'static [&'static str],
}

const fn room(
    name: &'static str,
    modules: &'static [&'static str],
    uses: &'static [&'static str],
) -> Room {
    Room { name, modules, uses }
}

/// The rooms of the library.
const LOCKKEEPER: &[Room] = &[
    room("ground", &["ffi", "gate", "place", "process", "sync"], &[]),
    room("queue", &["queue"], &["ground"]),
    room("error", &["error"], &["queue"]),
    room("changes", &["changes"], &["ground", "queue", "error"]),
    room("stats", &["stats"], &["ground", "queue", "error"]),
    room("config", &["config"], &["ground", "stats"]),
    room("sqlite", &["sqlite"], &["ground", "queue", "error", "changes", "stats", "config"]),
    room(
        "engine",
        &["engine"],
        &["ground", "queue", "error", "changes", "stats", "config", "sqlite"],
    ),
    room(
        "reader",
        &["reader"],
        &["ground", "queue", "error", "stats", "config", "sqlite", "engine"],
    ),
    room("wal", &["wal"], &["ground", "queue", "error", "stats", "config", "sqlite", "engine"]),
    room("export", &["export"], &["stats", "engine"]),
    room(
        "writer",
        &["writer"],
        &["ground", "queue", "error", "changes", "stats", "config", "sqlite", "engine", "wal"],
    ),
    room(
        "client",
        &["client"],
        &[
            "ground", "queue", "error", "changes", "stats", "config", "sqlite", "engine", "reader",
            "wal", "writer",
        ],
    ),
    room(
        "database",
        &["database", "builder", "shared"],
        &[
            "ground", "queue", "error", "changes", "stats", "config", "sqlite", "engine", "reader",
            "wal", "export", "writer", "client",
        ],
    ),
];

/// The rooms of the server.
const BRIGANDINE: &[Room] = &[
    room("os", &["os"], &[]),
    room("model", &["model"], &["os"]),
    room("measure", &["measure"], &["model"]),
    room("config", &["config"], &["os", "model"]),
    room("input", &["input"], &["os", "model", "config"]),
    room("log", &["log"], &["os", "model"]),
    room("outputs", &["outputs"], &["os", "model", "input"]),
    room("store", &["store"], &["os", "model", "config"]),
    room("backup", &["backup"], &["os", "model", "store"]),
    room("wire", &["wire"], &["model", "store"]),
    room("health", &["health"], &["model", "store"]),
    room("evaluate", &["evaluate"], &["os", "model", "config", "input", "log", "store"]),
    room(
        "build",
        &["build"],
        &["os", "model", "measure", "config", "input", "log", "outputs", "store", "health"],
    ),
    room(
        "monitor",
        &["monitor"],
        &[
            "os", "model", "measure", "config", "input", "log", "outputs", "store", "health",
            "evaluate",
        ],
    ),
    room(
        "retention",
        &["retention"],
        &["os", "model", "config", "input", "log", "outputs", "store"],
    ),
    room("http", &["http"], &["os", "model", "measure", "config", "wire", "health"]),
    room("auth", &["auth"], &["os", "model", "store", "http"]),
    room("openapi", &["openapi"], &["wire"]),
    room("context", &["context"], &["model", "measure", "log", "store", "health", "http", "auth"]),
    room(
        "api",
        &["api"],
        &["os", "model", "config", "log", "store", "wire", "http", "auth", "openapi", "context"],
    ),
    room(
        "web",
        &["web"],
        &["os", "model", "config", "log", "store", "health", "http", "auth", "openapi", "context"],
    ),
    room(
        "probes",
        &["probes"],
        &[
            "os", "model", "measure", "store", "wire", "health", "http", "auth", "openapi",
            "context",
        ],
    ),
    room(
        "app",
        &["app"],
        &[
            "os",
            "model",
            "measure",
            "config",
            "input",
            "log",
            "outputs",
            "store",
            "backup",
            "health",
            "evaluate",
            "build",
            "monitor",
            "retention",
        ],
    ),
    room(
        "site",
        &["site"],
        &[
            "model", "config", "store", "http", "auth", "openapi", "context", "api", "web",
            "probes", "app",
        ],
    ),
    room(
        "command",
        &["command", "cli"],
        &[
            "os",
            "model",
            "config",
            "input",
            "log",
            "store",
            "health",
            "backup",
            "wire",
            "evaluate",
            "build",
            "retention",
            "http",
            "auth",
            "app",
            "site",
        ],
    ),
];

/// A crate of the workspace.
struct Tree {
    src: PathBuf,
    rooms: &'static [Room],
}

fn tree(crate_name: &str, rooms: &'static [Room]) -> Tree {
    Tree { src: src_of(crate_name), rooms }
}

fn lockkeeper() -> Tree {
    tree("lockkeeper", LOCKKEEPER)
}

fn brigandine() -> Tree {
    tree("brigandine", BRIGANDINE)
}

impl Tree {
    fn room_of(&self, module: &str) -> Option<&'static Room> {
        self.rooms.iter().find(|room| room.modules.contains(&module))
    }

    /// The uses between rooms that the table does not allow, as `module -> module`.
    fn arrows_that_are_not_allowed(&self) -> BTreeSet<String> {
        let files = files(&self.src);
        let map = Map {
            modules: files.iter().map(|(_, module)| module.clone()).collect(),
            reexports: files
                .iter()
                .filter(|(_, module)| module.is_empty())
                .flat_map(|(path, _)| reexports(&parse(path)))
                .collect(),
        };
        let tests = test_modules(&files);
        let mut found = BTreeSet::new();
        for (path, module) in &files {
            let Some(first) = module.first() else { continue };
            if tests.iter().any(|test| module.starts_with(test)) {
                continue;
            }
            let from =
                self.room_of(first).unwrap_or_else(|| panic!("{} is in no room", path.display()));
            for used in uses(&parse(path), module, &map) {
                let Some(to) = self.room_of(&used) else { continue };
                if from.name != to.name && !from.uses.contains(&to.name) {
                    found.insert(format!("{} -> {used}", module.join("::")));
                }
            }
        }
        found
    }

    fn check(&self) {
        let found = self.arrows_that_are_not_allowed();
        assert!(found.is_empty(), "these uses are not allowed by the table of rooms: {found:#?}");
    }
}

/// The first module in each path of a file's code that leads to a module of the crate.
fn uses(file: &File, module: &Module, map: &Map) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let scope = Scope::of(file, map);
    for item in file.items.iter().filter(|item| !is_left_out(attributes(item))) {
        // The declaration of a module in another file tells nothing about what the module uses.
        if matches!(item, Item::Mod(declared) if declared.content.is_none()) {
            continue;
        }
        let inside = match item {
            Item::Mod(declared) => [&module[..], &[declared.ident.to_string()]].concat(),
            _ => module.clone(),
        };
        walk(item.to_token_stream(), &inside, &scope, &mut found);
    }
    found
}

/// The names that the root of a crate re-exports, and the modules from which they come.
fn reexports(root: &File) -> BTreeMap<String, String> {
    fn collect(tree: &UseTree, found: &mut BTreeMap<String, String>) {
        match tree {
            UseTree::Group(group) => group.items.iter().for_each(|tree| collect(tree, found)),
            UseTree::Path(path) => {
                let mut names = BTreeSet::new();
                names_of(&path.tree, &mut names);
                found.extend(names.into_iter().map(|name| (name, path.ident.to_string())));
            }
            UseTree::Name(_) | UseTree::Rename(_) | UseTree::Glob(_) => {}
        }
    }
    let mut found = BTreeMap::new();
    for item in &root.items {
        if let Item::Use(import) = item {
            collect(&import.tree, &mut found);
        }
    }
    found
}

/// The names that a `use` brings into scope.
fn names_of(tree: &UseTree, found: &mut BTreeSet<String>) {
    match tree {
        UseTree::Path(path) => names_of(&path.tree, found),
        UseTree::Name(name) => drop(found.insert(name.ident.to_string())),
        UseTree::Rename(rename) => drop(found.insert(rename.rename.to_string())),
        UseTree::Group(group) => group.items.iter().for_each(|tree| names_of(tree, found)),
        UseTree::Glob(_) => {}
    }
}

/// The modules of a crate, and what its root re-exports.
struct Map {
    modules: BTreeSet<Module>,
    reexports: BTreeMap<String, String>,
}

/// What is needed to resolve a path in a file.
struct Scope<'tree> {
    map: &'tree Map,
    /// Names that the file imports from other crates. For example, `use axum::http` hides a room `http`.
    hidden: BTreeSet<String>,
}

impl<'tree> Scope<'tree> {
    fn of(file: &File, map: &'tree Map) -> Self {
        let mut hidden = BTreeSet::new();
        for item in &file.items {
            if let Item::Use(import) = item
                && let UseTree::Path(path) = &import.tree
                && !["crate", "super", "self"].iter().any(|own| path.ident == own)
            {
                names_of(&path.tree, &mut hidden);
            }
        }
        Self { map, hidden }
    }

    /// The module directly below the root to which the path `words` leads; `None`: it leads to no module.
    fn first_module(&self, words: &[String], module: &[String]) -> Option<String> {
        let root = |path: &[String]| {
            let first = path.first()?;
            match self.map.modules.contains(&path[..1]) {
                true => Some(first.clone()),
                false => self.map.reexports.get(first).cloned(),
            }
        };
        match words.first()?.as_str() {
            "crate" => root(&words[1..]),
            "self" => module.first().cloned(),
            "super" => {
                let ups = words.iter().take_while(|word| *word == "super").count();
                let base = &module[..module.len().checked_sub(ups)?];
                root(&[base, &words[ups..]].concat())
            }
            name => {
                let is_hidden = self.hidden.contains(name)
                    || self.map.modules.contains(&[module, &words[..1]].concat());
                let is_module = self.map.modules.contains(&words[..1]);
                (is_module && !is_hidden).then(|| name.to_owned())
            }
        }
    }
}

/// Searches tokens for paths, including the groups of a `use`.
fn walk(tokens: TokenStream, module: &Module, scope: &Scope<'_>, found: &mut BTreeSet<String>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let is_colons = |at| is_colons(&tokens, at);
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Group(group) => walk(group.stream(), module, scope, found),
            // A path begins at a word that has no `::` or `.` before it.
            TokenTree::Ident(word) if begins_a_path(&tokens, at) => {
                let mut words = vec![word.to_string()];
                let mut next = at + 1;
                while is_colons(next)
                    && let Some(TokenTree::Ident(word)) = tokens.get(next + 2)
                {
                    words.push(word.to_string());
                    next += 3;
                }
                let is_path = words.len() > 1 || is_colons(next);
                if let (true, Some(TokenTree::Group(group))) =
                    (is_colons(next), tokens.get(next + 2))
                    && group.delimiter() == Delimiter::Brace
                {
                    for branch in branches(group.stream()) {
                        let words = [&words[..], &branch].concat();
                        found.extend(scope.first_module(&words, module));
                    }
                    // The group was handled above as branches of this path, so it is skipped.
                    next += 3;
                }
                if is_path {
                    found.extend(scope.first_module(&words, module));
                }
                at = next - 1;
            }
            _ => {}
        }
        at += 1;
    }
}

/// The first word of each branch of a `use` group: `{a::b, c}` has `a` and `c`.
fn branches(tokens: TokenStream) -> Vec<Vec<String>> {
    let (mut found, mut begins) = (Vec::new(), true);
    for token in tokens {
        match token {
            TokenTree::Punct(comma) if comma.as_char() == ',' => begins = true,
            TokenTree::Ident(word) if begins => {
                found.push(vec![word.to_string()]);
                begins = false;
            }
            _ => begins = false,
        }
    }
    found
}

#[test]
fn the_rooms_of_the_library_use_only_what_stands_below_them() {
    lockkeeper().check();
}

#[test]
fn the_rooms_of_the_server_use_only_what_stands_below_them() {
    brigandine().check();
}

/// The table has no cycle, because a room may only use rooms that are listed before it.
#[test]
fn the_table_of_rooms_leads_downwards() {
    for rooms in [LOCKKEEPER, BRIGANDINE] {
        let floors: BTreeMap<&str, usize> =
            rooms.iter().enumerate().map(|(floor, room)| (room.name, floor)).collect();
        assert_eq!(floors.len(), rooms.len(), "two rooms have one name");
        for (floor, room) in rooms.iter().enumerate() {
            for used in room.uses {
                let below = floors.get(used).unwrap_or_else(|| panic!("there is no room {used}"));
                assert!(*below < floor, "{} may not use {used}", room.name);
            }
        }
    }
}

#[test]
fn a_room_that_is_listed_is_there() {
    for tree in [lockkeeper(), brigandine()] {
        let modules: BTreeSet<Module> =
            files(&tree.src).into_iter().map(|(_, module)| module).collect();
        for name in tree.rooms.iter().flat_map(|room| room.modules) {
            assert!(
                modules.contains(&vec![(*name).to_owned()]),
                "{name} is not in {}",
                tree.src.display()
            );
        }
    }
}

#[test]
fn a_path_is_found_wherever_it_stands() {
    let modules: BTreeSet<Module> = [&["low"][..], &["high"], &["high", "part"], &["other"]]
        .into_iter()
        .map(|path| path.iter().map(|&name| name.to_owned()).collect())
        .collect();
    let root = "pub use {low::{Thing, inner::Other as Renamed}, other::Else};";
    let root = syn::parse_str(root).expect("code");
    let map = Map { modules, reexports: reexports(&root) };
    let part: Module = vec!["high".into(), "part".into()];
    let found = |code: &str| -> Vec<String> {
        uses(&syn::parse_str(code).expect("code"), &part, &map).into_iter().collect()
    };
    for (code, expected) in [
        ("use crate::low::Thing;", &["low"][..]),
        ("use crate::{low::{A, B}, other, Root};", &["low", "other"]),
        ("pub(crate) use crate::low;", &["low"]),
        ("use super::super::low::Thing;", &["low"]),
        ("use super::Thing;", &["high"]),
        ("fn f() -> crate::low::A { todo() }", &["low"]),
        ("fn f() { low::go(1); }", &["low"]),
        ("fn f() { println!(\"{}\", crate::other::NAME); }", &["other"]),
        ("mod inner { use super::super::super::low::A; }", &["low"]),
        (
            "impl<T: crate::low::Trait> A for T { const B: u8 = { crate::other::C }; }",
            &["low", "other"],
        ),
        ("use elsewhere::low; fn f() { low::go(1); crate::other::go(); }", &["other"]),
        ("use crate::Thing;", &["low"]),
        ("fn f() -> crate::Renamed { todo() }", &["low"]),
        ("use crate::Else;", &["other"]),
        ("use elsewhere::{low::Thing, other::{self}};", &[]),
        ("use std::low::A; fn f(a: A) { a.low::<u8>(); other(1); }", &[]),
        ("/// [`crate::low::A`]\nfn f() {}", &[]),
        ("#[cfg(test)]\nmod tests { use crate::low::A; }", &[]),
        ("#[cfg(doc)]\nuse crate::low::A;", &[]),
        ("#[cfg(not(doc))]\nuse crate::low::A;", &["low"]),
    ] {
        assert_eq!(found(code), expected, "{code}");
    }
}
