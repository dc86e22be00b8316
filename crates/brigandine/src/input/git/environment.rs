//! The settings and variables with which git is started, and the programs that it may run.

use super::by_git;
use super::repositories::Repositories;
use crate::input::address::{Access, Origin};
use crate::os::process::{self, STATE_VARIABLE};
use std::io;
use std::path::Path;
use std::process::Command;

/// Settings that make files depend only on their tree and its attributes, on every machine.
const INDEPENDENT: [&str; 7] = [
    "core.attributesFile=/dev/null",
    "core.autocrlf=false",
    "core.eol=lf",
    "core.symlinks=true",
    "core.fileMode=true",
    "core.sparseCheckout=false",
    "core.ignoreCase=false",
];

/// ssh never prompts. It gives up on a host that does not accept the connection, or that falls silent.
const SSH_OPTIONS: &str =
    "-oBatchMode=yes -oConnectTimeout=30 -oServerAliveInterval=15 -oServerAliveCountMax=4";
const LOW_SPEED_TIME: &str = "http.lowSpeedTime=60";
/// A home without keys and passwords.
const NO_HOME: &str = "/nonexistent";

impl Repositories {
    /// A git command without arguments. Its environment keeps git from prompting. It gets only those of the server's
    /// variables that `is_for_git` accepts, such as PATH and those for configuration, keys, certificates and proxies.
    pub(super) fn environment(&self, access: Access) -> Command {
        let mut command = Command::new("git");
        let ssh = std::env::var("GIT_SSH_COMMAND").unwrap_or_else(|_| "ssh".to_owned());
        command.envs(process::passed_on(is_for_git));
        command
            .env(STATE_VARIABLE, &self.state_id)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "true")
            .env("SSH_ASKPASS", "true")
            .env("GCM_INTERACTIVE", "never")
            .env("GIT_SSH_COMMAND", format!("{ssh} {SSH_OPTIONS}"))
            .env("GIT_PROTOCOL_FROM_USER", if access == Access::Input { "1" } else { "0" })
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("LC_ALL", "C")
            .current_dir(&self.directory);
        command
    }

    /// A git command for a clone. git never prompts.
    pub(crate) fn command(&self, repository: &Path, access: Access) -> Command {
        let mut command = self.command_without(access);
        command.arg("--git-dir").arg(repository);
        command
    }

    /// Like [`Repositories::command`], but outside of any repository.
    pub(crate) fn command_without(&self, access: Access) -> Command {
        let mut command = self.environment(access);
        command
            // git must not find a repository that contains the state directory either.
            .env("GIT_CEILING_DIRECTORIES", self.state())
            .args(["-c", "core.hooksPath=/dev/null"])
            .args(["-c", "core.fsmonitor=false"])
            // Refuse addresses that name a program to run (`ext::`) or open descriptors (`fd::`).
            .args(["-c", "protocol.ext.allow=never", "-c", "protocol.fd.allow=never"])
            // Give up a host that accepts a connection and stays silent.
            .args(["-c", "http.lowSpeedLimit=1", "-c", LOW_SPEED_TIME])
            // A fetch does not collect garbage; `tidy` does that.
            .args(["-c", "gc.auto=0", "-c", "maintenance.auto=false"])
            // A fetch adds a whole pack or nothing (OBJ1).
            .args(["-c", "fetch.unpackLimit=1"])
            .args(["-c", "log.showSignature=false"])
            .args(["-c", "advice.detachedHead=false"]);
        let allowed = match access {
            Access::Input => return command,
            Access::Local => "file",
            Access::Named => "https:http:git:ssh",
            Access::Anonymous => {
                // git runs without the configuration, keys, cookies and passwords of the server's user.
                for name in ["GIT_CONFIG_COUNT", "GIT_CONFIG_PARAMETERS", "XDG_CONFIG_HOME"] {
                    command.env_remove(name);
                }
                command
                    .env_remove("SSH_AUTH_SOCK")
                    .env("GIT_CONFIG_GLOBAL", "/dev/null")
                    .env("GIT_CONFIG_NOSYSTEM", "1")
                    .env("HOME", NO_HOME)
                    .args(["-c", "credential.helper="]);
                "https:http:git"
            }
        };
        command.env("GIT_ALLOW_PROTOCOL", allowed);
        command
    }

    /// A git command that writes the files of a clone's revision below `work`, whatever the machine's settings are
    /// (CKOUT1). It runs in a repository at `blank` that has no settings and no `info/attributes` and borrows the
    /// clone's objects. Only the allowed filters run.
    pub(crate) async fn export_command(
        &self,
        origin: &Origin,
        blank: &Path,
        work: &Path,
    ) -> io::Result<Command> {
        for folder in ["refs", "objects"] {
            std::fs::create_dir_all(blank.join(folder))?;
        }
        std::fs::write(blank.join("HEAD"), "ref: refs/heads/none\n")?;
        let clone = self.path(origin);
        if by_git::is_for(&clone) {
            std::fs::write(blank.join("config"), by_git::CONFIGURATION)?;
        }
        large_files(blank, &clone.join("lfs"))?;
        let configuration = self.configuration().await.map_err(io::Error::other)?;
        let mut command = self.command(blank, origin.access);
        command
            .env("GIT_OBJECT_DIRECTORY", clone.join("objects"))
            .env("GIT_WORK_TREE", work)
            .env("GIT_ATTR_NOSYSTEM", "1")
            .current_dir(work)
            .args(["-c", "core.bare=false"]);
        for setting in INDEPENDENT {
            command.args(["-c", setting]);
        }
        let mut settings = configuration.settings(&self.filters);
        // These settings override an `.lfsconfig` in the tree, which could name any address. For a repository on this
        // machine git-lfs requires a remote that exists.
        for key in ["lfs.url", "remote.origin.url"] {
            settings.push((key.to_owned(), lfs_url(&origin.url)));
        }
        // These settings are numbered after those in the server's own environment.
        let anonymous = origin.access == Access::Anonymous;
        let before = std::env::var("GIT_CONFIG_COUNT").ok().filter(|_| !anonymous);
        let before: usize = before.and_then(|count| count.parse().ok()).unwrap_or(0);
        command.env("GIT_CONFIG_COUNT", (before + settings.len()).to_string());
        for (place, (key, value)) in settings.into_iter().enumerate() {
            let place = before + place;
            command.env(format!("GIT_CONFIG_KEY_{place}"), key);
            command.env(format!("GIT_CONFIG_VALUE_{place}"), value);
        }
        Ok(command)
    }
}

