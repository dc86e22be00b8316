//! The build user: the user of builds and evaluators, if the server is root.
//!
//! Only root may enter the state directory (0700), and perhaps directories above it. So a program runs in a mount
//! namespace of its own. There, an empty directory covers the topmost directory that the program's user may not enter,
//! and the paths that the program needs are bind-mounted into the empty directory. The program sees nothing else of the
//! covered directory, and loses nothing that it could have reached.
//!
//! Which directories a user may enter, only the kernel can say: besides modes there are ACLs, security modules, and
//! what file systems decide themselves. So a process that has become the user tries.
//!
//! - USER1: a shown path is held by a descriptor before anything is covered.
//! - USER2: a program has this user, its group and no other, no capability, and cannot gain rights (no_new_privs).
//! - USER3: nothing runs as this user without a mount namespace, because the program could not reach its own directory.

use crate::os::ffi::{Forked, SingleThread};
use crate::os::folder;
use nix::unistd;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, open};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_bind, mount_remount};
use rustix::process::{Pid, WaitOptions, waitpid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, lchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The user and group that a program runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    pub(super) id: u32,
    pub(super) group: u32,
}

/// The id of `nobody`, which the kernel shows for unknown users.
const OVERFLOW: u32 = 65_534;

/// A path that a program needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shown {
    #[serde(with = "super::path")]
    pub(crate) path: PathBuf,
    pub(crate) writable: bool,
}

impl User {
    /// The user of this name; `None` if there is none.
    ///
    /// # Errors
    /// Why it cannot be the build user, for people.
    pub(crate) fn find(name: &str) -> Result<Option<Self>, String> {
        let found = unistd::User::from_name(name)
            .map_err(|error| format!("the user `{name}` cannot be looked up: {error}"))?;
        let Some(found) = found else { return Ok(None) };
        let user = Self { id: found.uid.as_raw(), group: found.gid.as_raw() };
        match user.id {
            0 => Err(format!("the user `{name}` has the rights of root")),
            OVERFLOW => Err(format!(
                "the user `{name}` is nobody, whom other programs use as well: builds could change what is \
                 theirs"
            )),
            _ if user.group == 0 => Err(format!("the user `{name}` is of the group of root")),
            _ => Ok(Some(user)),
        }
    }

    /// The first of `path` and the directories above it, from the bottom up, that belongs to this user; `None`: none
    /// does. The owner of a directory can move what is in it, and can open it to others. Who else can is asked of the
    /// kernel: `sandbox::probe_user`.
    pub(crate) fn owns(self, path: &Path) -> io::Result<Option<&Path>> {
        for part in path.ancestors() {
            if part.symlink_metadata()?.uid() == self.id {
                return Ok(Some(part));
            }
        }
        Ok(None)
    }

    /// Makes this user the owner of a path and everything below it. No process of this user that can reach the path may
    /// run meanwhile. Blocks.
    pub(crate) fn give(self, path: &Path) -> io::Result<()> {
        lchown(path, Some(self.id), Some(self.group))?;
        if !path.symlink_metadata()?.is_dir() {
            return Ok(());
        }
        // Does not recurse, because sources may be as deep as git stores them.
        folder::each(path, |folder, name| {
            let (id, group) = (Uid::from_raw(self.id), Gid::from_raw(self.group));
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            Ok(rustix::fs::chownat(folder, name, Some(id), Some(group), flags)?)
        })
    }

    /// Makes this user the owner of a pipe, because a program may open a standard descriptor again, as `/dev/stderr`.
    pub(super) fn give_pipe(self, pipe: impl AsFd) -> io::Result<()> {
        let (id, group) = (Uid::from_raw(self.id), Gid::from_raw(self.group));
        Ok(rustix::fs::fchown(pipe, Some(id), Some(group))?)
    }

