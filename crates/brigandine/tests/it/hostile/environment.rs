//! Variables: those of a job affect only the job, and nobody sees those of the server.

use super::{SANDBOXES, commands, evaluator, sandbox, started_by};
use crate::support::{Place, run};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// Variables that control programs, their loader and their libraries.
const STEERING: [(&str, &str); 16] = [
    ("LD_PRELOAD", "./evil.so"),
    ("LD_AUDIT", "./evil.so"),
    ("LD_LIBRARY_PATH", "."),
    ("LD_DEBUG", "all"),
    ("LD_DEBUG_OUTPUT", "./debug"),
    ("GCONV_PATH", "."),
    ("LOCPATH", "."),
    ("MALLOC_PERTURB_", "7"),
    ("GLIBC_TUNABLES", "glibc.malloc.check=3"),
    ("PATH", ".:/usr/bin:/bin"),
    ("BASH_ENV", "./evil.sh"),
    ("ENV", "./evil.sh"),
    ("GIT_DIR", "/nowhere"),
    ("GIT_SSH_COMMAND", "./evil.sh"),
    ("GIT_CONFIG_GLOBAL", "./evil"),
    ("IFS", "x"),
];

#[test]
fn a_library_that_a_job_preloads_is_loaded_in_the_sandbox_only() {
    let place = Place::new();
    let repository = place.repository("sample");
    let secret = place.write("secret", "the server's token\n");
    let source = place.write(
        "evil.c",
        &format!(
            "#include <stdio.h>\n__attribute__((constructor)) static void f(void) {{\n\
             char line[100] = \"hidden\\n\"; FILE *s = fopen(\"{}\", \"r\");\n\
             if (s) fgets(line, 100, s); printf(\"seen: %s\", line); fflush(stdout); }}\n",
            secret.display()
        ),
    );
    let library = repository.path.join("evil.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
    let built = compiler.output().expect("a C compiler, which `cargo xtask test` installs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    // If these variables reached bubblewrap, the library would run before the program of the job.
    for name in ["LD_PRELOAD", "LD_AUDIT"] {
        let list = format!(
            "[[job]]\nname = \"{name}\"\ncommand = [\"/bin/true\", \"and no shell\"]\nenv = {{ {name} = \"./evil.so\" }}\n"
        );
        repository.commit(&[("brigandine.toml", &list)]);
        place.specify(&[("sample", &repository, "")]);
        let ended = run(place.command(&["--one-shot", &sandbox("require")]));
        assert!(ended.status.success(), "{}", ended.stderr);
        let log = place.build_log(name);
        assert!(!log.contains("token"), "{name}: {log}");
        if name == "LD_PRELOAD" {
            assert_eq!(log, "seen: hidden\n", "the job itself may");
        }
    }
}

#[test]
fn a_job_has_its_variables_and_nothing_else_is_steered_by_them() {
    for kind in SANDBOXES {
        let place = Place::new();
        let repository = place.repository("sample");
        let mut list = String::new();
        for (name, value) in STEERING {
            // The command is not a shell script, because the shell itself reads some of these variables.
            list += &format!(
                "[[job]]\nname = \"{name}\"\ncommand = [\"/usr/bin/env\", \"-u\", \"LD_DEBUG\", \
                 \"/usr/bin/printenv\", \"{name}\"]\nenv = {{ {name} = \"{value}\" }}\n"
            );
        }
        repository.commit(&[
            ("brigandine.toml", &list),
            ("evil.sh", "#!/bin/sh\necho steered\n"),
            ("evil.so", ""),
        ]);
        place.specify(&[("sample", &repository, "")]);
        let ended = run(place.command(&["--one-shot", &sandbox(kind)]));
        ended.check_evaluated();
        for (name, value) in STEERING {
            let log = place.build_log(name);
            assert!(!log.contains("steered"), "{kind} {name}: {log}");
            if name != "LD_DEBUG" && name != "LD_DEBUG_OUTPUT" {
                assert!(log.ends_with(&format!("{value}\n")), "{kind} {name}: {log}");
            }
        }
    }
}

#[test]
fn a_job_and_an_evaluator_see_no_variable_of_the_server_at_their_parents() {
    // Reads the variables of the parent, and, in the sandbox, of the first process that is visible there.
    let script = "for p in $PPID 1; do cat /proc/$p/environ 2>/dev/null | grep -c SECRET; done; \
                  tr '\\0' '\\n' < /proc/self/environ | grep -c SECRET; echo done";
    for kind in SANDBOXES {
        let place = Place::new();
        let repository = place.repository("sample");
        commands(&repository, &[("job", &format!("{{ {script}; }} || true"))]);
        place.specify(&[("sample", &repository, "")]);
        let mut command = place.command(&["--one-shot", &sandbox(kind)]);
        command.env("SECRET_TOKEN", "must not be seen");
        let ended = run(command);
        assert!(ended.status.success(), "{}", ended.stderr);
        assert_eq!(place.build_log("job"), "0\n0\n0\ndone\n", "{kind}");

        let place = Place::new();
        let repository = place.repository("sample");
        evaluator(&place, &repository, &format!("{{ {script}; }} >&2"));
        let mut command = place.command(&["--one-shot", &sandbox(kind)]);
        command.env("SECRET_TOKEN", "must not be seen");
        let ended = run(command);
        assert!(ended.status.success(), "{}", ended.stderr);
        let path = &place.rows("SELECT log_path FROM evaluation")[0];
        assert_eq!(place.stored_log(path), "0\n0\n0\ndone\n", "{kind}");
    }
}

#[test]
fn an_evaluator_in_the_sandbox_sees_its_checkouts_and_nothing_of_the_server() {
    let place = Place::new();
    let repository = place.repository("sample");
    let other = place.repository("other");
    other.commit(&[("text", "of the other input\n")]);
    // The script tries to read the token and the database: relative to its directory, which is in the state directory,
    // and by their absolute paths.
    let script = format!(
        "request=$(cat); ls; cat ../../token {0}/token {0}/brigandine.db 2>/dev/null >&2 && echo seen >&2; \
         other=$(echo \"$request\" | sed 's/.*\"input\":\"other\"[^}}]*\"directory\":\"\\([^\"]*\\)\".*/\\1/'); \
         cat \"$other/text\" >&2; wc -l < /proc/net/dev >&2; touch new && touch \"$HOME/new\" && echo free >&2",
        place.state().display()
    );
    let script = script.replacen("ls; ", "", 1);
    std::fs::create_dir_all(place.state()).expect("the state directory");
    let token = place.state().join("token");
    std::fs::write(&token, "t".repeat(40)).expect("a token");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    evaluator(&place, &repository, &script);
    let specification = std::fs::read_to_string(place.path("specifications.toml")).expect("text");
    let input = format!(
        "[[specification.input]]\nname = \"other\"\nurl = \"{}\"\nbranch = \"main\"\n",
        other.path.display()
    );
    let specification = specification
        .replace("[specification.evaluator]", &format!("{input}[specification.evaluator]"));
    place.write("specifications.toml", &specification);
    let ended = run(place.command(&["--one-shot", &sandbox("require")]));
    assert!(ended.status.success(), "{}", ended.stderr);
    let path = &place.rows("SELECT log_path FROM evaluation")[0];
    // `/proc/net/dev` has three lines: two lines of heading, and the loopback device.
    assert_eq!(place.stored_log(path), "of the other input\n3\nfree\n");
}

#[test]
fn a_build_of_the_sandbox_has_no_right_of_root_even_if_the_server_has() {
    let place = Place::new();
    let repository = place.repository("sample");
    // If a command of this script succeeds, it still changes nothing on the machine.
    let script = "exec 2>&1\ngrep CapEff /proc/self/status\n\
                  for it in / /usr /etc/ssl /proc/sys; do mount -o remount,rw,bind $it && echo REMOUNTED $it; done\n\
                  test -w /usr && echo WRITABLE\n\
                  mount -t tmpfs none /tmp && echo MOUNTED\n\
                  (cat /proc/sys/kernel/printk > /proc/sys/kernel/printk) && echo SET\n\
                  find /proc -writable ! -type l 2>/dev/null | head -3 | sed 's/^/KERNEL /'\n\
                  for it in passwd group nsswitch.conf ld.so.cache; do\n\
                  test -s /etc/$it || echo MISSING $it; echo > /etc/$it && echo WRITTEN; done\n\
                  hostname other && echo NAMED\nexit 0";
    commands(&repository, &[("job", script)]);
    place.specify(&[("sample", &repository, "")]);
    let ended = run(place.command(&["--one-shot", &sandbox("require")]));
    assert!(ended.status.success(), "{}", ended.stderr);
    assert_eq!(place.jobs(1), ["job|0"]);
    let log = place.build_log("job");
    assert!(log.starts_with("CapEff:\t0000000000000000\n"), "{log}");
    for word in ["REMOUNTED", "WRITABLE", "MOUNTED", "SET", "KERNEL", "MISSING", "WRITTEN", "NAMED"]
    {
        assert!(!log.contains(word), "{word}: {log}");
    }
}

#[test]
fn a_build_ignores_no_signal_that_the_server_was_started_to_ignore() {
    for kind in SANDBOXES {
        let place = Place::new();
        let repository = place.repository("sample");
        let script = "grep SigIgn /proc/self/status; exit 3";
        commands(&repository, &[("job", script)]);
        place.specify(&[("sample", &repository, "")]);
        let ignore = "trap '' HUP INT QUIT USR1 USR2 ALRM TERM CHLD CONT TSTP TTIN TTOU WINCH";
        let command = place.command(&["--one-shot", &sandbox(kind)]);
        let ended = run(started_by(ignore, &command));
        ended.check_evaluated();
        let rows = place.rows("SELECT status, message FROM build");
        assert_eq!(rows, ["1|exit status 3"], "{kind}");
        let log = place.build_log("job");
        let ignored = log.trim().rsplit('\t').next().expect("a word");
        let ignored = u64::from_str_radix(ignored, 16).expect("signals");
        // The signals that a program of this kernel may know. The C library keeps two more for itself.
        assert_eq!(ignored & 0x7fff_ffff, 0, "{kind}: {ignored:x}");
    }
}
