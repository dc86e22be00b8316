//! Checks that keep `ARCHITECTURE.md` and `docs/promises.md` true: parts do not use what they must not know, and all
//! files and tests that the documents name exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The workspace's folder. The variable is read when the test runs, so that a compiled test can check another tree.
fn root() -> PathBuf {
    let xtask = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    Path::new(&xtask).parent().expect("xtask is in the workspace").to_owned()
}

/// The Rust files below `dir`, sorted; none if there is no such directory.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let path = entry.expect("a directory entry").path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.insert(path);
            }
        }
    }
    found.into_iter().collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A source file in two parts: its code without comments and without the contents of strings, and the contents of its
/// strings.
#[derive(Debug, Default, PartialEq)]
struct Parts {
    code: String,
    strings: String,
}

fn take_apart(text: &str) -> Parts {
    let text: Vec<char> = text.chars().collect();
    let starts_with = |at: usize, what: &str| {
        what.chars().enumerate().all(|(n, char)| text.get(at + n) == Some(&char))
    };
    let mut parts = Parts::default();
    let mut at = 0;
    while at < text.len() {
        if starts_with(at, "//") {
            while at < text.len() && text[at] != '\n' {
                at += 1;
            }
        } else if starts_with(at, "/*") {
            let mut depth = 0;
            loop {
                if starts_with(at, "/*") {
                    depth += 1;
                    at += 2;
                } else if starts_with(at, "*/") {
                    depth -= 1;
                    at += 2;
                } else {
                    at += 1;
                }
                if depth == 0 || at >= text.len() {
                    break;
                }
            }
        } else if let Some(hashes) = raw_string(&text, at) {
            let end = format!("\"{}", "#".repeat(hashes));
            at += hashes + 2;
            while at < text.len() && !starts_with(at, &end) {
                parts.strings.push(text[at]);
                at += 1;
            }
            at += end.len();
            parts.code.push_str("\"\"");
            parts.strings.push('\n');
        } else if text[at] == '"' {
            at += 1;
            while at < text.len() && text[at] != '"' {
                at += usize::from(text[at] == '\\');
                parts.strings.extend(text.get(at));
                at += 1;
            }
            at += 1;
            parts.code.push_str("\"\"");
            parts.strings.push('\n');
        } else if text[at] == '\'' && text.get(at + 1) == Some(&'\\') {
            at += 3;
            while at < text.len() && text[at] != '\'' {
                at += 1;
            }
            at += 1;
        } else if text[at] == '\'' && text.get(at + 2) == Some(&'\'') {
            at += 3;
        } else {
            parts.code.push(text[at]);
            at += 1;
        }
    }
    parts
}

/// The number of `#` of the raw string that begins here; `None`: no raw string begins here.
fn raw_string(text: &[char], at: usize) -> Option<usize> {
    let is_part_of_word = at > 0 && (text[at - 1].is_alphanumeric() || text[at - 1] == '_');
    let begins = text[at] == 'r' && (!is_part_of_word || text[at - 1] == 'b');
    let hashes = text[at + 1..].iter().take_while(|&&char| char == '#').count();
    (begins && text.get(at + 1 + hashes) == Some(&'"')).then_some(hashes)
}

/// The words of the code.
fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|char: char| !char.is_alphanumeric() && char != '_').filter(|word| !word.is_empty())
}

#[test]
fn a_source_file_is_taken_apart_rightly() {
    let text = "let a = \"x \\\" // y\"; // one\n/* two /* three */ four */ fn f<'a>(c: &'a u8) {\n\
                let q = ('\"', '\\'', r#\"raw \" text\"#); }";
    let parts = take_apart(text);
    assert_eq!(
        words(&parts.code).collect::<Vec<_>>(),
        ["let", "a", "fn", "f", "a", "c", "a", "u8", "let", "q"]
    );
    assert_eq!(parts.strings, "x \" // y\nraw \" text\n");
}

#[test]
fn unsafe_code_is_in_the_ffi_alone() {
    for (part, ffi) in [("crates/lockkeeper/src", "ffi"), ("crates/brigandine/src", "os/ffi.rs")] {
        let src = root().join(part);
        let is_unsafe =
            |file: &&PathBuf| words(&take_apart(&read(file)).code).any(|word| word == "unsafe");
        let all = sources(&src);
        let (inside, outside): (Vec<_>, Vec<_>) =
            all.iter().filter(is_unsafe).partition(|file| file.starts_with(src.join(ffi)));
        assert!(outside.is_empty(), "unsafe code outside {part}/{ffi}: {outside:?}");
        assert!(!inside.is_empty(), "{part}/{ffi} holds none");
    }
}

#[test]
fn only_the_store_writes_sql() {
    let src = root().join("crates/brigandine/src");
    for file in sources(&src) {
        let inside = file.strip_prefix(&src).expect("a file of the server");
        if inside.starts_with("store") || inside.ends_with("tests.rs") {
            continue;
        }
        let Parts { code, strings } = take_apart(&read(&file));
        for sql in ["SELECT ", "INSERT INTO", "INSERT OR", "DELETE FROM", "UPDATE ", "PRAGMA "] {
            assert!(!strings.contains(sql), "{} holds {sql:?}", file.display());
        }
        for call in ["prepare_cached(", "query_row("] {
            assert!(!code.contains(call), "{} calls {call:?}", file.display());
        }
    }
}