    /// For each path, the topmost directory on the way to it that this user may not enter; `None`: the user may enter
    /// all of them.
    fn barriers(self, thread: &SingleThread, shown: &[Shown]) -> io::Result<Vec<Option<PathBuf>>> {
        if shown.is_empty() {
            return Ok(Vec::new());
        }
        let (mut answer, mut told) = io::pipe()?;
        let id = match thread.fork()? {
            Forked::Child => {
                drop(answer);
                let found = self.assume().and_then(|()| {
                    shown.iter().map(|it| barrier(&it.path)).collect::<io::Result<Vec<_>>>()
                });
                let found = found
                    .map_err(|error| error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error()));
                let text = serde_json::to_vec(&found).unwrap_or_default();
                std::process::exit(i32::from(told.write_all(&text).is_err()));
            }
            Forked::Parent(id) => id,
        };
        drop(told);
        let mut text = Vec::new();
        let read = answer.read_to_end(&mut text);
        waitpid(Pid::from_raw(id), WaitOptions::empty())?;
        read?;
        let found: Result<Vec<Option<usize>>, i32> = serde_json::from_slice(&text)?;
        let found = found.map_err(io::Error::from_raw_os_error)?;
        let parent = |(it, place): (&Shown, Option<usize>)| {
            place.and_then(|place| it.path.ancestors().nth(place)).map(Path::to_owned)
        };
        Ok(shown.iter().zip(found).map(parent).collect())
    }

    /// Gives this thread the identity that the user's programs have. The thread cannot go back.
    fn assume(self) -> io::Result<()> {
        let (id, group) = (Uid::from_raw(self.id), Gid::from_raw(self.group));
        set_thread_groups(&[])?;
        set_thread_res_gid(group, group, group)?;
        set_thread_res_uid(id, id, id)?;
        // The kernel has removed them, unless it was told to keep them.
        let none = CapabilitySet::empty();
        let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
        Ok(set_capabilities(None, none)?)
    }

    /// Makes the paths visible that this user could not reach otherwise, in the mount namespace of this process.
    pub(super) fn show(self, thread: &SingleThread, shown: &[Shown]) -> io::Result<()> {
        let mut covers = BTreeSet::new();
        let mut hidden = Vec::new();
        for (it, barrier) in shown.iter().zip(self.barriers(thread, shown)?) {
            if let Some(cover) = barrier {
                // USER1
                let held = open(&it.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
                hidden.push((it, held, it.path.is_dir()));
                covers.insert(cover);
            }
        }
        for cover in &covers {
            let flags = MountFlags::NOSUID | MountFlags::NODEV;
            mount("tmpfs", cover, "tmpfs", flags, Some(c"mode=0755"))?;
        }
        for (it, held, is_directory) in hidden {
            let mut directories = DirBuilder::new();
            directories.recursive(true).mode(0o755);
            if is_directory {
                directories.create(&it.path)?;
            } else {
                directories.create(it.path.parent().unwrap_or(Path::new("/")))?;
                File::create(&it.path)?;
            }
            mount_bind(format!("/proc/self/fd/{}", held.as_raw_fd()), &it.path)?;
            if !it.writable {
                let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID;
                mount_remount(&it.path, flags | MountFlags::NODEV, c"")?;
            }
        }
        Ok(())
    }

    /// Makes a command run as this user, and drops the capabilities that the command would inherit (USER2).
    pub(super) fn confine(self, command: &mut Command) -> io::Result<()> {
        // The standard library drops all supplementary groups when root changes the user.
        command.gid(self.group).uid(self.id);
        set_no_new_privs(true)?;
        clear_ambient_capability_set()?;
        for capability in CapabilitySet::all() {
            match remove_capability_from_bounding_set(capability) {
                // The kernel does not know the capability, or does not let it be removed: the user has none anyway.
                Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let own = capabilities(None)?;
        set_capabilities(None, CapabilitySets { inheritable: CapabilitySet::empty(), ..own })?;
        Ok(())
    }
}

/// The topmost directory on the way to `path` that this thread may not enter, as its place among the path's ancestors;
/// `None`: it may enter all of them.
fn barrier(path: &Path) -> io::Result<Option<usize>> {
    let above: Vec<(usize, &Path)> = path.ancestors().enumerate().skip(1).collect();
    for (place, directory) in above.into_iter().rev() {
        // The kernel finds `.` only if the directory may be entered.
        match open(directory.join("."), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Ok(_) => {}
            Err(Errno::ACCESS) => return Ok(Some(place)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{XattrFlags, setxattr};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn root_and_nobody_are_no_users_for_builds() {
        assert_eq!(User::find("no-such-user-here"), Ok(None));
        for (name, why) in [("root", "rights of root"), ("nobody", "is nobody")] {
            assert!(User::find(name).unwrap_err().contains(why), "{name}");
        }
    }

    /// What [`barrier`] says to a thread that has become this user.
    fn barrier_of(user: User, path: &Path) -> Option<PathBuf> {
        std::thread::scope(|scope| {
            let asked = std::thread::Builder::new().name("user".to_owned());
            let asked = asked.spawn_scoped(scope, || {
                user.assume().expect("root may");
                barrier(path).expect("there")
            });
            let place = asked.expect("a thread").join().expect("an answer")?;
            path.ancestors().nth(place).map(Path::to_owned)
        })
    }

    /// An ACL that gives a user of its own other rights than everybody. `false`: the file system has no ACLs.
    fn set_acl(path: &Path, user: User, rights: u16, others: u16) -> bool {
        const ALL: u32 = u32::MAX;
        let entries =
            [(1, 7, ALL), (2, rights, user.id), (4, others, ALL), (16, 7, ALL), (32, others, ALL)];
        let mut bytes = 2_u32.to_le_bytes().to_vec();
        for (tag, rights, id) in entries {
            bytes.extend(u16::to_le_bytes(tag));
            bytes.extend(u16::to_le_bytes(rights));
            bytes.extend(u32::to_le_bytes(id));
        }
        match setxattr(path, "system.posix_acl_access", &bytes, XattrFlags::empty()) {
            Ok(()) => true,
            Err(Errno::NOTSUP) => false,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn the_topmost_directory_that_a_user_may_not_enter_is_found() {
        let place = tempfile::tempdir().expect("directory");
        let root = fs::canonicalize(place.path()).expect("a path");
        let path = root.join("a/b/c");
        fs::create_dir_all(&path).expect("directories");
        let own = root.metadata().expect("there");
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
        };
        let owner = User { id: own.uid(), group: own.gid() };
        assert_eq!(owner.owns(&path).expect("there"), Some(path.as_path()));
        let stranger = User { id: own.uid() + 4711, group: own.gid() + 4711 };
        assert_eq!(stranger.owns(&path).expect("there"), None);
        // Only root can become another user, and nobody else has a build user.
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (owner, member) = (
            User { id: own.uid() + 1, group: own.gid() + 1 },
            User { group: own.gid() + 1, ..stranger },
        );
        for directory in ["", "a", "a/b", "a/b/c"] {
            lchown(root.join(directory), Some(owner.id), Some(owner.group)).expect("an owner");
        }
        set(&root, 0o755);
        for (directory, mode, of_stranger, of_member) in [
            ("", 0o755, None, None),
            ("", 0o700, Some(""), Some("")),
            ("", 0o710, Some(""), None),
            ("", 0o701, None, Some("")),
            ("a", 0o750, Some("a"), None),
            ("a/b", 0o700, Some("a/b"), Some("a/b")),
            ("a/b/c", 0o700, None, None),
        ] {
            set(&root.join(directory), mode);
            let expected = |found: Option<&str>| found.map(|found| root.join(found));
            let barrier = |user| barrier_of(user, &path).map(|found| found.components().collect());
            assert_eq!(barrier(stranger), expected(of_stranger), "{directory} {mode:o}");
            assert_eq!(barrier(member), expected(of_member), "{directory} {mode:o}");
            assert_eq!(barrier(owner), None, "{directory} {mode:o}");
            set(&root.join(directory), 0o755);
        }
        // The same modes, and an ACL that says something else about one user.
        let above = root.join("a");
        if set_acl(&above, stranger, 0, 5) {
            assert_eq!(barrier_of(stranger, &path), Some(above.clone()), "denied");
            assert_eq!(barrier_of(member, &path), Some(above.clone()), "the same user");
            assert_eq!(barrier_of(User { id: stranger.id + 1, ..stranger }, &path), None);
            assert!(set_acl(&above, stranger, 1, 0));
            assert_eq!(barrier_of(stranger, &path), None, "allowed");
            assert_eq!(barrier_of(User { id: stranger.id + 1, ..stranger }, &path), Some(above));
        }
    }
}