/// Makes git-lfs keep the large files that it fetches in a folder of the clone, but not the logs that it writes about
/// failures. The setting `lfs.storage` would do the same, but it would also apply to a source on this machine.
fn large_files(blank: &Path, kept: &Path) -> io::Result<()> {
    std::fs::create_dir_all(blank.join("lfs"))?;
    for folder in ["objects", "tmp", "incomplete"] {
        let kept = kept.join(folder);
        std::fs::create_dir_all(&kept)?;
        std::os::unix::fs::symlink(kept, blank.join("lfs").join(folder))?;
    }
    Ok(())
}

/// The address at which LFS finds the files of a repository: beside the repository, whatever the tree says.
fn lfs_url(url: &str) -> String {
    let trimmed = url.trim_end_matches('/');
    if trimmed.starts_with("https://") || trimmed.starts_with("http://") {
        let bare = trimmed.strip_suffix(".git").unwrap_or(trimmed);
        return format!("{bare}.git/info/lfs");
    }
    if trimmed.starts_with('/') {
        return format!("file://{trimmed}");
    }
    // There is no LFS over `git://`, so the fetch fails.
    trimmed.to_owned()
}

/// Whether git inherits this environment variable from the server.
fn is_for_git(name: &str) -> bool {
    const NAMES: [&str; 14] = [
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "TMPDIR",
        "TZ",
        "SSH_AUTH_SOCK",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "GIT_EXEC_PATH",
        "GIT_SSH",
        "GIT_SSH_VARIANT",
        "GIT_HTTP_USER_AGENT",
        "GIT_PROXY_COMMAND",
    ];
    const BEGINNINGS: [&str; 3] = ["XDG_", "GIT_CONFIG_", "GIT_SSL_"];
    NAMES.contains(&name)
        || BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
        || matches!(
            name.to_ascii_lowercase().as_str(),
            "http_proxy" | "https_proxy" | "all_proxy" | "no_proxy"
        )
}

#[cfg(test)]
mod tests {
    use super::lfs_url;

    #[test]
    fn files_of_lfs_are_where_the_repository_is() {
        for (url, lfs) in [
            ("https://h/a.git", "https://h/a.git/info/lfs"),
            ("https://h/a/", "https://h/a.git/info/lfs"),
            ("/srv/a.git", "file:///srv/a.git"),
            ("file:///srv/a", "file:///srv/a"),
            ("git@h:a.git", "git@h:a.git"),
        ] {
            assert_eq!(lfs_url(url), lfs, "{url}");
        }
    }
}