#[test]
fn the_life_of_a_build_is_decided_without_io() {
    let file = root().join("crates/brigandine/src/build/state.rs");
    let code = take_apart(&read(&file)).code;
    for word in words(&code) {
        let io = ["tokio", "fs", "process", "net", "thread", "Instant", "SystemTime", "Database"];
        assert!(!io.contains(&word), "{} uses {word}", file.display());
    }
}

#[test]
fn the_map_is_short_enough_to_be_read_whole() {
    let map = read(&root().join("ARCHITECTURE.md"));
    let lines = map.lines().count();
    assert!(lines <= 200, "ARCHITECTURE.md has {lines} lines");
    let long: Vec<&str> = map.lines().filter(|line| line.chars().count() > 120).collect();
    assert!(long.is_empty(), "ARCHITECTURE.md has lines of more than 120 columns: {long:#?}");
}

#[test]
fn the_map_names_every_source_file_of_the_library() {
    let map = read(&root().join("docs/files.md"));
    let src = root().join("crates/lockkeeper/src");
    let missing: Vec<_> = sources(&src)
        .iter()
        .map(|file| file.strip_prefix(&src).expect("below src").to_string_lossy().into_owned())
        .filter(|file| !map.contains(&format!("`{file}`")))
        .collect();
    assert!(missing.is_empty(), "docs/files.md does not name {missing:?}");
}

/// Documents name source files, which may be moved without a change of the document.
#[test]
fn the_documents_name_no_source_file_that_is_not_there() {
    let root = root();
    let known: Vec<PathBuf> = ["crates", "lab", "xtask"]
        .iter()
        .flat_map(|part| sources(&root.join(part)))
        .filter(|path| !path.components().any(|part| part.as_os_str() == "target"))
        .collect();
    let mut documents: Vec<PathBuf> = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"]
        .map(|name| root.join(name))
        .into_iter()
        .chain(
            ["lockkeeper", "brigandine"]
                .map(|name| root.join("crates").join(name).join("README.md")),
        )
        .collect();
    for folder in ["docs", "docs/design"] {
        let entries = fs::read_dir(root.join(folder)).expect("a folder");
        documents.extend(entries.map(|entry| entry.expect("an entry").path()));
    }
    documents.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    let mut named = 0;
    for document in documents {
        // Every second piece is between two back quotes.
        for name in read(&document).split('`').skip(1).step_by(2) {
            let is_path = name.chars().all(|char| char.is_alphanumeric() || "/_-.".contains(char));
            if is_path && name.ends_with(".rs") && !name.starts_with("src/bin") {
                named += 1;
                assert!(
                    known.iter().any(|file| file.ends_with(name)),
                    "{} names {name}, which is not there",
                    document.display()
                );
            }
        }
    }
    assert!(named > 100, "only {named} files are named");
}

#[test]
fn the_promises_name_no_test_that_is_not_there() {
    let promises = read(&root().join("docs/promises.md"));
    let mut tests = BTreeSet::new();
    for dir in ["crates/lockkeeper/src", "crates/lockkeeper/tests"] {
        for file in sources(&root().join(dir)) {
            let code = take_apart(&read(&file)).code;
            let all: Vec<&str> = words(&code).collect();
            tests.extend(all.iter().filter(|word| is_promise(word)).map(ToString::to_string));
        }
    }
    let named: BTreeSet<String> =
        words(&promises).filter(|word| is_promise(word)).map(str::to_owned).collect();
    let missing: Vec<_> = named.difference(&tests).collect();
    assert!(!named.is_empty());
    assert!(missing.is_empty(), "docs/promises.md names {missing:?}");
}

/// POSIX drops all of the process's locks on a file when the process closes any descriptor of it (A37).
#[test]
fn the_library_opens_no_file_itself() {
    for file in sources(&root().join("crates/lockkeeper/src")) {
        let code = take_apart(&read(&file)).code;
        // This file makes the empty file of a backup. Nobody else can have that file open.
        if file.ends_with("src/client/target.rs") {
            let makes = (
                code.matches("OpenOptions::new").count(),
                code.matches(".create_new(true)").count(),
            );
            assert_eq!(makes, (1, 1), "it opens what may be there");
            continue;
        }
        for opens in ["File::open", "File::create", "OpenOptions", "fs::read(", "fs::copy"] {
            assert!(!code.contains(opens), "{} uses {opens}", file.display());
        }
    }
}

/// Whether this is the name of a test for a promise, such as `a05_acked_writes_survive_kill`.
fn is_promise(word: &str) -> bool {
    let bytes = word.as_bytes();
    bytes.len() > 4
        && matches!(bytes[0], b'a' | b'b')
        && bytes[1..3].iter().all(u8::is_ascii_digit)
        && bytes[3] == b'_'
}

