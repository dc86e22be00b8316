//! Isolation of a build by bubblewrap: its own processes, network, and a view of the file system
//! that has the system's programs read-only and nothing else of the machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where the program of a build runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sandbox {
    /// As any other process, in a clean directory with a clean environment.
    Off,
    /// Below this bubblewrap.
    Bubblewrap(PathBuf),
}

/// The program `bwrap` on the server's search path.
pub(crate) fn find_bubblewrap() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join("bwrap")).find(|it| it.is_file())
}

/// What the system's programs need and what no build should see otherwise.
const SYSTEM: &[&str] =
    &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu"];
/// Small public parts of `/etc`: names, certificates, the linker's cache.
const ETC: &[&str] = &[
    "/etc/alternatives",
    "/etc/group",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/pki",
    "/etc/ssl",
];

/// The arguments of bubblewrap before the build's own program: `work` is the build's own
/// directory, `outputs` are the outputs it sees.
pub(super) fn arguments(work: &Path, directory: &Path, outputs: &[PathBuf]) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut add = |words: &[&dyn AsRef<std::ffi::OsStr>]| {
        arguments.extend(words.iter().map(|word| word.as_ref().to_owned()));
    };
    add(&[&"--unshare-all", &"--die-with-parent", &"--new-session"]);
    for path in SYSTEM.iter().chain(ETC) {
        add(&[&"--ro-bind-try", path, path]);
    }
    add(&[&"--proc", &"/proc", &"--dev", &"/dev", &"--tmpfs", &"/tmp"]);
    add(&[&"--bind", &work, &work]);
    for output in outputs {
        add(&[&"--ro-bind", output, output]);
    }
    add(&[&"--chdir", &directory, &"--"]);
    arguments
}
