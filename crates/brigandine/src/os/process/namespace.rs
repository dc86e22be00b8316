//! A PID namespace for each contained program, where the kernel allows one.
//!
//! The namespace's first process is the supervisor. No process in the namespace can signal the supervisor or leave the
//! namespace. The kernel kills all of them when the supervisor ends, and one call kills all but the supervisor, however
//! fast they fork. The kernel also bounds their number. A fork bomb cannot exceed this bound, and the next measurement
//! kills it.
//!
//! | the server runs as | way | the kernel's bound of processes |
//! |---|---|---|
//! | root | [`Way::Root`] | `kernel.pid_max` of the namespace, from Linux 6.14 |
//! | another user, who may make user namespaces | [`Way::User`] | RLIMIT_NPROC, counted in the namespace |
//! | another user, who may not | none: [`Scope::Tree`] | RLIMIT_NPROC, counted for the user |
//! | root, for programs that run as a [`User`] | [`Way::Root`] | before Linux 6.14 RLIMIT_NPROC, counted for the user |
//! | root without CAP_SYS_ADMIN | none: [`Scope::Tree`] | none, only the measurements of `limits.rs` |
//!
//! Programs in a namespace have a `/proc` of their own, which shows the processes of the namespace only.

use super::tree;
use super::user::User;
use crate::os::ffi::{self, Forked, SingleThread};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{
    DumpableBehavior, Pid, Resource, Rlimit, Signal, WaitOptions, getegid, geteuid, getrlimit,
    set_dumpable_behavior, set_parent_process_death_signal, setrlimit, waitpid,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The kernel does not reuse ids below this number, so the bound on the ids is raised by this number.
const RESERVED: u64 = 300;
/// Room for the supervisor and bubblewrap.
const OWN: u64 = 16;
/// The first kernel with a `kernel.pid_max` for each namespace. Older kernels have only one for the whole machine.
const BOUNDED_SINCE: (u32, u32) = (6, 14);

/// How a namespace is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// The namespace is made with the rights of root.
    Root,
    /// The namespace is made in a user namespace with one user.
    User,
}

/// Makes namespaces.
#[derive(Debug)]
pub(super) struct Namespaces {
    way: Way,
    /// The namespace of this process.
    own: OwnedFd,
}

impl Namespaces {
    /// Tries both ways. `None`: neither works here.
    pub(super) fn find(thread: &SingleThread) -> Option<Self> {
        [Way::Root, Way::User].into_iter().find_map(|way| {
            let own = fs::File::open("/proc/self/ns/pid").ok()?.into();
            Some(Self { way, own }).filter(|found| found.work(thread))
        })
    }

    fn work(&self, thread: &SingleThread) -> bool {
        match thread.fork() {
            Ok(Forked::Child) => {
                let inside = || match thread.fork() {
                    Ok(Forked::Child) => std::process::exit(i32::from(begin().is_err())),
                    Ok(Forked::Parent(id)) => ended_well(id),
                    Err(_) => false,
                };
                let prepared = match self.way {
                    Way::Root => self.prepare(),
                    Way::User => prepare_as_user(),
                };
                let works = prepared.is_ok() && inside() && self.come_back().is_ok();
                std::process::exit(i32::from(!works));
            }
            Ok(Forked::Parent(id)) => ended_well(id),
            Err(_) => false,
        }
    }

    pub(super) fn way(&self) -> Way {
        self.way
    }

    /// [`Way::Root`]: the next fork of this process is the first process of a new namespace. [`Way::User`]: the forked
    /// process calls [`prepare_as_user`], and forks again.
    pub(super) fn prepare(&self) -> io::Result<()> {
        match self.way {
            Way::Root => ffi::unshare(UnshareFlags::NEWPID),
            Way::User => Ok(()),
        }
    }

    /// Undoes [`Namespaces::prepare`]: further forks are again in the namespace of this process.
    pub(super) fn come_back(&self) -> io::Result<()> {
        match self.way {
            Way::Root => {
                let kind = Some(LinkNameSpaceType::ProcessID);
                Ok(move_into_link_name_space(self.own.as_fd(), kind)?)
            }
            Way::User => Ok(()),
        }
    }
}