/// The folder in which cargo keeps the source of rusqlite, in the version of the lock file.
fn rusqlite() -> PathBuf {
    let lock = read(&root().join("Cargo.lock"));
    let entry = lock.split("name = \"rusqlite\"\nversion = \"").nth(1);
    let version = entry.and_then(|rest| rest.split('"').next()).expect("the library needs it");
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.unwrap_or_else(|| std::env::home_dir().expect("a home").join(".cargo"));
    let sources = fs::read_dir(home.join("registry/src")).expect("cargo has fetched it").flatten();
    let mut found = sources.map(|source| source.path().join(format!("rusqlite-{version}/src")));
    found.find(|path| path.is_dir()).expect("cargo has fetched it")
}

/// The public methods of the type `name` in its inherent implementations.
fn methods(sources: &[String], name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for source in sources {
        let mut inside = false;
        for line in source.lines() {
            let of =
                line.strip_prefix("impl").map(|rest| rest.trim_start_matches("<'conn>").trim());
            if let Some(of) = of {
                let of = of
                    .trim_end_matches('{')
                    .trim()
                    .trim_end_matches("<'_>")
                    .trim_end_matches("<'conn>");
                inside = of == name && line.ends_with('{');
            } else if line == "}" {
                inside = false;
            } else if let (true, Some(rest)) = (inside, line.strip_prefix("    pub ")) {
                let rest = rest.trim_start_matches("unsafe ").trim_start_matches("const ");
                let method =
                    rest.strip_prefix("fn ").and_then(|rest| rest.split(['(', '<']).next());
                found.extend(method.map(str::to_owned));
            }
        }
    }
    found
}

#[test]
fn every_method_of_rusqlite_is_told_of() {
    let sources: Vec<String> = sources(&rusqlite()).iter().map(|path| read(path)).collect();
    let page = read(&root().join("docs/rusqlite.md"));
    for (name, least) in [("Connection", 60), ("Statement", 25), ("Blob", 10)] {
        let methods = methods(&sources, name);
        assert!(methods.len() >= least, "{name}: found only {methods:?}");
        let start = page.find(&format!("## `{name}`")).expect("a section for each type");
        let section = page[start + 3..].split("\n## ").next().expect("a section");
        let missing: Vec<_> =
            methods.iter().filter(|method| !section.contains(&format!("`{method}`"))).collect();
        assert!(missing.is_empty(), "docs/rusqlite.md does not tell of {name}: {missing:?}");
    }
}

/// `cargo test --doc` would compile the whole server once more, to find no example.
#[test]
fn a_package_whose_examples_are_not_run_has_none() {
    let mut left_out = 0;
    for package in ["lockkeeper", "brigandine", "brigandine-bench"] {
        let package = root().join("crates").join(package);
        if !read(&package.join("Cargo.toml")).contains("doctest = false") {
            continue;
        }
        left_out += 1;
        for file in sources(&package.join("src")) {
            let text = read(&file);
            let comments = text.lines().map(str::trim_start);
            let comments = comments.filter_map(|line| line.strip_prefix("//")?.get(1..));
            let fences = comments.filter_map(|line| line.trim_start().strip_prefix("```"));
            // Every second fence begins a block, and names its language.
            for language in fences.step_by(2) {
                let is_text = ["text", "toml", "json", "sh", "sql"].contains(&language);
                assert!(is_text, "{}: a block of `{language}` may be Rust", file.display());
            }
        }
    }
    assert_eq!(left_out, 1);
}

/// The paths of the files that `cargo package` would pack.
fn packed() -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").expect("cargo sets it");
    let arguments = ["package", "--list", "--allow-dirty", "--offline", "-p", "lockkeeper"];
    let listed = std::process::Command::new(cargo).args(arguments).current_dir(root()).output();
    let listed = String::from_utf8(listed.expect("cargo runs").stdout).expect("UTF-8");
    listed.lines().map(str::to_owned).collect()
}

#[test]
fn the_package_of_the_library_holds_what_its_documents_name() {
    let package = root().join("crates/lockkeeper");
    let packed = packed();
    assert!(packed.contains("src/lib.rs"), "cargo lists nothing");
    for document in ["README.md", "CHANGELOG.md", "docs/rusqlite.md"] {
        let text = read(&package.join(document));
        let named = text.split(|char: char| char.is_whitespace() || "`()[]".contains(char));
        let named = named.filter(|word| word.starts_with("docs/") || word.starts_with("examples/"));
        for path in named.map(|word| word.trim_end_matches(['.', ',', ';', ':'])) {
            let inside = format!("{}/", path.trim_end_matches('/'));
            let is_packed = packed.iter().any(|file| file == path || file.starts_with(&inside));
            assert!(is_packed, "{document} names {path}, which is not packed");
        }
    }
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        assert!(packed.contains(licence), "{licence} is not packed");
        assert_eq!(read(&package.join(licence)), read(&root().join(licence)), "{licence}");
    }
}
