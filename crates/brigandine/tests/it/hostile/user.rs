//! A server that is root runs builds and evaluators as another user: which user that may be, and what that user cannot
//! do.
//!
//! `daemon` is the build user of these tests, because every Linux system has it; the tests leave no files that belong
//! to it. If the tests run as another user than root, they check the error that the server reports.

use super::{SANDBOXES, commands, evaluator, sandbox};
use crate::support::{Ended, PROGRAM, Place, Repository, run};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

fn output(command: &str, arguments: &[&str]) -> String {
    let done = Command::new(command).args(arguments).output().expect(command);
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

fn is_root() -> bool {
    output("id", &["-u"]) == "0"
}

/// A place whose builds run as `daemon`. Other users may enter its directory, as they may enter the directories above a
/// real state directory.
fn place() -> Place {
    let place = Place::new();
    place.write("config.toml", "build-user = \"daemon\"\n");
    fs::set_permissions(place.path(""), fs::Permissions::from_mode(0o755)).expect("a mode");
    place
}

fn built(place: &Place, repository: &Repository, kind: &str) -> Ended {
    place.specify(&[("sample", repository, "")]);
    run(place.command(&["--one-shot", &sandbox(kind)]))
}

/// Checks that the server, which is not root, refuses `build-user` and says why.
fn is_refused(ended: &Ended) {
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("only a server that runs as root"), "{}", ended.stderr);
    assert!(ended.stderr.contains("`daemon` (build-user)"), "{}", ended.stderr);
}

#[test]
fn builds_of_root_run_as_the_build_user_without_any_right() {
    for kind in SANDBOXES {
        let place = place();
        let repository = place.repository("sample");
        let script = "id -u; id -g; id -G; umask\n\
                      grep -E '^(Cap|NoNewPrivs)' /proc/self/status | tr -d '\\t'\n\
                      echo out > $BRIGANDINE_OUT/it; echo made > made; echo $HOME > $TMPDIR/x\n\
                      echo told > /dev/stderr; echo told > /dev/stdout";
        commands(&repository, &[("job", script)]);
        let ended = built(&place, &repository, kind);
        if !is_root() {
            return is_refused(&ended);
        }
        assert!(ended.status.success(), "{}", ended.stderr);
        let (user, group) = (output("id", &["-u", "daemon"]), output("id", &["-g", "daemon"]));
        let log = place.build_log("job");
        // In a user namespace the kernel shows `nobody` for groups that are not mapped.
        assert!(log.starts_with(&format!("{user}\n{group}\n{group}\n0022\n")), "{kind}: {log}");
        let none = "0000000000000000";
        for set in ["Inh", "Prm", "Eff", "Bnd", "Amb"] {
            assert!(log.contains(&format!("\nCap{set}:{none}\n")), "{kind}: {log}");
        }
        assert!(log.ends_with("\nNoNewPrivs:1\ntold\ntold\n"), "{kind}: {log}");
    }
}

#[test]
fn outputs_of_the_build_user_are_the_servers_when_they_are_stored() {
    for kind in SANDBOXES {
        let place = place();
        let repository = place.repository("sample");
        let script = "set -e; cd $BRIGANDINE_OUT; mkdir -p d/e; echo 1 > d/e/f; echo 2 > x; chmod 6755 x; ln -s x l\n\
                      ln x second; touch locked; chmod 0 locked; mkdir shut; echo 3 > shut/in; chmod 0 shut\n\
                      echo 4 > $OLDPWD/product";
        let script = serde_json::Value::from(script);
        let list = format!(
            "[[job]]\nname = \"job\"\ncommand = {script}\nproducts = [\"product\"]\n\
             [[job]]\nname = \"next\"\nneeds = [\"job\"]\ncommand = \"\"\"set +e; cd $BRIGANDINE_NEEDS/job\n\
             cat d/e/f product; test -x x; for it in d/e/f d new .; do echo bad 2>/dev/null > $it; \
             chmod 777 $it 2>/dev/null; mv $it moved 2>/dev/null; rm -rf $it 2>/dev/null; done; :\"\"\"\n"
        );
        repository.commit(&[("brigandine.toml", &list)]);
        let ended = built(&place, &repository, kind);
        if !is_root() {
            return is_refused(&ended);
        }
        assert!(ended.status.success(), "{}", ended.stderr);
        assert_eq!(place.jobs(1), ["job|0", "next|0"], "{kind} {}", place.build_log("job"));
        assert_eq!(place.build_log("next"), "1\n4\n", "{kind}");
        let mut seen = 0;
        each(&place.state().join("outputs"), &mut |path| {
            let metadata = path.symlink_metadata().expect("there");
            assert_eq!((metadata.uid(), metadata.gid()), (0, 0), "{kind} {}", path.display());
            let mode = metadata.mode() & 0o7777;
            let runs = path.ends_with("x") || path.ends_with("second") || metadata.is_dir();
            if !metadata.is_symlink() {
                assert_eq!(mode, if runs { 0o555 } else { 0o444 }, "{kind} {}", path.display());
            }
            seen += 1;
        });
        assert_eq!(seen, 11, "{kind}");
        let left = fs::read_dir(place.state().join("work")).expect("work").count();
        assert_eq!(left, 0, "{kind}");
    }
}

