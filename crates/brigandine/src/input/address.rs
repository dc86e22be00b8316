//! Addresses of repositories: their kinds, which of them a `.gitmodules` may name, and with whose rights git fetches
//! them.
//!
//! The author of a specification is trusted with git's configuration and the keys of the server's user. Everybody who
//! can push to a repository can write its `.gitmodules`, so that is trusted less:
//!
//! | a submodule's address | allowed | fetched |
//! |---|---|---|
//! | a path, `file://` | below an input that is itself on this machine, never in the state directory | as the server's user |
//! | `https`, `http`, `git` | yes | without configuration, keys and credentials of the server's user |
//! | any network address that `submodules-from` names | yes | as the server's user |
//! | `ssh`, `host:path` | only if `submodules-from` names it | as the server's user |
//! | anything else (`ext::`, other helpers) | never | |
//!
//! - ADDR1: a submodule's clone is used only for the input from which the submodule was reached, and for the rights
//!   with which it was fetched. So a specification never gets a repository that only another specification may fetch.

use percent_encoding::percent_decode_str;
use std::path::{Path, PathBuf};

/// A repository, and the rights with which git fetches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The repository's address, in the form that git takes.
    pub(super) url: String,
    /// The rights with which git fetches it.
    pub(super) access: Access,
    /// If the repository is a submodule, the address of the input to which it belongs; empty if it is an input itself.
    pub(super) input: String,
}

/// The rights with which git fetches a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// A specification names the repository. git has all rights of the server's user.
    Input,
    /// A `.gitmodules` names the repository, which is on this machine.
    Local,
    /// A `.gitmodules` names the repository, and the specification allows the server's credentials for its address.
    Named,
    /// A `.gitmodules` names the repository. git gets no configuration, keys or credentials of the server's user.
    Anonymous,
}

impl Origin {
    /// An input of a specification.
    pub(crate) fn input(url: &str) -> Self {
        Self { url: url.to_owned(), access: Access::Input, input: String::new() }
    }

    /// The bytes from which the name of the clone is made (ADDR1).
    pub(super) fn key(&self) -> Vec<u8> {
        match self.access {
            Access::Input => self.url.clone().into_bytes(),
            access => format!("{access:?}\0{}\0{}", self.input, self.url).into_bytes(),
        }
    }

    /// The submodule at `address`, which a `.gitmodules` of this repository names. The specification allows the
    /// server's credentials for addresses that begin with one of `from`.
    ///
    /// # Errors
    /// Why the address is not allowed, for people.
    pub(super) fn submodule(
        &self,
        address: &str,
        from: &[String],
        state: &Path,
    ) -> Result<Self, String> {
        let url = relative_to(&self.url, address)
            .ok_or_else(|| format!("`{address}` leads out of its host"))?;
        let input = if self.access == Access::Input { &self.url } else { &self.input };
        let made = |url: String, access| Ok(Self { url, access, input: input.clone() });
        match kind(&url)? {
            Kind::Local(path) => {
                let local = matches!(self.access, Access::Input | Access::Local)
                    && matches!(kind(&self.url), Ok(Kind::Local(_)));
                if !local {
                    return Err(BELOW_LOCAL.to_owned());
                }
                let path = path
                    .canonicalize()
                    .map_err(|error| format!("{GONE}{}: {error}", path.display()))?;
                refuse_state(&path, state)?;
                let path = path.into_os_string().into_string();
                made(path.map_err(|_| "its path is not UTF-8".to_owned())?, Access::Local)
            }
            Kind::Network | Kind::Ssh if is_named(&url, from) => made(url, Access::Named),
            Kind::Network => made(url, Access::Anonymous),
            Kind::Ssh => Err(UNNAMED_SSH.to_owned()),
        }
    }
}

/// Why a submodule on this machine is refused.
const BELOW_LOCAL: &str =
    "a submodule on this machine is allowed below an input on this machine only";
