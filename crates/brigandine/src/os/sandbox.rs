//! Isolation of a build, in two ways. bubblewrap gives the build namespaces of its own, in which it sees no files of
//! the machine except the system's programs, read-only. A build user gives it an identity without the server's rights.

use super::process::{self, Program, Shown, Supervisors, User};
use rustix::fs::{MemfdFlags, memfd_create};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How untrusted programs run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Sandbox {
    /// The file of the program bubblewrap, which runs the programs. `None`: they run without it, in a clean directory
    /// with a clean environment.
    pub(crate) bubblewrap: Option<PathBuf>,
    /// The user that the programs run as; `None`: the server's user.
    pub(crate) user: Option<User>,
}

/// The program `bwrap` on the server's search path.
fn find_bubblewrap() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join("bwrap")).find(|it| it.is_file())
}

/// Folders with the system's programs.
const SYSTEM: &[&str] =
    &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu"];
/// Public folders of `/etc`. Single files are copied: `COPIED` in `os/process/supervisor.rs`.
const ETC: &[&str] =
    &["/etc/alternatives", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/pki", "/etc/ssl"];

/// Files of `/etc` for the network.
const ETC_NETWORK: &[&str] = &["/etc/hosts", "/etc/resolv.conf", "/etc/services"];
/// The size of `/tmp`, and of `/dev/shm`, in the sandbox, in bytes. Both are in memory.
const TMP_BYTES: &str = "1073741824";

/// What a program in the sandbox sees besides the system.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub(crate) writable: &'a [&'a Path],
    pub(crate) readable: &'a [PathBuf],
    /// `true`: the program has the machine's network; `false`: it has none.
    pub(crate) network: bool,
}

impl Sandbox {
    /// The name of this kind of isolation, which is a part of a job's identity.
    pub(crate) fn class(&self) -> &'static str {
        match (self.bubblewrap.is_some(), self.user.is_some()) {
            (false, false) => "none",
            (false, true) => "none-user",
            (true, false) => "sandbox",
            (true, true) => "sandbox-user",
        }
    }

    /// Makes the build user, if there is one, the owner of a directory that its program writes to. Blocks.
    pub(crate) fn give(&self, directory: &Path) -> io::Result<()> {
        self.user.map_or(Ok(()), |user| user.give(directory))
    }

    /// The program that runs the command `inside` in this sandbox.
    ///
    /// bubblewrap itself starts without variables. It reads those of the command from a file and sets them only for the
    /// program in the sandbox, so a job's `LD_PRELOAD` has no effect outside.
    pub(crate) fn wrap(&self, inside: Command, view: &View<'_>) -> io::Result<Program> {
        let user = self.user;
        let shown = if user.is_some() { view.shown() } else { Vec::new() };
        let Some(bubblewrap) = &self.bubblewrap else {
            return Ok(Program { contained: true, user, shown, ..inside.into() });
        };
        let mut file = File::from(memfd_create("bubblewrap", MemfdFlags::CLOEXEC)?);
        file.write_all(&arguments(&inside, view))?;
        file.rewind()?;
        let mut command = Command::new(bubblewrap);
        command.arg("--").arg(inside.get_program()).args(inside.get_args());
        let sandbox = Some(file.into());
        Ok(Program { sandbox, contained: true, user, shown, ..command.into() })
    }
}

impl View<'_> {
    fn shown(&self) -> Vec<Shown> {
        let writable = self.writable.iter().map(|path| (path.to_path_buf(), true));
        let readable = self.readable.iter().map(|path| (path.clone(), false));
        writable.chain(readable).map(|(path, writable)| Shown { path, writable }).collect()
    }
}

/// The arguments of bubblewrap before the program's own, each with a zero byte after it.
fn arguments(inside: &Command, view: &View<'_>) -> Vec<u8> {
    let mut text = Vec::new();
    let mut add = |words: &[&dyn AsRef<OsStr>]| {
        for word in words {
            text.extend_from_slice(word.as_ref().as_bytes());
            text.push(0);
        }
    };
    add(&[&"--unshare-all", &"--die-with-parent", &"--new-session", &"--clearenv"]);
    // Without this, a program in a bubblewrap that root runs would keep all capabilities in its namespaces. It could
    // remount read-only folders for writing.
    add(&[&"--cap-drop", &"ALL"]);
    if view.network {
        add(&[&"--share-net"]);
    }
    let network = if view.network { ETC_NETWORK } else { &[] };
    for path in SYSTEM.iter().chain(ETC).chain(network) {
        match end_in_usr(Path::new(path)) {
            // A symbolic link is cheaper than a mount: for each mount, bubblewrap reads the list of all mounts.
            Some(end) => add(&[&"--symlink", &end, path]),
            None => add(&[&"--ro-bind-try", path, path]),
        }
    }
    add(&[&"--proc", &"/proc", &"--dev", &"/dev"]);
    add(&[&"--size", &TMP_BYTES, &"--tmpfs", &"/dev/shm"]);
    add(&[&"--size", &TMP_BYTES, &"--tmpfs", &"/tmp"]);
    for path in view.writable {
        add(&[&"--bind", path, path]);
    }
    for path in view.readable {
        add(&[&"--ro-bind", path, path]);
    }
    // Read-only, because root can change kernel settings in `/proc` without a capability, and because the rest of
    // bubblewrap's tree is in memory without a limit.
    add(&[&"--remount-ro", &"/proc", &"--remount-ro", &"/dev", &"--remount-ro", &"/"]);
    if let Some(directory) = inside.get_current_dir() {
        add(&[&"--chdir", &directory]);
    }
    for (name, value) in inside.get_envs() {
        if let Some(value) = value {
            add(&[&"--setenv", &name, &value]);
        }
    }
    text
}

