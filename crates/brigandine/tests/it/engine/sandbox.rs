//! The sandbox, where bubblewrap is installed; its absence, where it is not.

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
    assert!(ended.status.success(), "{}", ended.stderr);
    assert_eq!(place.jobs(1), ["base|0", "long|3", "one|0"]);
    // Two lines of heading and the loopback device.
    assert_eq!(place.build_log("one"), "base\nhidden\n3\nread-only\n");
}
