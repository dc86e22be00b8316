//! File systems that a test mounts: small ones that become full, and several of them below one state directory.

use crate::support::{Place, Process};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A mount namespace with file systems in memory. They are gone when this is dropped.
pub(super) struct Mounts {
    holder: Process,
}

impl Mounts {
    /// Mounts a file system of the given size (such as `16m`) at each of these folders, and makes the folders if they
    /// do not exist.
    ///
    /// # Panics
    /// This machine allows no mount namespace, so the test cannot run.
    pub(super) fn new(folders: &[(&Path, &str)]) -> Self {
        let mut script = "set -e".to_owned();
        for (folder, size) in folders {
            let folder = folder.display();
            script +=
                &format!("; mkdir -p '{folder}'; mount -t tmpfs -o size={size} tmpfs '{folder}'");
        }
        script += "; echo mounted; exec cat";
        let mut command = Command::new("unshare");
        if !is_root() {
            command.arg("--map-root-user");
        }
        command.args(["--mount", "sh", "-c", &script]).stdin(Stdio::piped());
        let holder = Process::start(command);
        assert_eq!(holder.line(), "mounted", "no mount namespace can be had on this machine");
        Self { holder }
    }

    /// The same command, in the namespace in which these file systems are mounted.
    pub(super) fn command(&self, command: &Command) -> Command {
        let id = self.holder.child.id();
        let mut within = Command::new("nsenter");
        within.arg(format!("--mount=/proc/{id}/ns/mnt"));
        if !is_root() {
            within.arg(format!("--user=/proc/{id}/ns/user")).arg("--preserve-credentials");
        }
        within.arg("--").arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => within.env(name, value),
                None => within.env_remove(name),
            };
        }
        within
    }

    /// The path by which a file of these file systems can be reached from outside of the namespace.
    pub(super) fn path(&self, path: &Path) -> PathBuf {
        let inside = path.strip_prefix("/").expect("an absolute path");
        Path::new("/proc").join(self.holder.child.id().to_string()).join("root").join(inside)
    }

    /// Fills the file system of a folder to its last byte with one file, and returns that file's path.
    pub(super) fn fill(&self, folder: &Path) -> PathBuf {
        let path = self.path(folder).join("filler");
        let mut file = fs::File::create(&path).expect("a file");
        // The copy ends with the error that the disk is full.
        let error = std::io::copy(&mut std::io::repeat(7), &mut file).expect_err("full");
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        path
    }
}

pub(super) fn is_root() -> bool {
    let done = Command::new("id").arg("-u").output().expect("id");
    done.stdout == b"0\n"
}

/// A place for a server in a mount namespace, and a repository with these jobs.
pub(super) fn place(jobs: &[(&str, &str)]) -> Place {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.jobs(jobs);
    place.specify(&[("sample", &repository, "")]);
    place
}
