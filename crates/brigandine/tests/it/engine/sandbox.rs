//! The sandbox, on machines with bubblewrap and without.

use crate::support::{Place, run};
use std::process::Command;

fn bubblewrap() -> bool {
    Command::new("bwrap").arg("--version").output().is_ok_and(|done| done.status.success())
}

#[test]
fn a_sandboxed_build_sees_its_own_directory_and_no_network() {
    let place = Place::new();
    let repository = place.repository("sample");
    let secret = place.write("secret", "secret\n");
    repository.jobs(&[
        ("base", "command = \"echo base > $BRIGANDINE_OUT/it\""),
        (
            "one",
            &format!(
                "command = \"cat $BRIGANDINE_NEEDS/base/it; cat {} 2>/dev/null || echo hidden; \
                 wc -l < /proc/net/dev; echo kept > $BRIGANDINE_OUT/it; \
                 touch $BRIGANDINE_NEEDS/base/new 2>/dev/null || echo read-only\"\n\
                 needs = [\"base\"]",
                secret.display()
            ),
        ),
        ("long", "command = \"setsid sleep 1000 & sleep 1000\"\ntimeout = \"1s\""),
    ]);
    place.specify(&[("sample", &repository, "")]);
    let ended = run(place.command(&["--one-shot", "--sandbox"]));
    if !bubblewrap() {
        assert_eq!(ended.status.code(), Some(1));
        assert!(ended.stderr.contains("install bubblewrap"), "{}", ended.stderr);
        return;
    }
    ended.check_evaluated();
    assert_eq!(place.jobs(1), ["base|0", "long|3", "one|0"]);
    // `/proc/net/dev` has three lines: two lines of heading, and the loopback device.
    assert_eq!(place.build_log("one"), "base\nhidden\n3\nread-only\n");
}

#[test]
fn a_job_of_the_sandbox_has_the_network_when_it_or_its_specification_asks() {
    if !bubblewrap() {
        return;
    }
    for asks in ["", "network = true\n", "network = false\n"] {
        let place = Place::new();
        let repository = place.repository("sample");
        let devices = "command = \"tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' | sort | tr -d '\\\\n'\"";
        repository.jobs(&[("silent", devices), ("asks", &format!("{devices}\nnetwork = true"))]);
        place.specify(&[("sample", &repository, "")]);
        let file = std::fs::read_to_string(place.path("specifications.toml")).expect("a file");
        let head = "[[specification]]\n";
        place.write("specifications.toml", &file.replace(head, &format!("{head}{asks}")));
        let ended = run(place.command(&["--one-shot", "--sandbox"]));
        assert!(ended.status.success(), "{}", ended.stderr);
        let text = std::fs::read_to_string("/proc/net/dev").expect("devices");
        let mut all: Vec<&str> =
            text.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim())).collect();
        all.sort_unstable();
        assert_ne!(all, ["lo"], "this machine has no network, so nothing can be told");
        assert_eq!(place.build_log("asks"), all.concat());
        let silent = if asks.contains("true") { all.concat() } else { "lo".to_owned() };
        assert_eq!(place.build_log("silent"), silent, "{asks}");
    }
}

#[test]
fn a_sandbox_that_cannot_be_made_is_no_sandbox_and_is_said_at_the_start() {
    // This `bwrap` exists and may be executed, but makes no namespace.
    for broken in
        ["#!/bin/sh\necho no permission for namespaces >&2\nexit 1\n", "#!/bin/sh\nkill -9 $$\n"]
    {
        let place = Place::new();
        let repository = place.repository("sample");
        repository.jobs(&[("one", "command = \"echo ran\"")]);
        place.specify(&[("sample", &repository, "")]);
        let bin = place.path("bin");
        std::fs::create_dir(&bin).expect("a directory");
        std::fs::write(bin.join("bwrap"), broken).expect("a file");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(bin.join("bwrap"), mode).expect("a mode");
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("a path"));
        let serve = |how: &str| {
            let mut command = place.command(&["--one-shot", how]);
            command.env("PATH", &path);
            run(command)
        };
        let ended = serve("--sandbox=require");
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        assert!(ended.stderr.contains("there is none here"), "{}", ended.stderr);
        let ended = serve("--sandbox=auto");
        assert!(ended.status.success(), "{}", ended.stderr);
        assert!(ended.stderr.contains("WITHOUT one"), "{}", ended.stderr);
        assert_eq!(place.build_log("one"), "ran\n");
    }
}
