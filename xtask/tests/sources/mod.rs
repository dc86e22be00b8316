//! The source files of the workspace's crates, as the checks of their structure read them.

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::TokenTree;
use quote::ToTokens;
use syn::{Attribute, File, Item};

/// The folder with the sources of a crate of the workspace.
pub(crate) fn src_of(crate_name: &str) -> PathBuf {
    let xtask = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let workspace = Path::new(&xtask).parent().expect("xtask is in the workspace");
    workspace.join("crates").join(crate_name).join("src")
}

/// The path of a module from the crate's root, such as `["queue", "lanes"]`.
pub(crate) type Module = Vec<String>;

/// The source files below `src`, each with its module.
pub(crate) fn files(src: &Path) -> Vec<(PathBuf, Module)> {
    let (mut found, mut open) = (Vec::new(), vec![src.to_owned()]);
    while let Some(folder) = open.pop() {
        let entries =
            fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries {
            let path = entry.expect("a folder's entry").path();
            let inside = path.strip_prefix(src).expect("below src").with_extension("");
            let mut module: Module =
                inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                if module.last().is_some_and(|name| ["mod", "lib", "main"].contains(&name.as_str()))
                {
                    module.pop();
                }
                found.push((path, module));
            }
        }
    }
    found.sort();
    found
}

pub(crate) fn parse(path: &Path) -> File {
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether an item is compiled only for tests or for documentation.
pub(crate) fn is_left_out(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg") && {
            let condition = attribute.meta.to_token_stream().to_string();
            let of_tests = condition.contains("test") && !condition.contains("not (test");
            of_tests || condition == "cfg (doc)"
        }
    })
}

pub(crate) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        _ => &[],
    }
}

/// The modules that are declared only for tests, each in a file of its own.
pub(crate) fn test_modules(files: &[(PathBuf, Module)]) -> Vec<Module> {
    let mut found = Vec::new();
    for (path, module) in files {
        for item in parse(path).items {
            if let Item::Mod(declared) = &item
                && declared.content.is_none()
                && is_left_out(&declared.attrs)
            {
                found.push([&module[..], &[declared.ident.to_string()]].concat());
            }
        }
    }
    found
}

/// Whether `::` is at this place.
pub(crate) fn is_colons(tokens: &[TokenTree], at: usize) -> bool {
    [at, at + 1].iter().all(|&at| is_punct(tokens, at, ':'))
}

fn is_punct(tokens: &[TokenTree], at: usize, char: char) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == char)
}

/// Whether the word at this place begins a path: it is no later part of a path, no method and no field.
pub(crate) fn begins_a_path(tokens: &[TokenTree], at: usize) -> bool {
    let is_part = at >= 2 && is_colons(tokens, at - 2);
    let is_member = at >= 1 && is_punct(tokens, at - 1, '.');
    !is_part && !is_member
}
