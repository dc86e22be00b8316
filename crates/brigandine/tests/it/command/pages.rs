//! What the command line says of itself.

#[path = "../../../commit.rs"]
mod commit;

use std::fs;
use std::process::Command;

use crate::support::{PROGRAM, Place, run};

fn said(arguments: &[&str]) -> String {
    let mut command = Command::new(PROGRAM);
    command.args(arguments);
    let ended = run(command);
    assert!(ended.status.success() && ended.stderr.is_empty(), "{}", ended.stderr);
    ended.stdout
}

#[test]
fn the_version_says_what_was_built() {
    let text = said(&["--version"]);
    let version = text.strip_prefix("brigandine ").expect("the program's name");
    let (number, build) = version.trim_end().split_once(' ').expect("a version and a build");
    assert_eq!(number, env!("CARGO_PKG_VERSION"));
    let kinds = ["(debug build)", "(commit "];
    assert!(kinds.iter().any(|kind| build.starts_with(kind)) && build.ends_with(')'), "{build}");
}

#[test]
fn a_tree_is_its_commit_and_dirty_when_a_tracked_file_differs() {
    let place = Place::new();
    let repository = place.repository("sources");
    let revision = repository.commit(&[("crate/Cargo.toml", "[package]\n")]);
    let folder = repository.path.join("crate");
    assert_eq!(commit::commit(&folder).as_deref(), Some(&revision[..12]));
    let watched = commit::watched(&folder);
    assert!(watched.iter().any(|path| path.ends_with(".git/logs/HEAD")), "{watched:?}");
    fs::write(folder.join("new"), "").expect("a file");
    assert_eq!(commit::commit(&folder).as_deref(), Some(&revision[..12]), "not tracked");
    fs::write(folder.join("Cargo.toml"), "").expect("a file");
    assert_eq!(commit::commit(&folder), Some(format!("{}-dirty", &revision[..12])));
    // A tarball, unpacked in a repository that knows nothing of it.
    let unpacked = repository.path.join("unpacked");
    fs::create_dir(&unpacked).expect("a folder");
    fs::write(unpacked.join("Cargo.toml"), "").expect("a file");
    assert_eq!(commit::commit(&unpacked), None);
    let alone = place.path("alone");
    fs::create_dir(&alone).expect("a folder");
    assert_eq!(commit::commit(&alone), None);
}

#[test]
fn every_shell_gets_completions_with_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = said(&["completions", shell]);
        for word in ["serve", "status", "--dry-run", "completions"] {
            let word = if shell == "fish" { word.trim_start_matches('-') } else { word };
            assert!(script.contains(word), "{shell} is not told of {word}");
        }
    }
    let place = Place::new();
    let script = place.write("brigandine.bash", &said(&["completions", "bash"]));
    let mut check = Command::new("bash");
    check.arg("-n").arg(script);
    let checked = run(check);
    assert!(checked.status.success(), "{}", checked.stderr);
}

#[test]
fn there_is_a_manual_page_for_the_program_and_for_each_command() {
    let page = said(&["man"]);
    assert!(page.contains(".TH brigandine 1") && page.contains(".SH \"EXIT STATUS\""), "{page}");
    assert!(page.contains(".SH ENVIRONMENT") && !page.contains("EXTRA"), "{page}");
    let place = Place::new();
    let folder = place.path("man1");
    said(&["man", "--directory", folder.to_str().expect("a path")]);
    let pages: Vec<String> = fs::read_dir(&folder)
        .expect("the pages")
        .map(|entry| entry.expect("a page").file_name().to_string_lossy().into_owned())
        .collect();
    let help = said(&["--help"]);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.take_while(|line| !line.is_empty());
    // Two blanks, then the name; further lines of a description are indented deeper.
    let names =
        commands.filter_map(|line| line.strip_prefix("  ")).filter(|it| !it.starts_with(' '));
    let names: Vec<_> = names.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() > 12, "{help}");
    for name in names.iter().filter(|name| **name != "help") {
        assert!(pages.contains(&format!("brigandine-{name}.1")), "{name} is not in {pages:?}");
    }
    // A page says of which program it is, what values options have, and which variable stands for one.
    let status = fs::read_to_string(folder.join("brigandine-status.1")).expect("a page");
    for text in ["\"brigandine 0.", "\\fB\\-\\-state\\fR \\fIDIR\\fR", "BRIGANDINE_STATE"] {
        assert!(status.contains(text), "{text} is not in {status}");
    }
    assert!(pages.contains(&"brigandine.1".to_owned()), "{pages:?}");
    assert!(pages.contains(&"brigandine-spec-add.1".to_owned()), "{pages:?}");
}
