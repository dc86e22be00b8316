//! Outputs have exactly the contents that their digest names, and only the server can read its own files.

use super::{SANDBOXES, commands, sandbox, started_by};
use crate::support::{Place, run};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Collects everything below a folder, with its mode.
fn modes(folder: &Path, below: &str, found: &mut Vec<(String, u32)>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let metadata = entry.metadata().expect("metadata");
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        if metadata.is_dir() {
            modes(&entry.path(), &format!("{name}/"), found);
        }
        if !metadata.is_symlink() {
            found.push((name, metadata.permissions().mode() & 0o7777));
        }
    }
    found.sort();
}

fn output(place: &Place, job: &str) -> PathBuf {
    let sql =
        format!("SELECT path FROM output JOIN build ON build.id = build_id WHERE job = '{job}'");
    let digest = place.rows(&sql).remove(0);
    place.state().join("outputs").join(digest.trim_start_matches("outputs/"))
}

#[test]
fn an_output_has_the_modes_of_its_kinds_and_no_attributes() {
    for kind in SANDBOXES {
        let place = Place::new();
        let repository = place.repository("sample");
        let script = "cd $BRIGANDINE_OUT; mkdir -p d/e; umask 0; \
                      for m in 000 200 400 444 600 644 666 755 777 4755 2755 6777 1777 100 001; do \
                      echo $m > d/$m; chmod $m d/$m; done; chmod 3777 d/e; ln d/644 twin; chmod 700 d; chmod 500 .; \
                      cc -x c -o $TMPDIR/set - <<E
                      int setxattr(const char *, const char *, const void *, unsigned long, int);
                      static const unsigned char list[] = { 2,0,0,0, 1,0,7,0,255,255,255,255, 2,0,7,0,232,3,0,0,
                      4,0,7,0,255,255,255,255, 16,0,7,0,255,255,255,255, 32,0,7,0,255,255,255,255 };
                      int main() { setxattr(\".\", \"user.hidden\", \"x\", 1, 0);
                      setxattr(\".\", \"system.posix_acl_access\", list, sizeof list, 0);
                      setxattr(\".\", \"system.posix_acl_default\", list, sizeof list, 0);
                      return setxattr(\"d/644\", \"user.hidden\", \"x\", 1, 0); }
E
                      $TMPDIR/set || echo no attributes here";
        commands(&repository, &[("job", script)]);
        place.specify(&[("sample", &repository, "")]);
        let ended = run(place.command(&["--one-shot", &sandbox(kind)]));
        assert!(ended.status.success(), "{}", ended.stderr);
        assert_eq!(place.jobs(1), ["job|0"], "{kind}: {}", place.build_log("job"));
        let output = output(&place, "job");
        let mut found = Vec::new();
        modes(&output, "", &mut found);
        assert_eq!(found.len(), 18, "{kind}: {found:?}");
        for (name, mode) in found {
            let runs =
                name == "d" || name == "d/e" || name.chars().any(|digit| "157".contains(digit));
            assert_eq!(mode, if runs { 0o555 } else { 0o444 }, "{kind} {name}: {mode:o}");
        }
        assert_eq!(fs::metadata(&output).expect("it").permissions().mode() & 0o7777, 0o555);
        // The output itself is checked too, because a copy that is made in it would inherit its default ACL.
        for name in ["", "d/644", "twin"] {
            let names = rustix::fs::llistxattr_query(output.join(name)).expect("a file");
            assert_eq!(names, 0, "{kind}: `{name}` has attributes");
        }
    }
}

#[test]
fn a_stored_file_has_no_other_name_through_which_it_could_be_changed() {
    let place = Place::new();
    let repository = place.repository("sample");
    let outside = place.write("outside", "first\n");
    let script = format!(
        "cp {0} own; ln own $BRIGANDINE_OUT/it; ln own {0}.name; ln {0} $BRIGANDINE_OUT/theirs",
        outside.display()
    );
    commands(&repository, &[("job", &script)]);
    place.specify(&[("sample", &repository, "")]);
    place.good_one_shot();
    fs::write(place.path("outside.name"), "changed\n").expect("a file");
    fs::write(&outside, "changed\n").expect("the other file is what it was, and may be written");
    let output = output(&place, "job");
    for name in ["it", "theirs"] {
        let path = output.join(name);
        assert_eq!(fs::read_to_string(&path).expect("there"), "first\n", "{name}");
        assert_eq!(path.metadata().expect("metadata").nlink(), 1, "{name}");
    }
}

#[test]
fn what_the_server_keeps_is_read_by_nobody_else() {
    let place = Place::new();
    let repository = place.repository("sample");
    commands(&repository, &[("job", "echo said")]);
    place.specify(&[("sample", &repository, "")]);
    fs::create_dir(place.state()).expect("a directory");
    fs::set_permissions(place.state(), fs::Permissions::from_mode(0o777)).expect("a mode");
    place.good_one_shot();
    let mode = |path: &Path| path.metadata().expect("metadata").permissions().mode() & 0o7777;
    assert_eq!(mode(&place.state()), 0o700);
    assert_eq!(mode(&place.state().join("brigandine.db")), 0o600);
    let log = &place.rows("SELECT log_path FROM build")[0];
    assert_eq!(mode(&place.state().join(log)), 0o600);
    // The files stay private while a server runs, and so do the files that SQLite makes beside the database.
    let server = crate::support::Process::start(place.command(&[]));
    server.trace("the server runs");
    for entry in fs::read_dir(place.state()).expect("the state").flatten() {
        if entry.file_name().to_string_lossy().starts_with("brigandine.db") {
            assert_eq!(mode(&entry.path()), 0o600, "{:?}", entry.path());
        }
    }
}

/// A program that makes `$1` nested folders named `$2`, and then runs the shell script `$3` in the lowest one.
const DIG: &str = "cc -x c -o $TMPDIR/dig - <<E
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
int main(int n, char **a) { for (int i = atoi(a[1]); i; i--) if (mkdir(a[2], 0755) || chdir(a[2])) return 1;
return n > 3 ? execl(\"/bin/sh\", \"sh\", \"-c\", a[3], 0) : 0; }
E
";

#[test]
fn a_build_that_leaves_folders_deeper_than_the_stack_leaves_nothing_behind() {
    for kind in SANDBOXES {
        let place = Place::new();
        let repository = place.repository("sample");
        let deep = format!("{DIG}$TMPDIR/dig 3000 d");
        let shut = format!("{DIG}$TMPDIR/dig 2000 d 'chmod 0 .'; chmod 0 d");
        let out = format!("{DIG}cd $BRIGANDINE_OUT; $TMPDIR/dig 3000 d");
        commands(&repository, &[("deep", &deep), ("out", &out), ("shut", &shut)]);
        place.specify(&[("sample", &repository, "")]);
        // There are fewer descriptors than levels of folders.
        let ended =
            run(started_by("ulimit -n 300", &place.command(&["--one-shot", &sandbox(kind)])));
        ended.check_evaluated();
        assert_eq!(place.jobs(1), ["deep|0", "out|3", "shut|0"], "{kind}");
        let left = fs::read_dir(place.state().join("work")).expect("work").count();
        assert_eq!(left, 0, "{kind}: {}", ended.stderr);
        assert!(!ended.stderr.contains("cannot remove"), "{kind}: {}", ended.stderr);
    }
}