/// Calls `f` with everything below a directory, except for the empty output.
fn each(directory: &Path, f: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        if !path.ends_with(empty) {
            f(&path);
            if path.symlink_metadata().expect("there").is_dir() {
                each(&path, f);
            }
        }
    }
}

/// What a hostile program tries to read and to change. `STATE` is the path of the state directory.
const REACH: &str = "set +e; ls -A $STATE | sort | tr '\\n' ' '; ls $STATE/work | wc -l\n\
    cat $STATE/token $STATE/brigandine.db $STATE/lock 2>/dev/null | wc -c\n\
    for it in token brigandine.db x outputs/x work/x; do echo bad 2>/dev/null > $STATE/$it && echo wrote $it; done\n\
    for it in lock token brigandine.db outputs; do rm -r $STATE/$it 2>/dev/null && echo removed $it; done\n\
    find / -xdev -name token -readable 2>/dev/null | grep brigandine-reach\n\
    cat /proc/1/environ /proc/$PPID/environ 2>/dev/null | wc -c; umount $STATE 2>/dev/null && echo uncovered\n\
    unshare -rm umount $STATE 2>/dev/null && echo uncovered; :";

/// Checks that the state directory is unchanged. Returns what [`REACH`] printed, without the lines about writes that
/// succeeded in the sandbox: there `/tmp`, which contains the state directory, is another folder that programs may
/// write to.
fn reached(place: &Place, kind: &str, log: &str) -> String {
    let state = place.state();
    let token = fs::read_to_string(state.join("token")).expect("a token");
    assert!(token.starts_with("brigandine-reach-"), "{token}");
    for name in ["x", "outputs/x", "work/x"] {
        assert!(!state.join(name).exists(), "{name} was made");
    }
    let own = kind == "require";
    let lines =
        log.lines().filter(|line| !own || !line.starts_with(['w', 'r']) || *line == "work 1");
    lines.map(|line| line.to_owned() + "\n").collect()
}

#[test]
fn the_build_user_reaches_nothing_of_the_state_directory_but_its_own() {
    for kind in SANDBOXES {
        for kept in [0o755, 0o700] {
            let place = place();
            // With the second mode, other users cannot enter the directory above the state directory, as is usual for
            // directories of root.
            fs::set_permissions(place.path(""), fs::Permissions::from_mode(kept)).expect("a mode");
            let repository = place.repository("sample");
            fs::create_dir_all(place.state()).expect("a directory");
            place.write("state/token", "brigandine-reach-0123456789abcdef\n");
            let script = format!("STATE={}\n{REACH}\n", place.state().display());
            // Another job runs at the same time. The first job must not find its directory.
            commands(&repository, &[("job", &script), ("other", "sleep 2")]);
            let ended = built(&place, &repository, kind);
            if !is_root() {
                return is_refused(&ended);
            }
            assert!(ended.status.success(), "{}", ended.stderr);
            assert_eq!(
                reached(&place, kind, &place.build_log("job")),
                "work 1\n0\n0\n",
                "{kind} {kept:o}"
            );
            assert_eq!(place.jobs(1), ["job|0", "other|0"], "{kind}");
        }
    }
}

