//! The documents are true: their files pass the checks, the program accepts their commands, and their links lead
//! somewhere.

use crate::support::{Ended, PROGRAM, Place, run};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace")
}

/// The documents of the server, and those that belong to both products.
fn documents() -> Vec<(PathBuf, String)> {
    let root = root();
    let mut paths: Vec<PathBuf> = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "crates/brigandine/README.md",
        "crates/brigandine/CHANGELOG.md",
    ]
    .map(|name| root.join(name))
    .to_vec();
    for folder in ["docs", "docs/design"] {
        let entries = std::fs::read_dir(root.join(folder)).expect("a folder");
        paths.extend(entries.map(|entry| entry.expect("an entry").path()));
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    let read = |path: PathBuf| (path.clone(), std::fs::read_to_string(&path).expect("a document"));
    paths.into_iter().map(read).collect()
}

/// The fenced blocks of a document that are in this language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let (mut blocks, mut open) = (Vec::new(), None::<(bool, String)>);
    for line in text.lines() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(named)) => open = Some((named == language, String::new())),
            (Some(_), Some(_)) => {
                if let Some((true, block)) = open.take() {
                    blocks.push(block);
                }
            }
            (Some((_, block)), None) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

/// The words of a shell command, without quotes, up to a pipe, a redirection or the next command.
fn words(command: &str) -> Vec<String> {
    let command = command.split(" #").next().unwrap_or_default();
    let words = command.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned());
    words
        .take_while(|word| !["|", ">", "<", "&&", ";", "&", "\\"].contains(&word.as_str()))
        .collect()
}

/// Every call of the program in the documents: the document and the arguments.
fn calls() -> Vec<(String, Vec<String>)> {
    let mut calls = Vec::new();
    for (path, text) in documents() {
        let place = path.strip_prefix(root()).expect("below").display().to_string();
        let lines = blocks(&text, "sh").join("");
        for line in lines.lines() {
            let line = line.trim().trim_start_matches("cargo run --release -- ");
            let is_demo = line.starts_with("demo");
            let line = if is_demo { format!("brigandine {line}") } else { line.to_owned() };
            if let Some(at) =
                line.find("brigandine ").filter(|at| *at == 0 || line[..*at].ends_with(' '))
            {
                calls.push((place.clone(), words(&line[at + "brigandine ".len()..])));
            }
        }
        // Calls within the text, such as `brigandine log 7`.
        for part in text.split('`').skip(1).step_by(2).filter(|part| !part.contains('\n')) {
            if let Some(rest) = part.strip_prefix("brigandine ") {
                calls.push((place.clone(), words(rest)));
            }
        }
    }
    calls
}

/// A value in the place of a placeholder in the documents.
fn closed(word: &str) -> String {
    match word {
        "ID" | "BUILD" | "BUILD..." | "ID," | "$n" | "N" => "7",
        "NAME" | "FILE" | "DIR" | "BACKUP" => "x",
        "TIME" => "5s",
        "SHELL" => "bash",
        word => word,
    }
    .trim_matches(['[', ']', ','])
    .to_owned()
}

/// Runs the program with these arguments and `--help`: it reads the arguments, and does nothing.
fn taken(arguments: &[String]) -> Ended {
    let mut command = Command::new(PROGRAM);
    command.args(arguments.iter().map(|word| closed(word))).arg("--help");
    run(command)
}

#[test]
fn every_call_of_the_program_in_the_documents_is_one_that_it_takes() {
    // Even with `--help`, the program refuses wrong arguments.
    for wrong in [&["serve", "--nope"][..], &["serve", "--interval", "x"], &["nope"]] {
        let wrong: Vec<String> = wrong.iter().map(|word| (*word).to_owned()).collect();
        assert_eq!(taken(&wrong).status.code(), Some(2), "{wrong:?}");
    }
    let calls = calls();
    assert!(calls.len() > 20, "{}", calls.len());
    for (place, arguments) in calls {
        let ended = taken(&arguments);
        assert!(ended.status.success(), "{place}: {arguments:?}\n{}", ended.stderr);
    }
}

#[test]
fn every_file_that_the_documents_show_passes_the_check() {
    let mut checked = 0;
    for (path, text) in documents() {
        for block in blocks(&text, "toml") {
            let place = Place::new();
            // The configuration names this specification file, which must be beside it.
            let hello =
                "[[specification]]\nname = \"hello\"\n[[specification.input]]\nurl = \"/srv/x\"\n";
            place.write("hello.toml", hello);
            let file = place.write("shown.toml", &block);
            let kind = match () {
                () if block.contains("[[specification]]") => "",
                () if block.contains("[[job]]") => "--jobs",
                () if block.contains("[package]") || block.contains("[dependencies]") => continue,
                () => "--config",
            };
            let mut command = Command::new(PROGRAM);
            command.arg("check").args(Some(kind).filter(|kind| !kind.is_empty())).arg(&file);
            let ended = run(command);
            assert!(ended.status.success(), "{}:\n{block}\n{}", path.display(), ended.stderr);
            checked += 1;
        }
    }
    assert!(checked >= 3, "{checked}");
}