/// The path in `/usr` to which `path` leads by symbolic links; the sandbox shows `/usr`. `None`: `path` does not exist,
/// is no link, or leads elsewhere.
fn end_in_usr(path: &Path) -> Option<PathBuf> {
    let end = path.canonicalize().ok()?;
    (end != path && end.starts_with("/usr")).then_some(end)
}

/// The time limit of a probe.
const PROBE: Duration = Duration::from_secs(20);

/// Runs a program that does nothing in the sandbox, because bubblewrap may be installed without the right to make
/// namespaces.
///
/// # Errors
/// Why there is no sandbox, for people.
pub(crate) async fn probe(
    supervisors: &Supervisors,
    user: Option<User>,
) -> Result<Sandbox, String> {
    let Some(program) = find_bubblewrap() else {
        return Err("`bwrap` is not on the search path".to_owned());
    };
    let sandbox = Sandbox { bubblewrap: Some(program), user };
    let mut nothing = Command::new("true");
    nothing.env("PATH", "/usr/bin:/bin");
    let view = View { writable: &[], readable: &[], network: false };
    let program = sandbox.wrap(nothing, &view).map_err(|error| error.to_string())?;
    match process::capture(supervisors, program, PROBE, 1024).await {
        Ok(done) if done.status.success() => Ok(sandbox),
        Ok(done) if done.stderr.trim().is_empty() => {
            Err(format!("bubblewrap ended with {}", process::describe(done.status)))
        }
        Ok(done) => Err(done.stderr.trim().to_owned()),
        Err(error) => Err(format!("bubblewrap: {error}")),
    }
}

/// What the probe of a user runs: it writes a file, and names the first of its arguments that the user may change.
const PROBE_USER: &str =
    ": > file; for it do [ ! -w \"$it\" ] || { printf %s \"$it\"; exit 77; }; done";
/// The status of [`PROBE_USER`] if it has named an argument.
const CHANGEABLE: i32 = 77;

/// Returns the first of `directories` that the user may change, by the kernel's own answer; `None`: the user may change
/// none. The program that asks also writes a file below `work`, which shows whether anything runs as this user at all.
///
/// # Errors
/// Why nothing can run as this user, for people.
pub(crate) async fn probe_user(
    supervisors: &Supervisors,
    user: User,
    work: &Path,
    directories: &[&Path],
) -> Result<Option<PathBuf>, String> {
    let sandbox = Sandbox { bubblewrap: None, user: Some(user) };
    let failed = |error: io::Error| {
        match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "root may not make a mount namespace here, and without one a build user cannot reach its \
             directory: give the server CAP_SYS_ADMIN (in a container `--cap-add SYS_ADMIN`), or run the \
             server as a user that is not root"
                .to_owned()
        }
        _ => error.to_string(),
    }
    };
    let directory = tempfile::tempdir_in(work).map_err(|error| error.to_string())?;
    sandbox.give(directory.path()).map_err(failed)?;
    let mut nothing = Command::new("/bin/sh");
    nothing.args(["-c", PROBE_USER, "sh"]).args(directories).current_dir(directory.path());
    let view = View { writable: &[directory.path()], readable: &[], network: true };
    let program = sandbox.wrap(nothing, &view).map_err(failed)?;
    match process::capture(supervisors, program, PROBE, 16 * 1024).await {
        Ok(done) if done.status.success() => Ok(None),
        Ok(done) if done.status.code() == Some(CHANGEABLE) => {
            Ok(Some(OsString::from_vec(done.stdout).into()))
        }
        Ok(done) => Err(format!("{}: {}", process::describe(done.status), done.stderr.trim())),
        Err(process::CaptureError::Io(error)) => Err(failed(error)),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_links_that_lead_into_usr_are_links_in_the_sandbox() {
        let directory = tempfile::tempdir().expect("a directory");
        let link = |name: &str, target: &str| {
            let link = directory.path().join(name);
            std::os::unix::fs::symlink(target, &link).expect("a link");
            link
        };
        let env = Path::new("/usr/bin/env").canonicalize().expect("there");
        let direct = link("direct", "/usr/bin/env");
        assert_eq!(end_in_usr(&direct), Some(env.clone()));
        // `env` is found although the sandbox shows neither of the links that lead to it.
        let far = link("far", direct.to_str().expect("text"));
        assert_eq!(end_in_usr(&far), Some(env));
        assert_eq!(end_in_usr(&link("passwd", "/etc/passwd")), None);
        assert_eq!(end_in_usr(&link("dangling", "/usr/no-such-file")), None);
        assert_eq!(end_in_usr(Path::new("/usr")), None);
        assert_eq!(end_in_usr(Path::new("/etc/passwd")), None);
    }
}