/// Gives the build user other rights to a directory than its mode says. `false`: the file system has no ACLs.
fn set_acl(path: &Path, rights: u16) -> bool {
    const ALL: u32 = u32::MAX;
    let user = output("id", &["-u", "daemon"]).parse().expect("a number");
    let entries = [(1, 7, ALL), (2, rights, user), (4, 5, ALL), (16, 7, ALL), (32, 5, ALL)];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        bytes.extend(u16::to_le_bytes(tag));
        bytes.extend(u16::to_le_bytes(rights));
        bytes.extend(u32::to_le_bytes(id));
    }
    let flags = rustix::fs::XattrFlags::empty();
    match rustix::fs::setxattr(path, "system.posix_acl_access", &bytes, flags) {
        Ok(()) => true,
        Err(rustix::io::Errno::NOTSUP) => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_build_user_reaches_its_directory_whatever_an_acl_above_denies() {
    if !is_root() {
        return;
    }
    for kind in SANDBOXES {
        let place = place();
        let repository = place.repository("sample");
        commands(&repository, &[("job", "id -un; ls $PWD/.. | wc -l")]);
        if !set_acl(&place.path(""), 0) {
            return;
        }
        let ended = built(&place, &repository, kind);
        assert!(ended.status.success(), "{kind}: {}", ended.stderr);
        assert!(place.build_log("job").starts_with("daemon\n"), "{kind}");
    }
}

#[test]
fn evaluators_of_root_run_as_the_build_user() {
    for kind in SANDBOXES {
        let place = place();
        let repository = place.repository("sample");
        fs::create_dir_all(place.state()).expect("a directory");
        place.write("state/token", "brigandine-reach-0123456789abcdef\n");
        let script = format!(
            "exec 3>&1 >&2; id -u; touch new $HOME/x $TMPDIR/y; STATE={}\n{REACH}\nexec >&3",
            place.state().display()
        );
        evaluator(&place, &repository, &script);
        let ended = run(place.command(&["--one-shot", &sandbox(kind)]));
        if !is_root() {
            return is_refused(&ended);
        }
        assert!(ended.status.success(), "{}", ended.stderr);
        assert_eq!(place.jobs(1), ["one|0"], "{kind}");
        let path = &place.rows("SELECT log_path FROM evaluation")[0];
        let user = output("id", &["-u", "daemon"]);
        let reached = reached(&place, kind, &place.stored_log(path));
        assert_eq!(reached, format!("{user}\nwork 1\n0\n0\n"), "{kind}");
    }
}

#[test]
fn a_list_that_is_read_by_a_process_is_read_whatever_modes_the_server_gives() {
    if !is_root() {
        return;
    }
    for kind in SANDBOXES {
        let place = place();
        let repository = place.repository("sample");
        // The job list is too large for the server to read it itself. The attribute makes git write the files to a
        // directory.
        let filler = "# a comment\n".repeat(20_000);
        let list = format!("{filler}[[job]]\nname = \"one\"\ncommand = \"cat data\"\n");
        repository.commit(&[
            ("brigandine.toml", &list),
            (".gitattributes", "data text\n"),
            ("data", "data\n"),
        ]);
        place.specify(&[("sample", &repository, "")]);
        let server = place.command(&["--one-shot", &sandbox(kind)]);
        let mut command = Command::new("sh");
        command.args(["-c", "umask 077; exec \"$@\"", "sh"]);
        command.arg(server.get_program()).args(server.get_args());
        let ended = run(command);
        assert!(ended.status.success(), "{}", ended.stderr);
        assert_eq!(place.jobs(1), ["one|0"], "{kind}");
        assert_eq!(place.build_log("one"), "data\n", "{kind}");
    }
}

#[test]
fn a_user_that_is_no_user_for_builds_is_refused_in_words() {
    for (name, why) in [
        ("nobody", "is nobody, whom other programs use as well"),
        ("root", "is root: builds could do whatever the server may"),
        ("", "`build-user` is empty"),
    ] {
        let place = Place::new();
        let path = place.write("config.toml", &format!("build-user = \"{name}\"\n"));
        let mut check = Command::new(PROGRAM);
        check.args(["check", "--config"]).arg(&path);
        let checked = run(check);
        assert_eq!(checked.status.code(), Some(1), "{name}: {}", checked.stdout);
        let repository = place.repository("sample");
        commands(&repository, &[("job", "true")]);
        let ended = built(&place, &repository, "off");
        assert_eq!(ended.status.code(), Some(1), "{name}: {}", ended.stderr);
        assert!(ended.stderr.contains(why), "{name}: {}", ended.stderr);
        assert!(ended.stderr.contains("useradd --system"), "{name}: {}", ended.stderr);
    }
    if !is_root() {
        return;
    }
    let place = Place::new();
    place.write("config.toml", "build-user = \"no-such-user-here\"\n");
    let repository = place.repository("sample");
    commands(&repository, &[("job", "true")]);
    let ended = built(&place, &repository, "off");
    assert!(ended.stderr.contains("there is no user `no-such-user-here`"), "{}", ended.stderr);
    // The build user owns the state directory, so it could open the directory to others.
    let place = self::place();
    let repository = place.repository("sample");
    commands(&repository, &[("job", "true")]);
    fs::create_dir_all(place.state()).expect("a directory");
    let user = output("id", &["-u", "daemon"]).parse().expect("a number");
    chown(place.state(), Some(user), None).expect("an owner");
    let ended = built(&place, &repository, "off");
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("`daemon` owns"), "{}", ended.stderr);
}