#[test]
fn the_examples_pass_the_check() {
    let folder = root().join("examples/specifications");
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let mut command = Command::new(PROGRAM);
            command.arg("check").arg(&path);
            let ended = run(command);
            assert!(ended.status.success(), "{}", ended.stderr);
        }
    }
}

#[test]
fn every_link_and_script_in_the_documents_is_there() {
    for (path, text) in documents() {
        let folder = path.parent().expect("a folder");
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let links = links.map(|link| link.split('#').next().unwrap_or_default());
        for link in links.filter(|link| !link.is_empty() && !link.contains("://")) {
            assert!(folder.join(link).exists(), "{}: {link}", path.display());
        }
        for line in blocks(&text, "sh").join("").lines() {
            let mut words = line.split_whitespace().skip_while(|word| *word != "python3");
            if let (Some(_), Some(script)) = (words.next(), words.next()) {
                let found = folder.join(script).exists() || root().join(script).exists();
                assert!(found, "{}: {script}", path.display());
            }
        }
    }
}

#[test]
fn the_readme_names_every_command_and_every_exit_status() {
    let readme = root().join("crates/brigandine/README.md");
    let readme = std::fs::read_to_string(readme).expect("the README");
    let mut help = Command::new(PROGRAM);
    help.arg("--help");
    let help = run(help).stdout;
    let commands = help.split_once("Commands:").expect(&help).1.split("\n\n").next().expect(&help);
    let mut count = 0;
    for line in commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ")) {
        let command = line.split_whitespace().next().expect("a command");
        let named = format!("`{command}");
        assert!(command == "help" || readme.contains(&named), "{command} is not in the README");
        count += 1;
    }
    assert!(count > 10, "{help}");
    let statuses = help.split_once("Exit status:").expect(&help).1;
    for line in statuses.lines().filter(|line| line.starts_with("  ")) {
        if let Some(status) =
            line.split_whitespace().next().filter(|word| word.parse::<u8>().is_ok())
        {
            let told = readme.contains(&format!("{status} "));
            assert!(told && readme.contains("Exit status"), "status {status} is not in the README");
        }
    }
}

#[test]
fn what_the_readme_writes_to_begin_with_can_be_built() {
    let readme = root().join("crates/brigandine/README.md");
    let text = std::fs::read_to_string(readme).expect("the README");
    let files = blocks(&text, "toml");
    let specification =
        files.iter().find(|file| file.contains("# hello.toml")).expect("a specification");
    let list = files.iter().find(|file| file.starts_with("[[job]]")).expect("a job list");
    let place = Place::new();
    let repository = place.repository("hello.git");
    // The files that the job list names: sources, a Makefile that makes `hello`, and a test of it.
    repository.commit(&[
        ("brigandine.toml", list),
        ("src/hello.c", "#include <stdio.h>\nint main(void) { puts(\"hello\"); return 0; }\n"),
        ("Makefile", "hello: src/hello.c\n\tcc -o $@ $<\n"),
        ("tests/run.sh", "test \"$(\"$1\")\" = hello\n"),
    ]);
    let here = repository.path.to_str().expect("a path");
    let local = specification.replace("https://example.org/hello.git", here);
    assert_ne!(&local, specification, "the README's address has changed");
    place.write("hello.toml", &local);
    let commands = blocks(&text, "sh").into_iter().find(|block| block.contains("check hello.toml"));
    let commands = commands.expect("the commands");
    let lines: Vec<Vec<String>> = commands
        .lines()
        .filter_map(|line| Some(words(line.strip_prefix("brigandine ")?)))
        .collect();
    let first: Vec<&str> =
        lines.iter().filter_map(|line| line.first()).map(String::as_str).collect();
    assert_eq!(first, ["check", "serve", "evaluate"], "{commands}");
    // The last command is for a server that runs, and this one ends by itself.
    for mut line in lines.into_iter().take(2) {
        for word in &mut line {
            *word = word.replace("hello.toml", place.path("hello.toml").to_str().expect("a path"));
        }
        if line[0] == "serve" {
            line.push("--one-shot".to_owned());
        }
        let mut command = Command::new(PROGRAM);
        command.args(&line).env("BRIGANDINE_STATE", place.state());
        let ended = run(command);
        assert!(ended.status.success(), "{line:?}: {}\n{}", ended.stdout, ended.stderr);
    }
    assert_eq!(place.jobs(1), ["compile|0", "test|0"]);
}

#[test]
fn what_the_readme_has_imported_is_made_by_the_script_that_it_names() {
    let readme = root().join("crates/brigandine/README.md");
    let text = std::fs::read_to_string(readme).expect("the README");
    let script =
        text.split_whitespace().skip_while(|word| *word != "python3").nth(1).expect("a script");
    for schema in ["august", "july"] {
        let place = Place::new();
        let made = place.path("cuirass.db");
        let mut generator = Command::new("python3");
        generator.arg(root().join(script)).arg("3000").arg(&made).args(["--schema", schema]);
        let ended = run(generator);
        assert!(ended.status.success(), "{}", ended.stderr);
        let ended = run(place.tool(&["import", "cuirass", made.to_str().expect("a path")]));
        assert!(ended.status.success(), "{}", ended.stderr);
        assert_eq!(place.rows("SELECT count(*) FROM build"), ["3000"], "{schema}");
    }
}