/// Why a submodule over ssh is refused.
const UNNAMED_SSH: &str = "a submodule over ssh is fetched with the server's keys: name the beginning \
    of its address in `submodules-from` of the input";

/// The beginning of the error for a missing path. This error is not final, because the path may exist later.
pub(super) const GONE: &str = "there is nothing at ";

/// How a repository is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A path on this machine.
    Local(PathBuf),
    /// `https`, `http` or `git`.
    Network,
    /// `ssh`, in either spelling.
    Ssh,
}

/// The kind of an address.
///
/// # Errors
/// git could run a program that the address names, or the spelling could hide where the address leads.
pub(super) fn kind(url: &str) -> Result<Kind, String> {
    let refuse = |why: &str| Err(why.to_owned());
    if url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return refuse("its address holds blanks or control characters");
    }
    if url.starts_with('-') {
        return refuse("its address would be an option of git");
    }
    let helper = url.split("::").next().filter(|helper| helper.len() < url.len());
    if helper.is_some_and(|helper| !helper.contains(['/', '[', '@', ':'])) {
        return refuse("its address would make git run a program of its choice");
    }
    let (kind, path) = if let Some((scheme, rest)) = url.split_once("://") {
        let kind = match scheme {
            "file" if rest.starts_with('/') && !rest.contains('%') => {
                return Ok(Kind::Local(PathBuf::from(rest)));
            }
            "file" => return refuse("its file address is not a plain whole path"),
            "https" | "http" | "git" => Kind::Network,
            "ssh" => Kind::Ssh,
            _ => return refuse("it may be https, http, git, ssh, or a path"),
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if host.is_empty() || host.starts_with('-') || host.contains("@-") {
            return refuse("its address names no host");
        }
        (kind, path)
    } else if url.starts_with('/') {
        return Ok(Kind::Local(PathBuf::from(url)));
    } else {
        match url.split_once(':') {
            Some((host, path)) if !host.is_empty() && !host.contains('/') && !path.is_empty() => {
                (Kind::Ssh, path)
            }
            _ => return refuse("its address is neither a whole path nor one of a host"),
        }
    };
    if climbs(path) { refuse("its address has `..` in it") } else { Ok(kind) }
}

/// Whether a path has a `..` in it, also if that is percent-encoded or written with backslashes.
fn climbs(path: &str) -> bool {
    let plain =
        path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "/");
    plain.replace('\\', "/").split('/').any(|part| part == "..")
}

/// Whether `url` begins with one of `from`, up to a whole component of its path.
fn is_named(url: &str, from: &[String]) -> bool {
    from.iter().any(|beginning| {
        url.strip_prefix(beginning.as_str()).is_some_and(|rest| {
            rest.is_empty()
                || beginning.ends_with(['/', ':'])
                || rest.starts_with('/')
                || rest == ".git"
        })
    })
}

/// Refuses a path in the state directory, whose clones, exports and outputs belong to other specifications.
pub(super) fn refuse_state(path: &Path, state: &Path) -> Result<(), String> {
    if path.starts_with(state) {
        return Err("it lies in the server's state directory".to_owned());
    }
    Ok(())
}

/// The path of an input on this machine, decoded and without links and `..`. `None`: the input is on another machine,
/// or does not exist.
pub(super) fn real_path(url: &str) -> Option<PathBuf> {
    let path = match url.strip_prefix("file://") {
        // git decodes the path of a `file://` URL.
        Some(path) => percent_decode_str(path).decode_utf8_lossy().into_owned(),
        None => url.to_owned(),
    };
    path.starts_with('/').then(|| Path::new(&path).canonicalize().ok())?
}