/// Makes the next fork of this process the first process of a new namespace. The process cannot leave its new user
/// namespace.
pub(super) fn prepare_as_user() -> io::Result<()> {
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    ffi::unshare(UnshareFlags::NEWPID | UnshareFlags::NEWUSER)?;
    // A process that is not dumpable may not write these files. No program runs yet that could trace it.
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1"))?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

fn ended_well(id: i32) -> bool {
    let ended = waitpid(Pid::from_raw(id), WaitOptions::empty());
    matches!(ended, Ok(Some((_, status))) if status.exit_status() == Some(0))
}

/// Called by the first process of a namespace. It will die with the process that forked it, and gets a `/proc` of the
/// namespace.
pub(super) fn begin() -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    ffi::unshare(UnshareFlags::NEWNS)?;
    // Mounts made here do not appear outside; unmounts outside still take effect here.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", flags, None)?;
    Ok(())
}

/// How the processes of a program are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// All processes of this process's namespace but itself.
    Namespace,
    /// All descendants of this process.
    Tree,
}

impl Scope {
    /// Sets the kernel's bound on the number of processes, if there is one. The bound is higher than the limit; the
    /// measurements enforce the limit.
    pub(super) fn bound(self, processes: u64, user: Option<User>) {
        // One of the two bounds is enough. Errors are ignored, because the measurements enforce the limit anyway.
        let by_namespace = self == Self::Namespace && kernel() >= BOUNDED_SINCE;
        if by_namespace {
            let most = processes.saturating_add(RESERVED + OWN).min(1 << 22);
            let _ = fs::write("/proc/sys/kernel/pid_max", most.to_string());
        }
        if !geteuid().is_root() || (user.is_some() && !by_namespace) {
            // The kernel counts the user's processes in the user namespace, or else on the whole machine.
            let alone = self == Self::Namespace && user.is_none();
            let others = if alone { 0 } else { tasks() };
            let most = processes.saturating_mul(2).saturating_add(others + OWN);
            let maximum = getrlimit(Resource::Nproc).maximum.map_or(most, |old| old.min(most));
            let limit = Rlimit { current: Some(maximum), maximum: Some(maximum) };
            let _ = setrlimit(Resource::Nproc, limit);
        }
    }

    /// The ids of the processes, including dead ones that have not been reaped.
    pub(super) fn ids(self) -> Vec<i32> {
        match self {
            Self::Namespace => {
                let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
                let names = processes.flatten().map(|process| process.file_name());
                let ids = names.filter_map(|name| name.to_str()?.parse().ok());
                ids.filter(|id| *id != FIRST).collect()
            }
            Self::Tree => {
                let mut ids = Vec::new();
                tree::visit(&[], &mut |_, id, _| ids.push(id));
                ids
            }
        }
    }

    /// Kills these processes. Returns how many there were.
    pub(super) fn kill(self) -> u32 {
        match self {
            Self::Namespace => {
                let count = u32::try_from(self.ids().len()).unwrap_or(u32::MAX);
                ffi::kill_namespace();
                count
            }
            Self::Tree => {
                tree::stop();
                tree::kill(&[])
            }
        }
    }
}

/// The id of the first process of a namespace.
const FIRST: i32 = 1;

/// The first two numbers of the kernel's version.
fn kernel() -> (u32, u32) {
    let name = rustix::system::uname();
    version(name.release().to_str().unwrap_or(""))
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
    let mut next = || numbers.next().flatten().unwrap_or(0);
    (next(), next())
}

/// The number of threads on the machine.
fn tasks() -> u64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let count =
        text.split_whitespace().nth(3).and_then(|field| field.split_once('/')?.1.parse().ok());
    // If the number is unknown, it is taken to be so large that the bound has no effect.
    count.unwrap_or(1 << 22)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernels_version_is_read_from_its_release() {
        assert_eq!(version("6.18.44-fc-v669"), (6, 18));
        assert_eq!(version("6.14-rc1"), (6, 14));
        assert_eq!(version("5.4"), (5, 4));
        assert_eq!(version("7"), (7, 0));
        assert_eq!(version("unknown"), (0, 0));
        assert!(version("6.9.0") < BOUNDED_SINCE && version("10.0") > BOUNDED_SINCE);
    }

    #[test]
    fn the_machines_threads_are_counted() {
        assert!((1..1 << 22).contains(&tasks()));
    }
}
