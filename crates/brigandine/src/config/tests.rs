//! Golden files with the messages about every kind of wrong configuration. They are beside `NAME.toml` in
//! `tests/data/bad-config`. The part of the name before the first dash says which kind of file it is. `cargo insta
//! review` shows a golden file that differs, and `INSTA_UPDATE=always` accepts the change.

use std::path::{Path, PathBuf};

use super::*;

fn data(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(folder)
}

#[test]
fn commands_find_the_state_directory_that_is_here_or_that_of_the_package() {
    let place = tempfile::tempdir().expect("a directory");
    let (here, file) = (place.path().join("here"), place.path().join("etc/brigandine.toml"));
    for folder in [&here, &place.path().join("etc")] {
        std::fs::create_dir(folder).expect("a folder");
    }
    let usual = || packaged::usual_state(&here, &file);
    assert_eq!(usual(), Path::new("brigandine-state"), "no package is installed");
    for (text, found) in [
        ("state = \"/srv/ci\"", "/srv/ci".into()),
        ("state = \"../ci\"", place.path().join("etc/../ci")),
        ("", PathBuf::from("/var/lib/brigandine")),
        // With mistakes, with which a server would not start.
        ("stat = 3\nstate = \"/srv/ci\"\nlisten = 7", "/srv/ci".into()),
        ("state = \"/srv/ci\"\n[web\nhosts", "/srv/ci".into()),
        ("state = 7", "/var/lib/brigandine".into()),
        ("\u{0}\u{1}", "/var/lib/brigandine".into()),
    ] {
        std::fs::write(&file, text).expect("written");
        assert_eq!(usual(), found, "{text:?}");
    }
    std::fs::create_dir(here.join("brigandine-state")).expect("a folder");
    assert_eq!(usual(), Path::new("brigandine-state"), "the one that is here wins");
}

/// Compares `text` with the golden file `name` in a folder of `tests/data`.
fn check_snapshot(folder: &str, name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(data(folder));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// The messages about `text`, which must be refused.
fn refusal(name: &str, text: &str) -> String {
    let problems = match name.split('-').next() {
        Some("spec") => specification::parse(name, text).map(drop),
        Some("server") => server::parse(name, text).map(drop),
        Some("jobs") => job_list::parse(name, text).map(drop),
        _ => panic!("{name}: the name starts with spec-, server- or jobs-"),
    };
    problems.expect_err(name).to_string()
}

#[test]
fn every_wrong_configuration_is_told_by_file_line_and_remedy() {
    let mut kinds = 0;
    for entry in std::fs::read_dir(data("bad-config")).expect("the folder of bad configurations") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        kinds += 1;
        let name = path.file_name().and_then(|name| name.to_str()).expect("a plain name");
        let said = refusal(name, &std::fs::read_to_string(&path).expect("a text file"));
        assert!(said.starts_with(&format!("{name}:")), "{name}: no place in {said}");
        assert!(said.contains("= help: "), "{name}: no remedy in {said}");
        for line in said.lines().filter(|line| line.contains(": error: ")) {
            let mut parts = line.split(':').skip(1);
            let mut number = || parts.next().and_then(|part| part.parse::<usize>().ok());
            assert!(number() > Some(0) && number() > Some(0), "{name}: no line and column: {line}");
        }
        check_snapshot("bad-config", name.trim_end_matches(".toml"), &said);
    }
    assert!(kinds >= 78, "only {kinds} kinds of wrong configuration");
}

#[test]
fn cutting_a_good_file_anywhere_never_panics() {
    let text = include_str!("../../tests/data/config/everything.toml");
    for end in (0..text.len()).filter(|&end| text.is_char_boundary(end)) {
        // No parser may panic, neither on its own kind of file nor on another kind. Most texts are refused.
        let _ = specification::parse("cut.toml", &text[..end]);
        let _ = server::parse("cut.toml", &text[..end]);
        let _ = job_list::parse("cut.toml", &text[..end]);
    }
}

#[test]
fn damaging_any_byte_of_a_good_file_never_panics() {
    let text = include_str!("../../tests/data/config/everything.toml");
    for at in 0..text.len() {
        for byte in [b'"', b'[', b'=', b'\n', b'\\', 0x7f] {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] = byte;
            if let Ok(text) = String::from_utf8(bytes)
                && let Err(problems) = specification::parse("damaged.toml", &text)
            {
                assert!(!problems.is_empty());
                assert!(problems.to_string().starts_with("damaged.toml:"), "{problems}");
            }
        }
    }
}

#[test]
fn everything_a_specification_can_say_is_understood() {
    let text = include_str!("../../tests/data/config/everything.toml");
    let placed = specification::parse("everything.toml", text).unwrap_or_else(|e| panic!("{e}"));
    let all: Vec<_> = placed.into_iter().map(|placed| placed.specification).collect();
    let names: Vec<_> = all.iter().map(|specification| &*specification.name).collect();
    assert_eq!(names, ["list-in-repository", "program", "list-here", "shortest"]);
    let json = serde_json::to_string_pretty(&all).expect("plain values");
    check_snapshot("config", "everything", &json);
}

#[test]
fn an_empty_configuration_is_the_default_one() {
    assert_eq!(server::parse("server.toml", ""), Ok(Config::default()));
}

#[test]
fn relative_paths_start_at_the_folder_of_the_configuration() {
    let text = "state = \"state\"\nspecifications = [\"a.toml\", \"/b.toml\"]\n";
    let config = server::parse("/etc/brigandine/server.toml", text).expect("a good file");
    assert_eq!(config.state, Path::new("/etc/brigandine/state"));
    let wanted = [Path::new("/etc/brigandine/a.toml"), Path::new("/b.toml")];
    assert_eq!(config.specifications, wanted);
}

#[test]
fn a_circle_of_needs_as_long_as_the_list_is_found_without_deep_recursion() {
    let mut text = String::new();
    for n in 0..20_000 {
        let next = (n + 1) % 20_000;
        text.push_str(&format!(
            "[[job]]\nname = \"j{n}\"\ncommand = \"true\"\nneeds = [\"j{next}\"]\n"
        ));
    }
    let problems = job_list::parse("jobs.toml", &text).expect_err("a circle");
    assert_eq!(problems.count(), 1);
    assert!(problems.to_string().contains("in a circle: j0 → j1"), "{problems}");
}

/// The configuration that the Debian package installs, as it is and with every key that stands there in a comment.
#[test]
fn the_packaged_configuration_has_no_mistake() {
    let text = include_str!("../../../../packaging/brigandine.toml");
    let config = server::parse("brigandine.toml", text).expect("right");
    assert_eq!(config.state, Path::new("/var/lib/brigandine"));
    assert_eq!(config.sandbox, Sandbox::Require);
    let defaults = Config::default();
    assert_eq!((config.listen, config.web), (defaults.listen, defaults.web));
    let is_key = |line: &str| line.starts_with('[') || line.contains(" = ") && !line.contains(". ");
    let uncommented: Vec<&str> = text
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|rest| is_key(rest)).unwrap_or(line))
        .collect();
    let all = server::parse("brigandine.toml", &uncommented.join("\n")).expect("right");
    assert_eq!(all.interval, defaults.interval);
    assert!(!all.drain && all.specifications.len() == 1);
    assert_eq!(all.limits.build_time, defaults.limits.build_time);
    assert_eq!(all.web.hosts.as_deref(), Some(&["ci.example.org".to_owned()][..]));
    assert_eq!(all.keep.evaluations, Some(100));
}