#[test]
fn a_user_that_could_exchange_the_state_directory_is_refused() {
    if !is_root() {
        return;
    }
    let mode = |place: &Place, mode| {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(place.path(""), mode).expect("a mode");
        true
    };
    type Prepare<'a> = &'a dyn Fn(&Place) -> bool;
    let cases: [(&str, Prepare<'_>, bool); 5] = [
        ("a mode", &|place| mode(place, 0o757), true),
        ("a sticky mode", &|place| mode(place, 0o1777), false),
        ("a closed directory", &|place| mode(place, 0o702), false),
        ("an ACL", &|place| set_acl(&place.path(""), 7), true),
        ("an ACL for reading", &|place| set_acl(&place.path(""), 5), false),
    ];
    for (what, prepare, is_refused) in cases {
        let place = place();
        let repository = place.repository("sample");
        commands(&repository, &[("job", "true")]);
        if !prepare(&place) {
            continue;
        }
        let ended = built(&place, &repository, "off");
        assert_eq!(ended.status.success(), !is_refused, "{what}: {}", ended.stderr);
        let told = format!("`daemon` may change {}", place.path("").display());
        let told = told.trim_end_matches('/');
        assert_eq!(ended.stderr.contains(told), is_refused, "{what}: {}", ended.stderr);
    }
}

#[test]
fn without_a_build_user_root_is_warned_and_with_the_usual_one_it_is_taken() {
    let place = Place::new();
    let repository = place.repository("sample");
    commands(&repository, &[("job", "id -un")]);
    let ended = built(&place, &repository, "off");
    assert!(ended.status.success(), "{}", ended.stderr);
    let warned = ended.stderr.contains("builds and evaluators run as root");
    let known = !output("id", &["-u", "brigandine-build"]).is_empty();
    assert_eq!(warned, is_root() && !known, "{}", ended.stderr);
    if !is_root() {
        assert_eq!(place.build_log("job"), output("id", &["-un"]) + "\n");
        return;
    }
    // Acts as a machine with the usual build user: this machine, with another list of users.
    let place = Place::new();
    let repository = place.repository("sample");
    commands(&repository, &[("job", "id -un")]);
    place.specify(&[("sample", &repository, "")]);
    let users = fs::read_to_string("/etc/passwd").expect("users");
    let users = format!("{users}brigandine-build:x:64123:64123::/nonexistent:/bin/false\n");
    let users = place.write("passwd", &users);
    let server = place.command(&["--one-shot", &sandbox("off")]);
    assert_eq!(server.get_program(), PROGRAM);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/passwd && exec \"$@\""]);
    command.arg(users).arg(server.get_program()).args(server.get_args());
    let ended = run(command);
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(!ended.stderr.contains("run as root"), "{}", ended.stderr);
    assert_eq!(place.build_log("job"), "brigandine-build\n");
}
