//! Checks rules about the source tree, so that they stay true.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(below: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(below)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a directory");
            open.extend(entries.map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file");
            found.push((path, text));
        }
    }
    let tests: Vec<PathBuf> = found.iter().flat_map(|(path, text)| tests_of(path, text)).collect();
    found.retain(|(path, _)| {
        !tests.iter().any(|test| path.starts_with(test.with_extension("")) || path == test)
    });
    assert!(!found.is_empty(), "{below}");
    found
}

/// The files that a file declares as tests: `#[cfg(test)]` and then `mod NAME;`.
fn tests_of(path: &Path, text: &str) -> Vec<PathBuf> {
    let names_itself =
        ["mod", "lib", "main"].iter().any(|name| path.ends_with(format!("{name}.rs")));
    let folder = if names_itself { path.with_file_name("") } else { path.with_extension("") };
    let lines: Vec<&str> = text.lines().collect();
    let declared = lines.windows(2).filter(|lines| lines[0] == "#[cfg(test)]");
    let names = declared.filter_map(|lines| lines[1].strip_suffix(';')?.split_once("mod "));
    names.map(|(_, name)| folder.join(name).with_extension("rs")).collect()
}

/// The lines of code of a file, without comments and without its tests.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .filter(|line| !line.trim_start().starts_with("//"))
}

#[test]
fn every_process_is_started_in_one_place() {
    for (path, text) in sources("src") {
        // Commands that set up a sample repository, without a server, may start processes directly.
        let tool = path.components().any(|p| p.as_os_str() == "command");
        let starts = ["os/process/fork_server.rs", "os/process/supervisor.rs"];
        if tool || starts.iter().any(|file| path.ends_with(file)) {
            continue;
        }
        for line in code(&text) {
            let starts =
                [".spawn()", ".output()", "tokio::process"].iter().any(|w| line.contains(w));
            assert!(!starts, "{}: {line}", path.display());
        }
    }
}

#[test]
fn the_database_never_asks_for_the_time_or_for_chance() {
    for (path, text) in sources("src/store") {
        let text = text.to_lowercase();
        for word in ["datetime(", "current_timestamp", "unixepoch(", "random()", "randomblob("] {
            assert!(!text.contains(word), "{}: {word}", path.display());
        }
    }
}

/// The text of every source file, with strings that go over several lines put together.
fn sources_joined() -> String {
    let mut all = String::new();
    // The library's words for what is wrong with a database reach operators, too.
    let library = concat!(env!("CARGO_MANIFEST_DIR"), "/../lockkeeper/src/error/kind.rs");
    let library = fs::read_to_string(library).expect("the library's errors");
    for text in sources("src").into_iter().map(|(_, text)| text).chain([library]) {
        let mut lines = text.split("\\\n");
        all.push_str(lines.next().unwrap_or_default());
        lines.for_each(|line| all.push_str(line.trim_start()));
    }
    all
}

fn operation() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operation.md");
    fs::read_to_string(path).expect("docs/operation.md")
}

#[test]
fn the_messages_in_docs_operation_are_those_of_the_program() {
    let (sources, text) = (sources_joined(), operation());
    let messages = text.split_once("\n## Messages").expect("the messages").1;
    let rows = messages.lines().filter_map(|line| line.strip_prefix("| `"));
    let messages: Vec<&str> = rows.filter_map(|row| row.split('`').next()).collect();
    assert!(messages.len() > 20, "{messages:?}");
    for message in messages {
        assert!(sources.contains(message), "no source file has the message {message:?}");
    }
}
