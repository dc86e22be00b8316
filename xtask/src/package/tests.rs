//! What is packed, as far as it can be said without compiling the server: the lines of the unit that keep builds alive, the
//! list of files, and the scripts.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::{debian, tree};
use crate::command::succeeds;
use crate::root;

fn packaging(name: &str) -> PathBuf {
    root().join("packaging").join(name)
}

fn read(name: &str) -> String {
    let path = packaging(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_unit_has_the_lines_without_which_builds_are_lost() {
    let unit = read("brigandine.service");
    let has = |line: &str| unit.lines().any(|it| it == line);
    for line in [
        "User=brigandine",
        "ExecStart=/usr/bin/brigandine serve --config /etc/brigandine/brigandine.toml",
        "Restart=on-failure",
        "KillMode=mixed",
        "OOMPolicy=continue",
        "Delegate=yes",
        "TasksMax=infinity",
        "LimitNOFILE=65536",
        "StateDirectory=brigandine",
        "StateDirectoryMode=0700",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "ProtectSystem=strict",
    ] {
        assert!(has(line), "the unit lacks `{line}`");
    }
    // The first needs a /proc over which nothing is mounted, and the second gives one.
    assert!(
        has("ProtectKernelTunables=yes") && has("BindPaths=/proc:/run/brigandine/proc:norbind")
    );
    // Each of them would keep the sandbox or its builds from working.
    for word in
        ["RestrictNamespaces", "MemoryDenyWriteExecute=yes", "ProtectControlGroups", "ProtectProc"]
    {
        let set = unit.lines().filter(|line| !line.starts_with('#')).any(|it| it.contains(word));
        assert!(!set, "the unit says {word}");
    }
}

#[test]
fn a_stop_has_more_time_than_a_server_takes_that_cuts_its_builds() {
    let unit = read("brigandine.service");
    let time = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec="));
    // `build-grace` is 10 s, unless the configuration says otherwise.
    assert_eq!(time, Some("2min"));
    assert!(read("examples/drain.conf").contains("TimeoutStopSec=65min"));
}

#[test]
fn everything_that_is_packed_is_there_and_nothing_is_packed_twice() {
    let mut targets = BTreeSet::new();
    for (from, to) in tree::FILES {
        assert!(root().join(from).is_file(), "{from} is not there");
        assert!(targets.insert(to.trim_end_matches(".gz")), "{to} is packed twice");
    }
    for (_, to) in tree::COMPLETIONS {
        assert!(targets.insert(to), "{to} is packed twice");
    }
    assert!(targets.insert(tree::PROGRAM));
    for to in targets {
        assert!(to.starts_with("usr/") || to.starts_with("etc/"), "{to}");
    }
}

#[test]
fn each_example_is_packed() {
    let packed: BTreeSet<&str> = tree::FILES.iter().map(|(from, _)| *from).collect();
    for entry in fs::read_dir(packaging("examples")).expect("a folder") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        let from = format!("packaging/examples/{name}");
        assert!(packed.contains(from.as_str()), "{from} is not packed");
    }
}

#[test]
fn files_below_etc_are_those_that_an_upgrade_keeps() {
    let kept = read("debian/conffiles");
    let below: Vec<String> = tree::FILES
        .iter()
        .filter(|(_, to)| to.starts_with("etc/"))
        .map(|(_, to)| format!("/{to}"))
        .collect();
    assert_eq!(kept.lines().collect::<Vec<_>>(), below);
}

#[test]
fn the_scripts_are_shell_and_stop_at_the_first_error() {
    for name in debian::SCRIPTS {
        let path = packaging("debian").join(name);
        assert!(succeeds("sh", &["-n", &path.display().to_string()]), "{}", path.display());
        let text = read(&format!("debian/{name}"));
        assert!(text.starts_with("#!/bin/sh\n") && text.contains("\nset -e\n"), "{name}");
    }
}

#[test]
fn the_description_names_the_users_program_and_has_all_its_values() {
    let values = [
        ("@VERSION@", "1.2"),
        ("@ARCHITECTURE@", "amd64"),
        ("@SIZE@", "7"),
        ("@LIBRARIES@", "libc6"),
    ];
    let filled = debian::control(&values).ok().expect("all are filled in");
    assert!(filled.contains("\nVersion: 1.2\n") && filled.contains("\nInstalled-Size: 7\n"));
    assert!(filled.contains("Depends: libc6, bubblewrap, git"), "{filled}");
    assert!(debian::control(&values[1..]).is_err(), "nothing fills in the version");
}

#[test]
fn libraries_become_packages_and_unknown_ones_are_named() {
    let listed = "  NEEDED               libgcc_s.so.1\n  NEEDED               libc.so.6\n\
                  required from libc.so.6:\n  0x09 0x00 03 GLIBC_2.2.5\n  0x09 0x00 02 GLIBC_2.34\n\
                  0x09 0x00 02 GLIBC_2.9\n";
    let packages = debian::libraries(listed).ok();
    assert_eq!(packages.as_deref(), Some("libc6 (>= 2.34), libgcc-s1"));
    let other = listed.replace("libgcc_s.so.1", "libodd.so.3");
    let why = debian::libraries(&other).err().map(|failed| failed.0).expect("refused");
    assert!(why.contains("libodd.so.3"), "{why}");
    assert!(debian::libraries("").is_err());
}