/// A submodule's URL, which may be relative to its parent's. `None`: it leads out of the parent's host.
fn relative_to(parent: &str, address: &str) -> Option<String> {
    if !address.starts_with("./") && !address.starts_with("../") {
        return Some(address.to_owned());
    }
    let mut base = parent.trim_end_matches('/').to_owned();
    // The index at which the host ends and the path begins.
    let host = match base.find("://") {
        Some(scheme) => base[scheme + 3..].find('/').map_or(base.len(), |slash| scheme + 3 + slash),
        None if base.starts_with('/') => 0,
        None => base.find(':').map_or(0, |colon| colon + 1),
    };
    let mut rest = address;
    loop {
        if let Some(below) = rest.strip_prefix("./") {
            rest = below;
        } else if let Some(below) = rest.strip_prefix("../") {
            rest = below;
            if base.len() <= host {
                return None;
            }
            base.truncate(base[host..].rfind('/').map_or(host, |slash| host + slash));
        } else {
            let joint = if base.ends_with(':') { "" } else { "/" };
            return Some(format!("{base}{joint}{rest}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_submodule_urls_are_resolved_as_git_does() {
        for (parent, address, expected) in [
            ("https://h/a/b.git", "../c.git", Some("https://h/a/c.git")),
            ("https://h/a/b.git", "./c.git", Some("https://h/a/b.git/c.git")),
            ("https://h/a/b", "../../x/c", Some("https://h/x/c")),
            ("https://h/a/b", "../../../x/c", None),
            ("git@h:b.git", "../c.git", Some("git@h:c.git")),
            ("git@h:b.git", "../../c.git", None),
            ("/srv/a", "../b", Some("/srv/b")),
            ("/srv/a", "../../b", Some("/b")),
            ("/srv/a", "../../../b", None),
            ("https://h/a", "https://other/c", Some("https://other/c")),
        ] {
            assert_eq!(relative_to(parent, address).as_deref(), expected, "{parent} {address}");
        }
    }

    struct Fixture {
        directory: tempfile::TempDir,
        state: PathBuf,
    }

    fn fixture() -> Fixture {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().canonicalize().expect("a path");
        let state = root.join("state");
        std::fs::create_dir_all(state.join("repositories/private.git")).expect("a directory");
        std::fs::create_dir_all(root.join("open")).expect("a directory");
        std::fs::create_dir_all(root.join("statement")).expect("a directory");
        std::os::unix::fs::symlink(&state, root.join("open/link")).expect("a link");
        Fixture { directory, state }
    }

    #[test]
    fn no_spelling_of_a_path_leads_a_submodule_into_the_state_directory() {
        let fixture = fixture();
        let root = fixture.directory.path().canonicalize().expect("a path");
        let input = Origin::input(&root.join("open").to_string_lossy());
        let root = root.to_string_lossy();
        for address in [
            format!("{root}/state/repositories/private.git"),
            format!("{root}/state/repositories/private.git/"),
            format!("{root}//state/./repositories/private.git"),
            format!("{root}/open/../state/repositories/private.git"),
            format!("{root}/open/link/repositories/private.git"),
            format!("{root}/state"),
            format!("file://{root}/state/repositories/private.git"),
            format!("file://{root}/open/link/repositories/private.git"),
            format!("file://{root}/st%61te/repositories/private.git"),
            format!("file:{root}/state/repositories/private.git"),
            format!("file://localhost{root}/state/repositories/private.git"),
            "../state/repositories/private.git".to_owned(),
            "./../state/repositories/private.git".to_owned(),
            "./link/repositories/private.git".to_owned(),
            "./././../open/link/repositories/private.git".to_owned(),
            "state/repositories/private.git".to_owned(),
            format!("ext::git upload-pack {root}/state/repositories/private.git"),
            format!("fd::7{root}/state"),
            format!("file::{root}/state/repositories/private.git"),
            format!("FILE://{root}/state/repositories/private.git"),
            "-oProxyCommand=x:y".to_owned(),
            "ssh://-oProxyCommand=x/y".to_owned(),
            "ssh://user@-oProxyCommand=x/y".to_owned(),
            String::new(),
        ] {
            let found = input.submodule(&address, &[], &fixture.state);
            assert!(found.is_err(), "{address}: {found:?}");
        }
        let beside = input.submodule("../statement", &[], &fixture.state).expect("another folder");
        assert_eq!(beside.access, Access::Local);
    }

    #[test]
    fn a_submodule_of_the_network_is_never_on_this_machine() {
        let fixture = fixture();
        let input = Origin::input("https://host/group/project.git");
        for address in [
            "/srv/private.git",
            "file:///srv/private.git",
            "../../../srv/private.git",
            "../../../../../../srv/private.git",
            "https://host/group/../private.git",
            "https://host/group/%2e%2E/private.git",
            "https://host/group/..%2fprivate.git",
            "https://host/group/..\\private.git",
            "https:///srv/private.git",
            "git@host:../private.git",
            "ext::sh -c id",
        ] {
            let found = input.submodule(address, &[], &fixture.state);
            assert!(found.is_err(), "{address}: {found:?}");
        }
        for (address, access) in [
            ("https://other/x.git", Access::Anonymous),
            ("../x.git", Access::Anonymous),
            ("git://other/x.git", Access::Anonymous),
        ] {
            let found = input.submodule(address, &[], &fixture.state).expect(address);
            assert_eq!(found.access, access, "{address}");
            // A repository that git fetched without the rights of the server's user passes no rights on to its
            // submodules.
            assert!(found.submodule("/srv/x.git", &[], &fixture.state).is_err(), "{address}");
        }
    }

    #[test]
    fn the_servers_credentials_are_for_what_the_specification_names() {
        let fixture = fixture();
        let input = Origin::input("git@host:group/project.git");
        let from = ["git@host:group/".to_owned(), "https://host/lib".to_owned()];
        for (address, access) in [
            ("../library.git", Some(Access::Named)),
            ("git@host:group/deep/x.git", Some(Access::Named)),
            ("https://host/lib.git", Some(Access::Named)),
            ("https://host/lib/x", Some(Access::Named)),
            ("https://host/library", Some(Access::Anonymous)),
            ("https://host.evil/lib", Some(Access::Anonymous)),
            ("git@host:grouped/x.git", None),
            ("git@host:group/../other/x.git", None),
            ("ssh://git@host/group/x.git", None),
            ("git@host:other.git", None),
        ] {
            let found = input.submodule(address, &from, &fixture.state);
            assert_eq!(found.ok().map(|origin| origin.access), access, "{address}");
        }
    }

    #[test]
    fn clones_of_submodules_are_apart_from_those_of_inputs_and_of_each_other() {
        let origin = |url: &str, access, input: &str| Origin {
            url: url.to_owned(),
            access,
            input: input.to_owned(),
        };
        let all = [
            Origin::input("https://h/a"),
            origin("https://h/a", Access::Anonymous, "https://h/b"),
            origin("https://h/a", Access::Named, "https://h/b"),
            origin("https://h/a", Access::Anonymous, "https://h/c"),
            origin("/h/a", Access::Local, "/h/c"),
            Origin::input("/h/a"),
        ];
        let keys: std::collections::HashSet<_> = all.iter().map(Origin::key).collect();
        assert_eq!(keys.len(), all.len());
    }

    #[test]
    fn the_path_of_an_input_is_what_git_would_open() {
        let fixture = fixture();
        let root = fixture.directory.path().canonicalize().expect("a path");
        let shown = root.to_string_lossy();
        for url in [
            format!("{shown}/state"),
            format!("file://{shown}/st%61te"),
            format!("{shown}/open/link"),
            format!("file://{shown}/open/../state/"),
        ] {
            let path = real_path(&url).expect("a path");
            assert!(refuse_state(&path, &fixture.state).is_err(), "{url}");
        }
        assert_eq!(real_path("https://h/x"), None);
        assert_eq!(real_path("git@h:x"), None);
    }
}
