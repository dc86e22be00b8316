//! The sample repository of the demo.

use crate::command::{Failure, file_failed};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The most times that a git command is run. It is run again if Ctrl-C kills git: git leaves the demo's process group
/// only after the fork, so a signal to the group may reach git before that.
const GIT_TRIES: usize = 8;

/// The files of the first revision.
pub(super) const FILES: &[(&str, &str)] = &[
    ("brigandine.toml", include_str!("../../../demo/brigandine.toml")),
    ("app/expected.txt", include_str!("../../../demo/app/expected.txt")),
    ("app/weave.c", include_str!("../../../demo/app/weave.c")),
    ("checks/manual.sh", include_str!("../../../demo/checks/manual.sh")),
    ("checks/soak.sh", include_str!("../../../demo/checks/soak.sh")),
    ("checks/strict.sh", include_str!("../../../demo/checks/strict.sh")),
    ("docs/licence.txt", include_str!("../../../demo/docs/licence.txt")),
    ("docs/manual.md", include_str!("../../../demo/docs/manual.md")),
    ("lib/rings.c", include_str!("../../../demo/lib/rings.c")),
    ("lib/rings.h", include_str!("../../../demo/lib/rings.h")),
    ("tests/rings_test.c", include_str!("../../../demo/tests/rings_test.c")),
];

/// The files that the second revision changes.
pub(super) const SECOND: &[(&str, &str)] =
    &[("docs/manual.md", include_str!("../../../demo/docs/manual-second.md"))];

/// The sample repository.
pub(super) struct Sample(pub(super) PathBuf);

impl Sample {
    /// Makes the repository with its first revision.
    pub(super) fn make(path: PathBuf) -> Result<Self, Failure> {
        let sample = Self(path);
        std::fs::create_dir_all(&sample.0).map_err(|error| file_failed(&sample.0, &error))?;
        sample.git(&["init", "--quiet", "--initial-branch=main"])?;
        // The visitor is invited to commit to the repository, and may not have told git a name.
        for (key, value) in [
            ("user.name", "Brigandine demo"),
            ("user.email", "demo@localhost"),
            ("commit.gpgSign", "false"),
        ] {
            sample.git(&["config", key, value])?;
        }
        sample.commit(FILES, "Weave sheets of mail")?;
        Ok(sample)
    }

    pub(super) fn commit(&self, files: &[(&str, &str)], subject: &str) -> Result<(), Failure> {
        for (name, contents) in files {
            let path = self.0.join(name);
            path.parent()
                .map_or(Ok(()), std::fs::create_dir_all)
                .and_then(|()| std::fs::write(&path, contents))
                .map_err(|error| file_failed(&path, &error))?;
        }
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--message", subject])
    }

    /// Runs git without the visitor's own configuration.
    pub(super) fn git(&self, arguments: &[&str]) -> Result<(), Failure> {
        let interrupted = |output: &std::io::Result<Output>| {
            output.as_ref().is_ok_and(|output| {
                output.status.signal() == Some(rustix::process::Signal::INT.as_raw())
            })
        };
        let mut output = self.run_git(arguments);
        for _ in 1..GIT_TRIES {
            if interrupted(&output) {
                output = self.run_git(arguments);
            }
        }
        match output {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(Failure::failed(format!(
                "git {} failed ({}): {}",
                arguments.first().unwrap_or(&""),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            ))),
            Err(error) => Err(Failure::failed(format!("git cannot be run: {error}"))),
        }
    }

    fn run_git(&self, arguments: &[&str]) -> std::io::Result<Output> {
        Command::new("git")
            .current_dir(&self.0)
            .args(["-c", "commit.gpgSign=false", "-c", "core.autocrlf=false"])
            .args(arguments)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_AUTHOR_NAME", "Brigandine demo")
            .env("GIT_AUTHOR_EMAIL", "demo@localhost")
            .env("GIT_COMMITTER_NAME", "Brigandine demo")
            .env("GIT_COMMITTER_EMAIL", "demo@localhost")
            .env_remove("GIT_DIR")
            .env_remove("GIT_WORK_TREE")
            .env_remove("GIT_INDEX_FILE")
            .stdin(Stdio::null())
            // git gets a process group of its own, so that Ctrl-C reaches only the demo, which ends once its repository
            // is complete.
            .process_group(0)
            .output()
    }
}
