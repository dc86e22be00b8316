//! The files that are installed, and where. The package and the tarball have the same ones.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::printed;
use crate::command::{Failed, Line};
use crate::root;

/// Files of the workspace, and where they are installed. Those that end with `.gz` are compressed.
pub(super) const FILES: [(&str, &str); 16] = [
    ("packaging/brigandine.service", "usr/lib/systemd/system/brigandine.service"),
    ("packaging/brigandine.sysusers", "usr/lib/sysusers.d/brigandine.conf"),
    ("packaging/brigandine.toml", "etc/brigandine/brigandine.toml"),
    ("packaging/examples/build-user.conf", "usr/share/doc/brigandine/examples/build-user.conf"),
    ("packaging/examples/drain.conf", "usr/share/doc/brigandine/examples/drain.conf"),
    ("packaging/examples/nginx.conf", "usr/share/doc/brigandine/examples/nginx.conf"),
    ("packaging/examples/nginx-path.conf", "usr/share/doc/brigandine/examples/nginx-path.conf"),
    ("packaging/examples/Caddyfile", "usr/share/doc/brigandine/examples/Caddyfile"),
    ("packaging/examples/Caddyfile-path", "usr/share/doc/brigandine/examples/Caddyfile-path"),
    ("packaging/Containerfile", "usr/share/doc/brigandine/examples/Containerfile"),
    ("packaging/debian/copyright", "usr/share/doc/brigandine/copyright"),
    ("crates/brigandine/CHANGELOG.md", "usr/share/doc/brigandine/changelog.gz"),
    ("docs/operation.md", "usr/share/doc/brigandine/operation.md"),
    ("docs/specifications.md", "usr/share/doc/brigandine/specifications.md"),
    ("docs/http.md", "usr/share/doc/brigandine/http.md"),
    ("docs/threats.md", "usr/share/doc/brigandine/threats.md"),
];

/// What the program prints for each shell, and where that shell looks for it.
pub(super) const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/brigandine"),
    ("fish", "usr/share/fish/vendor_completions.d/brigandine.fish"),
    ("zsh", "usr/share/zsh/vendor-completions/_brigandine"),
];

pub(super) const PROGRAM: &str = "usr/bin/brigandine";
const MANUAL: &str = "usr/share/man/man1";

/// Lays all files out below `tree`, an empty folder.
pub(super) fn lay_out(tree: &Path, program: &Path) -> Result<(), Failed> {
    put(program, &tree.join(PROGRAM))?;
    for (from, to) in FILES {
        match to.strip_suffix(".gz") {
            Some(plain) => {
                put(&root().join(from), &tree.join(plain))?;
                compress(&tree.join(plain))?;
            }
            None => put(&root().join(from), &tree.join(to))?,
        }
    }
    for (shell, to) in COMPLETIONS {
        let to = tree.join(to);
        let text = printed(program, &["completions", shell])?;
        made(&to).and_then(|()| fs::write(&to, text)).map_err(|error| failed(&to, &error))?;
    }
    let manual = tree.join(MANUAL);
    printed(program, &["man", "--directory", &manual.display().to_string()])?;
    let pages = fs::read_dir(&manual).map_err(|error| failed(&manual, &error))?;
    for page in pages.flatten() {
        compress(&page.path())?;
    }
    for path in below(tree)? {
        let is_program = path.ends_with(PROGRAM) || path.is_dir();
        set_mode(&path, if is_program { 0o755 } else { 0o644 })
            .map_err(|error| failed(&path, &error))?;
    }
    Ok(())
}

/// Everything below a folder, and the folder itself.
pub(super) fn below(folder: &Path) -> Result<Vec<PathBuf>, Failed> {
    let (mut found, mut at) = (vec![folder.to_owned()], 0);
    while let Some(path) = found.get(at).cloned() {
        at += 1;
        if path.is_dir() {
            let entries = fs::read_dir(&path).map_err(|error| failed(&path, &error))?;
            for entry in entries {
                found.push(entry.map_err(|error| failed(&path, &error))?.path());
            }
        }
    }
    Ok(found)
}

/// Copies a file, and makes the folders above it.
pub(super) fn put(from: &Path, to: &Path) -> Result<(), Failed> {
    let copied = made(to).and_then(|()| fs::copy(from, to));
    copied.map(drop).map_err(|error| failed(from, &error))
}

fn made(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// Compresses a file without its name and its time, so that the same contents give the same file.
fn compress(path: &Path) -> Result<(), Failed> {
    Line::new("gzip", &["--best", "--no-name", &path.display().to_string()]).quietly()
}

pub(super) fn failed(path: &Path, error: &io::Error) -> Failed {
    Failed(format!("{}: {error}", path.display()))
}

#[cfg(unix)]
pub(super) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
pub(super) fn set_mode(_path: &Path, _mode: u32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
